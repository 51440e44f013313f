//! Shims: starting them, speaking with them, and knowing when they are gone.

mod link;
mod spawn;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use oci::ContainerId;
use rustix::process::Signal;
use shim_api::Fact;
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use crate::readiness;

pub use link::{CallError, Link, Outcome};
pub use spawn::{SpawnError, Spawner};

/// How long a shim that closed its connection may take to end: it removes cgroups, and flushes streams to slow clients.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// A shim's process and the connection to it.
pub struct Shim {
    /// The connection.
    pub link: Link,
    process: OwnedFd,
    gone: watch::Sender<bool>,
}

/// What a shim's task tells the supervisor, in the order in which it happened.
pub enum Observation {
    /// Nothing happened: whoever sent this hears when everything observed before it was handled.
    CaughtUp(oneshot::Sender<()>),
    /// The container's program runs. Whoever asked for it hears of it after the supervisor has.
    Started {
        /// Which container.
        container: ContainerId,
        /// As the shim said.
        outcome: Outcome,
        /// Who asked.
        asker: oneshot::Sender<Outcome>,
    },
    /// What a shim posted by itself.
    Fact(Fact),
    /// The connection is closed. If the container still runs, its shim has failed it.
    Closed(ContainerId),
    /// The shim's process is gone, and with it everything that it held.
    Gone(ContainerId),
}

impl Shim {
    /// Takes care of a shim: `socket` is connected to it, `process` a pidfd of it.
    pub fn adopt(
        socket: std::os::unix::net::UnixStream,
        process: OwnedFd,
        container: ContainerId,
        observations: mpsc::UnboundedSender<Observation>,
    ) -> std::io::Result<Arc<Shim>> {
        let (link, reader) = Link::open(socket, container.clone(), observations.clone())?;
        let shim = Arc::new(Shim { link, process, gone: watch::Sender::new(false) });
        let task = shim.clone();
        tokio::spawn(async move {
            reader.run(&task.link).await;
            // An error here says that the supervisor is gone: the daemon ends.
            let _ = observations.send(Observation::Closed(container.clone()));
            task.outlive(&container).await;
            task.gone.send_replace(true);
            let _ = observations.send(Observation::Gone(container));
        });
        Ok(shim)
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
        match tokio::time::timeout(END_TIMEOUT, self.ended()).await {
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

    async fn ended(&self) -> std::io::Result<()> {
        // A pidfd is readable once its process has ended (pidfd_open(2)).
        let process = readiness::register(self.process.try_clone()?, Interest::READABLE)?;
        let _ready = process.readable().await?;
        Ok(())
    }
}
