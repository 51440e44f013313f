//! From policies to what the packet filter is told of an endpoint. Pure.
//!
//! The filter's sets of ranges take no two that overlap. So what policies allow is cut into addresses of the same ports.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink::link::Mac;

use super::policy::{EgressPolicy, Item, Ports};
use crate::subnet::Subnet;

/// An endpoint with a policy, as the packet filter knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guarded {
    /// The port of the bridge, by which the container's frames enter.
    pub(crate) interface: String,
    pub(crate) bridge: String,
    /// The addresses that it may send from.
    pub(crate) own: Vec<IpAddr>,
    /// Likewise, to its neighbours on the link alone: addresses of the link that somebody gave it, which may be others', too.
    pub(crate) aside: Vec<IpAddr>,
    /// Its neighbours' addresses, and this machine's among them.
    pub(crate) near: Vec<Subnet>,
    pub(crate) openings: Vec<Opening>,
    /// All of them have to allow what it begins.
    pub(crate) policies: Vec<EgressPolicy>,
}

/// Addresses and ports that are allowed. Of one endpoint no two overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) first: IpAddr,
    pub(crate) last: IpAddr,
    /// Numbers of protocols, the last included.
    pub(crate) protocols: (u8, u8),
    pub(crate) ports: (u16, u16),
}

/// What is allowed of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Services {
    All,
    /// Sorted, none touching another one.
    Only(Vec<Ports>),
}

impl Guarded {
    /// The protocols and ports that are open for a name.
    pub(crate) fn services_of(&self, name: &str) -> BTreeSet<(u8, u16)> {
        let of = |policy: &EgressPolicy| -> BTreeSet<(u8, u16)> {
            let services = |ports: Ports| (ports.first..=ports.last).map(move |port| (ports.protocol.number(), port));
            policy.ports_of(name).flat_map(services).collect()
        };
        self.policies.iter().map(of).reduce(|one, other| &one & &other).unwrap_or_default()
    }

    /// Whether both have an address of the link in common.
    pub(crate) fn shares(&self, other: &Guarded) -> bool {
        self.aside.iter().any(|aside| other.aside.contains(aside))
    }

    pub(crate) fn has_ipv6(&self) -> bool {
        self.own.iter().any(IpAddr::is_ipv6)
    }
}

/// The address of the link that the kernel makes of an Ethernet address (RFC 4291, appendix A).
pub(crate) fn link_local(mac: Mac) -> IpAddr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]).into()
}

/// The addresses that are of the link, of the family of one of them.
pub(crate) fn of_link(address: IpAddr) -> Subnet {
    match address {
        IpAddr::V4(_) => Subnet::new([169, 254, 0, 0], 16),
        IpAddr::V6(_) => Subnet::new(Ipv6Addr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0]), 10),
    }
}

/// Whether a name may lead to an address: names of others must not lead to what only this machine, its networks or its
/// neighbours have (DNS rebinding). That has to be allowed by its address.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            let shared = a == 100 && b & 0xc0 == 64;
            let special = a == 0 || a >= 224 || (a, b, c) == (192, 0, 0) || a == 198 && b & 0xfe == 18;
            !(address.is_private() || address.is_loopback() || address.is_link_local() || shared || special)
        }
        // Global unicast, but what stands for an address of IPv4 (6to4).
        IpAddr::V6(address) => {
            let first = address.segments()[0];
            first & 0xe000 == 0x2000 && first != 0x2002
        }
    }
}

/// The addresses that all policies allow, of both families.
pub(crate) fn openings(policies: &[EgressPolicy]) -> Vec<Opening> {
    [false, true].into_iter().flat_map(|ipv6| openings_of(policies, ipv6)).collect()
}

fn openings_of(policies: &[EgressPolicy], ipv6: bool) -> Vec<Opening> {
    let last_of_all = if ipv6 { u128::MAX } else { u128::from(u32::MAX) };
    let mut starts = vec![0];
    for (first, last, _) in policies.iter().flat_map(|policy| spans(policy, ipv6)) {
        starts.push(first);
        starts.extend((last < last_of_all).then(|| last + 1));
    }
    starts.sort_unstable();
    starts.dedup();
    let mut openings: Vec<(u128, u128, Services)> = Vec::new();
    for (at, first) in starts.iter().copied().enumerate() {
        let last = starts.get(at + 1).map_or(last_of_all, |next| next - 1);
        let allowed = policies.iter().map(|policy| services_at(policy, ipv6, first));
        let services = allowed.fold(Services::All, intersect);
        match openings.last_mut() {
            Some(before) if before.2 == services => before.1 = last,
            _ => openings.push((first, last, services)),
        }
    }
    let opening = |(first, last, services): (u128, u128, Services)| {
        let (first, last) = (address(first, ipv6), address(last, ipv6));
        let ranges: Vec<((u8, u8), (u16, u16))> = match services {
            Services::All => vec![((0, u8::MAX), (0, u16::MAX))],
            Services::Only(ports) => ports.into_iter().map(range).collect(),
        };
        ranges.into_iter().map(move |(protocols, ports)| Opening { first, last, protocols, ports })
    };
    openings.into_iter().flat_map(opening).collect()
}

fn range(ports: Ports) -> ((u8, u8), (u16, u16)) {
    let number = ports.protocol.number();
    ((number, number), (ports.first, ports.last))
}

/// First and last address of each item of a family that names addresses.
fn spans(policy: &EgressPolicy, ipv6: bool) -> impl Iterator<Item = (u128, u128, Option<Ports>)> {
    policy.items().iter().filter_map(move |item| match item {
        Item::Address { subnet, ports } if subnet.address.is_ipv6() == ipv6 => {
            Some((bits(subnet.network().address), bits(subnet.last()), *ports))
        }
        _ => None,
    })
}

fn services_at(policy: &EgressPolicy, ipv6: bool, at: u128) -> Services {
    let mut all = Vec::new();
    for (first, last, ports) in spans(policy, ipv6) {
        match ports {
            _ if at < first || last < at => {}
            None => return Services::All,
            Some(ports) => all.push(ports),
        }
    }
    Services::Only(united(all))
}

/// Sorted, and those that touch in one.
fn united(mut all: Vec<Ports>) -> Vec<Ports> {
    all.sort_unstable_by_key(|ports| (ports.protocol, ports.first));
    let mut united: Vec<Ports> = Vec::with_capacity(all.len());
    for ports in all {
        match united.last_mut() {
            Some(before)
                if before.protocol == ports.protocol && u32::from(ports.first) <= u32::from(before.last) + 1 =>
            {
                before.last = before.last.max(ports.last);
            }
            _ => united.push(ports),
        }
    }
    united
}

fn intersect(one: Services, other: Services) -> Services {
    let (one, other) = match (one, other) {
        (Services::All, other) => return other,
        (one, Services::All) => return one,
        (Services::Only(one), Services::Only(other)) => (one, other),
    };
    let meet = |a: &Ports| {
        let a = *a;
        other.iter().filter_map(move |b| {
            let ports = Ports { protocol: a.protocol, first: a.first.max(b.first), last: a.last.min(b.last) };
            (a.protocol == b.protocol && ports.first <= ports.last).then_some(ports)
        })
    };
    Services::Only(one.iter().flat_map(meet).collect())
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(bits: u128, ipv6: bool) -> IpAddr {
    match ipv6 {
        // No more than the last one of the family, which the caller bounds it by.
        false => Ipv4Addr::from_bits(bits as u32).into(),
        true => Ipv6Addr::from_bits(bits).into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policies(texts: &[&str]) -> Vec<EgressPolicy> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn printed(openings: &[Opening]) -> Vec<String> {
        let print = |one: &Opening| {
            let ((a, b), (c, d)) = (one.protocols, one.ports);
            format!("{}-{} {a}-{b} {c}-{d}", one.first, one.last)
        };
        openings.iter().map(print).collect()
    }

    #[test]
    fn openings_are_cut_where_they_would_overlap() {
        for (texts, expected) in [
            (&["deny"][..], &[][..]),
            (&["allow=example.org:443"], &[]),
            (&["allow=10.0.0.0/8"], &["10.0.0.0-10.255.255.255 0-255 0-65535"]),
            (&["allow=10.1.2.3:443"], &["10.1.2.3-10.1.2.3 6-6 443-443"]),
            (&["allow=10.1.2.3:80,allow=10.1.2.3:81"], &["10.1.2.3-10.1.2.3 6-6 80-81"]),
            (
                &["allow=10.0.0.0/31:80,allow=10.0.0.1:53/udp"],
                &["10.0.0.0-10.0.0.0 6-6 80-80", "10.0.0.1-10.0.0.1 6-6 80-80", "10.0.0.1-10.0.0.1 17-17 53-53"],
            ),
            (&["allow=0.0.0.0/0:443,allow=10.0.0.0/8:443"], &["0.0.0.0-255.255.255.255 6-6 443-443"]),
            (
                &["allow=0.0.0.0/0:80-90,allow=255.255.255.255:85-95"],
                &["0.0.0.0-255.255.255.254 6-6 80-90", "255.255.255.255-255.255.255.255 6-6 80-95"],
            ),
            (&["allow=::/0"], &["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 0-255 0-65535"]),
            // Both have to allow it.
            (&["allow=10.0.0.0/8:80-90", "allow=10.1.0.0/16:85-95"], &["10.1.0.0-10.1.255.255 6-6 85-90"]),
            (&["allow=10.0.0.0/8", "allow=10.1.0.0/16:53/udp"], &["10.1.0.0-10.1.255.255 17-17 53-53"]),
            (&["allow=10.0.0.0/8", "deny"], &[]),
        ] {
            assert_eq!(printed(&openings(&policies(texts))), expected, "{texts:?}");
        }
    }

    #[test]
    fn a_name_has_the_ports_that_all_policies_give_it() {
        let policies =
            policies(&["allow=a.x:443,allow=*.x:80-82,allow=c.x:53/udp,allow=10.0.0.1:22", "allow=*.x:82-90"]);
        let mut guarded = Guarded {
            interface: String::new(),
            bridge: String::new(),
            own: Vec::new(),
            aside: Vec::new(),
            near: Vec::new(),
            openings: Vec::new(),
            policies,
        };
        let services = |guarded: &Guarded, name: &str| guarded.services_of(name).into_iter().collect::<Vec<_>>();
        assert_eq!(services(&guarded, "a.x"), [(6, 82)]);
        guarded.policies.truncate(1);
        for (name, expected) in [
            ("a.x", &[(6, 80), (6, 81), (6, 82), (6, 443)][..]),
            ("c.x", &[(6, 80), (6, 81), (6, 82), (17, 53)]),
            ("x", &[]),
        ] {
            assert_eq!(services(&guarded, name), expected, "{name}");
        }
    }

    #[test]
    fn names_lead_to_public_addresses_alone() {
        for (address, public) in [
            ("8.8.8.8", true),
            ("203.0.113.7", true),
            ("2001:db8::1", true),
            ("0.0.0.0", false),
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("198.18.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::ffff:8.8.8.8", false),
            ("64:ff9b::8.8.8.8", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("2002:a00:1::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    #[test]
    fn the_address_of_a_link_is_made_of_the_ethernet_address() {
        assert_eq!(link_local([0x02, 0x42, 0xac, 0x11, 0, 9]).to_string(), "fe80::42:acff:fe11:9");
    }

    /// The last byte of an address, a prefix, and ports: whether of UDP, the first, and how many more.
    type Wish = (u8, u8, Option<(bool, u8, u8)>);

    fn item() -> impl Strategy<Value = Wish> {
        (any::<u8>(), 24_u8..=32, proptest::option::of((any::<bool>(), 1_u8..20, 0_u8..20)))
    }

    fn policy(items: &[Wish]) -> EgressPolicy {
        let text = items.iter().map(|(last, prefix, ports)| {
            let ports = ports.map(|(udp, first, more)| {
                format!(":{first}-{}/{}", u16::from(first) + u16::from(more), if udp { "udp" } else { "tcp" })
            });
            format!(",allow=10.0.0.{last}/{prefix}{}", ports.unwrap_or_default())
        });
        format!("deny{}", text.collect::<String>()).parse().unwrap()
    }

    proptest! {
        #[test]
        fn openings_allow_what_all_policies_allow_and_never_overlap(
            one in proptest::collection::vec(item(), 0..8),
            other in proptest::collection::vec(item(), 0..8),
            to: u8,
            port in 0_u16..50,
            protocol in prop_oneof![Just(1_u8), Just(6), Just(17)],
        ) {
            let policies = [policy(&one), policy(&other)];
            let openings = openings(&policies);
            let address = IpAddr::from([10, 0, 0, to]);
            let allows = |policy: &EgressPolicy| policy.items().iter().any(|item| match item {
                Item::Address { subnet, ports } => subnet.contains(address) && ports.is_none_or(|ports| {
                    ports.protocol.number() == protocol && (ports.first..=ports.last).contains(&port)
                }),
                Item::Name { .. } => false,
            });
            let hits = openings.iter().filter(|one| {
                (one.first..=one.last).contains(&address)
                    && (one.protocols.0..=one.protocols.1).contains(&protocol)
                    && (one.ports.0..=one.ports.1).contains(&port)
            });
            prop_assert_eq!(hits.count(), usize::from(policies.iter().all(allows)));
        }
    }
}
