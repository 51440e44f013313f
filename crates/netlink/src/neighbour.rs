//! Which Ethernet address a neighbour has.

use std::net::IpAddr;

use crate::family;
use crate::link::Mac;
use crate::message::{CREATE, Message, REPLACE};
use crate::socket::Request;

const RTM_NEWNEIGH: u16 = 28;
const NUD_REACHABLE: u16 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// States that `address` is reached at `mac`, as if it had just answered; the fact ages as learned ones do.
pub fn set(index: u32, address: IpAddr, mac: Mac) -> Request {
    let mut header = [0; 12];
    header[0] = family::number(address);
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&NUD_REACHABLE.to_ne_bytes());
    let message = Message::new(RTM_NEWNEIGH, CREATE | REPLACE)
        .fixed(&header)
        .attribute(NDA_DST, &family::octets(address))
        .attribute(NDA_LLADDR, &mac);
    Request { what: format!("set neighbour {address}").into(), message }
}
