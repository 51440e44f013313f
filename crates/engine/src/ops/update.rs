//! `POST /containers/{id}/update`: other limits and another restart policy, for a container that runs or not.

mod refusal;

use std::sync::Arc;

use container_spec::{InvalidRequest, UpdateConflict};
use engine_api::host_config::HostConfig;
use engine_api::update::UpdateRequest;
use errdefs::ErrorKind;
use oci::ContainerId;
use oci::runtime::Resources;

use crate::Engine;
use crate::container::Container;
use crate::container::state::Phase;
use crate::registry::LookupError;
pub use refusal::Refusal;

/// Why [`update`] failed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The request is refused.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// It is being removed.
    #[error("Cannot update container {0}: container is marked for removal and cannot be \"update\"")]
    Removing(ContainerId),
    /// It contradicts what the container has.
    #[error("Cannot update container {id}")]
    Conflict {
        /// Which container.
        id: ContainerId,
        /// Why.
        source: UpdateConflict,
    },
    /// The kernel says no.
    #[error("Cannot update container {id}")]
    Apply {
        /// Which container.
        id: ContainerId,
        /// Why.
        source: Refusal,
    },
    /// The record cannot be written.
    #[error("Cannot update container {id}")]
    Record {
        /// Which container.
        id: ContainerId,
        /// Why.
        source: std::io::Error,
    },
}

impl UpdateError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            UpdateError::Lookup(err) => err.kind(),
            UpdateError::Invalid(err) => err.kind(),
            UpdateError::Removing(_) | UpdateError::Conflict { .. } => ErrorKind::Conflict,
            UpdateError::Apply { .. } | UpdateError::Record { .. } => ErrorKind::Internal,
        }
    }
}

/// Changes a container; answers what the user should know.
pub async fn update(engine: &Engine, name: &str, request: UpdateRequest) -> Result<Vec<String>, UpdateError> {
    let (request, warnings) = check(engine, request)?;
    let container = engine.containers.find(name)?;
    let task = engine.clone();
    let change = async move {
        // A start finds either all of it or nothing.
        let _operation = container.operate().await?;
        change(&task, &container, request).await
    };
    engine.detached(change).await?;
    Ok(warnings)
}

/// What of a request is to be changed, and what the user should know of it.
pub(super) fn check(engine: &Engine, request: UpdateRequest) -> Result<(HostConfig, Vec<String>), UpdateError> {
    let mut request = request.host_config;
    let warnings = container_spec::validate_update(&mut request, &engine.facts)?;
    Ok((request, warnings.iter().map(ToString::to_string).collect()))
}

/// Changes a container on which the caller operates; all of it or nothing.
pub(super) async fn change(
    engine: &Engine,
    container: &Arc<Container>,
    request: HostConfig,
) -> Result<(), UpdateError> {
    let id = container.id().clone();
    let phase = container.state().phase;
    if phase == Phase::Removing || container.is_removed() {
        return Err(UpdateError::Removing(id));
    }
    let before = container.host_config().into_owned();
    let mut merged = before.clone();
    if let Err(source) = container_spec::merge_update(&mut merged, &request) {
        return Err(UpdateError::Conflict { id, source });
    }
    let resources = container_spec::update_resources(&merged, &request, &engine.facts);
    let undo = container_spec::update_resources(&before, &request, &engine.facts);
    let runs = matches!(phase, Phase::Running { .. });
    if runs && let Err(source) = apply(engine, container, resources, undo.clone()).await {
        return Err(UpdateError::Apply { id, source: source.into() });
    }
    container.update(merged);
    // That it is to start again, and how, only the record says: without it nothing has changed.
    if let Err(source) = engine.recorder.write_now(container).await {
        container.update(before);
        if runs {
            // The error that is told is the first one.
            _ = apply(engine, container, undo, Resources::default()).await;
        }
        return Err(UpdateError::Record { id, source });
    }
    engine.events.container(container, "update", []);
    engine.tell_idle_changed();
    Ok(())
}

/// Writes the limits. Of several the kernel may have taken some before it refuses one: those are put back.
async fn apply(
    engine: &Engine,
    container: &Arc<Container>,
    resources: Resources,
    undo: Resources,
) -> Result<(), cgroup::CgroupError> {
    if resources == Resources::default() {
        return Ok(());
    }
    let (engine, container) = (engine.clone(), container.clone());
    bridge::blocking(move || {
        let mut group = engine.cgroup_of(&container)?;
        group.update(&engine.hierarchies, &resources).inspect_err(|_| {
            // The error that is told is the first one.
            _ = group.clone().update(&engine.hierarchies, &undo);
        })
    })
    .await
}
