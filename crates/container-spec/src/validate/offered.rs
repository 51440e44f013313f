//! What Docker has and this version does not: refused by name, never ignored.
//!
//! Clients send many fields at their default, so only other values count.

use engine_api::host_config::HostConfig;

use super::InvalidRequest;
use crate::facts::HostFacts;

pub(super) fn validate(host: &HostConfig, facts: &HostFacts) -> Result<(), InvalidRequest> {
    if facts.runtime(&host.runtime).is_none() {
        return Err(InvalidRequest::Runtime { name: host.runtime.clone() });
    }
    crate::storage::validate(host, facts)?;
    match namespaces(host).into_iter().find(|(asked, _)| *asked) {
        Some((_, option)) => Err(InvalidRequest::NotOffered { option }),
        None => Ok(()),
    }
}

type Asked = (bool, &'static str);

fn namespaces(host: &HostConfig) -> [Asked; 1] {
    [(!host.cgroup.is_empty(), "HostConfig.Cgroup")]
}
