//! Unpacks an archive into a tree, as Docker's `cp` does: what is there stays unless the archive has the same name.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, BufRead, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, StatxAttributes, StatxFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::pack::{join, stat_at};
use crate::sparse::Segment;
use crate::tar::{Entry, Kind, TarError, TarReader, Time, clean_path};
use crate::tree::{Resolution, child, open, proc_path};

/// The mode of a directory that no entry describes.
const IMPLIED_MODE: u32 = 0o755;

/// Levels of directories that are removed to make room, each with an open descriptor.
const DEPTH_MAX: usize = 256;

/// Whether a directory may be replaced by something else, and something else by a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// It may.
    Allow,
    /// It is an error.
    Refuse,
}

/// Whose the files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The archive says it.
    Archive,
    /// All the same user's and group's.
    Fixed(u32, u32),
    /// Whoever unpacks, who may be anybody: what only root may do is left out.
    Mine,
}

/// Where an archive goes, and how.
#[derive(Debug)]
pub struct Unpack<'a> {
    /// What symlinks cannot leave.
    pub root: BorrowedFd<'a>,
    /// The directory below the root that the archive is unpacked in, which exists.
    pub directory: &'a [u8],
    /// Where symlinks of the tree may lead.
    pub resolution: Resolution,
    /// Of directories by other things and the other way round.
    pub overwrite: Overwrite,
    /// Whose the files are.
    pub owner: Owner,
    /// A first part of all names, and what stands there instead.
    pub rename: Option<(&'a [u8], &'a [u8])>,
    /// Whether an entry for the directory itself says how it is; else it stays as it is.
    pub top: bool,
}

/// Why an archive was not unpacked, or not all of it. The texts are dockerd's where it has one.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive is broken.
    #[error(transparent)]
    Archive(#[from] TarError),
    /// A name climbs out.
    #[error("{path:?} is outside of {directory:?}")]
    Escape {
        /// The name.
        path: String,
        /// Out of where.
        directory: String,
    },
    /// A link leads out.
    #[error("invalid {what} {path:?} -> {target:?}")]
    Link {
        /// Of which kind.
        what: &'static str,
        /// Its name.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// Something is mounted where something else shall be. The text is dockerd's.
    #[error("RemoveAll {path}: device or resource busy")]
    Mounted {
        /// Its path in the archive.
        path: String,
    },
    /// A directory stands in the way.
    #[error("cannot overwrite directory {path:?} with non-directory {directory:?}")]
    IsDirectory {
        /// Its path in the archive.
        path: String,
        /// Where the archive goes.
        directory: String,
    },
    /// Something that is no directory stands in the way.
    #[error("cannot overwrite non-directory {path:?} with directory {directory:?}")]
    IsNoDirectory {
        /// Its path in the archive.
        path: String,
        /// Where the archive goes.
        directory: String,
    },
    /// The system does not make the file.
    #[error("create {path:?}")]
    Create {
        /// Its path.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Unpacks all of an archive. Blocks. After an error a part of it is there, as with dockerd.
pub fn unpack<R: BufRead>(tar: &mut TarReader<R>, options: &Unpack<'_>) -> Result<(), UnpackError> {
    let us = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut unpacking = Unpacking { options, times: BTreeMap::new(), parent: None, us };
    while let Some(mut entry) = tar.next_entry()? {
        if let Some((from, to)) = options.rename {
            rebase(&mut entry.path, from, to);
            if entry.kind == Kind::HardLink {
                rebase(&mut entry.link, from, to);
            }
        }
        unpacking.entry(&entry, tar)?;
    }
    unpacking.finish();
    Ok(())
}

/// Puts `to` where a name begins with the whole part `from`; the root's name stands before everything.
fn rebase(name: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    let from = from.strip_suffix(b"/").unwrap_or(from);
    if from.is_empty() {
        let start = name.iter().position(|b| *b != b'/').unwrap_or(name.len());
        *name = join(to, &name[start..]);
        return;
    }
    if let Some(rest) = name.strip_prefix(from)
        && (rest.is_empty() || rest.starts_with(b"/"))
    {
        *name = [to.strip_suffix(b"/").unwrap_or(to), rest].concat();
    }
}

struct Unpacking<'a> {
    options: &'a Unpack<'a>,
    /// Of directories, at the end: every file made in one changes it.
    times: BTreeMap<Vec<u8>, Time>,
    /// The last entry's, which is mostly the next one's, too.
    parent: Option<(Vec<u8>, Parent)>,
    /// Whose new files are.
    us: (u32, u32),
}

/// A directory that entries are made in.
struct Parent {
    place: OwnedFd,
    /// Its group, which it may give to what is made in it: if it is set-group-ID (inode(7)), or its file system mounted so
    /// (ext4(5), `grpid`).
    group: u32,
}

impl Parent {
    fn of(place: OwnedFd) -> Result<Parent, Errno> {
        let group = rustix::fs::fstat(&place)?.st_gid;
        Ok(Parent { place, group })
    }
}

/// Why one entry was not made.
enum Failure {
    System(Errno),
    Archive(TarError),
    Write(io::Error),
    Known(UnpackError),
}

impl From<Errno> for Failure {
    fn from(err: Errno) -> Failure {
        Failure::System(err)
    }
}

impl From<TarError> for Failure {
    fn from(err: TarError) -> Failure {
        Failure::Archive(err)
    }
}

impl Unpacking<'_> {
    fn entry<R: BufRead>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> Result<(), UnpackError> {
        let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let Some(path) = clean_path(&entry.path) else {
            let directory = shown(self.options.directory);
            return Err(UnpackError::Escape { path: shown(&entry.path), directory });
        };
        let placed = match path.is_empty() {
            true => self.top(entry),
            false => self.place(entry, &path, tar),
        };
        placed.map_err(|failure| match failure {
            Failure::System(err) => UnpackError::Create { path: shown(&path), source: err.into() },
            Failure::Write(source) => UnpackError::Create { path: shown(&path), source },
            Failure::Archive(err) => err.into(),
            Failure::Known(err) => err,
        })
    }

    /// The directory itself: nothing else can take its place.
    fn top(&mut self, entry: &Entry) -> Result<(), Failure> {
        if !self.options.top || entry.kind != Kind::Directory {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let place = open(self.options.root, &self.options.whole(b"")[..], flags, self.options.resolution)?;
        self.describe(&place, entry)?;
        self.times.insert(Vec::new(), entry.mtime);
        Ok(())
    }

    fn place<R: BufRead>(&mut self, entry: &Entry, path: &[u8], tar: &mut TarReader<R>) -> Result<(), Failure> {
        let (above, name) = split(path);
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let parent = self.parent(above)?;
        if entry.kind != Kind::File {
            self.make_room(&parent.place, &name, entry, path)?;
        }
        let made = match entry.kind {
            Kind::Directory => self.directory(&parent.place, &name, entry, path),
            Kind::File => self.file(&parent, &name, (entry, path), tar),
            Kind::HardLink => self.link(&parent.place, &name, entry),
            _ => self.node(&parent.place, &name, entry),
        };
        self.parent = Some((above.to_vec(), parent));
        made
    }

    /// The directory that an entry is made in; one that is missing is made.
    fn parent(&mut self, above: &[u8]) -> Result<Parent, Errno> {
        if let Some((path, parent)) = self.parent.take()
            && path == above
        {
            return Ok(parent);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let (root, resolution) = (self.options.root, self.options.resolution);
        let whole = |above: &[u8]| self.options.whole(above);
        match open(root, &whole(above)[..], flags, resolution) {
            Err(Errno::NOENT) if !above.is_empty() => {}
            opened => return Parent::of(opened?),
        }
        let (further, name) = split(above);
        let parent = self.parent(further)?.place;
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        rustix::fs::mkdirat(&parent, &*name, Mode::from_raw_mode(IMPLIED_MODE))?;
        let place = child(&parent, &name)?;
        self.own(&place)?;
        rustix::fs::chmodat(CWD, proc_path(&place), Mode::from_raw_mode(IMPLIED_MODE), AtFlags::empty())?;
        Parent::of(place)
    }

    /// Takes away what stands in the way of an entry, if it may be.
    fn make_room(&self, parent: &OwnedFd, name: &CStr, entry: &Entry, path: &[u8]) -> Result<(), Failure> {
        let stat = match stat_at(parent, name) {
            Err(Errno::NOENT) => return Ok(()),
            stat => stat?,
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let (path, directory) = (shown(path), shown(self.options.directory));
        match (is_directory, entry.kind == Kind::Directory) {
            (true, true) => Ok(()),
            (true, false) if self.options.overwrite == Overwrite::Refuse => {
                Err(Failure::Known(UnpackError::IsDirectory { path, directory }))
            }
            (false, true) if self.options.overwrite == Overwrite::Refuse => {
                Err(Failure::Known(UnpackError::IsNoDirectory { path, directory }))
            }
            _ => match remove(parent, name, DEPTH_MAX) {
                Err(Errno::BUSY) => Err(Failure::Known(UnpackError::Mounted { path })),
                removed => Ok(removed?),
            },
        }
    }

    fn directory(&mut self, parent: &OwnedFd, name: &CStr, entry: &Entry, path: &[u8]) -> Result<(), Failure> {
        match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            Err(Errno::EXIST) => {}
            made => made?,
        }
        self.describe(&child(parent, name)?, entry)?;
        self.times.insert(path.to_vec(), entry.mtime);
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        parent: &Parent,
        name: &CStr,
        (entry, path): (&Entry, &[u8]),
        tar: &mut TarReader<R>,
    ) -> Result<(), Failure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = if self.is_made_whole(entry) { entry.mode } else { 0o600 };
        let create = || rustix::fs::openat(&parent.place, name, flags, Mode::from_raw_mode(mode));
        // Mostly nothing stands in the way, which nobody has to ask then.
        let created = match create() {
            Err(Errno::EXIST) => {
                self.make_room(&parent.place, name, entry, path)?;
                create()?
            }
            created => created?,
        };
        let mut file = File::from(created);
        let whole = [Segment { offset: 0, length: entry.size }];
        for segment in entry.segments.as_deref().unwrap_or(&whole) {
            if entry.segments.is_some() {
                file.seek(SeekFrom::Start(segment.offset)).map_err(Failure::Write)?;
            }
            let mut left = segment.length;
            while left > 0 {
                let chunk = tar.chunk()?;
                let length = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                file.write_all(&chunk[..length]).map_err(Failure::Write)?;
                tar.consume(length);
                left -= length as u64;
            }
        }
        if entry.segments.is_some() {
            file.set_len(entry.size).map_err(Failure::Write)?;
        }
        let file = OwnedFd::from(file);
        self.describe_file(&file, entry, parent.group)?;
        Ok(rustix::fs::futimens(&file, &times(entry.mtime))?)
    }

    /// What [`Unpacking::describe`] does, of a new file that is open.
    fn describe_file(&self, file: &OwnedFd, entry: &Entry, group: u32) -> Result<(), Errno> {
        let owner = match self.options.owner {
            Owner::Archive => Some((entry.uid, entry.gid)),
            Owner::Fixed(uid, gid) => Some((uid, gid)),
            Owner::Mine => None,
        };
        // It is ours by now, and of our group or of its directory's.
        if let Some((uid, gid)) = owner.filter(|owner| *owner != self.us || group != self.us.1) {
            rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        self.set_xattrs(entry, |name, value| rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()))?;
        // The umask, or a default list of access of the directory (acl(5)), may have taken something away.
        if self.is_made_whole(entry) && rustix::fs::fstat(file)?.st_mode & 0o7777 == entry.mode {
            return Ok(());
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))
    }

    /// Whether a new file may have its mode from the start: nobody's rights but ours come with it, nor go with a change.
    fn is_made_whole(&self, entry: &Entry) -> bool {
        let is_ours = match self.options.owner {
            Owner::Archive => (entry.uid, entry.gid) == self.us,
            Owner::Fixed(uid, gid) => (uid, gid) == self.us,
            Owner::Mine => true,
        };
        is_ours && entry.mode & 0o7000 == 0 && entry.xattrs.is_empty()
    }

    fn set_xattrs(&self, entry: &Entry, set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>) -> Result<(), Errno> {
        let foreign = |name: &[u8]| !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.");
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| foreign(name)) {
            match set(name, value) {
                Err(Errno::OPNOTSUPP) => {}
                Err(Errno::PERM) if self.options.owner == Owner::Mine || name.starts_with(b"user.") => {}
                set => set?,
            }
        }
        Ok(())
    }

    fn link(&mut self, parent: &OwnedFd, name: &CStr, entry: &Entry) -> Result<(), Failure> {
        let shown = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let escapes = || {
            let (path, target) = (shown(&entry.path), shown(&entry.link));
            Failure::Known(UnpackError::Link { what: "hardlink", path, target })
        };
        let target = clean_path(&entry.link).filter(|target| !target.is_empty()).ok_or_else(escapes)?;
        let (above, last) = split(&target);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let at = open(self.options.root, &self.options.whole(above)[..], flags, self.options.resolution)?;
        Ok(rustix::fs::linkat(&at, last, parent, name, AtFlags::empty())?)
    }

    fn node(&mut self, parent: &OwnedFd, name: &CStr, entry: &Entry) -> Result<(), Failure> {
        let mode = Mode::RUSR | Mode::WUSR;
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        match entry.kind {
            Kind::Symlink => {
                self.check_symlink(entry)?;
                rustix::fs::symlinkat(&entry.link[..], parent, name)?;
            }
            Kind::CharDevice => rustix::fs::mknodat(parent, name, FileType::CharacterDevice, mode, device)?,
            Kind::BlockDevice => rustix::fs::mknodat(parent, name, FileType::BlockDevice, mode, device)?,
            _ => rustix::fs::mknodat(parent, name, FileType::Fifo, mode, 0)?,
        }
        let place = child(parent, name)?;
        self.describe(&place, entry)?;
        Ok(set_times(&place, entry.mtime)?)
    }

    /// In a tree of the user's, a link that leads out would lead what comes after it there, too: dockerd refuses it.
    fn check_symlink(&self, entry: &Entry) -> Result<(), Failure> {
        if self.options.resolution == Resolution::InRoot || entry.link.starts_with(b"/") {
            return Ok(());
        }
        let clean = clean_path(&entry.path).unwrap_or_default();
        if clean_path(&join(split(&clean).0, &entry.link)).is_some() {
            return Ok(());
        }
        let shown = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let (path, target) = (shown(&entry.path), shown(&entry.link));
        Err(Failure::Known(UnpackError::Link { what: "symlink", path, target }))
    }

    fn own(&self, place: &OwnedFd) -> Result<(), Errno> {
        match self.options.owner {
            Owner::Fixed(uid, gid) => chown(place, uid, gid),
            Owner::Archive | Owner::Mine => Ok(()),
        }
    }

    /// Owner, xattrs and mode, in this order: chown(2) clears set-id bits and file capabilities.
    fn describe(&self, place: &OwnedFd, entry: &Entry) -> Result<(), Errno> {
        match self.options.owner {
            Owner::Archive => chown(place, entry.uid, entry.gid)?,
            Owner::Fixed(uid, gid) => chown(place, uid, gid)?,
            Owner::Mine => {}
        }
        let path = proc_path(place);
        self.set_xattrs(entry, |name, value| rustix::fs::setxattr(&*path, name, value, XattrFlags::empty()))?;
        if entry.kind == Kind::Symlink {
            return Ok(());
        }
        rustix::fs::chmodat(CWD, &*path, Mode::from_raw_mode(entry.mode), AtFlags::empty())
    }

    fn finish(self) {
        for (path, mtime) in &self.times {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            // Somebody else moved it away, or is faster: their time is as good as ours.
            if let Ok(place) = open(self.options.root, &self.options.whole(path)[..], flags, self.options.resolution) {
                let _ = set_times(&place, *mtime);
            }
        }
    }
}

impl Unpack<'_> {
    /// A path of the archive as one below the root.
    fn whole(&self, path: &[u8]) -> Vec<u8> {
        let whole = join(self.directory, path);
        if whole.is_empty() { b".".to_vec() } else { whole }
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn chown(place: &OwnedFd, uid: u32, gid: u32) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(place, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

fn times(mtime: Time) -> Timestamps {
    let time = Timespec { tv_sec: mtime.secs, tv_nsec: i64::from(mtime.nanos) };
    Timestamps { last_access: time, last_modification: time }
}

fn set_times(place: &OwnedFd, mtime: Time) -> Result<(), Errno> {
    rustix::fs::utimensat(CWD, proc_path(place), &times(mtime), AtFlags::empty())
}

/// Removes whatever is called `name`, following nothing. What is a mount is busy, as it is for who has it in his own
/// namespace: in another one the kernel would take the mount away, and what is written then would be seen by nobody.
fn remove(parent: impl AsFd, name: &CStr, depth: usize) -> Result<(), Errno> {
    if is_mounted(parent.as_fd(), name) {
        return Err(Errno::BUSY);
    }
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(err) => return Err(err),
    }
    let depth = depth.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            remove(&directory, entry.file_name(), depth)?;
        }
    }
    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)
}

fn is_mounted(parent: BorrowedFd<'_>, name: &CStr) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = rustix::fs::statx(parent, name, flags, StatxFlags::empty());
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests;
