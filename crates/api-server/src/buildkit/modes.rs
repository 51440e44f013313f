//! Modes as Go writes them (io/fs, FileMode).

use archive::{Entry, Kind};

pub(super) const GO_DIRECTORY: u32 = 1 << 31;
pub(super) const GO_SYMLINK: u32 = 1 << 27;
pub(super) const GO_DEVICE: u32 = 1 << 26;
pub(super) const GO_FIFO: u32 = 1 << 25;
pub(super) const GO_SOCKET: u32 = 1 << 24;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
pub(super) const GO_CHARACTERS: u32 = 1 << 21;
const GO_STICKY: u32 = 1 << 20;

/// Bits above the permissions, and what they are elsewhere.
const SPECIAL: [(u32, u32); 3] = [(GO_SETUID, 0o4000), (GO_SETGID, 0o2000), (GO_STICKY, 0o1000)];

/// The permissions of a mode of Go's.
pub(super) fn permissions(mode: u32) -> u32 {
    let special = SPECIAL.into_iter().filter(|(bit, _)| mode & bit != 0).map(|(_, special)| special);
    special.fold(mode & 0o777, |all, special| all | special)
}

/// The mode of an entry. Other names of a file are files.
pub(super) fn of_entry(entry: &Entry) -> u32 {
    let kind = match entry.kind {
        Kind::File | Kind::HardLink => 0,
        Kind::Directory => GO_DIRECTORY,
        Kind::Symlink => GO_SYMLINK,
        Kind::Fifo => GO_FIFO,
        Kind::BlockDevice => GO_DEVICE,
        Kind::CharDevice => GO_DEVICE | GO_CHARACTERS,
    };
    let special = SPECIAL.into_iter().filter(|(_, special)| entry.mode & special != 0).map(|(bit, _)| bit);
    special.fold(kind | entry.mode & 0o777, |all, bit| all | bit)
}
