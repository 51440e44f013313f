//! The networks of one instance: what stands in the kernel, and who is where.

mod changes;
mod egress;
mod endpoints;
mod exposure;
mod healing;
mod join;
mod links;
mod ports;
mod relaying;
mod republish;
mod users;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use netlink::link::{self, Link, Mac};
use netlink::{Protocol, Socket};
use rustix::io::Errno;

use crate::addresses::Addresses;
use crate::bridge;
use crate::config::Config;
use crate::driver::DriverKind;
use crate::egress::EgressPolicy;
use crate::error::NetworkError;
use crate::firewall::{BridgeRules, Firewall, Rules};
use crate::firewalld::Firewalld;
use crate::later::LaterOwner;
use crate::options::GatewayMode;
use crate::parent::{Lent, ParentDriver};
use crate::ports::{PortRequest, Protocol as Transport, Published};
use crate::record::{BridgeRecord, EndpointRecord, Forwarding, Records, SandboxRecord};
use crate::relays::{Expected, Relays};
use crate::sandbox::{Plan, Pool, Room};
use crate::subnet::Subnet;
pub use egress::{Denial, Denials, EgressGate, egress_gate, open_egress};
use endpoints::Endpoints;
pub use exposure::{PortAccess, host_addresses, port_accesses};
pub use healing::{Healer, firewalld_state, foreign_chains, legacy_chains};
pub use links::set_links;
pub use relaying::{relay_end, replace_relay, start_relays_by};
pub use republish::{PortChange, keep_ports, republish};
use users::Users;

/// The name of the default bridge's network, by which it is told from networks that users made: those go by their ids.
pub const DEFAULT: &str = "bridge";

/// What a container wants of its networks.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The container's id.
    pub container: String,
    /// The name of its endpoints in messages: the container's name.
    pub name: String,
    /// Ports to publish, on the network that has the gateway.
    pub ports: Vec<PortRequest>,
    /// The networks, in the order of its interfaces.
    pub endpoints: Vec<EndpointRequest>,
    /// What it may begin connections to, beside what its networks' own policies say.
    pub egress: Option<EgressPolicy>,
    /// The ports that are open to who links to it on the default bridge, where neighbours do not reach each other.
    pub exposed: Vec<(Transport, u16)>,
    /// The ids of the containers that it links to there.
    pub links: Vec<String>,
}

/// What a container wants of one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointRequest {
    /// [`DEFAULT`], or the id of a user's network.
    pub network: String,
    /// The Ethernet address; a random one if none is wanted.
    pub mac: Option<Mac>,
    /// The IPv4 address; the lowest free one if none is wanted.
    pub ipv4: Option<Ipv4Addr>,
    /// Likewise of IPv6, where the network has such addresses.
    pub ipv6: Option<Ipv6Addr>,
    /// More addresses of the interface, which are nobody's to give.
    pub link_local: Vec<IpAddr>,
    /// The interface's name in the container; the next number if none is wanted.
    pub interface: Option<String>,
    /// Settings of the kernel's for the interface: `net.ipv4.conf.IFNAME.forwarding=1`.
    pub sysctls: Vec<String>,
    /// Of all networks the one of the highest priority has the gateway.
    pub gateway_priority: i64,
}

impl EndpointRequest {
    /// Nothing in particular.
    pub fn on(network: impl Into<String>) -> EndpointRequest {
        EndpointRequest { network: network.into(), ..EndpointRequest::default() }
    }
}

/// A container that has joined its networks.
#[derive(Debug)]
pub struct Joined {
    /// The container's network namespace, complete. Whoever holds it keeps it alive; this crate no longer does.
    pub namespace: OwnedFd,
    /// Sockets that keep the published ports from other programs. Whoever holds them does so also when this process has
    /// died. [`Networks::leave`] frees TCP ports all the same, and others when they are closed.
    pub holds: Vec<OwnedFd>,
    /// What users see of it.
    pub place: Place,
}

/// Where a container is, as users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// 64 hex digits.
    pub sandbox_id: String,
    /// The ports that are published, in dockerd's order.
    pub ports: Vec<Published>,
    /// Whether there is a network on which ports could be published, and those are to be shown that are not.
    pub exposes: bool,
    /// Its endpoints, in the order of its interfaces.
    pub endpoints: Vec<Endpoint>,
}

/// An address on a network, and what goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress<A> {
    /// The container's address.
    pub address: A,
    /// The length of the network's prefix in bits.
    pub prefix: u8,
    /// The bridge's address, or that of whoever leads outward; none where nobody does.
    pub gateway: Option<A>,
}

/// A container's place on one network, as users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// [`DEFAULT`], or the id of a user's network.
    pub network: String,
    /// The network's id, 64 hex digits.
    pub network_id: String,
    /// 64 hex digits.
    pub endpoint_id: String,
    /// Its address of IPv4, if the network has such addresses.
    pub ipv4: Option<InterfaceAddress<Ipv4Addr>>,
    /// Its address of IPv6, if the network has such addresses.
    pub ipv6: Option<InterfaceAddress<Ipv6Addr>>,
    /// Whether the network leads nowhere, so that nobody uses its gateway.
    pub internal: bool,
    /// What it is connected by.
    pub driver: DriverKind,
    /// The container's Ethernet address, unless it is that of a link which others have, too.
    pub mac: Option<Mac>,
}

impl Place {
    /// Its endpoint on a network.
    pub fn on(&self, network: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.network == network)
    }
}

impl Endpoint {
    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let ipv4 = self.ipv4.map(|own| IpAddr::V4(own.address));
        ipv4.into_iter().chain(self.ipv6.map(|own| IpAddr::V6(own.address)))
    }
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
    /// Where its containers send what leaves it.
    pub gateway: IpAddr,
    /// The bridge's address.
    pub bridge_address: IpAddr,
    /// The network of IPv6 and the bridge's address in it, if it has such addresses.
    pub of_ipv6: Option<(Subnet, IpAddr)>,
    /// The parts of the networks that containers get addresses from, where somebody named them.
    pub parts: Vec<Subnet>,
    /// Where containers send what leaves the network, where somebody named that.
    pub default_gateways: Vec<IpAddr>,
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
    users: Users,
    wired: Mutex<Option<Arc<Wired>>>,
    /// What somebody has been shown of the default bridge who did not need it: that is so when it is made. Taken with `route`.
    planned: Mutex<Option<BridgeRecord>>,
    /// Taken after `wired` and before `route` and `state`.
    firewall: Mutex<Firewall>,
    /// Has a lock of its own, and takes no other one.
    firewalld: Firewalld,
    /// Held while the relay is asked, for seconds where it does not answer: only by who has a port of its. Neither with `firewall` nor
    /// with `state`, which is taken after it.
    relays: Mutex<Relays>,
    /// The ports that are its, and whether there can be one: to be known without it.
    relayed: Expected,
    relays_are_possible: AtomicBool,
    route: Mutex<Socket>,
    state: Mutex<Endpoints>,
    /// Has a lock of its own, and takes no other one.
    later: LaterOwner,
    /// Whether this machine has IPv6 at all, once somebody asked.
    ipv6: OnceLock<bool>,
    /// As in its record. Taken last.
    guarded: Mutex<Forwarding>,
}

/// What stands in the kernel once somebody needed it.
#[derive(Debug)]
struct Wired {
    record: BridgeRecord,
    bridge_index: u32,
    /// Whether frames that stay on a bridge pass the packet filter.
    filters_bridged: bool,
    /// Likewise that of IPv6.
    filters_bridged_of_ipv6: bool,
    pool: Pool,
}

/// What an endpoint needs to know of its network.
#[derive(Clone, Debug)]
struct Lan {
    name: String,
    /// 64 hex digits.
    id: String,
    /// Its addresses of each family that it has.
    ranges: Vec<LanRange>,
    /// It leads nowhere.
    internal: bool,
    interface_prefix: String,
    /// How its containers and everybody else reach each other, by IPv4 and by IPv6.
    modes: [GatewayMode; 2],
    footing: Footing,
}

/// The addresses of one family of a network.
#[derive(Clone, Copy, Debug)]
struct LanRange {
    subnet: Subnet,
    /// Where packets go that have no route of their own.
    gateway: Option<IpAddr>,
}

/// What of this machine the interfaces of a network's containers stand on.
#[derive(Clone, Debug)]
enum Footing {
    Bridge(BridgeFooting),
    Parent(ParentDriver),
}

/// A bridge: each interface is one end of a veth pair, whose other end is a port.
#[derive(Clone, Debug)]
struct BridgeFooting {
    bridge: String,
    index: u32,
    mtu: u32,
    icc: bool,
}

impl Footing {
    fn kind(&self) -> DriverKind {
        match self {
            Footing::Bridge(_) => DriverKind::Bridge,
            Footing::Parent(parent) => parent.kind(),
        }
    }

    /// Whether interfaces have Ethernet addresses of their own.
    fn has_macs(&self) -> bool {
        match self {
            Footing::Bridge(_) => true,
            Footing::Parent(parent) => parent.has_macs(),
        }
    }

    fn bridge(&self) -> Option<&BridgeFooting> {
        match self {
            Footing::Bridge(footing) => Some(footing),
            Footing::Parent(_) => None,
        }
    }
}

impl Lan {
    fn has_ipv6(&self) -> bool {
        self.ranges.iter().any(|range| range.subnet.address.is_ipv6())
    }

    /// Whether packets are led by their addresses alone, without a gateway.
    fn is_routed(&self) -> bool {
        matches!(&self.footing, Footing::Parent(parent) if parent.is_routed())
    }

    /// The range that an address is of.
    fn range(&self, address: IpAddr) -> Option<LanRange> {
        let of_family = |range: &LanRange| range.subnet.address.is_ipv4() == address.is_ipv4();
        let ranges = || self.ranges.iter().copied();
        ranges().find(|range| range.subnet.contains(address)).or_else(|| ranges().find(of_family))
    }

    fn ipv4(&self, address: Ipv4Addr) -> Option<InterfaceAddress<Ipv4Addr>> {
        let LanRange { subnet, gateway } = self.range(address.into())?;
        let gateway = gateway.and_then(|gateway| if let IpAddr::V4(gateway) = gateway { Some(gateway) } else { None });
        Some(InterfaceAddress { address, prefix: subnet.prefix, gateway })
    }

    fn ipv6(&self, address: Ipv6Addr) -> Option<InterfaceAddress<Ipv6Addr>> {
        let LanRange { subnet, gateway } = self.range(address.into())?;
        let gateway = gateway.and_then(|gateway| if let IpAddr::V6(gateway) = gateway { Some(gateway) } else { None });
        Some(InterfaceAddress { address, prefix: subnet.prefix, gateway })
    }

    /// An address of it, with the length of its prefix.
    fn own(&self, address: IpAddr) -> Option<Subnet> {
        Some(Subnet { address, prefix: self.range(address)?.subnet.prefix })
    }
}

impl Wired {
    /// Whether no frame that stays on a bridge goes past the packet filter.
    fn filters_all_bridged(&self, lan: &Lan) -> bool {
        self.filters_bridged && (self.filters_bridged_of_ipv6 || !lan.has_ipv6())
    }
}

impl Networks {
    /// Reads the records. Changes nothing, neither on disk nor in the kernel.
    pub fn open(config: Config) -> Result<Networks, NetworkError> {
        let records = Records::new(&config.state_dir);
        let later = LaterOwner::default();
        let state = Endpoints::new(bridge::dynamic_ports(), records.endpoints()?, later.0.clone());
        let mut route = Socket::open(Protocol::Route)?;
        let config = bridge::heed(config, &mut route)?;
        let relays = Relays::new(config.state_dir.join("relay"))
            .map_err(|source| NetworkError::Relay { source: source.into() })?;
        Ok(Networks {
            firewall: Mutex::new(Firewall::open(config.table_name(), config.host_firewall)?),
            firewalld: Firewalld::new(config.system_bus.clone().filter(|_| !config.host_firewall)),
            route: Mutex::new(route),
            relayed: relays.expected(),
            relays_are_possible: AtomicBool::new(false),
            relays: Mutex::new(relays),
            users: Users::open(config.data_dir.join("networks.redb"))?,
            wired: Mutex::new(None),
            planned: Mutex::new(None),
            state: Mutex::new(state),
            later,
            ipv6: OnceLock::new(),
            guarded: Mutex::new(records.guarded()?),
            records,
            config,
        })
    }

    /// Brings kernel and records in line with the containers that are alive, once, before anything else.
    ///
    /// Removes what the others left, makes the bridges of users' networks again, repairs bridge and packet filter, and
    /// holds the published ports again. Does nothing where nothing of ours is.
    pub fn reconcile(&self, alive: &[&str]) -> Result<(), NetworkError> {
        let gone: Vec<_> = self.state().containers().into_iter().filter(|one| !alive.contains(&one.as_str())).collect();
        let lent = self.state().lent(&gone);
        // Their rules go when the table is replaced below, which the record of the bridge makes certain.
        gone.iter().for_each(|container| self.state().forget(container));
        // Where what follows fails the relay is settled with the next port.
        relaying::expect(self);
        lent.iter().for_each(|lent| take_back(self, lent));
        for container in gone {
            self.records.remove_endpoint(&container)?;
        }
        let nothing = self.state().is_empty() && self.records.bridge()?.is_none() && self.users.is_empty();
        if nothing {
            // Whose ports a relay serves may have gone with all else.
            relaying::settle(self);
        }
        if lock(&self.wired).is_some() {
            return Ok(());
        }
        if nothing {
            return guard_alone(self);
        }
        self.records.sweep()?;
        let known = self.state().interfaces();
        let links = link::list(&mut lock(&self.route), None)?;
        let ours = |link: &&Link| link.name.starts_with(&self.config.link_prefix());
        let (claimed, unclaimed): (Vec<_>, Vec<_>) =
            links.iter().filter(ours).partition(|link| known.contains_key(&link.name));
        for link in unclaimed {
            remove_link(self, &link.name)?;
        }
        let default = self.wire()?.bridge_index;
        let bridge_of = |link: &Link| match known.get(&link.name)?.as_str() {
            DEFAULT => Some(default),
            network => self.users.bridge_index(network),
        };
        // Somebody removed the bridge.
        let unplugged = claimed.iter().filter_map(|link| {
            let bridge = bridge_of(link)?;
            (link.master != Some(bridge)).then(|| link::set_master(link.index, bridge))
        });
        let unplugged = unplugged.collect();
        lock(&self.route).apply(unplugged)?;
        self.state().hold_again();
        relaying::settle(self);
        Ok(())
    }

    /// Sets the bridge up and begins to make sandboxes, so that the first join finds them.
    pub fn prepare(&self) -> Result<(), NetworkError> {
        self.wire().map(|_| ())
    }

    /// The default bridge network. Before anybody has joined, what it is going to be: nothing is made or written for that.
    pub fn network(&self) -> Result<Network, NetworkError> {
        let wired = lock(&self.wired).clone();
        let record = match wired {
            Some(wired) => wired.record.clone(),
            None => self.plan_default(&mut lock(&self.route))?,
        };
        let bridge = Subnet::new(record.gateway, record.prefix);
        Ok(Network {
            subnet: bridge.network(),
            bridge_address: bridge.address,
            gateway: self.config.default_gateway(bridge),
            of_ipv6: record.of_ipv6.map(|bridge| (bridge.network(), bridge.address)),
            parts: [self.config.fixed_cidr, self.config.fixed_cidr_v6]
                .into_iter()
                .flatten()
                .map(Subnet::network)
                .collect(),
            default_gateways: self.config.default_gateways.clone(),
            id: record.id,
            bridge: self.config.bridge_name(),
            mtu: self.config.mtu(),
            icc: self.config.icc,
            masquerade: self.config.ip_masq,
            host_address: self.config.host_address,
        })
    }

    /// Where a container is; `None` if it is on no network. After a restart to be asked behind [`Networks::reconcile`].
    pub fn place(&self, container: &str) -> Option<Place> {
        let record = self.state().record(container)?.clone();
        Some(self.place_of(&record))
    }

    /// Ends the making of sandboxes and, where no container is left, removes bridges and packet filter. Where we have switched
    /// forwarding on the guard stays: whoever began to forward since then, as we do not know, would have none if we switched it off.
    /// The last call, and not while a join is under way.
    pub fn close(&self) -> Result<(), NetworkError> {
        let wired = lock(&self.wired).take();
        // Ends the thread, and with it the last owner of namespaces without a container.
        drop(wired);
        if !self.state().is_empty() || self.records.bridge()?.is_none() {
            self.firewalld.stop();
            return Ok(());
        }
        self.firewalld.want([]);
        self.firewalld.settle();
        self.firewalld.stop();
        lock(&self.firewall).remove(*lock(&self.guarded))?;
        if self.config.bridge.is_none() {
            remove_link(self, &self.config.bridge_name())?;
        }
        for network in self.users.take_down() {
            remove_link(self, &network)?;
        }
        self.records.remove_bridge()
    }

    fn state(&self) -> MutexGuard<'_, Endpoints> {
        lock(&self.state)
    }

    /// What the default bridge is going to be; written by who makes it so.
    fn plan_default(&self, route: &mut Socket) -> Result<BridgeRecord, NetworkError> {
        let joined = self.state().records().any(|record| record.on(DEFAULT).is_some());
        let mut planned = lock(&self.planned);
        let known = self.records.bridge()?.or_else(|| planned.clone());
        let record = bridge::plan(&self.config, known, joined, &self.users.subnets(), route)?;
        *planned = Some(record.clone());
        Ok(record)
    }

    /// Where a family is about to be forwarded for the first time, nothing but ours shall be; nor where a guard is `standing`, whose
    /// record may be lost. Before the table is written.
    fn guard(&self, default: &BridgeRecord, standing: Forwarding) -> Result<(), NetworkError> {
        let mut guarded = lock(&self.guarded);
        let forwards_ipv6 = have_ipv6(self, default);
        let wanted = Forwarding {
            ipv4: guarded.ipv4 || standing.ipv4 || bridge::needs_forwarding(&self.config)?,
            ipv6: guarded.ipv6 || standing.ipv6 || forwards_ipv6 && bridge::needs_forwarding_of_ipv6(&self.config)?,
        };
        if wanted != *guarded {
            self.records.write_guarded(wanted)?;
            *guarded = wanted;
        }
        Ok(())
    }

    /// What stands in the kernel; sets it up for the first who needs it.
    fn wire(&self) -> Result<Arc<Wired>, NetworkError> {
        let mut slot = lock(&self.wired);
        if let Some(wired) = &*slot {
            return Ok(Arc::clone(wired));
        }
        // Two instances that look for a free network at once would find the same one.
        let choosing = bridge::lock_choice()?;
        let mut route = lock(&self.route);
        let record = self.plan_default(&mut route)?;
        self.records.write_bridge(&record)?;
        let bridge = bridge::ensure(&self.config, &record, &mut route)?;
        self.users.set_up(&mut route);
        drop((route, choosing));
        self.state().set_network(
            DEFAULT,
            record.gateways().into_iter().map(|bridge| addresses(&self.config, bridge)).collect(),
        );
        for network in self.users.all() {
            self.state().set_network(&network.id, network.addresses());
        }
        let standing = lock(&self.firewall).guarded()?;
        self.guard(&record, standing)?;
        self.replace_table(&record)?;
        bridge::open_settings(&self.config)?;
        if have_ipv6(self, &record) {
            bridge::open_settings_of_ipv6(&self.config)?;
        }
        let filters_bridged = bridge::filters_bridged();
        let pool = Pool::start(Plan {
            bridge_index: bridge.index,
            link_prefix: self.config.link_prefix(),
            mtu: self.config.mtu(),
            ipv6: record.of_ipv6.is_some(),
            hairpin: filters_bridged,
            isolated: !self.config.icc && !filters_bridged,
        })?;
        let wired = Arc::new(Wired {
            record,
            bridge_index: bridge.index,
            filters_bridged,
            filters_bridged_of_ipv6: bridge::filters_bridged_of_ipv6(),
            pool,
        });
        egress::restore(self, &wired)?;
        *slot = Some(Arc::clone(&wired));
        Ok(wired)
    }

    /// Writes all rules and elements anew, in one transaction.
    fn replace_table(&self, default: &BridgeRecord) -> Result<(), NetworkError> {
        let mut firewall = lock(&self.firewall);
        let rules = self.rules(default);
        let redirections = self.state().redirections();
        firewall.replace(&rules, &redirections)?;
        self.firewalld.want(rules.bridges.into_iter().map(|one| one.bridge));
        Ok(())
    }

    fn rules(&self, default: &BridgeRecord) -> Rules {
        let users = self.users.all().into_iter().filter_map(|network| BridgeRules::of(&network));
        Rules {
            bridges: std::iter::once(BridgeRules::new(&self.config, default)).chain(users).collect(),
            links: links::open(self),
            refuses_loopback: !relaying::leads_from_loopback(self),
            guarded: *lock(&self.guarded),
        }
    }

    /// What an endpoint needs to know of a network.
    fn lan(&self, wired: &Wired, network: &str) -> Option<Lan> {
        if network != DEFAULT {
            return self.users.lan(network);
        }
        let range =
            |bridge: Subnet| LanRange { subnet: bridge.network(), gateway: Some(self.config.default_gateway(bridge)) };
        Some(Lan {
            name: DEFAULT.to_owned(),
            id: wired.record.id.clone(),
            ranges: wired.record.gateways().into_iter().map(range).collect(),
            internal: false,
            interface_prefix: "eth".to_owned(),
            modes: [GatewayMode::Nat; 2],
            footing: Footing::Bridge(BridgeFooting {
                bridge: self.config.bridge_name(),
                index: wired.bridge_index,
                mtu: self.config.mtu(),
                icc: self.config.icc,
            }),
        })
    }

    fn place_of(&self, record: &SandboxRecord) -> Place {
        let wired = lock(&self.wired).clone();
        let endpoint = |endpoint: &EndpointRecord| {
            let lan = self.lan(wired.as_deref()?, &endpoint.network)?;
            Some(Endpoint {
                network: endpoint.network.clone(),
                network_id: lan.id.clone(),
                endpoint_id: endpoint.endpoint_id.clone(),
                ipv4: endpoint.ipv4.and_then(|address| lan.ipv4(address)),
                ipv6: endpoint.ipv6.and_then(|address| lan.ipv6(address)),
                internal: lan.internal,
                driver: lan.footing.kind(),
                mac: endpoint.mac,
            })
        };
        Place {
            sandbox_id: record.sandbox_id.clone(),
            ports: record.ports.clone(),
            exposes: record.exposes(),
            endpoints: record.endpoints.iter().filter_map(endpoint).collect(),
        }
    }
}

/// Says where a container lives that joined its networks when an earlier daemon was there, if that is of any use.
pub fn enter(networks: &Networks, container: &str, namespace: BorrowedFd<'_>) -> Result<(), NetworkError> {
    if networks.state().record(container).is_some_and(SandboxRecord::has_inside) {
        let room = Room::of(namespace)?;
        networks.state().enter(container, room.socket);
    }
    Ok(())
}

/// Guards what an earlier daemon has switched on, while nothing else is needed.
fn guard_alone(networks: &Networks) -> Result<(), NetworkError> {
    let mut firewall = lock(&networks.firewall);
    let guarded = *lock(&networks.guarded);
    Ok(firewall.guard_alone(guarded)?)
}

/// What a container had of this machine's comes back with the end of its namespace, if it is hardware.
fn take_back(networks: &Networks, lent: &Lent) {
    if let Err(err) = lent.restore(&mut lock(&networks.route)) {
        tracing::warn!(err = errdefs::chain(&err), link = lent.name, "a link does not have its addresses again");
    }
}

fn have_ipv6(networks: &Networks, default: &BridgeRecord) -> bool {
    default.of_ipv6.is_some() || networks.users.have_ipv6()
}

/// The addresses of a network of the default bridge, to be given out.
fn addresses(config: &Config, bridge: Subnet) -> Addresses {
    let range = if bridge.address.is_ipv4() { config.fixed_cidr } else { config.fixed_cidr_v6 };
    let mut addresses = Addresses::new(bridge, range, Some(bridge.address));
    // Where it is the bridge's it is not given out anyway.
    let _ = addresses.set_aside(config.default_gateway(bridge));
    addresses
}

fn remove_link(networks: &Networks, name: &str) -> Result<(), NetworkError> {
    match lock(&networks.route).apply(vec![link::delete(name)]) {
        Err(err) if err.errno() == Some(Errno::NODEV) => Ok(()),
        removed => Ok(removed?),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks hold is whole at every moment, also when a holder panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
