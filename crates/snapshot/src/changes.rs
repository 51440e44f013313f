//! What a container changed: its own files, compared with the layers below by name alone.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, readlinkat, statat};
use rustix::io::Errno;
use stdx::tree::Usage;

use crate::copy::same_capabilities;
use crate::store::SnapshotError;

/// Levels that are compared, each with an open descriptor for itself and for every layer that has it.
const DEPTH_MAX: usize = 256;

/// How long before or behind its last mount point a directory may have been changed by the making of that: kernels since
/// 6.13 give fine times, and a mount point that is a directory has the time of what was made in it.
const SAME_MOMENT_NANOS: i128 = 10_000_000;

/// How names of fuse-overlayfs' own begin.
const FUSE_MARKS: &[u8] = b".wh.";

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is not what it was.
    Modified,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
}

/// What whoever starts a container makes in its root, and nobody is told of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stubs<'a> {
    /// Empty files, as paths from the root without a slash in front.
    pub files: &'a [&'a str],
    /// Links, with what they say.
    pub links: &'a [(&'a str, &'a str)],
    /// Directories.
    pub directories: &'a [&'a str],
}

/// What a container changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// By path from the root, without a slash in front.
    pub paths: BTreeMap<Vec<u8>, ChangeKind>,
    /// Paths of the container's own directory that are nothing but stubs, and all that is in them.
    pub hidden: BTreeSet<Vec<u8>>,
    /// Sockets of the container's own directory: changes, but no archive has them.
    pub sockets: BTreeSet<Vec<u8>>,
}

/// A directory of the container, and the same one of the layers below, nearest first.
struct Level {
    path: Vec<u8>,
    upper: OwnedFd,
    lowers: Vec<OwnedFd>,
    depth: usize,
}

struct Comparing<'a> {
    stubs: Stubs<'a>,
    how: Comparison<'a>,
    changes: Changes,
    usage: Usage,
    /// Files of several names that were counted.
    linked: HashSet<(u64, u64)>,
}

/// Why a comparison ended.
enum Failure {
    TooDeep,
    System(Vec<u8>, Errno),
}

/// What a container's directory has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// Its own files, as overlayfs keeps them.
    Overlay,
    /// Its own files, as fuse-overlayfs keeps them.
    Fuse,
    /// All files: what it has like the layers is no change, what it lacks is gone.
    Whole,
}

/// How a comparison is made.
#[derive(Clone, Copy)]
pub(crate) struct Comparison<'a> {
    /// What is in the container's directory.
    pub(crate) own: Own,
    /// Ends it soon.
    pub(crate) stop: &'a AtomicBool,
}

/// What `upper` has changed of `lowers`, uppermost first; and what the changed files take.
pub(crate) fn compare(
    upper: &Path,
    lowers: &[PathBuf],
    stubs: Stubs<'_>,
    how: Comparison<'_>,
) -> Result<(Changes, Usage), SnapshotError> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(CWD, path, flags, Mode::empty());
        opened.map_err(|err| SnapshotError::io("open", path)(err.into()))
    };
    let lowers = lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let level = Level { path: Vec::new(), upper: open(upper)?, lowers, depth: 0 };
    let (changes, usage, linked) = (Changes::default(), Usage::default(), HashSet::new());
    let mut comparing = Comparing { stubs, how, changes, usage, linked };
    comparing.level(&level).map_err(|failure| match failure {
        Failure::TooDeep => SnapshotError::TooDeep { path: upper.to_owned() },
        Failure::System(path, err) => {
            SnapshotError::io("compare", &upper.join(String::from_utf8_lossy(&path).as_ref()))(io::Error::from(err))
        }
    })?;
    Ok((comparing.changes, comparing.usage))
}

impl Comparing<'_> {
    /// Compares what is in a directory; answers whether anything in it is more than a stub, and how late its last stub is.
    fn level(&mut self, level: &Level) -> Result<(bool, Option<i128>), Failure> {
        let failed = |err: Errno| Failure::System(level.path.clone(), err);
        let (mut visible, mut last_stub) = (false, None);
        for entry in Dir::read_from(&level.upper).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_owned();
            let is_mark = self.how.own == Own::Fuse && name.to_bytes().starts_with(FUSE_MARKS);
            if matches!(name.to_bytes(), b"." | b"..") || is_mark {
                continue;
            }
            if self.how.stop.load(Ordering::Relaxed) {
                return Err(failed(Errno::INTR));
            }
            let stat = match statat(&level.upper, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat.map_err(failed)?,
            };
            let path = join(&level.path, name.to_bytes());
            if self.is_stub(level, &name, &path, &stat) {
                last_stub = last_stub.max(Some(mtime(&stat)));
                self.changes.hidden.insert(path);
                continue;
            }
            let shown = self.one(level, &name, path.clone(), &stat)?;
            if !shown && is_directory(&stat) && self.changes.hidden.contains(&path) {
                last_stub = last_stub.max(Some(mtime(&stat)));
            }
            visible |= shown;
        }
        if self.how.own == Own::Whole {
            visible |= self.gone(level).map_err(failed)?;
        }
        Ok((visible, last_stub))
    }

    fn is_stub(&self, level: &Level, name: &CStr, path: &[u8], stat: &Stat) -> bool {
        if is_file(stat) {
            return stat.st_size == 0 && self.stubs.files.iter().any(|stub| stub.as_bytes() == path);
        }
        let mut links = self.stubs.links.iter().filter(|(stub, _)| stub.as_bytes() == path);
        FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
            && links.any(|(_, target)| {
                readlinkat(&level.upper, name, Vec::new()).is_ok_and(|to| to.to_bytes() == target.as_bytes())
            })
    }

    /// Notes what the layers have and the container, which has all files, has not.
    fn gone(&mut self, level: &Level) -> Result<bool, Errno> {
        let mut visible = false;
        for lower in &level.lowers {
            for entry in Dir::read_from(lower)? {
                let name = entry?.file_name().to_owned();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                if let Err(Errno::NOENT) = statat(&level.upper, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                    self.note(&level.path, join(&level.path, name.to_bytes()), ChangeKind::Deleted);
                    visible = true;
                }
            }
        }
        Ok(visible)
    }

    fn count(&mut self, stat: &Stat) {
        if stat.st_nlink > 1 && !is_directory(stat) && !self.linked.insert((stat.st_dev, stat.st_ino)) {
            return;
        }
        self.usage.inodes += 1;
        self.usage.bytes += if is_directory(stat) { 0 } else { u64::try_from(stat.st_size).unwrap_or(0) };
    }

    /// Compares one path; answers whether it, or anything in it, is more than a stub.
    fn one(&mut self, level: &Level, name: &CString, path: Vec<u8>, stat: &Stat) -> Result<bool, Failure> {
        let failed = |err: Errno| Failure::System(path.clone(), err);
        let below = find(&level.lowers, name).map_err(failed)?;
        if is_whiteout(stat) {
            if self.how.own == Own::Fuse && below.is_none() {
                return Ok(false);
            }
            self.note(&level.path, path, ChangeKind::Deleted);
            return Ok(true);
        }
        if !is_directory(stat) {
            if self.how.own == Own::Whole && below.as_ref().is_some_and(|below| is_same(level, name, stat, below)) {
                return Ok(false);
            }
            self.count(stat);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
                self.changes.sockets.insert(path.clone());
            }
            let kind = if below.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
            self.note(&level.path, path, kind);
            return Ok(true);
        }
        let Some(next) = self.descend(level, name, path.clone())? else { return Ok(false) };
        let (visible, last_stub) = self.level(&next)?;
        let is_stub = self.stubs.directories.iter().any(|stub| stub.as_bytes() == path);
        let below = below.filter(is_directory);
        let moved = |below: &Stat| {
            let by_stub =
                last_stub.is_some_and(|stub| (-SAME_MOMENT_NANOS..SAME_MOMENT_NANOS).contains(&(mtime(stat) - stub)));
            mtime(stat) != mtime(below) && !by_stub
        };
        match below {
            None if is_stub && !visible => {
                self.changes.hidden.insert(path);
                return Ok(false);
            }
            None => {
                self.count(stat);
                self.note(&level.path, path, ChangeKind::Added);
            }
            Some(below) if described(stat) != described(&below) || moved(&below) => {
                self.changes.paths.insert(path, ChangeKind::Modified);
            }
            // A copy that was made for what is in it.
            Some(_) if is_stub && !visible => {
                self.changes.hidden.insert(path);
                return Ok(false);
            }
            Some(_) => return Ok(visible),
        }
        Ok(true)
    }

    /// Notes a change. What appears or goes changes its directory, too, as dockerd tells it.
    fn note(&mut self, above: &[u8], path: Vec<u8>, kind: ChangeKind) {
        if kind != ChangeKind::Modified && !above.is_empty() {
            self.changes.paths.entry(above.to_vec()).or_insert(ChangeKind::Modified);
        }
        self.changes.paths.insert(path, kind);
    }

    /// The directory `name` on every level that shows through; `None` if it has vanished.
    fn descend(&self, level: &Level, name: &CString, path: Vec<u8>) -> Result<Option<Level>, Failure> {
        if level.depth == DEPTH_MAX {
            return Err(Failure::TooDeep);
        }
        let upper = match open_below(&level.upper, name) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            upper => upper.map_err(|err| Failure::System(path.clone(), err))?,
        };
        let mut lowers = Vec::new();
        let mut hidden = is_opaque(&upper);
        for lower in &level.lowers {
            if hidden {
                break;
            }
            match open_below(lower, name) {
                Ok(lower) => {
                    hidden = is_opaque(&lower);
                    lowers.push(lower);
                }
                Err(Errno::NOENT) => {}
                // A file, a symlink or a whiteout: what lies below it is gone.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(err) => return Err(Failure::System(path, err)),
            }
        }
        Ok(Some(Level { path, upper, lowers, depth: level.depth + 1 }))
    }
}

/// What the layers below show under that name.
fn find(lowers: &[OwnedFd], name: &CString) -> Result<Option<Stat>, Errno> {
    for lower in lowers {
        match statat(lower, &**name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            stat => return Ok(Some(stat?).filter(|stat| !is_whiteout(stat))),
        }
    }
    Ok(None)
}

/// Whether a file that is no directory is that of the layers: dockerd's rule (moby go-archive, `statDifferent`), and the
/// targets of links. Content alone, with the same length and time, is not seen.
fn is_same(level: &Level, name: &CString, stat: &Stat, below: &Stat) -> bool {
    let same = described(stat) == described(below)
        && (stat.st_rdev, stat.st_size, mtime(stat)) == (below.st_rdev, below.st_size, mtime(below));
    let Some(lower) = level.lowers.first().filter(|_| same) else { return false };
    let target = |at: &OwnedFd| rustix::fs::readlinkat(at, &**name, Vec::new());
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => matches!((target(&level.upper), target(lower)), (Ok(a), Ok(b)) if a == b),
        FileType::RegularFile if stat.st_mode & 0o111 != 0 => same_capabilities(&level.upper, lower, name),
        _ => true,
    }
}

pub(crate) fn open_below(at: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, name].join(&b'/') }
}

fn mtime(stat: &Stat) -> i128 {
    i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec)
}

fn described(stat: &Stat) -> (u32, u32, u32) {
    (stat.st_mode, stat.st_uid, stat.st_gid)
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// The mark of a directory that hides what the layers below have in it.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// Whether overlayfs means by it that there is nothing.
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether a directory hides what the layers below have in it.
pub fn is_opaque(directory: impl AsFd) -> bool {
    let mut value = [0; 1];
    matches!(rustix::fs::fgetxattr(directory, OPAQUE, &mut value), Ok(1) if value == *b"y")
}

#[cfg(test)]
mod tests;
