//! `POST /containers/{id}/attach`

use std::os::fd::OwnedFd;
use std::sync::Arc;

use errdefs::ErrorKind;
use shim_api::{Answer, Attach, Call};

use crate::Engine;
use crate::connection::{Connection, HOLDS_SINCE, hold_number};
use crate::container::state::Phase;
use crate::container::{Container, HeldClient};
use crate::detach_keys;
use crate::ops::logs::{self, LogStream, LogsError};
use crate::registry::LookupError;
use crate::shim::{CallError, Shim};
use crate::stream::{self, Sink, StreamError};

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
    /// Whether output comes as it is even without a terminal, instead of in pieces that say which output it is.
    pub unframed: bool,
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
    /// A running container writes the head of the answer itself, or holds its output back until that was written, so that
    /// nothing is lost which it prints afterwards.
    pub async fn connect(self, mut connection: Connection) -> Result<(), AttachError> {
        if self.query.stream && !self.query.logs {
            return self.stream(connection).await;
        }
        // From its answer on the client may ask for a start, and that run may be over before the client can be held for it.
        let ended_before = self.ended_at();
        connection = greet(connection).await?;
        if !self.query.logs {
            self.tell();
            return Ok(());
        }
        let framed = !self.tty() && !self.query.unframed;
        let (stdout, stderr) = (self.query.stdout, self.query.stderr);
        let log = logs::open_for_attach(&self.engine, &self.container, stdout, stderr, framed).await;
        let mut log = log.map_err(AttachError::Logs)?;
        let Connection { stream, already_read, .. } = connection;
        let mut sink = Sink::new(stream).map_err(AttachError::Stream)?;
        if let Some(bytes) = log.available().await.map_err(AttachError::Logs)? {
            sink.until_read().await.map_err(AttachError::Stream)?;
            sink.write(&bytes).await.map_err(AttachError::Stream)?;
        }
        send_available(&mut log, &mut sink).await?;
        self.tell();
        if self.query.stream { self.go_on(log, sink, already_read, ended_before).await } else { Ok(()) }
    }

    fn wants(&self, already_read: Vec<u8>) -> Attach {
        Attach {
            stdin: self.query.stdin && self.container.definition.config.open_stdin,
            stdout: self.query.stdout,
            stderr: self.query.stderr,
            already_read,
            detach_keys: self.detach_keys.clone(),
            preamble: Vec::new(),
            framed: self.query.unframed.then_some(false),
            hold: None,
        }
    }

    /// Hands the client over, now or with the start.
    async fn stream(&self, connection: Connection) -> Result<(), AttachError> {
        if let Some(shim) = self.running() {
            self.tell();
            return self.hand_over(&shim, connection).await;
        }
        // A start in progress has taken along whom it takes. The next one waits until this client is held, though that has
        // read its answer and asks for the start.
        let operation = self.container.operation.lock().await;
        let shim = self.running();
        self.tell();
        if let Some(shim) = shim {
            drop(operation);
            return self.hand_over(&shim, connection).await;
        }
        let Connection { stream, already_read, .. } = greet(connection).await?;
        self.hold(self.wants(already_read), stream)
    }

    /// Hands over a client who has what was logged until now: without a gap, and nothing twice.
    ///
    /// The shim marks the log and holds the client, who gets what the log has before the mark and is then let go. If a run has
    /// ended since `ended_before`, the stream ends with it.
    async fn go_on(
        &self,
        mut log: LogStream,
        mut sink: Sink,
        already_read: Vec<u8>,
        ended_before: i64,
    ) -> Result<(), AttachError> {
        loop {
            send_available(&mut log, &mut sink).await?;
            let Some(shim) = self.running() else {
                let operation = self.container.operation.lock().await;
                if self.running().is_some() {
                    continue;
                }
                if self.ended_at() != ended_before {
                    drop(operation);
                    return send_available(&mut log, &mut sink).await;
                }
                let stream = sink.into_inner().map_err(AttachError::Stream)?;
                return self.hold(self.wants(already_read), stream);
            };
            if shim.speaks() < HOLDS_SINCE {
                let attach = self.wants(already_read);
                return hand_over(&shim, attach, sink.into_inner().map_err(AttachError::Stream)?).await;
            }
            let hold = hold_number();
            let attach = Attach { hold: Some(hold), ..self.wants(Vec::new()) };
            let copy = sink.duplicate().map_err(AttachError::Stream)?;
            let held = match shim.link.call(Call::Attach(attach), vec![copy]).await {
                Ok(Answer::Held { logged_until_nanos }) => {
                    log.read_until(Some(logged_until_nanos.unwrap_or(0)));
                    send_available(&mut log, &mut sink).await?;
                    log.read_until(None);
                    let already_read = already_read.clone();
                    shim.link.call(Call::Release { hold, already_read }, vec![]).await
                }
                other => other,
            };
            match held {
                Ok(_) => return Ok(()),
                // The client was slow, and let go: the log has what it missed.
                Err(CallError::Refused(_)) if self.running().is_some() => {}
                // The container has ended: all that it had to say is in the log.
                Err(CallError::Closed | CallError::Refused(_)) => return send_available(&mut log, &mut sink).await,
                Err(err) => return Err(AttachError::Shim(err)),
            }
        }
    }

    async fn hand_over(&self, shim: &Shim, mut connection: Connection) -> Result<(), AttachError> {
        if connection.gate.is_some() && shim.speaks() < HOLDS_SINCE {
            connection = greet(connection).await?;
        }
        let mut attach = self.wants(connection.already_read);
        let Some(gate) = connection.gate else {
            attach.preamble = connection.head;
            return hand_over(shim, attach, connection.stream).await;
        };
        let hold = hold_number();
        attach.hold = Some(hold);
        let called = shim.link.call(Call::Attach(attach), vec![connection.stream]).await;
        // Whatever comes of it, the client gets its answer.
        let already_read = gate.pass().await;
        let called = match called {
            Ok(_) => shim.link.call(Call::Release { hold, already_read }, vec![]).await,
            failed => failed,
        };
        match called {
            Ok(_) | Err(CallError::Closed) => Ok(()),
            Err(err) => Err(AttachError::Shim(err)),
        }
    }

    fn tell(&self) {
        self.engine.events.container(&self.container, "attach", []);
    }

    /// When its last run ended.
    fn ended_at(&self) -> i64 {
        self.container.state().finished_at_nanos
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
}

async fn send_available(log: &mut LogStream, sink: &mut Sink) -> Result<(), AttachError> {
    while let Some(bytes) = log.available().await.map_err(AttachError::Logs)? {
        sink.write(&bytes).await.map_err(AttachError::Stream)?;
    }
    Ok(())
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

/// Writes the head of the answer, or has it written.
async fn greet(mut connection: Connection) -> Result<Connection, AttachError> {
    if let Some(gate) = connection.gate.take() {
        connection.already_read.extend(gate.pass().await);
    }
    connection.stream = write(connection.stream, &std::mem::take(&mut connection.head)).await?;
    Ok(connection)
}

async fn write(client: OwnedFd, bytes: &[u8]) -> Result<OwnedFd, AttachError> {
    if bytes.is_empty() {
        return Ok(client);
    }
    let mut sink = Sink::new(client).map_err(AttachError::Stream)?;
    sink.write(bytes).await.map_err(AttachError::Stream)?;
    sink.into_inner().map_err(AttachError::Stream)
}
