//! Shims: starting them, speaking with them, and knowing when they are gone.

mod link;
mod spawn;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use oci::ContainerId;
use rustix::process::{Pid, PidfdFlags, Signal};
use shim_api::{Answer, Call, ExitRecord, Fact, RunState};
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use crate::readiness;

pub use link::{CallError, Link, Outcome};
pub use spawn::{SpawnError, Spawner};

/// How long a shim that closed its connection may take to end: it removes cgroups, and flushes streams to slow clients.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// How long whoever lacks descriptors or memory waits before the next try.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(1);

/// How long a shim may take to say hello: it is one thread that never blocks for long.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// A shim's process and the connection to it.
pub struct Shim {
    /// The connection.
    pub link: Link,
    process: OwnedFd,
    gone: watch::Sender<bool>,
    /// Another connection to the same process has taken this one's place.
    replaced: watch::Sender<bool>,
    /// Another connection is being made: it is not ended for having lost this one.
    wanted: AtomicBool,
    /// Which version of the protocol it speaks; 0 until it has said so.
    version: AtomicU32,
}

/// What a shim's task tells the supervisor, in the order in which it happened.
pub enum Observation {
    /// Nothing happened: whoever sent this hears when everything observed before it was handled.
    CaughtUp(oneshot::Sender<()>),
    /// An answer that says how the container is: its program runs, or has run since an earlier daemon. Whoever asked hears
    /// of it after the supervisor has, and the supervisor before it hears what happened next.
    Answered {
        /// Which container.
        container: ContainerId,
        /// As the shim said.
        outcome: Outcome,
        /// Who asked.
        asker: oneshot::Sender<Outcome>,
    },
    /// Nobody supervises a container that we found: what its shim left behind, if it had one, says how it is.
    Unsupervised {
        /// Which container.
        container: ContainerId,
        /// Who found it, and hears when its state is right.
        asker: oneshot::Sender<()>,
    },
    /// What a shim posted by itself.
    Fact(Fact),
    /// A container that ended is off its network.
    Left {
        /// Which container.
        container: ContainerId,
        /// How it ended.
        exit: ExitRecord,
    },
    /// The connection is closed, but the shim may live. Whoever sees to that holds this one until it is decided.
    Closed {
        /// Whose it was.
        container: ContainerId,
        /// With the closed connection.
        shim: Arc<Shim>,
    },
    /// The shim's process is gone, and with it everything that it held.
    Gone {
        /// Whose it was. By now it may have the shim of its next run.
        container: ContainerId,
        /// Which one.
        shim: Arc<Shim>,
    },
}

impl Shim {
    /// Takes care of a shim: `socket` is connected to it, `process` a pidfd of it.
    pub fn adopt(
        socket: UnixStream,
        process: OwnedFd,
        container: ContainerId,
        observations: mpsc::UnboundedSender<Observation>,
    ) -> std::io::Result<Arc<Shim>> {
        let (link, reader) = Link::open(socket, container.clone(), observations.clone())?;
        let shim = Arc::new(Shim {
            link,
            process,
            gone: watch::Sender::new(false),
            replaced: watch::Sender::new(false),
            wanted: AtomicBool::new(false),
            version: AtomicU32::new(0),
        });
        let task = shim.clone();
        tokio::spawn(async move {
            reader.run(&task.link).await;
            // An error here says that the supervisor is gone: the daemon ends.
            let _ = observations.send(Observation::Closed { container: container.clone(), shim: task.clone() });
            let mut replaced = task.replaced.subscribe();
            let was_replaced = tokio::select! {
                replaced = replaced.wait_for(|replaced| *replaced) => replaced.is_ok(),
                () = task.outlive(&container) => false,
            };
            if was_replaced {
                // The other connection's task tells of the process from now on. Who waits for its end here still may.
                if let Err(err) = task.ended().await {
                    return warn!(%container, %err, "cannot watch the shim's process");
                }
            }
            task.gone.send_replace(true);
            if !was_replaced {
                let _ = observations.send(Observation::Gone { container, shim: task });
            }
        });
        Ok(shim)
    }

    /// Finds a shim that lives, by its directory, and takes care of it. Waits as long as there are no descriptors for that:
    /// it says nothing of the shim, whose container would be lost.
    pub async fn find(
        dir: &Path,
        container: ContainerId,
        observations: mpsc::UnboundedSender<Observation>,
    ) -> std::io::Result<Arc<Shim>> {
        patiently(|| Shim::try_find(dir, container.clone(), observations.clone())).await
    }

    fn try_find(
        dir: &Path,
        container: ContainerId,
        observations: mpsc::UnboundedSender<Observation>,
    ) -> std::io::Result<Arc<Shim>> {
        let socket = connect(dir)?;
        let peer = sys::socket::peer(socket.as_fd())?;
        let pid = Pid::from_raw(peer.pid).ok_or(std::io::ErrorKind::NotFound)?;
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        Shim::adopt(socket, process, container, observations)
    }

    /// Says hello, again or for the first time; answers how the container is. The supervisor has taken note of it then.
    pub async fn hello(&self) -> Result<Option<RunState>, CallError> {
        let mut answers = self.link.send(vec![(Call::Hello { version: shim_api::VERSION }, vec![])]).await?;
        let answer = answers.pop().expect("one call gives one answer");
        match Link::answer(answer, HELLO_TIMEOUT).await? {
            Answer::Hello { state, version, .. } => {
                self.version.store(version, Ordering::Relaxed);
                Ok(state)
            }
            _ => Err(CallError::Closed),
        }
    }

    /// Which version of the protocol it speaks; 0 as long as it is not known.
    pub fn speaks(&self) -> u32 {
        self.version.load(Ordering::Relaxed)
    }

    /// It has said hello, in this version.
    pub fn greeted(&self, version: u32) {
        self.version.store(version, Ordering::Relaxed);
    }

    /// Another connection takes this one's place: nobody hears of this one any more.
    pub fn replace(&self) {
        self.replaced.send_replace(true);
    }

    /// Whether another connection is being made, for as long as which nobody ends it.
    pub fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Whether another connection is being made.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Waits until the process is gone; false if it is not after that time.
    pub async fn wait_gone(&self, deadline: Duration) -> bool {
        let mut gone = self.gone.subscribe();
        matches!(tokio::time::timeout(deadline, gone.wait_for(|gone| *gone)).await, Ok(Ok(_)))
    }

    /// Ends the process by force. Its container's processes die with their PID namespace only if the shim kills them
    /// first: this is for shims that have no container, or a container that ended.
    pub fn kill(&self) {
        if let Err(err) = rustix::process::pidfd_send_signal(&self.process, Signal::KILL) {
            // ESRCH: it ended by itself meanwhile, which is what is wanted.
            debug!(%err, "kill shim");
        }
    }

    async fn outlive(&self, container: &ContainerId) {
        let outlived = loop {
            let outlived = tokio::time::timeout(END_TIMEOUT, self.ended()).await;
            if outlived.is_ok() || !self.is_wanted() {
                break outlived;
            }
        };
        match outlived {
            Ok(Ok(())) => {}
            Ok(Err(err)) => warn!(%container, %err, "cannot watch the shim's process"),
            Err(_) => {
                warn!(%container, "the shim has closed its connection and does not end: it is killed");
                self.kill();
                let _ = self.ended().await;
            }
        }
        if let Err(err) = sys::wait::try_wait(self.process.as_fd()) {
            // A shim that an earlier daemon started is not our child: init reaps it.
            debug!(%container, %err, "reap shim");
        }
    }

    /// Answers when the process has ended.
    pub async fn ended(&self) -> std::io::Result<()> {
        // A pidfd is readable once its process has ended (pidfd_open(2)).
        let process = patiently(|| readiness::register(self.process.try_clone()?, Interest::READABLE)).await?;
        let _ready = process.readable().await?;
        Ok(())
    }
}

/// Does what needs descriptors, as soon as there are some.
async fn patiently<T>(mut attempt: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    let mut told = false;
    loop {
        match attempt() {
            Err(err) if is_shortage(&err) => {
                if !std::mem::replace(&mut told, true) {
                    warn!(%err, "a container's shim has to wait");
                }
                tokio::time::sleep(SHORTAGE_PAUSE).await;
            }
            done => return done,
        }
    }
}

/// Whether an error tells of what this process or the machine lacks, and so nothing of whom it was met with. ENOSPC is
/// epoll's (epoll_ctl(2), max_user_watches).
fn is_shortage(err: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let known = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::NOSPC];
    err.raw_os_error().is_some_and(|code| known.iter().any(|one| one.raw_os_error() == code))
}

/// Connects to a shim through its directory's descriptor: a path may be longer than a socket address takes (107 bytes).
pub fn connect(dir: &Path) -> std::io::Result<UnixStream> {
    let dir = std::fs::File::open(dir)?;
    UnixStream::connect(shim_api::paths::socket(Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd()))))
}
