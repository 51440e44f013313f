//! Connections that stop being HTTP: attach, exec, and BuildKit's.
//!
//! ```text
//! client  POST /containers/x/attach?stream=1&stdin=1   Upgrade: tcp
//! daemon  HTTP/1.1 101 UPGRADED                        (200 OK for a client that did not ask for an upgrade)
//! client  <-- raw or multiplexed bytes, both ways -->  shim: the descriptor itself is passed on, see `engine`
//! ```
//!
//! A handler prepares the takeover and may still fail as any handler fails; only then is the head written, and the
//! connection's descriptor and what the client sent too early go to the engine. The head goes with them: the shim of a
//! running container or of an exec writes it when it begins to send, so that a client which has read it misses nothing.
//! Where hyper writes the head, on a connection that served requests before, the shim holds everything back meanwhile.
//!
//! A client that speaks [`crate::websocket`] is served by the daemon, and by it alone: it ends with the daemon.

use std::pin::Pin;

use engine::connection::Connection;
use engine::ops::attach::Attachment;
use engine::ops::exec::PreparedExec;
use engine_api::versions::ApiVersion;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use crate::response::{Answer, write_headers};
use crate::websocket::Accepted;

/// What a hijacking handler comes to.
pub(crate) enum Outcome {
    /// The connection stays HTTP.
    Answer(Answer),
    /// It does not.
    Takeover(Box<Takeover>),
    /// It becomes another protocol, which the daemon itself speaks.
    Upgrade(Upgrade),
}

/// A connection whose bytes are another protocol's from here on.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Who speaks that protocol.
type Speak = Box<dyn FnOnce(Box<dyn Duplex>) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send>;

/// What a connection becomes. It ends with the daemon.
pub(crate) struct Upgrade {
    /// As the client calls it.
    pub(crate) protocol: &'static str,
    speak: Speak,
}

impl Upgrade {
    /// A protocol, and who speaks it to the end of the connection.
    pub(crate) fn new<F>(protocol: &'static str, speak: impl FnOnce(Box<dyn Duplex>) -> F + Send + 'static) -> Upgrade
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Upgrade { protocol, speak: Box::new(move |io| Box::pin(speak(io))) }
    }

    /// The head of the answer: dockerd's says no more.
    pub(crate) fn head(&self) -> Vec<u8> {
        let protocol = self.protocol;
        format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n").into_bytes()
    }

    /// Speaks it.
    pub(crate) async fn run(self, io: impl Duplex + 'static) {
        // A client that goes away in the middle of something is no event.
        if let Err(err) = (self.speak)(Box::new(io)).await {
            debug!("{}: {err}", self.protocol);
        }
    }
}

/// Who gets the connection.
pub(crate) struct Takeover {
    heir: Heir,
    multiplexed: bool,
    /// How its client speaks, if that is in frames of a web socket.
    pub(crate) websocket: Option<Accepted>,
}

enum Heir {
    Attach(Box<Attachment>),
    Exec(Box<PreparedExec>),
}

/// The bytes of a terminal, or of a client that did not ask for an upgrade.
pub(crate) const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
/// Frames with an eight-byte header.
pub(crate) const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";

/// The type of a stream of output: before 1.42 clients knew but one name for both.
pub(crate) fn stream_type(version: ApiVersion, tty: bool) -> &'static str {
    if tty || version.before(42) { RAW_STREAM } else { MULTIPLEXED_STREAM }
}

impl Takeover {
    /// The connection goes to a container.
    pub(crate) fn attach(attachment: Attachment, version: ApiVersion) -> Takeover {
        let multiplexed = stream_type(version, attachment.tty()) == MULTIPLEXED_STREAM;
        Takeover { heir: Heir::Attach(Box::new(attachment)), multiplexed, websocket: None }
    }

    /// The connection goes to an exec.
    pub(crate) fn exec(exec: PreparedExec, version: ApiVersion) -> Takeover {
        let multiplexed = stream_type(version, !exec.is_framed()) == MULTIPLEXED_STREAM;
        Takeover { heir: Heir::Exec(Box::new(exec)), multiplexed, websocket: None }
    }

    /// The connection becomes a web socket, and its bytes a container's.
    pub(crate) fn websocket(attachment: Attachment, accepted: Accepted) -> Takeover {
        Takeover { heir: Heir::Attach(Box::new(attachment)), multiplexed: false, websocket: Some(accepted) }
    }

    /// The type named in the head of an upgrade.
    pub(crate) fn content_type(&self) -> &'static str {
        if self.multiplexed { MULTIPLEXED_STREAM } else { RAW_STREAM }
    }

    /// The head of the answer. `common` is what all answers say of us: that of attach does not, as with dockerd.
    pub(crate) fn head(&self, upgrade: bool, common: &HeaderMap) -> Vec<u8> {
        let mut head = match upgrade {
            true => {
                let content_type = self.content_type();
                format!(
                    "HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
                )
            }
            false => format!("HTTP/1.1 200 OK\r\nContent-Type: {RAW_STREAM}\r\n"),
        }
        .into_bytes();
        if matches!(self.heir, Heir::Exec(_)) {
            write_headers(common, &mut head);
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    /// Whether [`Takeover::run`] ends though nobody reads the connection yet.
    pub(crate) fn is_quick(&self) -> bool {
        match &self.heir {
            Heir::Attach(attachment) => !attachment.sends_logs(),
            Heir::Exec(_) => true,
        }
    }

    /// Hands over the connection.
    pub(crate) async fn run(self, client: Connection) {
        let failed = match self.heir {
            Heir::Attach(attachment) => attachment.connect(client).await.err().map(|err| errdefs::chain(&err)),
            Heir::Exec(exec) => exec.run(Some(client)).await.err().map(|err| errdefs::chain(&err)),
        };
        // The client has its answer already and sees the end of its stream; only the log is left to tell.
        if let Some(failed) = failed {
            debug!("hijacked connection: {failed}");
        }
    }
}
