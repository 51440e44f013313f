//! The directories of the layer being made: finds them by name, makes those that are only implied.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use archive::Time;

use crate::recipe::Originals;

/// Open directories that are kept; an archive goes through its tree in order, so a few suffice.
const OPEN_MAX: usize = 128;

/// Symlinks followed on the way to one directory (path_resolution(7), MAXSYMLINKS).
const LINKS_MAX: usize = 40;

/// The longest path of a directory: PATH_MAX with the NUL, beyond which no program could open it by name. Symlinks of the
/// archive would lead any number of times as deep.
const PATH_MAX: usize = 4096;

/// Levels of directories. Whoever walks a layer (copies it, measures it) has one open descriptor per level.
const DEPTH_MAX: usize = 256;

/// What a directory takes in memory beside its path, roughly.
const DIRECTORY_BYTES: usize = 96;

/// The mode of a directory that no layer describes.
pub(crate) const IMPLIED_MODE: u32 = 0o755;

/// The xattr by which overlayfs hides what lies below a directory.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// What is known of a directory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Directory {
    /// No entry of the archive described it yet.
    pub(crate) implied: bool,
    /// Nothing of the layers below shows in it.
    pub(crate) opaque: bool,
    /// It stands where the layer deletes something: not even the directory itself is that of the layers below.
    pub(crate) replaced: bool,
    /// Set at the very end, since every entry made in it changes it.
    pub(crate) mtime: Time,
}

/// A directory below the root, without symlinks in its path.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) path: Vec<u8>,
    pub(crate) fd: Rc<OwnedFd>,
}

/// The layer's root and the directories in it.
pub(crate) struct Tree {
    root: Handle,
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// Every directory, by path from the root without symlinks.
    pub(crate) directories: BTreeMap<Vec<u8>, Directory>,
    /// What `directories` takes in memory, roughly.
    pub(crate) directories_bytes: usize,
    /// Where a recipe is written: what files were, before they are removed.
    pub(crate) originals: Option<Originals>,
}

/// Whether a directory that is missing is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Make,
    Fail,
}

/// Opens one component and follows nothing.
pub(crate) fn open_below(at: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(at, path, flags, Mode::empty(), resolve)
}

pub(crate) fn stat(at: &Handle, name: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::statat(&*at.fd, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        b"" => name.to_vec(),
        directory => [directory, name].join(&b'/'),
    }
}

impl Tree {
    pub(crate) fn new(root: OwnedFd, recorded: bool) -> Tree {
        let directories = BTreeMap::from([(Vec::new(), Directory { implied: true, ..Directory::default() })]);
        let root = Handle { path: Vec::new(), fd: Rc::new(root) };
        let originals = recorded.then(Originals::default);
        Tree { root, open: HashMap::new(), directories, directories_bytes: DIRECTORY_BYTES, originals }
    }

    /// What all of it takes in memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.directories_bytes + self.originals.as_ref().map_or(0, Originals::bytes)
    }

    pub(crate) fn root(&self) -> &Handle {
        &self.root
    }

    /// Finds the directory at a clean path; symlinks on the way lead from the layer's root, as in a chroot.
    pub(crate) fn directory(&mut self, path: &[u8], missing: Missing) -> Result<Handle, Errno> {
        if let Some(fd) = self.open.get(path) {
            return Ok(Handle { path: path.to_vec(), fd: fd.clone() });
        }
        let components = |path: &[u8]| -> Vec<Vec<u8>> { path.rsplit(|b| *b == b'/').map(<[u8]>::to_vec).collect() };
        let (mut todo, mut at, mut links) = (components(path), self.root.clone(), 0);
        while let Some(name) = todo.pop() {
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    at = self.parent(&at)?;
                    continue;
                }
                _ => {}
            }
            match self.child(&at, &name, missing) {
                Ok(child) => at = child,
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    links += 1;
                    let target = self.link(&at, &name)?;
                    if links > LINKS_MAX {
                        return Err(Errno::LOOP);
                    }
                    if target.starts_with(b"/") {
                        at = self.root.clone();
                    }
                    todo.extend(components(&target));
                }
                Err(err) => return Err(err),
            }
        }
        Ok(at)
    }

    fn parent(&mut self, at: &Handle) -> Result<Handle, Errno> {
        let end = at.path.iter().rposition(|b| *b == b'/').unwrap_or(0);
        let path = at.path[..end].to_vec();
        let fd = open_below(&*self.root.fd, if path.is_empty() { b"." } else { &path })?;
        Ok(Handle { path, fd: Rc::new(fd) })
    }

    /// Opens a child directory, or makes it. `LOOP` and `NOTDIR` say that something else is there.
    fn child(&mut self, at: &Handle, name: &[u8], missing: Missing) -> Result<Handle, Errno> {
        let path = join(&at.path, name);
        if let Some(fd) = self.open.get(&path) {
            return Ok(Handle { path, fd: fd.clone() });
        }
        let fd = match open_below(&*at.fd, name) {
            Err(Errno::NOENT) if missing == Missing::Make => {
                self.make(at, name, Directory { implied: true, ..Directory::default() })?;
                open_below(&*at.fd, name)?
            }
            Err(Errno::NOTDIR) if missing == Missing::Make && is_whiteout(&stat(at, name)?) => {
                rustix::fs::unlinkat(&*at.fd, name, AtFlags::empty())?;
                let directory = Directory { implied: true, opaque: true, replaced: true, ..Directory::default() };
                self.make(at, name, directory)?;
                open_below(&*at.fd, name)?
            }
            other => other?,
        };
        let fd = Rc::new(fd);
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        self.open.insert(path.clone(), fd.clone());
        Ok(Handle { path, fd })
    }

    fn link(&self, at: &Handle, name: &[u8]) -> Result<Vec<u8>, Errno> {
        match rustix::fs::readlinkat(&*at.fd, name, Vec::new()) {
            Ok(target) => Ok(target.into_bytes()),
            // Neither directory nor symlink.
            Err(Errno::INVAL) => Err(Errno::NOTDIR),
            Err(err) => Err(err),
        }
    }

    /// Makes a directory and remembers it.
    pub(crate) fn make(&mut self, at: &Handle, name: &[u8], directory: Directory) -> Result<(), Errno> {
        let path = join(&at.path, name);
        if path.len() >= PATH_MAX || path.iter().filter(|b| **b == b'/').count() >= DEPTH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        rustix::fs::mkdirat(&*at.fd, name, Mode::from_raw_mode(IMPLIED_MODE))?;
        // mkdir(2) obeys the umask.
        rustix::fs::chmodat(&*at.fd, name, Mode::from_raw_mode(IMPLIED_MODE), AtFlags::empty())?;
        if directory.opaque {
            self.set_opaque(&open_below(&*at.fd, name)?)?;
        }
        let bytes = DIRECTORY_BYTES + path.len();
        if self.directories.insert(path, directory).is_none() {
            self.directories_bytes += bytes;
        }
        Ok(())
    }

    /// Hides what lies below a directory.
    pub(crate) fn set_opaque(&self, directory: &OwnedFd) -> Result<(), Errno> {
        rustix::fs::fsetxattr(directory, OPAQUE, b"y", rustix::fs::XattrFlags::empty())
    }

    /// Removes whatever is called `name`, so that something else can take its place.
    pub(crate) fn remove(&mut self, at: &Handle, name: &[u8]) -> Result<(), Errno> {
        let path = join(&at.path, name);
        if let Some(originals) = &mut self.originals {
            originals.going(&*at.fd, name, &path);
        }
        match rustix::fs::unlinkat(&*at.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(err) => return Err(err),
        }
        let below = join(&path, b"");
        self.open.retain(|other, _| *other != path && !other.starts_with(&below));
        self.forget(&path, below);
        empty(open_below(&*at.fd, name)?, &path, self.originals.as_mut())?;
        rustix::fs::unlinkat(&*at.fd, name, AtFlags::REMOVEDIR)
    }

    /// Costs what is forgotten, not what there is: a hostile layer replaces directories all the time.
    fn forget(&mut self, path: &[u8], mut below: Vec<u8>) {
        while let Some((next, _)) = self.directories.range(below..).next() {
            if !next.starts_with(path) || next.get(path.len()) != Some(&b'/') {
                break;
            }
            below = next.clone();
            self.forget_one(&below);
        }
        self.forget_one(path);
    }

    fn forget_one(&mut self, path: &[u8]) {
        if self.directories.remove(path).is_some() {
            self.directories_bytes -= DIRECTORY_BYTES + path.len();
        }
    }
}

/// [`DEPTH_MAX`] bounds the depth.
fn empty(directory: OwnedFd, path: &[u8], mut originals: Option<&mut Originals>) -> Result<(), Errno> {
    let mut dir = rustix::fs::Dir::new(directory)?;
    while let Some(entry) = dir.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let below = join(path, name.to_bytes());
        if entry.file_type() == FileType::Directory {
            empty(open_below(dir.fd()?, name.to_bytes())?, &below, originals.as_deref_mut())?;
            rustix::fs::unlinkat(dir.fd()?, name, AtFlags::REMOVEDIR)?;
        } else {
            if let Some(originals) = originals.as_deref_mut() {
                originals.going(dir.fd()?, name.to_bytes(), &below);
            }
            rustix::fs::unlinkat(dir.fd()?, name, AtFlags::empty())?;
        }
    }
    Ok(())
}
