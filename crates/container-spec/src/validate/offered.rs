//! What Docker has and this version does not: refused by name, never ignored.
//!
//! Clients send many fields at their default, so only other values count.

use std::collections::BTreeMap;

use engine_api::container::{EndpointSettings, NetworkingConfig};
use engine_api::host_config::HostConfig;

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

fn network(networks: Option<&BTreeMap<String, EndpointSettings>>) -> [Asked; 1] {
    let endpoint = |asked: fn(&EndpointSettings) -> bool| networks.is_some_and(|all| all.values().any(asked));
    [(endpoint(has_sysctls), "--network driver-opt com.docker.network.endpoint.sysctls")]
}

fn has_sysctls(endpoint: &EndpointSettings) -> bool {
    endpoint.driver_opts.iter().flatten().any(|(name, _)| name == "com.docker.network.endpoint.sysctls")
}
