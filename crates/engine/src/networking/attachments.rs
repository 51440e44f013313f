//! The networks that a container is to be on: what its record says of each, and what that comes to.
//!
//! A record names networks as users do; the id is added when the container has been on one. From then on the id counts, so
//! that a network of the same name that somebody made later is another one, as with dockerd.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use container_spec::InvalidRequest;
use container_spec::validate::{ENDPOINT_SYSCTLS, EndpointFault, listed, validate_endpoint};
use engine_api::container::{EndpointSettings, NetworkingConfig};
use errdefs::ErrorKind;
use network::{AddressRange, DEFAULT, EndpointRequest, Networks, UserNetwork};

use super::find::{self, Found, find};
use super::{Attachments, ConnectError, Mode, view};
use crate::Engine;
use crate::container::Container;
use crate::container::record::Definition;

/// The driver's option that names a container's interface.
const INTERFACE: &str = "com.docker.network.endpoint.ifname";

/// Why a container cannot have what it wants of a network. The sentences are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The settings, at the container's creation.
    #[error("invalid config for network {network}: invalid endpoint settings:\n{}", listed(faults))]
    Config {
        /// Which network.
        network: String,
        /// What is wrong.
        faults: Vec<EndpointFault>,
    },
    /// The settings, later.
    #[error("invalid endpoint settings:\n{}", listed(.0))]
    Settings(Vec<EndpointFault>),
    /// The Ethernet address is none.
    #[error("invalid MAC address {0}")]
    Mac(String),
}

impl EndpointError {
    /// Always the caller's mistake.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// By which crate `network` knows the network of a record; by its name where it was never joined.
pub(crate) fn key<'a>(name: &'a str, settings: &'a EndpointSettings) -> &'a str {
    if name == DEFAULT || settings.network_id.is_empty() { name } else { &settings.network_id }
}

/// The names of a container on a user's network: its own first, which reverse look-ups answer with.
pub(crate) fn dns_names(definition: &Definition, name: &str, settings: &EndpointSettings) -> Vec<String> {
    let aliases = settings.aliases.iter().flatten().cloned();
    let own = [definition.id.short().to_owned(), definition.config.hostname.clone()];
    let mut names: Vec<String> = Vec::new();
    for one in std::iter::once(name.to_owned()).chain(aliases).chain(own) {
        if !one.is_empty() && !names.contains(&one) {
            names.push(one);
        }
    }
    names
}

/// What a request for a container says of networks, for its record: nothing where it says no more than the mode does.
pub(crate) fn plan(
    engine: &Engine,
    mode: &str,
    networking: Option<NetworkingConfig>,
) -> Result<Option<Attachments>, EndpointError> {
    let endpoints = networking.and_then(|networking| networking.endpoints_config).unwrap_or_default();
    let mode = if matches!(mode, "" | "default") { DEFAULT } else { mode };
    let shares = matches!(mode, "host" | "none") || mode.starts_with("container:");
    if shares || mode == DEFAULT && endpoints.iter().all(|(name, wanted)| is_plain_default(name, wanted)) {
        return Ok(None);
    }
    let mut planned = Attachments::new();
    for (name, settings) in endpoints {
        let found = find(engine, if name == "default" { DEFAULT } else { &name });
        check(found.as_ref(), &settings).map_err(|faults| EndpointError::Config { network: name.clone(), faults })?;
        check_mac(&settings)?;
        planned.insert(found.map_or(name, |found| found.name().to_owned()), wish(settings));
    }
    if planned.is_empty() {
        let name = find(engine, mode).map_or_else(|| mode.to_owned(), |found| found.name().to_owned());
        planned.insert(name, EndpointSettings::default());
    }
    Ok(Some(planned))
}

fn is_plain_default(name: &str, settings: &EndpointSettings) -> bool {
    matches!(name, "default" | DEFAULT) && *settings == EndpointSettings::default()
}

/// What somebody wants, without what would be an answer.
pub(crate) fn wish(settings: EndpointSettings) -> EndpointSettings {
    EndpointSettings {
        ipam_config: settings.ipam_config,
        links: settings.links,
        aliases: settings.aliases,
        mac_address: settings.mac_address,
        driver_opts: settings.driver_opts,
        gw_priority: settings.gw_priority,
        ..EndpointSettings::default()
    }
}

/// What is wrong with the settings for a network, which may not be there yet.
pub(crate) fn check(network: Option<&Found>, settings: &EndpointSettings) -> Result<(), Vec<EndpointFault>> {
    let predefined = matches!(network, Some(Found::Predefined(_)));
    let mut faults = validate_endpoint(settings, !predefined);
    if let Some(Found::User(network)) = network {
        let ipv4 = wanted_ipv4(settings).and_then(|wanted| outside(network, wanted.into()));
        let ipv6 = wanted_ipv6(settings).and_then(|wanted| outside(network, wanted.into()));
        faults.extend(ipv4.into_iter().chain(ipv6));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// What is wrong with an address on the default bridge depends on whether somebody has chosen that one's addresses.
pub(crate) fn about_bridge(
    bridge: Option<&network::Config>,
    networking: Option<&NetworkingConfig>,
    err: InvalidRequest,
) -> InvalidRequest {
    let InvalidRequest::Endpoint { network, mut faults } = err else { return err };
    let chosen = bridge.filter(|_| network == DEFAULT).and_then(|bridge| bridge.bip.or(bridge.fixed_cidr));
    let mut endpoints = networking.and_then(|networking| networking.endpoints_config.as_ref()).into_iter().flatten();
    let settings = endpoints.find(|(name, _)| matches!(name.as_str(), "default" | DEFAULT));
    let wanted = settings.and_then(|(_, settings)| wanted_ipv4(settings));
    // That of IPv4 comes first.
    let at = faults.iter().position(|fault| *fault == EndpointFault::Subnet);
    if let (Some(chosen), Some(wanted), Some(at)) = (chosen, wanted, at) {
        match chosen.contains(wanted.into()) {
            true => _ = faults.remove(at),
            false => faults[at] = EndpointFault::Outside(wanted.to_string()),
        }
    }
    InvalidRequest::Endpoint { network, faults }
}

/// Addresses are wanted of subnets that somebody has chosen; that of a family which the network does not have is taken
/// and forgotten, as with dockerd.
fn outside(network: &UserNetwork, wanted: IpAddr) -> Option<EndpointFault> {
    let of_family = |range: &&AddressRange| range.subnet.address.is_ipv4() == wanted.is_ipv4();
    let mut chosen =
        network.ranges().chain(&network.idle).filter(of_family).filter(|range| !range.from_pools).peekable();
    if chosen.peek().is_none() {
        return Some(EndpointFault::Subnet);
    }
    (!chosen.any(|range| range.subnet.contains(wanted))).then(|| EndpointFault::Outside(wanted.to_string()))
}

/// Refuses what is no Ethernet address.
pub(crate) fn check_mac(settings: &EndpointSettings) -> Result<(), EndpointError> {
    let given = &settings.mac_address;
    if given.is_empty() || mac(given).is_some() { Ok(()) } else { Err(EndpointError::Mac(given.clone())) }
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
    if digits.len() != 12 || !digits.is_ascii() {
        return None;
    }
    let mut mac = [0; 6];
    for (byte, at) in mac.iter_mut().zip((0..12).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(mac)
}

fn wanted_ipv4(settings: &EndpointSettings) -> Option<Ipv4Addr> {
    settings.ipam_config.as_ref()?["IPv4Address"].as_str()?.parse().ok()
}

fn wanted_ipv6(settings: &EndpointSettings) -> Option<Ipv6Addr> {
    settings.ipam_config.as_ref()?["IPv6Address"].as_str()?.parse().ok()
}

/// What settings come to on a network.
pub(crate) fn request(key: &str, settings: &EndpointSettings) -> EndpointRequest {
    let link_local = settings.ipam_config.as_ref().and_then(|ipam| ipam["LinkLocalIPs"].as_array());
    let link_local = link_local.into_iter().flatten().filter_map(|one| one.as_str()?.parse().ok());
    let option = |name: &str| settings.driver_opts.as_ref()?.get(name).cloned();
    EndpointRequest {
        mac: mac(&settings.mac_address),
        ipv4: wanted_ipv4(settings),
        ipv6: wanted_ipv6(settings),
        link_local: link_local.collect(),
        interface: option(INTERFACE).filter(|name| !name.is_empty()),
        sysctls: option(ENDPOINT_SYSCTLS).map(|all| all.split(',').map(str::to_owned).collect()).unwrap_or_default(),
        gateway_priority: settings.gw_priority,
        ..EndpointRequest::on(key)
    }
}

/// What a container that is about to start wants of its networks, the one of its mode first.
pub(crate) fn requests(engine: &Engine, container: &Container) -> Result<Vec<EndpointRequest>, ConnectError> {
    let mode = Mode::of(&container.definition);
    if matches!(mode, Mode::Host | Mode::Container(_)) {
        return Ok(Vec::new());
    }
    let Some(networks) = container.live().networks.clone() else {
        return Ok(if mode == Mode::Bridge { vec![EndpointRequest::on(DEFAULT)] } else { Vec::new() });
    };
    let first = match mode {
        Mode::User(name) => find(engine, name).map(|found| found.name().to_owned()),
        _ => Some(DEFAULT.to_owned()),
    };
    let mut sorted: Vec<_> = networks.iter().collect();
    sorted.sort_by_key(|(name, _)| first.as_ref() != Some(name));
    let mut requests = Vec::with_capacity(sorted.len());
    for (name, settings) in sorted {
        let wanted = key(name, settings);
        let found = find(engine, wanted).ok_or_else(|| ConnectError::NoNetwork(wanted.to_owned()))?;
        check(Some(&found), settings).map_err(EndpointError::Settings)?;
        if let Some(key) = found.key() {
            requests.push(request(key, settings));
        }
    }
    Ok(requests)
}

/// By which the networks go that a container is on; where nobody said anything, that of its mode.
pub(crate) fn known(networks: &Networks, container: &Container) -> Vec<String> {
    let known = |key: &str| find::user(networks, key).map_or_else(|| key.to_owned(), |network| network.id.clone());
    let wanted = container.live().networks.clone();
    match wanted {
        Some(wanted) => wanted.iter().map(|(name, settings)| known(key(name, settings))).collect(),
        None => view::network_name(&container.definition).into_iter().map(known).collect(),
    }
}

/// Notes in the container's record on which networks it is now.
pub(crate) fn note(networks: &Networks, container: &Container, place: &network::Place) {
    let Some(wanted) = container.live().networks.clone() else { return };
    let mut noted = Attachments::clone(&wanted);
    for (name, settings) in &mut noted {
        let user = find::user(networks, key(name, settings));
        let key = user.as_ref().map_or(DEFAULT, |network| network.id.as_str());
        if user.is_none() && name != DEFAULT {
            continue;
        }
        if let Some(endpoint) = place.on(key) {
            settings.network_id.clone_from(&endpoint.network_id);
            settings.dns_names = user.map(|_| Vec::new());
        }
    }
    if noted != *wanted {
        container.live().networks = Some(Arc::new(noted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        let settings = serde_json::from_str(
            r#"{"IPAMConfig":{"IPv4Address":"10.1.2.3","IPv6Address":"fd00::3","LinkLocalIPs":["169.254.1.1","fe80::9"]},"MacAddress":"02-42-AC-11-00-09",
               "DriverOpts":{"com.docker.network.endpoint.ifname":"lan0"},"GwPriority":7}"#,
        );
        let settings: EndpointSettings = settings.unwrap();
        let expected = EndpointRequest {
            mac: Some([2, 0x42, 0xac, 0x11, 0, 9]),
            ipv4: Some(Ipv4Addr::new(10, 1, 2, 3)),
            ipv6: Some("fd00::3".parse().unwrap()),
            link_local: vec![IpAddr::from([169, 254, 1, 1]), "fe80::9".parse().unwrap()],
            interface: Some("lan0".to_owned()),
            gateway_priority: 7,
            ..EndpointRequest::on("x")
        };
        assert_eq!(request("x", &settings), expected);
        assert_eq!(request("x", &EndpointSettings::default()), EndpointRequest::on("x"));
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        for (given, good) in [("", true), ("02:42:ac:11:00:09", true), ("0242.ac11.0009", true), ("1:2", false)] {
            let settings = EndpointSettings { mac_address: given.to_owned(), ..EndpointSettings::default() };
            assert_eq!(check_mac(&settings).is_ok(), good, "{given}");
        }
    }
}
