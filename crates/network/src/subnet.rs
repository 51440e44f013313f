//! Networks of either family, and the choice of one that nobody uses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::AddressPool;

/// An address with the length of its network's prefix: an interface's address, or a network where the rest is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The address.
    pub address: IpAddr,
    /// The length of the prefix in bits, 0 to 32 or 128.
    pub prefix: u8,
}

/// Whether an address of IPv6 means somebody else on each link (RFC 4291, 2.5.6): what is said of it here would be said of all links.
pub(crate) fn is_of_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

impl Subnet {
    /// An address with the length of its network's prefix.
    pub fn new(address: impl Into<IpAddr>, prefix: u8) -> Subnet {
        Subnet { address: address.into(), prefix }
    }

    /// The network of this address: what follows the prefix is zero.
    pub fn network(self) -> Subnet {
        Subnet { address: self.at(to_bits(self.address) & !self.host_bits()), prefix: self.prefix }
    }

    /// Whether the address lies in this network.
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && (to_bits(address) ^ to_bits(self.address)) & !self.host_bits() == 0
    }

    /// Whether the networks have an address in common.
    pub fn overlaps(self, other: Subnet) -> bool {
        self.contains(other.address) && self.prefix <= other.prefix
            || other.contains(self.address) && other.prefix <= self.prefix
    }

    /// Whether all of its addresses are of this network.
    pub(crate) fn is_part_of(self, network: Subnet) -> bool {
        network.contains(self.address) && self.prefix >= network.prefix
    }

    /// The last address, which in IPv4 is the broadcast address.
    pub fn last(self) -> IpAddr {
        self.at(to_bits(self.address) | self.host_bits())
    }

    /// All its addresses, from the first on.
    pub(crate) fn addresses(self) -> impl Iterator<Item = IpAddr> {
        (to_bits(self.network().address)..=to_bits(self.last())).map(move |bits| self.at(bits))
    }

    /// How many bits an address of this family has.
    pub fn width(self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// The bits behind the prefix.
    fn host_bits(self) -> u128 {
        let free = u32::from(self.width().saturating_sub(self.prefix));
        // A shift by all bits is none.
        1_u128.checked_shl(free).unwrap_or(0).wrapping_sub(1)
    }

    /// The address of this family that has these bits.
    fn at(self, bits: u128) -> IpAddr {
        match self.address {
            // No more than these: they come from an address of this family and a mask.
            IpAddr::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
        }
    }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A text is not `ADDRESS/PREFIX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address with the length of a prefix")]
pub struct NotASubnet;

impl FromStr for Subnet {
    type Err = NotASubnet;

    fn from_str(text: &str) -> Result<Subnet, NotASubnet> {
        let (address, prefix) = text.split_once('/').ok_or(NotASubnet)?;
        let address: IpAddr = address.parse().map_err(|_| NotASubnet)?;
        let subnet = Subnet { address, prefix: prefix.parse().map_err(|_| NotASubnet)? };
        if subnet.prefix > subnet.width() { Err(NotASubnet) } else { Ok(subnet) }
    }
}

/// Docker's pools for networks of one machine: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in parts of /20.
pub(crate) fn default_pools() -> Vec<AddressPool> {
    let pool = |octets: [u8; 4], prefix, size| AddressPool { base: Subnet::new(octets, prefix), size };
    vec![
        pool([172, 17, 0, 0], 16, 16),
        pool([172, 18, 0, 0], 16, 16),
        pool([172, 19, 0, 0], 16, 16),
        pool([172, 20, 0, 0], 14, 16),
        pool([172, 24, 0, 0], 14, 16),
        pool([172, 28, 0, 0], 14, 16),
        pool([192, 168, 0, 0], 16, 20),
    ]
}

/// The pool that networks of IPv6 are cut from unless somebody names others: those of a site, by its 40 random bits
/// (RFC 4193), in parts of /64.
pub(crate) fn site_pool(site: [u8; 5]) -> AddressPool {
    let [a, b, c, d, e] = site;
    let address = Ipv6Addr::from([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    AddressPool { base: Subnet::new(address, 48), size: 64 }
}

/// The first network of the pools that overlaps none of those in use.
pub(crate) fn choose(pools: &[AddressPool], used: &[Subnet]) -> Option<Subnet> {
    pools.iter().filter(|pool| pool.is_sound()).find_map(|pool| choose_from(pool, used))
}

fn choose_from(pool: &AddressPool, used: &[Subnet]) -> Option<Subnet> {
    let mut candidate = Subnet { prefix: pool.size, ..pool.base.network() };
    // From one obstacle behind the next: a pool of IPv6 has more networks than anybody could look at.
    while let Some(obstacle) = used.iter().find(|one| one.overlaps(candidate)) {
        let end = to_bits(obstacle.last()).max(to_bits(candidate.last()));
        let next = end.checked_add(1).filter(|next| *next <= to_bits(pool.base.last()))?;
        candidate = Subnet { address: candidate.at(next), ..candidate };
    }
    Some(candidate)
}

/// Why the pools have nothing that is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A route or address of this machine that is nobody's network here.
    Route {
        /// The last network of the pools.
        wanted: Subnet,
        /// What is in its way.
        route: Subnet,
    },
    /// The networks that have these addresses, by name, in the order of their making.
    Networks(Vec<(String, Subnet)>),
}

/// How many networks are named; who has more than these looks at the list of them.
const NAMED: usize = 8;

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Route { wanted, route } => write!(f, "{wanted} overlaps the route to {route}"),
            Obstacle::Networks(networks) => {
                let named: Vec<_> =
                    networks.iter().take(NAMED).map(|(name, subnet)| format!("{name} {subnet}")).collect();
                write!(f, "in use by {}", named.join(", "))?;
                match networks.len().saturating_sub(NAMED) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

/// What is in the way of the last network of the pools: what this machine uses, unless it is one of our networks', or these. A bridge
/// of ours has addresses and routes, too, which nobody would find by them.
pub(crate) fn obstacle(pools: &[AddressPool], used: &[Subnet], networks: &[(String, Subnet)]) -> Option<Obstacle> {
    let pool = pools.iter().rfind(|pool| pool.is_sound())?;
    let wanted = Subnet { address: pool.base.last(), prefix: pool.size }.network();
    let is_ours = |one: &Subnet| networks.iter().any(|(_, own)| own.prefix <= one.prefix && own.contains(one.address));
    let in_the_way = used.iter().filter(|one| one.overlaps(wanted) && !is_ours(one)).map(|one| one.network()).next();
    if let Some(route) = in_the_way {
        return Some(Obstacle::Route { wanted, route });
    }
    let of_pools = |(_, own): &&(String, Subnet)| pools.iter().any(|pool| pool.base.overlaps(*own));
    Some(Obstacle::Networks(networks.iter().filter(of_pools).cloned().collect()))
        .filter(|obstacle| *obstacle != Obstacle::Networks(Vec::new()))
}

impl AddressPool {
    fn is_sound(&self) -> bool {
        self.base.prefix <= self.size && self.size <= self.base.width()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn texts() {
        assert_eq!(subnet("172.17.0.1/16").network().to_string(), "172.17.0.0/16");
        assert_eq!(subnet("172.17.0.1/16").last(), Ipv4Addr::new(172, 17, 255, 255));
        assert_eq!(subnet("fd00:1::5/64").network().to_string(), "fd00:1::/64");
        assert_eq!(subnet("fd00:1::/120").last().to_string(), "fd00:1::ff");
        assert_eq!(subnet("::/0").last().to_string(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        for bad in ["", "172.17.0.1", "172.17.0.1/33", "x/16", "::1/129", "1.2.3.4/-1"] {
            assert_eq!(bad.parse::<Subnet>(), Err(NotASubnet), "{bad}");
        }
    }

    #[test]
    fn overlapping() {
        for (a, b, overlap) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.1.0.0/16", "10.0.0.0/8", true),
            ("10.0.0.0/16", "10.1.0.0/16", false),
            ("0.0.0.0/0", "10.1.0.0/16", true),
            ("10.1.2.3/32", "10.1.2.3/32", true),
            ("fd00:1::/48", "fd00:1:0:4::/64", true),
            ("fd00:1::/64", "fd00:2::/64", false),
            ("::/0", "10.1.0.0/16", false),
        ] {
            assert_eq!(subnet(a).overlaps(subnet(b)), overlap, "{a} {b}");
        }
    }

    #[test]
    fn the_first_network_that_nobody_uses() {
        let pools = default_pools();
        let choose = |used: &[&str]| {
            let used: Vec<_> = used.iter().map(|text| subnet(text)).collect();
            choose(&pools, &used).map(|network| network.to_string())
        };
        assert_eq!(choose(&[]).unwrap(), "172.17.0.0/16");
        assert_eq!(choose(&["172.17.5.0/24"]).unwrap(), "172.18.0.0/16");
        assert_eq!(choose(&["172.16.0.0/12"]).unwrap(), "192.168.0.0/20");
        assert_eq!(choose(&["172.16.0.0/12", "192.168.1.0/24"]).unwrap(), "192.168.16.0/20");
        assert_eq!(choose(&["172.16.0.0/12", "192.168.0.0/16"]), None);
    }
    #[test]
    fn networks_of_ipv6_are_cut_from_the_sites_own() {
        let pools = [site_pool([1, 2, 3, 4, 5])];
        let chosen = |used: &[&str]| {
            let used: Vec<_> = used.iter().map(|text| subnet(text)).collect();
            choose(&pools, &used).map(|network| network.to_string())
        };
        assert_eq!(chosen(&[]).unwrap(), "fd01:203:405::/64");
        assert_eq!(chosen(&["fd01:203:405::/64", "fd01:203:405:1::9/128"]).unwrap(), "fd01:203:405:2::/64");
        assert_eq!(chosen(&["fd01:203:405::/49", "10.0.0.0/8"]).unwrap(), "fd01:203:405:8000::/64");
        assert_eq!(chosen(&["fd00::/8"]), None);
        let everything = AddressPool { base: subnet("8000::/1"), size: 128 };
        assert_eq!(choose(&[everything], &[subnet("8000::/2")]), Some(subnet("c000::/128")));
        assert_eq!(choose(&[everything], &[subnet("8000::/2"), subnet("c000::/2")]), None);
        let found = obstacle(&pools, &[subnet("fd00::1/8")], &[]).unwrap();
        assert_eq!(found.to_string(), "fd01:203:405:ffff::/64 overlaps the route to fd00::/8");
    }

    #[test]
    fn who_uses_the_pools_is_told_and_no_route_of_a_bridge_of_ours() {
        let pools = [AddressPool { base: subnet("10.5.0.0/22"), size: 24 }];
        let own: Vec<_> = (0..4).map(|part| (format!("n{part}"), subnet(&format!("10.5.{part}.0/24")))).collect();
        let told = |used: &[&str], own: &[(String, Subnet)]| {
            let used: Vec<_> = used.iter().map(|text| subnet(text)).collect();
            obstacle(&pools, &used, own).map(|found| found.to_string())
        };
        let bridges = ["10.5.3.1/24", "10.5.3.0/24", "10.5.3.255/32"];
        let all = "in use by n0 10.5.0.0/24, n1 10.5.1.0/24, n2 10.5.2.0/24, n3 10.5.3.0/24";
        assert_eq!(told(&bridges, &own).as_deref(), Some(all));
        let route = "10.5.3.0/24 overlaps the route to 10.5.0.0/16";
        assert_eq!(told(&["10.5.0.0/16", bridges[0]], &own).as_deref(), Some(route), "it holds more than ours");
        assert_eq!(
            told(&["10.5.3.128/25"], &own[..3]).as_deref(),
            Some("10.5.3.0/24 overlaps the route to 10.5.3.128/25")
        );
        assert_eq!(told(&[], &[]), None);
        let many: Vec<_> = (0..10).map(|one| (format!("n{one}"), subnet("10.5.0.0/24"))).collect();
        assert!(told(&[], &many).unwrap().ends_with("n7 10.5.0.0/24 and 2 more"));
    }
}
