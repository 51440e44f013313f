//! What a layer takes from the layers below it, and copies of layers.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use errdefs::ErrorKind;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::apply::times;
use crate::tree::{IMPLIED_MODE, OPAQUE, open_below};
use archive::Time;

/// Xattrs of one file: the kernel gives at most 64 KiB of names, and 64 KiB of one value (xattr(7), "VFS limits").
const XATTR_BYTES: usize = 64 * 1024;

/// Why a directory did not get its metadata, or a layer was not copied.
#[derive(Debug, thiserror::Error)]
#[error("{what} {} in {}", String::from_utf8_lossy(name), directory.display())]
pub struct InheritError {
    /// What we were doing.
    pub what: &'static str,
    /// In which layer.
    pub directory: PathBuf,
    /// To which file of it.
    pub name: Vec<u8>,
    /// Why.
    pub source: io::Error,
}

impl InheritError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// Gives every `implied` directory of a layer mode, owner, times and xattrs of the nearest of `lowers` (nearest first)
/// that has it; 0755, root and 1970 where none has. The lowers are complete, and inherited themselves.
///
/// `whiteouts` stay only where there is something to hide: overlayfs lists one in a directory that no other layer has
/// as a file that does not exist (linux fs/overlayfs/readdir.c, `ovl_iterate`).
pub fn inherit(
    directory: &Path,
    implied: &[Vec<u8>],
    whiteouts: &[Vec<u8>],
    lowers: &[PathBuf],
) -> Result<(), InheritError> {
    if implied.is_empty() && whiteouts.is_empty() {
        return Ok(());
    }
    let failed = |what, name: &[u8]| {
        let (directory, name) = (directory.to_owned(), name.to_vec());
        move |err: Errno| InheritError { what, directory, name, source: err.into() }
    };
    let open = |path: &PathBuf| open_root(path).map_err(failed("open the layers below", b""));
    let lowers = lowers.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let root = open_root(directory).map_err(failed("open", b""))?;
    for path in whiteouts {
        settle_whiteout(&root, path, &lowers).map_err(failed("settle the whiteout", path))?;
    }
    for path in implied {
        let own = open_below(&root, if path.is_empty() { b"." } else { path }).map_err(failed("open", path))?;
        match find(&lowers, path).map_err(failed("find the lower layer's", path))? {
            Some(lower) => copy_metadata(&lower, &own, Overlay::Keep).map_err(failed("describe", path))?,
            None => describe_unknown(&own).map_err(failed("describe", path))?,
        }
    }
    Ok(())
}

fn open_root(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

/// Looks a directory up as overlayfs would: layer by layer, until one has it or hides it.
fn find(lowers: &[OwnedFd], path: &[u8]) -> Result<Option<OwnedFd>, Errno> {
    for lower in lowers {
        let mut at = open_below(lower, b".")?;
        let mut hidden = is_opaque(&at)?;
        let mut found = true;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            match open_below(&at, name) {
                Ok(child) => at = child,
                Err(Errno::NOENT) => {
                    found = false;
                    break;
                }
                // A file, a symlink or a whiteout: what lies below it is gone.
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(err) => return Err(err),
            }
            hidden |= is_opaque(&at)?;
        }
        match (found, hidden) {
            (true, _) => return Ok(Some(at)),
            (false, true) => return Ok(None),
            (false, false) => {}
        }
    }
    Ok(None)
}

/// Makes or removes a whiteout, as its place needs; the directory that it is in looks untouched.
fn settle_whiteout(root: &OwnedFd, path: &[u8], lowers: &[OwnedFd]) -> Result<(), Errno> {
    let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&b""[..], path),
    };
    let own = open_below(root, if parent.is_empty() { b"." } else { parent })?;
    let stat = rustix::fs::fstat(&own)?;
    let settled = match find(lowers, parent)? {
        Some(_) => rustix::fs::mknodat(&own, name, FileType::CharacterDevice, Mode::empty(), 0),
        None => rustix::fs::unlinkat(&own, name, AtFlags::empty()),
    };
    match settled {
        Err(Errno::EXIST | Errno::NOENT) => Ok(()),
        Err(err) => Err(err),
        Ok(()) => rustix::fs::futimens(&own, &times_of(&stat)),
    }
}

fn times_of(stat: &Stat) -> Timestamps {
    let time = |tv_sec, nanos: u64| Timespec { tv_sec, tv_nsec: nanos as i64 };
    let last_access = time(stat.st_atime, stat.st_atime_nsec);
    let last_modification = time(stat.st_mtime, stat.st_mtime_nsec);
    Timestamps { last_access, last_modification }
}

fn is_opaque(directory: &OwnedFd) -> Result<bool, Errno> {
    let mut value = [0; 1];
    match rustix::fs::fgetxattr(directory, OPAQUE, &mut value) {
        Ok(_) => Ok(value == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(err) => Err(err),
    }
}

fn describe_unknown(directory: &OwnedFd) -> Result<(), Errno> {
    clear_xattrs(directory)?;
    rustix::fs::fchown(directory, Some(Uid::ROOT), Some(Gid::ROOT))?;
    rustix::fs::fchmod(directory, Mode::from_raw_mode(IMPLIED_MODE))?;
    rustix::fs::futimens(directory, &times(Time::default()))
}

/// What happens to overlayfs' own xattrs: they belong to a place in a chain, not to the directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Overlay {
    /// Each side keeps its own.
    Keep,
    /// They are copied.
    Copy,
}

fn copy_metadata(from: &OwnedFd, to: &OwnedFd, overlay: Overlay) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(from)?;
    clear_xattrs(to)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    let mut value = vec![0; XATTR_BYTES];
    for name in xattr_names(from)? {
        if overlay == Overlay::Keep && name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let length = rustix::fs::fgetxattr(from, &name[..], &mut value[..])?;
        rustix::fs::fsetxattr(to, &name[..], &value[..length], XattrFlags::empty())?;
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    rustix::fs::futimens(to, &times_of(&stat))
}

fn clear_xattrs(directory: &OwnedFd) -> Result<(), Errno> {
    for name in xattr_names(directory)?.iter().filter(|name| !name.starts_with(b"trusted.overlay.")) {
        rustix::fs::fremovexattr(directory, &name[..])?;
    }
    Ok(())
}

fn xattr_names(directory: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = vec![0; XATTR_BYTES];
    let length = match rustix::fs::flistxattr(directory, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    names.truncate(length);
    Ok(names.split(|b| *b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// Makes the empty directory `to` a second copy of the layer in `from`: directories are made, everything else is linked.
///
/// For one layer at two places of a chain: the places differ in what their implied directories inherit, and in nothing
/// else. Both must be on one file system.
pub fn clone_tree(from: &Path, to: &Path) -> Result<(), InheritError> {
    let failed =
        |err: Errno| InheritError { what: "copy", directory: from.to_owned(), name: Vec::new(), source: err.into() };
    let (source, target) = (open_root(from).map_err(failed)?, open_root(to).map_err(failed)?);
    clone_dir(source, &target).map_err(failed)
}

fn clone_dir(from: OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let mut dir = Dir::read_from(&from)?;
    while let Some(entry) = dir.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            clone_dir(open_below(&from, name.to_bytes())?, &open_below(to, name.to_bytes())?)?;
        } else {
            rustix::fs::linkat(&from, name, to, name, AtFlags::empty())?;
        }
    }
    drop(dir);
    copy_metadata(&from, to, Overlay::Copy)
}
