//! What users see of a container's network.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use container_spec::ports::{ContainerPort, Protocol, exposed};
use engine_api::container::{Config, EndpointSettings, NetworkSettings, Port};
use engine_api::host_config::{HostConfig, PortBinding};
use network::{DEFAULT, Endpoint, InterfaceAddress, Place, Published};

use super::{Attachments, Mode, attachments};
use crate::container::record::Definition;

/// What there is to see of a container's networks.
#[derive(Clone)]
pub(crate) struct Seen<'a> {
    pub(crate) definition: &'a Definition,
    /// With the ports that it exposes as of now.
    pub(crate) config: Cow<'a, Config>,
    /// With the ports that it binds as of now.
    pub(crate) host: Cow<'a, HostConfig>,
    /// The container's name.
    pub(crate) name: &'a str,
    pub(crate) networks: Option<Arc<Attachments>>,
    pub(crate) place: Option<Arc<Place>>,
    /// The id of the network that is always there and that it was on last; empty for none.
    pub(crate) network_id: &'a str,
}

/// The name of the network that a container's mode puts it on; none where it shares another container's.
pub(crate) fn network_name(definition: &Definition) -> Option<&str> {
    match Mode::of(definition) {
        Mode::Bridge => Some(DEFAULT),
        // A container without any network is not even in the one of that name.
        Mode::None if definition.config.network_disabled => None,
        Mode::None => Some("none"),
        Mode::Host => Some("host"),
        Mode::User(name) => Some(name),
        Mode::Container(_) => None,
    }
}

impl Seen<'_> {
    /// By network name, as `ps` and `inspect` show it.
    pub(crate) fn networks(&self) -> BTreeMap<String, EndpointSettings> {
        let Some(networks) = &self.networks else {
            let endpoint = self.place.as_ref().and_then(|place| place.on(DEFAULT));
            let last = EndpointSettings { network_id: self.network_id.to_owned(), ..EndpointSettings::default() };
            let settings = match endpoint {
                Some(endpoint) => filled(last, endpoint),
                None => last,
            };
            return network_name(self.definition).map(|name| (name.to_owned(), settings)).into_iter().collect();
        };
        let shown = |(name, settings): (&String, &EndpointSettings)| {
            let key = attachments::key(name, settings);
            let endpoint = self.place.as_ref().and_then(|place| place.on(key));
            let mut shown = settings.clone();
            if shown.dns_names.is_some() {
                shown.dns_names = Some(attachments::dns_names(self.definition, self.name, settings));
            }
            match endpoint {
                Some(endpoint) => shown = filled(shown, endpoint),
                // The wish is not told when it has been fulfilled once.
                None if !shown.network_id.is_empty() => shown.mac_address.clear(),
                None => {}
            }
            (name.clone(), shown)
        };
        networks.iter().map(shown).collect()
    }

    /// As `inspect` shows it. `pid` is the container's first process.
    pub(crate) fn settings(&self, pid: i32) -> NetworkSettings {
        let networks = self.networks();
        let Some(place) = &self.place else { return NetworkSettings { networks, ..NetworkSettings::default() } };
        let settings = NetworkSettings {
            sandbox_id: place.sandbox_id.clone(),
            // Nothing is mounted for it: the process has it.
            sandbox_key: if pid > 0 { format!("/proc/{pid}/ns/net") } else { String::new() },
            ports: bindings(&self.config, &self.host, place),
            networks,
            ..NetworkSettings::default()
        };
        let Some(endpoint) = place.on(DEFAULT) else { return settings };
        let mut settings =
            NetworkSettings { endpoint_id: endpoint.endpoint_id.clone(), mac_address: mac(endpoint), ..settings };
        if let Some(own) = endpoint.ipv4 {
            settings.gateway = text(own.gateway);
            settings.ip_address = own.address.to_string();
            settings.ip_prefix_len = own.prefix.into();
        }
        if let Some(own) = endpoint.ipv6 {
            settings.ipv6_gateway = text(own.gateway);
            settings.global_ipv6_address = own.address.to_string();
            settings.global_ipv6_prefix_len = own.prefix.into();
        }
        settings
    }
}

/// With what has come of the settings.
fn filled(settings: EndpointSettings, endpoint: &Endpoint) -> EndpointSettings {
    let mut filled = EndpointSettings {
        mac_address: mac(endpoint),
        network_id: endpoint.network_id.clone(),
        endpoint_id: endpoint.endpoint_id.clone(),
        ..settings
    };
    if let Some(own) = endpoint.ipv4 {
        filled.gateway = text(own.gateway.filter(|_| !endpoint.internal));
        filled.ip_address = own.address.to_string();
        filled.ip_prefix_len = own.prefix.into();
    }
    if let Some(own) = endpoint.ipv6 {
        filled.ipv6_gateway = text(own.gateway.filter(|_| !endpoint.internal));
        filled.global_ipv6_address = own.address.to_string();
        filled.global_ipv6_prefix_len = own.prefix.into();
    }
    filled
}

fn text(gateway: Option<impl ToString>) -> String {
    gateway.map(|gateway| gateway.to_string()).unwrap_or_default()
}

/// The ports, as `ps` shows them: published ones, and those that are only exposed.
pub(crate) fn ports(config: &Config, host: &HostConfig, place: &Place) -> Vec<Port> {
    let published = published(host, place);
    let published = published.iter().map(|one| Port {
        ip: one.host_address.to_string(),
        private_port: one.container_port,
        public_port: Some(one.host_port).filter(|_| !one.is_opened()),
        kind: one.protocol.to_string(),
    });
    let is_published: HashSet<_> = place.ports.iter().map(|one| (one.container_port, one.protocol)).collect();
    let unpublished = exposed_on(config, place)
        .into_iter()
        .filter(|port| !is_published.contains(&(port.number, super::protocol(port.protocol))));
    let unpublished =
        unpublished.map(|port| Port { private_port: port.number, kind: protocol(port).to_owned(), ..Port::default() });
    let mut ports: Vec<Port> = published.chain(unpublished).collect();
    ports.sort_by(|a, b| (a.private_port, &a.kind, &a.ip).cmp(&(b.private_port, &b.kind, &b.ip)));
    ports
}

/// The published ports, each as often as it is bound: datagrams are received by any number of sockets at once, and dockerd has one for
/// each binding, where we have one for all.
fn published(host: &HostConfig, place: &Place) -> Vec<Published> {
    let is_bound = |one: &Published, binding: &PortBinding| {
        let address = binding.host_ip.parse().ok();
        binding.host_port.parse() == Ok(one.host_port)
            && (binding.host_ip.is_empty() || address == Some(one.host_address))
    };
    let times = |one: &Published| {
        let of_port = host.port_bindings.as_ref().and_then(|all| all.get(&format!("{}/udp", one.container_port)));
        let bound = of_port.into_iter().flatten().flatten().filter(|binding| is_bound(one, binding)).count();
        if one.protocol == network::Protocol::Udp { bound.max(1) } else { 1 }
    };
    place.ports.iter().flat_map(|one| std::iter::repeat_n(*one, times(one))).collect()
}

fn bindings(config: &Config, host: &HostConfig, place: &Place) -> BTreeMap<String, Option<Vec<PortBinding>>> {
    let ports = exposed_on(config, place);
    let key = |port: ContainerPort| format!("{}/{}", port.number, protocol(port));
    let mut bindings: BTreeMap<_, Option<Vec<_>>> = ports.into_iter().map(|port| (key(port), None)).collect();
    for one in published(host, place) {
        let key = format!("{}/{}", one.container_port, one.protocol);
        let host_port = if one.is_opened() { String::new() } else { one.host_port.to_string() };
        let binding = PortBinding { host_ip: one.host_address.to_string(), host_port };
        bindings.entry(key).or_default().get_or_insert_default().push(binding);
    }
    bindings
}

/// The ports that a container exposes; on networks where ports are none of this machine's business, as with dockerd, none.
fn exposed_on(config: &Config, place: &Place) -> Vec<ContainerPort> {
    let ports = exposed(config);
    ports.into_iter().filter(|_| place.exposes).collect()
}

fn protocol(port: ContainerPort) -> &'static str {
    match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// `172.18.0.2/16`, or nothing.
pub(crate) fn with_prefix<A: std::fmt::Display>(own: Option<InterfaceAddress<A>>) -> String {
    own.map(|own| format!("{}/{}", own.address, own.prefix)).unwrap_or_default()
}

/// An endpoint's Ethernet address as text; empty where it has none of its own.
pub(crate) fn mac(endpoint: &Endpoint) -> String {
    let text = |[a, b, c, d, e, f]: [u8; 6]| format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    endpoint.mac.map(text).unwrap_or_default()
}
