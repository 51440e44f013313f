//! Networks that users made: making and removing them, and which are there.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use netlink::{Socket, link};

use super::{BridgeFooting, DEFAULT, Footing, Lan, LanRange, Networks, lock};
use crate::bridge;
use crate::driver::{Driver, DriverKind};
use crate::egress::EgressPolicy;
use crate::error::{CreateError, NetworkError, RemoveError};
use crate::parent::{ParentDriver, ParentError};
use crate::record::Forwarding;
use crate::store::Store;
use crate::subnet::{self, Subnet};
use crate::template;
use crate::user::{AddressRange, Surroundings, UserNetwork, UserNetworkRequest};

/// The networks that users made, by id.
#[derive(Debug)]
pub(super) struct Users {
    /// Taken before all other locks, by whoever makes or removes a network.
    changing: Mutex<Store>,
    /// Held over field access only.
    networks: Mutex<BTreeMap<String, User>>,
}

#[derive(Clone, Debug)]
struct User {
    network: Arc<UserNetwork>,
    /// The bridge's number; none where it could not be made.
    bridge_index: Option<u32>,
}

impl Users {
    pub(super) fn open(path: PathBuf) -> Result<Users, NetworkError> {
        let store = Store::new(path);
        let user = |network: UserNetwork| (network.id.clone(), User { network: Arc::new(network), bridge_index: None });
        let networks = store.load()?.into_iter().map(user).collect();
        Ok(Users { changing: Mutex::new(store), networks: Mutex::new(networks) })
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.networks).is_empty()
    }

    /// In the order of their making.
    pub(super) fn all(&self) -> Vec<Arc<UserNetwork>> {
        let mut all: Vec<_> = lock(&self.networks).values().map(|user| Arc::clone(&user.network)).collect();
        all.sort_by_key(|network| network.created_at_nanos);
        all
    }

    /// Their subnets, each with its network's name.
    pub(super) fn subnets(&self) -> Vec<(String, Subnet)> {
        self.all().iter().flat_map(|network| named(network)).collect()
    }

    /// Whether rules are about addresses of IPv6.
    pub(super) fn have_ipv6(&self) -> bool {
        lock(&self.networks).values().any(|user| user.network.ipv6.is_some() && user.network.driver.bridge().is_some())
    }

    pub(super) fn bridge_index(&self, id: &str) -> Option<u32> {
        lock(&self.networks).get(id)?.bridge_index
    }

    /// Whether it is a configuration for others, on which nobody can be.
    pub(super) fn is_template(&self, id: &str) -> bool {
        lock(&self.networks).get(id).is_some_and(|user| user.network.template().is_some())
    }

    /// The host address that ports are published on when nobody names one, if the network has one of its own.
    pub(super) fn host_address(&self, id: &str) -> Option<Ipv4Addr> {
        lock(&self.networks).get(id)?.network.driver.bridge()?.host_address
    }

    /// The policy that all its containers have.
    pub(super) fn egress(&self, id: &str) -> Option<EgressPolicy> {
        let network = Arc::clone(&lock(&self.networks).get(id)?.network);
        network.egress()
    }

    /// None where there is no such network or its bridge could not be made.
    pub(super) fn lan(&self, id: &str) -> Option<Lan> {
        let User { network, bridge_index } = lock(&self.networks).get(id)?.clone();
        let footing = match &network.driver {
            Driver::Bridge(driver) => Footing::Bridge(BridgeFooting {
                bridge: driver.bridge.clone(),
                index: bridge_index?,
                mtu: driver.mtu,
                icc: driver.icc,
            }),
            // It is looked for when somebody stands on it: it may come and go.
            Driver::Parent(driver) => Footing::Parent(driver.clone()),
            Driver::Template(_) => return None,
        };
        // Where packets are led by their addresses, one that somebody named is shown, and asked for nothing.
        let routed = network.driver.parent().is_some_and(ParentDriver::is_routed);
        let range = |one: &AddressRange| LanRange { subnet: one.subnet, gateway: one.gateway.filter(|_| !routed) };
        Some(Lan {
            name: network.name.clone(),
            id: network.id.clone(),
            ranges: network.ranges().map(range).collect(),
            internal: network.leads_nowhere(),
            interface_prefix: network.driver.interface_prefix().to_owned(),
            modes: network.gateway_modes(),
            footing,
        })
    }

    /// Makes their bridges. One that cannot be made keeps its network from being joined, and nothing else.
    pub(super) fn set_up(&self, route: &mut Socket) {
        for network in self.all() {
            match make(&network, route) {
                Ok(index) => self.insert(network, index),
                Err(err) => {
                    tracing::warn!(network = network.name, err = errdefs::chain(&err), "a network cannot be set up");
                }
            }
        }
    }

    /// The links that are to go, as far as they are ours: they come back with the next daemon.
    pub(super) fn take_down(&self) -> Vec<String> {
        let mut networks = lock(&self.networks);
        let mut links = Vec::new();
        for user in networks.values_mut() {
            let was_there = user.bridge_index.take().is_some() || user.network.driver.parent().is_some();
            links.extend(user.network.driver.own_link().filter(|_| was_there).map(str::to_owned));
        }
        links
    }

    fn insert(&self, network: Arc<UserNetwork>, bridge_index: Option<u32>) {
        lock(&self.networks).insert(network.id.clone(), User { network, bridge_index });
    }
}

impl Networks {
    /// The networks that users made, in the order of their making.
    pub fn user_networks(&self) -> Vec<Arc<UserNetwork>> {
        self.users.all()
    }

    /// Makes a network: its record, its bridge, its rules. On an error nothing is left of it.
    pub fn create(&self, request: UserNetworkRequest) -> Result<Arc<UserNetwork>, CreateError> {
        let store = lock(&self.users.changing);
        let others = self.users.all();
        if request.name == DEFAULT || others.iter().any(|network| network.name == request.name) {
            return Err(CreateError::Exists(request.name));
        }
        let wired = self.wire()?;
        // Not while anybody waits for the route socket: another daemon may hold it for long.
        let choosing = bridge::lock_choice()?;
        let mut route = lock(&self.route);
        let mut network = plan(self, request, &wired.record, &others, &mut route)?;
        claim(&mut network.driver, &others, &mut route)?;
        let network = Arc::new(network);
        store.put(&network)?;
        let made = make(&network, &mut route);
        drop((route, choosing));
        let made = made.and_then(|index| {
            self.users.insert(Arc::clone(&network), index);
            self.state().set_network(&network.id, network.addresses());
            self.guard(&wired.record, Forwarding::default())?;
            self.replace_table(&wired.record)?;
            // The table guards what this lets through.
            if self.users.have_ipv6() { bridge::open_settings_of_ipv6(&self.config) } else { Ok(()) }
        });
        if let Err(err) = made {
            if let Err(err) = withdraw(self, &store, &network) {
                tracing::warn!(err = errdefs::chain(&err), "a network that could not be made is not gone entirely");
            }
            return Err(err.into());
        }
        drop(store);
        self.firewalld.settle();
        Ok(network)
    }

    /// Removes a network that nobody is on. On an error it is there as before.
    pub fn remove(&self, id: &str) -> Result<(), RemoveError> {
        let store = lock(&self.users.changing);
        super::join::finish_leaving(self);
        let network = self.users.all().into_iter().find(|network| network.id == id);
        let network = network.ok_or_else(|| RemoveError::Missing(id.to_owned()))?;
        let named = |other: &Arc<UserNetwork>| other.config_from.as_deref() == Some(&network.name);
        if network.template().is_some() && self.users.all().iter().any(named) {
            return Err(RemoveError::Configures(network.name.clone()));
        }
        if !self.state().forget_unused(id) {
            return Err(RemoveError::InUse { name: network.name.clone(), endpoints: Vec::new() });
        }
        withdraw(self, &store, &network).inspect_err(|_| self.put_back(&network))?;
        drop(store);
        self.firewalld.settle();
        Ok(())
    }

    /// A network that could not be removed.
    fn put_back(&self, network: &Arc<UserNetwork>) {
        let made = make(network, &mut lock(&self.route));
        let index = made.as_ref().ok().copied().flatten();
        self.users.insert(Arc::clone(network), index);
        self.state().set_network(&network.id, network.addresses());
        let wired = lock(&self.wired).clone();
        let again = wired.map_or(Ok(()), |wired| self.replace_table(&wired.record));
        if let Err(err) = made.map(drop).and(again) {
            tracing::warn!(network = network.name, err = errdefs::chain(&err), "a network is only half there");
        }
    }
}

/// Takes a network out of the kernel, then its record.
fn withdraw(networks: &Networks, store: &Store, network: &UserNetwork) -> Result<(), NetworkError> {
    lock(&networks.users.networks).remove(&network.id);
    networks.state().forget_network(&network.id);
    if let Some(wired) = lock(&networks.wired).clone() {
        networks.replace_table(&wired.record)?;
    }
    let shared = |link: &str| networks.users.all().iter().any(|other| other.driver.own_link() == Some(link));
    if let Some(link) = network.driver.own_link().filter(|link| !shared(link)) {
        super::remove_link(networks, link)?;
    }
    store.remove(&network.id)
}

fn plan(
    networks: &Networks,
    request: UserNetworkRequest,
    default: &crate::record::BridgeRecord,
    others: &[Arc<UserNetwork>],
    route: &mut Socket,
) -> Result<UserNetwork, CreateError> {
    let request = template::configured(request, others)?;
    let of_default = default.gateways().into_iter().map(|bridge| (DEFAULT.to_owned(), bridge.network()));
    let named: Vec<_> = of_default.chain(others.iter().flat_map(|network| named(network))).collect();
    let subnets: Vec<Subnet> = named.iter().map(|(_, subnet)| *subnet).collect();
    let name = networks.config.bridge_name();
    let bridges = others.iter().filter_map(|network| Some((network.driver.bridge()?.bridge.as_str(), &*network.id)));
    let has_addresses = request.driver != DriverKind::Template;
    let needs_ipv4 = has_addresses && !request.without_ipv4 && request.ipv4.subnet.is_none();
    let needs_ipv6 = has_addresses && request.with_ipv6 && request.ipv6.subnet.is_none();
    let mut used = Vec::new();
    if needs_ipv4 || needs_ipv6 {
        used = bridge::used(route)?;
        used.extend(&subnets);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (pools, pools_of_ipv6) = (networks.config.pools(), networks.config.pools_of_ipv6());
    let free = subnet::choose(&pools, &used);
    let around = Surroundings {
        id: stdx::id::random_hex::<32>(),
        now_nanos: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
        free,
        free_ipv6: if needs_ipv6 { subnet::choose(&pools_of_ipv6, &used) } else { None },
        subnets,
        bridges: bridges.chain([(name.as_str(), default.id.as_str())]).collect(),
        parents: others.iter().filter_map(|network| Some((&*network.id, network.driver.parent()?))).collect(),
        mtu: networks.config.mtu(),
    };
    match UserNetwork::plan(request, around) {
        Err(CreateError::Exhausted { .. }) => {
            let exhausted = if needs_ipv4 && free.is_none() { &pools } else { &pools_of_ipv6 };
            Err(CreateError::Exhausted { in_the_way: subnet::obstacle(exhausted, &used, &named) })
        }
        planned => planned,
    }
}

fn named(network: &UserNetwork) -> Vec<(String, Subnet)> {
    network.ranges().map(|range| (network.name.clone(), range.subnet)).collect()
}

/// Notes what of a new network is there already, and stays when the network goes.
fn claim(driver: &mut Driver, others: &[Arc<UserNetwork>], route: &mut Socket) -> Result<(), NetworkError> {
    match driver {
        Driver::Bridge(driver) => driver.adopted = link::by_name(route, &driver.bridge)?.is_some(),
        Driver::Parent(driver) => {
            let made = others.iter().any(|other| other.driver.own_link() == Some(&driver.parent));
            driver.claim(made, route)?;
        }
        Driver::Template(_) => {}
    }
    Ok(())
}

/// Makes what a network has on this machine; answers the number of its bridge.
fn make(network: &UserNetwork, route: &mut Socket) -> Result<Option<u32>, NetworkError> {
    match &network.driver {
        Driver::Bridge(driver) => {
            let made = bridge::make(&driver.bridge, &network.bridge_addresses(), driver.mtu, route)?;
            if network.is_isolated(true) {
                // Whoever knows the bridge's Ethernet address would else reach this machine by its other addresses.
                bridge::shut_to_ipv6(&driver.bridge)?;
            }
            bridge::open_loopback(&driver.bridge)?;
            Ok(Some(made.index))
        }
        Driver::Parent(driver) => match driver.ensure(route) {
            // It may come yet: whoever needs it looks for it again.
            Err(NetworkError::Parent(ParentError::Missing(_))) => Ok(None),
            made => made.map(|_| None),
        },
        Driver::Template(_) => Ok(None),
    }
}
