//! Paths of the container, resolved beneath its root whatever its files say.
//!
//! Links are followed as the container would follow them: an absolute one begins at the container's root, and `..` ends
//! there. Everything is done by descriptor, so that a rename in a shared volume meanwhile cannot lead outside.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;
use sys::open::openat2;

/// Links followed at most in one path: the kernel's own limit (path_resolution(7)).
const LINKS_MAX: u32 = 40;

/// What to make where a path ends in nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// An error.
    Refuse,
    /// A directory, mode 0755.
    Directory,
    /// An empty file, mode 0644... less the umask.
    File,
}

/// Opens (O_PATH) what `path` names below `root`, or makes it and its parents.
pub(crate) fn open(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> io::Result<OwnedFd> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    if relative.as_os_str().is_empty() {
        return Ok(openat(root, ".", PATH_FLAGS, Mode::empty())?);
    }
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, relative, PATH_FLAGS, Mode::empty(), resolve) {
        Ok(fd) => Ok(fd),
        Err(Errno::NOENT) if missing != Missing::Refuse => walk(root, relative, missing),
        Err(err) => Err(err.into()),
    }
}

/// Opens the directory that holds `path`, making it where missing; with the last part of the path.
pub(crate) fn parent<'a>(root: BorrowedFd<'_>, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    Ok((open(root, directory, Missing::Directory)?, name))
}

pub(crate) const PATH_FLAGS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// What is left to walk, and the directories walked through: `..` goes back to one of them, never to what the kernel says
/// is above, which a rename can change.
struct Walk<'a> {
    root: BorrowedFd<'a>,
    entered: Vec<OwnedFd>,
    left: VecDeque<OsString>,
    links: u32,
}

fn walk(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> io::Result<OwnedFd> {
    let mut walk = Walk { root, entered: Vec::new(), left: VecDeque::new(), links: 0 };
    walk.push(path);
    while let Some(name) = walk.left.pop_front() {
        if name == ".." {
            walk.entered.pop();
            continue;
        }
        let last = walk.left.is_empty();
        let fd = match openat(walk.current(), &name, PATH_FLAGS | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::NOENT) => make(walk.current(), &name, if last { missing } else { Missing::Directory })?,
            other => other?,
        };
        match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
            FileType::Symlink => walk.follow(&fd)?,
            FileType::Directory => walk.entered.push(fd),
            _ if last => return Ok(fd),
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    match walk.entered.pop() {
        Some(fd) => Ok(fd),
        None => Ok(openat(root, ".", PATH_FLAGS, Mode::empty())?),
    }
}

impl Walk<'_> {
    fn current(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.entered.last().map_or(self.root, |fd| fd.as_fd())
    }

    fn push(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.left.push_front(name.to_owned()),
                Component::ParentDir => self.left.push_front("..".into()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    fn follow(&mut self, link: &OwnedFd) -> io::Result<()> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::LOOP.into());
        }
        let text = readlinkat(link, "", Vec::new())?;
        let target = Path::new(OsStr::from_bytes(text.as_bytes()));
        if target.is_absolute() {
            self.entered.clear();
        }
        self.push(target);
        Ok(())
    }
}

fn make(directory: BorrowedFd<'_>, name: &OsStr, missing: Missing) -> io::Result<OwnedFd> {
    match missing {
        Missing::Refuse => return Err(Errno::NOENT.into()),
        Missing::Directory => match mkdirat(directory, name, Mode::from_raw_mode(0o755)) {
            // Somebody who shares the volume was faster: what counts is what is there.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(err) => return Err(err.into()),
        },
        Missing::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
            match openat(directory, name, flags, Mode::from_raw_mode(0o644)) {
                Ok(_) | Err(Errno::EXIST) => {}
                Err(err) => return Err(err.into()),
            }
        }
    }
    Ok(openat(directory, name, PATH_FLAGS | OFlags::NOFOLLOW, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_never_lead_out_and_missing_parts_are_made_inside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink("../../../../outside", root.join("up")).unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../run/made/resolv.conf", root.join("etc/resolv.conf")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let fd = File::open(&root).unwrap();
        for (path, missing) in [
            ("/up/a/b", Missing::Directory),
            ("/absolute/c", Missing::File),
            ("/etc/resolv.conf", Missing::File),
            ("/../../d", Missing::Directory),
        ] {
            open(fd.as_fd(), Path::new(path), missing).unwrap();
        }
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
        assert!(root.join("outside/a/b").is_dir());
        assert!(root.join(outside.strip_prefix("/").unwrap()).join("c").is_file());
        assert!(root.join("run/made/resolv.conf").is_file());
        assert!(root.join("d").is_dir());
        assert!(open(fd.as_fd(), Path::new("/loop/x"), Missing::Directory).is_err());
        assert!(open(fd.as_fd(), Path::new("/nothing"), Missing::Refuse).is_err());
    }
}
