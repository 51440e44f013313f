//! What is wrong with one field of a specification; its full name is told with it ([`crate::PlanError::Field`]).

use crate::error::PlanError;

/// What is wrong with a field's value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// There is no value.
    #[error("is empty")]
    Empty,
    /// The word means nothing here.
    #[error("unknown word {word:?}")]
    Unknown {
        /// The word.
        word: String,
    },
    /// Something of which there can be one is there twice.
    #[error("{word:?} is there twice")]
    Duplicate {
        /// What is there.
        word: String,
    },
    /// A number too small or too great.
    #[error("{number} is not between {least} and {most}")]
    Range {
        /// The number.
        number: i128,
        /// The least.
        least: i128,
        /// The greatest.
        most: i128,
    },
    /// No list of numbers and ranges.
    #[error("{text:?} is not a list of numbers up to {most}")]
    List {
        /// As given.
        text: String,
        /// The greatest number.
        most: u32,
    },
    /// A relative path.
    #[error("{path:?} is not an absolute path")]
    Relative {
        /// The path.
        path: String,
    },
    /// A name that the kernel does not take.
    #[error("{name:?} cannot be a name")]
    Name {
        /// The name.
        name: String,
    },
    /// It means something only beside something else.
    #[error("needs {with}")]
    Needs {
        /// What is missing.
        with: &'static str,
    },
    /// It contradicts something else.
    #[error("contradicts {with}")]
    Contradicts {
        /// What is there.
        with: &'static str,
    },
    /// A mount over the root: it would hide the root from those who join the container, and from nobody inside.
    #[error("is the container's root, which no mount covers")]
    Root,
    /// The host has nothing of the kind.
    #[error("{what} is disabled on this host or not supported by its kernel")]
    HostLacks {
        /// What the host lacks.
        what: &'static str,
    },
}

impl FieldError {
    /// Where it is: the field's full name, `process.rlimits[0].type`.
    pub(crate) fn at(self, field: impl Into<String>) -> PlanError {
        PlanError::Field { field: field.into(), source: self }
    }

    /// Whether a number is in its range.
    pub(crate) fn in_range(number: impl Into<i128>, least: i128, most: i128) -> Result<(), FieldError> {
        let number = number.into();
        if (least..=most).contains(&number) { Ok(()) } else { Err(FieldError::Range { number, least, most }) }
    }
}
