//! `GET /networks` and what else can be said of the networks that are always there: `bridge`, `host` and `none`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use engine_api::disk_usage::NetworksPruned;
use engine_api::network::{Ipam, IpamConfig, Member, Network};
use errdefs::ErrorKind;
use sha2::{Digest, Sha256};

use crate::Engine;
use crate::clock::{now_nanos, rfc3339};
use crate::container::Container;
use crate::filters::{FilterError, Filters};
use crate::networking::view;
use crate::time_query;

/// Why a request about networks failed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum NetworksError {
    /// There is none of that name.
    #[error("network {0} not found")]
    NotFound(String),
    /// It is always there.
    #[error("{0} is a pre-defined network and cannot be removed")]
    Predefined(String),
    /// The filters are wrong.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// There is no such kind of networks.
    #[error("invalid filter: 'type'='{0}'")]
    Type(String),
    /// `dangling` takes a truth value.
    #[error("invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")")]
    Dangling,
    /// `until` names more than one time.
    #[error("more than one until filter specified")]
    ManyTimes,
    /// `until` is no time.
    #[error("failed to parse value as time or duration: {0:?}")]
    Time(String),
    /// The bridge's record cannot be read.
    #[error("look up the default bridge")]
    Bridge(#[source] network::NetworkError),
}

impl NetworksError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            NetworksError::NotFound(_) => ErrorKind::NotFound,
            NetworksError::Predefined(_) => ErrorKind::Forbidden,
            NetworksError::Filter(err) => err.kind(),
            NetworksError::Dangling | NetworksError::ManyTimes | NetworksError::Time(_) => ErrorKind::InvalidArgument,
            // dockerd does not mark it as the caller's mistake.
            NetworksError::Type(_) => ErrorKind::Internal,
            NetworksError::Bridge(err) => err.kind(),
        }
    }
}

/// The networks that `filters` let through. Only `detailed` ones tell who is on them.
pub async fn list(engine: &Engine, filters: &Filters, detailed: bool) -> Result<Vec<Network>, NetworksError> {
    filters.check(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    if let Some(kind) = filters.get("type").find(|kind| !matches!(*kind, "custom" | "builtin")) {
        return Err(NetworksError::Type(kind.to_owned()));
    }
    // One that is always there is never without use.
    let dangling = filters.boolean("dangling").map_err(|_| NetworksError::Dangling)? == Some(true);
    let wanted = |network: &Network| {
        !dangling
            && filters.exact("type", "builtin")
            && filters.exact("driver", &network.driver)
            && filters.exact("scope", &network.scope)
            && filters.pattern("name", &network.name)
            && filters.pattern("id", &network.id)
            && filters.labels("label", &network.labels)
    };
    let mut networks = all(engine).await?;
    networks.retain(wanted);
    if !detailed {
        networks.iter_mut().for_each(|network| network.containers.clear());
    }
    Ok(networks)
}

/// All that is known of a network: by name, id, or the beginning of an id.
pub async fn inspect(engine: &Engine, name: &str, scope: &str) -> Result<Network, NetworksError> {
    let networks = all(engine).await?;
    let in_scope = |network: &&Network| scope.is_empty() || network.scope == scope;
    let exact = networks.iter().filter(in_scope).find(|network| network.name == name || network.id == name);
    let mut begins =
        networks.iter().filter(in_scope).filter(|network| !name.is_empty() && network.id.starts_with(name));
    let found = exact.or_else(|| begins.next().filter(|_| begins.next().is_none()));
    found.cloned().ok_or_else(|| NetworksError::NotFound(name.to_owned()))
}

/// Removes a network: of those that are there, none can be.
pub async fn remove(engine: &Engine, name: &str) -> Result<(), NetworksError> {
    let network = inspect(engine, name, "").await?;
    Err(NetworksError::Predefined(network.name))
}

/// Removes networks that nobody uses: those that are always there stay.
pub fn prune(engine: &Engine, filters: &Filters) -> Result<NetworksPruned, NetworksError> {
    check_prune(filters)?;
    engine.events.networks_pruned();
    Ok(NetworksPruned::default())
}

fn check_prune(filters: &Filters) -> Result<(), NetworksError> {
    filters.check(&["label", "label!", "until"])?;
    let given: Vec<&str> = filters.get("until").collect();
    match given[..] {
        [] => {}
        [text] => {
            time_query::parse_any(text, now_nanos()).map_err(|_| NetworksError::Time(text.to_owned()))?;
        }
        _ => return Err(NetworksError::ManyTimes),
    }
    Ok(())
}

/// Tells that a container joined a network or left it. One that shares another container's is on none.
pub(crate) fn tell(engine: &Engine, container: &Container, action: &str) {
    let Some(name) = view::network_name(&container.definition) else { return };
    let (id, driver) = match name {
        // Known to whoever has joined, without a look at the disk.
        "bridge" => (engine.networking.bridge().and_then(|bridge| Some(bridge.network().ok()?.id)), "bridge"),
        "none" => (Some(id(engine, name)), "null"),
        name => (Some(id(engine, name)), name),
    };
    let attributes =
        [("container", container.id().to_string()), ("name", name.to_owned()), ("type", driver.to_owned())];
    engine.events.network(&id.unwrap_or_default(), action, attributes);
}

async fn all(engine: &Engine) -> Result<Vec<Network>, NetworksError> {
    let task = engine.clone();
    let (bridge, created) = bridge::blocking(move || {
        let bridge = task.networking.bridge().map(network::Networks::network).transpose();
        bridge.map(|bridge| (bridge, created(&task))).map_err(NetworksError::Bridge)
    })
    .await?;
    let containers = engine.containers.all();
    let plain = |name: &str, driver: &str| Network {
        name: name.to_owned(),
        id: id(engine, name),
        created: created.clone(),
        scope: "local".to_owned(),
        driver: driver.to_owned(),
        enable_ipv4: true,
        ipam: Ipam { driver: "default".to_owned(), ..Ipam::default() },
        containers: members(&containers, name),
        ..Network::default()
    };
    let bridge = bridge.map(|found| of_bridge(plain("bridge", "bridge"), &found));
    Ok(bridge.into_iter().chain([plain("host", "host"), plain("none", "null")]).collect())
}

fn of_bridge(plain: Network, found: &network::Network) -> Network {
    let options = [
        ("com.docker.network.bridge.default_bridge", "true".to_owned()),
        ("com.docker.network.bridge.enable_icc", found.icc.to_string()),
        ("com.docker.network.bridge.enable_ip_masquerade", found.masquerade.to_string()),
        ("com.docker.network.bridge.host_binding_ipv4", found.host_address.to_string()),
        ("com.docker.network.bridge.name", found.bridge.clone()),
        ("com.docker.network.driver.mtu", found.mtu.to_string()),
    ];
    let range = IpamConfig { subnet: found.subnet.to_string(), gateway: found.gateway.to_string() };
    Network {
        id: found.id.clone(),
        ipam: Ipam { config: Some(vec![range]), ..plain.ipam },
        options: options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        ..plain
    }
}

/// Who runs on a network.
fn members(containers: &[Arc<Container>], network: &str) -> BTreeMap<String, Member> {
    let on_it = containers.iter().filter(|container| view::network_name(&container.definition) == Some(network));
    let member = |container: &Arc<Container>| {
        let live = container.live();
        live.state.is_running().then_some(())?;
        let endpoint = view::networks(&container.definition, live.place.as_deref()).remove(network)?;
        let address = match endpoint.ip_prefix_len {
            0 => String::new(),
            bits => format!("{}/{bits}", endpoint.ip_address),
        };
        let member = Member {
            name: live.name.clone(),
            endpoint_id: endpoint.endpoint_id,
            mac_address: endpoint.mac_address,
            ipv4_address: address,
            ipv6_address: String::new(),
        };
        Some((container.id().to_string(), member))
    };
    on_it.filter_map(member).collect()
}

/// The id of a network that has no record: the same as long as the engine has its own.
fn id(engine: &Engine, name: &str) -> String {
    let hash = Sha256::digest(format!("{}/networks/{name}", engine.id));
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// They are as old as the engine's id.
fn created(engine: &Engine) -> String {
    let made = std::fs::metadata(engine.config.data_root.join("engine-id")).and_then(|found| found.modified());
    let nanos = made.ok().and_then(|at| i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok());
    rfc3339(nanos.unwrap_or_else(now_nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_a_prune_have_dockerds_words() {
        let pruned = |key: &str, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            check_prune(&Filters([(key.to_owned(), values)].into())).map_err(|err| err.to_string())
        };
        assert_eq!(pruned("until", &["24h"]), Ok(()));
        for (key, values, text) in [
            ("zz", &["x"][..], "invalid filter 'zz'"),
            ("until", &["x"], "failed to parse value as time or duration: \"x\""),
            ("until", &["1", "2"], "more than one until filter specified"),
        ] {
            assert_eq!(pruned(key, values), Err(text.to_owned()), "{key}");
        }
    }
}
