//! `POST /containers/{id}/pause` and `/unpause`
//!
//! A container that stands still runs: its freezer holds all its processes. That is the kernel's to know, and survives the
//! daemon; the state says so, too, and the next daemon asks the kernel ([`recall`]).

use std::sync::Arc;
use std::time::Duration;

use cgroup::CgroupError;
use errdefs::ErrorKind;
use oci::ContainerId;
use tracing::warn;

use crate::Engine;
use crate::container::Container;
use crate::container::state::{Input, Phase};
use crate::registry::LookupError;
use crate::supervise;

/// How long the processes of a container may take to stand still, or to go on; dockerd has no limit, and hangs where they
/// do not.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why [`pause`] or [`unpause`] failed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It does not run.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// It waits for its next start.
    #[error("Container {0} is restarting, wait until the container is running")]
    Restarting(ContainerId),
    /// It stands still already.
    #[error("Container {0} is already paused")]
    Paused(ContainerId),
    /// It does not stand still.
    #[error("Container {0} is not paused")]
    NotPaused(ContainerId),
    /// Its processes do not stand still.
    #[error("cannot pause container {id}")]
    Freeze {
        /// Which container.
        id: ContainerId,
        /// Why.
        source: CgroupError,
    },
    /// Its processes do not go on.
    #[error("Cannot unpause container {id}")]
    Thaw {
        /// Which container.
        id: ContainerId,
        /// Why.
        source: CgroupError,
    },
}

impl PauseError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PauseError::Lookup(err) => err.kind(),
            PauseError::NotRunning(_) | PauseError::Restarting(_) | PauseError::Paused(_) => ErrorKind::Conflict,
            // dockerd does not mark it as the caller's mistake.
            PauseError::NotPaused(_) | PauseError::Freeze { .. } | PauseError::Thaw { .. } => ErrorKind::Internal,
        }
    }
}

/// Makes all processes of a container stand still. Answers when they do.
pub async fn pause(engine: &Engine, name: &str) -> Result<(), PauseError> {
    let container = engine.containers.find(name)?;
    let engine = engine.clone();
    engine.clone().detached(async move { pause_container(&engine, &container).await }).await
}

/// Lets them go on.
pub async fn unpause(engine: &Engine, name: &str) -> Result<(), PauseError> {
    let container = engine.containers.find(name)?;
    let engine = engine.clone();
    engine.clone().detached(async move { unpause_container(&engine, &container).await }).await
}

async fn pause_container(engine: &Engine, container: &Arc<Container>) -> Result<(), PauseError> {
    // A commit holds its container still under the same lock: neither lets go what the other holds.
    let _operation = container.operate().await?;
    let (id, state) = (container.id().clone(), container.state());
    let pid = match state.phase {
        Phase::Running { .. } if state.paused => return Err(PauseError::Paused(id)),
        Phase::Running { pid } => pid,
        Phase::Restarting => return Err(PauseError::Restarting(id)),
        Phase::Stopped | Phase::Removing => return Err(PauseError::NotRunning(id)),
    };
    if let Err(source) = freeze(engine, container, true).await {
        // Those that stand still already go on.
        _ = freeze(engine, container, false).await;
        // Its end, which we may not have been told of yet, may be why its cgroup could not be held.
        let ended = super::ended::has_ended(engine, container).await;
        let exists = engine.cgroup_of(container).map_or(true, |group| group.exists());
        return Err(match ended || !exists {
            false => PauseError::Freeze { id, source },
            true => PauseError::NotRunning(id),
        });
    }
    if !super::ended::is_alive(pid) {
        // What stands still is a container that has ended, and that would not be told as long as it did.
        _ = freeze(engine, container, false).await;
        return Err(PauseError::NotRunning(id));
    }
    supervise::feed(engine, container, Input::Paused);
    if container.state().paused {
        return Ok(());
    }
    // It was killed meanwhile, and dies only if it goes on.
    _ = freeze(engine, container, false).await;
    Err(PauseError::NotRunning(id))
}

async fn unpause_container(engine: &Engine, container: &Arc<Container>) -> Result<(), PauseError> {
    let _operation = container.operate().await?;
    let id = container.id().clone();
    if !container.state().paused {
        return Err(PauseError::NotPaused(id));
    }
    let thawed = freeze(engine, container, false).await;
    thawed.map_err(|source| PauseError::Thaw { id, source })?;
    supervise::feed(engine, container, Input::Unpaused);
    Ok(())
}

/// Lets a container go on that was sent a signal, which it takes only then. Waits for no lock: nothing keeps a container
/// from being killed.
pub(crate) async fn let_go(engine: &Engine, container: &Arc<Container>) {
    match freeze(engine, container, false).await {
        Ok(()) => supervise::feed(engine, container, Input::Unpaused),
        Err(err) => warn!(container = %container.id(), err = errdefs::chain(&err), "cannot unpause the container"),
    }
}

async fn freeze(engine: &Engine, container: &Arc<Container>, frozen: bool) -> Result<(), CgroupError> {
    let (engine, container) = (engine.clone(), container.clone());
    bridge::blocking(move || {
        let group = engine.cgroup_of(&container)?;
        if frozen { group.freeze(FREEZE_TIMEOUT) } else { group.thaw(FREEZE_TIMEOUT) }
    })
    .await
}

/// Whether a container stands still that an earlier daemon left: the kernel knows. Reads one file.
pub(crate) fn recall(engine: &Engine, container: &Container) {
    let frozen = engine.cgroup_of(container).is_ok_and(|group| cgroup::is_frozen(&group));
    container.live().state.paused = frozen;
}
