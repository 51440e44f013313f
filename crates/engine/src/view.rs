//! A container's files from outside: its root, and what of its mounts is its owner's business.
//!
//! ```text
//!   runs      a thread joins its mount namespace, clones its root and its mounts, and comes back to one of its own
//!   stopped   its layers are put together as for a start; volumes and binds are opened where they are
//!   then      detached (Mounts::None), or in a mount namespace of the thread's own that only a descriptor keeps
//! ```
//! Nothing is mounted where anybody else could see it, and the last descriptor takes everything away: also when the daemon
//! is killed. proc, sysfs and /dev are not in it, so no name in a container leads to the kernel or to a process; what is
//! reached through it is reached by [`View::open`], which never leaves the root (CVE-2018-15664). Nothing is loaded or
//! executed with a container's root (CVE-2019-14271).
//!
//! While somebody has a view of a stopped container nothing else happens to it: a start would mount the same upper directory
//! again, which overlayfs does not survive (crate `snapshot`, "Leases"). A view of a running one delays only its next start
//! and its removal: whoever reads slowly, or not at all, holds up neither a commit nor a pause.

mod overlay;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use container_spec::Point;
use errdefs::ErrorKind;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsmount, fsopen, mount_change, move_mount, open_tree,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use snapshot::Syncs;
use sys::mount::Attributes;
use sys::open::openat2;
use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard};

use crate::Engine;
use crate::container::Container;
use crate::container::state::Phase;
use crate::ops::create::snapshot_key;
use crate::volumes::{self, LocateError};
pub(crate) use overlay::mount_detached;

/// Which mounts of a container are in a view of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mounts {
    /// None: its root alone.
    None,
    /// What its owner gave it: volumes, binds, tmpfs; and its hostname, hosts and resolv.conf.
    Own,
}

/// A container's files.
#[derive(Debug)]
pub(crate) struct View {
    root: OwnedFd,
    /// Keeps the mounts below the root.
    _namespace: Option<OwnedFd>,
}

/// Why a container's files cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The shim of its last run does not end.
    #[error("the container's last run has not ended completely")]
    StillEnding,
    /// Its layers are not there.
    #[error("find the container's layers")]
    Snapshot(#[source] snapshot::SnapshotError),
    /// A volume of it cannot be found.
    #[error(transparent)]
    Volume(#[from] LocateError),
    /// The system says no.
    #[error("{what}")]
    System {
        /// What we were doing.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A mount of it cannot be shown.
    #[error("mount {}", destination.display())]
    Mount {
        /// Where in the container.
        destination: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ViewError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ViewError::Volume(err) => err.kind(),
            _ => ErrorKind::Internal,
        }
    }
}

/// Leave to look at a container's files; kept for as long as the view.
pub(crate) struct Leave {
    /// The mount namespace of a container that runs.
    namespace: Option<OwnedFd>,
    /// The present run's files.
    _run: Option<OwnedRwLockReadGuard<()>>,
    /// Everything, of a container that does not run.
    _operation: Option<OwnedMutexGuard<()>>,
}

/// Waits until the container's files may be looked at.
pub(crate) async fn enter(engine: &Engine, container: &Arc<Container>) -> Result<Leave, ViewError> {
    let operation = container.operation.clone().lock_owned().await;
    // The shim of the last run has the layers mounted as long as it is there.
    if container.state().pid() == 0
        && let Some(last) = container.shim()
        && !last.wait_gone(crate::launch::LAST_SHIM_TIMEOUT).await
    {
        return Err(ViewError::StillEnding);
    }
    let (task, inside) = (engine.clone(), container.clone());
    let namespace = bridge::blocking(move || running_namespace(&task, &inside)).await;
    if namespace.is_some() {
        let run = container.views.clone().read_owned().await;
        return Ok(Leave { namespace, _run: Some(run), _operation: None });
    }
    // Whoever looks at the files of the last run may do so to the end.
    drop(container.views.write().await);
    Ok(Leave { namespace, _run: None, _operation: Some(operation) })
}

/// A mount to be shown, and where.
struct Placed {
    destination: PathBuf,
    mount: OwnedFd,
}

/// What a view is made of.
struct Plan<'a> {
    engine: Engine,
    /// The mount namespace of a container that runs.
    namespace: Option<&'a OwnedFd>,
    root: Option<OwnedFd>,
    points: Vec<Point>,
    files: Vec<(PathBuf, PathBuf)>,
}

/// Opens the files of a container. The caller keeps its leave for as long as the view. Blocks.
pub(crate) fn open(engine: &Engine, container: &Container, mounts: Mounts, leave: &Leave) -> Result<View, ViewError> {
    let namespace = leave.namespace.as_ref();
    let view = open_in(engine, container, mounts, namespace);
    if namespace.is_none() && mounts == Mounts::Own {
        // The view has copies of the mounts that its volumes are.
        volumes::put_down_now(engine, container);
    }
    view
}

fn open_in(
    engine: &Engine,
    container: &Container,
    mounts: Mounts,
    namespace: Option<&OwnedFd>,
) -> Result<View, ViewError> {
    let (mut points, mut files) = (Vec::new(), Vec::new());
    if mounts == Mounts::Own {
        let dir = engine.recorder.dir(container.id());
        files = [("etc/hostname", dir.hostname()), ("etc/hosts", dir.hosts()), ("etc/resolv.conf", dir.resolv_conf())]
            .map(|(place, path)| (PathBuf::from(place), path))
            .into();
        points = match namespace {
            Some(_) => container.definition.mounts.clone(),
            None => volumes::located(engine, container)?,
        };
        points.extend(short_tmpfs(container));
        // What lies above another one comes first.
        points.sort_by_key(|point| Path::new(&point.shown.destination).components().count());
    }
    let root = match namespace {
        Some(_) => None,
        None => {
            let found = snapshot::mounts_now(engine.images.snapshots(), &snapshot_key(container.id()), Syncs::Made);
            let mounted = mount_detached(&found.map_err(ViewError::Snapshot)?);
            Some(mounted.map_err(system("mount the container's layers"))?)
        }
    };
    let root = match root {
        // A detached mount needs no namespace.
        Some(root) if mounts == Mounts::None => return Ok(View { root, _namespace: None }),
        root => root,
    };
    let plan = Plan { engine: engine.clone(), namespace, root, points, files };
    // Namespaces are joined by a thread that nobody else uses afterwards.
    let built = std::thread::scope(|scope| scope.spawn(|| plan.build(mounts)).join());
    built.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// `--tmpfs`, which is no point of the record.
fn short_tmpfs(container: &Container) -> Vec<Point> {
    let places = container.definition.host_config.tmpfs.iter().flatten().map(|(place, _)| place);
    let point = |place: &String| {
        let shown = engine_api::container::MountPoint {
            kind: "tmpfs".to_owned(),
            destination: place.clone(),
            rw: true,
            ..Default::default()
        };
        Point::new(shown)
    };
    places.map(point).collect()
}

fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> ViewError {
    move |source| ViewError::System { what, source: source.into() }
}

/// The mount namespace of a container, if it runs. Its process id may be another process's by now: the time of its start
/// tells, and the directory in /proc stays that process's.
fn running_namespace(engine: &Engine, container: &Container) -> Option<OwnedFd> {
    let Phase::Running { pid } = container.state().phase else { return None };
    let state = std::fs::read(shim_api::paths::state(&engine.recorder.shim_dir(container.id()))).ok()?;
    let state: shim_api::RunState = serde_json::from_slice(&state).ok()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).ok()?;
    let read = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut stat = std::fs::File::from(openat(&process, "stat", read, Mode::empty()).ok()?);
    let mut text = String::new();
    io::Read::read_to_string(&mut stat, &mut text).ok()?;
    // Behind the name, which may hold anything, the fields begin with the third; the start is the 22nd (proc(5)).
    let ticks: u64 = text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    (state.pid == pid && state.pid_start_ticks == ticks).then_some(())?;
    openat(&process, "ns/mnt", read, Mode::empty()).ok()
}

impl Plan<'_> {
    /// In a thread of its own, which gets a mount namespace of its own with its root and working directory.
    fn build(self, mounts: Mounts) -> Result<View, ViewError> {
        sys::namespace::unshare(UnshareFlags::NEWNS).map_err(system("make a mount namespace"))?;
        let recursive = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", recursive).map_err(system("separate the mount namespace"))?;
        let own = openat(CWD, "/proc/thread-self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let own = own.map_err(system("open the mount namespace"))?;
        let (root, placed) = match (self.namespace, self.root.as_ref()) {
            (Some(namespace), _) => self.clone_running(namespace, &own)?,
            (None, Some(root)) => {
                let root = root.try_clone().map_err(system("keep the container's root"))?;
                let placed = self.open_sources()?;
                (root, placed)
            }
            (None, None) => return Err(system("find the container's root")(Errno::NOENT)),
        };
        match mounts {
            Mounts::None => Ok(View { root, _namespace: None }),
            Mounts::Own => self.attach(root, placed, own),
        }
    }

    /// Joins the container's mount namespace, takes what is wanted, and comes back.
    fn clone_running(&self, namespace: &OwnedFd, own: &OwnedFd) -> Result<(OwnedFd, Vec<Placed>), ViewError> {
        let join = |namespace: &OwnedFd| move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount));
        join(namespace).map_err(system("join the container's mount namespace"))?;
        let cloned = self.clone_here();
        join(own).map_err(system("leave the container's mount namespace"))?;
        cloned
    }

    fn clone_here(&self) -> Result<(OwnedFd, Vec<Placed>), ViewError> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let root = open_tree(CWD, "/", flags).map_err(system("clone the container's root"))?;
        let here = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let here = here.map_err(system("open the container's root"))?;
        let files = self.files.iter().map(|(place, _)| place.clone());
        let points = self.points.iter().map(|point| relative(&point.shown.destination));
        let mut placed = Vec::new();
        for destination in points.chain(files) {
            // Links of /proc lead anywhere: with the host's processes in view, to the host's root.
            let Ok(place) = open_in_root(here.as_fd(), &destination) else { continue };
            if !is_mount_root(&place) {
                continue;
            }
            let flags = flags | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
            let cloned = open_tree(&place, "", flags);
            let mount =
                cloned.map_err(|err| ViewError::Mount { destination: destination.clone(), source: err.into() })?;
            placed.push(Placed { destination, mount });
        }
        Ok((root, placed))
    }

    /// Opens what a start would mount. What is missing on the host, a start would make or refuse; here it is not shown.
    fn open_sources(&self) -> Result<Vec<Placed>, ViewError> {
        let mut placed = Vec::new();
        for point in &self.points {
            let destination = relative(&point.shown.destination);
            let opened = self.source(point);
            let Some(mount) = opened.map_err(|source| ViewError::Mount { destination: destination.clone(), source })?
            else {
                continue;
            };
            placed.push(Placed { destination, mount });
        }
        for (destination, path) in &self.files {
            let covered = self.points.iter().any(|point| relative(&point.shown.destination) == *destination);
            let mount = if covered { None } else { clone_path(path).ok().flatten() };
            placed.extend(mount.map(|mount| Placed { destination: destination.clone(), mount }));
        }
        Ok(placed)
    }

    fn source(&self, point: &Point) -> io::Result<Option<OwnedFd>> {
        let mount = match point.shown.kind.as_str() {
            "tmpfs" => Some(empty_tmpfs()?),
            "image" => match &point.stack {
                Some(stack) if stack.kind == "bind" => clone_path(&stack.source)?,
                stack => Some(mount_detached(stack.as_slice())?),
            },
            _ if point.subpath.is_empty() => clone_path(Path::new(&point.shown.source))?,
            _ => {
                let listed = self.engine.volumes.get(&point.shown.name).map_err(io::Error::other)?;
                let opened = volume::open_subpath(&listed.volume, Path::new(&point.subpath));
                Some(clone_fd(&opened.map_err(io::Error::other)?)?)
            }
        };
        if let Some(mount) = &mount
            && !point.shown.rw
        {
            let read_only = Attributes { set: Attributes::READ_ONLY, ..Attributes::default() };
            sys::mount::set_attributes(mount.as_fd(), read_only, true)?;
        }
        Ok(mount)
    }

    /// Mounts everything in the thread's mount namespace, which nobody else has.
    fn attach(&self, root: OwnedFd, placed: Vec<Placed>, namespace: OwnedFd) -> Result<View, ViewError> {
        // Any directory will do: nobody sees what it covers.
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        let moved = move_mount(&root, "", CWD, &*self.engine.config.exec_root, flags);
        moved.map_err(system("mount the container's root"))?;
        for Placed { destination, mount } in placed {
            let of_mount = |source| ViewError::Mount { destination: destination.clone(), source };
            let is_directory =
                rustix::fs::fstat(&mount).map(|stat| is_directory(&stat)).map_err(|err| of_mount(err.into()))?;
            let place = make_place(root.as_fd(), &destination, is_directory).map_err(of_mount)?;
            let flags = flags | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(&mount, "", &place, "", flags).map_err(|err| of_mount(err.into()))?;
        }
        Ok(View { root, _namespace: Some(namespace) })
    }
}

/// A path in the container, from its root.
fn relative(destination: &str) -> PathBuf {
    destination.trim_start_matches('/').into()
}

fn is_directory(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_mount_root(place: &OwnedFd) -> bool {
    let found = rustix::fs::statx(place, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
    // STATX_ATTR_MOUNT_ROOT, since Linux 5.8.
    found.is_ok_and(|found| found.stx_attributes.bits() & 0x2000 != 0)
}

fn open_in_root(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// The place of a mount; what is missing of it is made, as a start would.
fn make_place(root: BorrowedFd<'_>, path: &Path, is_directory: bool) -> io::Result<OwnedFd> {
    match open_in_root(root, path) {
        Err(Errno::NOENT) => {}
        opened => return Ok(opened?),
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::NOENT.into()) };
    let parent = match parent.as_os_str().is_empty() {
        true => open_in_root(root, Path::new("."))?,
        false => make_place(root, parent, true)?,
    };
    if is_directory {
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
    } else {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
    }
    Ok(open_in_root(root, path)?)
}

/// What is at a path of the host, with what is mounted below it; `None` if there is nothing.
fn clone_path(path: &Path) -> io::Result<Option<OwnedFd>> {
    match openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => Ok(None),
        opened => clone_fd(&opened?).map(Some),
    }
}

fn clone_fd(place: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(place, "", flags)?)
}

fn empty_tmpfs() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

impl View {
    /// The root.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What is at a path, as a place: links on the way lead below the root, the last one only if `follow`.
    pub(crate) fn open(&self, path: &str, follow: bool) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let nofollow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        openat2(self.root.as_fd(), path, OFlags::PATH | OFlags::CLOEXEC | nofollow, Mode::empty(), resolve)
    }
}
