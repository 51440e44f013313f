//! Links: bridges, veth pairs, links on top of others, and their attributes.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::error::NetlinkError;
use crate::message::{self, CREATE, DUMP, EXCLUSIVE, Message};
use crate::socket::{Request, Socket};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// An Ethernet address as users write it: `02:42:ac:11:00:02`.
pub fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The longest name of an interface in bytes (IFNAMSIZ without the NUL).
pub const NAME_MAX: usize = 15;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const AF_BRIDGE: u8 = 7;
const AF_INET6: u16 = 10;
const IFF_UP: u32 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_BCAST_FLOOD: u16 = 30;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const BR_STATE_DISABLED: u8 = 0;

/// A link as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// "bridge", "veth"; empty for hardware.
    pub kind: String,
    /// Its Ethernet address, if it has one of six bytes.
    pub mac: Option<Mac>,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// The largest packet in bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
}

/// A bridge to create.
#[derive(Clone, Debug)]
pub struct Bridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address. A bridge without one of its own takes over that of a port, and changes it when ports come and go.
    pub mac: Mac,
    /// The largest packet in bytes.
    pub mtu: u32,
}

/// A veth pair to create, one end here and the other in another network namespace.
#[derive(Clone, Copy, Debug)]
pub struct VethPair<'a> {
    /// The name of the end here.
    pub name: &'a str,
    /// The number of the bridge that the end here becomes a port of.
    pub master: u32,
    /// The largest packet in bytes, of both ends.
    pub mtu: u32,
    /// The name of the other end.
    pub peer_name: &'a str,
    /// The network namespace of the other end.
    pub peer_namespace: BorrowedFd<'a>,
}

/// What a link on top of another one is; numbers as the kernel's linux/if_link.h has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// One with an Ethernet address of its own.
    Macvlan {
        /// MACVLAN_MODE_*.
        mode: u32,
    },
    /// One with the Ethernet address of the link below.
    Ipvlan {
        /// IPVLAN_MODE_*.
        mode: u16,
        /// IPVLAN_F_*.
        flags: u16,
    },
}

impl Upper {
    /// The kernel's word for it.
    pub fn kind(self) -> &'static str {
        match self {
            Upper::Macvlan { .. } => "macvlan",
            Upper::Ipvlan { .. } => "ipvlan",
        }
    }
}

/// Creates a link on top of the one with the number `lower` here, in another network namespace; it is down. Nothing of it is
/// here at any moment.
pub fn create_upper(name: &str, lower: u32, namespace: BorrowedFd<'_>, upper: Upper) -> Request {
    let data = |data: Message| match upper {
        Upper::Macvlan { mode } => data.u32(IFLA_MACVLAN_MODE, mode),
        Upper::Ipvlan { mode, flags } => {
            data.attribute(IFLA_IPVLAN_MODE, &mode.to_ne_bytes()).attribute(IFLA_IPVLAN_FLAGS, &flags.to_ne_bytes())
        }
    };
    let message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE)
        .fixed(&header(0, 0, false))
        .text(IFLA_IFNAME, name)
        .u32(IFLA_LINK, lower)
        .u32(IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned())
        .nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, upper.kind()).nest(IFLA_INFO_DATA, data));
    Request { what: format!("create {} link {name}", upper.kind()).into(), message }
}

/// Creates a link whose frames have this tag (IEEE 802.1Q) on the link with the number `lower`; it is down.
pub fn create_vlan(name: &str, lower: u32, id: u16) -> Request {
    let message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE)
        .fixed(&header(0, 0, false))
        .text(IFLA_IFNAME, name)
        .u32(IFLA_LINK, lower)
        .nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "vlan")
                .nest(IFLA_INFO_DATA, |data| data.attribute(IFLA_VLAN_ID, &id.to_ne_bytes()))
        });
    Request { what: format!("create vlan link {name}").into(), message }
}

/// Creates a link that leads nowhere; it is down.
pub fn create_dummy(name: &str) -> Request {
    let message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE)
        .fixed(&header(0, 0, false))
        .text(IFLA_IFNAME, name)
        .nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "dummy"));
    Request { what: format!("create dummy link {name}").into(), message }
}

/// Creates two links that lead to each other and nowhere else; they are down.
pub fn create_loose_pair(name: &str, other: &str) -> Request {
    let message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE)
        .fixed(&header(0, 0, false))
        .text(IFLA_IFNAME, name)
        .nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| peer.fixed(&header(0, 0, false)).text(IFLA_IFNAME, other))
            })
        });
    Request { what: format!("create veth pair {name}").into(), message }
}

/// Whether the kernel has links of this kind; it loads a module for it where there is one.
pub fn is_known(socket: &mut Socket, upper: Upper) -> Result<bool, NetlinkError> {
    // Without a link below none is made: a kernel that knows the kind misses it, and another one says that it does not.
    let message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE)
        .fixed(&header(0, 0, false))
        .nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, upper.kind()));
    let what = format!("ask for links of the kind {}", upper.kind());
    match socket.apply(vec![Request { what: what.into(), message }]) {
        Err(NetlinkError::Refused { source, .. }) if source.errno == Errno::OPNOTSUPP => Ok(false),
        Err(NetlinkError::Refused { .. }) | Ok(()) => Ok(true),
        Err(err) => Err(err),
    }
}

/// Creates a bridge, which is down.
pub fn create_bridge(bridge: &Bridge<'_>) -> Request {
    let message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE)
        .fixed(&header(0, 0, false))
        .text(IFLA_IFNAME, bridge.name)
        .u32(IFLA_MTU, bridge.mtu)
        .attribute(IFLA_ADDRESS, &bridge.mac)
        .nest(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
    Request { what: format!("create bridge {}", bridge.name).into(), message }
}

/// Creates a veth pair, whose end here is a port of a bridge; both ends are down.
pub fn create_veth(pair: &VethPair<'_>) -> Request {
    let message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE)
        .fixed(&header(0, 0, false))
        .text(IFLA_IFNAME, pair.name)
        .u32(IFLA_MTU, pair.mtu)
        .u32(IFLA_MASTER, pair.master)
        .nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.fixed(&header(0, 0, false))
                        .text(IFLA_IFNAME, pair.peer_name)
                        .u32(IFLA_MTU, pair.mtu)
                        .u32(IFLA_NET_NS_FD, pair.peer_namespace.as_raw_fd().cast_unsigned())
                })
            })
        });
    Request { what: format!("create veth pair {}", pair.name).into(), message }
}

/// Brings a link up.
pub fn set_up(name: &str) -> Request {
    let message = Message::new(RTM_NEWLINK, 0).fixed(&header(0, 0, true)).text(IFLA_IFNAME, name);
    Request { what: format!("bring up {name}").into(), message }
}

/// Keeps a link from making itself a link-local IPv6 address when it comes up.
///
/// Such addresses would announce themselves, and give containers a way around the rules for IPv4. The kernel takes this
/// only for a link that exists (EAFNOSUPPORT while it is being created).
pub fn without_link_local(name: &str) -> Request {
    let mode = |inet6: Message| inet6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
    let message = Message::new(RTM_NEWLINK, 0)
        .fixed(&header(0, 0, false))
        .text(IFLA_IFNAME, name)
        .nest(IFLA_AF_SPEC, |spec| spec.nest(AF_INET6, mode));
    Request { what: format!("keep {name} from link-local addresses").into(), message }
}

/// Makes a link a port of a bridge.
pub fn set_master(index: u32, master: u32) -> Request {
    let message = Message::new(RTM_SETLINK, 0).fixed(&header(0, index, false)).u32(IFLA_MASTER, master);
    Request { what: "plug a link into the bridge".into(), message }
}

/// Sets a link's Ethernet address; with the sysctl `arp_notify` the kernel announces its IPv4 addresses then.
pub fn set_mac(index: u32, mac: Mac) -> Request {
    let message = Message::new(RTM_SETLINK, 0).fixed(&header(0, index, false)).attribute(IFLA_ADDRESS, &mac);
    Request { what: "set the Ethernet address".into(), message }
}

/// Deletes a link. A veth costs 25 ms: not for paths where anyone waits.
pub fn delete(name: &str) -> Request {
    let message = Message::new(RTM_DELLINK, 0).fixed(&header(0, 0, false)).text(IFLA_IFNAME, name);
    Request { what: format!("delete link {name}").into(), message }
}

/// Moves a link into another network namespace, where it has this name, is down and has no addresses.
pub fn send(index: u32, namespace: BorrowedFd<'_>, name: &str) -> Request {
    let message = Message::new(RTM_SETLINK, 0)
        .fixed(&header(0, index, false))
        .text(IFLA_IFNAME, name)
        .u32(IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned());
    Request { what: format!("move link {name}").into(), message }
}

/// Deletes the link with this number.
pub fn delete_number(index: u32) -> Request {
    let message = Message::new(RTM_DELLINK, 0).fixed(&header(0, index, false));
    Request { what: format!("delete link number {index}").into(), message }
}

/// Makes a bridge pass nothing through a port any more, at once and cheaply.
///
/// Should the link just be coming up, the kernel may enable the port once more: then it gets no broadcasts at least, so
/// that nobody there answers for an address.
pub fn disable_port(name: &str, index: u32) -> Request {
    port(name, index, &[(IFLA_BRPORT_BCAST_FLOOD, 0), (IFLA_BRPORT_STATE, BR_STATE_DISABLED)])
}

/// Makes a bridge pass nothing from this port to other isolated ones.
pub fn isolate_port(name: &str, index: u32) -> Request {
    port(name, index, &[(IFLA_BRPORT_ISOLATED, 1)])
}

/// Lets a bridge pass frames back through the port that they came from.
pub fn hairpin_port(name: &str, index: u32) -> Request {
    port(name, index, &[(IFLA_BRPORT_MODE, 1)])
}

/// The link of this name, if there is one.
pub fn by_name(socket: &mut Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    let mut found = None;
    let asked = socket.ask(look_up(name), |answer| found = parse(answer.body));
    match asked {
        Err(NetlinkError::Refused { source, .. }) if source.is_missing() => Ok(None),
        Err(err) => Err(err),
        Ok(()) => Ok(found),
    }
}

pub(crate) fn look_up(name: &str) -> Request {
    let message = Message::new(RTM_GETLINK, 0).fixed(&header(0, 0, false)).text(IFLA_IFNAME, name);
    Request { what: format!("look up link {name}").into(), message }
}

/// All links, or the ports of one bridge.
pub fn list(socket: &mut Socket, master: Option<u32>) -> Result<Vec<Link>, NetlinkError> {
    let mut message = Message::new(RTM_GETLINK, DUMP).fixed(&header(0, 0, false));
    if let Some(master) = master {
        message = message.u32(IFLA_MASTER, master);
    }
    socket.list(Request { what: "list links".into(), message }, |answer| parse(answer.body))
}

fn port(name: &str, index: u32, attributes: &[(u16, u8)]) -> Request {
    let message = Message::new(RTM_SETLINK, 0).fixed(&header(AF_BRIDGE, index, false)).nest(IFLA_PROTINFO, |info| {
        attributes.iter().fold(info, |info, (kind, value)| info.attribute(*kind, &[*value]))
    });
    Request { what: format!("set up bridge port {name}").into(), message }
}

/// struct ifinfomsg: family, padding, device type, index, flags, which flags change.
fn header(family: u8, index: u32, up: bool) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        bytes[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        bytes[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    bytes
}

fn parse(body: &[u8]) -> Option<Link> {
    let attributes = body.get(16..)?;
    let number = |kind| message::attribute(attributes, kind).and_then(|value| message::word(value, 0));
    let info = message::attribute(attributes, IFLA_LINKINFO);
    Some(Link {
        index: message::word(body, 4)?,
        name: message::text(message::attribute(attributes, IFLA_IFNAME)?),
        kind: info.and_then(|info| message::attribute(info, IFLA_INFO_KIND)).map(message::text).unwrap_or_default(),
        mac: message::attribute(attributes, IFLA_ADDRESS).and_then(|mac| mac.try_into().ok()),
        master: number(IFLA_MASTER),
        mtu: number(IFLA_MTU).unwrap_or_default(),
        up: message::word(body, 8)? & IFF_UP != 0,
    })
}
