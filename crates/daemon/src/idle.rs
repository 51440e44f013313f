//! The end of a daemon that was started on demand and has nothing to do any more.
//!
//! A client that comes at the very end must not be lost:
//!
//! ```text
//! daemon                                 client
//! lock starting.lock (else: stay)
//! move the sockets aside                 finds no socket: waits for starting.lock, then starts a daemon
//! look whether somebody has connected    was in time: the sockets come back, and so does the daemon
//! end; the lock goes with the process    was in between: its connection is refused, it starts a daemon likewise
//! ```

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::time::Duration;

use api_server::Server;
use engine::Engine;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::accept::Accepting;
use crate::roots;

/// Watches whether there is something to do.
pub(crate) struct Idle {
    engine: Engine,
    connections: watch::Receiver<usize>,
    timeout: Duration,
    exec_root: PathBuf,
    /// Since when there is nothing to do.
    since: Option<Instant>,
    /// Held from the decision to end until the process has ended.
    leaving: Option<File>,
}

/// Whether the daemon ends.
pub(crate) enum Leave {
    /// Nobody can reach it any more.
    End,
    /// Somebody came in time, perhaps as this connection.
    Stay(Option<UnixStream>),
}

impl Idle {
    /// Starts to watch.
    pub(crate) fn new(engine: &Engine, server: &Server, timeout: Duration, exec_root: PathBuf) -> Idle {
        let connections = server.watch_connections();
        Idle { engine: engine.clone(), connections, timeout, exec_root, since: None, leaving: None }
    }

    /// Answers when there was nothing to do for the whole timeout. Nothing is lost when the future is dropped.
    pub(crate) async fn wait(&mut self) {
        loop {
            let is_idle = *self.connections.borrow_and_update() == 0 && self.engine.is_idle();
            self.since = if is_idle { self.since.or(Some(Instant::now())) } else { None };
            let until = self.since.map(|since| since + self.timeout);
            let timed_out = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timed_out => {
                    // Another try comes after another timeout.
                    self.since = None;
                    return;
                }
                () = self.engine.idle_changed() => {}
                // The server, which this daemon owns, holds the sender.
                _ = self.connections.changed() => {}
            }
        }
    }

    /// Puts the sockets away, unless somebody comes.
    pub(crate) fn leave(&mut self, listeners: &[Accepting]) -> io::Result<Leave> {
        let lock = roots::starting_lock(&self.exec_root)?;
        match lock.try_lock() {
            Ok(()) => {}
            // Somebody is about to start a daemon, and finds this one.
            Err(TryLockError::WouldBlock) => return Ok(Leave::Stay(None)),
            Err(TryLockError::Error(err)) => return Err(err),
        }
        match hide_and_look(listeners)? {
            Some(client) => Ok(Leave::Stay(Some(client))),
            None => {
                self.leaving = Some(lock);
                Ok(Leave::End)
            }
        }
    }
}

fn hide_and_look(listeners: &[Accepting]) -> io::Result<Option<UnixStream>> {
    let files = || {
        listeners.iter().filter_map(|listener| match listener {
            Accepting::Unix(_, file) => file.as_ref(),
            Accepting::Tcp(_) | Accepting::Metrics(_) => None,
        })
    };
    files().try_for_each(|file| file.hide())?;
    for listener in listeners {
        let Accepting::Unix(listener, _) = listener else { continue };
        if let Some(client) = accept_now(listener)? {
            files().try_for_each(|file| file.restore())?;
            return Ok(Some(client));
        }
    }
    Ok(None)
}

/// A connection that is waiting, asked of the kernel: the runtime may not have heard of it.
fn accept_now(listener: impl AsFd) -> io::Result<Option<UnixStream>> {
    let accepted: Result<OwnedFd, Errno> = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
    match accepted {
        Ok(client) => UnixStream::from_std(StdUnixStream::from(client)).map(Some),
        Err(Errno::AGAIN) => Ok(None),
        Err(err) => Err(err.into()),
    }
}
