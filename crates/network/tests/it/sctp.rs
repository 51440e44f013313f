//! Published ports of SCTP. The kernel need not speak it: the tests write the packets themselves (RFC 9260).

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use network::{PortRequest, Protocol};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto, socket_with};

use crate::lab::*;

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// The client's verification tag, which answers carry.
const TAG: u32 = 0x1234_5678;

/// A packet of one chunk that begins an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packet {
    from: u16,
    to: u16,
    tag: u32,
    kind: u8,
}

impl Packet {
    fn bytes(self) -> Vec<u8> {
        let mut bytes = [self.from.to_be_bytes(), self.to.to_be_bytes()].concat();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        // Its type, no flags, its length; our tag, a window, one stream each way, the first number.
        bytes.extend([self.kind, 0, 0, 20]);
        bytes.extend(TAG.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        let sum = crc32c(&bytes).to_le_bytes();
        bytes[8..12].copy_from_slice(&sum);
        bytes
    }

    /// Whom the IP header says it comes from, and what it is, if its sum is right.
    fn parse(datagram: &[u8]) -> Option<(Ipv4Addr, Packet)> {
        let (header, packet) = datagram.split_at_checked(usize::from(datagram.first()? & 15) * 4)?;
        let source: [u8; 4] = header[12..16].try_into().ok()?;
        let mut unsummed = packet.to_vec();
        unsummed.get_mut(8..12)?.fill(0);
        if packet[8..12] != crc32c(&unsummed).to_le_bytes() {
            return None;
        }
        let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let tag = u32::from_be_bytes(packet[4..8].try_into().ok()?);
        Some((source.into(), Packet { from: word(0), to: word(2), tag, kind: *packet.get(12)? }))
    }
}

/// The sum of SCTP's packets (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |sum: u32, _| (sum >> 1) ^ (0x82F6_3B78 & (sum & 1).wrapping_neg());
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), bit))
}

/// A socket that sees all packets of SCTP that come to this network namespace.
fn listener(wait: Duration) -> OwnedFd {
    let socket = socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::SCTP)).unwrap();
    set_socket_timeout(&socket, Timeout::Recv, Some(wait)).unwrap();
    socket
}

fn send(socket: &OwnedFd, packet: Packet, to: Ipv4Addr) {
    sendto(socket, &packet.bytes(), SendFlags::empty(), &SocketAddrV4::new(to, 0)).unwrap();
}

/// The next packet of that type.
fn next(socket: &OwnedFd, kind: u8) -> Option<(Ipv4Addr, Packet)> {
    let mut buffer = [0_u8; 2048];
    loop {
        let (length, _) = recv(socket, &mut buffer[..], RecvFlags::empty()).ok()?;
        let (source, packet) = Packet::parse(&buffer[..length]).expect("a whole packet with its sum");
        if packet.kind == kind {
            return Some((source, packet));
        }
    }
}

/// Sends a packet to the machine until one arrives, as clients do (RFC 9260, 5.1.2): the kernel drops what comes before it has seen
/// the carrier of a new container's link.
fn begin_until(client: &OwnedFd, begin: Packet, server: &OwnedFd) -> (Ipv4Addr, Packet) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        send(client, begin, MACHINE);
        if let Some(arrived) = next(server, INIT) {
            return arrived;
        }
        assert!(Instant::now() < deadline, "nothing arrives");
    }
}

fn sctp(host_port: u16, container_port: u16) -> PortRequest {
    PortRequest { protocol: Protocol::Sctp, ..publish(None, host_port, container_port) }
}

#[test]
fn privileged_an_association_is_made_through_a_published_port_of_sctp() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let ports = [sctp(8080, 80), sctp(8081, 81)];
        let one = networks.join(&request("one", &ports)).unwrap();
        let server = inside(one.namespace.as_fd(), || listener(Duration::from_secs(1)));
        let client = inside(lab.second.as_fd(), || listener(DEADLINE));
        for (port, inner) in [(8080, 80), (8081, 81)] {
            let begin = Packet { from: 5000, to: port, tag: 0, kind: INIT };
            let arrived = begin_until(&client, begin, &server);
            assert_eq!(arrived, (NEIGHBOUR, Packet { to: inner, ..begin }), "with the client's address");
            let answer = Packet { from: inner, to: 5000, tag: TAG, kind: INIT_ACK };
            send(&server, answer, NEIGHBOUR);
            assert_eq!(next(&client, INIT_ACK), Some((MACHINE, Packet { from: port, ..answer })));
        }
    });
}

#[test]
fn privileged_ports_of_sctp_go_with_their_container_and_others_stay_shut() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let one = networks.join(&request("one", &[sctp(8080, 80)])).unwrap();
        let address = one.place.endpoints[0].ipv4.unwrap().address;
        let server = inside(one.namespace.as_fd(), || listener(Duration::from_millis(300)));
        let client = inside(lab.second.as_fd(), || listener(DEADLINE));
        let begin = |to| Packet { from: 5000, to, tag: 0, kind: INIT };
        for (to, port) in [(MACHINE, 80), (MACHINE, 8081), (address, 80), (address, 8080)] {
            send(&client, begin(port), to);
            assert_eq!(next(&server, INIT), None, "{to}:{port}");
        }
        // A port of one protocol is none of another, and both may be published.
        let two = networks.join(&request("two", &[publish(None, 8080, 80)])).unwrap();
        let refused = networks.join(&request("three", &[sctp(8080, 80)])).map(drop).unwrap_err();
        assert!(errdefs::chain(&refused).contains("port is already allocated"), "{refused:?}");
        begin_until(&client, begin(8080), &server);
        networks.leave("one").unwrap();
        let three = networks.join(&request("three", &[sctp(8080, 80)])).unwrap();
        let next_one = inside(three.namespace.as_fd(), || listener(Duration::from_secs(1)));
        begin_until(&client, Packet { from: 5001, ..begin(8080) }, &next_one);
        drop(two);
    });
}
