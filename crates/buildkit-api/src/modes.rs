//! Modes as Go writes them (io/fs, FileMode).

/// What is a directory.
pub const DIRECTORY: u32 = 1 << 31;
/// What leads elsewhere.
pub const SYMLINK: u32 = 1 << 27;
/// A device, of blocks without [`CHARACTERS`].
pub const DEVICE: u32 = 1 << 26;
/// A named pipe.
pub const FIFO: u32 = 1 << 25;
/// A socket.
pub const SOCKET: u32 = 1 << 24;
/// Beside [`DEVICE`].
pub const CHARACTERS: u32 = 1 << 21;

/// Bits above the permissions, and what they are elsewhere (inode(7)): set-user-ID, set-group-ID, sticky.
const SPECIAL: [(u32, u32); 3] = [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];

/// The permissions of a mode of Go's, as inode(7) has them: 12 bits.
pub fn permissions(mode: u32) -> u32 {
    let special = SPECIAL.into_iter().filter(|(bit, _)| mode & bit != 0).map(|(_, special)| special);
    special.fold(mode & 0o777, |all, special| all | special)
}

/// Go's mode of something of a `kind` that has such permissions.
pub fn with_permissions(kind: u32, permissions: u32) -> u32 {
    let special = SPECIAL.into_iter().filter(|(_, special)| permissions & special != 0).map(|(bit, _)| bit);
    special.fold(kind | permissions & 0o777, |all, bit| all | bit)
}
