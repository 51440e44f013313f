//! What the containers of a user's network are connected by. Pure.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::parent::{Origin, ParentDriver};
use crate::template::Template;

/// Which driver a network wants, by Docker's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverKind {
    /// A bridge of this machine's.
    #[default]
    Bridge,
    /// Links with Ethernet addresses of their own on top of one of this machine's.
    Macvlan,
    /// Links with the Ethernet address of the one below.
    Ipvlan,
    /// The link itself, which one container has at a time. No driver of Docker's.
    HostInterface,
    /// None: the network is a configuration for others.
    Template,
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DriverKind::Bridge => "bridge",
            DriverKind::Macvlan => "macvlan",
            DriverKind::Ipvlan => "ipvlan",
            DriverKind::HostInterface => "host-interface",
            DriverKind::Template => "null",
        })
    }
}

/// What the containers of a network are connected by. Its fields stand among those of the network's record, as they did
/// before there was a choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Driver {
    /// A bridge of this machine's, which leads them out and their ports in.
    Bridge(BridgeDriver),
    /// A link of this machine's, on top of which they have links: what is on the other side of it is their neighbour, and
    /// this machine is not.
    Parent(ParentDriver),
    /// Nothing: nobody joins a configuration.
    Template(Template),
}

/// A bridge, and the rules about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeDriver {
    /// The bridge's name.
    pub bridge: String,
    /// Whether the bridge was there before, and stays when the network goes.
    pub adopted: bool,
    /// The largest packet in bytes.
    pub mtu: u32,
    /// Whether containers on it reach each other.
    pub icc: bool,
    /// Whether they reach other networks with the host's address.
    pub masquerade: bool,
    /// The host address that ports are published on when nobody names one.
    pub host_address: Option<Ipv4Addr>,
    /// What the names of interfaces in containers begin with.
    pub interface_prefix: String,
}

impl Driver {
    /// Which one it is.
    pub fn kind(&self) -> DriverKind {
        match self {
            Driver::Bridge(_) => DriverKind::Bridge,
            Driver::Parent(parent) => parent.kind(),
            Driver::Template(_) => DriverKind::Template,
        }
    }

    /// The bridge, of a network that has one.
    pub fn bridge(&self) -> Option<&BridgeDriver> {
        match self {
            Driver::Bridge(bridge) => Some(bridge),
            Driver::Parent(_) | Driver::Template(_) => None,
        }
    }

    /// The link of this machine's on which containers stand, of a network that has one.
    pub fn parent(&self) -> Option<&ParentDriver> {
        match self {
            Driver::Parent(parent) => Some(parent),
            Driver::Bridge(_) | Driver::Template(_) => None,
        }
    }

    /// The link on this machine that was made for the network, and goes with it.
    pub(crate) fn own_link(&self) -> Option<&str> {
        match self {
            Driver::Bridge(bridge) => (!bridge.adopted).then_some(&bridge.bridge),
            Driver::Parent(parent) => (parent.origin != Origin::Machine).then_some(&parent.parent),
            Driver::Template(_) => None,
        }
    }

    /// Whether nobody but the network's containers is on it, whatever was asked for.
    pub(crate) fn leads_nowhere(&self) -> bool {
        self.parent().is_some_and(|parent| parent.origin == Origin::Nowhere)
    }

    /// What the names of interfaces in containers begin with.
    pub(crate) fn interface_prefix(&self) -> &str {
        match self {
            Driver::Bridge(bridge) => &bridge.interface_prefix,
            Driver::Parent(_) | Driver::Template(_) => "eth",
        }
    }
}
