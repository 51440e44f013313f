//! Which addresses of the network are given out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::subnet::Subnet;

/// Why an address cannot be given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAddress {
    /// All are taken.
    Exhausted,
    /// The wanted one is taken, or is the network's, the gateway's or the broadcast address.
    Taken,
    /// The wanted one lies outside of the network.
    Outside,
}

/// The addresses of one family of one network.
///
/// Invariant: `taken` never holds an address outside of the network. The set is small: a bridge has 1,023 ports at most.
#[derive(Debug)]
pub(crate) struct Addresses {
    network: Subnet,
    range: Subnet,
    gateway: Option<IpAddr>,
    taken: BTreeSet<IpAddr>,
    /// How many of these are nobody's endpoint.
    set_aside: usize,
}

impl Addresses {
    /// All addresses of `network` are free but its first, in IPv4 its last, and the gateway's if it has one; unasked, only those of
    /// `range` are given out.
    pub(crate) fn new(network: Subnet, range: Option<Subnet>, gateway: Option<IpAddr>) -> Addresses {
        let network = network.network();
        Addresses {
            network,
            range: range.map_or(network, Subnet::network),
            gateway,
            taken: BTreeSet::new(),
            set_aside: 0,
        }
    }

    /// Whether they are of IPv6.
    pub(crate) fn is_ipv6(&self) -> bool {
        self.network.address.is_ipv6()
    }

    /// Takes the wanted address, or the lowest free one, as dockerd does.
    pub(crate) fn take(&mut self, wanted: Option<IpAddr>) -> Result<IpAddr, NoAddress> {
        let address = match wanted {
            Some(address) if !self.network.contains(address) => return Err(NoAddress::Outside),
            Some(address) if self.is_reserved(address) || self.taken.contains(&address) => {
                return Err(NoAddress::Taken);
            }
            Some(address) => address,
            None => self.lowest_free().ok_or(NoAddress::Exhausted)?,
        };
        self.taken.insert(address);
        Ok(address)
    }

    /// Keeps an address from being given out.
    pub(crate) fn set_aside(&mut self, address: IpAddr) -> Result<(), NoAddress> {
        self.take(Some(address))?;
        self.set_aside += 1;
        Ok(())
    }

    /// Whether nobody has an address.
    pub(crate) fn is_unused(&self) -> bool {
        self.taken.len() == self.set_aside
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, address: IpAddr) {
        self.taken.remove(&address);
    }

    fn lowest_free(&self) -> Option<IpAddr> {
        self.range.addresses().find(|address| !self.is_reserved(*address) && !self.taken.contains(address))
    }

    fn is_reserved(&self, address: IpAddr) -> bool {
        Some(address) == self.gateway
            || address == self.network.address
            // IPv6 has no broadcasts.
            || address.is_ipv4() && address == self.network.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addresses(network: &str, range: Option<&str>) -> Addresses {
        let network: Subnet = network.parse().unwrap();
        Addresses::new(network, range.map(|range| range.parse().unwrap()), Some(network.address))
    }

    fn last_octet(address: IpAddr) -> u8 {
        match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        }
    }

    #[test]
    fn the_lowest_free_one() {
        let mut addresses = addresses("172.17.0.1/16", None);
        let at = |last| IpAddr::from([172, 17, 0, last]);
        assert_eq!(addresses.take(None), Ok(at(2)));
        assert_eq!(addresses.take(Some(at(4))), Ok(at(4)));
        assert_eq!(addresses.take(None), Ok(at(3)));
        assert_eq!(addresses.take(None), Ok(at(5)));
        addresses.release(at(3));
        assert_eq!(addresses.take(None), Ok(at(3)));
        assert_eq!(addresses.take(Some(at(4))), Err(NoAddress::Taken));
        assert_eq!(addresses.take(Some(at(1))), Err(NoAddress::Taken));
        assert_eq!(addresses.take(Some(at(0))), Err(NoAddress::Taken));
        assert_eq!(addresses.take(Some(IpAddr::from([10, 0, 0, 1]))), Err(NoAddress::Outside));
    }

    #[test]
    fn a_fixed_part_of_the_network() {
        let mut addresses = addresses("10.0.0.1/24", Some("10.0.0.128/30"));
        let given: Vec<_> = std::iter::from_fn(|| addresses.take(None).ok()).map(last_octet).collect();
        assert_eq!(given, [128, 129, 130, 131]);
        assert_eq!(addresses.take(None), Err(NoAddress::Exhausted));
    }

    #[test]
    fn a_network_of_ipv6() {
        let mut addresses = addresses("fd00:7::1/126", None);
        assert!(addresses.is_ipv6());
        let given: Vec<_> = std::iter::from_fn(|| addresses.take(None).ok()).map(last_octet).collect();
        assert_eq!(given, [2, 3], "the last one is nobody's broadcast address");
        assert_eq!(addresses.take(Some("fd00:7::".parse().unwrap())), Err(NoAddress::Taken));
        assert_eq!(addresses.take(Some(IpAddr::from([10, 0, 0, 1]))), Err(NoAddress::Outside));
        let mut wide = self::addresses("fd00:7::1/64", Some("fd00:7::ff00/120"));
        assert_eq!(wide.take(None).unwrap().to_string(), "fd00:7::ff00");
    }

    proptest! {
        #[test]
        fn no_address_is_given_out_twice(steps in prop::collection::vec((any::<bool>(), 0_u8..32), 1..200)) {
            let mut addresses = addresses("10.0.0.1/27", None);
            let mut given = BTreeSet::new();
            for (take, last) in steps {
                let wanted = IpAddr::from([10, 0, 0, last]);
                if take {
                    match addresses.take((last % 2 == 0).then_some(wanted)) {
                        Ok(address) => {
                            prop_assert!(given.insert(address));
                            prop_assert!(![0, 1, 31].contains(&last_octet(address)));
                        }
                        Err(NoAddress::Exhausted) => prop_assert_eq!(given.len(), 29),
                        Err(reason) => prop_assert_eq!(reason, NoAddress::Taken),
                    }
                } else {
                    addresses.release(wanted);
                    given.remove(&wanted);
                }
            }
        }
    }
}
