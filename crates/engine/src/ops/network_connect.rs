//! `POST /networks/{}/connect` and `disconnect`: containers join networks and leave them, running or not.
//!
//! Of a running container the kernel is changed first when it joins, and its record first when it leaves: what a daemon
//! that was killed in between has left, the next one takes away.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use container_spec::files::own_line;
use container_spec::validate::NetworksFault;
use engine_api::container::EndpointSettings;
use engine_api::network::{NetworkConnect, NetworkDisconnect};
use errdefs::ErrorKind;
use network::{Networks, Place};
use oci::ContainerId;
use tracing::warn;

use super::networks;
use crate::Engine;
use crate::container::Container;
use crate::hosts;
use crate::networking::attachments::{self, EndpointError};
use crate::networking::find::{Found, find};
use crate::networking::{self, Attachments, ConnectError, Mode, resolver, view};
use crate::registry::LookupError;

/// Why a container could not be connected or disconnected. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum NetworkConnectError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// There is no such network.
    #[error("network {0} not found")]
    NoNetwork(String),
    /// There is neither a container of that name nor what one left.
    #[error("endpoint {0} not found")]
    NoEndpoint(String),
    /// It does not go with the networks that it is on.
    #[error(transparent)]
    Together(NetworksFault),
    /// It wants what the network does not have.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// There is no place for it.
    #[error(transparent)]
    Join(network::JoinError),
    /// It is being started or taken away.
    #[error(transparent)]
    Container(ConnectError),
    /// It is not on that network.
    #[error("container {container} is not connected to {article}network {network}")]
    NotConnected {
        /// Which container.
        container: ContainerId,
        /// dockerd says it in two ways.
        article: &'static str,
        /// Which network.
        network: String,
    },
    /// Nobody leaves the host's network.
    #[error("cannot disconnect container from host network - container was created in host network mode")]
    Host,
    /// It cannot be taken off.
    #[error("take the container off the network")]
    Leave(#[source] network::NetworkError),
    /// Its record cannot be written.
    #[error("write the container's record")]
    Record(#[source] io::Error),
}

impl NetworkConnectError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            NetworkConnectError::Lookup(err) => err.kind(),
            NetworkConnectError::NoNetwork(_) | NetworkConnectError::NoEndpoint(_) => ErrorKind::NotFound,
            NetworkConnectError::Together(_) | NetworkConnectError::Host => ErrorKind::InvalidArgument,
            NetworkConnectError::Endpoint(err) => err.kind(),
            NetworkConnectError::Join(err) => err.kind(),
            NetworkConnectError::Container(err) => err.kind(),
            // dockerd does not mark it as the caller's mistake.
            NetworkConnectError::NotConnected { .. }
            | NetworkConnectError::Leave(_)
            | NetworkConnectError::Record(_) => ErrorKind::Internal,
        }
    }
}

/// Connects a container to a network.
pub async fn connect(engine: &Engine, network: &str, request: NetworkConnect) -> Result<(), NetworkConnectError> {
    let container = engine.containers.find(&request.container)?;
    let settings = attachments::wish(request.endpoint_config.unwrap_or_default());
    let (task, network) = (engine.clone(), network.to_owned());
    engine.detached(async move { connect_container(&task, &container, &network, settings).await }).await
}

/// Disconnects a container from a network.
pub async fn disconnect(engine: &Engine, network: &str, request: NetworkDisconnect) -> Result<(), NetworkConnectError> {
    let container = match engine.containers.find(&request.container) {
        Err(LookupError::NotFound(name)) if request.force => {
            let (task, wanted) = (engine.clone(), network.to_owned());
            let found = bridge::blocking(move || find(&task, &wanted)).await;
            found.ok_or_else(|| NetworkConnectError::NoNetwork(network.to_owned()))?;
            return Err(NetworkConnectError::NoEndpoint(name));
        }
        found => found?,
    };
    let (task, network) = (engine.clone(), network.to_owned());
    engine.detached(async move { disconnect_container(&task, &container, &network, request.force).await }).await
}

async fn connect_container(
    engine: &Engine,
    container: &Arc<Container>,
    wanted: &str,
    settings: EndpointSettings,
) -> Result<(), NetworkConnectError> {
    let _operation = container.operate().await?;
    let found = look(engine, wanted).await;
    let running = container.state().is_running();
    if found.is_none() && running {
        return Err(NetworkConnectError::NoNetwork(wanted.to_owned()));
    }
    if let Some(found) = &found {
        check_together(container, found)?;
        attachments::check(Some(found), &settings).map_err(EndpointError::Settings)?;
    }
    attachments::check_mac(&settings)?;
    let Some(found) = found.filter(|_| running) else {
        let name = found_name(engine, wanted).await;
        let user = !matches!(name.as_str(), "bridge" | "host" | "none");
        let dns_names = user.then(Vec::new);
        let before = container.live().networks.clone();
        add(container, &name, EndpointSettings { dns_names, ..settings });
        return write(engine, container).await.inspect_err(|_| container.live().networks = before);
    };
    let key = found.key().map(str::to_owned).unwrap_or_default();
    let request = networking::request(engine, container, vec![attachments::request(&key, &settings)]);
    let request = request.map_err(NetworkConnectError::Container)?;
    let namespace = namespace(container).await?;
    let task = engine.clone();
    let place = bridge::blocking(move || {
        let networks = task.networking.bridge().ok_or(NetworkConnectError::Container(ConnectError::NoBridge))?;
        networks.connect(&request, namespace.as_fd()).map_err(NetworkConnectError::Join)
    })
    .await;
    if place.is_err() {
        leave_if_ended(engine, container).await;
    }
    let place = place?;
    add(container, found.name(), settings);
    let addresses = place.on(&key).into_iter().flat_map(network::Endpoint::addresses);
    let lines: String = addresses.map(|address| own_line(&container.definition.config, address)).collect();
    keep(engine, container, place).await;
    // That it is there only the record says: without it nothing has changed.
    if let Err(err) = write(engine, container).await {
        remove(container, found.name());
        if let Err(undo) = take_off(engine, container, &key).await {
            warn!(err = errdefs::chain(&undo), "a container stays on a network that its record does not name");
        }
        return Err(err);
    }
    if !lines.is_empty() {
        edit_hosts(engine, container, move |hosts| Some(format!("{hosts}{lines}"))).await;
    }
    let id = found.user().map_or("", |network| network.id.as_str());
    networks::tell_endpoint(engine, container, (found.name(), id), "connect");
    Ok(())
}

async fn disconnect_container(
    engine: &Engine,
    container: &Arc<Container>,
    wanted: &str,
    force: bool,
) -> Result<(), NetworkConnectError> {
    let _operation = container.operate().await?;
    let found = look(engine, wanted).await;
    let running = container.state().is_running();
    let name = found.as_ref().map_or_else(|| wanted.to_owned(), |found| found.name().to_owned());
    let not_connected = |article| NetworkConnectError::NotConnected {
        container: container.id().clone(),
        article,
        network: name.clone(),
    };
    if !running || found.is_none() && force {
        if !is_on(container, &name) {
            return Err(not_connected("the "));
        }
        let before = container.live().networks.clone();
        remove(container, &name);
        return write(engine, container).await.inspect_err(|_| container.live().networks = before);
    }
    let found = found.ok_or_else(|| NetworkConnectError::NoNetwork(wanted.to_owned()))?;
    if name == "host" && Mode::of(&container.definition) == Mode::Host {
        return Err(NetworkConnectError::Host);
    }
    if !is_on(container, &name) {
        return Err(not_connected(""));
    }
    let addresses = found.key().and_then(|key| {
        let live = container.live();
        Some(live.place.as_ref()?.on(key)?.addresses().collect::<Vec<_>>())
    });
    let before = container.live().networks.clone();
    remove(container, &name);
    if let Err(err) = write(engine, container).await {
        container.live().networks = before;
        return Err(err);
    }
    if let Some(key) = found.key() {
        take_off(engine, container, key).await?;
    }
    if let Some(addresses) = addresses {
        edit_hosts(engine, container, move |hosts| Some(without(hosts, &addresses))).await;
    }
    let id = found.user().map_or("", |network| network.id.as_str());
    networks::tell_endpoint(engine, container, (&name, id), "disconnect");
    Ok(())
}

async fn take_off(engine: &Engine, container: &Arc<Container>, key: &str) -> Result<(), NetworkConnectError> {
    let namespace = namespace(container).await?;
    let (task, id, key) = (engine.clone(), container.id().clone(), key.to_owned());
    let left = bridge::blocking(move || {
        let networks = task.networking.bridge();
        let left = networks.map(|networks| networks.disconnect(id.as_str(), &key, Some(namespace.as_fd())));
        left.transpose().map(Option::flatten).map_err(NetworkConnectError::Leave)
    });
    match left.await {
        Ok(Some(place)) => keep(engine, container, place).await,
        Ok(None) => {}
        Err(err) => {
            leave_if_ended(engine, container).await;
            return Err(err);
        }
    }
    Ok(())
}

async fn look(engine: &Engine, wanted: &str) -> Option<Found> {
    let (task, wanted) = (engine.clone(), wanted.to_owned());
    bridge::blocking(move || find(&task, &wanted)).await
}

async fn found_name(engine: &Engine, wanted: &str) -> String {
    look(engine, wanted).await.map_or_else(|| wanted.to_owned(), |found| found.name().to_owned())
}

/// Refuses what excludes the networks that the container is on.
fn check_together(container: &Container, found: &Found) -> Result<(), NetworkConnectError> {
    let mode = Mode::of(&container.definition);
    let fault = match (&mode, found.name()) {
        (Mode::Container(_), _) => NetworksFault::Shared,
        (Mode::Host, "host") => return Ok(()),
        (Mode::Host, _) => NetworksFault::Shared,
        (_, "host") => NetworksFault::Host,
        (_, name) => {
            let on = current(container);
            if on.contains_key(name) || on.is_empty() || name != "none" && !on.contains_key("none") {
                return Ok(());
            }
            NetworksFault::None
        }
    };
    Err(NetworkConnectError::Together(fault))
}

/// The networks that a container is to be on, by name.
fn current(container: &Container) -> Attachments {
    match container.live().networks.clone() {
        Some(networks) => Attachments::clone(&networks),
        None => {
            let mode = view::network_name(&container.definition);
            mode.map(|name| (name.to_owned(), EndpointSettings::default())).into_iter().collect()
        }
    }
}

fn is_on(container: &Container, name: &str) -> bool {
    current(container).contains_key(name)
}

fn add(container: &Container, name: &str, settings: EndpointSettings) {
    let mut networks = current(container);
    // Of one that does not run a second wish is not heard, as with dockerd.
    networks.entry(name.to_owned()).or_insert(settings);
    container.live().networks = Some(Arc::new(networks));
}

fn remove(container: &Container, name: &str) {
    let mut networks = current(container);
    networks.remove(name);
    container.live().networks = Some(Arc::new(networks));
}

async fn write(engine: &Engine, container: &Arc<Container>) -> Result<(), NetworkConnectError> {
    engine.recorder.write_now(container).await.map_err(NetworkConnectError::Record)
}

/// The namespace of a container that runs.
async fn namespace(container: &Arc<Container>) -> Result<OwnedFd, NetworkConnectError> {
    let container = Arc::clone(container);
    bridge::blocking(move || networking::namespace_of(&container)).await.map_err(NetworkConnectError::Container)
}

/// Keeps the place of a container; of one that ended meanwhile nothing stays on any network.
pub(super) async fn keep(engine: &Engine, container: &Arc<Container>, place: Place) {
    if let Some(networks) = engine.networking.bridge() {
        attachments::note(networks, container, &place);
    }
    let stays = {
        let mut live = container.live();
        let stays = live.state.is_running() && !live.leaving;
        if stays {
            live.place = Some(Arc::new(place));
        }
        stays
    };
    if stays {
        return name(engine, container).await;
    }
    leave(engine, container).await;
}

/// A container that ends while a change of its networks is under way finds none to leave: who changed them leaves them
/// for it, or its next start would find its places taken.
pub(super) async fn leave_if_ended(engine: &Engine, container: &Arc<Container>) {
    let ended = {
        let live = container.live();
        !live.state.is_running() || live.leaving
    };
    if ended {
        leave(engine, container).await;
    }
}

async fn leave(engine: &Engine, container: &Container) {
    let (engine, id) = (engine.clone(), container.id().clone());
    let leave =
        move || engine.networking.bridge().into_iter().for_each(|networks: &Networks| networking::leave(networks, &id));
    bridge::blocking(leave).await;
}

/// Tells the names that a container has from now on, and gives it a name server with the first of them.
async fn name(engine: &Engine, container: &Arc<Container>) {
    resolver::announce(engine, container);
    if let Err(err) = resolver::ensure(engine, container).await {
        // It is on the network all the same, as with dockerd.
        warn!(container = %container.id(), err = errdefs::chain(&err), "the container finds no names");
    }
}

/// Changes the hosts file of a running container.
async fn edit_hosts(
    engine: &Engine,
    container: &Container,
    change: impl FnOnce(&str) -> Option<String> + Send + 'static,
) {
    let (engine, id) = (engine.clone(), container.id().clone());
    bridge::blocking(move || hosts::edit(&engine, &id, change)).await;
}

fn without(hosts: &str, addresses: &[IpAddr]) -> String {
    let own: Vec<String> = addresses.iter().map(|address| format!("{address}\t")).collect();
    let is_own = |line: &&str| own.iter().any(|own| line.starts_with(own.as_str()));
    hosts.split_inclusive('\n').filter(|line| !is_own(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leaves_the_hosts_file_with_its_network() {
        let hosts = "127.0.0.1\tlocalhost\n10.0.0.2\tbox\nfd00::2\tbox\n10.0.0.23\tother\n";
        let own = [IpAddr::from([10, 0, 0, 2]), "fd00::2".parse().unwrap()];
        assert_eq!(without(hosts, &own), "127.0.0.1\tlocalhost\n10.0.0.23\tother\n");
    }
}
