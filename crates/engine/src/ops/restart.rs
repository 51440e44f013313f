//! `POST /containers/{id}/restart`

use errdefs::ErrorKind;

use crate::Engine;
use crate::container::state::Input;
use crate::ops::kill::{self, SendError, SignalError};
use crate::ops::start::{self, StartError};
use crate::ops::stop::stop_container;
use crate::registry::LookupError;
use crate::supervise;

/// Why [`restart`] failed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The signal is none.
    #[error("Cannot restart container {name}")]
    Signal {
        /// As the user named the container.
        name: String,
        /// Why.
        source: SignalError,
    },
    /// It does not end.
    #[error("Cannot restart container {name}")]
    Stop {
        /// As the user named it.
        name: String,
        /// Why.
        source: SendError,
    },
    /// It does not start.
    #[error("Cannot restart container {name}")]
    Start {
        /// As the user named it.
        name: String,
        /// Why.
        source: StartError,
    },
}

impl RestartError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RestartError::Lookup(err) => err.kind(),
            // dockerd loses the kind of what failed on the way.
            RestartError::Signal { .. } | RestartError::Stop { .. } | RestartError::Start { .. } => ErrorKind::Internal,
        }
    }
}

/// Stops a container as `stop` does, if it runs, and starts it.
pub async fn restart(
    engine: &Engine,
    name: &str,
    timeout_s: Option<i64>,
    signal: Option<String>,
) -> Result<(), RestartError> {
    let container = engine.containers.find(name)?;
    let named = name.to_owned();
    let signal = signal.filter(|signal| !signal.is_empty()).map(|signal| kill::parse(&signal)).transpose();
    let signal = signal.map_err(|source| RestartError::Signal { name: named.clone(), source })?;
    let task = engine.clone();
    let restarted = async move {
        supervise::feed(&task, &container, Input::RestartRequested);
        let stopped = stop_container(&task, &container, timeout_s, signal).await;
        stopped.map_err(|source| RestartError::Stop { name: named.clone(), source })?;
        match start::requested(&task, &container).await {
            // Somebody else was faster: it runs, which is what was wanted.
            Ok(()) | Err(StartError::Running) => {}
            Err(source) => return Err(RestartError::Start { name: named, source }),
        }
        task.events.container(&container, "restart", []);
        Ok(())
    };
    engine.detached(restarted).await
}
