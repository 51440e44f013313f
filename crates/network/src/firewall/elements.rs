//! The elements of the maps: one for each published port, or for ports one after the other that keep their numbers.

use std::collections::HashSet;
use std::net::IpAddr;

use netlink::nft::{Element, Family, Transaction};

use super::{BY_ADDRESS, BY_PORT, FAMILIES, OPENED, RANGES_BY_ADDRESS, RANGES_BY_PORT, Redirection};
use crate::ports::Published;
use crate::subnet::Subnet;

/// Takes out what was there `before` and is not `now`, and adds what is new. Both are all of some containers' redirections.
pub(super) fn change(
    change: &mut Transaction<'_>,
    (before, now): (&[Redirection], &[Redirection]),
    trusting: &[Subnet],
) {
    for family in FAMILIES {
        change.on(family);
        for ((map, gone), (_, come)) in
            elements(before, family, trusting).into_iter().zip(elements(now, family, trusting))
        {
            let missing = |from: &HashSet<Element>, others: &HashSet<Element>| {
                from.difference(others).cloned().collect::<Vec<_>>()
            };
            change.delete_elements(map, &missing(&gone, &come));
            change.add_elements(map, &missing(&come, &gone));
        }
    }
}

/// The elements for each map.
fn elements(
    redirections: &[Redirection],
    family: Family,
    trusting: &[Subnet],
) -> [(&'static str, HashSet<Element>); 5] {
    let of_family = redirections.iter().copied().filter(|(_, to)| to.is_ipv4() == (family == Family::Ipv4));
    let (opened, led): (Vec<Redirection>, Vec<Redirection>) = of_family.partition(|(one, _)| one.is_opened());
    let trusted = |(_, to): &&Redirection| trusting.iter().any(|network| network.contains(*to));
    // Published at several ports of the host, a port is opened once.
    let opened = opened.iter().chain(led.iter().filter(trusted)).map(|one| element(&opening(one))).collect();
    let (any, one): (Vec<_>, Vec<_>) = runs(led).into_iter().partition(|run| run.first.0.host_address.is_unspecified());
    let [any, one] = [any, one].map(|runs| {
        let (ranges, ports): (Vec<Run>, Vec<Run>) = runs.into_iter().partition(Run::is_range);
        (ports.iter().map(|run| element(&run.first)).collect(), ranges.iter().map(Run::element).collect())
    });
    [(BY_ADDRESS, one.0), (RANGES_BY_ADDRESS, one.1), (BY_PORT, any.0), (RANGES_BY_PORT, any.1), (OPENED, opened)]
}

/// Ports of the host one after the other that lead to the same ports of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: Redirection,
    /// The last host port.
    last: u16,
}

impl Run {
    fn is_range(&self) -> bool {
        self.last > self.first.0.host_port
    }

    /// Whether a port belongs behind the last one.
    fn goes_on_with(&self, (published, container): &Redirection) -> bool {
        let (first, to) = &self.first;
        let expected = Published { host_port: published.host_port, container_port: published.host_port, ..*first };
        keeps_its_number(first)
            && *published == expected
            && container == to
            && self.last.checked_add(1) == Some(published.host_port)
    }

    /// A range of keys, and the address alone.
    fn element(&self) -> Element {
        let (first, container) = self.first;
        let last = Published { host_port: self.last, ..first };
        Element { key: key(&first), last: Some(key(&last)), value: octets(container) }
    }
}

fn keeps_its_number(published: &Published) -> bool {
    published.host_port == published.container_port
}

/// Whatever the order, the same ports are the same runs.
fn runs(mut redirections: Vec<Redirection>) -> Vec<Run> {
    redirections.sort_by_key(|(one, to)| {
        (one.protocol, one.host_address, *to, !keeps_its_number(one), one.host_port, one.container_port)
    });
    let mut runs: Vec<Run> = Vec::new();
    for one in redirections {
        match runs.last_mut() {
            Some(run) if run.goes_on_with(&one) => run.last = one.0.host_port,
            _ => runs.push(Run { first: one, last: one.0.host_port }),
        }
    }
    runs
}

/// A port that is opened as if it were published on the container's own address.
fn opening((published, container): &Redirection) -> Redirection {
    (Published { host_address: *container, host_port: published.container_port, ..*published }, *container)
}

fn element((published, container): &Redirection) -> Element {
    let value = [&octets(*container)[..], &port(published.container_port)].concat();
    Element::new(key(published), value)
}

/// Protocol, address unless it is any, host port.
fn key(published: &Published) -> Vec<u8> {
    let address = if published.host_address.is_unspecified() { Vec::new() } else { octets(published.host_address) };
    [&[published.protocol.number(), 0, 0, 0][..], &address, &port(published.host_port)].concat()
}

fn port(number: u16) -> [u8; 4] {
    let [high, low] = number.to_be_bytes();
    [high, low, 0, 0]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::ports::Protocol;

    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 3));

    fn published(host_port: u16, container_port: u16) -> Published {
        let host_address = Ipv4Addr::UNSPECIFIED.into();
        Published { protocol: Protocol::Tcp, container_port, host_address, host_port }
    }

    /// `first-last` of each.
    fn told(redirections: &[Redirection]) -> Vec<(u16, u16)> {
        runs(redirections.to_vec()).iter().map(|run| (run.first.0.host_port, run.last)).collect()
    }

    #[test]
    fn ports_one_after_the_other_are_a_range_in_whatever_order_they_come() {
        let ports = [8003, 8001, 8002, 8005].map(|port| (published(port, port), ONE));
        assert_eq!(told(&ports), [(8001, 8003), (8005, 8005)]);
        let last = [65_534, 65_535].map(|port| (published(port, port), ONE));
        assert_eq!(told(&last), [(65_534, 65_535)]);
    }

    #[test]
    fn a_range_keeps_numbers_and_has_one_address_protocol_and_container() {
        let moved = [8000, 8001].map(|port| (published(port, port + 1000), ONE));
        assert_eq!(told(&moved), [(8000, 8000), (8001, 8001)]);
        let containers = [(published(8000, 8000), ONE), (published(8001, 8001), OTHER)];
        assert_eq!(told(&containers), [(8000, 8000), (8001, 8001)]);
        let udp = Published { protocol: Protocol::Udp, ..published(8001, 8001) };
        assert_eq!(told(&[(published(8000, 8000), ONE), (udp, ONE)]), [(8000, 8000), (8001, 8001)]);
        let bound = Published { host_address: Ipv4Addr::LOCALHOST.into(), ..published(8001, 8001) };
        assert_eq!(told(&[(published(8000, 8000), ONE), (bound, ONE)]), [(8000, 8000), (8001, 8001)]);
        // One in between that leads elsewhere.
        let mixed = [(published(8000, 8000), ONE), (published(8001, 80), ONE), (published(8002, 8002), ONE)];
        assert_eq!(told(&mixed).len(), 3);
    }

    #[test]
    fn the_elements_of_a_range_are_its_ends() {
        let ports = [8000, 8001, 8002].map(|port| (published(port, port), ONE));
        let [_, _, (by_port, single), (by_range, ranges), _] = elements(&ports, Family::Ipv4, &[]);
        assert_eq!((by_port, single.len(), by_range), (BY_PORT, 0, RANGES_BY_PORT));
        let (first, last) = (vec![6, 0, 0, 0, 0x1f, 0x40, 0, 0], vec![6, 0, 0, 0, 0x1f, 0x42, 0, 0]);
        assert_eq!(Vec::from_iter(ranges), [Element { key: first, last: Some(last), value: vec![172, 17, 0, 2] }]);
    }
}
