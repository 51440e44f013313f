//! `POST /containers/{id}/resize`

use errdefs::ErrorKind;
use oci::ContainerId;
use shim_api::Call;

use crate::Engine;
use crate::ops::ended;
use crate::registry::LookupError;
use crate::shim::CallError;

/// Why [`resize`] failed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It does not run.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// Its shim says no, or nothing.
    #[error(transparent)]
    Shim(CallError),
}

impl ResizeError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ResizeError::Lookup(err) => err.kind(),
            ResizeError::NotRunning(_) => ErrorKind::Conflict,
            ResizeError::Shim(err) => err.kind(),
        }
    }
}

/// Sets the size of a container's terminal.
pub async fn resize(engine: &Engine, name: &str, height: u16, width: u16) -> Result<(), ResizeError> {
    let container = engine.containers.find(name)?;
    container.settle_start().await;
    let shim = container.shim().filter(|_| container.state().pid() != 0);
    let shim = shim.ok_or_else(|| ResizeError::NotRunning(container.id().clone()))?;
    // Without a terminal there is nothing to be set, which dockerd takes for done.
    if container.tty() {
        let call = Call::Resize { exec_id: None, height, width };
        match shim.link.call(call, vec![]).await {
            Ok(_) => {}
            Err(err) if ended::was_why(engine, &container, &err).await => {
                return Err(ResizeError::NotRunning(container.id().clone()));
            }
            Err(err) => return Err(ResizeError::Shim(err)),
        }
    }
    let attributes = [("height", height.to_string()), ("width", width.to_string())];
    engine.events.container(&container, "resize", attributes);
    Ok(())
}
