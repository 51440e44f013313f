//! What Docker has and this version does not: refused by name, never ignored.
//!
//! Clients send many fields at their default, so only other values count.

use std::collections::BTreeMap;

use engine_api::container::{EndpointSettings, NetworkingConfig};
use engine_api::host_config::HostConfig;
use serde_json::Value;

use super::InvalidRequest;
use crate::facts::HostFacts;

pub(super) fn validate(
    host: &HostConfig,
    networking: Option<&NetworkingConfig>,
    facts: &HostFacts,
) -> Result<(), InvalidRequest> {
    if facts.runtime(&host.runtime).is_none() {
        return Err(InvalidRequest::Runtime { name: host.runtime.clone() });
    }
    let networks = networking.and_then(|networking| networking.endpoints_config.as_ref());
    crate::storage::validate(host, facts)?;
    match namespaces(host).into_iter().chain(network(networks)).find(|(asked, _)| *asked) {
        Some((_, option)) => Err(InvalidRequest::NotOffered { option }),
        None => Ok(()),
    }
}

type Asked = (bool, &'static str);

fn namespaces(host: &HostConfig) -> [Asked; 1] {
    [(!host.cgroup.is_empty(), "HostConfig.Cgroup")]
}

/// Refuses what no network offers.
pub fn validate_endpoint(endpoint: &EndpointSettings) -> Result<(), InvalidRequest> {
    let one = [(String::new(), endpoint.clone())].into();
    match network(Some(&one)).into_iter().find(|(asked, _)| *asked) {
        Some((_, option)) => Err(InvalidRequest::NotOffered { option }),
        None => Ok(()),
    }
}

fn network(networks: Option<&BTreeMap<String, EndpointSettings>>) -> [Asked; 3] {
    let endpoint = |asked: fn(&EndpointSettings) -> bool| networks.is_some_and(|all| all.values().any(asked));
    [
        (endpoint(|endpoint| has_ipv6(endpoint, "IPv6Address")), "--ip6"),
        (endpoint(|endpoint| has_ipv6(endpoint, "LinkLocalIPs")), "--link-local-ip with an IPv6 address"),
        (endpoint(has_sysctls), "--network driver-opt com.docker.network.endpoint.sysctls"),
    ]
}

fn has_sysctls(endpoint: &EndpointSettings) -> bool {
    endpoint.driver_opts.iter().flatten().any(|(name, _)| name == "com.docker.network.endpoint.sysctls")
}

/// Whether an address of IPv6 is asked for: what is none has been refused already.
fn has_ipv6(endpoint: &EndpointSettings, key: &str) -> bool {
    let is_ipv6 = |value: &Value| value.as_str().is_some_and(|text| text.contains(':'));
    match endpoint.ipam_config.as_ref().map(|ipam| &ipam[key]) {
        Some(Value::Array(addresses)) => addresses.iter().any(is_ipv6),
        Some(value) => is_ipv6(value),
        None => false,
    }
}
