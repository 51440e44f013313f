//! A running container's published ports change; those that stay are published at every moment.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::endpoints::Entry;
use super::{Networks, Place, Wired, ports, relaying};
use crate::error::{JoinError, NetworkError};
use crate::hold::Hold;
use crate::ports::{PortRequest, Published};

/// What a container has published, and what it is to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortChange {
    /// The container's id.
    pub container: String,
    /// Its name, for errors.
    pub name: String,
    /// All that was asked for so far.
    pub before: Vec<PortRequest>,
    /// All that is asked for from now on.
    pub after: Vec<PortRequest>,
}

/// Publishes other ports of a container that is on a network. On an error it publishes what it did. Connections that were made
/// through a port of TCP go on when it is published no longer.
pub fn republish(networks: &Networks, change: &PortChange) -> Result<Place, JoinError> {
    let wired = networks.wire()?;
    let missing = || JoinError::NoNetwork(change.container.clone());
    let mut entry = networks.state().remove(&change.container).ok_or_else(missing)?;
    let changed = apply(networks, &wired, change, &mut entry);
    let place = networks.place_of(&entry.record);
    networks.state().insert(change.container.clone(), entry);
    changed.map(|()| place)
}

/// Publishes what is asked for now, whatever a daemon that was killed had made of a change. `None` if that is so already.
pub fn keep_ports(networks: &Networks, kept: &PortChange) -> Result<Option<Place>, JoinError> {
    let published = networks.state().record(&kept.container).map(|record| record.ports.clone());
    let planned = published.map(|published| keep(&published, &kept.after)).filter(|plan| *plan != Plan::default());
    let Some(planned) = planned else { return Ok(None) };
    let wired = networks.wire()?;
    let Some(mut entry) = networks.state().remove(&kept.container) else { return Ok(None) };
    let changed = carry_out(networks, &wired, planned, kept, &mut entry);
    let place = networks.place_of(&entry.record);
    networks.state().insert(kept.container.clone(), entry);
    changed.map(|()| Some(place))
}

fn apply(networks: &Networks, wired: &Wired, change: &PortChange, entry: &mut Entry) -> Result<(), JoinError> {
    // Of those that come one by one the container's next start would find out that they do not go together.
    ports::check_together(networks, (&change.name, &change.after), &entry.record)?;
    carry_out(networks, wired, plan(&entry.record.ports, change), change, entry)
}

fn carry_out(
    networks: &Networks,
    wired: &Wired,
    Plan { gone, added }: Plan,
    change: &PortChange,
    entry: &mut Entry,
) -> Result<(), JoinError> {
    // Before others come: these may want the same ports of the host.
    ports::withdraw_some(networks, &entry.record.container, &entry.redirections_of(&gone))?;
    let taken_back = release(networks, entry, &gone);
    let stay = (entry.record.ports.clone(), entry.holds.len());
    let published = taken_back.map_err(JoinError::from).and_then(|()| {
        ports::hold_each(networks, (&change.name, &added), entry)?;
        let fresh = entry.record.ports[stay.0.len()..].to_vec();
        entry.record.note_wanted(&change.after);
        entry.record.sort_ports();
        networks.records.write_endpoint(&entry.record)?;
        Ok(ports::publish_some(networks, wired, entry, &fresh)?)
    });
    if let Err(err) = published {
        fall_back(networks, wired, (entry, &change.before), stay, &gone);
        return Err(err);
    }
    // Nobody who outlives us takes them: the next daemon holds these ports again.
    super::join::seal(&entry.record.container, &entry.holds[stay.1..]);
    Ok(())
}

/// What changes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    gone: Vec<Published>,
    added: Vec<PortRequest>,
}

/// Of what is published goes what came of a request that is made no longer. Where several requests would have led to the same
/// port, it came of the one that leaves the least choice. Pure.
fn plan(published: &[Published], change: &PortChange) -> Plan {
    let removed: HashSet<&PortRequest> = beyond(&change.before, &change.after).collect();
    let mut before = HashMap::<_, Vec<&PortRequest>>::new();
    for one in &change.before {
        before.entry((one.protocol, one.container_port)).or_default().push(one);
    }
    let goes = |port: &&Published| {
        let same = before.get(&(port.protocol, port.container_port)).into_iter().flatten();
        let cause = same.filter(|one| leads_to(one, port)).min_by_key(|one| (choice(one), one.host_address.is_none()));
        cause.is_some_and(|cause| removed.contains(cause))
    };
    let gone = published.iter().filter(goes).copied().collect();
    Plan { gone, added: beyond(&change.after, &change.before).copied().collect() }
}

/// What is due where nobody knows what was asked for before: what no request leads to goes, and what leads to nothing comes. Pure.
fn keep(published: &[Published], wanted: &[PortRequest]) -> Plan {
    let mut of_port = HashMap::<_, (Vec<&Published>, Vec<&PortRequest>)>::new();
    published.iter().for_each(|port| of_port.entry((port.protocol, port.container_port)).or_default().0.push(port));
    wanted.iter().for_each(|one| of_port.entry((one.protocol, one.container_port)).or_default().1.push(one));
    let is_left = |port: &&Published| {
        !of_port[&(port.protocol, port.container_port)].1.iter().any(|request| leads_to(request, port))
    };
    let is_missing = |request: &&PortRequest| {
        !of_port[&(request.protocol, request.container_port)].0.iter().any(|port| leads_to(request, port))
    };
    Plan {
        gone: published.iter().filter(is_left).copied().collect(),
        added: wanted.iter().filter(is_missing).copied().collect(),
    }
}

/// What is in a list more often than in the other one: a request may be made twice.
fn beyond<'a>(list: &'a [PortRequest], other: &[PortRequest]) -> impl Iterator<Item = &'a PortRequest> {
    let mut counts = HashMap::<PortRequest, usize>::with_capacity(other.len());
    other.iter().for_each(|one| *counts.entry(*one).or_default() += 1);
    list.iter().filter(move |one| match counts.get_mut(*one) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    })
}

fn leads_to(request: &PortRequest, port: &Published) -> bool {
    let (first, last) = request.host_ports;
    let here = |host: IpAddr| match port.is_opened() {
        // At the container's own address, whichever of this machine's was named.
        true => host.is_ipv4() == port.host_address.is_ipv4(),
        false => host == port.host_address,
    };
    (request.protocol, request.container_port) == (port.protocol, port.container_port)
        && request.host_address.is_none_or(here)
        && (port.is_opened() || first == 0 || (first..=last).contains(&port.host_port))
}

/// How many ports of the host a request leaves the choice of.
fn choice(request: &PortRequest) -> u16 {
    match request.host_ports {
        (0, _) => u16::MAX,
        (first, last) => last - first,
    }
}

/// Gives ports back, to which nothing leads any more.
fn release(networks: &Networks, entry: &mut Entry, gone: &[Published]) -> Result<(), NetworkError> {
    relaying::withdraw(networks, entry, gone)?;
    let Entry { record, holds, .. } = entry;
    let gone: HashSet<&Published> = gone.iter().collect();
    holds.extract_if(.., |hold| gone.contains(hold.published())).for_each(Hold::release);
    record.ports.retain(|port| !gone.contains(port));
    gone.iter().for_each(|port| networks.state().give_back(port));
    Ok(())
}

/// Back to what was published: to the ports that stayed, whose holds are the first ones, and those that had gone.
fn fall_back(
    networks: &Networks,
    wired: &Wired,
    (entry, before): (&mut Entry, &[PortRequest]),
    stay: (Vec<Published>, usize),
    gone: &[Published],
) {
    let failed = |err: NetworkError| {
        // The error of the change is the one that matters.
        tracing::warn!(err = errdefs::chain(&err), "published ports could not be put back");
    };
    let stayed: HashSet<&Published> = stay.0.iter().collect();
    let added: Vec<_> = entry.record.ports.extract_if(.., |port| !stayed.contains(port)).collect();
    let new: Vec<_> = entry.redirections_of(&added);
    ports::withdraw_some(networks, &entry.record.container, &new).unwrap_or_else(failed);
    relaying::withdraw(networks, entry, &added).unwrap_or_else(failed);
    entry.holds.drain(stay.1..).for_each(Hold::release);
    added.iter().for_each(|port| networks.state().give_back(port));
    for port in gone.iter().filter(|port| !entry.record.ports.contains(port)).copied().collect::<Vec<_>>() {
        match ports::hold_for(&entry.record, &port) {
            Ok(held) => {
                networks.state().ports.note(&port);
                entry.record.ports.push(port);
                entry.holds.extend(held);
            }
            Err(errno) => tracing::warn!(%errno, ?port, "somebody else has taken a port meanwhile"),
        }
    }
    entry.record.note_wanted(before);
    entry.record.sort_ports();
    // What cannot be published again now is so when the relay answers, or the packet filter is written anew: the record says it.
    networks.records.write_endpoint(&entry.record).unwrap_or_else(failed);
    ports::publish_some(networks, wired, entry, gone).unwrap_or_else(failed);
    super::join::seal(&entry.record.container, &entry.holds[stay.1..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Protocol;

    /// `8080:80`, `127.0.0.1 8000-8010:80`, `:80`.
    fn request(text: &str) -> PortRequest {
        let (host, ports) = text.split_once(' ').map_or((None, text), |(host, ports)| (host.parse().ok(), ports));
        let (range, container) = ports.split_once(':').unwrap();
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        PortRequest {
            protocol: Protocol::Tcp,
            container_port: container.parse().unwrap(),
            host_address: host,
            host_ports: (first.parse().unwrap_or(0), last.parse().unwrap_or(0)),
        }
    }

    fn port((host, host_port, container_port): &(&str, u16, u16)) -> Published {
        Published {
            protocol: Protocol::Tcp,
            container_port: *container_port,
            host_address: host.parse().unwrap(),
            host_port: *host_port,
        }
    }

    fn planned(published: &[(&str, u16, u16)], before: &[&str], after: &[&str]) -> (Vec<u16>, Vec<PortRequest>) {
        let requests = |texts: &[&str]| texts.iter().map(|text| request(text)).collect::<Vec<_>>();
        let change = PortChange {
            container: String::new(),
            name: String::new(),
            before: requests(before),
            after: requests(after),
        };
        let published: Vec<_> = published.iter().map(port).collect();
        let Plan { gone, added } = plan(&published, &change);
        (gone.iter().map(|port| port.host_port).collect(), added)
    }

    #[test]
    fn what_is_asked_for_no_longer_goes_and_the_rest_stays() {
        let any = "0.0.0.0";
        for (published, before, after, gone, added) in [
            (&[(any, 8080, 80), ("::", 8080, 80)][..], &["8080:80"][..], &[][..], &[8080, 8080][..], &[][..]),
            (&[(any, 8080, 80)], &["8080:80"], &["8080:80", "8081:81"], &[], &["8081:81"]),
            (&[(any, 8080, 80), (any, 8081, 80)], &["8080:80", "8081:80"], &["8081:80"], &[8080], &[]),
            (&[(any, 8080, 80)], &["8080:80"], &["8080:81"], &[8080], &["8080:81"]),
            // What could have come of either came of the one without a choice.
            (&[(any, 8000, 80), (any, 8005, 80)], &["8000-8010:80", "8005:80"], &["8000-8010:80"], &[8005], &[]),
            (&[(any, 8000, 80), (any, 8005, 80)], &["8000-8010:80", "8005:80"], &["8005:80"], &[8000], &[]),
            (&[(any, 32768, 80), (any, 8005, 80)], &[":80", "8005:80"], &["8005:80"], &[32768], &[]),
            (
                &[(any, 8080, 80), ("127.0.0.1", 8081, 80)],
                &["8080:80", "127.0.0.1 8081:80"],
                &["8080:80"],
                &[8081],
                &[],
            ),
            (&[(any, 1, 80), (any, 2, 80)], &[":80", ":80"], &[":80", ":80"], &[], &[]),
        ] {
            let added: Vec<_> = added.iter().map(|text| request(text)).collect();
            assert_eq!(planned(published, before, after), (gone.to_vec(), added), "{before:?} {after:?}");
        }
    }

    #[test]
    fn what_a_killed_daemon_had_begun_to_change_comes_to_what_is_asked_for() {
        let any = "0.0.0.0";
        for (published, wanted, gone, added) in [
            (&[(any, 8080, 80), ("::", 8080, 80)][..], &["8080:80"][..], &[][..], &[][..]),
            (&[(any, 8080, 80), (any, 8081, 81)], &["8080:80"], &[8081], &[]),
            (&[(any, 8080, 80)], &["8080:80", "8081:81"], &[], &["8081:81"]),
            (&[(any, 32768, 80)], &[":80"], &[], &[]),
            (&[("127.0.0.1", 8080, 80)], &["8080:80"], &[], &[]),
            (&[(any, 8080, 80)], &["127.0.0.1 8080:80"], &[8080], &["127.0.0.1 8080:80"]),
        ] {
            let published: Vec<_> = published.iter().map(port).collect();
            let wanted: Vec<_> = wanted.iter().map(|text| request(text)).collect();
            let Plan { gone: left, added: missing } = keep(&published, &wanted);
            let left: Vec<u16> = left.iter().map(|port| port.host_port).collect();
            let added: Vec<_> = added.iter().map(|text| request(text)).collect();
            assert_eq!((left, missing), (gone.to_vec(), added), "{published:?}");
        }
    }
}
