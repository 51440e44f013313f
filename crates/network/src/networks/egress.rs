//! Policies of containers and networks: who has which, and what that comes to.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink::log::PacketLog;
use rustix::io::Errno;

use super::endpoints::Entry;
use super::{DEFAULT, Networks, Wired, lock};
use crate::egress::{self, EgressError, EgressPolicy, FORGED, Guarded, Packet, TOLD_BYTES};
use crate::error::NetworkError;
use crate::record::{EndpointRecord, SandboxRecord};
use crate::subnet::Subnet;

/// Groups of logged packets from which an instance takes one: its key chooses where it begins to look.
const GROUPS: std::ops::Range<u16> = 0x4c00..0x5000;
/// How many it tries that others have.
const GROUP_ATTEMPTS: u16 = 16;

/// What the name server of a container with a policy goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressGate {
    /// The policies of each of its networks that lead outward.
    outward: Vec<Vec<EgressPolicy>>,
    /// The addresses of its networks.
    near: Vec<Subnet>,
}

impl EgressGate {
    /// Of the policies of each network that leads outward, and the addresses of all networks.
    pub fn new(outward: Vec<Vec<EgressPolicy>>, near: Vec<Subnet>) -> EgressGate {
        EgressGate { outward, near }
    }

    /// Whether a name may be looked up: on one of its networks all policies have to allow it. In small letters.
    pub fn allows_name(&self, name: &str) -> bool {
        self.outward.iter().any(|policies| policies.iter().all(|policy| policy.allows_name(name)))
    }

    /// Whether a container reaches an address without being asked.
    pub fn is_near(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.near.iter().any(|subnet| subnet.contains(address))
    }
}

/// What a container wanted and did not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The container's id.
    pub container: String,
    /// [`DEFAULT`], or the id of a user's network.
    pub network: String,
    /// Where it went to.
    pub destination: IpAddr,
    /// Its port, of protocols that have some.
    pub port: Option<u16>,
    /// Its protocol's name, or number.
    pub protocol: String,
    /// The address that it claimed to have, if that was not its own.
    pub forged: Option<IpAddr>,
}

/// Who hears of what policies deny. Its descriptor is readable when [`Denials::read`] has something.
#[derive(Debug)]
pub struct Denials {
    log: PacketLog,
}

impl Denials {
    /// Begins to listen, in the calling thread's network namespace. Refused where the kernel tells nobody of packets.
    pub fn listen(networks: &Networks) -> Result<Denials, NetworkError> {
        let span = u64::from(GROUPS.end - GROUPS.start);
        let start = u64::from_str_radix(&networks.config.instance_key, 16).unwrap_or(0) % span;
        let mut attempt = 0;
        loop {
            let group = GROUPS.start + ((start + u64::from(attempt)) % span) as u16;
            match PacketLog::bind(group, TOLD_BYTES) {
                // The kernel says so of a group that another socket has.
                Err(err) if matches!(err.errno(), Some(Errno::PERM | Errno::BUSY)) && attempt < GROUP_ATTEMPTS => {
                    attempt += 1;
                }
                bound => {
                    let denials = Denials { log: bound? };
                    lock(&networks.firewall).tell_denials(group)?;
                    return Ok(denials);
                }
            }
        }
    }

    /// What has been denied since, as far as it was told: not more than some of each container in a second. Does not block.
    pub fn read(&mut self, networks: &Networks) -> Result<Vec<Denial>, NetworkError> {
        let mut told: Vec<(Packet, Option<u32>)> = Vec::new();
        self.log.read(|logged| {
            let forged = logged.prefix() == FORGED;
            let packet = Packet::parse(logged.packet).filter(|packet| !packet.is_of_kernel());
            told.extend(packet.map(|packet| (packet, logged.port.filter(|_| forged))));
        })?;
        Ok(told.into_iter().filter_map(|(packet, port)| denial(networks, &packet, port)).collect())
    }
}

impl AsFd for Denials {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.log.as_fd()
    }
}

/// Whose a packet was: of the port that it came by if its source was none of that one's.
fn denial(networks: &Networks, packet: &Packet, port: Option<u32>) -> Option<Denial> {
    let state = networks.state();
    let is_its = |endpoint: &EndpointRecord| match port {
        Some(port) => !endpoint.inside && endpoint.interface_index == port,
        None => own(endpoint).any(|own| own == packet.source),
    };
    let mut all = state.records().flat_map(|record| record.endpoints.iter().map(move |one| (record, one)));
    let (record, endpoint) = all.find(|(_, endpoint)| is_its(endpoint))?;
    Some(Denial {
        container: record.container.clone(),
        network: endpoint.network.clone(),
        destination: packet.destination,
        port: packet.port,
        protocol: packet.protocol_name(),
        forged: port.map(|_| packet.source),
    })
}

/// What the name server of a container goes by; none if no policy concerns it. After a restart to be asked behind
/// [`Networks::reconcile`].
pub fn egress_gate(networks: &Networks, container: &str) -> Option<EgressGate> {
    let record = networks.state().record(container)?.clone();
    let of = |endpoint: &EndpointRecord| policies(networks, &record, endpoint);
    if record.endpoints.iter().all(|endpoint| of(endpoint).is_empty()) {
        return None;
    }
    let wired = lock(&networks.wired).clone();
    let near = |endpoint: &EndpointRecord| {
        let lan = networks.lan(wired.as_deref()?, &endpoint.network)?;
        Some(lan.ranges.iter().map(|range| range.subnet).collect::<Vec<_>>())
    };
    let outward = record.endpoints.iter().filter(|endpoint| !endpoint.internal).map(of).collect();
    Some(EgressGate::new(outward, record.endpoints.iter().filter_map(near).flatten().collect()))
}

/// Opens what a name has led to, at the ports that a container's policies allow it, for as long as each answer says (and a
/// minute at least). To be called before the container sees the answer. Addresses that are not public are passed over. Blocks
/// for tens of microseconds.
pub fn open_egress(
    networks: &Networks,
    container: &str,
    name: &str,
    addresses: &[(IpAddr, Duration)],
) -> Result<(), EgressError> {
    lock(&networks.firewall).open_egress((container, name), addresses)
}

/// Has the policies of a container stand in the packet filter, as it is on networks by its record.
pub(super) fn guard(networks: &Networks, wired: &Wired, entry: &Entry) -> Result<(), EgressError> {
    let guarded = guarded(networks, wired, &entry.record)?;
    Ok(lock(&networks.firewall).set_egress(&entry.record.container, guarded)?)
}

/// Takes the policies of a container out of the packet filter.
pub(super) fn release(networks: &Networks, container: &str) -> Result<(), NetworkError> {
    Ok(lock(&networks.firewall).set_egress(container, Vec::new())?)
}

/// Takes over what an earlier process has left in the packet filter.
pub(super) fn restore(networks: &Networks, wired: &Wired) -> Result<(), NetworkError> {
    let records: Vec<SandboxRecord> = networks.state().records().cloned().collect();
    let mut all = HashMap::new();
    for record in records {
        match guarded(networks, wired, &record) {
            Ok(guarded) if guarded.is_empty() => {}
            Ok(guarded) => _ = all.insert(record.container, guarded),
            // It was good when the container joined.
            Err(err) => tracing::warn!(err = errdefs::chain(&err), container = record.container, "a policy is lost"),
        }
    }
    Ok(lock(&networks.firewall).restore_egress(all)?)
}

/// Refuses a policy with names for who has nobody to look them up.
pub(super) fn check_names(record: &SandboxRecord) -> Result<(), EgressError> {
    let has_names = record.egress.as_ref().is_some_and(EgressPolicy::has_names);
    let on_default_alone = !record.endpoints.is_empty() && record.endpoints.iter().all(|one| one.network == DEFAULT);
    if has_names && on_default_alone { Err(EgressError::NoNames) } else { Ok(()) }
}

/// The policies that count on an endpoint: the container's and the network's.
fn policies(networks: &Networks, record: &SandboxRecord, endpoint: &EndpointRecord) -> Vec<EgressPolicy> {
    let of_network = networks.users.egress(&endpoint.network);
    record.egress.iter().cloned().chain(of_network).filter(EgressPolicy::restricts).collect()
}

fn guarded(networks: &Networks, wired: &Wired, record: &SandboxRecord) -> Result<Vec<Guarded>, EgressError> {
    let mut all = Vec::new();
    for endpoint in &record.endpoints {
        let policies = policies(networks, record, endpoint);
        let Some(lan) = networks.lan(wired, &endpoint.network).filter(|_| !policies.is_empty()) else { continue };
        let Some(footing) = lan.footing.bridge() else {
            return Err(EgressError::NoBridge { network: lan.name, driver: lan.footing.kind() });
        };
        let of_link = lan.has_ipv6().then(|| Subnet::new(Ipv6Addr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0]), 10));
        all.push(Guarded {
            interface: endpoint.interface.clone(),
            bridge: footing.bridge.clone(),
            own: own(endpoint).collect(),
            aside: aside(endpoint),
            near: lan.ranges.iter().map(|range| range.subnet).chain(of_link).collect(),
            openings: egress::openings(&policies),
            policies,
        });
    }
    Ok(all)
}

/// The addresses that an endpoint may send from.
fn own(endpoint: &EndpointRecord) -> impl Iterator<Item = IpAddr> {
    let of_link = endpoint.mac.filter(|_| endpoint.ipv6.is_some()).map(egress::link_local);
    endpoint.addresses().chain(of_link)
}

/// The addresses of the link that somebody gave it, besides.
fn aside(endpoint: &EndpointRecord) -> Vec<IpAddr> {
    let of_family =
        |address: &IpAddr| if address.is_ipv4() { endpoint.ipv4.is_some() } else { endpoint.ipv6.is_some() };
    let is_of_link = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    endpoint.link_local.iter().copied().filter(of_family).filter(is_of_link).collect()
}
