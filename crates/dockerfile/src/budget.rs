//! What replacing variables may cost. A few lines of `ENV A=$A$A` would otherwise fill any memory, and a pattern any day.

use std::cell::Cell;

use crate::fault::Fault;

/// The longest values of one word, together.
const WORD_BYTES: usize = 1024 * 1024;

/// The same of all words of an instruction.
const INSTRUCTION_BYTES: usize = 4 * WORD_BYTES;

/// Steps that the patterns of an instruction may take: a fraction of a second.
const STEPS: usize = 16 * 1024 * 1024;

/// What a variable counts for, however short its value is: finding it takes a while.
const VARIABLE_BYTES: usize = 16;

/// What is left for an instruction.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: Cell<usize>,
    /// Of the word that is read.
    word: Cell<usize>,
    steps: Cell<usize>,
}

impl Budget {
    pub(crate) fn new() -> Budget {
        Budget { bytes: Cell::new(INSTRUCTION_BYTES), word: Cell::new(WORD_BYTES), steps: Cell::new(STEPS) }
    }

    pub(crate) fn begin_word(&self) {
        self.word.set(WORD_BYTES);
    }

    /// A value of so many bytes.
    pub(crate) fn value(&self, bytes: usize) -> Result<(), Fault> {
        let bytes = bytes.saturating_add(VARIABLE_BYTES);
        take(&self.word, bytes)?;
        take(&self.bytes, bytes)
    }

    /// So many steps of a pattern.
    pub(crate) fn steps(&self, steps: usize) -> Result<(), Fault> {
        take(&self.steps, steps)
    }
}

fn take(left: &Cell<usize>, count: usize) -> Result<(), Fault> {
    left.set(left.get().checked_sub(count).ok_or(Fault::TooLong)?);
    Ok(())
}
