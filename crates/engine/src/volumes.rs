//! What containers do with volumes: claim them at their creation, find them at their start, let go of them at their
//! removal.
//!
//! A volume is claimed before the record of its container is written and let go after that is gone. What a kill leaves in
//! between has an owner that does not exist, and goes when the engine opens ([`recall`]).

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use container_spec::{Point, Ready, VolumeWish};
use errdefs::ErrorKind;
use oci::ContainerId;
use oci::runtime::Mount;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat};
use rustix::io::Errno;
use sys::open::openat2;
use tracing::{error, warn};
use volume::{FillError, RemoveError, Volume, Wanted};

use crate::Engine;
use crate::container::Container;
use crate::image_mounts;
use crate::ops::changes::STUBS;

/// Why a container's volumes are not ready. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// One cannot be made.
    #[error(transparent)]
    Create(#[from] volume::CreateError),
    /// One of another container is gone.
    #[error(transparent)]
    NotFound(#[from] volume::NotFound),
    /// One cannot be filled.
    #[error(transparent)]
    Fill(#[from] volume::FillError),
    /// The image has a file in its place.
    #[error("cannot mount volume over existing file, file exists {}", path.display())]
    File {
        /// In the container.
        path: PathBuf,
    },
    /// The container's root cannot be looked into.
    #[error("look into the container's root")]
    Root(#[source] std::io::Error),
}

impl ClaimError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ClaimError::Create(err) => err.kind(),
            ClaimError::NotFound(err) => err.kind(),
            ClaimError::Fill(err) => err.kind(),
            ClaimError::File { .. } | ClaimError::Root(_) => ErrorKind::Internal,
        }
    }
}

/// What was claimed for a container that does not exist yet. Named volumes stay when it comes to nothing, as with dockerd.
#[derive(Debug, Default)]
pub(crate) struct Claimed {
    all: Vec<String>,
    anonymous: Vec<String>,
}

/// Makes the volumes of a container ready, and tells its mounts where they are. Takes back what it did when it fails. Blocks.
pub(crate) fn claim(
    engine: &Engine,
    id: &ContainerId,
    points: &mut [Point],
    ready: &[Ready],
    root: &[Mount],
) -> Result<Claimed, ClaimError> {
    let mut claimed = Claimed::default();
    let done = claim_all(engine, id, points, ready, &mut claimed).and_then(|()| fill(engine, points, ready, root));
    match done {
        Ok(()) => Ok(claimed),
        Err(err) => {
            claimed.take_back(engine, id);
            Err(err)
        }
    }
}

fn claim_all(
    engine: &Engine,
    id: &ContainerId,
    points: &mut [Point],
    ready: &[Ready],
    claimed: &mut Claimed,
) -> Result<(), ClaimError> {
    for (point, ready) in points.iter_mut().zip(ready) {
        let name = &point.shown.name;
        let volume = match ready {
            Ready::AsItIs | Ready::Image => continue,
            Ready::Shared => engine.volumes.acquire(name, id)?,
            Ready::Volume(wish) => {
                let created = engine.volumes.create(&wanted(name, point.anonymous, wish), Some(id))?;
                if created.new {
                    engine.events.volume(name, "create", []);
                    claimed.anonymous.extend(point.anonymous.then(|| name.clone()));
                }
                created.volume
            }
        };
        claimed.all.push(name.clone());
        point.shown.source = volume.mountpoint.to_string_lossy().into_owned();
    }
    Ok(())
}

fn wanted(name: &str, anonymous: bool, wish: &VolumeWish) -> Wanted {
    let VolumeWish { driver, labels, options, .. } = wish.clone();
    Wanted { name: name.to_owned(), anonymous, driver, labels, options }
}

/// Copies what the image holds at the places of new volumes.
fn fill(engine: &Engine, points: &[Point], ready: &[Ready], mounts: &[Mount]) -> Result<(), ClaimError> {
    let wishes = points.iter().zip(ready).filter_map(|(point, ready)| match ready {
        Ready::Volume(wish) if wish.fill || wish.refuse_file => Some((point, wish)),
        _ => None,
    });
    let mut root = None;
    for (point, wish) in wishes {
        let root = match &root {
            Some(root) => root,
            // Only who has volumes pays for it.
            None => root.insert(crate::view::mount_detached(mounts).map_err(ClaimError::Root)?),
        };
        let path = Path::new(&point.shown.destination);
        if wish.refuse_file {
            refuse_file(root.as_fd(), path)?;
        }
        if wish.fill {
            if is_stub(path) {
                return Err(FillError::NotDirectory { path: path.to_owned() }.into());
            }
            engine.volumes.fill(&point.shown.name, root.as_fd(), path)?;
        }
    }
    Ok(())
}

/// Whether a start will make a file there, which dockerd has in its layer already when volumes are filled.
fn is_stub(path: &Path) -> bool {
    path.strip_prefix("/").is_ok_and(|path| STUBS.files.iter().any(|file| Path::new(file) == path))
}

fn refuse_file(root: std::os::fd::BorrowedFd<'_>, path: &Path) -> Result<(), ClaimError> {
    if is_stub(path) {
        return Err(ClaimError::File { path: path.to_owned() });
    }
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let opened = openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
    let stat = match opened.and_then(fstat) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(err) => return Err(ClaimError::Root(err.into())),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(()),
        _ => Err(ClaimError::File { path: path.to_owned() }),
    }
}

impl Claimed {
    /// Gives all of it back: the container came to nothing. Blocks.
    pub(crate) fn take_back(self, engine: &Engine, id: &ContainerId) {
        self.all.iter().for_each(|name| engine.volumes.release(name, id));
        self.anonymous.iter().for_each(|name| discard(engine, name));
    }
}

/// The mounts of a container as they are at this start. Volumes that are mounts of their own are mounted, until
/// [`put_down`], also where this fails. Blocks.
pub(crate) fn located(engine: &Engine, container: &Container) -> Result<Vec<Point>, LocateError> {
    let mut points = container.definition.mounts.clone();
    for point in &mut points {
        if point.shown.kind == "image" {
            point.stack = Some(image_mounts::stack(engine, point)?);
        }
        let Some(name) = point.volume() else { continue };
        let volume = volume::mount(&engine.volumes, name, container.id())?;
        if !point.subpath.is_empty() {
            // For its sentence: the shim, which mounts it, resolves it again.
            volume::open_subpath(&volume, Path::new(&point.subpath))?;
        }
        point.shown.source = volume.mountpoint.to_string_lossy().into_owned();
    }
    Ok(points)
}

/// Why a container's volumes cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// One is gone, or cannot be mounted.
    #[error(transparent)]
    Mount(#[from] volume::MountError),
    /// The wanted part of one cannot be opened.
    #[error(transparent)]
    Subpath(#[from] volume::SubpathError),
    /// The layers of an image that it mounts, or the wanted part of them, cannot be found.
    #[error(transparent)]
    Image(#[from] snapshot::SnapshotError),
}

impl LocateError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LocateError::Mount(err) => err.kind(),
            LocateError::Subpath(err) => err.kind(),
            LocateError::Image(err) => err.kind(),
        }
    }
}

/// Tells that a container's volumes are mounted.
pub(crate) fn tell_mounts(engine: &Engine, container: &Container) {
    for point in &container.definition.mounts {
        let Some(name) = point.volume() else { continue };
        let attributes = [
            ("container", container.id().to_string()),
            ("destination", point.shown.destination.clone()),
            ("propagation", point.shown.propagation.clone()),
            ("read/write", point.shown.rw.to_string()),
        ];
        engine.events.volume(name, "mount", attributes);
    }
}

/// A container needs the mounts no longer that its volumes are. Takes them away in the background.
fn put_down(engine: &Engine, container: &Container) {
    let stale = stale(engine, container);
    if !stale.is_empty() {
        let engine = engine.clone();
        tokio::spawn(bridge::blocking(move || settle(&engine, &stale)));
    }
}

/// The same at once. Blocks.
pub(crate) fn put_down_now(engine: &Engine, container: &Container) {
    settle(engine, &stale(engine, container));
}

/// Those that nobody holds any more.
fn stale(engine: &Engine, container: &Container) -> Vec<String> {
    let names = container.definition.mounts.iter().filter_map(Point::volume);
    names.filter(|name| volume::put_down(&engine.volumes, name, container.id())).map(str::to_owned).collect()
}

fn settle(engine: &Engine, names: &[String]) {
    for name in names {
        if let Err(err) = volume::settle_mount(&engine.volumes, name) {
            warn!(volume = name, err = errdefs::chain(&err), "a volume stays mounted");
        }
    }
}

/// Tells that a container's volumes are mounted no longer.
pub(crate) fn tell_unmounts(engine: &Engine, container: &Container) {
    put_down(engine, container);
    for name in container.definition.mounts.iter().filter_map(Point::volume) {
        engine.events.volume(name, "unmount", [("container", container.id().to_string())]);
    }
}

/// Before a container is removed without its volumes: none of them is only its own any more. Blocks.
pub(crate) fn disown(engine: &Engine, container: &Container) -> Result<(), volume::DisownError> {
    for name in own(container).filter(|name| !is_anothers(engine, name, container.id())) {
        match engine.volumes.disown(name) {
            Ok(()) | Err(volume::DisownError::NotFound(_)) => {}
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// Whether a volume goes with another container, whose it is as long as that is there.
fn is_anothers(engine: &Engine, name: &str, id: &ContainerId) -> bool {
    let owner = engine.volumes.get(name).ok().and_then(|listed| listed.volume.owner.clone());
    owner.is_some_and(|owner| owner != *id && engine.containers.get(&owner).is_some())
}

/// After a container was removed: others may have its volumes, and those that nobody named go with it if `remove`. Blocks.
pub(crate) fn let_go(engine: &Engine, container: &Container, remove: bool) {
    for name in container.definition.mounts.iter().filter_map(Point::volume) {
        engine.volumes.release(name, container.id());
    }
    if remove {
        own(container).for_each(|name| discard(engine, name));
    }
}

/// Volumes that nobody named.
fn own(container: &Container) -> impl Iterator<Item = &str> {
    container.definition.mounts.iter().filter(|point| point.anonymous).filter_map(Point::volume)
}

fn discard(engine: &Engine, name: &str) {
    match engine.volumes.remove(name) {
        Ok(volume) => tell_destroyed(engine, &volume),
        // Another container has it, too, or somebody was faster.
        Err(RemoveError::InUse { .. } | RemoveError::NotFound(_)) => {}
        Err(err) => warn!(volume = name, err = errdefs::chain(&err), "a volume that nobody named stays behind"),
    }
    engine.sweep_soon();
}

/// Tells that a volume is gone.
pub(crate) fn tell_destroyed(engine: &Engine, volume: &Volume) {
    engine.events.volume(volume.name.as_str(), "destroy", []);
}

/// When all containers are known: takes away the mounts of those that ended while no daemon lived. Blocks.
pub(crate) fn settle_mounts(engine: &Engine) {
    for container in engine.containers.all().iter().filter(|container| !container.state().is_running()) {
        put_down_now(engine, container);
    }
    for err in volume::settle_mounts(&engine.volumes) {
        warn!(err = errdefs::chain(&err), "a volume stays mounted");
    }
}

/// When the engine opens: volumes belong to the containers that are there, and are mounted for those that may run.
pub(crate) fn recall(engine: &Engine, may_run: impl Fn(&ContainerId) -> bool) {
    for fault in engine.volumes.faults() {
        error!(err = errdefs::chain(fault), "found among the volumes");
    }
    for container in engine.containers.all() {
        for name in container.definition.mounts.iter().filter_map(Point::volume) {
            if may_run(container.id()) {
                volume::held_before(&engine.volumes, name, container.id());
            }
            if let Err(err) = engine.volumes.acquire(name, container.id()) {
                error!(container = %container.id(), err = errdefs::chain(&err), "a volume of the container is missing");
            }
        }
    }
}

/// When all containers are known: takes the volumes of those whose creation or removal was cut. Blocks.
pub(crate) fn remove_orphans(engine: &Engine, exists: impl FnMut(&ContainerId) -> bool) {
    let orphans = engine.volumes.remove_orphans(exists);
    for volume in orphans.removed {
        warn!(volume = %volume.name, "the volume's container was never finished, or its removal: it is removed");
    }
    for err in orphans.failed {
        warn!(err = errdefs::chain(&err), "a volume whose container is gone stays behind");
    }
}
