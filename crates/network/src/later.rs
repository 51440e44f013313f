//! Holds of long ranges, which are taken behind the answer to whoever publishes them.
//!
//! A hold keeps other programs off a port whose connections rules, or the relay, lead anyway: nothing waits for it. A thousand of them
//! take several milliseconds. What was in somebody's way before was found by then ([`netlink::listeners`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::hold::{Hold, hold};
use crate::ports::Published;

/// How long whoever publishes has the processors for itself: its answer, and the end of the command line that waits for it, take less.
const PAUSE: Duration = Duration::from_millis(5);

/// The holds, and those that are due.
#[derive(Clone, Debug, Default)]
pub(crate) struct Later(Arc<Mutex<Holds>>);

/// Invariant: a port is due or held, and no port is that has been given back.
#[derive(Debug, Default)]
struct Holds {
    order: VecDeque<Published>,
    due: HashSet<Published>,
    held: HashMap<Published, Hold>,
    /// Whether a thread is at work, which goes on until nothing is due.
    at_work: bool,
}

impl Later {
    /// Says that ports are to be held that are not. Nothing is done before [`Later::begin`].
    pub(crate) fn add(&self, ports: impl IntoIterator<Item = Published>) {
        let mut holds = self.lock();
        let Holds { order, due, held, .. } = &mut *holds;
        order.extend(ports.into_iter().filter(|port| !held.contains_key(port) && due.insert(*port)));
    }

    /// Begins to hold what is due, in the calling thread's network namespace.
    pub(crate) fn begin(&self) {
        let mut holds = self.lock();
        if holds.at_work || holds.due.is_empty() {
            return;
        }
        let later = self.clone();
        let started = std::thread::Builder::new().name("holds".to_owned()).spawn(move || {
            std::thread::sleep(PAUSE);
            while later.hold_next() {}
        });
        match started {
            Ok(_) => holds.at_work = true,
            Err(err) => {
                drop(holds);
                tracing::debug!(%err, "no thread is to be had: ports are held before the answer");
                while self.hold_next() {}
            }
        }
    }

    /// Holds the next port; whether there was one. Locked from the choice on: who gives it back meanwhile finds the hold.
    fn hold_next(&self) -> bool {
        let mut holds = self.lock();
        let Some(port) = holds.order.pop_front() else {
            holds.at_work = false;
            return false;
        };
        // Otherwise it was given back.
        if holds.due.remove(&port) {
            match hold(&port).and_then(|held| held.map(|held| held.seal().map(|()| held)).transpose()) {
                Ok(held) => holds.held.extend(held.map(|held| (port, held))),
                Err(errno) => {
                    tracing::warn!(%errno, ?port, "another program has a published port, which leads to its container all the same");
                }
            }
        }
        true
    }

    /// Gives a port back; whether it was due or held. Whoever binds it next finds it free.
    pub(crate) fn release(&self, port: &Published) {
        let held = {
            let mut holds = self.lock();
            holds.due.remove(port);
            holds.held.remove(port)
        };
        // Nobody shares it: it goes with its descriptor.
        drop(held);
    }

    /// Gives the hold of a port away to be served by the relay.
    pub(crate) fn take_for_relay(&self, port: &Published) -> Option<Hold> {
        let held = {
            let mut holds = self.lock();
            holds.due.remove(port);
            holds.held.remove(port)
        };
        held.and_then(|held| match held.for_relay() {
            Ok(held) => Some(held),
            Err(errno) => {
                tracing::debug!(%errno, ?port, "a port is bound anew for the relay");
                None
            }
        })
    }

    /// Forgets everything that is due, and gives back what is held.
    fn end(&self) {
        let held = {
            let mut holds = self.lock();
            (holds.order, holds.due) = (VecDeque::new(), HashSet::new());
            std::mem::take(&mut holds.held)
        };
        drop(held);
    }

    fn lock(&self) -> MutexGuard<'_, Holds> {
        // It is whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the holds with their owner, also while a thread takes them.
#[derive(Debug, Default)]
pub(crate) struct LaterOwner(pub(crate) Later);

impl Drop for LaterOwner {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::ports::Protocol;

    /// Runs `test` where nobody else binds ports.
    fn alone(test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| {
            sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
            sys::network::loopback_up().unwrap();
            test();
        });
        thread.join().unwrap();
    }

    fn free() -> Published {
        static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(20_000);
        let port = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let host_address = Ipv4Addr::LOCALHOST.into();
        Published { protocol: Protocol::Tcp, container_port: 80, host_address, host_port: port }
    }

    fn is_free(port: &Published) -> bool {
        TcpListener::bind((port.host_address, port.host_port)).is_ok()
    }

    #[test]
    fn privileged_no_hold_outlives_its_port() {
        alone(|| {
            let (ports, owner) = (Vec::from_iter((0..40).map(|_| free())), LaterOwner::default());
            let later = &owner.0;
            later.add(ports.iter().copied());
            // Given back while it is due, and while others are taken.
            later.release(&ports[0]);
            later.begin();
            later.release(&ports[39]);
            later.release(&ports[20]);
            while later.lock().at_work {
                std::thread::yield_now();
            }
            for (at, port) in ports.iter().enumerate() {
                assert_eq!(is_free(port), [0, 20, 39].contains(&at), "{port:?}");
            }
            later.release(&ports[1]);
            assert!(is_free(&ports[1]));
            // What is due or held goes with the owner.
            later.add([ports[1]]);
            drop(owner);
            assert!(ports.iter().all(is_free));
        });
    }

    #[test]
    fn privileged_a_port_that_another_program_has_is_nobodys_error() {
        alone(|| {
            let (owner, port, other) = (LaterOwner::default(), free(), free());
            let _theirs = TcpListener::bind((port.host_address, port.host_port)).unwrap();
            owner.0.add([port, other]);
            owner.0.begin();
            while owner.0.lock().at_work {
                std::thread::yield_now();
            }
            assert!(!owner.0.lock().held.contains_key(&port) && owner.0.lock().held.contains_key(&other));
        });
    }

    #[test]
    fn privileged_a_hold_becomes_the_relays() {
        alone(|| {
            let (owner, port) = (LaterOwner::default(), free());
            owner.0.add([port]);
            owner.0.begin();
            while owner.0.lock().at_work {
                std::thread::yield_now();
            }
            let held = owner.0.take_for_relay(&port).unwrap();
            // It takes connections from now on.
            std::net::TcpStream::connect((port.host_address, port.host_port)).unwrap();
            held.release();
            assert!(is_free(&port) && owner.0.take_for_relay(&port).is_none());
        });
    }
}
