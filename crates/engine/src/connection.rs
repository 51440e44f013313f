//! A client's connection on its way from HTTP to a shim.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::sync::oneshot;

/// A client's connection that stops being HTTP.
#[derive(Debug)]
pub struct Connection {
    /// The connection.
    pub stream: OwnedFd,
    /// What the client gets first: the head of the answer; empty if it was written, or somebody else writes it.
    pub head: Vec<u8>,
    /// What it sent behind its request.
    pub already_read: Vec<u8>,
    /// Somebody else writes the head.
    pub gate: Option<Gate>,
}

/// Writes the head of an answer, or a part of it, so that no read of the client's gets more than that, where it is connected
/// by a unix socket; never blocks. A client may read the head with a reader of its own, and lose what that has beyond it.
pub fn write_head(connection: BorrowedFd<'_>, head: &[u8]) -> io::Result<usize> {
    sys::socket::send_apart(connection, head)
}

/// The way past somebody who writes the head of the answer himself.
///
/// ```text
/// we      connect the client, its output is held     pass ------------>          let it go
/// keeper                                              writes the head, opens ->
/// ```
#[derive(Debug)]
pub struct Gate {
    ready: oneshot::Sender<()>,
    opened: oneshot::Receiver<Vec<u8>>,
}

/// Who writes the head.
#[derive(Debug)]
pub struct GateKeeper {
    ready: oneshot::Receiver<()>,
    opened: oneshot::Sender<Vec<u8>>,
}

impl Gate {
    /// A gate that is shut.
    pub fn shut() -> (Gate, GateKeeper) {
        let (ready, is_ready) = oneshot::channel();
        let (open, opened) = oneshot::channel();
        (Gate { ready, opened }, GateKeeper { ready: is_ready, opened: open })
    }

    /// Has the head written; answers what the client sent behind its request, which is nothing if it went away.
    pub(crate) async fn pass(self) -> Vec<u8> {
        // A keeper that is gone has let go of its client.
        let _ = self.ready.send(());
        self.opened.await.unwrap_or_default()
    }
}

impl GateKeeper {
    /// Waits until the head may be written. Somebody who will never come needs no waiting for.
    pub async fn wait(&mut self) {
        let _ = (&mut self.ready).await;
    }

    /// The head is written.
    pub fn open(self, already_read: Vec<u8>) {
        // Whoever is gone by now has nothing to get.
        let _ = self.opened.send(already_read);
    }
}

/// The version of the shim's protocol since which it can hold a client back.
pub(crate) const HOLDS_SINCE: u32 = 5;

/// A number by which a shim knows a client that it holds: no other daemon's is the same.
pub(crate) fn hold_number() -> u64 {
    u64::from_str_radix(&stdx::id::random_hex::<8>(), 16).expect("sixteen hex digits are a number")
}
