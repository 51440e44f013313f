//! Ports that the relay serves: when a container joins or leaves, and what an earlier daemon has left.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use relay::{AskError, Source};

use super::endpoints::Entry;
use super::{Networks, lock};
use crate::duties::{self, Duty, Span};
use crate::error::NetworkError;
use crate::hold::hold_for_relay;
use crate::ports::Published;
use crate::record::SandboxRecord;
use crate::relays::{Relays, Starter, serving};

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

/// Whether the relay serves ranges by one socket each, which it is asked once: before anything is started. Where nobody answers it does
/// not.
pub(super) fn steers(networks: &Networks) -> bool {
    if !is_possible(networks) {
        return false;
    }
    let mut relays = lock(&networks.relays);
    // One that has ended since it was asked last is asked again.
    let asked = relays.steers().or_else(|_| relays.steers());
    asked.inspect_err(|err| tracing::debug!(%err, "the relay does not say whether it serves ranges")).unwrap_or(false)
}

/// Has the relay serve those of these ports of a container's to which no rule leads. Connections through one that it serves
/// already end, unless it has become one of a range and leads where it did.
pub(super) fn serve(networks: &Networks, entry: &Entry, ports: &[Published]) -> Result<(), NetworkError> {
    let is_relayed = |published: &&Published| entry.record.relayed_target(published).is_some();
    let fresh: HashSet<&Published> = ports.iter().filter(is_relayed).collect();
    if fresh.is_empty() {
        // A relay that does not answer holds up nobody else.
        return Ok(());
    }
    let mut relays = lock(&networks.relays);
    let served = serve_fresh(networks, &mut relays, entry, &fresh);
    served.map_err(|source| NetworkError::Relay { source })
}

fn serve_fresh(
    networks: &Networks,
    relays: &mut Relays,
    entry: &Entry,
    fresh: &HashSet<&Published>,
) -> Result<(), AskError> {
    let record = &entry.record;
    let steers = duties::may_have_ranges(&record.ports) && relays.steers().or_else(|_| relays.steers())?;
    let mut due = duties::duties(record, &record.ports, steers);
    due.retain(|duty| duty.each().any(|published| fresh.contains(&published)));
    if due.iter().any(|duty| duty.span.is_range()) {
        return insist(networks, relays, |relays| exchange(networks, relays, entry, &due));
    }
    let held = entry.held();
    let (mut with_socket, mut known) = (Vec::new(), Vec::new());
    for duty in due {
        match held.get(&duty.published()) {
            Some(held) => with_socket.push((duty, held.socket())),
            None => known.push(duty),
        }
    }
    put_all(networks, relays, &with_socket)?;
    known.iter().try_for_each(|duty| {
        insist(networks, relays, |relays| match serving(relays, [&duty.span]).is_empty() {
            // It was to be one of a range when its socket would have been bound.
            true => relays.put(duty, Some(for_relay(networks, &duty.published())?.as_fd())),
            false => relays.put(duty, None),
        })
    })
}

/// Has these served, of which some are ranges, instead of what is served of their ports.
fn exchange(networks: &Networks, relays: &mut Relays, entry: &Entry, due: &[Duty]) -> Result<(), AskError> {
    let gone = serving(relays, due.iter().map(|duty| &duty.span));
    replace(networks, relays, entry, &gone, due)
}

/// Likewise, instead of these. A socket of a port's that is held for nobody becomes the relay's.
fn replace(
    networks: &Networks,
    relays: &mut Relays,
    entry: &Entry,
    gone: &[Span],
    due: &[Duty],
) -> Result<(), AskError> {
    let held = entry.held();
    let mut sockets = Vec::with_capacity(due.len());
    for duty in due {
        let published = duty.published();
        let heir = gone.iter().find(|span| span.start() == duty.span.start());
        let socket = match (held.get(&published), heir) {
            (Some(held), _) if held.is_relayed() => Ok(held.share()?),
            (_, Some(span)) => Err(span.id()),
            _ => match for_relay(networks, &published) {
                Ok(socket) => Ok(socket),
                Err(err) => {
                    tracing::warn!(%err, ?published, "ports are not relayed any more");
                    relays.give_up(&duty.span);
                    continue;
                }
            },
        };
        sockets.push((*duty, socket));
    }
    let mut put = Vec::with_capacity(sockets.len());
    for (duty, socket) in &sockets {
        put.push((
            *duty,
            match socket {
                Ok(socket) => Source::Socket(socket.as_fd()),
                Err(heir) => Source::Heir(heir.clone()),
            },
        ));
    }
    relays.replace(gone, &put)?;
    sockets.iter().for_each(|(duty, _)| hold_rest(networks, duty, |one| held.contains_key(one)));
    Ok(())
}

/// All ports of a range but the first, whose socket the relay has, are to be held that are not.
fn hold_rest(networks: &Networks, duty: &Duty, is_held: impl Fn(&Published) -> bool) {
    networks.later.0.add(duty.each().skip(1).filter(|one| !is_held(one)));
}

/// A socket that listens to a port: the one that holds it, or a new one.
fn for_relay(networks: &Networks, published: &Published) -> io::Result<OwnedFd> {
    match networks.later.0.take_for_relay(published) {
        Some(held) => held.share(),
        None => hold_again(published),
    }
}

/// Has ports served whose sockets we have.
fn put_all(networks: &Networks, relays: &mut Relays, duties: &[(Duty, BorrowedFd<'_>)]) -> Result<(), AskError> {
    if duties.is_empty() {
        return Ok(());
    }
    match insist(networks, relays, |relays| relays.put_all(duties)) {
        // Which of them, and why, it says when it is asked for each.
        Err(AskError::Refused(_)) => duties
            .iter()
            .try_for_each(|(duty, socket)| insist(networks, relays, |relays| relays.put(duty, Some(*socket)))),
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

/// Has the relay serve these ports of a container's no longer; what stays of a range it goes on serving. Before their sockets and
/// their container's address are given back.
pub(super) fn withdraw(networks: &Networks, entry: &Entry, gone: &[Published]) -> Result<(), NetworkError> {
    if !gone.iter().any(|published| networks.relayed.has(published)) {
        // A relay that does not answer holds up nobody else.
        return Ok(());
    }
    let mut relays = lock(&networks.relays);
    if relays.is_unsettled() {
        try_to_bring_in_line(networks, &mut relays);
    }
    let withdrawn = relays.expect_no_longer(gone).and_then(|()| withdraw_expected(networks, &mut relays, entry, gone));
    withdrawn.map_err(|source| NetworkError::Relay { source })
}

fn withdraw_expected(
    networks: &Networks,
    relays: &mut Relays,
    entry: &Entry,
    gone: &[Published],
) -> Result<(), AskError> {
    let spans: Vec<Span> = gone.iter().filter(|one| !one.is_opened()).map(Span::of).collect();
    let served = serving(relays, &spans);
    if !served.iter().any(Span::is_range) {
        return relays.remove(&served);
    }
    let gone: HashSet<&Published> = gone.iter().collect();
    let rest: Vec<_> = entry.record.ports.iter().filter(|one| !gone.contains(one)).copied().collect();
    let mut due = duties::duties(&entry.record, &rest, relays.steers()?);
    due.retain(|duty| served.iter().any(|span| span.overlaps(&duty.span)));
    match due.is_empty() {
        true => relays.remove(&served),
        false => replace(networks, relays, entry, &served, &due),
    }
}

/// Says what the relay is to serve from now on: the ports of the containers that are there. Before anybody joins.
pub(super) fn expect(networks: &Networks) {
    let wanted: Vec<_> = wanted(networks, false).iter().map(|(duty, _)| duty.published()).collect();
    lock(&networks.relays).expect(&wanted);
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
    let ranges = networks.state().all().any(|entry| duties::may_have_ranges(&entry.record.ports));
    let steers = ranges && relays.steers()?;
    let wanted = wanted(networks, steers);
    let held: HashSet<Published> = match steers {
        true => networks.state().all().flat_map(|entry| &entry.holds).map(|held| *held.published()).collect(),
        false => HashSet::new(),
    };
    for (duty, socket) in wanted {
        if served.get(&duty.span.id()) != Some(&duty.rule()) {
            match settle_one(networks, relays, &duty, socket) {
                // It does not answer any more, or none is to be had.
                Err(err) if relays.is_unsettled() => return Err(err),
                Err(err) => tracing::warn!(%err, published = ?duty.span, "a published port is not relayed"),
                Ok(()) => {}
            }
        }
        if duty.span.is_range() {
            hold_rest(networks, &duty, |one| held.contains(one));
        }
    }
    networks.later.0.begin();
    relays.end_unexpected()
}

/// Has something served that is not served so.
fn settle_one(networks: &Networks, relays: &mut Relays, duty: &Duty, socket: Option<OwnedFd>) -> Result<(), AskError> {
    let known = serving(relays, [&duty.span]);
    let heir = known.iter().find(|span| span.start() == duty.span.start()).map(Span::id);
    let socket = match (socket, &heir) {
        (None, None) => Some(socket_again(networks, relays, duty)?),
        (socket, _) => socket,
    };
    match (duty.span.is_range() || known.iter().any(Span::is_range), socket, heir) {
        // What is left of one that goes is put after this.
        (true, Some(socket), _) => relays.replace(&known, &[(*duty, Source::Socket(socket.as_fd()))]),
        (true, None, heir) => relays.replace(&known, &[(*duty, Source::Heir(heir.unwrap_or_default()))]),
        // One that is known keeps its socket: connections wait there.
        (false, _, Some(_)) => relays.put(duty, None),
        (false, socket, None) => relays.put(duty, socket.as_ref().map(AsFd::as_fd)),
    }
}

fn socket_again(networks: &Networks, relays: &mut Relays, duty: &Duty) -> io::Result<OwnedFd> {
    for_relay(networks, &duty.published()).inspect_err(|err| {
        // Anything else passes, perhaps, as a lack of descriptors does.
        if err.kind() == io::ErrorKind::AddrInUse {
            relays.give_up(&duty.span);
        }
    })
}

/// The socket is the relay's from now on.
fn hold_again(published: &Published) -> io::Result<OwnedFd> {
    hold_for_relay(published)?.share()
}

/// All that is to be relayed, where it leads, and the sockets as far as this process has them.
fn wanted(networks: &Networks, steers: bool) -> Vec<(Duty, Option<OwnedFd>)> {
    let state = networks.state();
    let of = |entry: &Entry| {
        let held = entry.held();
        let duties = duties::duties(&entry.record, &entry.record.ports, steers).into_iter();
        let socket = |duty: Duty| {
            let held = held.get(&duty.published()).filter(|held| held.is_relayed());
            (duty, held.and_then(|held| held.share().ok()))
        };
        duties.map(socket).collect::<Vec<_>>()
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
