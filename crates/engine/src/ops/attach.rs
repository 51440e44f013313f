//! `POST /containers/{id}/attach`

use std::os::fd::OwnedFd;
use std::sync::Arc;

use errdefs::ErrorKind;
use shim_api::{Attach, Call};

use crate::Engine;
use crate::container::state::Phase;
use crate::container::{Container, HeldClient};
use crate::detach_keys;
use crate::ops::logs::{self, LogsError, LogsQuery};
use crate::registry::LookupError;
use crate::shim::{CallError, Shim};
use crate::stream::{self, StreamError};

/// How many clients may wait for the start of one container: what one message carries (`sys::socket::FDS_MAX`).
const HELD_MAX: usize = 60;

/// What comes in the query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachQuery {
    /// Whether what was logged already is sent first.
    pub logs: bool,
    /// Whether what comes from now on is sent.
    pub stream: bool,
    /// Whether the client's bytes are the container's input.
    pub stdin: bool,
    /// Whether standard output is wanted.
    pub stdout: bool,
    /// Whether standard error is wanted.
    pub stderr: bool,
    /// The keys that detach; the default ones if absent or empty.
    pub detach_keys: Option<String>,
}

/// Why a client was not attached. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The keys are none.
    #[error("Invalid detach keys ({keys}) provided")]
    DetachKeys {
        /// As given.
        keys: String,
    },
    /// It waits for its next start.
    #[error("container {0} is restarting, wait until the container is running")]
    Restarting(String),
    /// It stands still.
    #[error("container {0} is paused, unpause the container before attach")]
    Paused(String),
    /// Too many clients wait for its start.
    #[error("too many clients are attached to a container that does not run")]
    TooMany,
    /// What was logged cannot be read.
    #[error("Error attaching")]
    Logs(#[source] LogsError),
    /// What was logged cannot be sent.
    #[error("Error attaching")]
    Stream(#[source] StreamError),
    /// Its shim says no, or nothing.
    #[error("Error attaching")]
    Shim(#[source] CallError),
}

impl AttachError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            AttachError::Lookup(err) => err.kind(),
            AttachError::DetachKeys { .. } => ErrorKind::InvalidArgument,
            AttachError::Restarting(_) | AttachError::Paused(_) => ErrorKind::Conflict,
            AttachError::TooMany => ErrorKind::Unavailable,
            AttachError::Logs(err) => err.kind(),
            AttachError::Stream(_) => ErrorKind::Internal,
            AttachError::Shim(err) => err.kind(),
        }
    }
}

/// A client that may be connected to a container.
#[must_use]
pub struct Attachment {
    engine: Engine,
    container: Arc<Container>,
    query: AttachQuery,
    detach_keys: Vec<u8>,
}

/// Checks that a client may be connected.
pub async fn prepare(engine: &Engine, name: &str, query: AttachQuery) -> Result<Attachment, AttachError> {
    let keys = query.detach_keys.as_deref().unwrap_or_default();
    let detach_keys = detach_keys::parse(keys).map_err(|_| AttachError::DetachKeys { keys: keys.to_owned() })?;
    let container = engine.containers.find(name)?;
    let state = container.state();
    if state.phase == Phase::Restarting {
        return Err(AttachError::Restarting(name.to_owned()));
    }
    if state.paused {
        return Err(AttachError::Paused(name.to_owned()));
    }
    Ok(Attachment { engine: engine.clone(), container, query, detach_keys })
}

impl Attachment {
    /// Whether the container has a terminal, so that the stream is raw instead of multiplexed.
    pub fn tty(&self) -> bool {
        self.container.tty()
    }

    /// Whether the client gets what was logged, which may be much.
    pub fn sends_logs(&self) -> bool {
        self.query.logs
    }

    /// Connects the client. The container (its shim) owns the stream from here on; before the start it is kept and handed
    /// over with it.
    ///
    /// `head` is what it gets first: the head of the answer, empty if it has been written. A running container writes it
    /// itself, so that nothing is lost which it prints afterwards. `already_read` is what the client sent behind its
    /// request.
    pub async fn connect(self, mut client: OwnedFd, head: &[u8], already_read: Vec<u8>) -> Result<(), AttachError> {
        let mut attach = Attach {
            stdin: self.query.stdin && self.container.definition.config.open_stdin,
            stdout: self.query.stdout,
            stderr: self.query.stderr,
            already_read,
            detach_keys: self.detach_keys.clone(),
            preamble: head.to_vec(),
        };
        if self.query.stream && !self.query.logs {
            return self.stream(attach, client).await;
        }
        client = write(client, &std::mem::take(&mut attach.preamble)).await?;
        if self.query.logs {
            client = self.send_logs(client).await?;
        }
        if self.query.stream {
            return self.stream(attach, client).await;
        }
        self.tell();
        Ok(())
    }

    /// Hands the client over, now or with the start.
    async fn stream(&self, mut attach: Attach, client: OwnedFd) -> Result<(), AttachError> {
        if let Some(shim) = self.running() {
            self.tell();
            return hand_over(&shim, attach, client).await;
        }
        // A start in progress has taken along whom it takes. The next one waits until this client is held, though that has
        // read its answer and asks for the start.
        let operation = self.container.operation.lock().await;
        let shim = self.running();
        self.tell();
        if let Some(shim) = shim {
            drop(operation);
            return hand_over(&shim, attach, client).await;
        }
        let client = write(client, &std::mem::take(&mut attach.preamble)).await?;
        self.hold(attach, client)
    }

    fn tell(&self) {
        self.engine.events.container(&self.container, "attach", []);
    }

    fn running(&self) -> Option<Arc<Shim>> {
        let live = self.container.live();
        live.shim.clone().filter(|_| matches!(live.state.phase, Phase::Running { .. }))
    }

    fn hold(&self, attach: Attach, stream: OwnedFd) -> Result<(), AttachError> {
        let mut live = self.container.live();
        live.held_clients.retain(|held| stream::is_open(&held.stream));
        if live.held_clients.len() >= HELD_MAX {
            return Err(AttachError::TooMany);
        }
        live.held_clients.push(HeldClient { attach, stream });
        Ok(())
    }

    async fn send_logs(&self, client: OwnedFd) -> Result<OwnedFd, AttachError> {
        let query = LogsQuery { stdout: self.query.stdout, stderr: self.query.stderr, ..LogsQuery::default() };
        let mut log = logs::open_container(&self.engine, &self.container, query).await.map_err(AttachError::Logs)?;
        let mut sink = stream::Sink::new(client).map_err(AttachError::Stream)?;
        while let Some(bytes) = log.next().await.map_err(AttachError::Logs)? {
            sink.write(&bytes).await.map_err(AttachError::Stream)?;
        }
        sink.into_inner().map_err(AttachError::Stream)
    }
}

async fn hand_over(shim: &Shim, attach: Attach, client: OwnedFd) -> Result<(), AttachError> {
    let head = attach.preamble.clone();
    let copy = client.try_clone().map_err(|err| AttachError::Stream(StreamError::Register(err)))?;
    let called = shim.link.call(Call::Attach(attach), vec![client]).await;
    if called.is_err() {
        // The container has ended just now, or its shim is none: the client still gets its answer, and then the end.
        write(copy, &head).await?;
    }
    match called {
        Ok(_) | Err(CallError::Closed) => Ok(()),
        Err(err) => Err(AttachError::Shim(err)),
    }
}

async fn write(client: OwnedFd, bytes: &[u8]) -> Result<OwnedFd, AttachError> {
    if bytes.is_empty() {
        return Ok(client);
    }
    let mut sink = stream::Sink::new(client).map_err(AttachError::Stream)?;
    sink.write(bytes).await.map_err(AttachError::Stream)?;
    sink.into_inner().map_err(AttachError::Stream)
}
