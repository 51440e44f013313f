//! Ports that the relay serves: when a container joins or leaves, and what an earlier daemon has left.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use relay::Rule;

use super::endpoints::Entry;
use super::{Networks, lock};
use crate::error::NetworkError;
use crate::hold::{Hold, hold_for_relay};
use crate::ports::Published;
use crate::record::SandboxRecord;
use crate::relays::{self, Relays, Starter};

/// Says who starts the relay, which nobody does otherwise. Before the first join.
pub fn start_relays_by(networks: &Networks, starter: Starter) {
    lock(&networks.relays).start_by(starter);
}

/// Has the relay serve those of a container's ports to which no rule leads.
pub(super) fn serve(networks: &Networks, entry: &Entry) -> Result<(), NetworkError> {
    let mut relays = lock(&networks.relays);
    for published in &entry.record.ports {
        let Some(target) = entry.record.relay_target(published.host_address) else { continue };
        let target = SocketAddr::new(target, published.container_port);
        let held = entry.holds.iter().find(|held| held.published() == published);
        let put = |relays: &mut Relays| relays.put(published, target, held.map(Hold::socket));
        if let Some(held) = held {
            held.seal().map_err(|errno| NetworkError::Relay { source: errno.into() })?;
        }
        match put(&mut relays) {
            Ok(()) => {}
            Err(source) if relays::is_refusal(&source) => return Err(NetworkError::Relay { source }),
            Err(err) => {
                // Somebody killed it. What else it served is due again, too.
                tracing::warn!(%err, "the relay is gone, or does not answer: it is looked for again");
                put(&mut relays).map_err(|source| NetworkError::Relay { source })?;
                put_missing(networks, &mut relays);
            }
        }
    }
    Ok(())
}

/// Has the relay serve these ports no longer. Before their sockets and their container's address are given back.
pub(super) fn withdraw(networks: &Networks, ports: &[Published]) -> Result<(), NetworkError> {
    let mut relays = lock(&networks.relays);
    let removed: Vec<_> = ports.iter().map(|published| relays.remove(published)).collect();
    removed.into_iter().collect::<Result<(), _>>().map_err(|source| NetworkError::Relay { source })
}

/// Brings the relay in line with the containers that are there.
pub(super) fn settle(networks: &Networks) {
    let mut relays = lock(&networks.relays);
    let (served, wanted) = put_missing(networks, &mut relays);
    // Behind what is put: a relay ends with its last port.
    for rule in served.iter().filter(|rule| !wanted.contains(&rule.id)) {
        if let Err(err) = relays.remove_id(&rule.id) {
            tracing::warn!(%err, id = rule.id, "a port that nobody publishes any more is still relayed");
        }
    }
}

/// Has the ports of all containers that are there served; answers what was served before, and the names of those ports.
fn put_missing(networks: &Networks, relays: &mut Relays) -> (Vec<Rule>, Vec<String>) {
    let served = relays.list().unwrap_or_else(|err| {
        tracing::warn!(%err, "the relay does not answer");
        Vec::new()
    });
    let wanted = wanted(networks);
    let ids = wanted.iter().map(|(published, target, _)| relays::rule(published, *target).id).collect();
    for (published, target, socket) in &wanted {
        let rule = relays::rule(published, *target);
        if served.contains(&rule) {
            continue;
        }
        let known = served.iter().any(|one| one.id == rule.id);
        let put = match (known, socket) {
            (true, _) => relays.put(published, *target, None),
            (false, Some(socket)) => relays.put(published, *target, Some(socket.as_fd())),
            (false, None) => {
                hold_again(published).and_then(|socket| relays.put(published, *target, Some(socket.as_fd())))
            }
        };
        if let Err(err) = put {
            tracing::warn!(%err, ?published, "a published port is not relayed");
        }
    }
    (served, ids)
}

/// The socket is the relay's from now on.
fn hold_again(published: &Published) -> std::io::Result<OwnedFd> {
    let held = hold_for_relay(published)?;
    held.seal()?;
    held.share()
}

/// All ports that are to be relayed, where they lead, and their sockets as far as this process has them.
fn wanted(networks: &Networks) -> Vec<(Published, SocketAddr, Option<OwnedFd>)> {
    let state = networks.state();
    let of = |entry: &Entry| {
        let relayed = |published: &Published| {
            let target = entry.record.relay_target(published.host_address)?;
            let held = entry.holds.iter().find(|held| held.published() == published);
            Some((
                *published,
                SocketAddr::new(target, published.container_port),
                held.and_then(|held| held.share().ok()),
            ))
        };
        entry.record.ports.iter().filter_map(relayed).collect::<Vec<_>>()
    };
    state.all().flat_map(of).collect()
}

impl SandboxRecord {
    /// Where the relay leads from a host address; none where rules do. No rule leads from ::1, nor to the other family.
    pub(crate) fn relay_target(&self, host: IpAddr) -> Option<IpAddr> {
        let own = self.target(host);
        if own.is_some() && host != IpAddr::V6(std::net::Ipv6Addr::LOCALHOST) {
            return None;
        }
        let other = match host {
            IpAddr::V4(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        };
        own.or_else(|| self.target(other))
    }
}
