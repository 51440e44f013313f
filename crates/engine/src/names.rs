//! The name servers of containers on user-defined networks: what crate `dns` answers, on the sockets that their shims keep.
//!
//! ```text
//!   a container comes or goes:  place()  -> the zone    its names are known before its program runs
//!   it has two sockets:         serve()  -> a task      which waits at them
//!   it ends:                    forget()
//!   the daemon begins anew:           the zone first, then the sockets from the shims: what was asked meanwhile waits in them
//! ```
//! A name of ours is answered where the query is read, without another task. What is forwarded gets a task of its own, of which
//! there are [`WAITING_PER_CONTAINER`] at most for one container; so many as [`FLIGHTS_PER_CONTAINER`] have been sent at a time,
//! so that no container takes the others' share.
//!
//! A container with an egress policy asks for the names that it allows, and no others (`warden`).
//!
//! Locks: the zone's for an answer or a change, nothing waits under it; the servers' before the zone's, and the
//! gates' last, where several are needed.

mod host;
mod server;
mod upstream;
mod warden;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use dns::{Endpoint, Zone};
use network::{EgressGate, ResolverSockets};
use oci::ContainerId;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use self::host::Host;
use crate::sync::{lock, read, write};

pub use self::warden::Warden;

/// How many forwarded queries of one container wait for an answer at most, as with dockerd; one more is refused.
const WAITING_PER_CONTAINER: usize = 1024;

/// How many of them have been sent; the others wait for their turn.
const FLIGHTS_PER_CONTAINER: usize = 256;

/// Likewise of all containers: each has a socket or more, of which a process has some thousands.
const FLIGHTS: usize = 2048;

/// Beside these there are some for containers of which few queries have been sent: some whose name servers are silent take all
/// others for seconds.
const SPARE_FLIGHTS: usize = 256;

/// How many are few.
const FEW_FLIGHTS: usize = 8;

/// Port 53, but in tests.
const DNS_PORT: u16 = 53;

/// All names and all name servers.
#[derive(Debug)]
pub struct Names(Arc<Shared>);

/// What a container's name server goes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The servers that it was given, which are asked from within its network; the host's, asked from the host's, if absent.
    pub servers: Option<Vec<IpAddr>>,
    /// Names of one label are not for others, because its `ndots` has programs complete them.
    pub keeps_words: bool,
}

/// A container's place on one network, and the network.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The network's id.
    pub network_id: String,
    /// Its name.
    pub network_name: String,
    /// Whether it leads nowhere.
    pub internal: bool,
    /// What the container is called there.
    pub endpoint: Endpoint,
}

/// What tasks share.
#[derive(Debug)]
struct Shared {
    zone: RwLock<Zone>,
    serving: Mutex<HashMap<ContainerId, Serving>>,
    /// Of the containers that have a policy of egress.
    gates: RwLock<HashMap<ContainerId, Arc<EgressGate>>>,
    warden: OnceLock<Arc<dyn Warden>>,
    host: Arc<Host>,
    /// Where upstreams listen.
    port: u16,
    flights: Semaphore,
    /// Those of containers that have few.
    spare_flights: Semaphore,
}

/// A container's name server. It ends with this.
#[derive(Debug)]
struct Serving(AbortHandle);

impl Default for Names {
    fn default() -> Names {
        Names::new(dns::RESOLV_CONF.into(), DNS_PORT)
    }
}

impl Names {
    fn new(resolv_conf: PathBuf, port: u16) -> Names {
        Names(Arc::new(Shared {
            zone: RwLock::default(),
            serving: Mutex::default(),
            gates: RwLock::default(),
            warden: OnceLock::new(),
            host: Arc::new(Host::new(resolv_conf, port)),
            port,
            flights: Semaphore::new(FLIGHTS),
            spare_flights: Semaphore::new(SPARE_FLIGHTS),
        }))
    }

    /// A container is on these networks from now on, and on no others.
    pub fn place(&self, container: &ContainerId, memberships: Vec<Membership>) {
        let mut zone = write(&self.0.zone);
        zone.forget(container.as_str());
        for Membership { network_id, network_name, internal, endpoint } in memberships {
            zone.connect(&network_id, &network_name, internal, endpoint);
        }
    }

    /// A container has ended: its names and its name server go.
    pub fn forget(&self, container: &ContainerId) {
        let mut serving = lock(&self.0.serving);
        let served = serving.remove(container);
        // Most were never here.
        if read(&self.0.zone).knows(container.as_str()) {
            write(&self.0.zone).forget(container.as_str());
        }
        self.guard(container, None);
        // It ends without the lock.
        drop(serving);
        drop(served);
    }

    /// Whether others have names for a container, and it for them.
    pub fn knows(&self, container: &ContainerId) -> bool {
        read(&self.0.zone).knows(container.as_str())
    }

    /// Whether a container has its name server already.
    pub fn serves(&self, container: &ContainerId) -> bool {
        lock(&self.0.serving).contains_key(container)
    }

    /// Serves a container at these sockets until it is forgotten; not at all if that has happened already. Within a runtime.
    pub fn serve(&self, container: &ContainerId, sockets: ResolverSockets, rules: Rules) -> std::io::Result<()> {
        let server = server::Server::open(self.0.clone(), container, sockets, rules)?;
        let mut serving = lock(&self.0.serving);
        // Nobody forgets it between this look and the entry: else a server would hold the network of who is gone.
        if !read(&self.0.zone).knows(container.as_str()) {
            return Ok(());
        }
        let task = tokio::spawn(server.run());
        let replaced = serving.insert(container.clone(), Serving(task.abort_handle()));
        drop(serving);
        drop(replaced);
        Ok(())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
