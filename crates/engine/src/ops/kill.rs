//! `POST /containers/{id}/kill`, and signals in general.

use std::sync::Arc;
use std::time::Duration;

use container_spec::signal::{parse_signal, stop_signal};
use errdefs::ErrorKind;
use oci::ContainerId;
use shim_api::Call;
use tracing::{debug, warn};

use crate::Engine;
use crate::container::Container;
use crate::container::state::{Input, Phase, Sender, SentSignal};
use crate::ops::ended;
use crate::ops::wait::ended_within;
use crate::registry::LookupError;
use crate::shim::CallError;
use crate::supervise;

/// SIGKILL.
pub(crate) const SIGKILL: i32 = 9;
/// The greatest signal (SIGRTMAX).
const SIGNAL_MAX: i32 = 64;

/// How long a killed container may take to end before we look for its processes ourselves: dockerd's time.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take after that: dockerd's time.
const KILL_AGAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why [`kill`] failed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// There is no such signal.
    #[error("cannot kill container: {name}")]
    Signal {
        /// As the user named the container.
        name: String,
        /// Why.
        source: SignalError,
    },
    /// There is no such container.
    #[error("cannot kill container: {name}")]
    Lookup {
        /// As the user named it.
        name: String,
        /// Why.
        source: LookupError,
    },
    /// It cannot be sent.
    #[error("cannot kill container: {name}")]
    Send {
        /// As the user named it.
        name: String,
        /// Why.
        source: SendError,
    },
}

/// Why a text is no signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// Unknown.
    #[error("invalid signal: {0}")]
    Unknown(String),
    /// A number that Linux does not have.
    #[error("the linux daemon does not support signal {0}")]
    Unsupported(i32),
}

/// Why a signal was not sent, or had no effect.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It does not run.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// Its shim says no, or nothing.
    #[error("Cannot kill container {id}")]
    Shim {
        /// Which container.
        id: ContainerId,
        /// Why.
        source: CallError,
    },
    /// It does not end.
    #[error("tried to kill container, but did not receive an exit event")]
    StillRunning,
}

impl KillError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            KillError::Signal { .. } => ErrorKind::InvalidArgument,
            KillError::Lookup { source, .. } => source.kind(),
            KillError::Send { source, .. } => source.kind(),
        }
    }
}

impl SendError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SendError::NotRunning(_) => ErrorKind::Conflict,
            SendError::Shim { source, .. } => source.kind(),
            SendError::StillRunning => ErrorKind::Internal,
        }
    }
}

/// Sends a signal, SIGKILL if `signal` is empty. After SIGKILL it answers when the container has ended.
pub async fn kill(engine: &Engine, name: &str, signal: &str) -> Result<(), KillError> {
    let named = || name.to_owned();
    let signal = match signal {
        "" => SIGKILL,
        text => parse(text).map_err(|source| KillError::Signal { name: named(), source })?,
    };
    let found = engine.containers.find(name);
    let container = found.map_err(|source| KillError::Lookup { name: named(), source })?;
    let task = engine.clone();
    let sent = engine.detached(async move {
        container.settle_start().await;
        match signal {
            SIGKILL => end(&task, &container).await,
            signal => send(&task, &container, signal).await,
        }
    });
    sent.await.map_err(|source| KillError::Send { name: named(), source })
}

/// Reads a signal as a user writes it.
pub(crate) fn parse(text: &str) -> Result<i32, SignalError> {
    match parse_signal(text) {
        None => Err(SignalError::Unknown(text.to_owned())),
        Some(number) if !(1..=SIGNAL_MAX).contains(&number) => Err(SignalError::Unsupported(number)),
        Some(number) => Ok(number),
    }
}

/// Ends a container by force, and waits for its end.
pub(crate) async fn end(engine: &Engine, container: &Arc<Container>) -> Result<(), SendError> {
    let (mut ends, state) = container.watch();
    if !state.is_running() {
        return Err(SendError::NotRunning(container.id().clone()));
    }
    let sent = send(engine, container, SIGKILL).await;
    if let Err(err) = &sent {
        debug!(container = %container.id(), err = errdefs::chain(err), "cannot kill the container through its shim");
    }
    // A shim that does not answer gets no time: it would have answered at once.
    let patience = if sent.is_ok() { KILL_TIMEOUT } else { Duration::ZERO };
    if ended_within(&mut ends, container, patience).await {
        return Ok(());
    }
    warn!(container = %container.id(), "the container does not end: its processes are killed one by one");
    engine.end_cgroup(container);
    if ended_within(&mut ends, container, KILL_AGAIN_TIMEOUT).await { Ok(()) } else { Err(SendError::StillRunning) }
}

/// Sends a signal to a container's first process.
pub(crate) async fn send(engine: &Engine, container: &Arc<Container>, signal: i32) -> Result<(), SendError> {
    let id = container.id();
    let config = &container.definition.config;
    // As dockerd: any signal asks for the end of a container that names no signal for that.
    let ends = signal == SIGKILL || config.stop_signal.is_empty() || signal == stop_signal(config);
    supervise::feed(engine, container, Input::Signalled { ends });
    match container.state().phase {
        Phase::Running { .. } => {}
        // It will not start again.
        Phase::Restarting => {
            cancel_restart(engine, container);
            return Ok(());
        }
        Phase::Stopped | Phase::Removing => return Err(SendError::NotRunning(id.clone())),
    }
    deliver(engine, container, signal).await?;
    if ends && container.state().paused {
        // What stands still takes no signal.
        super::pause::let_go(engine, container).await;
    }
    Ok(())
}

/// Sends a signal, whoever wants it to, and tells of it.
pub(crate) async fn deliver(engine: &Engine, container: &Arc<Container>, signal: i32) -> Result<(), SendError> {
    let id = container.id();
    let shim = container.shim().ok_or_else(|| SendError::NotRunning(id.clone()))?;
    match shim.link.call(Call::Signal { signal }, vec![]).await {
        Ok(_) => {}
        // It has ended just now: its end is on the way.
        Err(CallError::Refused(failure)) if failure.kind == ErrorKind::NotFound => {}
        Err(CallError::Closed) => {}
        Err(err) if ended::was_why(engine, container, &err).await => return Err(SendError::NotRunning(id.clone())),
        Err(source) => return Err(SendError::Shim { id: id.clone(), source }),
    }
    note(container, signal);
    engine.events.container(container, "kill", [("signal", signal.to_string())]);
    Ok(())
}

/// Notes what was sent, for whoever asks why the container ended.
fn note(container: &Container, signal: i32) {
    let mut live = container.live();
    let by = match &live.state {
        state if state.restarted_by_client => Sender::Restart,
        state if state.found_unhealthy => Sender::Health,
        _ => Sender::Client,
    };
    live.state.last_signal = Some(SentSignal { signal, by, at_nanos: crate::clock::now_nanos() });
}

fn cancel_restart(engine: &Engine, container: &Arc<Container>) {
    if let Some(timer) = container.live().restart_timer.take() {
        timer.abort();
    }
    supervise::feed(engine, container, Input::RestartCancelled);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_dockerd_reads_them() {
        assert_eq!(parse("TERM"), Ok(15));
        assert_eq!(parse("9"), Ok(9));
        assert_eq!(parse("FOO").unwrap_err().to_string(), "invalid signal: FOO");
        assert_eq!(parse("99").unwrap_err().to_string(), "the linux daemon does not support signal 99");
    }
}
