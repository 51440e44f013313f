//! Networks that users make: what is recorded of one, and what a request for one comes to. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addresses::Addresses;
use crate::driver::{BridgeDriver, Driver, DriverKind};
use crate::egress::{EGRESS, EgressError, EgressPolicy};
use crate::error::CreateError;
use crate::options::{self, GatewayMode, OptionError, Options};
use crate::parent::ParentDriver;
use crate::subnet::Subnet;
use crate::template::Template;

/// How many characters of a network's id its bridge is named by, as with dockerd.
const ID_IN_NAME: usize = 12;

/// What is wanted of a network's addresses of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// All of them; from the pools if none are wanted.
    pub subnet: Option<Subnet>,
    /// The gateway's address; the first free one if none is wanted, and if there is to be a gateway.
    pub gateway: Option<IpAddr>,
    /// The part of the addresses that are given out unasked.
    pub range: Option<Subnet>,
    /// Addresses that are given to nobody, by whatever name.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// A wanted network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserNetworkRequest {
    /// Its name; not that of another one.
    pub name: String,
    /// As given, for whoever looks.
    pub scope: String,
    /// It has no addresses of IPv4.
    pub without_ipv4: bool,
    /// Those it has.
    pub ipv4: RangeRequest,
    /// It has addresses of IPv6.
    pub with_ipv6: bool,
    /// These.
    pub ipv6: RangeRequest,
    /// More of either family, each with a subnet; of networks with a parent, which has no address of its own in any.
    pub more: Vec<RangeRequest>,
    /// Options of the address management, for whoever looks.
    pub ipam_options: Option<BTreeMap<String, String>>,
    /// It leads nowhere.
    pub internal: bool,
    /// For whoever looks: what it means concerns clusters.
    pub attachable: bool,
    /// The network that is a configuration for it, by name.
    pub config_from: Option<String>,
    /// What its containers are to be connected by.
    pub driver: DriverKind,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Free-form metadata.
    pub labels: BTreeMap<String, String>,
}

/// A network's addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRange {
    /// All of them.
    pub subnet: Subnet,
    /// Whether they came from the pools, and with them the gateway.
    pub from_pools: bool,
    /// The bridge's address, or that of whoever leads outward from a parent; none where nobody does.
    pub gateway: Option<IpAddr>,
    /// Whether somebody wanted that one.
    pub gateway_wanted: bool,
    /// The part of the addresses that are given out unasked.
    pub range: Option<Subnet>,
    /// Addresses that are given to nobody.
    pub auxiliary: BTreeMap<String, IpAddr>,
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
    /// Its addresses of IPv4. In the record their fields stand among its own, as they did before there was IPv6.
    #[serde(flatten)]
    pub ipv4: Option<AddressRange>,
    /// Its addresses of IPv6.
    #[serde(default)]
    pub ipv6: Option<AddressRange>,
    /// More of a family that it has; its containers have an address of one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<AddressRange>,
    /// What somebody wanted of a family that it does not have: it is shown, and means nothing.
    #[serde(default)]
    pub idle: Vec<AddressRange>,
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
    /// The network that was a configuration for it, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_from: Option<String>,
    /// What its containers are connected by.
    #[serde(flatten)]
    pub driver: Driver,
}

/// What a request must be told of the machine and of other networks.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings<'a> {
    /// The new network's id.
    pub(crate) id: String,
    pub(crate) now_nanos: i64,
    /// A subnet of the pools of IPv4 that nobody uses.
    pub(crate) free: Option<Subnet>,
    /// Likewise of IPv6.
    pub(crate) free_ipv6: Option<Subnet>,
    /// The subnets of all other networks of this instance.
    pub(crate) subnets: Vec<Subnet>,
    /// Bridges of other networks: name and the network's id.
    pub(crate) bridges: Vec<(&'a str, &'a str)>,
    /// Other networks with a parent: the network's id, and that.
    pub(crate) parents: Vec<(&'a str, &'a ParentDriver)>,
    /// The largest packet unless an option says otherwise.
    pub(crate) mtu: u32,
}

impl UserNetwork {
    /// Decides everything about a new network.
    pub(crate) fn plan(request: UserNetworkRequest, around: Surroundings<'_>) -> Result<UserNetwork, CreateError> {
        check_egress(&request)?;
        let driver = match request.driver {
            DriverKind::Bridge => Driver::Bridge(plan_bridge(&request, &around)?),
            DriverKind::Template => Driver::Template(Template::of(&request)),
            kind => Driver::Parent(ParentDriver::plan(kind, &request.options, &around.id)?),
        };
        let modes = options::gateway_modes(&request.options);
        let inhibited = request.internal && options::inhibits_ipv4(&request.options);
        let gateway = |ipv6: bool| match &driver {
            // This machine is not there, and somebody else leads nowhere.
            Driver::Bridge(_) if modes[usize::from(ipv6)] == GatewayMode::Isolated || inhibited && !ipv6 => {
                Gateway::Wanted
            }
            Driver::Bridge(_) | Driver::Template(_) => Gateway::Always,
            // Nobody asks it for anything, or there is nobody.
            Driver::Parent(parent) if request.internal || driver.leads_nowhere() || !parent.has_gateway() => {
                Gateway::Wanted
            }
            Driver::Parent(_) => Gateway::Always,
        };
        let (mut families, mut idle) = ([None, None], Vec::new());
        let wanted = [(!request.without_ipv4, request.ipv4), (request.with_ipv6, request.ipv6)];
        // A link that moves as a whole has addresses of its own.
        let brings = |range: &RangeRequest| request.driver == DriverKind::HostInterface && range.subnet.is_none();
        for (at, (enabled, range)) in wanted.into_iter().enumerate() {
            let enabled = enabled && request.driver != DriverKind::Template && !brings(&range);
            let free = if at == 0 { around.free } else { around.free_ipv6 };
            match enabled {
                true => families[at] = Some(AddressRange::plan(range, free, &around.subnets, gateway(at == 1))?),
                false => idle.extend(AddressRange::of_nobody(range)),
            }
        }
        let mut more: Vec<AddressRange> = Vec::new();
        for range in request.more {
            let ipv6 = range.subnet.is_some_and(|subnet| subnet.address.is_ipv6());
            if families[usize::from(ipv6)].is_none() {
                idle.extend(AddressRange::of_nobody(range));
                continue;
            }
            let own = families.iter().flatten().chain(&more).map(|one| one.subnet);
            let others: Vec<Subnet> = around.subnets.iter().copied().chain(own).collect();
            more.push(AddressRange::plan(range, None, &others, gateway(ipv6))?);
        }
        // dockerd's order: a network of which both are wrong is refused for its addresses.
        if let Some(parent) = driver.parent() {
            parent.check(around.parents.iter().copied())?;
        }
        let [ipv4, ipv6] = families;
        Ok(UserNetwork {
            id: around.id,
            name: request.name,
            created_at_nanos: around.now_nanos,
            scope: if request.scope.is_empty() { "local".to_owned() } else { request.scope },
            ipv4,
            ipv6,
            more,
            idle,
            ipam_options: request.ipam_options,
            internal: request.internal,
            attachable: request.attachable,
            options: request.options,
            labels: request.labels,
            config_from: request.config_from,
            driver,
        })
    }

    /// Its addresses of each family that it has, of some more than once.
    pub fn ranges(&self) -> impl Iterator<Item = &AddressRange> {
        self.ipv4.iter().chain(&self.ipv6).chain(&self.more)
    }

    /// Whether its containers reach nobody but each other, whatever was asked for.
    pub fn leads_nowhere(&self) -> bool {
        let unled = || self.driver.kind() == DriverKind::HostInterface && self.gateways().is_empty();
        self.internal || self.driver.leads_nowhere() || unled()
    }

    /// What its containers may begin connections to, beside what their own policies say.
    pub fn egress(&self) -> Option<EgressPolicy> {
        // It was read when the network was made; those of earlier daemons had another meaning, which was none.
        self.options.get(EGRESS)?.parse().ok()
    }

    /// How its containers and everybody else reach each other, by IPv4 and by IPv6; of one without a bridge that says nothing.
    pub fn gateway_modes(&self) -> [GatewayMode; 2] {
        match self.driver.bridge() {
            Some(_) => options::gateway_modes(&self.options),
            None => [GatewayMode::Nat; 2],
        }
    }

    /// The links of this machine whose neighbours reach published ports at its containers' own addresses.
    pub(crate) fn trusted_interfaces(&self) -> Vec<String> {
        self.driver.bridge().map_or_else(Vec::new, |_| options::trusted_interfaces(&self.options))
    }

    /// Whether this machine is not on it by a family of addresses that it has.
    pub(crate) fn is_isolated(&self, ipv6: bool) -> bool {
        let range = if ipv6 { &self.ipv6 } else { &self.ipv4 };
        range.is_some() && self.gateway_modes()[usize::from(ipv6)] == GatewayMode::Isolated
    }

    /// The addresses of its gateways, with the lengths of their prefixes; none of a family by which this machine is not there.
    pub(crate) fn gateways(&self) -> Vec<Subnet> {
        let is_there = |gateway: &Subnet| !self.is_isolated(gateway.address.is_ipv6());
        self.ranges().filter_map(AddressRange::gateway).filter(is_there).collect()
    }

    /// Those of them that the bridge has.
    pub(crate) fn bridge_addresses(&self) -> Vec<Subnet> {
        let somebody_else = self.driver.bridge().is_some() && options::inhibits_ipv4(&self.options);
        self.gateways().into_iter().filter(|gateway| gateway.address.is_ipv6() || !somebody_else).collect()
    }

    /// Its addresses, of which none are taken but those that nobody gets.
    pub(crate) fn addresses(&self) -> Vec<Addresses> {
        self.ranges().map(AddressRange::addresses).collect()
    }
}

/// Whether a network has a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gateway {
    Always,
    /// Only where somebody names one.
    Wanted,
}

impl AddressRange {
    fn plan(
        request: RangeRequest,
        free: Option<Subnet>,
        others: &[Subnet],
        gateway: Gateway,
    ) -> Result<AddressRange, CreateError> {
        let subnet = match request.subnet {
            Some(wanted) if others.iter().any(|one| one.overlaps(wanted)) => return Err(CreateError::Overlap),
            Some(wanted) => wanted,
            None => free.ok_or(CreateError::Exhausted { in_the_way: None })?,
        };
        let gateway = match gateway {
            Gateway::Wanted if request.gateway.is_none() => None,
            _ => Some(plan_gateway(&request, subnet)?),
        };
        let mut addresses = Addresses::new(subnet, request.range, gateway);
        for (name, address) in &request.auxiliary {
            addresses
                .set_aside(*address)
                .map_err(|_| CreateError::AuxiliaryTaken { name: name.clone(), address: *address })?;
        }
        Ok(AddressRange {
            subnet,
            from_pools: request.subnet.is_none(),
            gateway,
            gateway_wanted: request.gateway.is_some(),
            range: request.range,
            auxiliary: request.auxiliary,
        })
    }

    /// What is wanted of a family that the network does not have.
    fn of_nobody(request: RangeRequest) -> Option<AddressRange> {
        let subnet = request.subnet?;
        Some(AddressRange {
            subnet,
            from_pools: false,
            gateway: Some(request.gateway.unwrap_or(subnet.address)),
            gateway_wanted: request.gateway.is_some(),
            range: request.range,
            auxiliary: request.auxiliary,
        })
    }

    fn gateway(&self) -> Option<Subnet> {
        Some(Subnet { address: self.gateway?, prefix: self.subnet.prefix })
    }

    fn addresses(&self) -> Addresses {
        let mut addresses = Addresses::new(self.subnet, self.range, self.gateway);
        for address in self.auxiliary.values() {
            // They were free when the network was planned.
            let _ = addresses.set_aside(*address);
        }
        addresses
    }
}

/// Refuses a policy that is none, or that nobody could keep.
fn check_egress(request: &UserNetworkRequest) -> Result<(), CreateError> {
    let Some(text) = request.options.get(EGRESS) else { return Ok(()) };
    let policy: EgressPolicy = text.parse()?;
    match request.driver {
        DriverKind::Bridge => Ok(()),
        _ if !policy.restricts() => Ok(()),
        driver => Err(CreateError::EgressKept(EgressError::NoBridge { network: request.name.clone(), driver })),
    }
}

fn plan_bridge(request: &UserNetworkRequest, around: &Surroundings<'_>) -> Result<BridgeDriver, CreateError> {
    let options = options::parse(&request.options)?;
    if !request.internal && options::gateway_modes(&request.options).contains(&GatewayMode::Isolated) {
        return Err(OptionError::NotInternal.into());
    }
    Ok(BridgeDriver {
        bridge: bridge_name(&options, around)?,
        adopted: false,
        mtu: options.mtu.unwrap_or(around.mtu),
        icc: options.icc,
        masquerade: options.masquerade,
        host_address: options.host_address,
        interface_prefix: options.prefix.unwrap_or_else(|| "eth".to_owned()),
    })
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

fn plan_gateway(request: &RangeRequest, subnet: Subnet) -> Result<IpAddr, CreateError> {
    if subnet.prefix == 128 {
        return Err(CreateError::NoGateway);
    }
    let (network, last) = (subnet.network().address, subnet.last());
    let two = subnet.prefix + 1 >= subnet.width();
    // IPv6 has no broadcasts: its last address is one like others.
    let free = |address: &IpAddr| two || *address != network && (subnet.address.is_ipv6() || *address != last);
    if let Some(wanted) = request.gateway {
        return if free(&wanted) { Ok(wanted) } else { Err(CreateError::GatewayTaken(wanted)) };
    }
    let candidates = request.range.map_or(subnet, Subnet::network);
    // Auxiliary addresses are not looked at: dockerd takes the gateway first, and then complains about those.
    candidates.addresses().find(free).ok_or(CreateError::Exhausted { in_the_way: None })
}

#[cfg(test)]
mod tests;
