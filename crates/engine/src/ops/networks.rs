//! `GET /networks` and what else can be said of networks: those that are always there, `bridge`, `host` and `none`, and
//! those that users made. How these are made: `network_create`; how containers join and leave them: `network_connect`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use engine_api::disk_usage::NetworksPruned;
use engine_api::network::{ConfigFrom, Ipam, IpamConfig, Member, Network};
use errdefs::ErrorKind;
use network::{AddressRange, DEFAULT, Subnet, UserNetwork};
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::Engine;
use crate::clock::{now_nanos, rfc3339};
use crate::container::Container;
use crate::filters::{FilterError, Filters};
use crate::networking::{find, view};
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
    /// It cannot be removed.
    #[error(transparent)]
    Remove(#[from] network::RemoveError),
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
            NetworksError::Remove(err) => err.kind(),
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
    let dangling = filters.boolean("dangling").map_err(|_| NetworksError::Dangling)?;
    let wanted = |network: &Network| {
        let predefined = is_predefined(&network.name);
        // One that is always there is never without use.
        dangling.is_none_or(|dangling| dangling != (predefined || !network.containers.is_empty()))
            && filters.exact("type", if predefined { "builtin" } else { "custom" })
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

/// Removes a network that nobody is on.
pub async fn remove(engine: &Engine, name: &str) -> Result<(), NetworksError> {
    let network = inspect(engine, name, "").await?;
    if is_predefined(&network.name) {
        return Err(NetworksError::Predefined(network.name));
    }
    let endpoints: Vec<String> = network.containers.values().map(in_use).collect();
    let (task, id) = (engine.clone(), network.id.clone());
    let removed =
        bridge::blocking(move || task.networking.bridge().map_or(Ok(()), |networks| networks.remove(&id))).await;
    match removed {
        Err(network::RemoveError::InUse { name, .. }) => {
            return Err(network::RemoveError::InUse { name, endpoints }.into());
        }
        removed => removed?,
    }
    if !network.config_only {
        tell_network(engine, (&network.id, &network.name), &network.driver, "destroy");
    }
    Ok(())
}

/// An endpoint as the refusal names it.
fn in_use(member: &Member) -> String {
    let id = member.endpoint_id.get(..12).unwrap_or(&member.endpoint_id);
    format!("name:{:?} id:{id:?}", member.name)
}

/// Removes networks that nobody uses: those that are always there stay.
pub async fn prune(engine: &Engine, filters: &Filters) -> Result<NetworksPruned, NetworksError> {
    let until = check_prune(filters)?;
    let mut removed = Vec::new();
    for network in all(engine).await? {
        let old_enough = || until.is_none_or(|until| created_before(&network, until));
        let wanted = filters.labels("label", &network.labels)
            && (!filters.has("label!") || !filters.labels("label!", &network.labels));
        let kept = is_predefined(&network.name) || network.config_only || !network.containers.is_empty();
        if kept || !wanted || !old_enough() {
            continue;
        }
        match remove(engine, &network.id).await {
            Ok(()) => removed.push(network.name),
            // Somebody joined it meanwhile.
            Err(err) => warn!(network = network.name, err = errdefs::chain(&err), "a network was not pruned"),
        }
    }
    engine.events.networks_pruned();
    Ok(NetworksPruned { networks_deleted: (!removed.is_empty()).then_some(removed) })
}

fn created_before(network: &Network, until_nanos: i64) -> bool {
    crate::clock::parse_rfc3339(&network.created).is_some_and(|created| created < until_nanos)
}

fn check_prune(filters: &Filters) -> Result<Option<i64>, NetworksError> {
    filters.check(&["label", "label!", "until"])?;
    let given: Vec<&str> = filters.get("until").collect();
    match given[..] {
        [] => Ok(None),
        [text] => time_query::parse_any(text, now_nanos()).map_err(|_| NetworksError::Time(text.to_owned())),
        _ => Err(NetworksError::ManyTimes),
    }
}

/// Tells that a container joined its networks or left them. One that shares another container's is on none.
pub(crate) fn tell(engine: &Engine, container: &Container, action: &str) {
    let networks = container.live().networks.clone();
    match networks {
        None => view::network_name(&container.definition)
            .into_iter()
            .for_each(|name| tell_endpoint(engine, container, (name, ""), action)),
        Some(networks) => networks
            .iter()
            .for_each(|(name, settings)| tell_endpoint(engine, container, (name, &settings.network_id), action)),
    }
}

/// Tells that a container joined a network or left it; the network by name, and by its id if it is somebody's.
pub(crate) fn tell_endpoint(engine: &Engine, container: &Container, (name, id): (&str, &str), action: &str) {
    let (id, driver) = match name {
        // Known to whoever has joined, without a look at the disk.
        DEFAULT => (engine.networking.bridge().and_then(|bridge| Some(bridge.network().ok()?.id)), "bridge".to_owned()),
        "none" => (Some(own_id(engine, name)), "null".to_owned()),
        "host" => (Some(own_id(engine, name)), "host".to_owned()),
        _ => {
            let found = engine.networking.bridge().and_then(|networks| find::user(networks, id));
            (Some(id.to_owned()), found.map(|network| network.driver.kind()).unwrap_or_default().to_string())
        }
    };
    let attributes = [("container", container.id().to_string()), ("name", name.to_owned()), ("type", driver)];
    engine.events.network(&id.unwrap_or_default(), action, attributes);
}

/// Tells that a user's network was made or removed.
pub(crate) fn tell_network(engine: &Engine, (id, name): (&str, &str), driver: &str, action: &str) {
    engine.events.network(id, action, [("name", name.to_owned()), ("type", driver.to_owned())]);
}

/// The networks that are always there.
pub(crate) const PREDEFINED: [&str; 3] = [DEFAULT, "host", "none"];

fn is_predefined(name: &str) -> bool {
    PREDEFINED.contains(&name)
}

/// The id of a network that is always there; empty for a bridge that is not. Blocks shortly.
pub(crate) fn predefined_id(engine: &Engine, name: &str) -> String {
    match name {
        DEFAULT => engine.networking.bridge().and_then(|bridge| Some(bridge.network().ok()?.id)).unwrap_or_default(),
        name => own_id(engine, name),
    }
}

async fn all(engine: &Engine) -> Result<Vec<Network>, NetworksError> {
    let task = engine.clone();
    let (bridge, users, created) = bridge::blocking(move || {
        let bridge = task.networking.bridge().map(network::Networks::network).transpose();
        let users = task.networking.bridge().map(network::Networks::user_networks).unwrap_or_default();
        bridge.map(|bridge| (bridge, users, created(&task))).map_err(NetworksError::Bridge)
    })
    .await?;
    let containers = engine.containers.all();
    let plain = |name: &str, driver: &str| Network {
        name: name.to_owned(),
        id: own_id(engine, name),
        created: created.clone(),
        scope: "local".to_owned(),
        driver: driver.to_owned(),
        enable_ipv4: true,
        ipam: Ipam { driver: "default".to_owned(), ..Ipam::default() },
        containers: members(&containers, name),
        ..Network::default()
    };
    let users = users.iter().map(|network| of_user(network, members(&containers, &network.id)));
    let bridge = bridge.map(|found| of_bridge(plain("bridge", "bridge"), &found));
    Ok(bridge.into_iter().chain([plain("host", "host"), plain("none", "null")]).chain(users).collect())
}

fn of_user(network: &UserNetwork, containers: BTreeMap<String, Member>) -> Network {
    let is_ipv6 = |range: &&AddressRange| range.subnet.address.is_ipv6();
    let mut ranges: Vec<&AddressRange> = network.ranges().chain(&network.idle).collect();
    // What somebody asked for comes before what the pools gave.
    ranges.sort_by_key(|range| (range.from_pools, is_ipv6(range)));
    Network {
        name: network.name.clone(),
        id: network.id.clone(),
        created: rfc3339(network.created_at_nanos),
        scope: network.scope.clone(),
        driver: network.driver.kind().to_string(),
        enable_ipv4: network.with_ipv4(),
        enable_ipv6: network.with_ipv6(),
        ipam: Ipam {
            // Docker's word for nobody who gives addresses.
            driver: if ranges.is_empty() && network.template().is_none() { "null" } else { "default" }.to_owned(),
            options: network.ipam_options.clone(),
            config: Some(ranges.into_iter().map(of_range).collect()),
        },
        internal: network.internal,
        attachable: network.attachable,
        config_from: ConfigFrom { network: network.config_from.clone().unwrap_or_default() },
        config_only: network.template().is_some(),
        containers,
        options: network.options.clone(),
        labels: network.labels.clone(),
        ..Network::default()
    }
}

fn of_range(range: &AddressRange) -> IpamConfig {
    let shown = range.gateway.filter(|_| range.from_pools || range.gateway_wanted);
    IpamConfig {
        subnet: range.subnet.to_string(),
        ip_range: range.range.map(|range| range.to_string()).unwrap_or_default(),
        gateway: shown.map(|gateway| gateway.to_string()).unwrap_or_default(),
        auxiliary_addresses: range.auxiliary.iter().map(|(name, one)| (name.clone(), one.to_string())).collect(),
    }
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
    let range = |(subnet, gateway): (Subnet, IpAddr)| {
        let ipv4 = gateway.is_ipv4();
        let part = found.parts.iter().find(|part| part.address.is_ipv4() == ipv4);
        let aside = found.default_gateways.iter().find(|one| one.is_ipv4() == ipv4);
        let key = if ipv4 { "DefaultGatewayIPv4" } else { "DefaultGatewayIPv6" };
        IpamConfig {
            subnet: subnet.to_string(),
            ip_range: part.map(|part| part.to_string()).unwrap_or_default(),
            gateway: gateway.to_string(),
            auxiliary_addresses: aside.map(|aside| (key.to_owned(), aside.to_string())).into_iter().collect(),
        }
    };
    let ranges = std::iter::once((found.subnet, found.bridge_address)).chain(found.of_ipv6);
    Network {
        id: found.id.clone(),
        enable_ipv6: found.of_ipv6.is_some(),
        ipam: Ipam { config: Some(ranges.map(range).collect()), ..plain.ipam },
        options: options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        ..plain
    }
}

/// Who runs on a network: one that is always there, by name, or a user's, by id.
pub(crate) fn members(containers: &[Arc<Container>], network: &str) -> BTreeMap<String, Member> {
    let member = |container: &Arc<Container>| {
        let live = container.live();
        live.state.is_running().then_some(())?;
        let endpoint = live.place.as_ref().and_then(|place| place.on(network));
        let elsewhere = || network != DEFAULT && view::network_name(&container.definition) == Some(network);
        let member = match endpoint {
            Some(endpoint) => Member {
                name: live.name.clone(),
                endpoint_id: endpoint.endpoint_id.clone(),
                mac_address: view::mac(endpoint),
                ipv4_address: view::with_prefix(endpoint.ipv4),
                ipv6_address: view::with_prefix(endpoint.ipv6),
            },
            None if live.networks.is_none() && elsewhere() => Member { name: live.name.clone(), ..Member::default() },
            None => return None,
        };
        Some((container.id().to_string(), member))
    };
    containers.iter().filter_map(member).collect()
}

/// The id of a network that has no record: the same as long as the engine has its own.
fn own_id(engine: &Engine, name: &str) -> String {
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
            check_prune(&Filters([(key.to_owned(), values)].into())).map(drop).map_err(|err| err.to_string())
        };
        assert!(pruned("until", &["24h"]).is_ok());
        for (key, values, text) in [
            ("zz", &["x"][..], "invalid filter 'zz'"),
            ("until", &["x"], "failed to parse value as time or duration: \"x\""),
            ("until", &["1", "2"], "more than one until filter specified"),
        ] {
            assert_eq!(pruned(key, values), Err(text.to_owned()), "{key}");
        }
    }
}
