//! IP addresses of links.

use std::net::{IpAddr, Ipv4Addr};

use crate::error::NetlinkError;
use crate::family;
use crate::message::{self, CREATE, DUMP, Message, REPLACE};
use crate::socket::{Request, Socket};

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// Of IPv6: nobody else is asked first whether he has the address, which takes a second.
const IFA_F_NODAD: u8 = 2;

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The number of the link.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// The length of the prefix in bits.
    pub prefix: u8,
}

/// Gives a link an address, of IPv4 with the broadcast address of its prefix; having it already is no error.
pub fn add(address: Address) -> Request {
    let flags = if address.address.is_ipv6() { IFA_F_NODAD } else { 0 };
    let mut header = [family::number(address.address), address.prefix, flags, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&address.index.to_ne_bytes());
    let octets = family::octets(address.address);
    let mut message = Message::new(RTM_NEWADDR, CREATE | REPLACE)
        .fixed(&header)
        .attribute(IFA_LOCAL, &octets)
        .attribute(IFA_ADDRESS, &octets);
    if let IpAddr::V4(own) = address.address {
        let host_bits = u32::MAX.checked_shr(address.prefix.into()).unwrap_or(0);
        message = message.attribute(IFA_BROADCAST, &Ipv4Addr::from_bits(own.to_bits() | host_bits).octets());
    }
    Request { what: format!("add address {}/{}", address.address, address.prefix).into(), message }
}

/// All addresses, of both families.
pub fn list(socket: &mut Socket) -> Result<Vec<Address>, NetlinkError> {
    let message = Message::new(RTM_GETADDR, DUMP).fixed(&[family::ANY, 0, 0, 0, 0, 0, 0, 0]);
    socket.list(Request { what: "list addresses".into(), message }, |answer| parse(answer.body))
}

fn parse(body: &[u8]) -> Option<Address> {
    let attributes = body.get(8..)?;
    let local = message::attribute(attributes, IFA_LOCAL).or(message::attribute(attributes, IFA_ADDRESS))?;
    Some(Address { index: message::word(body, 4)?, address: family::address(local)?, prefix: *body.get(1)? })
}
