//! Which host port a published port gets. Pure; holding the port is `hold`'s.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::error::PortError;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Number 6.
    Tcp,
    /// Number 17.
    Udp,
    /// Number 132.
    Sctp,
}

impl Protocol {
    /// Its number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// A port to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRequest {
    /// The protocol.
    pub protocol: Protocol,
    /// The container's port.
    pub container_port: u16,
    /// The host's address; none means the one of the configuration.
    pub host_address: Option<IpAddr>,
    /// The first and the last host port that will do; both 0 mean any.
    pub host_ports: (u16, u16),
}

/// A port that is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Published {
    /// The protocol.
    pub protocol: Protocol,
    /// The container's port.
    pub container_port: u16,
    /// The host's address; 0.0.0.0 means all, and :: all of IPv6.
    pub host_address: IpAddr,
    /// The host's port; 0 where there is none, because the port is opened at the container's own address.
    pub host_port: u16,
}

impl Published {
    /// Whether whoever has a route to the container reaches its port at its own address, and nobody at this machine's.
    pub fn is_opened(&self) -> bool {
        self.host_port == 0
    }
}

/// Where a port is to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// On an address of this machine.
    Bound(IpAddr),
    /// At the container's own address of this one's family, which is all of it.
    Opened(IpAddr),
}

impl Way {
    fn address(self) -> IpAddr {
        let (Way::Bound(address) | Way::Opened(address)) = self;
        address
    }
}

/// How a container's ports are led to by addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Led {
    /// From addresses of this machine.
    Translated,
    /// At the container's own address alone.
    Opened,
}

/// What decides where a container's ports are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leads {
    /// By IPv4 and by IPv6, where anything leads to the container by that.
    pub(crate) families: [Option<Led>; 2],
    /// The relay leads from one family to the other.
    pub(crate) across: bool,
    /// Nobody else has a say about IPv6, so that ports without an address are there, too, if the relay leads across.
    pub(crate) all_of_ipv6: bool,
}

impl Leads {
    /// Where a port is to be published; `default` is the host's address for those that name none.
    pub(crate) fn ways(&self, request: &PortRequest, default: Ipv4Addr) -> Vec<Way> {
        let [ipv4, ipv6] = self.families;
        let any = |host: IpAddr| match host {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let way = |led: Led, host: IpAddr| match led {
            Led::Translated => Way::Bound(host),
            Led::Opened => Way::Opened(any(host)),
        };
        if let Some(host) = request.host_address {
            let (own, other) = if host.is_ipv4() { (ipv4, ipv6) } else { (ipv6, ipv4) };
            let across = || (self.across && other.is_some()).then_some(Way::Bound(host));
            return own.map(|led| way(led, host)).or_else(across).into_iter().collect();
        }
        let first = ipv4.map(|led| way(led, default.into()));
        let all_of_ipv6 = IpAddr::from(Ipv6Addr::UNSPECIFIED);
        let across = self.across && self.all_of_ipv6 && ipv4.is_some() && request.protocol != Protocol::Sctp;
        let second = ipv6.map(|led| way(led, all_of_ipv6)).or(across.then_some(Way::Bound(all_of_ipv6)));
        // Who named an address of IPv4 for all ports meant that one.
        first.into_iter().chain(second.filter(|_| default.is_unspecified())).collect()
    }
}

/// Requests that differ only in the host address, which get the same host port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) protocol: Protocol,
    pub(crate) container_port: u16,
    pub(crate) host_ports: (u16, u16),
    /// Where the host port is to be had.
    pub(crate) addresses: Vec<IpAddr>,
    /// Where none is needed.
    opened: Vec<IpAddr>,
}

impl Group {
    /// Whether only one port will do, so that trying again is pointless.
    pub(crate) fn is_exact(&self) -> bool {
        self.host_ports.0 != 0 && self.host_ports.0 == self.host_ports.1
    }

    /// Whether two of its addresses meet, which get the same port: two sockets cannot listen there.
    pub(crate) fn is_in_its_own_way(&self) -> bool {
        let meet = |(index, one): (usize, &IpAddr)| self.addresses[index + 1..].iter().any(|other| meets(*one, *other));
        self.protocol != Protocol::Udp && self.addresses.iter().enumerate().any(meet)
    }

    /// Whether a host port is needed wherever it is published.
    pub(crate) fn has_no_other_place(&self) -> bool {
        self.opened.is_empty() && !self.addresses.is_empty()
    }

    /// Whether another one wants the next port of the host for the next one of the container, at the same addresses.
    pub(crate) fn is_followed_by(&self, next: &Group) -> bool {
        let one_more = |port: u16, next: u16| port.checked_add(1) == Some(next);
        one_more(self.host_ports.0, next.host_ports.0)
            && one_more(self.container_port, next.container_port)
            && (self.protocol, &self.addresses) == (next.protocol, &next.addresses)
    }

    /// The group's published ports, when it has got this host port.
    pub(crate) fn published(&self, host_port: u16) -> Vec<Published> {
        let (protocol, container_port) = (self.protocol, self.container_port);
        let at = |host_port| {
            move |host_address: &IpAddr| Published { protocol, container_port, host_address: *host_address, host_port }
        };
        let mut published: Vec<_> =
            self.opened.iter().map(at(0)).chain(self.addresses.iter().map(at(host_port))).collect();
        published.sort_by_key(|one| one.host_address);
        published
    }

    /// The same with this one host port, if it will do.
    pub(crate) fn at(&self, host_port: u16) -> Option<Group> {
        let fits = fits(self.host_ports, host_port);
        fits.then(|| Group { host_ports: (host_port, host_port), ..self.clone() })
    }

    /// Whether a published port leads to the same port of the container.
    pub(crate) fn is_beside(&self, published: &Published) -> bool {
        (published.protocol, published.container_port) == (self.protocol, self.container_port) && !published.is_opened()
    }

    /// The binding as dockerd prints it in errors: `0.0.0.0:8080:172.17.0.2:80/tcp`.
    pub(crate) fn text(&self, host: IpAddr, container: IpAddr) -> String {
        let bracketed = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let (host, container) = (bracketed(host), bracketed(container));
        let ports = match self.host_ports {
            (0, _) => String::new(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        format!("{host}:{ports}:{container}:{}/{}", self.container_port, self.protocol)
    }
}

/// Whether a host port is one of those that will do.
fn fits((first, last): (u16, u16), host_port: u16) -> bool {
    (first, last) == (0, 0) || (first..=last).contains(&host_port)
}

/// Whether a port is published already where this request would have it.
pub(crate) fn is_met(request: &PortRequest, way: Way, ports: &[Published]) -> bool {
    let meets = |port: &&Published| match way {
        // Which address it is that nobody named may have changed, and moves no port.
        Way::Bound(host) if request.host_address.is_none() => {
            !port.is_opened()
                && fits(request.host_ports, port.host_port)
                && port.host_address.is_ipv4() == host.is_ipv4()
        }
        Way::Bound(host) => !port.is_opened() && fits(request.host_ports, port.host_port) && port.host_address == host,
        Way::Opened(host) => port.is_opened() && port.host_address == host,
    };
    let same = |port: &&Published| (port.protocol, port.container_port) == (request.protocol, request.container_port);
    ports.iter().filter(same).any(|port| meets(&port))
}

/// Sorts requests into groups, in dockerd's order: exact host ports first, so that no range takes one of them. `ways` says
/// where each is to be published.
pub(crate) fn groups(requests: &[PortRequest], ways: impl Fn(&PortRequest) -> Vec<Way>) -> Vec<Group> {
    let mut sorted: Vec<(PortRequest, Way)> = Vec::new();
    for one in requests {
        sorted.extend(ways(one).into_iter().map(|way| (*one, way)));
    }
    sorted.sort_by(|(a, a_way), (b, b_way)| order(a, b).then(a_way.address().cmp(&b_way.address())));
    let mut groups: Vec<Group> = Vec::new();
    for (request, way) in sorted {
        let PortRequest { protocol, container_port, host_ports, .. } = request;
        let key = (protocol, container_port, host_ports);
        if groups.last().is_none_or(|last| (last.protocol, last.container_port, last.host_ports) != key) {
            groups.push(Group { protocol, container_port, host_ports, addresses: Vec::new(), opened: Vec::new() });
        }
        let Some(group) = groups.last_mut() else { continue };
        match way {
            Way::Opened(address) => group.opened.push(address),
            // Sockets of UDP go together, and one of them is as good as two.
            Way::Bound(address) if protocol == Protocol::Udp && group.addresses.last() == Some(&address) => {}
            Way::Bound(address) => group.addresses.push(address),
        }
    }
    groups
}

fn order(a: &PortRequest, b: &PortRequest) -> Ordering {
    let key = |one: &PortRequest| {
        let is_range = one.host_ports.0 == 0 || one.host_ports.0 != one.host_ports.1;
        (is_range, one.container_port, one.protocol, one.host_ports)
    };
    key(a).cmp(&key(b))
}

/// The host ports that this instance has given out.
///
/// Invariant: no two entries of one protocol and port have the same address, or all of a family and another of it.
#[derive(Debug)]
pub(crate) struct Ports {
    any: (u16, u16),
    taken: HashMap<(Protocol, u16), Vec<IpAddr>>,
    /// The port that a range gave last: the next search begins behind it, so that ports are not reused at once.
    last: HashMap<(Protocol, IpAddr, (u16, u16)), u16>,
}

/// How many ranges' last ports are known; then all are forgotten, and each begins at its first port again.
const LAST_MAX: usize = 1024;

impl Ports {
    /// `any` is the range for requests that name no port.
    pub(crate) fn new(any: (u16, u16)) -> Ports {
        Ports { any, taken: HashMap::new(), last: HashMap::new() }
    }

    /// Takes one port that is free on all of the group's addresses.
    ///
    /// None is needed where all of it is opened, whatever was asked for.
    pub(crate) fn take(&mut self, group: &Group) -> Result<u16, PortError> {
        let Some(leading) = group.addresses.first() else { return Ok(0) };
        if let (first, last) = group.host_ports
            && (first > last || first == 0 && last != 0)
        {
            return Err(PortError::InvalidRange { first, last });
        }
        if group.is_in_its_own_way() {
            return Err(PortError::Twice(group.protocol));
        }
        if group.is_exact() {
            let port = group.host_ports.0;
            return match self.conflict(group, port) {
                Some(address) => Err(PortError::Allocated { protocol: group.protocol, address, port }),
                None => Ok(self.insert(group, port)),
            };
        }
        let (first, last) = if group.host_ports == (0, 0) { self.any } else { group.host_ports };
        let key = (group.protocol, *leading, (first, last));
        let start = self.last.get(&key).map_or(first, |port| if *port >= last { first } else { port + 1 });
        let free = (start..=last).chain(first..start).find(|port| self.conflict(group, *port).is_none());
        let port = free.ok_or(PortError::Exhausted)?;
        if self.last.len() >= LAST_MAX {
            self.last.clear();
        }
        self.last.insert(key, port);
        Ok(self.insert(group, port))
    }

    /// Notes a port as taken that is published already.
    pub(crate) fn note(&mut self, published: &Published) {
        if published.is_opened() {
            return;
        }
        let taken = self.taken.entry((published.protocol, published.host_port)).or_default();
        if !taken.contains(&published.host_address) {
            taken.push(published.host_address);
        }
    }

    /// Gives a port back.
    pub(crate) fn release(&mut self, published: &Published) {
        let key = (published.protocol, published.host_port);
        if let Some(taken) = self.taken.get_mut(&key) {
            taken.retain(|address| *address != published.host_address);
            if taken.is_empty() {
                self.taken.remove(&key);
            }
        }
    }

    fn insert(&mut self, group: &Group, port: u16) -> u16 {
        self.taken.entry((group.protocol, port)).or_default().extend(&group.addresses);
        port
    }

    /// The address on which the port is taken, if one is in the group's way.
    fn conflict(&self, group: &Group, port: u16) -> Option<IpAddr> {
        let taken = self.taken.get(&(group.protocol, port))?;
        taken.iter().copied().find(|taken| group.addresses.iter().any(|address| meets(*taken, *address)))
    }
}

/// Whether what listens on one address is in the way of the other one, at the same port.
fn meets(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified() || one == other)
}

#[cfg(test)]
mod tests;
