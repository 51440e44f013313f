//! Trees that come and go side by side, kept apart on the disk.
//!
//! ext4 puts what is made in a directory into the directory's own group of inodes, and does not give an inode out again within a
//! minute of its removal (fs/ext4/ialloc.c, `recently_deleted`): it passes by all of those one after the other, for each file that is
//! made. A tree of some thousand files that is made where such a tree was removed takes twenty times as long. Directories in
//! one that is marked as the top of a hierarchy (ext4(5), chattr(1) `T`) begin in other groups, the ones with most room.

use std::io;
use std::path::Path;

use rustix::fs::{CWD, IFlags, Mode, OFlags};

/// What statfs(2) says of ext2, ext3 and ext4.
const EXT: u64 = 0xef53;

/// Has directories that are made in `directory` from now on begin far from each other. Does nothing on other file systems than ext4
/// and its kin.
pub fn spread(directory: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, directory, flags, Mode::empty())?;
    if u64::try_from(rustix::fs::fstatfs(&directory)?.f_type) != Ok(EXT) {
        return Ok(());
    }
    let flags = rustix::fs::ioctl_getflags(&directory)?;
    match flags.contains(IFlags::TOPDIR) {
        true => Ok(()),
        false => Ok(rustix::fs::ioctl_setflags(&directory, flags | IFlags::TOPDIR)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_marked_where_that_is_known() {
        let scratch = tempfile::tempdir().unwrap();
        spread(scratch.path()).unwrap();
        spread(scratch.path()).unwrap();
        let directory = std::fs::File::open(scratch.path()).unwrap();
        let is_ext = u64::try_from(rustix::fs::fstatfs(&directory).unwrap().f_type) == Ok(EXT);
        let is_marked = rustix::fs::ioctl_getflags(&directory).is_ok_and(|flags| flags.contains(IFlags::TOPDIR));
        assert_eq!(is_marked, is_ext);
        assert_eq!(spread(&scratch.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
