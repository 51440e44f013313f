//! What users see of a container's network.

use std::collections::BTreeMap;

use container_spec::ports::{ContainerPort, Protocol, exposed};
use engine_api::container::{EndpointSettings, NetworkSettings, Port};
use engine_api::host_config::PortBinding;
use network::Place;

use super::Mode;
use crate::container::record::Definition;

/// The name of the network that a container is on; none where it shares another container's.
pub(crate) fn network_name(definition: &Definition) -> Option<&'static str> {
    match Mode::of(definition) {
        Mode::Bridge => Some("bridge"),
        // A container without any network is not even in the one of that name.
        Mode::None if definition.config.network_disabled => None,
        Mode::None => Some("none"),
        Mode::Host => Some("host"),
        Mode::Container(_) => None,
    }
}

/// By network name, as `ps` and `inspect` show it.
pub(crate) fn networks(definition: &Definition, place: Option<&Place>) -> BTreeMap<String, EndpointSettings> {
    let name = network_name(definition).map(str::to_owned);
    let endpoint = place.map(|place| EndpointSettings {
        mac_address: mac(place),
        network_id: place.network_id.clone(),
        endpoint_id: place.endpoint_id.clone(),
        gateway: place.gateway.to_string(),
        ip_address: place.address.to_string(),
        ip_prefix_len: place.prefix.into(),
        ..EndpointSettings::default()
    });
    name.into_iter().map(|name| (name, endpoint.clone().unwrap_or_default())).collect()
}

/// As `inspect` shows it. `pid` is the container's first process.
pub(crate) fn settings(definition: &Definition, place: Option<&Place>, pid: i32) -> NetworkSettings {
    let networks = networks(definition, place);
    let Some(place) = place else { return NetworkSettings { networks, ..NetworkSettings::default() } };
    NetworkSettings {
        sandbox_id: place.sandbox_id.clone(),
        // Nothing is mounted for it: the process has it.
        sandbox_key: if pid > 0 { format!("/proc/{pid}/ns/net") } else { String::new() },
        ports: bindings(definition, place),
        endpoint_id: place.endpoint_id.clone(),
        gateway: place.gateway.to_string(),
        ip_address: place.address.to_string(),
        ip_prefix_len: place.prefix.into(),
        mac_address: mac(place),
        networks,
        ..NetworkSettings::default()
    }
}

/// The ports, as `ps` shows them: published ones, and those that are only exposed.
pub(crate) fn ports(definition: &Definition, place: &Place) -> Vec<Port> {
    let published = place.ports.iter().map(|one| Port {
        ip: one.host_address.to_string(),
        private_port: one.container_port,
        public_port: Some(one.host_port),
        kind: one.protocol.to_string(),
    });
    let mut ports: Vec<Port> = published.collect();
    for port in exposed(&definition.config, &definition.host_config) {
        if !ports.iter().any(|one| one.private_port == port.number && one.kind == protocol(port)) {
            let kind = protocol(port).to_owned();
            ports.push(Port { private_port: port.number, kind, ..Port::default() });
        }
    }
    ports.sort_by(|a, b| (a.private_port, &a.kind, &a.ip).cmp(&(b.private_port, &b.kind, &b.ip)));
    ports
}

fn bindings(definition: &Definition, place: &Place) -> BTreeMap<String, Option<Vec<PortBinding>>> {
    let ports = exposed(&definition.config, &definition.host_config);
    let key = |port: ContainerPort| format!("{}/{}", port.number, protocol(port));
    let mut bindings: BTreeMap<_, Option<Vec<_>>> = ports.into_iter().map(|port| (key(port), None)).collect();
    for one in &place.ports {
        let key = format!("{}/{}", one.container_port, one.protocol);
        let binding = PortBinding { host_ip: one.host_address.to_string(), host_port: one.host_port.to_string() };
        bindings.entry(key).or_default().get_or_insert_default().push(binding);
    }
    bindings
}

fn protocol(port: ContainerPort) -> &'static str {
    match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn mac(place: &Place) -> String {
    let [a, b, c, d, e, f] = place.mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
