//! Connections that stop being HTTP: attach and exec.
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

use engine::connection::Connection;
use engine::ops::attach::Attachment;
use engine::ops::exec::PreparedExec;
use engine_api::versions::ApiVersion;
use http::HeaderMap;
use tracing::debug;

use crate::response::{Answer, write_headers};
use crate::websocket::Accepted;

/// What a hijacking handler comes to.
pub(crate) enum Outcome {
    /// The connection stays HTTP.
    Answer(Answer),
    /// It does not.
    Takeover(Box<Takeover>),
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
