//! Trees copied: layers put into one, a tree copied for a container, changes picked out of one.
//!
//! What is copied comes from images and containers: every name is opened below its directory, and no link is followed.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::changes::{OPAQUE, is_directory, is_opaque, is_whiteout, open_below};

/// Levels of directories, each with open descriptors: as many as a layer may have, and a comparison looks at.
const DEPTH_MAX: usize = 256;

/// The kernel gives at most 64 KiB of names, and 64 KiB of one value (xattr(7), "VFS limits").
const XATTR_BYTES: usize = 64 * 1024;

/// Overlayfs' and fuse-overlayfs' own marks: they belong to a layer, and mean nothing in a whole tree.
const MARKS: [&[u8]; 2] = [b"trusted.overlay.", b"user.fuseoverlayfs."];

/// How files get into the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Files {
    /// By another name of the same file, where that can be: nobody writes to the copy.
    Linked,
    /// With bytes of their own, or shared until one is written to.
    Copied,
}

/// A tree that could not be copied.
#[derive(Debug)]
pub(crate) struct CopyError {
    /// What in it.
    pub(crate) path: PathBuf,
    /// Why.
    pub(crate) source: Errno,
}

/// A tree that is being filled.
pub(crate) struct Copying {
    root: OwnedFd,
    files: Files,
    /// Whether opaque directories are picked as such.
    keeps_opaque: bool,
    /// Whether it is worth asking for reflinks.
    reflinks: bool,
    /// The first name of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
    names: Vec<u8>,
    value: Vec<u8>,
}

type Result<T, E = Errno> = std::result::Result<T, E>;

/// Why a copy ended, and where.
struct Failure(Vec<u8>, Errno);

impl Copying {
    /// Into a directory that is there.
    pub(crate) fn new(to: &Path, files: Files) -> Result<Copying, CopyError> {
        let root = open(to).map_err(|source| CopyError { path: to.to_owned(), source })?;
        let (names, value) = (vec![0; XATTR_BYTES], vec![0; XATTR_BYTES]);
        Ok(Copying { root, files, keeps_opaque: false, reflinks: true, links: HashMap::new(), names, value })
    }

    /// For a tree with overlayfs' marks.
    pub(crate) fn keep_opaque(&mut self) -> &mut Copying {
        self.keeps_opaque = true;
        self
    }

    /// Puts a layer, or a whole tree, above what is there: whiteouts remove, opaque directories begin empty.
    pub(crate) fn add(&mut self, layer: &Path) -> Result<(), CopyError> {
        // Another layer's files are others.
        self.links.clear();
        let added = open(layer).map_err(|err| Failure(Vec::new(), err)).and_then(|from| {
            let to = self.root.try_clone().map_err(|_| Failure(Vec::new(), Errno::MFILE))?;
            self.level(&from, &to, &[], 0)
        });
        added.map_err(|failure| failure.below(layer))
    }

    /// Picks paths out of a tree: as they are with the directories above them, or as a whiteout for what is gone.
    pub(crate) fn pick<'a>(
        &mut self,
        tree: &Path,
        paths: impl Iterator<Item = (&'a [u8], bool)>,
    ) -> Result<(), CopyError> {
        let whole = |err| CopyError { path: tree.to_owned(), source: err };
        let from = open(tree).map_err(whole)?;
        // Described at the end: what is made in them changes their times.
        let mut directories = BTreeMap::from([(Vec::new(), ())]);
        for (path, is_gone) in paths {
            let picked = self.pick_one(&from, path, is_gone, &mut directories);
            match picked {
                // It has vanished meanwhile, or became something else.
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(err) => return Err(Failure(path.to_vec(), err).below(tree)),
            }
        }
        for path in directories.keys().rev() {
            let described = find(&from, path).and_then(|of| self.describe_picked(&of, &find(&self.root, path)?));
            match described {
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(err) => return Err(Failure(path.clone(), err).below(tree)),
            }
        }
        Ok(())
    }

    fn pick_one(
        &mut self,
        from: &OwnedFd,
        path: &[u8],
        is_gone: bool,
        directories: &mut BTreeMap<Vec<u8>, ()>,
    ) -> Result<()> {
        let (parent, name) = split(path);
        let name = std::ffi::CString::new(name).map_err(|_| Errno::INVAL)?;
        let (mut source, mut target, mut walked) =
            (from.try_clone().map_err(|_| Errno::MFILE)?, self.own_root()?, vec![]);
        for part in parent.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            let part = std::ffi::CString::new(part).map_err(|_| Errno::INVAL)?;
            source = open_below(&source, &part)?;
            join(&mut walked, part.to_bytes());
            if directories.insert(walked.clone(), ()).is_none() {
                rustix::fs::mkdirat(&target, &*part, Mode::RWXU)?;
            }
            target = open_below(&target, &part)?;
        }
        if is_gone {
            return rustix::fs::mknodat(&target, &*name, FileType::CharacterDevice, Mode::empty(), 0);
        }
        let stat = rustix::fs::statat(&source, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
        if !is_directory(&stat) {
            return self.place(&source, &name, &stat, &target, path);
        }
        match directories.insert(path.to_vec(), ()) {
            None => rustix::fs::mkdirat(&target, &*name, Mode::RWXU),
            Some(()) => Ok(()),
        }
    }

    fn describe_picked(&mut self, from: &OwnedFd, to: &OwnedFd) -> Result<()> {
        self.describe(from, to)?;
        if !self.keeps_opaque || !is_opaque(from) {
            return Ok(());
        }
        rustix::fs::fsetxattr(to, OPAQUE, b"y", XattrFlags::empty())
    }

    fn own_root(&self) -> Result<OwnedFd> {
        self.root.try_clone().map_err(|_| Errno::MFILE)
    }

    fn level(&mut self, from: &OwnedFd, to: &OwnedFd, path: &[u8], depth: usize) -> Result<(), Failure> {
        if depth > DEPTH_MAX {
            return Err(Failure(path.to_vec(), Errno::LOOP));
        }
        let failed = |err| Failure(path.to_vec(), err);
        for entry in Dir::read_from(from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let mut below = path.to_vec();
            join(&mut below, name.to_bytes());
            match self.one(from, name, to, &below).map_err(|err| Failure(below.clone(), err))? {
                None => {}
                Some((from, to)) => self.level(&from, &to, &below, depth + 1)?,
            }
        }
        self.describe(from, to).map_err(failed)
    }

    /// Copies one name; answers the two directories if it is one.
    fn one(&mut self, from: &OwnedFd, name: &CStr, to: &OwnedFd, path: &[u8]) -> Result<Option<(OwnedFd, OwnedFd)>> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if is_whiteout(&stat) {
            remove(to, name)?;
            return Ok(None);
        }
        if !is_directory(&stat) {
            match self.place(from, name, &stat, to, path) {
                Err(Errno::EXIST) => {
                    remove(to, name)?;
                    self.place(from, name, &stat, to, path)?;
                }
                placed => placed?,
            }
            return Ok(None);
        }
        let below = open_below(from, name)?;
        match rustix::fs::statat(to, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if is_directory(&there) && !is_opaque(&below) => {}
            Ok(_) => {
                remove(to, name)?;
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            }
            Err(Errno::NOENT) => rustix::fs::mkdirat(to, name, Mode::RWXU)?,
            Err(err) => return Err(err),
        }
        Ok(Some((below, open_below(to, name)?)))
    }

    /// Makes a file that is no directory.
    fn place(&mut self, from: &OwnedFd, name: &CStr, stat: &Stat, to: &OwnedFd, path: &[u8]) -> Result<()> {
        let file = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&file) {
            return rustix::fs::linkat(&self.root, first, to, name, AtFlags::empty());
        }
        if self.files == Files::Linked {
            match rustix::fs::linkat(from, name, to, name, AtFlags::empty()) {
                // Another file system, or project; or it has too many names.
                Err(Errno::XDEV | Errno::MLINK | Errno::PERM) => {}
                linked => return linked,
            }
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.regular(from, name, to)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
                own_and_date(to, name, stat)?;
            }
            kind => {
                rustix::fs::mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
                own_and_date(to, name, stat)?;
                // Whatever our umask is, and after the owner, whose change takes bits away.
                rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
            }
        }
        if stat.st_nlink > 1 {
            self.links.insert(file, path.to_vec());
        }
        Ok(())
    }

    fn regular(&mut self, from: &OwnedFd, name: &CStr, to: &OwnedFd) -> Result<()> {
        // A container may put a pipe in its place.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&source)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::NOENT);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
        if self.reflinks && stat.st_size > 0 {
            match rustix::fs::ioctl_ficlone(&target, &source) {
                Ok(()) => return self.describe(&source, &target),
                Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV) => self.reflinks = false,
                // One file that the file system does not share, as one of another block size.
                Err(_) => {}
            }
        }
        let (source, target) = (File::from(source), File::from(target));
        copy_bytes(&source, &target, u64::try_from(stat.st_size).unwrap_or(0))?;
        self.describe(&source, &target)
    }

    /// Gives a file or directory what another one has: owner, xattrs, mode, times.
    fn describe(&mut self, from: impl AsFd, to: impl AsFd) -> Result<()> {
        let stat = rustix::fs::fstat(&from)?;
        for name in list_xattrs(&to, &mut self.names)? {
            rustix::fs::fremovexattr(&to, &name[..])?;
        }
        rustix::fs::fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        for name in list_xattrs(&from, &mut self.names)? {
            let length = rustix::fs::fgetxattr(&from, &name[..], &mut self.value[..])?;
            rustix::fs::fsetxattr(&to, &name[..], &self.value[..length], XattrFlags::empty())?;
        }
        rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        rustix::fs::futimens(&to, &times(&stat))
    }
}

impl Failure {
    fn below(self, root: &Path) -> CopyError {
        CopyError { path: root.join(String::from_utf8_lossy(&self.0).as_ref()), source: self.1 }
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

/// A directory of a tree.
fn find(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd> {
    let mut at = open_below(root, c".")?;
    for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
        at = open_below(&at, &std::ffi::CString::new(part).map_err(|_| Errno::INVAL)?)?;
    }
    Ok(at)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn join(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Removes a file or a tree; that it is absent already is success.
fn remove(at: &OwnedFd, name: &CStr) -> Result<()> {
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(err) => return Err(err),
    }
    let directory = open_below(at, name)?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            remove(&directory, entry.file_name())?;
        }
    }
    rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}

/// Copies the bytes of a file, and leaves its holes. One that grows meanwhile is as long as it was.
fn copy_bytes(from: &File, to: &File, length: u64) -> Result<()> {
    rustix::fs::ftruncate(to, length)?;
    let mut at = 0;
    while at < length {
        at = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break,
            found => found?,
        };
        let hole = rustix::fs::seek(from, SeekFrom::Hole(at))?.min(length);
        rustix::fs::seek(from, SeekFrom::Start(at))?;
        rustix::fs::seek(to, SeekFrom::Start(at))?;
        let (mut from, mut to) = (from, to);
        let copied = io::copy(&mut Read::by_ref(&mut from).take(hole.saturating_sub(at)), &mut to);
        copied.map_err(|err| err.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))?;
        at = to.stream_position().map_or(hole, |position| position.max(hole));
    }
    Ok(())
}

/// For what cannot be opened.
fn own_and_date(at: &OwnedFd, name: &CStr, stat: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::utimensat(at, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

pub(crate) fn times(stat: &Stat) -> Timestamps {
    let time = |tv_sec, nanos: u64| Timespec { tv_sec, tv_nsec: nanos as i64 };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn list_xattrs(of: impl AsFd, names: &mut [u8]) -> Result<Vec<Vec<u8>>> {
    let length = match rustix::fs::flistxattr(of, &mut *names) {
        Err(Errno::OPNOTSUPP) => 0,
        listed => listed?,
    };
    let is_mark = |name: &[u8]| MARKS.iter().any(|mark| name.starts_with(mark));
    let listed = names[..length].split(|b| *b == 0).filter(|name| !name.is_empty() && !is_mark(name));
    Ok(listed.map(<[u8]>::to_vec).collect())
}

/// Whether two files of that name have the same capabilities.
pub(crate) fn same_capabilities(one: &OwnedFd, other: &OwnedFd, name: &CStr) -> bool {
    let of = |at: &OwnedFd| {
        // There is no `getxattrat` before Linux 6.13.
        let path = [format!("/proc/self/fd/{}/", at.as_raw_fd()).as_bytes(), name.to_bytes()].concat();
        let mut value = [0; 64];
        let length = rustix::fs::lgetxattr(&path[..], "security.capability", &mut value).unwrap_or(0);
        value[..length].to_vec()
    };
    of(one) == of(other)
}
