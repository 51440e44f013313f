//! Sockets of TCP that have a port for themselves: those that listen, and those that are bound alone (sock_diag(7)).

use std::ops::RangeInclusive;

use crate::error::NetlinkError;
use crate::family;
use crate::message::{DUMP, Message};
use crate::socket::{Request, Socket};

/// linux/sock_diag.h, linux/inet_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_BC_S_GE: u8 = 2;
const INET_DIAG_BC_S_LE: u8 = 3;
const IPPROTO_TCP: u8 = 6;
/// States, each a bit (net/tcp_states.h). Sockets that are bound alone are told of since 6.8, by a bit of their own.
const CLOSED: u32 = 1 << 7;
const LISTENING: u32 = 1 << 10;
const BOUND: u32 = 1 << 13;

/// The ports of these that some socket listens to or is bound to, of either family and at whatever address: not all of them are in
/// everybody's way. Not those of which the kernel does not tell: sockets that are bound alone, before 6.8.
pub fn ports(socket: &mut Socket, among: RangeInclusive<u16>) -> Result<Vec<u16>, NetlinkError> {
    let mut found = Vec::new();
    for family in [family::IPV4, family::IPV6] {
        let message = Message::new(SOCK_DIAG_BY_FAMILY, DUMP)
            .fixed(&request(family))
            .attribute(INET_DIAG_REQ_BYTECODE, &filter(&among));
        let told = socket.list(Request { what: "list listening sockets".into(), message }, |answer| {
            // struct inet_diag_msg: family, state, timer, retransmissions, then struct inet_diag_sockid, the local port first.
            let port = answer.body.get(4..6)?.try_into().ok()?;
            Some(u16::from_be_bytes(port)).filter(|port| among.contains(port))
        })?;
        found.extend(told);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// struct inet_diag_req_v2, whose struct inet_diag_sockid is all zero.
fn request(family: u8) -> Vec<u8> {
    let mut request = vec![family, IPPROTO_TCP, 0, 0];
    request.extend((CLOSED | LISTENING | BOUND).to_ne_bytes());
    request.resize(request.len() + 48, 0);
    request
}

/// Passes the local ports from one to another. struct inet_diag_bc_op: code, how far to go on in bytes if so, and if not; the number
/// to compare with is in the next one. Behind the end by four is no.
fn filter(among: &RangeInclusive<u16>) -> Vec<u8> {
    let step = |code: u8, yes: u8, no: u16| [&[code, yes][..], &no.to_ne_bytes()].concat();
    let number = |port: u16| step(0, 0, port);
    let (first, last) = (number(*among.start()), number(*among.end()));
    [step(INET_DIAG_BC_S_GE, 8, 20), first, step(INET_DIAG_BC_S_LE, 8, 12), last].concat()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    use rustix::net::{AddressFamily, SocketType, bind, socket};

    use super::*;
    use crate::socket::Protocol;

    #[test]
    fn ports_that_others_have_are_told() {
        let mut diagnosis = Socket::open(Protocol::Diagnosis).unwrap();
        let listeners = [
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap(),
        ];
        for port in listeners.each_ref().map(|one| one.local_addr().unwrap().port()) {
            assert_eq!(ports(&mut diagnosis, port..=port).unwrap(), [port]);
            assert!(ports(&mut diagnosis, 1..=u16::MAX).unwrap().contains(&port));
            assert!(!ports(&mut diagnosis, 1..=port - 1).unwrap().contains(&port));
        }
        // Bound alone: whether that is told depends on the kernel, and there is no error where it is not.
        let bound = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&bound, &std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = std::net::SocketAddr::try_from(rustix::net::getsockname(&bound).unwrap()).unwrap();
        let told = ports(&mut diagnosis, address.port()..=address.port()).unwrap();
        assert!(told.is_empty() || told == [address.port()]);
        #[expect(clippy::print_stdout, reason = "it depends on the kernel")]
        if told.is_empty() {
            println!("this kernel does not tell of sockets that are bound alone");
        }
    }
}
