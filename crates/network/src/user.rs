//! Networks that users make: what is recorded of one, and what a request for one comes to. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::addresses::Addresses;
use crate::error::CreateError;
use crate::options::{self, Options};
use crate::subnet::Subnet;

/// How many characters of a network's id its bridge is named by, as with dockerd.
const ID_IN_NAME: usize = 12;

/// A wanted network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserNetworkRequest {
    /// Its name; not that of another one.
    pub name: String,
    /// As given, for whoever looks.
    pub scope: String,
    /// Its addresses; from the pools if none are wanted.
    pub subnet: Option<Subnet>,
    /// The bridge's address; the first free one if none is wanted.
    pub gateway: Option<Ipv4Addr>,
    /// The part of the addresses that are given out unasked.
    pub range: Option<Subnet>,
    /// Addresses that are given to nobody, by whatever name.
    pub auxiliary: BTreeMap<String, Ipv4Addr>,
    /// Options of the address management, for whoever looks.
    pub ipam_options: Option<BTreeMap<String, String>>,
    /// It leads nowhere.
    pub internal: bool,
    /// For whoever looks: what it means concerns clusters.
    pub attachable: bool,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Free-form metadata.
    pub labels: BTreeMap<String, String>,
}

/// A network that somebody made: its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNetwork {
    /// 64 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Nanoseconds since 1970.
    pub created_at_nanos: i64,
    /// As given.
    pub scope: String,
    /// The network's addresses.
    pub subnet: Subnet,
    /// Whether they came from the pools, and with them the gateway.
    pub from_pools: bool,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// Whether somebody wanted that one.
    pub gateway_wanted: bool,
    /// The part of the addresses that are given out unasked.
    pub range: Option<Subnet>,
    /// Addresses that are given to nobody.
    pub auxiliary: BTreeMap<String, Ipv4Addr>,
    /// As given.
    pub ipam_options: Option<BTreeMap<String, String>>,
    /// It leads nowhere.
    pub internal: bool,
    /// As given.
    pub attachable: bool,
    /// As given.
    pub options: BTreeMap<String, String>,
    /// As given.
    pub labels: BTreeMap<String, String>,
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

/// What a request must be told of the machine and of other networks.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings<'a> {
    /// The new network's id.
    pub(crate) id: String,
    pub(crate) now_nanos: i64,
    /// A subnet of the pools that nobody uses.
    pub(crate) free: Option<Subnet>,
    /// The subnets of all other networks of this instance.
    pub(crate) subnets: Vec<Subnet>,
    /// Bridges of other networks: name and the network's id.
    pub(crate) bridges: Vec<(&'a str, &'a str)>,
    /// The largest packet unless an option says otherwise.
    pub(crate) mtu: u32,
}

impl UserNetwork {
    /// Decides everything about a new network.
    pub(crate) fn plan(request: UserNetworkRequest, around: Surroundings<'_>) -> Result<UserNetwork, CreateError> {
        let options = options::parse(&request.options)?;
        let bridge = bridge_name(&options, &around)?;
        let subnet = match request.subnet {
            Some(wanted) if around.subnets.iter().any(|one| one.overlaps(wanted)) => return Err(CreateError::Overlap),
            Some(wanted) => wanted,
            None => around.free.ok_or(CreateError::Exhausted { in_the_way: None })?,
        };
        let gateway = plan_gateway(&request, subnet)?;
        let mut addresses = Addresses::new(subnet, request.range, gateway);
        for (name, address) in &request.auxiliary {
            addresses
                .set_aside(*address)
                .map_err(|_| CreateError::AuxiliaryTaken { name: name.clone(), address: *address })?;
        }
        Ok(UserNetwork {
            id: around.id,
            name: request.name,
            created_at_nanos: around.now_nanos,
            scope: if request.scope.is_empty() { "local".to_owned() } else { request.scope },
            subnet,
            from_pools: request.subnet.is_none(),
            gateway,
            gateway_wanted: request.gateway.is_some(),
            range: request.range,
            auxiliary: request.auxiliary,
            ipam_options: request.ipam_options,
            internal: request.internal,
            attachable: request.attachable,
            options: request.options,
            labels: request.labels,
            bridge,
            adopted: false,
            mtu: options.mtu.unwrap_or(around.mtu),
            icc: options.icc,
            masquerade: options.masquerade,
            host_address: options.host_address,
            interface_prefix: options.prefix.unwrap_or_else(|| "eth".to_owned()),
        })
    }

    /// Its addresses, of which none are taken but those that nobody gets.
    pub(crate) fn addresses(&self) -> Addresses {
        let mut addresses = Addresses::new(self.subnet, self.range, self.gateway);
        for address in self.auxiliary.values() {
            // They were free when the network was planned.
            let _ = addresses.set_aside(*address);
        }
        addresses
    }
}

fn bridge_name(options: &Options, around: &Surroundings<'_>) -> Result<String, CreateError> {
    let Some(wanted) = &options.bridge else { return Ok(format!("br-{}", &around.id[..ID_IN_NAME])) };
    match around.bridges.iter().find(|(name, _)| name == wanted) {
        Some((_, other)) => {
            Err(CreateError::BridgeTaken { id: around.id.clone(), bridge: wanted.clone(), other: (*other).to_owned() })
        }
        None => Ok(wanted.clone()),
    }
}

fn plan_gateway(request: &UserNetworkRequest, subnet: Subnet) -> Result<Ipv4Addr, CreateError> {
    let (network, last) = (subnet.network().address, subnet.last());
    if let Some(wanted) = request.gateway {
        let reserved = subnet.prefix < 31 && (wanted == network || wanted == last);
        return if reserved { Err(CreateError::GatewayTaken(wanted)) } else { Ok(wanted) };
    }
    let candidates = request.range.map_or(subnet, Subnet::network);
    let all = candidates.network().address.to_bits()..=candidates.last().to_bits();
    let free = |address: &Ipv4Addr| subnet.prefix >= 31 || *address != network && *address != last;
    // Auxiliary addresses are not looked at: dockerd takes the gateway first, and then complains about those.
    all.map(Ipv4Addr::from_bits).find(free).ok_or(CreateError::Exhausted { in_the_way: None })
}

#[cfg(test)]
mod tests;
