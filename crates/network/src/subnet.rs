//! IPv4 networks, and the choice of one that nobody uses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::AddressPool;

/// An address with the length of its network's prefix: an interface's address, or a network where the rest is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The address.
    pub address: Ipv4Addr,
    /// The length of the prefix in bits, 0 to 32.
    pub prefix: u8,
}

impl Subnet {
    /// The network of this address: what follows the prefix is zero.
    pub fn network(self) -> Subnet {
        Subnet { address: Ipv4Addr::from_bits(self.address.to_bits() & self.mask()), prefix: self.prefix }
    }

    /// Whether the address lies in this network.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.address.to_bits()) & self.mask() == 0
    }

    /// Whether the networks have an address in common.
    pub fn overlaps(self, other: Subnet) -> bool {
        self.contains(other.address) && self.prefix <= other.prefix
            || other.contains(self.address) && other.prefix <= self.prefix
    }

    /// The last address, which is the broadcast address.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !self.mask())
    }

    fn mask(self) -> u32 {
        !u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A text is not `ADDRESS/PREFIX` with an IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an IPv4 address with the length of a prefix")]
pub struct NotASubnet;

impl FromStr for Subnet {
    type Err = NotASubnet;

    fn from_str(text: &str) -> Result<Subnet, NotASubnet> {
        let (address, prefix) = text.split_once('/').ok_or(NotASubnet)?;
        let address = address.parse().map_err(|_| NotASubnet)?;
        let prefix: u8 = prefix.parse().map_err(|_| NotASubnet)?;
        if prefix > 32 { Err(NotASubnet) } else { Ok(Subnet { address, prefix }) }
    }
}

/// Docker's pools for networks of one machine: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in parts of /20.
pub(crate) fn default_pools() -> Vec<AddressPool> {
    let pool = |octets: [u8; 4], prefix, size| AddressPool { base: Subnet { address: octets.into(), prefix }, size };
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

/// The first network of the pools that overlaps none of those in use.
pub(crate) fn choose(pools: &[AddressPool], used: &[Subnet]) -> Option<Subnet> {
    candidates(pools).find(|network| !used.iter().any(|one| one.overlaps(*network)))
}

/// The last network of the pools, and what of those in use is in its way.
pub(crate) fn last_obstacle(pools: &[AddressPool], used: &[Subnet]) -> Option<(Subnet, Subnet)> {
    let last = candidates(pools).last()?;
    used.iter().find(|one| one.overlaps(last)).map(|one| (last, one.network()))
}

fn candidates(pools: &[AddressPool]) -> impl Iterator<Item = Subnet> {
    pools.iter().filter(|pool| pool.base.prefix <= pool.size && pool.size <= 32).flat_map(|pool| {
        let count = 1_u64 << (pool.size - pool.base.prefix);
        (0..count).map(|number| {
            let start = u64::from(pool.base.network().address.to_bits()) + (number << (32 - pool.size));
            // Within the pool's base, so within 32 bits.
            Subnet { address: Ipv4Addr::from_bits(start as u32), prefix: pool.size }
        })
    })
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
        for bad in ["", "172.17.0.1", "172.17.0.1/33", "x/16", "::1/64", "1.2.3.4/-1"] {
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
}
