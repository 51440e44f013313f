//! Who is led to a container's ports, for whoever asks.

use std::net::IpAddr;

use netlink::{address, link};

use super::{Networks, lock};
use crate::error::NetworkError;
use crate::ports::Published;
use crate::subnet::Subnet;

/// A published port, and what becomes of who comes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess {
    /// The port.
    pub published: Published,
    /// The container's address to which it leads.
    pub to: IpAddr,
    /// Whether the relay leads there, instead of rules.
    pub relayed: bool,
}

/// Where the published ports of a container lead at this moment; those that lead nowhere are left out.
pub fn port_accesses(networks: &Networks, container: &str) -> Vec<PortAccess> {
    let state = networks.state();
    let Some(record) = state.record(container) else { return Vec::new() };
    let access = |published: &Published| {
        // What both lead to comes by rules from everywhere but ::1.
        let ruled = record.ruled_target(published);
        let to = ruled.or_else(|| record.relayed_target(published))?;
        Some(PortAccess { published: *published, to, relayed: ruled.is_none() })
    };
    record.ports.iter().filter_map(access).collect()
}

/// The addresses of this machine with the names of their links, those of our bridges left out.
pub fn host_addresses(networks: &Networks) -> Result<Vec<(String, Subnet)>, NetworkError> {
    let users = networks.users.all();
    let ours = |name: &str| {
        let of_users = users.iter().filter_map(|network| network.driver.bridge()).any(|bridge| bridge.bridge == name);
        of_users || name == networks.config.bridge_name()
    };
    let mut route = lock(&networks.route);
    let (links, addresses) = (link::list(&mut route, None)?, address::list(&mut route)?);
    let named = |one: address::Address| {
        let link = links.iter().find(|link| link.index == one.index && !ours(&link.name))?;
        Some((link.name.clone(), Subnet { address: one.address, prefix: one.prefix }))
    };
    Ok(addresses.into_iter().filter_map(named).collect())
}
