//! Ports that the relay serves: when a container joins or leaves, and what an earlier daemon has left.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use relay::AskError;

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
    networks.relays_are_possible.store(true, Ordering::Relaxed);
}

/// What is readable when somebody has ended the relay: [`replace_relay`] is due.
pub fn relay_end(networks: &Networks) -> io::Result<OwnedFd> {
    lock(&networks.relays).end().try_clone_to_owned()
}

/// Starts another relay where somebody has ended the one that there was, for all that it is to serve. After an error the same is
/// due still. Blocks for its start and its answers, five seconds each at most.
pub fn replace_relay(networks: &Networks) -> Result<(), NetworkError> {
    let mut relays = lock(&networks.relays);
    let settled = relays.forget_ended().map_err(AskError::Io).and_then(|ended| {
        // One that nobody needs ends by itself.
        if ended && relays.is_needed() {
            tracing::warn!("the relay is gone: another one serves its ports");
        }
        if relays.is_unsettled() { bring_in_line(networks, &mut relays) } else { Ok(()) }
    });
    let settled = settled.and_then(|()| match relays.is_unsettled() {
        // A relay did not start, or somebody joins or leaves at this moment.
        true => Err(io::Error::other("not all published ports are served").into()),
        false => Ok(()),
    });
    settled.map_err(|source| NetworkError::Relay { source })
}

/// Whether there can be a relay. Waits for none.
pub(super) fn is_possible(networks: &Networks) -> bool {
    networks.relays_are_possible.load(Ordering::Relaxed)
}

/// Whether the relay leads from ::1, to which no rule applies, what is published on all addresses of IPv6.
pub(super) fn leads_from_loopback(networks: &Networks) -> bool {
    networks.config.userland_proxy && is_possible(networks)
}

/// Has the relay serve those of these ports of a container's to which no rule leads. Connections through one that it serves
/// already end.
pub(super) fn serve(networks: &Networks, entry: &Entry, ports: &[Published]) -> Result<(), NetworkError> {
    let target = |published: &&Published| entry.record.relayed_target(published);
    if !ports.iter().any(|published| target(&published).is_some()) {
        // A relay that does not answer holds up nobody else.
        return Ok(());
    }
    let held = entry.held();
    let (mut with_socket, mut known) = (Vec::new(), Vec::new());
    for published in ports {
        let Some(target) = target(&published) else { continue };
        let target = SocketAddr::new(target, published.container_port);
        match held.get(published) {
            Some(held) => with_socket.push((published, target, *held)),
            None => known.push((published, target)),
        }
    }
    let mut relays = lock(&networks.relays);
    let served = put_all(networks, &mut relays, &with_socket).and_then(|()| {
        known.iter().try_for_each(|(published, target)| {
            insist(networks, &mut relays, |relays| relays.put(published, *target, None))
        })
    });
    served.map_err(|source| NetworkError::Relay { source })
}

/// Has ports served whose sockets we have.
fn put_all(
    networks: &Networks,
    relays: &mut Relays,
    ports: &[(&Published, SocketAddr, &Hold)],
) -> Result<(), AskError> {
    if ports.is_empty() {
        return Ok(());
    }
    let rules: Vec<_> =
        ports.iter().map(|(published, target, held)| (relays::rule(published, *target), held.socket())).collect();
    match insist(networks, relays, |relays| relays.put_all(&rules)) {
        // Which of them, and why, it says when it is asked for each.
        Err(AskError::Refused(_)) => ports.iter().try_for_each(|(published, target, held)| {
            insist(networks, relays, |relays| relays.put(published, *target, Some(held.socket())))
        }),
        put => put,
    }
}

/// Asks the relay for something, which is there and in line by then, or another one.
fn insist(
    networks: &Networks,
    relays: &mut Relays,
    ask: impl Fn(&mut Relays) -> Result<(), AskError>,
) -> Result<(), AskError> {
    if relays.is_unsettled() {
        bring_in_line(networks, relays)?;
    }
    match ask(relays) {
        Err(AskError::Io(err)) => {
            // Somebody killed it, or it was about to end. What else it served is due again, too.
            tracing::debug!(%err, "the relay is gone, or does not answer: it is looked for again");
            ask(relays)?;
            bring_in_line(networks, relays)
        }
        asked => asked,
    }
}

/// Has the relay serve these ports no longer. Before their sockets and their container's address are given back.
pub(super) fn withdraw(networks: &Networks, ports: &[Published]) -> Result<(), NetworkError> {
    if !ports.iter().any(|published| networks.relayed.has(published)) {
        // A relay that does not answer holds up nobody else.
        return Ok(());
    }
    let mut relays = lock(&networks.relays);
    if relays.is_unsettled() {
        try_to_bring_in_line(networks, &mut relays);
    }
    relays.remove(ports).map_err(|source| NetworkError::Relay { source })
}

/// Says what the relay is to serve from now on: the ports of the containers that are there. Before anybody joins.
pub(super) fn expect(networks: &Networks) {
    let ids =
        wanted(networks).iter().map(|(published, target, _)| relays::rule(published, *target).id).collect::<Vec<_>>();
    lock(&networks.relays).expect(ids);
}

/// Brings the relay in line with the containers that are there.
pub(super) fn settle(networks: &Networks) {
    try_to_bring_in_line(networks, &mut lock(&networks.relays));
}

fn try_to_bring_in_line(networks: &Networks, relays: &mut Relays) {
    if let Err(err) = bring_in_line(networks, relays) {
        tracing::warn!(%err, "the relay does not answer: it may serve what nobody publishes, until it is needed again");
    }
}

/// Has the ports of all containers that are there served, and nothing that nobody expects.
fn bring_in_line(networks: &Networks, relays: &mut Relays) -> Result<(), AskError> {
    let served: HashMap<String, _> =
        relays.begin_to_settle()?.into_iter().map(|rule| (rule.id.clone(), rule)).collect();
    for (published, target, socket) in &wanted(networks) {
        let rule = relays::rule(published, *target);
        let known = served.get(&rule.id);
        if known == Some(&rule) {
            continue;
        }
        let put = match (known, socket) {
            (Some(_), _) => relays.put(published, *target, None),
            (None, Some(socket)) => relays.put(published, *target, Some(socket.as_fd())),
            (None, None) => match hold_again(published) {
                Ok(socket) => relays.put(published, *target, Some(socket.as_fd())),
                Err(err) => {
                    // Anything else passes, perhaps, as a lack of descriptors does.
                    if err.kind() == io::ErrorKind::AddrInUse {
                        relays.give_up(published);
                    }
                    Err(err.into())
                }
            },
        };
        match put {
            // It does not answer any more, or none is to be had.
            Err(err) if relays.is_unsettled() => return Err(err),
            Err(err) => tracing::warn!(%err, ?published, "a published port is not relayed"),
            Ok(()) => {}
        }
    }
    relays.end_unexpected()
}

/// The socket is the relay's from now on.
fn hold_again(published: &Published) -> io::Result<OwnedFd> {
    hold_for_relay(published)?.share()
}

/// All ports that are to be relayed, where they lead, and their sockets as far as this process has them.
fn wanted(networks: &Networks) -> Vec<(Published, SocketAddr, Option<OwnedFd>)> {
    let state = networks.state();
    let of = |entry: &Entry| {
        let held = entry.held();
        let relayed = |published: &Published| {
            let target = SocketAddr::new(entry.record.relayed_target(published)?, published.container_port);
            Some((*published, target, held.get(published).and_then(|held| held.share().ok())))
        };
        entry.record.ports.iter().filter_map(relayed).collect::<Vec<_>>()
    };
    state.all().flat_map(of).collect()
}

impl SandboxRecord {
    /// Where the relay leads from a host address; none where rules do. No rule leads from ::1, nor to the other family.
    pub(crate) fn relay_target(&self, host: IpAddr) -> Option<IpAddr> {
        let own = self.target(host);
        if self.is_routed(host) || own.is_some() && host != IpAddr::V6(std::net::Ipv6Addr::LOCALHOST) {
            return None;
        }
        let other = match host {
            IpAddr::V4(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        };
        own.or_else(|| self.target(other))
    }
}
