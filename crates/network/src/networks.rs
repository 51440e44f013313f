//! Joining and leaving: plan, apply, record, and the way back.

mod endpoints;

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netlink::link::{self, Link, Mac};
use netlink::{Protocol, Socket, address, neighbour, route};
use rustix::io::Errno;

use crate::addresses::NoAddress;
use crate::bridge;
use crate::config::Config;
use crate::error::{JoinError, NetworkError, PortError, SystemReason};
use crate::firewall::{Firewall, Redirection, Rules};
use crate::hold::{Hold, hold};
use crate::ports::{self, Group, PortRequest, Published};
use crate::record::{BridgeRecord, EndpointRecord, Records};
use crate::sandbox::{Plan, Pool, Sandbox};
use crate::subnet::Subnet;
use endpoints::{Endpoints, Entry};

/// How often a port out of a range is tried when other programs have the ones found, as dockerd does.
const PORT_ATTEMPTS: usize = 10;

/// What a container wants of the default bridge.
#[derive(Clone, Debug)]
pub struct EndpointRequest {
    /// The container's id.
    pub container: String,
    /// The endpoint's name in messages: the container's name.
    pub name: String,
    /// Ports to publish.
    pub ports: Vec<PortRequest>,
    /// The Ethernet address; a random one if none is wanted.
    pub mac: Option<Mac>,
    /// The IPv4 address; the lowest free one if none is wanted.
    pub address: Option<Ipv4Addr>,
}

/// A container's place on the bridge.
#[derive(Debug)]
pub struct Endpoint {
    /// The container's network namespace, complete. Whoever holds it keeps it alive; this crate no longer does.
    pub namespace: OwnedFd,
    /// Sockets that keep the published ports from other programs. Whoever holds them does so also when this process has
    /// died. [`Networks::leave`] frees TCP ports all the same, and others when they are closed.
    pub holds: Vec<OwnedFd>,
    /// What users see of it.
    pub place: Place,
}

/// A container's place on the bridge, as users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The network's id, 64 hex digits.
    pub network_id: String,
    /// 64 hex digits.
    pub endpoint_id: String,
    /// 64 hex digits.
    pub sandbox_id: String,
    /// The container's address.
    pub address: Ipv4Addr,
    /// The length of the network's prefix in bits.
    pub prefix: u8,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// The container's Ethernet address.
    pub mac: Mac,
    /// The ports that are published, in dockerd's order.
    pub ports: Vec<Published>,
}

/// The default bridge network as `network inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// 64 hex digits.
    pub id: String,
    /// The name of the bridge.
    pub bridge: String,
    /// The network's addresses.
    pub subnet: Subnet,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// The largest packet in bytes.
    pub mtu: u32,
    /// Whether containers on it reach each other.
    pub icc: bool,
    /// Whether they reach other networks with the host's address.
    pub masquerade: bool,
    /// The host address that ports are published on when nobody names one.
    pub host_address: Ipv4Addr,
}

/// The networks of one instance. One per data root and process; shared by reference between threads.
#[derive(Debug)]
pub struct Networks {
    config: Config,
    records: Records,
    wired: Mutex<Option<Arc<Wired>>>,
    /// Taken after `wired` and before `route` and `state`.
    firewall: Mutex<Firewall>,
    route: Mutex<Socket>,
    state: Mutex<Endpoints>,
}

/// What stands in the kernel once somebody needed it.
#[derive(Debug)]
struct Wired {
    record: BridgeRecord,
    rules: Rules,
    bridge_index: u32,
    pool: Pool,
}

impl Wired {
    fn place(&self, endpoint: &EndpointRecord) -> Place {
        Place {
            network_id: self.record.id.clone(),
            endpoint_id: endpoint.endpoint_id.clone(),
            sandbox_id: endpoint.sandbox_id.clone(),
            address: endpoint.address,
            prefix: self.record.prefix,
            gateway: self.record.gateway,
            mac: endpoint.mac,
            ports: endpoint.ports.clone(),
        }
    }
}

impl Networks {
    /// Reads the records. Changes nothing, neither on disk nor in the kernel.
    pub fn open(config: Config) -> Result<Networks, NetworkError> {
        let records = Records::new(&config.state_dir);
        let state = Endpoints::new(bridge::dynamic_ports(), records.endpoints()?);
        Ok(Networks {
            firewall: Mutex::new(Firewall::open(config.table_name())?),
            route: Mutex::new(Socket::open(Protocol::Route)?),
            wired: Mutex::new(None),
            state: Mutex::new(state),
            records,
            config,
        })
    }

    /// Brings kernel and records in line with the containers that are alive, once, before anything else.
    ///
    /// Removes what the others left, repairs bridge and packet filter, and holds the published ports again. Does nothing
    /// where nothing of ours is.
    pub fn reconcile(&self, alive: &[&str]) -> Result<(), NetworkError> {
        let gone: Vec<_> = self.state().containers().into_iter().filter(|one| !alive.contains(&one.as_str())).collect();
        for container in gone {
            // Their rules go when the table is replaced below, which the record of the bridge makes certain.
            self.state().forget(&container);
            self.records.remove_endpoint(&container)?;
        }
        let nothing = self.state().is_empty() && self.records.bridge()?.is_none();
        if nothing || lock(&self.wired).is_some() {
            return Ok(());
        }
        self.records.sweep()?;
        let known = self.state().interfaces();
        let links = link::list(&mut lock(&self.route), None)?;
        let ours = |link: &&Link| link.name.starts_with(&self.config.link_prefix());
        let (claimed, unclaimed): (Vec<_>, Vec<_>) =
            links.iter().filter(ours).partition(|link| known.contains(&link.name));
        for link in unclaimed {
            self.remove_link(&link.name)?;
        }
        let bridge = self.wire()?.bridge_index;
        // Somebody removed the bridge.
        let unplugged = claimed.iter().filter(|link| link.master != Some(bridge));
        lock(&self.route).apply(unplugged.map(|link| link::set_master(link.index, bridge)).collect())?;
        self.state().hold_again();
        Ok(())
    }

    /// Sets the bridge up and begins to make sandboxes, so that the first join finds them.
    pub fn prepare(&self) -> Result<(), NetworkError> {
        self.wire().map(|_| ())
    }

    /// The default bridge network. Before anybody has joined, what it is going to be.
    pub fn network(&self) -> Result<Network, NetworkError> {
        let wired = lock(&self.wired).clone();
        let joined = !self.state().is_empty();
        let record = match wired {
            Some(wired) => wired.record.clone(),
            None => {
                let record = bridge::plan(&self.config, self.records.bridge()?, joined, &mut lock(&self.route))?;
                self.records.write_bridge(&record)?;
                record
            }
        };
        Ok(Network {
            subnet: Subnet { address: record.gateway, prefix: record.prefix }.network(),
            id: record.id,
            bridge: self.config.bridge_name(),
            gateway: record.gateway,
            mtu: self.config.mtu(),
            icc: self.config.icc,
            masquerade: self.config.ip_masq,
            host_address: self.config.host_address,
        })
    }

    /// Gives a container its place on the bridge. On an error nothing is left of it.
    pub fn join(&self, request: &EndpointRequest) -> Result<Endpoint, JoinError> {
        let wired = self.wire()?;
        let mut entry = self.plan(request, &wired)?;
        let container = entry.record.container.clone();
        let joined = self.hold_ports(request, &mut entry).and_then(|()| {
            let sandbox = wired.pool.take().map_err(|err| self.bridge_full(err))?;
            entry.record.interface.clone_from(&sandbox.interface);
            entry.record.interface_index = sandbox.interface_index;
            self.apply(&wired, sandbox, &mut entry)
        });
        let endpoint = joined.inspect_err(|_| self.undo(&mut entry))?;
        self.state().insert(container, entry);
        Ok(endpoint)
    }

    /// Takes a container off the bridge; no error if it is not there.
    ///
    /// Its ports, its address and its name are free when this returns, although the veth pair goes only with the last
    /// holder of the namespace.
    pub fn leave(&self, container: &str) -> Result<(), NetworkError> {
        let Some(mut entry) = self.state().remove(container) else { return Ok(()) };
        // What fails is tried again by the next reconcile, for which the record stays.
        let cleaned = self.clean(&mut entry);
        self.state().release(&entry.record);
        cleaned
    }

    /// Where a container is; `None` if it is not on the bridge. After a restart to be asked behind [`Networks::reconcile`].
    pub fn place(&self, container: &str) -> Option<Place> {
        let wired = lock(&self.wired).clone()?;
        let state = self.state();
        Some(wired.place(state.record(container)?))
    }

    /// Ends the making of sandboxes and, where no container is left, removes bridge and packet filter. The last call, and
    /// not while a join is under way.
    pub fn close(&self) -> Result<(), NetworkError> {
        let wired = lock(&self.wired).take();
        // Ends the thread, and with it the last owner of namespaces without a container.
        drop(wired);
        if !self.state().is_empty() || self.records.bridge()?.is_none() {
            return Ok(());
        }
        lock(&self.firewall).remove()?;
        if self.config.bridge.is_none() {
            self.remove_link(&self.config.bridge_name())?;
        }
        self.records.remove_bridge()
    }

    fn state(&self) -> MutexGuard<'_, Endpoints> {
        lock(&self.state)
    }

    /// What stands in the kernel; sets it up for the first who needs it.
    fn wire(&self) -> Result<Arc<Wired>, NetworkError> {
        let mut slot = lock(&self.wired);
        if let Some(wired) = &*slot {
            return Ok(Arc::clone(wired));
        }
        let joined = !self.state().is_empty();
        let mut route = lock(&self.route);
        // Two instances that look for a free network at once would find the same one.
        let choosing = bridge::lock_choice()?;
        let record = bridge::plan(&self.config, self.records.bridge()?, joined, &mut route)?;
        self.records.write_bridge(&record)?;
        let bridge = bridge::ensure(&self.config, &record, &mut route)?;
        drop((route, choosing));
        let rules = Rules::new(&self.config, &record);
        self.state().set_network(Subnet { address: record.gateway, prefix: record.prefix }, self.config.fixed_cidr);
        self.replace_table(&rules)?;
        bridge::open_settings(&self.config)?;
        let filters_bridged = bridge::filters_bridged();
        let pool = Pool::start(Plan {
            bridge_index: bridge.index,
            link_prefix: self.config.link_prefix(),
            mtu: self.config.mtu(),
            hairpin: filters_bridged,
            isolated: !self.config.icc && !filters_bridged,
        })?;
        let wired = Arc::new(Wired { record, rules, bridge_index: bridge.index, pool });
        *slot = Some(Arc::clone(&wired));
        Ok(wired)
    }

    fn replace_table(&self, rules: &Rules) -> Result<(), NetworkError> {
        let mut firewall = lock(&self.firewall);
        let redirections = self.state().redirections();
        Ok(firewall.replace(rules, &redirections)?)
    }

    /// Takes address and ids; the ports follow.
    fn plan(&self, request: &EndpointRequest, wired: &Wired) -> Result<Entry, JoinError> {
        let taken = self.state().take_address(&request.container, request.address);
        let address = match taken {
            None => return Err(JoinError::Joined { name: request.name.clone() }),
            Some(Ok(address)) => address,
            Some(Err(NoAddress::Exhausted)) => {
                return Err(JoinError::AddressesExhausted { network: wired.record.id.clone() });
            }
            Some(Err(NoAddress::Taken)) => return Err(JoinError::AddressTaken),
            Some(Err(NoAddress::Outside)) => {
                return Err(JoinError::AddressOutside { address: request.address.unwrap_or(Ipv4Addr::UNSPECIFIED) });
            }
        };
        Ok(Entry {
            record: EndpointRecord {
                container: request.container.clone(),
                endpoint_id: stdx::id::random_hex::<32>(),
                sandbox_id: stdx::id::random_hex::<32>(),
                address,
                mac: request.mac.unwrap_or_else(bridge::random_mac),
                interface: String::new(),
                interface_index: 0,
                ports: Vec::new(),
            },
            holds: Vec::new(),
        })
    }

    fn hold_ports(&self, request: &EndpointRequest, entry: &mut Entry) -> Result<(), JoinError> {
        for group in ports::groups(&request.ports, self.config.host_address) {
            let held = self.hold_group(&group, entry.record.address).map_err(|source| JoinError::Ports {
                name: request.name.clone(),
                id: entry.record.endpoint_id.clone(),
                source,
            })?;
            entry.record.ports.extend(held.0);
            entry.holds.extend(held.1);
        }
        Ok(())
    }

    /// Takes a port for the group and holds it; from a range another one where other programs have those found.
    fn hold_group(&self, group: &Group, container: Ipv4Addr) -> Result<(Vec<Published>, Vec<Hold>), PortError> {
        let mut attempts = if group.is_exact() { 1 } else { PORT_ATTEMPTS };
        loop {
            let port = self.state().ports.take(group)?;
            let published: Vec<_> = group.published(port).collect();
            let mut holds = Vec::new();
            let failed = published.iter().find_map(|one| match hold(one) {
                Ok(held) => {
                    holds.extend(held);
                    None
                }
                Err(errno) => Some((*one, errno)),
            });
            let Some((tried, errno)) = failed else { return Ok((published, holds)) };
            holds.into_iter().for_each(Hold::release);
            published.iter().for_each(|one| self.state().ports.release(one));
            attempts -= 1;
            if attempts == 0 {
                return Err(bind_error(group, tried, group.text(tried.host_address, container), errno));
            }
        }
    }

    /// Records the endpoint, then makes it true in the kernel.
    fn apply(&self, wired: &Wired, mut sandbox: Sandbox, entry: &mut Entry) -> Result<Endpoint, JoinError> {
        let record = &entry.record;
        self.records.write_endpoint(record)?;
        let inner =
            address::Address { index: sandbox.inner_index, address: record.address, prefix: wired.record.prefix };
        // The Ethernet address last: the kernel announces the IPv4 address when it changes.
        let inside = vec![
            address::add(inner),
            route::set_default(wired.record.gateway),
            link::set_mac(sandbox.inner_index, record.mac),
        ];
        sandbox.socket.apply(inside).map_err(NetworkError::from)?;
        let known = neighbour::set(wired.bridge_index, record.address, record.mac);
        lock(&self.route).apply(vec![known]).map_err(NetworkError::from)?;
        self.publish(wired, entry)?;
        for held in &entry.holds {
            if let Err(errno) = held.seal() {
                // Another program listens on the very address; it loses to the redirection, as with dockerd.
                tracing::warn!(%errno, container = entry.record.container, "a published port is another program's too");
            }
        }
        let record = &entry.record;
        let shared = entry.holds.iter().filter_map(|held| {
            // Without descriptors to spare the port is held as long as this process lives.
            held.share().inspect_err(|err| tracing::warn!(%err, "the hold of a port is not shared")).ok()
        });
        let holds = shared.collect();
        Ok(Endpoint { namespace: sandbox.namespace, holds, place: wired.place(record) })
    }

    fn publish(&self, wired: &Wired, entry: &Entry) -> Result<(), NetworkError> {
        let redirections = entry.redirections();
        if redirections.is_empty() {
            return Ok(());
        }
        let mut firewall = lock(&self.firewall);
        self.state().published.insert(entry.record.container.clone(), redirections.clone());
        if let Err(err) = firewall.publish(&redirections) {
            // Somebody flushed the packet filter; all of it is due again.
            tracing::warn!(%err, "the packet filter is not what it was and is written anew");
            let all = self.state().redirections();
            firewall.replace(&wired.rules, &all)?;
        }
        forget(&mut firewall, &redirections, &self.route)
    }

    fn undo(&self, entry: &mut Entry) {
        if let Err(err) = self.clean(entry) {
            // The error of the join is the one that matters; the record stays, so that reconcile tries again.
            tracing::warn!(%err, container = entry.record.container, "an endpoint could not be undone");
        }
        self.state().release(&entry.record);
    }

    /// Takes the endpoint out of the kernel, then its record.
    fn clean(&self, entry: &mut Entry) -> Result<(), NetworkError> {
        // Before the rules: a connection that finds our socket instead of the container would wait for ever.
        entry.holds.drain(..).for_each(Hold::release);
        self.withdraw(&entry.record.container)?;
        if entry.record.interface_index != 0 {
            let port = link::disable_port(&entry.record.interface, entry.record.interface_index);
            match lock(&self.route).apply(vec![port]) {
                // Gone with its namespace, the normal case after a container's end; or no port of a bridge any more.
                Err(err) if matches!(err.errno(), Some(Errno::NODEV | Errno::OPNOTSUPP | Errno::INVAL)) => {}
                disabled => disabled?,
            }
        }
        self.records.remove_endpoint(&entry.record.container)
    }

    fn withdraw(&self, container: &str) -> Result<(), NetworkError> {
        let wired = lock(&self.wired).clone();
        let mut firewall = lock(&self.firewall);
        let Some(redirections) = self.state().published.remove(container) else { return Ok(()) };
        match firewall.withdraw(&redirections) {
            Err(err) if err.errno() == Some(Errno::NOENT) => {
                // Somebody flushed the packet filter. If this process has the network, what is due is written anew.
                if let Some(wired) = wired {
                    let all = self.state().redirections();
                    firewall.replace(&wired.rules, &all)?;
                }
            }
            withdrawn => withdrawn?,
        }
        forget(&mut firewall, &redirections, &self.route)
    }

    fn remove_link(&self, name: &str) -> Result<(), NetworkError> {
        match lock(&self.route).apply(vec![link::delete(name)]) {
            Err(err) if err.errno() == Some(Errno::NODEV) => Ok(()),
            removed => Ok(removed?),
        }
    }

    fn bridge_full(&self, err: NetworkError) -> JoinError {
        match err {
            NetworkError::Netlink(err) if err.errno() == Some(Errno::XFULL) => {
                JoinError::BridgeFull { bridge: self.config.bridge_name() }
            }
            err => JoinError::Network(err),
        }
    }
}

/// Forgets UDP connections, if UDP is concerned at all.
fn forget(firewall: &mut Firewall, redirections: &[Redirection], route: &Mutex<Socket>) -> Result<(), NetworkError> {
    if redirections.iter().any(|(published, _)| published.protocol == ports::Protocol::Udp) {
        let local: Vec<_> = address::list(&mut lock(route))?.into_iter().map(|address| address.address).collect();
        firewall.forget(redirections, &local)?;
    }
    Ok(())
}

fn bind_error(group: &Group, tried: Published, binding: String, errno: Errno) -> PortError {
    let source = SystemReason(errno.into());
    // dockerd counts "any port" as exact here: both ends of the range are 0.
    if group.host_ports.0 == group.host_ports.1 {
        PortError::Bind { binding, tried, source }
    } else {
        PortError::BindInRange { port: tried.host_port, binding, tried, source }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks hold is whole at every moment, also when a holder panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
