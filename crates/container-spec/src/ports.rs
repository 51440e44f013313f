//! Which ports a container serves, and where the host publishes them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use engine_api::container::Config;
use engine_api::host_config::{HostConfig, PortBinding};
use engine_api::ports;

use crate::validate::InvalidRequest;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
    /// `sctp`
    Sctp,
}

/// A port inside a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerPort {
    /// Its number. Nobody listens on 0, which dockerd publishes like any other.
    pub number: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// A port to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Inside.
    pub port: ContainerPort,
    /// The host's address; absent for the daemon's default.
    pub host_address: Option<IpAddr>,
    /// The first and the last host port that will do; both 0 for any.
    pub host_ports: (u16, u16),
}

impl ContainerPort {
    /// `80/tcp`, or `80`, which is TCP, too.
    pub fn parse(text: &str) -> Option<ContainerPort> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, ""));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "" | "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return None,
        };
        let number = ports::number(number).ok()?;
        Some(ContainerPort { number, protocol })
    }
}

/// The ports that a container serves.
pub fn exposed(config: &Config) -> BTreeSet<ContainerPort> {
    // What is no port was refused, or comes from an image and is no port anywhere.
    config.exposed_ports.iter().flatten().filter_map(|(text, _)| ContainerPort::parse(text)).collect()
}

/// What is to be published on the host.
///
/// dockerd asks for each port that is exposed which bindings there are of the very same text, so that bindings of others lead
/// nowhere (moby `daemon/network.go`, `buildPortsRelatedCreateEndpointOptions`). Clients expose what they bind.
pub fn publications(config: &Config, host: &HostConfig) -> Result<Vec<Publication>, InvalidRequest> {
    let mut publications = Vec::new();
    for (text, bindings) in host.port_bindings.iter().flatten() {
        let invalid = || InvalidRequest::Port { text: text.split('/').next().unwrap_or(text).to_owned() };
        let port = ContainerPort::parse(text).ok_or_else(invalid)?;
        let is_exposed = config.exposed_ports.as_ref().is_some_and(|exposed| exposed.contains_key(text));
        // All of them are read: a wrong one is refused, whether it leads anywhere or not.
        for binding in bindings.iter().flatten() {
            let publication = publication(port, binding)?;
            publications.extend(is_exposed.then_some(publication));
        }
    }
    if host.publish_all_ports {
        let bound: BTreeSet<ContainerPort> = publications.iter().map(|one| one.port).collect();
        let others = exposed(config).into_iter().filter(|port| !bound.contains(port));
        publications.extend(others.map(|port| Publication { port, host_address: None, host_ports: (0, 0) }));
    }
    Ok(publications)
}

fn publication(port: ContainerPort, binding: &PortBinding) -> Result<Publication, InvalidRequest> {
    let invalid = || InvalidRequest::Port { text: binding.host_port.clone() };
    let host_address = match binding.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| InvalidRequest::HostIp { text: text.to_owned() })?),
    };
    let range = binding.host_port.split('/').next().unwrap_or_default();
    let number = |text: &str| ports::number(text).map_err(|_| invalid());
    let host_ports = match range.split_once('-') {
        None if range.is_empty() => (0, 0),
        None => (number(range)?, number(range)?),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    match host_ports.0 > host_ports.1 {
        true => Err(invalid()),
        false => Ok(Publication { port, host_address, host_ports }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(host: &str, exposed: &str) -> Result<Vec<Publication>, InvalidRequest> {
        let host: HostConfig = serde_json::from_str(host).unwrap();
        let config: Config = serde_json::from_str(exposed).unwrap();
        publications(&config, &host)
    }

    fn publication_of(number: u16, protocol: Protocol, address: Option<&str>, host_ports: (u16, u16)) -> Publication {
        let host_address = address.map(|text| text.parse().unwrap());
        Publication { port: ContainerPort { number, protocol }, host_address, host_ports }
    }

    #[test]
    fn bindings_are_read() {
        let bindings = r#"{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":""},{"HostPort":"8000-8010"},
            {"HostIp":"::1","HostPort":"8080"}],"81/UDP":[{"HostIp":"0.0.0.0","HostPort":"81"}],"82":null}}"#;
        let expected = [
            publication_of(80, Protocol::Tcp, Some("127.0.0.1"), (0, 0)),
            publication_of(80, Protocol::Tcp, None, (8000, 8010)),
            publication_of(80, Protocol::Tcp, Some("::1"), (8080, 8080)),
            publication_of(81, Protocol::Udp, Some("0.0.0.0"), (81, 81)),
        ];
        let exposed = r#"{"ExposedPorts":{"80/tcp":{},"81/UDP":{},"82":{}}}"#;
        assert_eq!(read(bindings, exposed).unwrap(), expected);
    }

    #[test]
    fn what_is_not_exposed_in_the_same_words_is_not_published() {
        let host = |key: &str| format!(r#"{{"PortBindings":{{"{key}":[{{"HostPort":"1"}}]}}}}"#);
        for (exposed, bound, wanted) in [
            ("80/tcp", "80/tcp", 1),
            ("80", "80", 1),
            ("80/TCP", "80/TCP", 1),
            ("80/tcp", "80", 0),
            ("80", "80/tcp", 0),
            ("80/TCP", "80/tcp", 0),
            ("080/tcp", "80/tcp", 0),
            ("81/tcp", "80/tcp", 0),
        ] {
            let found = read(&host(bound), &format!(r#"{{"ExposedPorts":{{"{exposed}":{{}}}}}}"#)).unwrap();
            assert_eq!(found.len(), wanted, "{exposed} {bound}");
        }
        assert_eq!(read(&host("80/tcp"), "{}").unwrap(), []);
    }

    #[test]
    fn all_ports_are_those_exposed_and_not_bound() {
        let host = r#"{"PublishAllPorts":true,"PortBindings":{"80/tcp":[{"HostPort":"1"}],"9/tcp":[]}}"#;
        let exposed = r#"{"ExposedPorts":{"80/tcp":{},"53/udp":{},"no port":{}}}"#;
        let expected =
            [publication_of(80, Protocol::Tcp, None, (1, 1)), publication_of(53, Protocol::Udp, None, (0, 0))];
        assert_eq!(read(host, exposed).unwrap(), expected);
    }

    #[test]
    fn refusals() {
        for (bindings, refusal) in [
            (r#"{"x/tcp":[]}"#, "invalid port specification: \"x\""),
            (r#"{"80/tcp":[{"HostPort":"70000"}]}"#, "invalid port specification: \"70000\""),
            (r#"{"80/tcp":[{"HostPort":"+80"}]}"#, "invalid port specification: \"+80\""),
            (r#"{"+80/tcp":[]}"#, "invalid port specification: \"+80\""),
            (r#"{"80/tcp":[{"HostPort":"9-8"}]}"#, "invalid port specification: \"9-8\""),
            (r#"{"80/tcp":[{"HostIp":"nowhere"}]}"#, "invalid IP address: nowhere"),
        ] {
            let err = read(&format!(r#"{{"PortBindings":{bindings}}}"#), "{}").unwrap_err();
            assert_eq!(err.to_string(), refusal);
        }
    }
}
