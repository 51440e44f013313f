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

use std::os::fd::OwnedFd;

use engine::ops::attach::Attachment;
use engine::ops::exec::{ExecClient, PreparedExec};
use engine_api::versions::ApiVersion;
use tracing::debug;

use crate::response::Answer;

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
        Takeover { heir: Heir::Attach(Box::new(attachment)), multiplexed }
    }

    /// The connection goes to an exec.
    pub(crate) fn exec(exec: PreparedExec, version: ApiVersion) -> Takeover {
        let multiplexed = stream_type(version, exec.tty()) == MULTIPLEXED_STREAM;
        Takeover { heir: Heir::Exec(Box::new(exec)), multiplexed }
    }

    /// The type named in the head of an upgrade.
    pub(crate) fn content_type(&self) -> &'static str {
        if self.multiplexed { MULTIPLEXED_STREAM } else { RAW_STREAM }
    }

    /// The head of the answer.
    pub(crate) fn head(&self, upgrade: bool) -> String {
        if upgrade {
            let content_type = self.content_type();
            format!(
                "HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            )
        } else {
            format!("HTTP/1.1 200 OK\r\nContent-Type: {RAW_STREAM}\r\n\r\n")
        }
    }

    /// Whether [`Takeover::run`] ends though nobody reads the connection yet.
    pub(crate) fn is_quick(&self) -> bool {
        match &self.heir {
            Heir::Attach(attachment) => !attachment.sends_logs(),
            Heir::Exec(_) => true,
        }
    }

    /// Hands over the connection. `head` is empty if it was written.
    pub(crate) async fn run(self, client: OwnedFd, head: &str, already_read: Vec<u8>) {
        let failed = match self.heir {
            Heir::Attach(attachment) => {
                let connected = attachment.connect(client, head.as_bytes(), already_read).await;
                connected.err().map(|err| errdefs::chain(&err))
            }
            Heir::Exec(exec) => {
                let client = ExecClient { stream: client, head: head.into(), already_read };
                exec.run(Some(client)).await.err().map(|err| errdefs::chain(&err))
            }
        };
        // The client has its answer already and sees the end of its stream; only the log is left to tell.
        if let Some(failed) = failed {
            debug!("hijacked connection: {failed}");
        }
    }
}
