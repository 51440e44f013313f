//! Forgetting tracked connections.
//!
//! The kernel translates addresses by what it decided at the first packet of a connection, and a UDP "connection" lives
//! as long as packets come: without this, a new owner of an address or port would get the packets meant for the old one.
//! And a new owner of an address would have the old one's connections, which nobody asks any more whether they may be.

use std::net::IpAddr;

use crate::error::NetlinkError;
use crate::family;
use crate::message::{self, DUMP, Message};
use crate::socket::{Request, Socket};

const CT_GET: u16 = 1 << 8 | 1;
const CT_DELETE: u16 = 1 << 8 | 2;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
/// How many are forgotten at once. Whoever sends with forged addresses makes thousands of connections, and a request for each would
/// take seconds; the refusals of so many find room in a socket that has the usual buffer (208 KiB).
const AT_ONCE: usize = 128;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_ID: u16 = 12;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
/// Of IPv4, and of IPv6.
const CTA_IP_SRC: [u16; 2] = [1, 3];
const CTA_IP_DST: [u16; 2] = [2, 4];
/// Of the status: packets have come both ways.
const IPS_SEEN_REPLY: u32 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

/// A tracked connection, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Where the first packet was sent to.
    pub destination: IpAddr,
    /// The port it was sent to.
    pub port: u16,
    /// Who answers: the destination itself, or where the packets are redirected to.
    pub answered_by: IpAddr,
    /// Whether that one has answered.
    pub is_answered: bool,
}

/// Forgets the UDP connections that `chosen` picks; answers how many it picked. Reads all tracked connections.
pub fn forget_udp(socket: &mut Socket, chosen: impl Fn(&Connection) -> bool) -> Result<usize, NetlinkError> {
    forget(socket, |attributes| parse(attributes, IPPROTO_UDP).is_some_and(|connection| chosen(&connection)))
}

/// Likewise TCP connections. What becomes of the next packet of one that stands is up to who gets it.
pub fn forget_tcp(socket: &mut Socket, chosen: impl Fn(&Connection) -> bool) -> Result<usize, NetlinkError> {
    forget(socket, |attributes| parse(attributes, IPPROTO_TCP).is_some_and(|connection| chosen(&connection)))
}

/// Forgets all connections that these addresses have begun; answers how many there were. Reads all tracked connections.
pub fn forget_begun_by(socket: &mut Socket, addresses: &[IpAddr]) -> Result<usize, NetlinkError> {
    let source = |attributes: &[u8]| address(message::attribute(attributes, CTA_TUPLE_ORIG)?, CTA_IP_SRC);
    forget(socket, |attributes| source(attributes).is_some_and(|source| addresses.contains(&source)))
}

fn forget(socket: &mut Socket, chosen: impl Fn(&[u8]) -> bool) -> Result<usize, NetlinkError> {
    let message = Message::new(CT_GET, DUMP).fixed(&header(family::ANY));
    let deletions = socket.list(Request { what: "list tracked connections".into(), message }, |answer| {
        let (family, attributes) = (*answer.body.first()?, answer.body.get(4..)?);
        if chosen(attributes) { deletion(family, attributes) } else { None }
    })?;
    let chosen = deletions.len();
    let mut deletions = deletions.into_iter();
    loop {
        let some: Vec<Request> = deletions.by_ref().take(AT_ONCE).collect();
        if some.is_empty() {
            return Ok(chosen);
        }
        match socket.apply(some) {
            // Each may have ended by itself meanwhile, which is what we want. The kernel goes on with the others.
            Err(NetlinkError::Refused { source, .. }) if source.is_missing() => {}
            forgotten => forgotten?,
        }
    }
}

/// struct nfgenmsg: the family, version 0, no resource.
fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

fn deletion(family: u8, attributes: &[u8]) -> Option<Request> {
    let mut message = Message::new(CT_DELETE, 0).fixed(&header(family));
    let original = message::attribute(attributes, CTA_TUPLE_ORIG)?;
    // The tuple goes back as it came, as a nested attribute.
    message = message.nest(CTA_TUPLE_ORIG, |tuple| tuple.fixed(original));
    if let Some(id) = message::attribute(attributes, CTA_ID) {
        message = message.attribute(CTA_ID, id);
    }
    Some(Request { what: "forget a tracked connection".into(), message })
}

fn parse(attributes: &[u8], of: u8) -> Option<Connection> {
    let original = message::attribute(attributes, CTA_TUPLE_ORIG)?;
    let reply = message::attribute(attributes, CTA_TUPLE_REPLY)?;
    let protocol = message::attribute(original, CTA_TUPLE_PROTO)?;
    if *message::attribute(protocol, CTA_PROTO_NUM)?.first()? != of {
        return None;
    }
    let port = message::attribute(protocol, CTA_PROTO_DST_PORT)?;
    let status = message::attribute(attributes, CTA_STATUS)?;
    Some(Connection {
        destination: address(original, CTA_IP_DST)?,
        port: u16::from_be_bytes(port.try_into().ok()?),
        answered_by: address(reply, CTA_IP_SRC)?,
        is_answered: u32::from_be_bytes(status.try_into().ok()?) & IPS_SEEN_REPLY != 0,
    })
}

fn address(tuple: &[u8], kinds: [u16; 2]) -> Option<IpAddr> {
    let addresses = message::attribute(tuple, CTA_TUPLE_IP)?;
    family::address(kinds.into_iter().find_map(|kind| message::attribute(addresses, kind))?)
}
