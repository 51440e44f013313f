//! Whole trees of files: what they take, and their removal. A container made them, so they may nest beyond any limit.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

/// Levels that are measured with an open descriptor each.
const USAGE_DEPTH_MAX: usize = 256;

/// Levels that are emptied with an open descriptor each. What nests deeper is moved up and emptied on its own.
const REMOVE_DEPTH_MAX: usize = 64;

/// What a tree takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Lengths of all files but directories, hard links counted once, as dockerd counts.
    pub bytes: u64,
    /// Files and directories, the root not counted.
    pub inodes: u64,
}

/// Trees that [`sweep`] could not remove.
#[derive(Debug)]
pub struct Left {
    /// The first of them.
    pub path: PathBuf,
    /// How many there are beside it.
    pub more: usize,
    /// Why it is still there.
    pub source: io::Error,
}

/// Opens a directory to read it; a symlink in its place is an error.
pub fn open_dir(at: impl AsFd, name: impl rustix::path::Arg) -> io::Result<Dir> {
    Ok(open(at, name)?)
}

/// Counts everything below `path`; `None` if directories nest too deep to be counted.
///
/// Others may be changing the tree: what vanishes meanwhile is not counted.
pub fn usage(path: &Path) -> io::Result<Option<Usage>> {
    usage_unless(path, &AtomicBool::new(false))
}

/// The same; ends with [`io::ErrorKind::Interrupted`] soon after somebody sets `stop`.
pub fn usage_unless(path: &Path, stop: &AtomicBool) -> io::Result<Option<Usage>> {
    let mut usage = Usage::default();
    let mut linked = HashSet::new();
    let mut levels = vec![open(CWD, path)?];
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.read() else {
            levels.pop();
            continue;
        };
        let entry = entry?;
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let directory = level.fd()?;
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_directory && stat.st_nlink > 1 && !linked.insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        usage.inodes += 1;
        if !is_directory {
            usage.bytes += u64::try_from(stat.st_size).unwrap_or(0);
            continue;
        }
        let below = match open(directory, name) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            other => other?,
        };
        if levels.len() == USAGE_DEPTH_MAX {
            return Ok(None);
        }
        levels.push(below);
    }
    Ok(Some(usage))
}

/// Removes the trees and files in `dir` whose names begin with `prefix`; returns how many.
///
/// Takes as long as they are large. Two sweeps at once do no harm.
pub fn sweep(dir: &Path, prefix: &str) -> Result<usize, Left> {
    sweep_between(dir, prefix, &|| {})
}

/// The same; before each directory it asks `pause`, which takes as long as other work is to go first.
pub fn sweep_between(dir: &Path, prefix: &str, pause: &dyn Fn()) -> Result<usize, Left> {
    let (mut removed, mut failed) = (0, Vec::new());
    let aside = || dir.join(format!("{prefix}{}", crate::id::random_hex::<8>()));
    loop {
        let paths = match list(dir, prefix) {
            Ok(paths) => paths,
            Err(err) => return Err(Left { path: dir.to_owned(), more: 0, source: err.into() }),
        };
        let mut progress = false;
        failed.clear();
        for path in paths {
            match (Removal { aside: &aside, pause }).remove(&path) {
                Ok(()) => (removed, progress) = (removed + 1, true),
                Err(source) => failed.push((path, source)),
            }
        }
        // Deep trees leave their lower parts here, for the next round.
        if !progress {
            break;
        }
    }
    let more = failed.len().saturating_sub(1);
    match failed.into_iter().next() {
        None => Ok(removed),
        Some((path, source)) => Err(Left { path, more, source: source.into() }),
    }
}

fn list(dir: &Path, prefix: &str) -> Result<Vec<PathBuf>, Errno> {
    let mut entries = open(CWD, dir)?;
    let mut paths = Vec::new();
    while let Some(entry) = entries.read() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." && name.starts_with(prefix) {
            paths.push(dir.join(name));
        }
    }
    Ok(paths)
}

struct Removal<'a> {
    /// Where the lower part of a tree goes that is too deep.
    aside: &'a dyn Fn() -> PathBuf,
    pause: &'a dyn Fn(),
}

impl Removal<'_> {
    fn remove(&self, path: &Path) -> Result<(), Errno> {
        match unlinkat(CWD, path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(err) => return Err(err),
        }
        self.empty_dir(open(CWD, path)?, REMOVE_DEPTH_MAX)?;
        ignore_absent(unlinkat(CWD, path, AtFlags::REMOVEDIR))
    }

    fn empty_dir(&self, mut dir: Dir, depth: usize) -> Result<(), Errno> {
        (self.pause)();
        while let Some(entry) = dir.read() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if entry.file_type() != FileType::Directory {
                ignore_absent(unlinkat(dir.fd()?, name, AtFlags::empty()))?;
                continue;
            }
            if depth == 0 {
                ignore_absent(renameat(dir.fd()?, name, CWD, (self.aside)()))?;
                continue;
            }
            self.empty_dir(open(dir.fd()?, name)?, depth - 1)?;
            ignore_absent(unlinkat(dir.fd()?, name, AtFlags::REMOVEDIR))?;
        }
        Ok(())
    }
}

fn open(at: impl AsFd, name: impl rustix::path::Arg) -> Result<Dir, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Dir::new(openat(at, name, flags, Mode::empty())?)
}

fn ignore_absent(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Nests directories `levels` deep, without a path that would be too long.
    fn nest(dir: &Path, levels: usize) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = openat(CWD, dir, flags, Mode::empty()).unwrap();
        for _ in 0..levels {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", flags, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn hard_links_count_once_and_what_is_too_deep_says_so() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/one"), "12345").unwrap();
        fs::hard_link(dir.path().join("a/one"), dir.path().join("two")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        assert_eq!(usage(dir.path()).unwrap(), Some(Usage { bytes: 9, inodes: 3 }));
        let stopped = usage_unless(dir.path(), &AtomicBool::new(true));
        assert_eq!(stopped.unwrap_err().kind(), io::ErrorKind::Interrupted);
        nest(dir.path(), USAGE_DEPTH_MAX + 1);
        assert_eq!(usage(dir.path()).unwrap(), None);
        sweep(dir.path(), "").unwrap();
    }

    #[test]
    fn a_sweep_removes_any_depth_and_only_what_has_the_prefix() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("kept"), "").unwrap();
        fs::write(dir.path().join(".gone-file"), "").unwrap();
        fs::create_dir(dir.path().join(".gone-deep")).unwrap();
        nest(&dir.path().join(".gone-deep"), 5 * REMOVE_DEPTH_MAX);
        assert!(sweep(dir.path(), ".gone-").unwrap() >= 2);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(sweep(&dir.path().join("no"), "").is_err());
    }
}
