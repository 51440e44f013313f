//! Containers and networks: which one a container is on, and its way on and off.
//!
//! ```text
//!   launch: join() -> Joined { namespace, donor } -> the shim            blocks; before the shim is started
//!   supervise: an end -> withdraw() -> Observation::Left -> the state    off the network before anybody hears of the end
//! ```
//! Crate `network` owns the records. `Live::place` is a copy of a container's, for whoever looks; who takes it out takes
//! the container off the network, so that this happens once. After a restart [`Networking::reconcile`] comes before the
//! first join.

pub mod attachments;
pub mod egress;
pub(crate) mod find;
pub mod ipam;
pub(crate) mod resolver;
pub(crate) mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use container_spec::files::{Addresses, HOST_GATEWAY, hosts_file};
use container_spec::ports::{ContainerPort, Protocol, publications};
use engine_api::container::EndpointSettings;
use errdefs::ErrorKind;
use network::{DEFAULT, DriverKind, EndpointRequest, Healer, JoinRequest, Networks, PortRequest};
use oci::ContainerId;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::Engine;
use crate::container::Container;
use crate::container::record::Definition;
use crate::container::state::Phase;
use crate::links::{self, LinkError};
use crate::ops::networks;
use crate::readiness;
use crate::registry::LookupError;
use crate::shim::Spawner;

/// The networks that a container is to be on, and what it wants there, by name.
pub type Attachments = BTreeMap<String, EndpointSettings>;

/// How many sockets the shim gets at most: half of a message (`sys::socket::FDS_MAX`), which clients' streams share.
const HOLDS_MAX: usize = 32;

/// How long changes of others are gathered before they are looked at: a firewall that is loaded rule by rule costs one look.
const GATHER: Duration = Duration::from_millis(50);
/// When what could not be made good is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Why a container cannot be connected. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no place for it.
    #[error("failed to set up container networking")]
    Join(#[source] network::JoinError),
    /// The daemon was told to have no bridge.
    #[error("failed to set up container networking: network bridge not found")]
    NoBridge,
    /// A network is gone.
    #[error("failed to set up container networking: network {0} not found")]
    NoNetwork(String),
    /// It wants of a network what that one does not have.
    #[error(transparent)]
    Endpoint(#[from] attachments::EndpointError),
    /// What it asks to publish is no port.
    #[error(transparent)]
    Ports(container_spec::InvalidRequest),
    /// Its egress policy is none.
    #[error(transparent)]
    Egress(#[from] network::EgressPolicyError),
    /// The container whose network it is to share is not there.
    #[error("joining network namespace of container")]
    Donor(#[source] LookupError),
    /// That one does not run.
    #[error("cannot join network namespace of a non running container: container {name} is {state}")]
    DonorEnded {
        /// Its name.
        name: String,
        /// How it is.
        state: &'static str,
    },
    /// It is that one.
    #[error("cannot join own network namespace")]
    Own,
    /// The namespace cannot be opened.
    #[error("open the network namespace of container {0}")]
    Namespace(ContainerId, #[source] std::io::Error),
    /// It does not reach a container that it links to.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It finds no names.
    #[error(transparent)]
    Names(#[from] resolver::NameServerError),
    /// Its /etc/hosts cannot be written.
    #[error("write the container's hosts file")]
    Hosts(#[source] std::io::Error),
}

impl ConnectError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ConnectError::Join(err) => err.kind(),
            ConnectError::NoBridge | ConnectError::NoNetwork(_) => ErrorKind::NotFound,
            ConnectError::Endpoint(err) => err.kind(),
            ConnectError::DonorEnded { .. } => ErrorKind::Conflict,
            ConnectError::Ports(err) => err.kind(),
            ConnectError::Egress(err) => err.kind(),
            ConnectError::Link(err) => err.kind(),
            ConnectError::Names(err) => err.kind(),
            ConnectError::Donor(_) | ConnectError::Own | ConnectError::Namespace(..) | ConnectError::Hosts(_) => {
                ErrorKind::Internal
            }
        }
    }
}

/// Which network a container asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode<'a> {
    /// The default bridge.
    Bridge,
    /// A network that somebody made.
    User(&'a str),
    /// A namespace of its own, with nothing in it.
    None,
    /// The host's.
    Host,
    /// That of this container.
    Container(&'a str),
}

impl Mode<'_> {
    pub(crate) fn of(definition: &Definition) -> Mode<'_> {
        let mode = definition.host_config.network_mode.as_str();
        match mode.strip_prefix("container:") {
            Some(donor) => Mode::Container(donor),
            None if mode == "host" => Mode::Host,
            None if mode == "none" || definition.config.network_disabled => Mode::None,
            None if matches!(mode, "" | "default" | DEFAULT) => Mode::Bridge,
            None => Mode::User(mode),
        }
    }
}

/// The networks of this daemon.
#[derive(Debug)]
pub struct Networking {
    /// Absent where the daemon was told to have no bridge.
    networks: Option<Networks>,
    /// Whether what an earlier daemon left is settled: nobody joins before.
    settled: watch::Sender<bool>,
    /// Whether somebody has had the bridge set up.
    prepared: AtomicBool,
    /// What is told of what egress policies deny.
    pub(crate) denials: egress::Teller,
}

/// A container that is connected, and taken off again unless it is kept.
pub(crate) struct Joined {
    /// The namespace to live in; a new and empty one if absent, or the host's.
    namespace: Option<OwnedFd>,
    /// What holds its published ports.
    holds: Vec<OwnedFd>,
    /// The sockets of its name server.
    lends: Vec<OwnedFd>,
    /// Whose network it shares.
    pub(crate) donor: Option<Arc<Container>>,
    undo: Option<(Engine, Arc<Container>)>,
}

impl Networking {
    /// Reads the records. Changes nothing.
    pub(crate) fn open(
        config: Option<network::Config>,
        spawner: &Arc<Spawner>,
    ) -> Result<Networking, network::NetworkError> {
        let networks = config.map(Networks::open).transpose()?;
        if let Some(networks) = &networks {
            let spawner = Arc::clone(spawner);
            let start = move |dir: &std::path::Path, socket| spawner.spawn_relay(dir, socket);
            network::start_relays_by(networks, Box::new(start));
        }
        Ok(Networking {
            networks,
            settled: watch::Sender::new(false),
            prepared: AtomicBool::new(false),
            denials: egress::Teller::default(),
        })
    }

    /// The default bridge, if there is one.
    pub(crate) fn bridge(&self) -> Option<&Networks> {
        self.networks.as_ref()
    }

    /// Waits until containers may join.
    pub(crate) async fn settled(&self) {
        // The sender is ours.
        _ = self.settled.subscribe().wait_for(|settled| *settled).await;
    }

    /// Takes those off the network that ended while no daemon was there, and finds the places of the others. Blocks.
    pub(crate) fn reconcile(&self, containers: &[Arc<Container>]) {
        let runs = |container: &&Arc<Container>| matches!(container.state().phase, Phase::Running { .. });
        let alive: Vec<&str> = containers.iter().filter(runs).map(|container| container.id().as_str()).collect();
        if let Some(networks) = &self.networks {
            if let Err(err) = networks.reconcile(&alive) {
                warn!(err = errdefs::chain(&err), "the network is not as it should be");
            }
            for container in containers.iter().filter(|one| alive.contains(&one.id().as_str())) {
                enter(networks, container);
                let wanted = attachments::known(networks, container);
                if let Err(err) = networks.keep_only(container.id().as_str(), &wanted) {
                    warn!(err = errdefs::chain(&err), "a container stays on a network that it has left");
                }
                keep_ports(networks, container);
                let Some(place) = networks.place(container.id().as_str()) else { continue };
                attachments::note(networks, container, &place);
                let mut live = container.live();
                let ended = !matches!(live.state.phase, Phase::Running { .. });
                live.place = (!ended).then(|| Arc::new(place));
                drop(live);
                if ended {
                    leave(networks, container.id());
                }
            }
        }
        self.settled.send_replace(true);
    }

    /// Makes good what others change in the packet filter, until there is nothing left to listen to.
    pub(crate) async fn heal(&self, engine: &Engine) {
        let (readable, mut healer) = match listen(engine).await {
            Ok(Some(listening)) => listening,
            Ok(None) => return,
            Err(err) => {
                return warn!(%err, "what others flush of the packet filter comes back with the next start alone");
            }
        };
        // What was told until then is looked at afterwards.
        self.settled().await;
        let mut failed = false;
        loop {
            if failed {
                tokio::time::sleep(AGAIN).await;
            } else {
                let Ok(mut ready) = readable.readable().await else { return };
                tokio::time::sleep(GATHER).await;
                ready.clear_ready();
            }
            let engine = engine.clone();
            let healed = bridge::blocking(move || {
                let healed = engine.networking.networks.as_ref().map(|networks| healer.heal(networks));
                (healed.transpose(), healer)
            });
            let result;
            (result, healer) = healed.await;
            failed = result.is_err();
            if let Err(err) = result {
                warn!(err = errdefs::chain(&err), "the packet filter is not as it should be");
            }
        }
    }

    /// Replaces a relay that somebody ended, as long as the daemon lives. One that ends at once is replaced once in a second.
    pub(crate) async fn keep_relay(&self, engine: &Engine) {
        let Some(networks) = &self.networks else { return };
        let registered = network::relay_end(networks).and_then(|end| readiness::register(end, Interest::READABLE));
        let ended = match registered {
            Ok(ended) => ended,
            Err(err) => return warn!(%err, "a relay that is killed comes back with the next port alone"),
        };
        self.settled().await;
        let mut failed = false;
        loop {
            if !failed {
                let Ok(mut ready) = ended.readable().await else { return };
                ready.clear_ready();
            }
            let engine = engine.clone();
            let replaced =
                bridge::blocking(move || engine.networking.networks.as_ref().map(network::replace_relay)).await;
            failed = matches!(replaced, Some(Err(_)));
            if let Some(Err(err)) = replaced {
                warn!(err = errdefs::chain(&err), "published ports without a relay");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Removes the bridge if nobody is on it. For the end of the daemon. Blocks.
    pub(crate) fn close(&self) {
        if let Some(networks) = &self.networks
            && let Err(err) = networks.close()
        {
            warn!(err = errdefs::chain(&err), "the bridge stays behind");
        }
    }
}

/// Who hears what others change in the packet filter, and what is readable then; nobody without networks.
async fn listen(engine: &Engine) -> std::io::Result<Option<(AsyncFd<OwnedFd>, Healer)>> {
    let networks = engine.clone();
    let listening =
        bridge::blocking(move || networks.networking.networks.as_ref().map(Healer::listen).transpose()).await;
    let listening = listening.map_err(|err| std::io::Error::other(errdefs::chain(&err)))?;
    let register =
        |healer: Healer| Ok((readiness::register(healer.as_fd().try_clone_to_owned()?, Interest::READABLE)?, healer));
    listening.map(register).transpose()
}

/// Sets the bridge up in the background, once, because a container that was created will ask for it soon.
pub(crate) fn prepare_soon(engine: &Engine, definition: &Definition) {
    let networking = &engine.networking;
    let unprepared = || !networking.prepared.swap(true, Ordering::Relaxed);
    if matches!(Mode::of(definition), Mode::Bridge | Mode::User(_)) && networking.networks.is_some() && unprepared() {
        let engine = engine.clone();
        tokio::spawn(bridge::blocking(move || {
            // The start that needs it tries again, and tells the user why it cannot.
            if let Some(Err(err)) = engine.networking.bridge().map(Networks::prepare) {
                debug!(err = errdefs::chain(&err), "set the bridge up");
            }
        }));
    }
}

/// `container:NAME` with the container's id, which it keeps; as it is where there is no such container.
pub(crate) fn resolve_mode(engine: &Engine, mode: &mut String) {
    if let Some(name) = mode.strip_prefix("container:")
        && let Ok(donor) = engine.containers.find(name)
    {
        *mode = format!("container:{}", donor.id());
    }
}

/// Connects a container that is about to start, and writes what its /etc/hosts has of it. Blocks.
pub(crate) fn join(engine: &Engine, container: &Arc<Container>) -> Result<Joined, ConnectError> {
    let definition = &container.definition;
    let mut joined = Joined { namespace: None, holds: Vec::new(), lends: Vec::new(), donor: None, undo: None };
    let mut addresses = Addresses::default();
    if let Mode::Container(donor) = Mode::of(definition) {
        let (donor, namespace) = donor_namespace(engine, container, donor)?;
        (joined.namespace, joined.donor) = (Some(namespace), Some(donor));
    }
    let endpoints = attachments::requests(engine, container)?;
    let mut on_default = None;
    if !endpoints.is_empty() {
        let networks = engine.networking.bridge().ok_or(ConnectError::NoBridge)?;
        let made = networks.join(&request(engine, container, endpoints)?).map_err(ConnectError::Join)?;
        joined.undo = Some((engine.clone(), container.clone()));
        addresses.own = made.place.endpoints.iter().flat_map(network::Endpoint::addresses).collect();
        addresses.gateway = made.place.endpoints.first().filter(|first| first.network != DEFAULT).and_then(gateway_of);
        on_default = made.place.on(DEFAULT).and_then(|endpoint| endpoint.ipv4).map(|own| own.address);
        let namespace = joined.namespace.insert(made.namespace);
        joined.holds = made.holds;
        // More do not go into one message. The others are held by us as long as we live.
        joined.holds.truncate(HOLDS_MAX);
        attachments::note(networks, container, &made.place);
        container.live().place = Some(Arc::new(made.place));
        resolver::announce(engine, container);
        joined.lends = resolver::open(engine, container, namespace.as_fd())?;
    }
    let names_gateway = |entry: &String| entry.split_once(':').is_some_and(|(_, address)| address == HOST_GATEWAY);
    note_predefined(engine, container);
    let asks_gateway = definition.host_config.extra_hosts.iter().flatten().any(names_gateway);
    if asks_gateway && addresses.gateway.is_none() {
        // The gateway of the default bridge's containers may be another machine.
        let network = engine.networking.bridge().map(Networks::network).transpose();
        addresses.gateway = network.ok().flatten().map(|network| network.bridge_address);
    }
    if asks_gateway || !addresses.own.is_empty() {
        // Nobody on the host's network is here without names of its own, which replace the host's.
        let links = links::lines(engine, container)?;
        let text = hosts_file(&definition.config, &definition.host_config, &addresses, &links, "");
        std::fs::write(engine.recorder.dir(container.id()).hosts(), text).map_err(ConnectError::Hosts)?;
    }
    if let Some(own) = on_default {
        links::tell_parents(engine, container, own);
    }
    Ok(joined)
}

/// Notes on which of the networks that are always there the container is: what is shown of one that has ended says so.
fn note_predefined(engine: &Engine, container: &Container) {
    let definition = &container.definition;
    let place = container.live().place.clone();
    let on_default = || Some(place.as_ref()?.on(DEFAULT)?.network_id.clone());
    let id = match Mode::of(definition) {
        Mode::Bridge => on_default(),
        Mode::Host | Mode::None => view::network_name(definition).map(|name| networks::predefined_id(engine, name)),
        Mode::User(_) | Mode::Container(_) => None,
    };
    container.live().state.network_id = id.unwrap_or_default();
}

/// The host's address on a network, if it has one there.
fn gateway_of(endpoint: &network::Endpoint) -> Option<IpAddr> {
    if endpoint.driver != DriverKind::Bridge {
        return None;
    }
    let ipv4 = endpoint.ipv4.and_then(|own| own.gateway).map(IpAddr::V4);
    ipv4.or(endpoint.ipv6.and_then(|own| own.gateway).map(IpAddr::V6))
}

/// What crate `network` is to be asked for.
pub(crate) fn request(
    engine: &Engine,
    container: &Container,
    endpoints: Vec<EndpointRequest>,
) -> Result<JoinRequest, ConnectError> {
    let ports = publications(&container.config(), &container.host_config()).map_err(ConnectError::Ports)?;
    Ok(JoinRequest {
        container: container.id().to_string(),
        name: container.name(),
        ports: ports.into_iter().map(port_request).collect(),
        endpoints,
        egress: egress::of(&container.definition.config)?,
        exposed: exposed(container),
        links: links::linked(engine, container.id()),
    })
}

/// The ports that who links to it reaches, whatever else is shut: those that it exposes, and those that are published.
fn exposed(container: &Container) -> Vec<(network::Protocol, u16)> {
    let (config, host) = (container.config(), container.host_config());
    let of_config = config.exposed_ports.iter().flatten().map(|(port, _)| port);
    let ports = of_config.chain(host.port_bindings.iter().flatten().map(|(port, _)| port));
    let ports: BTreeSet<_> = ports
        .filter_map(|port| ContainerPort::parse(port))
        .map(|port| (port.number, protocol(port.protocol)))
        .collect();
    ports.into_iter().map(|(number, protocol)| (protocol, number)).collect()
}

fn protocol(protocol: Protocol) -> network::Protocol {
    match protocol {
        Protocol::Tcp => network::Protocol::Tcp,
        Protocol::Udp => network::Protocol::Udp,
        Protocol::Sctp => network::Protocol::Sctp,
    }
}

/// Has a container publish what its record says: a daemon that was killed in the middle of a change may have done either.
fn keep_ports(networks: &Networks, container: &Container) {
    let requests = match publications(&container.config(), &container.host_config()) {
        Ok(wanted) => wanted.into_iter().map(port_request).collect::<Vec<_>>(),
        Err(err) => return warn!(%err, "the ports of a container's record are none"),
    };
    let (container, name) = (container.id().to_string(), container.name());
    let kept = network::PortChange { container, name, before: requests.clone(), after: requests };
    if let Err(err) = network::keep_ports(networks, &kept) {
        warn!(err = errdefs::chain(&err), container = kept.name, "a container does not publish what it is to");
    }
}

/// A port to publish, as crate `network` takes it.
pub(crate) fn port_request(one: container_spec::ports::Publication) -> PortRequest {
    PortRequest {
        protocol: protocol(one.port.protocol),
        container_port: one.port.number,
        host_address: one.host_address,
        host_ports: one.host_ports,
    }
}

fn donor_namespace(
    engine: &Engine,
    container: &Container,
    donor: &str,
) -> Result<(Arc<Container>, OwnedFd), ConnectError> {
    let donor = engine.containers.find(donor).map_err(ConnectError::Donor)?;
    if donor.id() == container.id() {
        return Err(ConnectError::Own);
    }
    let namespace = namespace_of(&donor)?;
    Ok((donor, namespace))
}

/// The network namespace of a container that runs. Blocks shortly.
pub(crate) fn namespace_of(donor: &Container) -> Result<OwnedFd, ConnectError> {
    let run = |donor: &Container| match donor.state() {
        state @ crate::container::state::State { phase: Phase::Running { pid }, .. } => {
            Ok((pid, state.started_at_nanos))
        }
        state => Err(ConnectError::DonorEnded { name: donor.name(), state: state.name() }),
    };
    let before = run(donor)?;
    let file = File::open(format!("/proc/{}/ns/net", before.0));
    // A process that ended may have left its number to another one.
    if run(donor)? != before {
        return Err(ConnectError::DonorEnded { name: donor.name(), state: "restarting" });
    }
    let namespace = file.map_err(|source| ConnectError::Namespace(donor.id().clone(), source))?;
    Ok(namespace.into())
}

/// Says where a container lives that an earlier daemon has connected: what it has there alone can be taken from it again.
fn enter(networks: &Networks, container: &Container) {
    let entered = namespace_of(container).map_err(|err| errdefs::chain(&err)).and_then(|namespace| {
        network::enter(networks, container.id().as_str(), namespace.as_fd()).map_err(|err| errdefs::chain(&err))
    });
    if let Err(err) = entered {
        // It has ended meanwhile, for one: its links go with it.
        debug!(container = %container.id(), err, "look into the container's network");
    }
}

/// Takes a container off its network if it is on one; for a start that failed.
pub(crate) async fn withdraw(engine: &Engine, container: &Container) {
    let place = container.live().place.take();
    engine.names.forget(container.id());
    if place.is_some() {
        let (engine, id) = (engine.clone(), container.id().clone());
        bridge::blocking(move || engine.networking.bridge().into_iter().for_each(|networks| leave(networks, &id)))
            .await;
    }
}

pub(crate) fn leave(networks: &Networks, id: &ContainerId) {
    if let Err(err) = networks.leave(id.as_str()) {
        // What stays has a record, and is taken away by the next daemon.
        warn!(container = %id, err = errdefs::chain(&err), "the container left something on its network");
    }
}

impl Joined {
    /// The container's start goes on: it stays where it is. Answers the namespace, and what holds its ports and waits for
    /// questions.
    pub(crate) fn keep(mut self) -> (Option<OwnedFd>, Vec<OwnedFd>, Vec<OwnedFd>) {
        self.undo = None;
        (self.namespace.take(), std::mem::take(&mut self.holds), std::mem::take(&mut self.lends))
    }
}

impl Drop for Joined {
    /// Off the network again. Blocks: a join is undone where it was made.
    fn drop(&mut self) {
        let Some((engine, container)) = self.undo.take() else { return };
        if container.live().place.take().is_none() {
            return;
        }
        engine.names.forget(container.id());
        if let Some(networks) = engine.networking.bridge() {
            leave(networks, container.id());
        }
    }
}
