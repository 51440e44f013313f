//! Docker's `json-file` format.

mod buffer;
mod file;
pub mod line;
mod reader;
mod writer;

pub use reader::{Entry, ReadError, ReadOptions, Reader, Step};
pub use writer::{OpenError, Rotation, Writer};

use std::path::{Path, PathBuf};

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

/// The path of the `number`th rotated file; 1 is the youngest.
fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}
