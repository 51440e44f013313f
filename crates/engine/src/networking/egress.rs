//! Egress policies: what containers ask for by their label, who opens what names lead to, and events of what is denied.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use engine_api::container::Config;
use engine_api::host_config::HostConfig;
use errdefs::ErrorKind;
use network::{DEFAULT, Denial, Denials, EGRESS, EgressError, EgressPolicy, EgressPolicyError};
use oci::ContainerId;
use tokio::io::Interest;
use tracing::{debug, warn};

use super::{Attachments, find};
use crate::Engine;
use crate::engine::Core;
use crate::names::Warden;
use crate::readiness;
use crate::sync::lock;

/// What happened, in events of networks.
const ACTION: &str = "egress-deny";

/// How long the same denial is not told again; and how many of one container are told in that time.
const WINDOW: Duration = Duration::from_secs(10);
const TOLD_IN_WINDOW: usize = 16;
/// With so many containers the windows of those that are silent are forgotten.
const WINDOWS_KEPT: usize = 256;

/// Why a container cannot have the policy that it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressRequestError {
    /// It is none.
    #[error(transparent)]
    Policy(#[from] EgressPolicyError),
    /// The network is not the container's own.
    #[error("conflicting options: an egress policy and the network mode {0}")]
    Shared(String),
    /// Nobody would look its names up.
    #[error("{}", EgressError::NoNames)]
    NoNames,
}

impl EgressRequestError {
    /// Always the caller's mistake.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// The policy that a container asks for.
pub(crate) fn of(config: &Config) -> Result<Option<EgressPolicy>, EgressPolicyError> {
    let label = config.labels.as_ref().and_then(|labels| labels.get(EGRESS));
    let policy: Option<EgressPolicy> = label.map(|text| text.parse()).transpose()?;
    Ok(policy.filter(EgressPolicy::restricts))
}

/// Refuses what could not be kept for a container that is to be made.
pub(crate) fn check(
    config: &Config,
    host: &HostConfig,
    networks: Option<&Attachments>,
) -> Result<(), EgressRequestError> {
    let Some(policy) = of(config)? else { return Ok(()) };
    let mode = host.network_mode.as_str();
    if mode == "host" || mode.starts_with("container:") {
        return Err(EgressRequestError::Shared(mode.to_owned()));
    }
    let on_default = match networks {
        None => matches!(mode, "" | "default" | DEFAULT),
        Some(networks) => networks.keys().all(|name| name == DEFAULT),
    };
    if policy.has_names() && on_default { Err(EgressRequestError::NoNames) } else { Ok(()) }
}

/// Limits what is told of denials: programs try again and again, and a hostile one as fast as it can.
#[derive(Debug, Default)]
pub(crate) struct Teller(Mutex<HashMap<String, Window>>);

#[derive(Debug)]
struct Window {
    began: Instant,
    told: HashSet<String>,
}

impl Teller {
    /// Whether a denial of a container is to be told.
    fn takes(&self, container: &str, denial: &str, now: Instant) -> bool {
        let mut windows = lock(&self.0);
        let is_over = |window: &Window| now.duration_since(window.began) >= WINDOW;
        if windows.len() > WINDOWS_KEPT {
            windows.retain(|_, window| !is_over(window));
        }
        let fresh = || Window { began: now, told: HashSet::new() };
        let window = windows.entry(container.to_owned()).or_insert_with(fresh);
        if is_over(window) {
            *window = fresh();
        }
        window.told.len() < TOLD_IN_WINDOW && window.told.insert(denial.to_owned())
    }
}

/// Opens what names lead to in the packet filter, as long as the engine lives.
struct OfEngine(Weak<Core>);

impl Warden for OfEngine {
    fn open(&self, container: &ContainerId, name: &str, addresses: &[(IpAddr, Duration)]) -> Result<(), EgressError> {
        let core = self.0.upgrade();
        let networks = core.as_ref().and_then(|core| core.networking.bridge());
        networks.map_or(Ok(()), |networks| network::open_egress(networks, container.as_str(), name, addresses))
    }

    fn refused(&self, container: &ContainerId, name: &str) {
        let Some(engine) = self.0.upgrade().map(Engine) else { return };
        if !engine.networking.denials.takes(container.as_str(), name, Instant::now()) {
            return;
        }
        let place = engine.containers.get(container).and_then(|container| container.live().place.clone());
        let asks = place.iter().flat_map(|place| &place.endpoints).find(|endpoint| endpoint.network != DEFAULT);
        let network = asks.map_or(DEFAULT, |endpoint| endpoint.network.as_str()).to_owned();
        tell(&engine, &network, container.as_str(), [("destination", name.to_owned()), ("protocol", "dns".to_owned())]);
    }
}

/// Has names of containers with a policy open what they lead to.
pub(crate) fn appoint_warden(engine: &Engine) {
    engine.names.appoint(Arc::new(OfEngine(Arc::downgrade(&engine.0))));
}

/// Tells of what policies deny, as long as the daemon lives.
pub(crate) async fn tell_denials(engine: &Engine) {
    let listener = engine.clone();
    let listening = bridge::blocking(move || listener.networking.bridge().map(Denials::listen).transpose()).await;
    let mut denials = match listening {
        Ok(Some(denials)) => denials,
        Ok(None) => return,
        // A kernel without nfnetlink_log: names that are refused are told all the same.
        Err(err) => return warn!(err = errdefs::chain(&err), "packets that egress policies deny are told to nobody"),
    };
    let readable = denials.as_fd().try_clone_to_owned().and_then(|fd| readiness::register(fd, Interest::READABLE));
    let readable = match readable {
        Ok(readable) => readable,
        Err(err) => return warn!(%err, "packets that egress policies deny are told to nobody"),
    };
    loop {
        let Ok(mut ready) = readable.readable().await else { return };
        ready.clear_ready();
        let reader = engine.clone();
        let read;
        (read, denials) = bridge::blocking(move || {
            let read = reader.networking.bridge().map(|networks| denials.read(networks));
            (read.transpose(), denials)
        })
        .await;
        match read {
            Ok(denied) => denied.into_iter().flatten().for_each(|denial| tell_packet(engine, &denial)),
            Err(err) => debug!(err = errdefs::chain(&err), "read what egress policies deny"),
        }
    }
}

fn tell_packet(engine: &Engine, denial: &Denial) {
    let Denial { container, network, destination, port, protocol, forged } = denial;
    let key = format!("{destination} {port:?} {protocol} {forged:?}");
    if !engine.networking.denials.takes(container, &key, Instant::now()) {
        return;
    }
    let attributes = [("destination", destination.to_string()), ("protocol", protocol.clone())].into_iter();
    let attributes = attributes.chain(port.map(|port| ("port", port.to_string())));
    tell(engine, network, container, attributes.chain(forged.map(|address| ("source", address.to_string()))));
}

/// Tells of a denial on a network: the default bridge, or a user's by its id.
fn tell(engine: &Engine, network: &str, container: &str, attributes: impl IntoIterator<Item = (&'static str, String)>) {
    let Some(networks) = engine.networking.bridge() else { return };
    let user = find::user(networks, network);
    let (id, name, driver) = match &user {
        Some(user) => (user.id.clone(), user.name.clone(), user.driver.kind().to_string()),
        None => {
            let id = networks.network().map(|bridge| bridge.id).unwrap_or_default();
            (id, DEFAULT.to_owned(), "bridge".to_owned())
        }
    };
    let of_network = [("container", container.to_owned()), ("name", name), ("type", driver)];
    let all = of_network.into_iter().chain(attributes).map(|(name, value)| (name.to_owned(), value));
    engine.events.of_network(&id, ACTION, all.collect::<BTreeMap<String, String>>());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(policy: &str, mode: &str, networks: Option<&[&str]>) -> Result<(), String> {
        let labels = Some([(EGRESS.to_owned(), policy.to_owned())].into());
        let config = Config { labels, ..Config::default() };
        let host = HostConfig { network_mode: mode.to_owned(), ..HostConfig::default() };
        let networks: Option<Attachments> =
            networks.map(|names| names.iter().map(|name| ((*name).to_owned(), Default::default())).collect());
        check(&config, &host, networks.as_ref()).map_err(|err| err.to_string())
    }

    #[test]
    fn what_could_not_be_kept_is_refused() {
        let names = "an egress policy with names needs a network of your own (network create): containers on the default bridge \
                     ask other name servers than ours";
        for (policy, mode, networks, error) in [
            ("deny", "default", None, ""),
            ("allow", "host", None, ""),
            ("allow=a.org:1", "none", None, ""),
            ("allow=a.org:1", "front", Some(&["front"][..]), ""),
            ("allow=a.org:1", "bridge", Some(&["bridge", "front"]), ""),
            ("allow=a.org:1", "default", None, names),
            ("allow=a.org:1", "bridge", Some(&["bridge"]), names),
            ("deny", "host", None, "conflicting options: an egress policy and the network mode host"),
            ("deny", "container:x", None, "conflicting options: an egress policy and the network mode container:x"),
            ("x", "default", None, "invalid egress policy: \"x\": expected deny, allow, or allow=DESTINATION"),
        ] {
            let expected = if error.is_empty() { Ok(()) } else { Err(error.to_owned()) };
            assert_eq!(checked(policy, mode, networks), expected, "{policy} {mode}");
        }
    }

    #[test]
    fn the_same_is_told_once_in_a_while_and_no_flood_is() {
        let (teller, now) = (Teller::default(), Instant::now());
        assert!(teller.takes("a", "x", now) && !teller.takes("a", "x", now) && teller.takes("b", "x", now));
        let told = (0..1000).filter(|number| teller.takes("a", &number.to_string(), now)).count();
        assert_eq!(told, TOLD_IN_WINDOW - 1);
        assert!(!teller.takes("a", "x", now + WINDOW / 2) && teller.takes("a", "x", now + WINDOW));
        for number in 0..2 * WINDOWS_KEPT {
            teller.takes(&format!("c{number}"), "x", now + WINDOW);
        }
        teller.takes("d", "x", now + 2 * WINDOW);
        assert_eq!(lock(&teller.0).len(), 1);
    }
}
