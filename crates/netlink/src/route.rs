//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::NetlinkError;
use crate::family;
use crate::message::{self, CREATE, DUMP, Message, REPLACE};
use crate::socket::{Request, Socket};

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

/// A destination that the main table has a route to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The network.
    pub address: IpAddr,
    /// The length of its prefix in bits; 0 is the default route.
    pub prefix: u8,
}

/// Sends everything of the family without a route of its own to `gateway`.
pub fn set_default(gateway: IpAddr) -> Request {
    let message = default_route(gateway, RT_SCOPE_UNIVERSE).attribute(RTA_GATEWAY, &family::octets(gateway));
    Request { what: format!("set default route via {gateway}").into(), message }
}

/// Sends everything of the family of `own` without a route of its own out through the link with this number, as if everybody were
/// a neighbour there.
pub fn set_default_through(index: u32, own: IpAddr) -> Request {
    let message = default_route(own, RT_SCOPE_LINK).u32(RTA_OIF, index);
    Request { what: format!("set default route through link number {index}").into(), message }
}

/// A default route of the family of an address.
fn default_route(of: IpAddr, scope: u8) -> Message {
    let table = RT_TABLE_MAIN;
    Message::new(RTM_NEWROUTE, CREATE | REPLACE).fixed(&[
        family::number(of),
        0,
        0,
        0,
        table,
        RTPROT_BOOT,
        scope,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ])
}

/// The destinations of the main table, of both families.
pub fn list(socket: &mut Socket) -> Result<Vec<Destination>, NetlinkError> {
    let message = Message::new(RTM_GETROUTE, DUMP).fixed(&[family::ANY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    socket.list(Request { what: "list routes".into(), message }, |answer| parse(answer.body))
}

fn parse(body: &[u8]) -> Option<Destination> {
    if *body.get(4)? != RT_TABLE_MAIN {
        return None;
    }
    let address = match (message::attribute(body.get(12..)?, RTA_DST), *body.first()?) {
        (Some(octets), _) => family::address(octets)?,
        (None, family::IPV4) => Ipv4Addr::UNSPECIFIED.into(),
        (None, family::IPV6) => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    Some(Destination { address, prefix: *body.get(1)? })
}
