//! Somebody between a client and the daemon, for tests that must know how far a client has come.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use anyhow::{Result, bail};

use crate::process::DEADLINE;

/// A socket whose connections lead to the daemon's, whichever daemon listens there; it ends with the test's process.
#[derive(Debug)]
pub struct Passage {
    directory: tempfile::TempDir,
    answered: Arc<Answered>,
}

/// How many connections have had something of an answer.
#[derive(Debug, Default)]
struct Answered {
    connections: Mutex<usize>,
    changed: Condvar,
}

impl Passage {
    /// Listens in front of the daemon at `daemon`.
    pub fn to(daemon: &Path) -> Result<Passage> {
        let (directory, answered) = (tempfile::tempdir()?, Arc::<Answered>::default());
        let passage = Passage { directory, answered: answered.clone() };
        let (listener, daemon) = (UnixListener::bind(passage.socket())?, daemon.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Nobody listens while there is no daemon: the client loses its connection, too.
                if let Ok(upstream) = UnixStream::connect(&daemon) {
                    let _ = carry(client, upstream, answered.clone());
                }
            }
        });
        Ok(passage)
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("passage")
    }

    /// Waits until this many connections have got the beginning of an answer: their clients cannot but have it.
    pub fn until_answered(&self, connections: usize) -> Result<()> {
        let had = self.answered.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let few = |had: &mut usize| *had < connections;
        let (had, late) =
            self.answered.changed.wait_timeout_while(had, DEADLINE, few).unwrap_or_else(PoisonError::into_inner);
        if late.timed_out() {
            bail!("{} connections of {connections} were answered", *had);
        }
        Ok(())
    }
}

fn carry(client: UnixStream, upstream: UnixStream, answered: Arc<Answered>) -> Result<()> {
    let (from_client, to_upstream) = (client.try_clone()?, upstream.try_clone()?);
    thread::spawn(move || copy(from_client, to_upstream, || {}));
    thread::spawn(move || copy(upstream, client, || answered.note()));
    Ok(())
}

impl Answered {
    fn note(&self) {
        *self.connections.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }
}

/// Carries bytes until one side ends, and calls `begun` after the first ones.
fn copy(mut from: UnixStream, mut to: UnixStream, begun: impl FnOnce()) {
    let (mut buffer, mut begun) = ([0; 8192], Some(begun));
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
        if let Some(begun) = begun.take() {
            begun();
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
