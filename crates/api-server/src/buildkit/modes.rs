//! Modes of what is in archives, as Go writes them.

use archive::{Entry, Kind};
use buildkit_api::modes::{CHARACTERS, DEVICE, DIRECTORY, FIFO, SYMLINK, with_permissions};

/// The mode of an entry. Other names of a file are files.
pub(super) fn of_entry(entry: &Entry) -> u32 {
    let kind = match entry.kind {
        Kind::File | Kind::HardLink => 0,
        Kind::Directory => DIRECTORY,
        Kind::Symlink => SYMLINK,
        Kind::Fifo => FIFO,
        Kind::BlockDevice => DEVICE,
        Kind::CharDevice => DEVICE | CHARACTERS,
    };
    with_permissions(kind, entry.mode)
}
