//! `DELETE /containers/{id}`
//!
//! In two steps: one rename takes the record away, and from then on there is no such container, for us and for whoever
//! opens the data root after a crash; what it consisted of is deleted later.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use errdefs::ErrorKind;
use tracing::{debug, warn};

use crate::Engine;
use crate::container::Container;
use crate::container::state::{Input, Phase};
use crate::engine::Departure;
use crate::links;
use crate::ops::create::snapshot_key;
use crate::ops::kill::{self, SendError};
use crate::registry::LookupError;
use crate::supervise;

/// How long the shim of a removed container may take to end before its files are removed all the same.
const SHIM_END_TIMEOUT: Duration = Duration::from_secs(60);

/// What comes in the query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// Remove its anonymous volumes, too.
    pub volumes: bool,
    /// Remove a link instead.
    pub link: bool,
}

/// Why a container was not removed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It is being removed already.
    #[error("removal of container {0} is already in progress")]
    InProgress(String),
    /// The name is the container's own, not a link.
    #[error("Conflict, cannot remove the default link name of the container")]
    DefaultLink,
    /// It runs.
    #[error(
        "cannot remove container \"{name}\": container is {state}: stop the container before removing or force remove"
    )]
    Running {
        /// As the user named it.
        name: String,
        /// `running` or `restarting`.
        state: &'static str,
    },
    /// It stands still.
    #[error("cannot remove container \"{name}\": container is paused and must be unpaused first")]
    Paused {
        /// As the user named it.
        name: String,
    },
    /// It does not end.
    #[error("cannot remove container \"{name}\": could not kill container")]
    Kill {
        /// As the user named it.
        name: String,
        /// Why.
        source: SendError,
    },
    /// Its volumes cannot be told from those that go with it.
    #[error("cannot remove container \"{name}\": unable to keep its volumes")]
    Volumes {
        /// As the user named it.
        name: String,
        /// Why.
        source: volume::DisownError,
    },
    /// Its files cannot be taken away.
    #[error("cannot remove container \"{name}\": unable to remove filesystem")]
    Files {
        /// As the user named it.
        name: String,
        /// Why.
        source: io::Error,
    },
}

impl RemoveError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RemoveError::Lookup(err) => err.kind(),
            RemoveError::InProgress(_) | RemoveError::Running { .. } | RemoveError::Paused { .. } => {
                ErrorKind::Conflict
            }
            RemoveError::DefaultLink
            | RemoveError::Kill { .. }
            | RemoveError::Volumes { .. }
            | RemoveError::Files { .. } => ErrorKind::Internal,
        }
    }
}

/// Removes a container. Its name is free, and it is in no list, when this answers.
pub async fn remove(engine: &Engine, name: &str, options: RemoveOptions) -> Result<(), RemoveError> {
    let container = engine.containers.find(name)?;
    if options.link {
        let (task, link) = (engine.clone(), name.to_owned());
        let removed = async move {
            let Some((parent, alias)) = links::find_link(&task, &link) else { return Ok(false) };
            // Its networks are changed by one at a time.
            let _operation = parent.operate().await?;
            let task = task.clone();
            let parent = parent.clone();
            bridge::blocking(move || links::remove(&task, &parent, &alias)).await;
            Ok::<_, LookupError>(true)
        };
        return if engine.detached(removed).await? { Ok(()) } else { Err(RemoveError::DefaultLink) };
    }
    let (engine, name) = (engine.clone(), name.to_owned());
    engine.clone().detached(async move { remove_container(&engine, &container, &name, options).await }).await
}

/// Removes a container that ended and was to be removed then.
pub(crate) async fn ended(engine: &Engine, container: &Arc<Container>) -> Result<(), RemoveError> {
    let options = RemoveOptions { force: true, volumes: true, link: false };
    match remove_container(engine, container, container.id().as_str(), options).await {
        // A client was faster.
        Err(RemoveError::InProgress(_) | RemoveError::Lookup(LookupError::NotFound(_))) => Ok(()),
        other => other,
    }
}

async fn remove_container(
    engine: &Engine,
    container: &Arc<Container>,
    name: &str,
    RemoveOptions { force, volumes, .. }: RemoveOptions,
) -> Result<(), RemoveError> {
    let in_progress = || RemoveError::InProgress(name.to_owned());
    if container.state().phase == Phase::Removing {
        return Err(in_progress());
    }
    if force {
        // Before the operation lock: a start that hangs must not make the container immortal.
        kill_first(engine, container, name).await?;
    }
    // One that was killed is not written any more.
    let _operation = if force { container.operation.lock().await } else { container.operate().await? };
    if container.is_removed() {
        return Err(LookupError::NotFound(name.to_owned()).into());
    }
    let state = container.state();
    match state.phase {
        Phase::Stopped => {}
        Phase::Removing => return Err(in_progress()),
        // It was started between our kill and our lock.
        Phase::Running { .. } | Phase::Restarting if force => kill_first(engine, container, name).await?,
        Phase::Running { .. } if state.paused => return Err(RemoveError::Paused { name: name.to_owned() }),
        Phase::Running { .. } | Phase::Restarting => {
            return Err(RemoveError::Running { name: name.to_owned(), state: state.name() });
        }
    }
    // Whoever looks at its files may do so to the end.
    drop(container.views.write().await);
    supervise::feed(engine, container, Input::RemovalBegun);
    if let Err(err) = take_away(engine, container, name, volumes).await {
        supervise::feed(engine, container, Input::RemovalFailed);
        return Err(err);
    }
    if container.rules().auto_remove {
        // Before it is in no list any more: who does not find it looks here.
        engine.farewells.keep(container.id(), container.state().exit_code);
    }
    engine.containers.remove(container.id());
    super::image_budget::note(engine, &container.definition.image_id);
    container.tell_removed();
    engine.events.container(container, "destroy", []);
    tokio::spawn(clean_up(engine.departure(), engine.clone(), container.clone()));
    Ok(())
}

async fn kill_first(engine: &Engine, container: &Arc<Container>, name: &str) -> Result<(), RemoveError> {
    if !container.state().is_running() {
        return Ok(());
    }
    match kill::end(engine, container).await {
        Ok(()) | Err(SendError::NotRunning(_)) => Ok(()),
        Err(source) => Err(RemoveError::Kill { name: name.to_owned(), source }),
    }
}

/// The record first: a snapshot without a record is collected by the next start, a record without a snapshot would be
/// a container that cannot start.
async fn take_away(
    engine: &Engine,
    container: &Arc<Container>,
    name: &str,
    with_volumes: bool,
) -> Result<(), RemoveError> {
    let _writing = container.recording.lock().await;
    engine.recorder.forget(container.id());
    let (engine, container, name) = (engine.clone(), container.clone(), name.to_owned());
    bridge::blocking(move || {
        if !with_volumes {
            let kept = crate::volumes::disown(&engine, &container);
            kept.map_err(|source| RemoveError::Volumes { name: name.clone(), source })?;
        }
        take_record(&engine, &container).map_err(|source| RemoveError::Files { name, source })?;
        crate::volumes::let_go(&engine, &container, with_volumes);
        if let Err(err) = engine.images.snapshots().remove(&snapshot_key(container.id())) {
            warn!(container = %container.id(), err = errdefs::chain(&err), "the container's snapshot stays behind");
        }
        let image = container.definition.image_id.parse();
        if !image.is_ok_and(|image| engine.images.get(&image).is_some()) {
            // Its image was removed before it; the sweep takes the layers that nobody else has.
            engine.upkeep.layers_left.store(true, Ordering::Relaxed);
        }
        Ok(())
    })
    .await
}

fn take_record(engine: &Engine, container: &Container) -> io::Result<()> {
    let dir = engine.recorder.dir(container.id());
    match std::fs::rename(dir.path(), engine.trash().join(stdx::id::random_hex::<8>())) {
        // Somebody removed it behind our back: what is left to remove is the snapshot.
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    // One that is removed by itself would, after a power cut, be removed at the next start.
    if !container.rules().auto_remove {
        stdx::fs::sync_dir(dir.path().parent().unwrap_or(dir.path()))?;
    }
    Ok(())
}

/// What nobody waits for: the shim's end, its files, and the deletion of what was renamed.
async fn clean_up(departure: Departure, engine: Engine, container: Arc<Container>) {
    let shim = container.live().shim.take();
    if let Some(shim) = shim
        && !shim.wait_gone(SHIM_END_TIMEOUT).await
    {
        debug!(container = %container.id(), "the shim of a removed container does not end");
        shim.kill();
    }
    if let Err(err) = stdx::fs::remove_if_exists(&engine.recorder.shim_dir(container.id())) {
        debug!(container = %container.id(), %err, "remove the shim's directory");
    }
    engine.sweep_soon();
    drop(departure);
}
