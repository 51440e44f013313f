//! `POST /containers/{id}/rename`

use errdefs::ErrorKind;
use oci::ContainerId;

use crate::Engine;
use crate::container::name;
use crate::networking::resolver;
use crate::registry::LookupError;

/// Why [`rename`] failed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum RenameError {
    /// A name is missing.
    #[error("Neither old nor new names may be empty")]
    Empty,
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It has that name already.
    #[error("Renaming a container with the same name as its current name")]
    Same,
    /// The new name is not allowed.
    #[error(
        "Error when allocating new name: Invalid container name (/{name}), only {} are allowed",
        crate::container::name::ALLOWED
    )]
    Invalid {
        /// The name.
        name: String,
    },
    /// Another container has the new name.
    #[error(
        "Error when allocating new name: Conflict. The container name \"/{name}\" is already in use by container \
         \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    Conflict {
        /// The name.
        name: String,
        /// Who has it.
        owner: ContainerId,
    },
    /// The record cannot be written.
    #[error("write the container's record")]
    Record(#[source] std::io::Error),
}

impl RenameError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RenameError::Empty | RenameError::Same | RenameError::Invalid { .. } => ErrorKind::InvalidArgument,
            RenameError::Lookup(err) => err.kind(),
            RenameError::Conflict { .. } => ErrorKind::Conflict,
            RenameError::Record(_) => ErrorKind::Internal,
        }
    }
}

/// Gives a container another name.
pub async fn rename(engine: &Engine, old: &str, new: &str) -> Result<(), RenameError> {
    if old.is_empty() || new.is_empty() {
        return Err(RenameError::Empty);
    }
    let container = engine.containers.find(old)?;
    let new = new.strip_prefix('/').unwrap_or(new).to_owned();
    let engine = engine.clone();
    engine.clone().detached(async move { rename_container(&engine, &container, new).await }).await
}

async fn rename_container(
    engine: &Engine,
    container: &std::sync::Arc<crate::container::Container>,
    new: String,
) -> Result<(), RenameError> {
    let _operation = container.operate().await?;
    let old = container.name();
    if container.is_removed() {
        return Err(LookupError::NotFound(old).into());
    }
    if old == new {
        return Err(RenameError::Same);
    }
    if !name::is_valid(&new) {
        return Err(RenameError::Invalid { name: new });
    }
    let id = container.id();
    engine.containers.reserve(&new, id).map_err(|owner| RenameError::Conflict { name: new.clone(), owner })?;
    container.live().name.clone_from(&new);
    if let Err(err) = engine.recorder.write_now(container).await {
        container.live().name = old;
        engine.containers.release(&new, id);
        return Err(RenameError::Record(err));
    }
    engine.containers.release(&old, id);
    resolver::announce(engine, container);
    engine.events.container(container, "rename", [("oldName", format!("/{old}"))]);
    Ok(())
}
