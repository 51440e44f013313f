//! What is read of a packet that was denied. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The protocols whose packets have ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// Where a packet comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Its number.
    pub(crate) protocol: u8,
    /// Of protocols that have ports.
    pub(crate) port: Option<u16>,
}

impl Packet {
    /// Reads the beginning of a packet; none if it is too short, or of another kind.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Packet> {
        let (source, destination, protocol, header): (IpAddr, IpAddr, u8, usize) = match bytes.first()? >> 4 {
            4 => {
                let address =
                    |at: usize| bytes.get(at..at + 4)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets));
                (address(12)?.into(), address(16)?.into(), bytes[9], usize::from(bytes[0] & 15) * 4)
            }
            6 => {
                let address =
                    |at: usize| bytes.get(at..at + 16)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
                (address(8)?.into(), address(24)?.into(), bytes[6], 40)
            }
            _ => return None,
        };
        let port = bytes.get(header + 2..header + 4).filter(|_| WITH_PORTS.contains(&protocol));
        let port = port.map(|octets| u16::from_be_bytes([octets[0], octets[1]]));
        Some(Packet { source, destination, protocol, port })
    }

    /// Whether the kernel sends it of itself when an interface gets an address: a report of groups (RFC 3810), which stays on the
    /// link. Nobody has asked for it, and nobody misses it.
    pub(crate) fn is_of_kernel(&self) -> bool {
        self.destination == IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16))
    }

    /// The protocol's name, or its number.
    pub(crate) fn protocol_name(&self) -> String {
        match self.protocol {
            1 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            58 => "icmpv6".to_owned(),
            132 => "sctp".to_owned(),
            number => number.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(protocol: u8) -> Vec<u8> {
        let mut packet = vec![0; 24];
        (packet[0], packet[9]) = (0x45, protocol);
        packet[12..20].copy_from_slice(&[10, 0, 0, 2, 8, 8, 4, 4]);
        packet[20..24].copy_from_slice(&[0x99, 0x99, 1, 187]);
        packet
    }

    #[test]
    fn packets_are_read() {
        let told = |bytes: &[u8]| {
            Packet::parse(bytes)
                .map(|one| format!("{} {} {} {:?}", one.source, one.destination, one.protocol_name(), one.port))
        };
        assert_eq!(told(&ipv4(6)).as_deref(), Some("10.0.0.2 8.8.4.4 tcp Some(443)"));
        assert_eq!(told(&ipv4(1)).as_deref(), Some("10.0.0.2 8.8.4.4 icmp None"));
        assert_eq!(told(&ipv4(47)).as_deref(), Some("10.0.0.2 8.8.4.4 47 None"));
        assert_eq!(told(&ipv4(17)[..22]).as_deref(), Some("10.0.0.2 8.8.4.4 udp None"));
        let mut ipv6 = vec![0; 44];
        (ipv6[0], ipv6[6], ipv6[8], ipv6[24]) = (0x60, 17, 0xfd, 0xfc);
        ipv6[42..44].copy_from_slice(&[0, 53]);
        assert_eq!(told(&ipv6).as_deref(), Some("fd00:: fc00:: udp Some(53)"));
    }

    #[test]
    fn what_is_cut_or_no_packet_is_none() {
        for length in 0..20 {
            assert_eq!(Packet::parse(&ipv4(6)[..length]), None, "{length}");
        }
        assert_eq!(Packet::parse(&[0x60; 39]), None);
        assert_eq!(Packet::parse(&[0x10; 60]), None);
    }
}
