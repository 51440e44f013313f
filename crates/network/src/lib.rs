//! Networks of containers: the default bridge, those that users make, endpoints on them, published ports.
//!
//! ```text
//!  host                                                 container
//!  eth0 --- nft table longshore-<key> -+- bridge ls<key> --- v<key>xxxxxx === eth0 172.17.0.2
//!                                      +- bridge br-<id> --- v<key>xxxxxx === eth1 172.18.0.2
//!            ports:     tcp.8080 -> 172.17.0.2:80         (veth pair; the namespace is the container's)
//!            addresses: tcp.127.0.0.1.8081 -> ...
//! ```
//!
//! - [`Networks`] is the way in: `open`, `reconcile`, then `join` and `leave` of containers, `connect` and `disconnect` of
//!   running ones, `create` and `remove` of users' networks, `close`.
//! - [`Config`], [`Subnet`] and the choice of one; [`UserNetwork`] and what a request for one comes to, with its options;
//!   [`ports`]: which host port a request gets; the addresses; all pure.
//! - `bridge`, `firewall`, `foreign`, `sandbox`: what is done to the kernel. Namespaces with a veth pair plugged into the bridge
//!   are made ahead by a thread of their own; a join only names an address inside and adds map elements outside. For users'
//!   networks pairs are made when they are asked for.
//! - [`Healer`]: what others flush is there again. `firewalld`: our bridges in a zone of it, where it is the machine's firewall.
//! - `egress`, [`EgressPolicy`]: what containers may begin connections to; [`Denials`]: what they wanted and did not get.
//! - [`ParentDriver`]: networks on top of a link of the machine's, of which nothing but that is here.
//! - `relays`: ports to which no rule leads, and the process that serves them.
//! - `record`: what survives the daemon. `store`: what survives a reboot.
//!
//! On disk, in a directory that a reboot empties (tmpfs), nothing synced:
//! ```text
//! <state_dir>/bridge.json            the network's id and subnet
//! <state_dir>/forwarding.json        whether we switched forwarding on, and so guard it until the reboot
//! <state_dir>/endpoints/<container>  its endpoints: addresses, links, published ports
//! ```
//! and synced, for good, `<data_dir>/networks.redb`: the networks that users made. Their bridges are made again at start.
//!
//! A record is written before the kernel is touched and removed after it is clean again: after a SIGKILL everything of
//! ours in the kernel has a record, or dies with a namespace that only the daemon held. [`Networks::reconcile`] removes
//! what no living container claims and replaces the whole table in one transaction.
//!
//! Leaving takes the published ports away at once and shuts the port of the bridge, so that address, name and ports are
//! free when it returns. The veth pair itself goes some 10 ms later with its namespace: deleting it would take longer.
//! A link on top of a parent is taken out of its namespace before that, through a socket which the container's entry has there:
//! its parent may have room for nobody else.
//!
//! Locks: `users.changing`, `wired`, `firewall`, `route`, `state`, in this order, `users.networks` and `guarded` last; none while waiting for
//! a sandbox, for firewalld or for the relay, but `relays` for that one, which is taken before `state` and with none of the others.
//! Everything blocks, mostly for tens of microseconds, or a millisecond where a pair is made; a join at most 20 s for its sandbox, 10 s for
//! others that choose a subnet, 5 s for firewalld and for each question to the relay.
//! Users' networks have addresses of IPv4, IPv6 or both, the default bridge of IPv4 or both.
//! Deliberately not here: names (DNS), files in /etc of containers.

mod addresses;
mod bridge;
mod config;
mod driver;
mod duties;
mod egress;
mod error;
mod firewall;
mod firewalld;
mod foreign;
mod hold;
mod later;
mod legacy;
mod networks;
mod options;
mod parent;
mod record;
mod relays;
mod resolver;
mod sandbox;
mod store;
mod subnet;
mod sysctl;
mod template;
mod together;
mod user;

pub mod ports;

pub use config::{AddressPool, Config};
pub use dbus::system_bus;
pub use driver::{BridgeDriver, Driver, DriverKind};
pub use firewalld::FirewalldState;
pub use foreign::{ForeignChain, Passage};
pub use legacy::LegacyChain;

pub use egress::{EGRESS, EgressError, EgressFault, EgressPolicy, EgressPolicyError};
pub use error::{CreateError, JoinError, NetworkError, PortError, RemoveError, SystemReason};
pub use networks::{
    DEFAULT, Denial, Denials, EgressGate, Endpoint, EndpointRequest, Healer, InterfaceAddress, JoinRequest, Joined,
    Network, Networks, Place, PortAccess, PortChange, egress_gate, enter, firewalld_state, foreign_chains,
    host_addresses, keep_ports, legacy_chains, open_egress, port_accesses, relay_end, replace_relay, republish,
    set_links, start_relays_by,
};
pub use options::{GatewayMode, OptionError};
pub use parent::{IpvlanFlag, IpvlanMode, MacvlanMode, Origin, ParentDriver, ParentError, UpperMode};
pub use ports::{PortRequest, Protocol, Published};
pub use relays::Starter;
pub use resolver::{RESOLVER, ResolverError, ResolverSockets};
pub use subnet::{Obstacle, Subnet};
pub use sysctl::{InterfaceError, SysctlError};
pub use template::Template;
pub use user::{AddressRange, RangeRequest, UserNetwork, UserNetworkRequest};
