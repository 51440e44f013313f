//! firewalld, where it is the machine's firewall: our bridges are in a zone of it that lets everything pass.
//!
//! Its forward chain refuses by a rule at its end what no zone lets pass, and it keeps the chain to itself, so that no rule of ours there
//! would last. What goes to a published port passes all the same (it accepts what was redirected); what a container sends does not,
//! and neither does what goes to this machine, the relay's ports included. So we do what Docker does, under the same names: a zone `docker` with
//! the target ACCEPT, a policy `docker-forwarding` that lets pass what goes there, and the bridges in the zone. What may
//! pass there at all has been decided by our own table before.
//!
//! ```text
//!  whoever changes networks                    the thread "firewalld"                     firewalld
//!    wanted := bridges, wake it   ---------->    what is there?  ------- D-Bus ------->     zones, policies, interfaces
//!    wait until it is so          <----------    plan, apply                                    |
//!      (with a deadline)                          wait for a wake or a signal   <--- started, reloaded
//! ```
//! Zone and policy are permanent, as with Docker, and firewalld is reloaded once to have them. That the bridges are in the zone
//! is not: firewalld forgets it when it is reloaded or started again, and tells both.
//!
//! The thread is there while there are bridges and a bus; nobody else waits for firewalld, but those who made a network or join one, and they
//! only until [`PATIENCE`] is over, and not again before it has answered. A daemon that is killed leaves its bridges in the zone:
//! the next one finds them there, and a bridge that is gone is a name there and nothing more.
//!
//! In the mode `host-firewall` nothing of this happens: the host's rules decide.

mod client;
mod plan;
mod worker;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::EventfdFlags;

/// How long whoever needs a bridge in the zone waits for that: firewalld takes two seconds for a reload on a small machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of firewalld.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirewalldState {
    /// Whether it runs, and filters this network namespace.
    pub running: bool,
    /// When our bridges were put back after it had been reloaded or started.
    pub reloaded_at: Option<SystemTime>,
    /// Bridges that somebody else has put into another zone, and that zone: they stay there.
    pub elsewhere: Vec<(String, String)>,
    /// Why our bridges may not be in the zone.
    pub fault: Option<String>,
}

/// What others want of firewalld, and who sees to that.
#[derive(Debug)]
pub(crate) struct Firewalld {
    /// The bus; none if firewalld is not to be asked for anything.
    socket: Option<PathBuf>,
    desk: Arc<Desk>,
}

/// Between those who want something and the thread.
#[derive(Debug, Default)]
struct Desk {
    slip: Mutex<Slip>,
    /// Whenever something was settled, or the thread ends.
    settled: Condvar,
}

#[derive(Debug, Default)]
struct Slip {
    /// The bridges that are to be in the zone.
    wanted: BTreeSet<String>,
    /// Those and others that may be there because of us.
    ours: BTreeSet<String>,
    /// Counts the changes of that.
    asked: u64,
    /// Up to which of them all is as it should be, or nobody can do anything about it.
    settled: u64,
    /// Nobody waits: the last attempt failed, or somebody has waited in vain.
    mute: bool,
    /// Wakes the thread; none if there is none.
    bell: Option<Arc<OwnedFd>>,
    /// The thread is to end.
    ends: bool,
    state: FirewalldState,
}

impl Firewalld {
    pub(crate) fn new(socket: Option<PathBuf>) -> Firewalld {
        Firewalld { socket, desk: Arc::default() }
    }

    /// Has exactly these bridges in the zone from now on. Does not wait for it.
    pub(crate) fn want(&self, bridges: impl IntoIterator<Item = String>) {
        if self.socket.is_none() {
            return;
        }
        let wanted: BTreeSet<_> = bridges.into_iter().collect();
        let mut slip = self.desk.lock();
        if slip.wanted != wanted {
            slip.ours.extend(wanted.iter().cloned());
            slip.wanted = wanted;
            slip.asked += 1;
        }
        self.attend(&mut slip);
    }

    /// Looks for a bus again where there was none: somebody has changed the packet filter, which firewalld does when it starts.
    pub(crate) fn look(&self) {
        self.attend(&mut self.desk.lock());
    }

    /// Waits until the bridges are in the zone, as long as somebody sees to that, and patience lasts.
    pub(crate) fn settle(&self) {
        let until = Instant::now() + PATIENCE;
        let mut slip = self.desk.lock();
        let asked = slip.asked;
        while slip.settled < asked && !slip.mute && slip.bell.is_some() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                slip.mute = true;
                slip.state.fault.get_or_insert_with(|| "it does not answer".to_owned());
                tracing::warn!(seconds = PATIENCE.as_secs(), "firewalld does not answer: containers may be cut off");
                return;
            }
            slip = self.desk.settled.wait_timeout(slip, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn state(&self) -> FirewalldState {
        self.desk.lock().state.clone()
    }

    /// Ends the thread as soon as it has nothing under way. Bridges stay where they are.
    pub(crate) fn stop(&self) {
        let mut slip = self.desk.lock();
        slip.ends = true;
        slip.ring();
    }

    /// Sees to it that somebody does what is wanted, if there is anything to do.
    fn attend(&self, slip: &mut Slip) {
        let Some(socket) = self.socket.as_ref().filter(|_| slip.settled < slip.asked || slip.bell.is_none()) else {
            return;
        };
        let nobody = slip.bell.is_none();
        if nobody && !slip.wanted.is_empty() && !slip.ends && socket.exists() {
            match rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) {
                Ok(bell) => self.hire(slip, Arc::new(bell), socket.clone()),
                Err(err) => tracing::warn!(%err, "nobody puts our bridges into a zone of firewalld"),
            }
        }
        match slip.bell {
            Some(_) => slip.ring(),
            // There is no firewalld to wait for.
            None => slip.settled = slip.asked,
        }
    }

    fn hire(&self, slip: &mut Slip, bell: Arc<OwnedFd>, socket: PathBuf) {
        let (desk, of_thread) = (Arc::clone(&self.desk), Arc::clone(&bell));
        // What it is for is its own to say again.
        slip.settled = slip.settled.min(slip.asked.saturating_sub(1));
        slip.mute = false;
        let work = move || worker::run(&desk, &of_thread, &socket);
        match std::thread::Builder::new().name("firewalld".to_owned()).stack_size(worker::STACK_BYTES).spawn(work) {
            Ok(_) => slip.bell = Some(bell),
            Err(err) => tracing::warn!(%err, "nobody puts our bridges into a zone of firewalld"),
        }
    }
}

impl Drop for Firewalld {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Slip> {
        // What is on it is whole at every moment, also when a holder panicked.
        self.slip.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slip {
    fn ring(&self) {
        if let Some(bell) = &self.bell {
            // One that has rung already rings.
            let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
        }
    }
}
