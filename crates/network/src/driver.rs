//! What the containers of a user's network are connected by. Pure.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// What the containers of a network are connected by. Its fields stand among those of the network's record, as they did
/// before there was a choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Driver {
    /// A bridge of this machine's, which leads them out and their ports in.
    Bridge(BridgeDriver),
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
    /// The bridge, of a network that has one.
    pub fn bridge(&self) -> Option<&BridgeDriver> {
        match self {
            Driver::Bridge(bridge) => Some(bridge),
        }
    }

    /// The link on this machine that was made for the network, and goes with it.
    pub(crate) fn own_link(&self) -> Option<&str> {
        match self {
            Driver::Bridge(bridge) => (!bridge.adopted).then_some(&bridge.bridge),
        }
    }

    /// What the names of interfaces in containers begin with.
    pub(crate) fn interface_prefix(&self) -> &str {
        match self {
            Driver::Bridge(bridge) => &bridge.interface_prefix,
        }
    }
}
