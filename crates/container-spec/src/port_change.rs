//! What a change of published ports makes of a container's configuration. Pure.

use std::collections::{BTreeMap, BTreeSet};

use engine_api::container::Config;
use engine_api::host_config::{HostConfig, PortBinding};
use engine_api::published_ports::{Bindings, PortsUpdate};
use oci::image::Empty;

use crate::ports::{self, ContainerPort};
use crate::validate::InvalidRequest;

/// Why ports cannot be published or given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortChangeError {
    /// Nothing is to change.
    #[error("no port to publish and none to give up")]
    Nothing,
    /// One is no port, or a binding none.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// It is not published there.
    #[error("{port} is not published{}", at(.binding))]
    NotPublished {
        /// Of the container.
        port: String,
        /// Where it was looked for.
        binding: PortBinding,
    },
    /// It would be published again at once.
    #[error("{0} is published because the container publishes all ports that it exposes (--publish-all)")]
    All(String),
    /// It is published there.
    #[error("{port} is published already{}", at(.binding))]
    Published {
        /// Of the container.
        port: String,
        /// Where.
        binding: PortBinding,
    },
}

fn at(binding: &PortBinding) -> String {
    match (binding.host_ip.as_str(), binding.host_port.as_str()) {
        ("", "") => String::new(),
        ("", port) => format!(" at port {port}"),
        (address, "") => format!(" at {address}"),
        (address, port) => format!(" at {address}, port {port}"),
    }
}

/// A container's configuration as far as it says which ports are published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortsOf {
    /// `ExposedPorts`
    pub exposed: BTreeMap<String, Empty>,
    /// `PortBindings`
    pub bindings: Bindings,
}

/// The configuration with the change. A port that is given up stays exposed.
pub fn change_ports(config: &Config, host: &HostConfig, update: PortsUpdate) -> Result<PortsOf, PortChangeError> {
    if update.add.is_empty() && update.remove.is_empty() {
        return Err(PortChangeError::Nothing);
    }
    let mut change = Change::of(config, host);
    for (text, bindings) in &update.remove {
        let any = [PortBinding::default()];
        let wanted = bindings.as_deref().filter(|bindings| !bindings.is_empty()).unwrap_or(&any);
        wanted.iter().try_for_each(|binding| change.remove(text, binding))?;
    }
    for (text, bindings) in update.add {
        bindings.into_iter().flatten().try_for_each(|binding| change.add(&text, binding))?;
    }
    let named = change.bindings.into_values().flatten();
    let bindings = named.map(|(text, bindings)| (text, Some(bindings))).collect();
    Ok(PortsOf { exposed: change.exposed, bindings })
}

/// A configuration that is being changed, by ports: they may be named in several words, and a range has thousands.
struct Change {
    exposed: BTreeMap<String, Empty>,
    serves: BTreeSet<ContainerPort>,
    bindings: BTreeMap<ContainerPort, Vec<(String, Vec<PortBinding>)>>,
    /// Whether all ports are published that are exposed.
    all: bool,
}

impl Change {
    fn of(config: &Config, host: &HostConfig) -> Change {
        let mut bindings = BTreeMap::<_, Vec<_>>::new();
        for (key, bound) in host.port_bindings.iter().flatten() {
            // Others were refused.
            if let Some(port) = ContainerPort::parse(key) {
                bindings.entry(port).or_default().push((key.clone(), bound.clone().unwrap_or_default()));
            }
        }
        let exposed = config.exposed_ports.clone().unwrap_or_default();
        Change { exposed, serves: ports::exposed(config), bindings, all: host.publish_all_ports }
    }

    fn remove(&mut self, text: &str, wanted: &PortBinding) -> Result<(), PortChangeError> {
        let port = port(text)?;
        let goes = |one: &PortBinding| {
            (wanted.host_ip.is_empty() || one.host_ip == wanted.host_ip)
                && (wanted.host_port.is_empty() || one.host_port == wanted.host_port)
        };
        let missing = || PortChangeError::NotPublished { port: text.to_owned(), binding: wanted.clone() };
        let keys = self.bindings.entry(port).or_default();
        let mut found = false;
        for (_, bindings) in keys.iter_mut() {
            found |= bindings.extract_if(.., |one| goes(one)).count() > 0;
        }
        keys.retain(|(_, bindings)| !bindings.is_empty());
        if self.all && keys.is_empty() && self.serves.contains(&port) {
            return Err(PortChangeError::All(text.to_owned()));
        }
        if found { Ok(()) } else { Err(missing()) }
    }

    fn add(&mut self, text: &str, binding: PortBinding) -> Result<(), PortChangeError> {
        let keys = self.bindings.entry(port(text)?).or_default();
        if keys.is_empty() {
            keys.push((text.to_owned(), Vec::new()));
        }
        let (key, bindings) = &mut keys[0];
        if bindings.contains(&binding) {
            return Err(PortChangeError::Published { port: text.to_owned(), binding });
        }
        bindings.push(binding);
        if !self.exposed.contains_key(key) {
            self.exposed.insert(key.clone(), Empty {});
        }
        Ok(())
    }
}

fn port(text: &str) -> Result<ContainerPort, PortChangeError> {
    let invalid = || InvalidRequest::Port { text: text.split('/').next().unwrap_or(text).to_owned() };
    ContainerPort::parse(text).ok_or_else(|| invalid().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(host: &str, update: &str) -> Result<String, String> {
        let json = |text: &str| text.replace('\'', "\"");
        let host: HostConfig = serde_json::from_str(&json(host)).unwrap();
        let exposed = host.port_bindings.iter().flatten().map(|(key, _)| (key.clone(), Empty {})).collect();
        let config = Config { exposed_ports: Some(exposed), ..Config::default() };
        let update: PortsUpdate = serde_json::from_str(&json(update)).unwrap();
        let ports = change_ports(&config, &host, update).map_err(|err| err.to_string())?;
        let told = |(key, bindings): (&String, &Option<Vec<PortBinding>>)| {
            let bindings = bindings.iter().flatten().map(|one| format!("{}:{}", one.host_ip, one.host_port));
            format!("{key}={}", bindings.collect::<Vec<_>>().join("+"))
        };
        let exposed: Vec<_> = ports.exposed.keys().cloned().collect();
        Ok(format!("{} [{}]", ports.bindings.iter().map(told).collect::<Vec<_>>().join(","), exposed.join(",")))
    }

    #[test]
    fn ports_come_and_go() {
        let one = "{'PortBindings':{'80/tcp':[{'HostPort':'8080'},{'HostIp':'127.0.0.1','HostPort':'8081'}]}}";
        for (host, update, told) in [
            ("{}", "{'Add':{'80/tcp':[{'HostPort':'8080'}]}}", Ok("80/tcp=:8080 [80/tcp]")),
            (one, "{'Remove':{'80':[{'HostPort':'8080'}]}}", Ok("80/tcp=127.0.0.1:8081 [80/tcp]")),
            (one, "{'Remove':{'80/tcp':null}}", Ok(" [80/tcp]")),
            (
                one,
                "{'Remove':{'80/tcp':[{'HostIp':'127.0.0.1'}]},'Add':{'80':[{'HostPort':'1'}]}}",
                Ok("80/tcp=:8080+:1 [80/tcp]"),
            ),
            (
                one,
                "{'Remove':{'80/tcp':[{'HostPort':'8080'}]},'Add':{'81/udp':[{'HostPort':'8080'}]}}",
                Ok("80/tcp=127.0.0.1:8081,81/udp=:8080 [80/tcp,81/udp]"),
            ),
            (one, "{'Remove':{'81/tcp':[]}}", Err("81/tcp is not published")),
            (
                one,
                "{'Remove':{'80/tcp':[{'HostIp':'::1','HostPort':'1'}]}}",
                Err("80/tcp is not published at ::1, port 1"),
            ),
            (one, "{'Add':{'80/tcp':[{'HostPort':'8080'}]}}", Err("80/tcp is published already at port 8080")),
            (
                "{'PortBindings':{'80/tcp':[{'HostIp':'127.0.0.1'}]}}",
                "{'Add':{'80/tcp':[{'HostIp':'127.0.0.1'}]}}",
                Err("80/tcp is published already at 127.0.0.1"),
            ),
            (one, "{'Add':{'eighty':[{'HostPort':'8080'}]}}", Err("invalid port specification: \"eighty\"")),
            (one, "{}", Err("no port to publish and none to give up")),
            (
                "{'PublishAllPorts':true,'PortBindings':{'80/tcp':[{'HostPort':'8080'}]}}",
                "{'Remove':{'80/tcp':null}}",
                Err("80/tcp is published because the container publishes all ports that it exposes (--publish-all)"),
            ),
        ] {
            assert_eq!(changed(host, update), told.map(str::to_owned).map_err(str::to_owned), "{host} {update}");
        }
    }
}
