//! Rules for ranges of ports, and rules that follow others.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::net::sockopt;
use sys::steering::{LISTENERS_MAX, Steering};

use super::{Relay, Served};
use crate::Rule;

/// What the kernel is told of ranges, and which of its places for sockets are free.
#[derive(Debug)]
pub(super) struct Ranges {
    steering: Steering,
    taken: HashSet<u32>,
}

/// Where a rule's socket comes from.
#[derive(Debug)]
pub(super) enum Origin {
    Socket(OwnedFd),
    /// That of the rule of this id, which goes.
    Heir(String),
}

impl Ranges {
    /// Takes a place for a socket, which listens.
    fn place(&mut self, socket: &OwnedFd) -> io::Result<u32> {
        let free = (0..LISTENERS_MAX).find(|place| !self.taken.contains(place));
        let place =
            free.ok_or_else(|| io::Error::other(format!("the relay serves {LISTENERS_MAX} ranges and no more")))?;
        self.steering.place(place, socket.as_fd())?;
        self.taken.insert(place);
        Ok(place)
    }
}

/// What leads connections to ranges, made with the first one.
pub(super) fn steer(relay: &mut Relay) -> io::Result<&mut Ranges> {
    let ranges = match relay.ranges.take() {
        Some(ranges) => ranges,
        None => Ranges { steering: Steering::begin()?, taken: HashSet::new() },
    };
    Ok(relay.ranges.insert(ranges))
}

/// Serves these instead of some, each with its socket or with that of one that goes. What is refused before anything has happened
/// is what can be known before; after any other error what went has gone, and some may be served.
pub(super) fn replace(relay: &mut Relay, gone: &[String], rules: Vec<(Rule, Origin)>) -> io::Result<()> {
    check(relay, gone, &rules)?;
    let sockets = sockets_for(relay, gone, rules)?;
    let mut places = Vec::with_capacity(sockets.len());
    for (rule, socket) in &sockets {
        match rule.range.map_or(Ok(None), |_| steer(relay)?.place(socket).map(Some)) {
            Ok(place) => places.push(place),
            Err(err) => {
                places.into_iter().flatten().for_each(|place| free(relay, place));
                return Err(err);
            }
        }
    }
    let mut gone: Vec<Served> = gone.iter().filter_map(|id| relay.rules.remove(id)).collect();
    let mut begun = Ok(());
    for ((rule, socket), place) in sockets.into_iter().zip(places) {
        let range = rule.range;
        match begun.and_then(|()| relay.begin(rule, socket, place)) {
            Ok(known) => {
                gone.extend(known);
                if let (Some((first, last)), Some(place), Some(ranges)) = (range, place, &relay.ranges) {
                    ranges.steering.lead(first..=last, place);
                }
                begun = Ok(());
            }
            Err(err) => {
                place.into_iter().for_each(|place| free(relay, place));
                begun = Err(err);
            }
        }
    }
    // Behind the others: whoever connects to a port that stays is led somewhere at every moment.
    gone.iter().for_each(|served| lead_no_longer(relay, served));
    hand_on(relay, &gone);
    gone.iter().for_each(|served| relay.retire(served));
    relay.forget_flows();
    relay.rules.values().filter(|served| !served.rule.udp).for_each(|served| relay.await_again(served));
    if relay.rules.is_empty() {
        relay.idle_since = Some(Instant::now());
    }
    begun
}

/// The socket of each rule: the one that came along, or another descriptor of one that goes.
fn sockets_for(relay: &Relay, gone: &[String], rules: Vec<(Rule, Origin)>) -> io::Result<Vec<(Rule, OwnedFd)>> {
    let socket = |(rule, origin)| match origin {
        Origin::Socket(socket) => Ok((rule, socket)),
        Origin::Heir(id) => match relay.rules.get(&id).filter(|_| gone.contains(&id)) {
            Some(served) => Ok((rule, served.socket.try_clone()?)),
            None => Err(io::Error::other("no socket came with a new port")),
        },
    };
    rules.into_iter().map(socket).collect()
}

/// The connections of what goes belong to what leads their ports where they led.
fn hand_on(relay: &mut Relay, gone: &[Served]) {
    let listeners: HashSet<u64> = gone.iter().map(|served| served.number).collect();
    for relayed in relay.links.values_mut().filter(|relayed| listeners.contains(&relayed.listener)) {
        let leads = |served: &&mut Served| {
            let rule = &served.rule;
            let target = rule.target_of(relayed.port);
            let alone = || port_of(&served.socket) == Some(relayed.port) && rule.range.is_none();
            target == Some(relayed.target) || !rule.udp && rule.target == relayed.target && alone()
        };
        if let Some(heir) = relay.rules.values_mut().find(leads) {
            relayed.listener = heir.number;
            heir.links += 1;
        }
    }
}

/// The listener, the target and the port of a connection that has come to a rule's socket; none where nothing leads there any more.
pub(super) fn led_to(relay: &Relay, served: &Served, client: &OwnedFd) -> Option<(u64, SocketAddr, u16)> {
    let port = port_of(client)?;
    if served.rule.range.is_none() && port_of(&served.socket) == Some(port) {
        return Some((served.number, served.rule.target, port));
    }
    let leads = |served: &Served| Some((served.number, served.rule.target_of(port)?, port));
    leads(served).or_else(|| relay.rules.values().find_map(leads))
}

/// Connections to a range that goes are led nowhere from now on.
pub(super) fn lead_no_longer(relay: &mut Relay, served: &Served) {
    if let (Some((first, last)), Some(place), Some(ranges)) = (served.rule.range, served.place, &relay.ranges) {
        ranges.steering.lead_no_longer(first..=last, place);
    }
    served.place.into_iter().for_each(|place| free(relay, place));
}

fn free(relay: &mut Relay, place: u32) {
    if let Some(ranges) = &mut relay.ranges {
        ranges.steering.clear(place);
        ranges.taken.remove(&place);
    }
}

/// Whether all of it may be served when those that go have gone. Pure but for the sockets' own words.
fn check(relay: &Relay, gone: &[String], rules: &[(Rule, Origin)]) -> io::Result<()> {
    let refused = |reason: String| Err(io::Error::other(reason));
    let gone: HashSet<&String> = gone.iter().collect();
    let stay = || relay.rules.values().filter(|served| !gone.contains(&served.rule.id)).map(|served| &served.rule);
    if stay().count() + rules.len() > relay.rules_max {
        return refused(format!("the relay serves {} ports and no more", relay.rules_max));
    }
    let mut ranges: Vec<(u16, u16)> = stay().filter_map(|rule| rule.range).collect();
    let mut ids = HashSet::new();
    for (rule, origin) in rules {
        let known = relay.rules.contains_key(&rule.id) && !gone.contains(&rule.id);
        if known || !ids.insert(&rule.id) {
            return refused(format!("{} is served already", rule.id));
        }
        let Some((first, last)) = rule.range else { continue };
        if rule.udp || first == 0 || first >= last || rule.target.port().checked_add(last - first).is_none() {
            return refused(format!("{}: {first}-{last} is no range of ports that can be served", rule.id));
        }
        let listens = |socket: &OwnedFd| {
            let ipv6 = sockopt::socket_domain(socket) == Ok(rustix::net::AddressFamily::INET6);
            ipv6 && sockopt::socket_acceptconn(socket) == Ok(true)
        };
        if matches!(origin, Origin::Socket(socket) if !listens(socket)) {
            return refused(format!("{}: a socket that does not listen to IPv6 came along", rule.id));
        }
        ranges.push((first, last));
    }
    ranges.sort_unstable();
    match ranges.windows(2).find(|pair| pair[1].0 <= pair[0].1) {
        Some(pair) => refused(format!("{}-{} and {}-{} overlap", pair[0].0, pair[0].1, pair[1].0, pair[1].1)),
        None => Ok(()),
    }
}

/// The port that a socket is bound to.
fn port_of(socket: &OwnedFd) -> Option<u16> {
    Some(SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()?.port())
}
