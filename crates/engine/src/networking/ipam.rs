//! What a request for a network comes to, and what is refused of it, in dockerd's words. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use container_spec::validate::listed;
use engine_api::network::{Ipam, IpamConfig, NetworkCreate};
use errdefs::ErrorKind;
use network::{DriverKind, RangeRequest, Subnet, UserNetworkRequest};

/// Why a request for a network is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It has no name.
    #[error("invalid name: name is empty")]
    NoName,
    /// The name is that of a network that is always there.
    #[error("operation is not permitted on predefined {0} network ")]
    Predefined(String),
    /// There is one of its kind, and never another one.
    #[error("only one instance of \"{0}\" network is allowed")]
    OnlyOne(String),
    /// No driver of this name.
    #[error("plugin {0:?} not found")]
    Driver(String),
    /// It takes a cluster.
    #[error(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
         swarm and try again."
    )]
    NotInSwarm,
    /// Likewise.
    #[error("cannot create a swarm scoped network when swarm is not active")]
    SwarmScope,
    /// Likewise.
    #[error("Ingress network can only be global scope network")]
    Ingress,
    /// It would have no addresses at all.
    #[error("IPv4 or IPv6 must be enabled")]
    NoFamily,
    /// An option that says yes or no says something else.
    #[error("driver-opt {0:?} is not a valid bool")]
    NoBool(&'static str),
    /// Its addresses do not go together.
    #[error("invalid network config:\n{}", listed(.0))]
    Addresses(Vec<String>),
    /// A configuration says nothing of how its networks are used.
    #[error(
        "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | \
         attachable | scope ] are not supported."
    )]
    OperatorFields,
    /// A configuration is whole.
    #[error("a configuration network cannot depend on another configuration network")]
    ConfigurationOfAnother,
    /// Whoever takes a configuration says nothing of his own.
    #[error("user specified configurations are not supported if the network depends on a configuration network")]
    OwnConfiguration,
    /// Likewise.
    #[error("network driver options are not supported if the network depends on a configuration network")]
    OwnOptions,
    /// A bridge has one range of addresses.
    #[error("bridge driver doesn't support multiple subnets")]
    ManySubnets,
}

impl RequestError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RequestError::NoName | RequestError::NoFamily | RequestError::NoBool(_) | RequestError::Addresses(_) => {
                ErrorKind::InvalidArgument
            }
            RequestError::Driver(_) => ErrorKind::NotFound,
            RequestError::Predefined(_)
            | RequestError::OnlyOne(_)
            | RequestError::NotInSwarm
            | RequestError::SwarmScope
            | RequestError::Ingress
            | RequestError::OperatorFields
            | RequestError::ConfigurationOfAnother
            | RequestError::OwnConfiguration
            | RequestError::OwnOptions
            | RequestError::ManySubnets => ErrorKind::Forbidden,
        }
    }
}

/// Reads a request.
pub(crate) fn plan(mut request: NetworkCreate) -> Result<UserNetworkRequest, RequestError> {
    choose_families(&mut request)?;
    refuse(&request)?;
    let config_from = config_from(&request).map(str::to_owned);
    let ipam = request.ipam.unwrap_or_default();
    let ranges = ipam.config.as_deref().unwrap_or_default();
    let faults: Vec<String> = ranges.iter().flat_map(faults).collect();
    if !faults.is_empty() {
        return Err(RequestError::Addresses(faults));
    }
    let (ipv6, ipv4): (Vec<_>, Vec<_>) = ranges.iter().cloned().partition(|range| range.subnet.contains(':'));
    let driver = if request.config_only { DriverKind::Template } else { driver(&request.driver) };
    if driver == DriverKind::Bridge && (ipv4.len() > 1 || ipv6.len() > 1) {
        return Err(RequestError::ManySubnets);
    }
    let (mut ipv4, mut ipv6) = (ipv4.into_iter().map(range), ipv6.into_iter().map(range));
    let (first, first_of_ipv6) = (ipv4.next().unwrap_or_default(), ipv6.next().unwrap_or_default());
    Ok(UserNetworkRequest {
        name: request.name,
        scope: request.scope,
        without_ipv4: request.enable_ipv4 == Some(false),
        ipv4: first,
        with_ipv6: request.enable_ipv6 == Some(true),
        ipv6: first_of_ipv6,
        more: ipv4.chain(ipv6).collect(),
        ipam_options: ipam.options,
        internal: request.internal,
        attachable: request.attachable,
        config_from,
        driver,
        options: request.options,
        labels: request.labels,
    })
}

/// The options by which a client that has no field for it asks for a family of addresses, or for none.
const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";

/// Reads them, where the request's own fields say nothing; where those do, an option is forgotten, as by dockerd.
fn choose_families(request: &mut NetworkCreate) -> Result<(), RequestError> {
    let NetworkCreate { options, enable_ipv4, enable_ipv6, .. } = request;
    for (field, option) in [(enable_ipv4, ENABLE_IPV4), (enable_ipv6, ENABLE_IPV6)] {
        match (field.is_some(), options.get(option)) {
            (true, _) => _ = options.remove(option),
            (false, Some(text)) => *field = Some(truth(text).ok_or(RequestError::NoBool(option))?),
            (false, None) => {}
        }
    }
    Ok(())
}

/// As Go's strconv.ParseBool reads it.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// One that has been looked at.
fn driver(name: &str) -> DriverKind {
    match name {
        "macvlan" => DriverKind::Macvlan,
        "ipvlan" => DriverKind::Ipvlan,
        "host-interface" => DriverKind::HostInterface,
        _ => DriverKind::Bridge,
    }
}

/// Likewise.
fn range(config: IpamConfig) -> RangeRequest {
    let address = |(name, text): (String, String)| Some((name, text.parse::<IpAddr>().ok()?));
    RangeRequest {
        subnet: config.subnet.parse().ok(),
        gateway: config.gateway.parse().ok(),
        range: config.ip_range.parse().ok(),
        auxiliary: config.auxiliary_addresses.into_iter().filter_map(address).collect(),
    }
}

/// What is refused as a whole, in dockerd's order.
fn refuse(request: &NetworkCreate) -> Result<(), RequestError> {
    if request.name.trim().is_empty() {
        return Err(RequestError::NoName);
    }
    if matches!(request.name.as_str(), "bridge" | "host" | "none" | "default") {
        return Err(RequestError::Predefined(request.name.clone()));
    }
    refuse_configuration(request)?;
    if request.ingress {
        return Err(RequestError::Ingress);
    }
    if request.scope == "swarm" {
        return Err(RequestError::SwarmScope);
    }
    match request.driver.as_str() {
        "overlay" => return Err(RequestError::NotInSwarm),
        // It has none, whatever was asked for.
        _ if request.config_only => {}
        "" | "default" | "bridge" => {}
        "host" | "null" => return Err(RequestError::OnlyOne(request.driver.clone())),
        "macvlan" | "ipvlan" | "host-interface" => {}
        driver => return Err(RequestError::Driver(driver.to_owned())),
    }
    if !request.config_only && request.enable_ipv4 == Some(false) && request.enable_ipv6 != Some(true) {
        return Err(RequestError::NoFamily);
    }
    match request.ipam.as_ref() {
        Some(Ipam { driver, .. }) if !matches!(driver.as_str(), "" | "default") => {
            Err(RequestError::Driver(driver.clone()))
        }
        _ => Ok(()),
    }
}

/// The configuration that a network is to have, by its name.
fn config_from(request: &NetworkCreate) -> Option<&str> {
    request.config_from.as_ref().map(|from| from.network.as_str()).filter(|name| !name.is_empty())
}

/// What a configuration cannot say, nor whoever takes one.
fn refuse_configuration(request: &NetworkCreate) -> Result<(), RequestError> {
    if request.config_only && (request.ingress || request.internal || request.attachable || !request.scope.is_empty()) {
        return Err(RequestError::OperatorFields);
    }
    if config_from(request).is_none() {
        return Ok(());
    }
    if request.config_only {
        return Err(RequestError::ConfigurationOfAnother);
    }
    let of_ipam = request.ipam.as_ref().is_some_and(|ipam| {
        let has = |map: &Option<BTreeMap<String, String>>| map.as_ref().is_some_and(|map| !map.is_empty());
        has(&ipam.options) || ipam.config.as_ref().is_some_and(|ranges| !ranges.is_empty())
    });
    if of_ipam || request.enable_ipv4 == Some(false) || request.enable_ipv6 == Some(true) || !request.labels.is_empty()
    {
        return Err(RequestError::OwnConfiguration);
    }
    if request.options.is_empty() { Ok(()) } else { Err(RequestError::OwnOptions) }
}

/// What is wrong with a range of addresses.
fn faults(range: &IpamConfig) -> Vec<String> {
    let Ok(subnet) = range.subnet.parse::<Subnet>() else {
        return vec![format!("invalid subnet {}: invalid CIDR block notation", range.subnet)];
    };
    if subnet.network() != subnet {
        return vec![format!("invalid subnet {subnet}: it should be {}", subnet.network())];
    }
    let mut faults = Vec::new();
    if !range.ip_range.is_empty() {
        faults.extend(range_fault(&range.ip_range, subnet));
    }
    if !range.gateway.is_empty() {
        let what = format!("gateway {}", range.gateway);
        faults.extend(address_fault(&what, &range.gateway, subnet));
    }
    for (name, address) in &range.auxiliary_addresses {
        faults.extend(address_fault(&format!("auxiliary address {name}"), address, subnet));
    }
    faults
}

fn range_fault(text: &str, subnet: Subnet) -> Option<String> {
    let Ok(range) = text.parse::<Subnet>() else {
        return Some(format!("invalid ip-range {text}: invalid CIDR block notation"));
    };
    if range.prefix < subnet.prefix {
        return Some(format!("invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"));
    }
    if range.network() != range {
        return Some(format!("invalid ip-range {text}: it should be {}", range.network()));
    }
    (!subnet.contains(range.address))
        .then(|| format!("invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"))
}

fn address_fault(what: &str, text: &str, subnet: Subnet) -> Option<String> {
    match text.parse::<IpAddr>() {
        Err(_) => Some(format!("invalid {what}: invalid address")),
        Ok(address) if !subnet.contains(address) => {
            Some(format!("invalid {what}: parent subnet {subnet} doesn't contain this address"))
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> String {
        let body = body.replace('\'', "\"");
        match plan(serde_json::from_str(&body).unwrap()) {
            Ok(request) => format!("{:?}", request.ipv4.subnet.or(request.ipv6.subnet).map(|one| one.to_string())),
            Err(err) => err.to_string(),
        }
    }

    #[test]
    fn requests_are_refused_in_dockerds_words() {
        for (body, text) in [
            ("{}", "invalid name: name is empty"),
            ("{'Name':'host'}", "operation is not permitted on predefined host network "),
            ("{'Name':'n','Driver':'nosuch'}", "plugin \"nosuch\" not found"),
            ("{'Name':'n','Driver':'null'}", "only one instance of \"null\" network is allowed"),
            ("{'Name':'n','Scope':'swarm'}", "cannot create a swarm scoped network when swarm is not active"),
            ("{'Name':'n','Ingress':true}", "Ingress network can only be global scope network"),
            ("{'Name':'n','EnableIPv4':false}", "IPv4 or IPv6 must be enabled"),
            ("{'Name':'n','ConfigOnly':true,'EnableIPv4':false,'Driver':'nosuch'}", "None"),
            (
                "{'Name':'n','ConfigOnly':true,'Scope':'local'}",
                "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.",
            ),
            (
                "{'Name':'n','ConfigOnly':true,'ConfigFrom':{'Network':'c'}}",
                "a configuration network cannot depend on another configuration network",
            ),
            ("{'Name':'n','ConfigFrom':{'Network':'c'},'Options':{}}", "None"),
            (
                "{'Name':'n','ConfigFrom':{'Network':'c'},'EnableIPv6':true}",
                "user specified configurations are not supported if the network depends on a configuration network",
            ),
            (
                "{'Name':'n','ConfigFrom':{'Network':'c'},'Options':{'a':'b'}}",
                "network driver options are not supported if the network depends on a configuration network",
            ),
            ("{'Name':'n','IPAM':{'Driver':'zz'}}", "plugin \"zz\" not found"),
            (
                "{'Name':'n','Driver':'macvlan','IPAM':{'Config':[{'Subnet':'10.9.0.0/24'},{'Subnet':'10.8.0.0/24'}]}}",
                "Some(\"10.9.0.0/24\")",
            ),
            ("{'Name':'n','Driver':'macvlan'}", "None"),
            (
                "{'Name':'n','Driver':'overlay'}",
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
            ),
            ("{'Name':'n','EnableIPv4':false,'EnableIPv6':false}", "IPv4 or IPv6 must be enabled"),
            ("{'Name':'n','EnableIPv6':true}", "None"),
            ("{'Name':'n','IPAM':{'Config':null,'Options':null}}", "None"),
        ] {
            assert_eq!(told(body), text, "{body}");
        }
    }

    #[test]
    fn ranges_that_do_not_go_together_are_all_named() {
        for (range, text) in [
            ("'Subnet':'10.9.0.0/16','IPRange':'10.9.4.0/24','Gateway':'10.9.0.9'", "Some(\"10.9.0.0/16\")"),
            ("'Subnet':'10.9.0.1/16'", "invalid subnet 10.9.0.1/16: it should be 10.9.0.0/16"),
            ("'Subnet':'zz'", "invalid subnet zz: invalid CIDR block notation"),
            ("'Gateway':'10.9.0.1'", "invalid subnet : invalid CIDR block notation"),
            (
                "'Subnet':'10.9.0.0/16','Gateway':'10.8.0.1'",
                "invalid gateway 10.8.0.1: parent subnet 10.9.0.0/16 doesn't contain this address",
            ),
            ("'Subnet':'10.9.0.0/16','Gateway':'x'", "invalid gateway x: invalid address"),
            ("'Subnet':'fd00:1::/64','Gateway':'fd00:1::9'", "Some(\"fd00:1::/64\")"),
            ("'Subnet':'fd00:1::1/64'", "invalid subnet fd00:1::1/64: it should be fd00:1::/64"),
            (
                "'Subnet':'fd00:1::/64','Gateway':'10.9.0.1'",
                "invalid gateway 10.9.0.1: parent subnet fd00:1::/64 doesn't contain this address",
            ),
            ("'Subnet':'fd00:1::/64'},{'Subnet':'10.9.0.0/16'", "Some(\"10.9.0.0/16\")"),
            ("'Subnet':'fd00:1::/64'},{'Subnet':'fd00:2::/64'", "bridge driver doesn't support multiple subnets"),
            (
                "'Subnet':'10.9.0.0/16','IPRange':'10.8.0.0/24'",
                "invalid ip-range 10.8.0.0/24: parent subnet 10.9.0.0/16 doesn't contain ip-range",
            ),
            (
                "'Subnet':'10.9.0.0/16','IPRange':'10.9.4.3/24'",
                "invalid ip-range 10.9.4.3/24: it should be 10.9.4.0/24",
            ),
            (
                "'Subnet':'10.9.0.0/16','IPRange':'10.0.0.0/8'",
                "invalid ip-range 10.0.0.0/8: CIDR block is bigger than its parent subnet 10.9.0.0/16",
            ),
            (
                "'Subnet':'10.9.0.0/16','AuxiliaryAddresses':{'r':'10.8.0.4'}",
                "invalid auxiliary address r: parent subnet 10.9.0.0/16 doesn't contain this address",
            ),
            (
                "'Subnet':'10.9.0.0/16','Gateway':'x','AuxiliaryAddresses':{'r':'y'}",
                "* invalid gateway x: invalid address\n* invalid auxiliary address r: invalid address",
            ),
        ] {
            let told = told(&format!("{{'Name':'n','IPAM':{{'Config':[{{{range}}}]}}}}"));
            assert_eq!(told.strip_prefix("invalid network config:\n").unwrap_or(&told), text, "{range}");
        }
    }
}
