//! Namespaces that a container shares with another one: process ids, and IPC with its shared memory.
//!
//! ```text
//!   create: resolve()            names become ids, which are kept; the other container must be there
//!   launch: join() -> Borrowed   descriptors for the shim, of a container that runs; blocks
//! ```
//! The network is [`crate::networking`]'s.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use engine_api::host_config::HostConfig;
use errdefs::ErrorKind;
use oci::ContainerId;
use oci::runtime::NamespaceKind;

use crate::Engine;
use crate::container::Container;
use crate::container::state::Phase;
use crate::registry::LookupError;

/// Why a container does not get into another one's namespace. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// There is none of that name.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It does not run.
    #[error("failed to join {namespace} namespace: container {id} is not running")]
    NotRunning {
        /// Which namespace.
        namespace: &'static str,
        /// Whose.
        id: ContainerId,
    },
    /// It waits for its next start.
    #[error("failed to join {namespace} namespace: Container {id} is restarting, wait until the container is running")]
    Restarting {
        /// Which namespace.
        namespace: &'static str,
        /// Whose.
        id: ContainerId,
    },
    /// It keeps its shared memory to itself.
    #[error(
        "failed to join IPC namespace: container {0}: non-shareable IPC (hint: use IpcMode:shareable for the donor \
         container)"
    )]
    NotShareable(ContainerId),
    /// The system says no.
    #[error("failed to join {namespace} namespace")]
    System {
        /// Which namespace.
        namespace: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl ShareError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            // dockerd says that the request is wrong, not that something is missing: its clients would pull the image.
            ShareError::Lookup(_) | ShareError::NotShareable(_) => ErrorKind::InvalidArgument,
            ShareError::NotRunning { .. } | ShareError::Restarting { .. } => ErrorKind::Conflict,
            ShareError::System { .. } => ErrorKind::Internal,
        }
    }
}

/// What the shim gets of other containers.
#[derive(Debug, Default)]
pub(crate) struct Borrowed {
    /// Namespaces.
    pub(crate) namespaces: Vec<(NamespaceKind, OwnedFd)>,
    /// A detached mount for /dev/shm.
    pub(crate) memory: Option<OwnedFd>,
}

/// `container:NAME` with the containers' ids, which they keep.
pub(crate) fn resolve(engine: &Engine, host: &mut HostConfig) -> Result<(), ShareError> {
    for mode in [&mut host.ipc_mode, &mut host.pid_mode] {
        if let Some(name) = mode.strip_prefix("container:") {
            *mode = format!("container:{}", engine.containers.find(name)?.id());
        }
    }
    Ok(())
}

/// Opens what a container that is about to start shares. Blocks briefly.
pub(crate) fn join(engine: &Engine, host: &HostConfig) -> Result<Borrowed, ShareError> {
    let mut borrowed = Borrowed::default();
    if let Some(id) = host.pid_mode.strip_prefix("container:") {
        let namespace = Donor::find(engine, id, "PID")?.namespace("pid")?;
        borrowed.namespaces.push((NamespaceKind::Pid, namespace));
    }
    if let Some(id) = host.ipc_mode.strip_prefix("container:") {
        let donor = Donor::find(engine, id, "IPC")?;
        if !donor.shares_memory() {
            return Err(ShareError::NotShareable(donor.container.id().clone()));
        }
        borrowed.namespaces.push((NamespaceKind::Ipc, donor.namespace("ipc")?));
        borrowed.memory = Some(donor.memory()?);
    }
    Ok(borrowed)
}

/// A container that runs.
struct Donor {
    container: Arc<Container>,
    /// How sentences call what is shared.
    namespace: &'static str,
    run: (i32, i64),
}

impl Donor {
    fn find(engine: &Engine, id: &str, namespace: &'static str) -> Result<Donor, ShareError> {
        let container = engine.containers.find(id)?;
        let run = Donor::run(&container, namespace)?;
        Ok(Donor { container, namespace, run })
    }

    /// The first process, and when it was started.
    fn run(container: &Container, namespace: &'static str) -> Result<(i32, i64), ShareError> {
        let (state, id) = (container.state(), container.id().clone());
        match state.phase {
            Phase::Running { pid } => Ok((pid, state.started_at_nanos)),
            Phase::Restarting => Err(ShareError::Restarting { namespace, id }),
            _ => Err(ShareError::NotRunning { namespace, id }),
        }
    }

    fn namespace(&self, name: &str) -> Result<OwnedFd, ShareError> {
        let file = File::open(format!("/proc/{}/ns/{name}", self.run.0));
        // A process that ended may have left its number to another one.
        if Donor::run(&self.container, self.namespace)? != self.run {
            return Err(ShareError::NotRunning { namespace: self.namespace, id: self.container.id().clone() });
        }
        file.map(OwnedFd::from).map_err(self.failed())
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> ShareError {
        let namespace = self.namespace;
        move |source| ShareError::System { namespace, source }
    }

    /// Whether others may have its /dev/shm: not where a user has mounted something there.
    fn shares_memory(&self) -> bool {
        let definition = &self.container.definition;
        let mode = definition.host_config.ipc_mode.as_str();
        let covered = definition.mounts.iter().any(|point| point.shown.destination == "/dev/shm")
            || definition.host_config.tmpfs.iter().flatten().any(|(place, _)| place == "/dev/shm");
        (mode == "shareable" && !covered) || mode == "host" || mode.starts_with("container:")
    }

    /// Its /dev/shm, as a detached mount: only in its own mount namespace can that be cloned.
    fn memory(&self) -> Result<OwnedFd, ShareError> {
        let namespace = self.namespace("mnt")?;
        // Joined by a thread that nobody uses afterwards.
        let cloned = std::thread::scope(|scope| {
            scope.spawn(|| sys::namespace::clone_in_mount_namespace(namespace.as_fd(), "/dev/shm")).join()
        });
        cloned.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(self.failed())
    }
}
