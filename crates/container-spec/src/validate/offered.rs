//! What Docker has and this version does not: refused by name, never ignored.
//!
//! Clients send many fields at their default, so only other values count.

use std::collections::BTreeMap;

use engine_api::container::{Config, EndpointSettings, NetworkingConfig};
use engine_api::host_config::HostConfig;
use serde_json::Value;

use super::InvalidRequest;
use crate::facts::HostFacts;

pub(super) fn validate(
    config: &Config,
    host: &HostConfig,
    networking: Option<&NetworkingConfig>,
    facts: &HostFacts,
) -> Result<(), InvalidRequest> {
    if facts.runtime(&host.runtime).is_none() {
        return Err(InvalidRequest::Runtime { name: host.runtime.clone() });
    }
    let networks = networking.and_then(|networking| networking.endpoints_config.as_ref());
    storage(host)?;
    match namespaces(host).into_iter().chain(network(config, host, networks)).find(|(asked, _)| *asked) {
        Some((_, option)) => Err(InvalidRequest::NotOffered { option }),
        None => Ok(()),
    }
}

fn any<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

fn any_entry<T>(map: &Option<BTreeMap<String, T>>) -> bool {
    map.as_ref().is_some_and(|map| !map.is_empty())
}

type Asked = (bool, &'static str);

fn namespaces(host: &HostConfig) -> [Asked; 1] {
    [(!host.cgroup.is_empty(), "HostConfig.Cgroup")]
}

/// The sentences are those of dockerd's storage driver.
fn storage(host: &HostConfig) -> Result<(), InvalidRequest> {
    match host.storage_opt.iter().flatten().next() {
        Some((name, _)) if !name.eq_ignore_ascii_case("size") => {
            Err(InvalidRequest::StorageOption { name: name.clone() })
        }
        Some(_) => Err(InvalidRequest::NoProjectQuota),
        None => Ok(()),
    }
}

fn network(config: &Config, host: &HostConfig, networks: Option<&BTreeMap<String, EndpointSettings>>) -> [Asked; 9] {
    let known =
        |name: &str| matches!(name, "" | "default" | "bridge" | "none" | "host") || name.starts_with("container:");
    let endpoint = |asked: fn(&EndpointSettings) -> bool| networks.is_some_and(|all| all.values().any(asked));
    [
        (!known(&host.network_mode), "--network NAME"),
        (networks.is_some_and(|networks| networks.keys().any(|name| !known(name))), "--network NAME"),
        (endpoint(has_address), "--link-local-ip"),
        (endpoint(|endpoint| any_entry(&endpoint.driver_opts)), "--network driver-opt"),
        (endpoint(|endpoint| endpoint.gw_priority != 0), "--network gw-priority"),
        (endpoint(|endpoint| any(&endpoint.aliases)), "--network-alias"),
        (endpoint(|endpoint| any(&endpoint.links)), "--network links"),
        (endpoint(|endpoint| !endpoint.mac_address.is_empty()), "--mac-address"),
        (!config.mac_address.is_empty(), "--mac-address"),
    ]
}

/// Any address: those of IPv4 and IPv6 have been refused already where there is nobody to ask for them.
fn has_address(endpoint: &EndpointSettings) -> bool {
    match &endpoint.ipam_config {
        Some(Value::Object(members)) => members.values().any(|value| match value {
            Value::Array(addresses) => !addresses.is_empty(),
            value => !value.is_null() && value != "",
        }),
        other => other.as_ref().is_some_and(|value| !value.is_null()),
    }
}
