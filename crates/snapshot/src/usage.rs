//! What a tree takes.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use crate::overlay::SnapshotError;

/// Each open level takes a descriptor; a container can nest directories without end.
const DEPTH_MAX: usize = 256;

/// What a tree takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Lengths of all files but directories, hard links counted once, as dockerd counts.
    pub bytes: u64,
    /// Files and directories, the root not counted.
    pub inodes: u64,
}

/// Counts everything below `path`. A container may be changing it: what vanishes meanwhile is not counted.
pub(crate) fn of_tree(path: &Path) -> Result<Usage, SnapshotError> {
    let failed = |err: Errno| SnapshotError::Io { what: "measure", path: path.to_owned(), source: err.into() };
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    let mut levels = vec![open_dir(CWD, path).map_err(failed)?];
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.read() else {
            levels.pop();
            continue;
        };
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let directory = level.fd().map_err(failed)?;
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other.map_err(failed)?,
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_directory && stat.st_nlink > 1 && !linked.insert(stat.st_ino) {
            continue;
        }
        usage.inodes += 1;
        if !is_directory {
            usage.bytes += u64::try_from(stat.st_size).unwrap_or(0);
            continue;
        }
        let below = match open_dir(directory, name) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            other => other.map_err(failed)?,
        };
        if levels.len() == DEPTH_MAX {
            return Err(SnapshotError::TooDeep { path: path.to_owned() });
        }
        levels.push(below);
    }
    Ok(usage)
}

pub(crate) fn open_dir(at: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> Result<Dir, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd: OwnedFd = openat(at, name, flags, Mode::empty())?;
    Dir::new(fd)
}
