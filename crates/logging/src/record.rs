//! What is logged: a line or a piece of one, from one of two outputs, at a moment.

use std::time::{SystemTime, UNIX_EPOCH};

/// Output without a newline is cut into pieces of this size: dockerd's copier has a buffer of as many bytes, and log readers
/// put pieces together until one ends with a newline.
pub(crate) const PIECE_MAX_BYTES: usize = 16 * 1024;

/// Which output a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output, and everything of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// As the log names it.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// One line, or a piece of a long one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    /// Which output.
    pub(crate) stream: Stream,
    /// The moment, in nanoseconds since 1970; all pieces of a line have that of the first.
    pub(crate) nanos: u64,
    /// The bytes, in two parts, without the newline.
    pub(crate) parts: [&'a [u8]; 2],
    /// Whether the line ends here.
    pub(crate) ends_line: bool,
    /// Which piece of its line it is; absent for a line that is whole.
    pub(crate) piece: Option<Piece<'a>>,
}

/// A piece of a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// What all pieces of the line have in common, 64 hex digits.
    pub(crate) id: &'a str,
    /// Its number, from 1.
    pub(crate) ordinal: u32,
}

impl Record<'_> {
    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.parts[0].len() + self.parts[1].len()
    }
}

/// The present in nanoseconds since 1970, which lasts until the year 2554.
pub(crate) fn now_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A moment as a time of the standard library.
pub(crate) fn system_time(nanos: u64) -> SystemTime {
    UNIX_EPOCH + std::time::Duration::from_nanos(nanos)
}
