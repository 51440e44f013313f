//! Containers that are written to files and made from them again, by CRIU (criu.org).
//!
//! ```text
//! [`checkpoint`]    criu swrk <--- DUMP (settings: pid, mounts of the host's, namespaces of the host's, freezer)
//!                             ---> NOTIFY step, answered each time ... DUMP success
//!
//! [`Restoring::begin`]   cgroup; criu swrk inside it, in a mount namespace of its own with the root at a place of its own
//!                             <--- RESTORE (settings: root, where mounts come from, streams, cgroups)
//!                             ---> NOTIFY setup-namespaces: hooks, loopback
//!                             ---> NOTIFY orphan-pts-master: the terminal's master
//!                             ---> NOTIFY post-restore: everything is there and stands still. The caller records it
//! [`Restoring::release`]      ---> RESTORE success: it runs, a child of ours
//! ```
//!
//! The images' directory holds CRIU's files, and `descriptors.json` with what the first process's standard streams were, as
//! runc writes it: pipes are replaced by the ones that are given at the restore. So are files of the host's, of which runc's
//! containers may have none: CRIU wants one that is as long as it was, unless it is only appended to.
//!
//! CRIU runs in a mount namespace that ends with it, so that it leaves no mount however it ends. At a restore it runs in the
//! container's cgroup: whatever it has made ends with that. At a dump nothing of it stays: if it fails, or is killed, or
//! nobody hears its answers any more, the container's processes go on.
//!
//! Not done by us, but by the specification's other half, CRIU: what can be dumped at all. Its log says what could not.

mod criu;
mod dump;
mod error;
mod mounts;
mod request;
mod restore;
mod wire;

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use oci::runtime::{NamespaceKind, Spec};

use crate::container::Stdio;

pub use dump::{Checkpoint, checkpoint};
pub use error::CriuError;
pub use request::CgroupMode;
pub use restore::{Restore, Restored, Restoring};

use request::Settings;

/// What a checkpoint and its restore have in common.
#[derive(Clone, Debug, Default)]
pub struct CriuOptions {
    /// The images' directory; absolute. Made by a checkpoint.
    pub images: PathBuf,
    /// Where the log is written and sockets are; absolute, made. The images' directory if absent.
    pub work: Option<PathBuf>,
    /// Whether established TCP connections may be there.
    pub tcp_established: bool,
    /// Whether unix sockets may have their other end outside.
    pub ext_unix_sockets: bool,
    /// Whether session and terminal may be the caller's.
    pub shell_job: bool,
    /// Whether file locks may be there.
    pub file_locks: bool,
    /// Whether images lose what a later one has, too.
    pub auto_dedup: bool,
    /// Whether memory comes when it is touched.
    pub lazy_pages: bool,
    /// What becomes of cgroups.
    pub cgroups: CgroupMode,
    /// Where CRIU is looked for, and what it looks for, as in `PATH`; that variable itself if absent.
    pub search_path: Option<OsString>,
}

impl CriuOptions {
    /// What is the same for both.
    fn settings(&self, spec: &Spec, directories: &Directories, log_file: &'static str) -> Settings {
        Settings {
            images: directories.images.as_raw_fd(),
            work: directories.work.as_ref().map(|work| work.as_raw_fd()),
            log_file,
            config_file: config_file(spec),
            cgroups: self.cgroups,
            tcp_established: self.tcp_established,
            ext_unix_sockets: self.ext_unix_sockets,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
            network_lock: criu::network_lock(&self.search_path()),
            ..Settings::default()
        }
    }

    /// The value of `PATH` that counts.
    fn search_path(&self) -> OsString {
        self.search_path.clone().or_else(|| std::env::var_os("PATH")).unwrap_or_default()
    }

    fn log(&self, log_file: &str) -> PathBuf {
        self.work.as_ref().unwrap_or(&self.images).join(log_file)
    }
}

/// Settings of the host's that win over ours: those that the container names in an annotation (none if that is empty), else
/// those for runc, whose place we take.
fn config_file(spec: &Spec) -> Option<String> {
    match spec.annotations.get("org.criu.config") {
        Some(file) => Some(file.clone()).filter(|file| !file.is_empty()),
        None => Some("/etc/criu/runc.conf".to_owned()),
    }
}

/// Open directories.
#[derive(Debug)]
struct Directories {
    images: OwnedFd,
    work: Option<OwnedFd>,
    paths: (PathBuf, Option<PathBuf>),
}

impl Directories {
    fn open(options: &CriuOptions, make_images: bool) -> Result<Directories, CriuError> {
        if make_images {
            make(&options.images)?;
        }
        if let Some(work) = &options.work {
            make(work)?;
        }
        let work = options.work.as_deref().map(open).transpose()?;
        Ok(Directories { images: open(&options.images)?, work, paths: (options.images.clone(), options.work.clone()) })
    }

    /// Opens the same again, at the same numbers, in the mount namespace of a new process: CRIU mounts things where it works,
    /// which is possible on mounts of its own namespace alone.
    fn reopen(&mut self) -> io::Result<()> {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let open = |path: &Path| rustix::fs::open(path, flags, rustix::fs::Mode::empty());
        rustix::io::dup2(open(&self.paths.0)?, &mut self.images)?;
        if let (Some(work), Some(path)) = (&mut self.work, &self.paths.1) {
            rustix::io::dup2(open(path)?, work)?;
        }
        Ok(())
    }
}

fn make(path: &Path) -> Result<(), CriuError> {
    DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(images("create", path))
}

fn open(path: &Path) -> Result<OwnedFd, CriuError> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, rustix::fs::Mode::empty());
    opened.map_err(|err| images("open", path)(err.into()))
}

fn images(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CriuError {
    let path = path.to_owned();
    move |source| CriuError::Images { action, path, source }
}

/// In the images' directory, beside CRIU's files (runc's name).
const DESCRIPTORS: &str = "descriptors.json";

/// Namespaces of the host's that CRIU can leave alone: our name, its word, and the name between checkpoint and restore.
const OUTSIDE: [(NamespaceKind, &str, &str); 2] =
    [(NamespaceKind::Network, "net", "extRootNetNS"), (NamespaceKind::Pid, "pid", "extRootPidNS")];

/// Where a namespace comes from that is not the container's own.
fn outside(spec: &Spec, kind: NamespaceKind) -> Option<&Path> {
    spec.linux.namespaces.iter().find(|namespace| namespace.kind == kind)?.path.as_deref()
}

/// What `/proc/PID/fd` shows of the standard streams of a process; what is closed is empty.
pub fn descriptors(process: i32) -> Vec<String> {
    (0..3).map(|number| shown(&format!("/proc/{process}/fd/{number}"))).collect()
}

/// Likewise of those that a process is given; nothing of a terminal, which is the container's own.
pub fn descriptors_given(stdio: &Stdio) -> Vec<String> {
    let Stdio::Fds(fds) = stdio else { return Vec::new() };
    fds.iter().map(|fd| shown(&format!("/proc/self/fd/{}", fd.as_raw_fd()))).collect()
}

fn shown(link: &str) -> String {
    std::fs::read_link(link).map_or_else(|_| String::new(), |path| path.to_string_lossy().into_owned())
}

fn bytes(path: &Path) -> Vec<u8> {
    OsString::from(path).as_bytes().to_vec()
}

/// Reads what tells a checkpoint's directory from any other.
fn read_descriptors(images: &Path) -> Result<Vec<String>, CriuError> {
    let path = images.join(DESCRIPTORS);
    let file = File::open(&path).map_err(|source| CriuError::NoImages {
        path: images.to_owned(),
        missing: path.clone(),
        source,
    })?;
    serde_json::from_reader(io::BufReader::new(file)).map_err(|source| CriuError::Descriptors { path, source })
}
