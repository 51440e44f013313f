//! `POST /containers/{id}/stop`

use std::sync::Arc;
use std::time::Duration;

use container_spec::signal::stop_signal;
use errdefs::ErrorKind;
use tracing::{debug, error};

use crate::Engine;
use crate::container::Container;
use crate::ops::kill::{self, SendError, SignalError};
use crate::ops::wait::ended_within;
use crate::registry::LookupError;

/// How long `stop` waits between the stop signal and SIGKILL if neither request nor container say.
///
/// Ten seconds is dockerd's default; Compose files in the wild rely on it.
pub const STOP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// The wait where the stop signal could not be sent: dockerd's.
const UNSENT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why [`stop`] failed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It does not run.
    #[error("container is already stopped")]
    Stopped,
    /// The signal is none.
    #[error("cannot stop container: {name}")]
    Signal {
        /// As the user named the container.
        name: String,
        /// Why.
        source: SignalError,
    },
    /// It does not end.
    #[error("cannot stop container: {name}")]
    Kill {
        /// As the user named it.
        name: String,
        /// Why.
        source: SendError,
    },
}

impl StopError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            StopError::Lookup(err) => err.kind(),
            StopError::Stopped => ErrorKind::NotModified,
            // dockerd wraps both into a system error.
            StopError::Signal { .. } | StopError::Kill { .. } => ErrorKind::Internal,
        }
    }
}

/// Asks a container to end, and ends it by force after `timeout_s` seconds: the container's own or ten if absent, never
/// if negative.
pub async fn stop(
    engine: &Engine,
    name: &str,
    timeout_s: Option<i64>,
    signal: Option<String>,
) -> Result<(), StopError> {
    let container = engine.containers.find(name)?;
    container.settle_start().await;
    if !container.state().is_running() {
        return Err(StopError::Stopped);
    }
    let named = || name.to_owned();
    let signal = signal.filter(|signal| !signal.is_empty()).map(|signal| kill::parse(&signal)).transpose();
    let signal = signal.map_err(|source| StopError::Signal { name: named(), source })?;
    let task = engine.clone();
    let stopped = engine.detached(async move { stop_container(&task, &container, timeout_s, signal).await });
    stopped.await.map_err(|source| StopError::Kill { name: named(), source })
}

/// Stops a container; one that does not run is stopped.
pub(crate) async fn stop_container(
    engine: &Engine,
    container: &Arc<Container>,
    timeout_s: Option<i64>,
    signal: Option<i32>,
) -> Result<(), SendError> {
    let (mut ends, state) = container.watch();
    if !state.is_running() {
        return Ok(());
    }
    let config = &container.definition.config;
    let sent = kill::send(engine, container, signal.unwrap_or_else(|| stop_signal(config))).await;
    if let Err(err) = &sent {
        debug!(container = %container.id(), err = errdefs::chain(err), "cannot send the stop signal");
    }
    let patience = match timeout_s.or(config.stop_timeout) {
        _ if sent.is_err() => Some(UNSENT_TIMEOUT),
        None => Some(STOP_TIMEOUT_DEFAULT),
        Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
    };
    let ended = match patience {
        Some(patience) => ended_within(&mut ends, container, patience).await,
        None => ended_within(&mut ends, container, Duration::MAX).await,
    };
    if !ended {
        match kill::end(engine, container).await {
            // It ended by itself between the two looks.
            Ok(()) | Err(SendError::NotRunning(_)) => {}
            Err(err) => return Err(err),
        }
    }
    // That it was stopped decides whether it starts again after a reboot, and only the record says so.
    if let Err(err) = engine.recorder.write_now(container).await {
        error!(container = %container.id(), %err, "cannot write the container's record");
    }
    engine.events.container(container, "stop", []);
    Ok(())
}
