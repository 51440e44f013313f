//! IPv4 addresses of links.

use std::net::Ipv4Addr;

use crate::error::NetlinkError;
use crate::message::{self, CREATE, DUMP, Message, REPLACE};
use crate::socket::{Request, Socket};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const AF_INET: u8 = 2;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

/// An IPv4 address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The number of the link.
    pub index: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// The length of the prefix in bits.
    pub prefix: u8,
}

/// Gives a link an address, with the broadcast address of its prefix; having it already is no error.
pub fn add(address: Address) -> Request {
    let mut header = [AF_INET, address.prefix, 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&address.index.to_ne_bytes());
    let host_bits = u32::MAX.checked_shr(address.prefix.into()).unwrap_or(0);
    let broadcast = Ipv4Addr::from_bits(address.address.to_bits() | host_bits);
    let message = Message::new(RTM_NEWADDR, CREATE | REPLACE)
        .fixed(&header)
        .attribute(IFA_LOCAL, &address.address.octets())
        .attribute(IFA_ADDRESS, &address.address.octets())
        .attribute(IFA_BROADCAST, &broadcast.octets());
    Request { what: format!("add address {}/{}", address.address, address.prefix).into(), message }
}

/// All IPv4 addresses.
pub fn list(socket: &mut Socket) -> Result<Vec<Address>, NetlinkError> {
    let message = Message::new(RTM_GETADDR, DUMP).fixed(&[AF_INET, 0, 0, 0, 0, 0, 0, 0]);
    let mut addresses = Vec::new();
    socket.dump(Request { what: "list addresses".into(), message }, |answer| addresses.extend(parse(answer.body)))?;
    Ok(addresses)
}

fn parse(body: &[u8]) -> Option<Address> {
    let attributes = body.get(8..)?;
    let local = message::attribute(attributes, IFA_LOCAL).or(message::attribute(attributes, IFA_ADDRESS))?;
    let octets: [u8; 4] = local.try_into().ok()?;
    Some(Address { index: message::word(body, 4)?, address: octets.into(), prefix: *body.get(1)? })
}
