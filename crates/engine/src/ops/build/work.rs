//! Trees that are written to: a snapshot above an image's layers, mounted where only a descriptor leads.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use image::ImageRecord;
use rustix::fs::{
    AtFlags, CWD, Dir, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid, fstat, futimens, openat,
    openat2,
};
use rustix::io::Errno;
use snapshot::{ChainId, Driver, SnapshotKey, Stubs, Syncs};
use tracing::debug;

use super::kept_context::ContextFiles;
use super::tree::{self, Tree};
use crate::Engine;
use crate::view::mount_detached;

/// Mode of directories that nobody says anything about.
const DIRECTORY_MODE: u32 = 0o755;

/// How many links that lead to links are followed: as many as the kernel does (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Nobody but us writes to the tree of a copy.
pub(super) const NO_STUBS: Stubs<'static> = Stubs { files: &[], links: &[], directories: &[] };

/// Why a tree is not there. The rest of the sentence is the system's.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// Its layers cannot be put together.
    #[error("find the image's layers")]
    Snapshot(#[from] snapshot::SnapshotError),
    /// It cannot be mounted.
    #[error("mount the image's layers")]
    Mount(#[source] io::Error),
    /// A directory cannot be made.
    #[error("make directory {path}")]
    Directory {
        /// From the root.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// A snapshot that is written to; gone when it is dropped.
pub(super) struct Work {
    engine: Engine,
    pub(super) key: SnapshotKey,
    root: Option<OwnedFd>,
    /// Whether there are layers below.
    pub(super) has_layers: bool,
}

/// How directories are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewDirectories {
    pub(super) owner: (u32, u32),
    pub(super) mode: u32,
}

impl NewDirectories {
    /// Those of which nobody says more.
    pub(super) fn of(owner: (u32, u32)) -> NewDirectories {
        NewDirectories { owner, mode: DIRECTORY_MODE }
    }
}

impl Work {
    /// One above an image's layers, or above nothing. Blocks.
    pub(super) fn above(engine: &Engine, image: Option<&ImageRecord>) -> Result<Work, WorkError> {
        let key: SnapshotKey = stdx::id::random_hex::<32>().parse().expect("64 hex digits are a key");
        let chain = image.map(|image| image.chain.clone()).unwrap_or_default();
        engine.images.snapshots().prepare(&key, &chain)?;
        let mut work = Work { engine: engine.clone(), key, root: None, has_layers: !chain.is_empty() };
        work.mount_again()?;
        Ok(work)
    }

    pub(super) fn root(&self) -> &OwnedFd {
        self.root.as_ref().expect("it is mounted but while something is written below it")
    }

    /// The place below the mount where the files of an empty directory go, below which nothing is either: writing there comes to what
    /// writing through overlayfs does, and making a file takes half the time.
    ///
    /// Nothing may change below a mounted overlay (Documentation/filesystems/overlayfs.rst): the tree is not mounted, and has no
    /// root, until [`Work::mount_again`]. `None`, and nothing happens, where there is no such place.
    pub(super) fn take_beneath(&mut self, path: &str) -> Result<Option<OwnedFd>, WorkError> {
        if self.engine.images.snapshots().driver() != Driver::Overlay2 {
            return Ok(None);
        }
        let place = self.place_beneath(path);
        let place = place.map_err(|err| WorkError::Directory { path: path.to_owned(), source: err.into() })?;
        if place.is_some() {
            self.root = None;
        }
        Ok(place)
    }

    fn place_beneath(&self, path: &str) -> Result<Option<OwnedFd>, Errno> {
        let shown = tree::open(self.root(), path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        if !is_empty(&shown)? {
            return Ok(None);
        }
        // One of the layers' is copied up by a change, which this is none of otherwise.
        futimens(&shown, &times_of(&shown)?)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = openat(CWD, self.engine.images.snapshots().upper(&self.key), flags, Mode::empty())?;
        let real = self.real(path);
        let below = real.trim_start_matches('/');
        let below = if below.is_empty() { "." } else { below };
        let place = openat2(&own, below, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?;
        // What hides something of the layers is a file here.
        Ok(is_empty(&place)?.then_some(place))
    }

    /// Mounts the tree again, where it is not. What a build comes to is synced at its end.
    pub(super) fn mount_again(&mut self) -> Result<(), WorkError> {
        if self.root.is_none() {
            let mounts = snapshot::mounts_now(self.engine.images.snapshots(), &self.key, Syncs::LeftOut)?;
            self.root = Some(mount_detached(&mounts).map_err(WorkError::Mount)?);
        }
        Ok(())
    }

    /// Makes a directory and those above it, where they are missing.
    pub(super) fn make_directories(&self, path: &str, new: NewDirectories) -> Result<(), WorkError> {
        let failed = |err: Errno| WorkError::Directory { path: path.to_owned(), source: err.into() };
        self.directories_of(path, new, LINKS_MAX).map_err(failed)
    }

    /// Gives a directory the time of another one.
    pub(super) fn set_time(&self, path: &str, time: Timespec) -> Result<(), WorkError> {
        let failed = |err: Errno| WorkError::Directory { path: path.to_owned(), source: err.into() };
        let times = Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: time };
        let opened = tree::open(self.root(), path, OFlags::RDONLY | OFlags::DIRECTORY);
        opened.and_then(|place| rustix::fs::futimens(&place, &times)).map_err(failed)
    }

    fn directories_of(&self, path: &str, new: NewDirectories, links: usize) -> Result<(), Errno> {
        let mut above = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let whole = format!("{above}/{part}");
            match tree::open(self.root(), &*whole, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(_) => {}
                // A link may lead to where nothing is yet: that is made, too.
                Err(Errno::NOENT) => match self.target(&above, part) {
                    Some(_) if links == 0 => return Err(Errno::LOOP),
                    Some(target) => self.directories_of(&target, new, links - 1)?,
                    None => self.make(&above, part, new)?,
                },
                Err(err) => return Err(err),
            }
            above = whole;
        }
        Ok(())
    }

    /// Where something is, links followed, of which the last one may lead to nothing.
    pub(super) fn real(&self, path: &str) -> String {
        let tree = self.root().try_clone().ok().and_then(|root| Tree::new(root).ok());
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            if let Some(found) = tree.as_ref().and_then(|tree| tree.find(&*path).ok()) {
                return format!("/{}", String::from_utf8_lossy(&found.path));
            }
            let (above, name) = path.rsplit_once('/').unwrap_or(("", &path));
            match self.target(above, name) {
                Some(target) => path = target,
                None => break,
            }
        }
        path
    }

    /// Where a link leads to, as a path from the root; `None` of what is no link.
    fn target(&self, above: &str, name: &str) -> Option<String> {
        let whole = format!("{above}/{name}");
        let place = tree::open(self.root(), &*whole, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        // An empty path means the link itself (readlinkat(2)); of anything else there is none.
        let target = rustix::fs::readlinkat(&place, c"", Vec::new()).ok()?.into_string().ok()?;
        Some(if target.starts_with('/') { target } else { format!("{above}/{target}") })
    }

    fn make(&self, above: &str, name: &str, new: NewDirectories) -> Result<(), Errno> {
        let parent = tree::open(self.root(), above, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mode = Mode::from_raw_mode(new.mode);
        rustix::fs::mkdirat(&parent, name, mode)?;
        let (uid, gid) = (Uid::from_raw(new.owner.0), Gid::from_raw(new.owner.1));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        // Whatever our umask is.
        let made = tree::open(self.root(), &*format!("{above}/{name}"), OFlags::RDONLY | OFlags::DIRECTORY)?;
        rustix::fs::fchmod(made.as_fd(), mode)
    }
}

fn is_empty(directory: &OwnedFd) -> Result<bool, Errno> {
    for entry in Dir::read_from(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The times that a directory has.
fn times_of(directory: &OwnedFd) -> Result<Timestamps, Errno> {
    let stat = fstat(directory)?;
    let time = |secs, nanos: u64| Timespec { tv_sec: secs, tv_nsec: nanos.try_into().unwrap_or_default() };
    let last_access = time(stat.st_atime, stat.st_atime_nsec);
    Ok(Timestamps { last_access, last_modification: time(stat.st_mtime, stat.st_mtime_nsec) })
}

impl Drop for Work {
    fn drop(&mut self) {
        // Nothing may have it mounted when it goes.
        drop(self.root.take());
        if let Err(err) = self.engine.images.snapshots().remove(&self.key) {
            // The next start of the daemon finds it without a container.
            debug!(err = errdefs::chain(&err), "the files of a build step stay behind");
        }
        self.engine.sweep_soon();
    }
}

/// The files of an image, to be read, or those of a context that has a name. However an image ends meanwhile, its layers
/// stay.
pub(super) struct ImageTree {
    // Unmounted before what holds the layers goes.
    pub(super) tree: Tree,
    /// Its layers, lowest first; none of a context.
    pub(super) chain: Vec<ChainId>,
    held: Option<Work>,
}

impl ImageTree {
    /// Files that are in a directory of the build's own.
    pub(super) fn of_files(root: OwnedFd, files: Option<Arc<ContextFiles>>) -> io::Result<ImageTree> {
        let tree = Tree::new(root)?;
        let tree = files.into_iter().fold(tree, Tree::of);
        Ok(ImageTree { tree, chain: Vec::new(), held: None })
    }

    /// Whether there are no layers.
    pub(super) fn is_files(&self) -> bool {
        self.held.is_none()
    }
}

/// Opens the files of an image. Blocks.
pub(super) fn tree_of(engine: &Engine, image: &ImageRecord) -> Result<ImageTree, WorkError> {
    let mut held = Work::above(engine, Some(image))?;
    let root = held.root.take().expect("it has just been mounted");
    let tree = Tree::new(root).map_err(WorkError::Mount)?;
    let tree = match image.chain.last() {
        Some(top) => tree.of_layer(engine.seen_sources.clone(), top.to_string()),
        None => tree,
    };
    Ok(ImageTree { tree, chain: image.chain.clone(), held: Some(held) })
}
