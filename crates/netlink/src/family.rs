//! The two families of IP addresses, as the kernel writes them.

use std::net::IpAddr;

/// AF_UNSPEC: who asks by it is told of all families.
pub(crate) const ANY: u8 = 0;
/// AF_INET
pub(crate) const IPV4: u8 = 2;
/// AF_INET6
pub(crate) const IPV6: u8 = 10;

/// The number of an address's family.
pub(crate) fn number(address: IpAddr) -> u8 {
    if address.is_ipv4() { IPV4 } else { IPV6 }
}

/// An address in network byte order.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The address that is written so; its length tells the family.
pub(crate) fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}
