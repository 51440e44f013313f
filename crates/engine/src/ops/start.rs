//! `POST /containers/{id}/start`, and the starts that a policy makes.

use std::sync::Arc;

use errdefs::ErrorKind;
use tracing::error;

use crate::Engine;
use crate::container::Container;
use crate::container::state::{Input, Phase, State};
use crate::launch::{LaunchError, launch};
use crate::ops::checkpoint::{self, CheckpointError, CheckpointName};
use crate::ops::remove;
use crate::registry::LookupError;
use crate::supervise;

/// Why a container was not started. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is none of that name.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It runs.
    #[error("container is already running")]
    Running,
    /// It stands still.
    #[error("cannot start a paused container, try unpause instead")]
    Paused,
    /// It is being removed.
    #[error("container is marked for removal and cannot be started")]
    Removing,
    /// The checkpoint is not there that it was to go on from.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It could not be made.
    #[error(transparent)]
    Launch(LaunchError),
}

impl StartError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            StartError::Lookup(err) => err.kind(),
            StartError::Running => ErrorKind::NotModified,
            StartError::Paused | StartError::Removing => ErrorKind::Conflict,
            StartError::Checkpoint(err) => err.kind(),
            StartError::Launch(err) => err.kind(),
        }
    }
}

/// Starts a container, from a checkpoint if one is named. Answers when its program runs.
pub async fn start(engine: &Engine, name: &str, from: Option<CheckpointName>) -> Result<(), StartError> {
    let container = engine.containers.find(name)?;
    let engine = engine.clone();
    engine.clone().detached(async move { requested_from(&engine, &container, from).await }).await
}

/// Starts a container because a client asked.
pub(crate) async fn requested(engine: &Engine, container: &Arc<Container>) -> Result<(), StartError> {
    requested_from(engine, container, None).await
}

/// One that is to be removed after its end, and has none because it does not start, is gone before the answer, as with dockerd:
/// who hears of the failure looks after it no more, and these may be our last moments.
async fn requested_from(
    engine: &Engine,
    container: &Arc<Container>,
    from: Option<CheckpointName>,
) -> Result<(), StartError> {
    let started = begin(engine, container, from).await;
    if matches!(started, Err(StartError::Launch(_)))
        && container.rules().auto_remove
        && let Err(err) = remove::ended(engine, container).await
    {
        error!(container = %container.id(), err = errdefs::chain(&err), "cannot remove the container");
    }
    started
}

async fn begin(engine: &Engine, container: &Arc<Container>, from: Option<CheckpointName>) -> Result<(), StartError> {
    let _operation = container.operate().await?;
    check(&container.state())?;
    let from = match from {
        Some(from) => Some(checkpoint::find(engine, container, from).await?),
        None => None,
    };
    supervise::feed(engine, container, Input::StartRequested);
    launch(engine, container, from).await.map_err(StartError::Launch)
}

/// Starts a container because its policy says so, unless somebody has decided otherwise meanwhile.
pub(crate) async fn again(engine: &Engine, container: &Arc<Container>) -> Result<(), StartError> {
    let _operation = container.operation.lock().await;
    if container.state().phase != Phase::Restarting {
        return Ok(());
    }
    launch(engine, container, None).await.map_err(StartError::Launch)
}

fn check(state: &State) -> Result<(), StartError> {
    match state.phase {
        Phase::Stopped => Ok(()),
        Phase::Running { .. } if state.paused => Err(StartError::Paused),
        Phase::Running { .. } | Phase::Restarting => Err(StartError::Running),
        Phase::Removing => Err(StartError::Removing),
    }
}
