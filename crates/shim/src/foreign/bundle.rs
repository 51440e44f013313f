//! The bundle of a foreign runtime: `config.json`, and the root where it expects one.
//!
//! ```text
//!   <run dir>/bundle/
//!     config.json   the specification in the words of the standard alone
//!     rootfs/       the root, mounted in our own mount namespace: the host's table stays as it is
//!     mounts/N      what the standard has no words for: parts of volumes, shared memory
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use oci::runtime::{Mount, Root, Spec, User};
use oci_runtime::user::{self, UserError};
use oci_runtime::{CreateError, UserRequest};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, mount_change, move_mount};
use rustix::thread::UnshareFlags;
use shim_api::CreateTask;

/// The version of the specification that every runtime takes: crun 1.8 refuses 1.1 and what came after it.
const OLD_VERSION: &str = "1.0.2";

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    #[error("{what}")]
    System { what: &'static str, source: io::Error },
    #[error(transparent)]
    Root(CreateError),
    #[error("mount {}", place.display())]
    Mount { place: PathBuf, source: io::Error },
    #[error(transparent)]
    User(#[from] UserError),
    /// The working directory. The text is dockerd's, who finds it out before its runtime runs.
    #[error("Cannot mkdir: {0} is not a directory")]
    NotADirectory(String),
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> BundleError {
    move |source| BundleError::System { what, source }
}

/// Makes the bundle; answers the specification as the runtime gets it.
pub(crate) fn make(dir: &Path, task: &CreateTask) -> Result<Spec, BundleError> {
    // In the host's mount namespace: what a program serves would keep one in which it is attached, and that the program.
    let root = oci_runtime::detached_root(&task.spec.root).map_err(BundleError::Root)?;
    let served = task.spec.mounts.iter().map(served_tree).collect::<Result<Vec<_>, _>>()?;
    leave_host().map_err(system("separate the mounts of the runtime"))?;
    let rootfs = dir.join("rootfs");
    let made = DirBuilder::new().mode(0o711).recursive(true).create(&rootfs);
    made.map_err(system("make the bundle's directory"))?;
    let user = resolve(root.as_fd(), task)?;
    check_directory(root.as_fd(), &task.spec.process.cwd)?;
    attach(&root, &rootfs)?;
    let mut spec = task.spec.clone();
    spec.root = Root { path: rootfs, readonly: spec.root.readonly, mounts: Vec::new() };
    spec.process.user = user.unwrap_or(spec.process.user);
    let (uid, gid) = (spec.process.user.uid, spec.process.user.gid);
    spec.linux.devices.iter_mut().for_each(|device| device.give(uid, gid));
    // It compiles the profile itself, and knows only what the specification has.
    (spec.linux.seccomp_program, spec.linux.mount_table) = (None, false);
    // Older runtimes refuse later versions by their number, and pass over what they do not know.
    OLD_VERSION.clone_into(&mut spec.oci_version);
    for namespace in &mut spec.linux.namespaces {
        namespace.path = namespace.path.as_deref().map(of_ours);
    }
    for (index, (mount, served)) in spec.mounts.iter_mut().zip(served).enumerate() {
        let place = dir.join("mounts").join(index.to_string());
        match served {
            Some(tree) => stand_in_for(as_bind(mount), &place, tree)?,
            None if is_ours(mount) => stand_in(mount, &place)?,
            None => {}
        }
    }
    let text = serde_json::to_vec(&spec).map_err(io::Error::from);
    let written = text.and_then(|text| fs::write(dir.join("config.json"), text));
    written.map_err(system("write the bundle's config.json"))?;
    Ok(spec)
}

/// A mount namespace of our own, into which the host's mounts still come.
fn leave_host() -> io::Result<()> {
    sys::namespace::unshare(UnshareFlags::NEWNS)?;
    let below = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(mount_change("/", below)?)
}

fn resolve(root: BorrowedFd<'_>, task: &CreateTask) -> Result<Option<User>, BundleError> {
    let request = task.user.as_deref().map(|user| UserRequest { user, groups: &task.groups });
    let resolved = request.map(|request| user::resolve(root, request.user, request.groups)).transpose()?;
    Ok(resolved.map(|resolved| User { umask: task.spec.process.user.umask, ..resolved.user }))
}

/// A working directory that is not there is made by the runtime, one that is a file is nobody's.
fn check_directory(root: BorrowedFd<'_>, path: &str) -> Result<(), BundleError> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
    let is_file = found.and_then(fstat).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::Directory);
    if is_file { Err(BundleError::NotADirectory(path.to_owned())) } else { Ok(()) }
}

fn attach(mount: &OwnedFd, place: &Path) -> Result<(), BundleError> {
    let moved = move_mount(mount, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
    moved.map_err(|err| BundleError::Mount { place: place.to_owned(), source: err.into() })
}

/// A descriptor of ours, as another process names it.
fn of_ours(path: &Path) -> PathBuf {
    match path.strip_prefix("/proc/self") {
        Ok(rest) => Path::new("/proc").join(std::process::id().to_string()).join(rest),
        Err(_) => path.to_owned(),
    }
}

/// Whether other runtimes have no words for it: many layers do not fit into one option.
fn is_ours(mount: &Mount) -> bool {
    mount.prepared || mount.subpath.is_some() || mount.kind == "overlay"
}

/// Mounts what has words of ours only, and names that place instead.
fn stand_in(mount: &mut Mount, place: &Path) -> Result<(), BundleError> {
    let opened = if mount.prepared {
        openat(CWD, &mount.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from)
    } else if mount.kind == "overlay" {
        let tree = layers_of(mount)?;
        return stand_in_for(as_bind(mount), place, tree);
    } else {
        oci_runtime::clone_part(&mount.source, mount.subpath.as_deref().unwrap_or(Path::new(".")))
    };
    let failed = |source| BundleError::Mount { place: mount.destination.clone(), source };
    let tree = opened.map_err(failed)?;
    stand_in_for(mount, place, tree)
}

/// What a program serves for a mount, if it is such a one.
fn served_tree(mount: &Mount) -> Result<Option<OwnedFd>, BundleError> {
    (mount.kind == sys::fuse::KIND).then(|| layers_of(mount)).transpose()
}

fn layers_of(mount: &Mount) -> Result<OwnedFd, BundleError> {
    let layers = Mount { destination: PathBuf::new(), ..mount.clone() };
    let root = Root { mounts: vec![layers], ..Root::default() };
    oci_runtime::detached_root(&root).map_err(BundleError::Root)
}

/// Makes it one of a tree that is there.
fn as_bind(mount: &mut Mount) -> &mut Mount {
    (mount.kind, mount.options) = ("bind".to_owned(), ["rbind", "ro", "rprivate"].map(str::to_owned).into());
    mount
}

fn stand_in_for(mount: &mut Mount, place: &Path, tree: OwnedFd) -> Result<(), BundleError> {
    let failed = |source| BundleError::Mount { place: mount.destination.clone(), source };
    let is_directory = fstat(&tree).map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    let parent = place.parent().unwrap_or(place);
    let made = is_directory.map_err(io::Error::from).and_then(|is_directory| {
        fs::create_dir_all(parent)?;
        if is_directory { fs::create_dir(place) } else { File::create(place).map(drop) }
    });
    made.map_err(failed)?;
    attach(&tree, place)?;
    mount.source = place.to_owned();
    (mount.prepared, mount.subpath) = (false, None);
    Ok(())
}
