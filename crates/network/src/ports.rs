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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The protocol.
    pub protocol: Protocol,
    /// The container's port.
    pub container_port: u16,
    /// The host's address; 0.0.0.0 means all, and :: all of IPv6.
    pub host_address: IpAddr,
    /// The host's port.
    pub host_port: u16,
}

/// Requests that differ only in the host address, which get the same host port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) protocol: Protocol,
    pub(crate) container_port: u16,
    pub(crate) host_ports: (u16, u16),
    pub(crate) addresses: Vec<IpAddr>,
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

    /// The group's published ports, when it has got this host port.
    pub(crate) fn published(&self, host_port: u16) -> impl Iterator<Item = Published> {
        let (protocol, container_port) = (self.protocol, self.container_port);
        self.addresses.iter().map(move |host_address| Published {
            protocol,
            container_port,
            host_address: *host_address,
            host_port,
        })
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

/// The addresses that a port without one is published on: the network's own, and where that is all of IPv4 all of IPv6, too,
/// as far as the container has addresses of the family.
pub(crate) fn defaults(host_address: Ipv4Addr, ipv4: bool, ipv6: bool) -> Vec<IpAddr> {
    let all_of_ipv6 = (ipv6 && host_address.is_unspecified()).then_some(Ipv6Addr::UNSPECIFIED.into());
    ipv4.then_some(host_address.into()).into_iter().chain(all_of_ipv6).collect()
}

/// Sorts requests into groups, in dockerd's order: exact host ports first, so that no range takes one of them.
pub(crate) fn groups(requests: &[PortRequest], defaults: &[IpAddr]) -> Vec<Group> {
    let mut sorted: Vec<(PortRequest, IpAddr)> = Vec::new();
    for one in requests {
        match one.host_address {
            Some(address) => sorted.push((*one, address)),
            None => sorted.extend(defaults.iter().map(|address| (*one, *address))),
        }
    }
    sorted.sort_by(|(a, a_address), (b, b_address)| order(a, b).then(a_address.cmp(b_address)));
    let mut groups: Vec<Group> = Vec::new();
    for (request, address) in sorted {
        let PortRequest { protocol, container_port, host_ports, .. } = request;
        match groups.last_mut() {
            Some(last)
                if (last.protocol, last.container_port, last.host_ports) == (protocol, container_port, host_ports) =>
            {
                // Sockets of UDP go together, and one of them is as good as two.
                if protocol != Protocol::Udp || last.addresses.last() != Some(&address) {
                    last.addresses.push(address);
                }
            }
            _ => groups.push(Group { protocol, container_port, host_ports, addresses: vec![address] }),
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

impl Ports {
    /// `any` is the range for requests that name no port.
    pub(crate) fn new(any: (u16, u16)) -> Ports {
        Ports { any, taken: HashMap::new(), last: HashMap::new() }
    }

    /// Takes one port that is free on all of the group's addresses.
    pub(crate) fn take(&mut self, group: &Group) -> Result<u16, PortError> {
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
        let key = (group.protocol, group.addresses[0], (first, last));
        let start = self.last.get(&key).map_or(first, |port| if *port >= last { first } else { port + 1 });
        let free = (start..=last).chain(first..start).find(|port| self.conflict(group, *port).is_none());
        let port = free.ok_or(PortError::Exhausted)?;
        self.last.insert(key, port);
        Ok(self.insert(group, port))
    }

    /// Notes a port as taken that is published already.
    pub(crate) fn note(&mut self, published: &Published) {
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
