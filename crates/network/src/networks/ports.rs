//! Published ports of containers: held, redirected, and given back.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

use netlink::{NetlinkError, Socket, address};
use rustix::io::Errno;

use super::endpoints::Entry;
use super::{Networks, Wired, lock, relaying};
use crate::duties::RANGE_MIN;
use crate::error::{JoinError, NetworkError, PortError, SystemReason};
use crate::firewall::{Firewall, Redirection};
use crate::hold::{Hold, hold, hold_for_relay};
use crate::ports::{self, Group, Leads, Led, PortRequest, Protocol, Published, Way};
use crate::record::{EndpointRecord, SandboxRecord};
use crate::together::{MANY, together};

/// How often a port out of a range is tried when other programs have the ones found, as dockerd does.
const PORT_ATTEMPTS: usize = 10;

/// What decides where the ports of a container are published that is where its record says.
pub(super) fn leads(networks: &Networks, record: &SandboxRecord) -> Leads {
    let [ipv4, ipv6] = record.publishers();
    let led = |endpoint: &EndpointRecord, at: usize| if endpoint.routed[at] { Led::Opened } else { Led::Translated };
    let relay = relaying::is_possible(networks);
    // Where IPv6 leads out by another network, it does so by that one alone, as with dockerd.
    let all_of_ipv6 = relay && record.gateway_of_ipv6().is_none() && ipv4.is_some_and(|one| !one.routed[1]);
    Leads {
        families: [ipv4.map(|endpoint| led(endpoint, 0)), ipv6.map(|endpoint| led(endpoint, 1))],
        across: networks.config.userland_proxy,
        all_of_ipv6: all_of_ipv6 && listens_to_ipv6(networks),
    }
}

/// Whether somebody can listen to IPv6 on this machine, which is found out once, as dockerd does.
fn listens_to_ipv6(networks: &Networks) -> bool {
    *networks.ipv6.get_or_init(|| std::net::TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, 0)).is_ok())
}

/// Takes and holds all ports that a container of this name wants and does not have, where anything leads to it.
pub(super) fn hold_all(
    networks: &Networks,
    wanted: (&str, &[PortRequest]),
    entry: &mut Entry,
) -> Result<(), JoinError> {
    let before = entry.record.ports.clone();
    hold_beside(networks, wanted, entry, &before)
}

/// Takes and holds all of these, whatever it has. On an error those that were held until then are the entry's.
pub(super) fn hold_each(
    networks: &Networks,
    requests: (&str, &[PortRequest]),
    entry: &mut Entry,
) -> Result<(), JoinError> {
    hold_beside(networks, requests, entry, &[])
}

/// Refuses ports of which two would be one.
pub(super) fn check_together(
    networks: &Networks,
    (name, requests): (&str, &[PortRequest]),
    record: &SandboxRecord,
) -> Result<(), JoinError> {
    let Some(gateway) = record.publishers().into_iter().flatten().next() else { return Ok(()) };
    let (leads, default) = (leads(networks, record), default_address(networks, gateway));
    let groups = ports::groups(requests, |one| leads.ways(one, default));
    match groups.iter().find(|group| group.is_in_its_own_way()) {
        Some(group) => Err(JoinError::Ports {
            name: name.to_owned(),
            id: gateway.endpoint_id.clone(),
            source: PortError::Twice(group.protocol),
        }),
        None => Ok(()),
    }
}

/// The host's address for ports that name none.
fn default_address(networks: &Networks, gateway: &EndpointRecord) -> Ipv4Addr {
    networks.users.host_address(&gateway.network).unwrap_or(networks.config.host_address)
}

/// Takes and holds what of these is not among the ports `before`.
fn hold_beside(
    networks: &Networks,
    (name, wanted): (&str, &[PortRequest]),
    entry: &mut Entry,
    before: &[Published],
) -> Result<(), JoinError> {
    let record = &entry.record;
    let Some(gateway) = record.publishers().into_iter().flatten().next().cloned() else { return Ok(()) };
    let failed = |source| JoinError::Ports { name: name.to_owned(), id: gateway.endpoint_id.clone(), source };
    let relay = relaying::is_possible(networks);
    let (leads, default) = (leads(networks, record), default_address(networks, &gateway));
    let missing = |one: &PortRequest| {
        let ways = leads.ways(one, default).into_iter();
        ways.filter(|way| !ports::is_met(one, *way, before)).collect::<Vec<_>>()
    };
    let needs_relay = |way: Way| match way {
        Way::Bound(host) => record.relay_target(host).map(|_| host),
        Way::Opened(_) => None,
    };
    let cannot = |one: &&PortRequest| !relay || one.protocol == Protocol::Sctp;
    let mut ways = wanted.iter().filter(cannot).flat_map(&missing);
    if let Some(host) = ways.find_map(needs_relay) {
        return Err(failed(PortError::NeedsRelay(host)));
    }
    let groups = ports::groups(wanted, missing);
    // A range of the host's ports must not take one that another group names; those come first.
    let (exact, ranges) = groups.split_at(groups.iter().take_while(|group| group.is_exact()).count());
    let (runs, exact) = split_runs(networks, exact, record);
    let (first, second) = exact.split_at(exact.len() / 2);
    let some = |groups: &[Group]| hold_some(networks, groups, record, before);
    let (first, second) = together(exact.len() >= MANY, || some(first), || some(second));
    let mut taken = vec![first, second];
    for run in &runs {
        if taken.iter().all(|one| one.failed.is_none()) {
            taken.push(take_run(networks, run, record));
        }
    }
    if taken.iter().all(|one| one.failed.is_none()) {
        taken.push(some(ranges));
    }
    let mut error = None;
    for one in taken {
        entry.record.ports.extend(one.ports);
        entry.holds.extend(one.holds);
        error = error.or(one.failed);
    }
    error.map_or(Ok(()), |err| Err(failed(err)))
}

/// Ports of some groups, up to the one that could not be had.
#[derive(Default)]
struct Taken {
    ports: Vec<Published>,
    holds: Vec<Hold>,
    failed: Option<PortError>,
}

/// Takes and holds a port for each group, in their order.
fn hold_some(networks: &Networks, groups: &[Group], record: &SandboxRecord, before: &[Published]) -> Taken {
    let mut taken = Taken::default();
    for group in groups {
        // One that comes later with another family has the port of the first one, if that is free.
        let beside = before.iter().find_map(|port| group.at(port.host_port).filter(|_| group.is_beside(port)));
        let same = beside.and_then(|group| hold_group(networks, &group, record).ok());
        match same.map_or_else(|| hold_group(networks, group, record), Ok) {
            Ok((ports, holds)) => {
                taken.ports.extend(ports);
                taken.holds.extend(holds);
            }
            Err(err) => {
                taken.failed = Some(err);
                break;
            }
        }
    }
    taken
}

/// Parts exact groups into those that make long ranges, whose holds are not waited for, and all others.
fn split_runs(networks: &Networks, exact: &[Group], record: &SandboxRecord) -> (Vec<Vec<Group>>, Vec<Group>) {
    if exact.len() < RANGE_MIN {
        return (Vec::new(), exact.to_vec());
    }
    let relayed = |group: &&Group| group.published(0).iter().any(|one| relays(record, one));
    let steers = exact.iter().any(|group| relayed(&group)) && relaying::steers(networks);
    // Of what the relay serves by a socket for each port the sockets are needed at once.
    let may_wait = |group: &Group| {
        let all_of_ipv6 = IpAddr::from(std::net::Ipv6Addr::UNSPECIFIED);
        let later = |one: &Published| !relays(record, one) || steers && one.host_address == all_of_ipv6;
        group.protocol == Protocol::Tcp && group.has_no_other_place() && group.published(1).iter().all(later)
    };
    let (streams, mut others): (Vec<Group>, Vec<Group>) = exact.iter().cloned().partition(may_wait);
    let mut runs = Vec::new();
    for run in streams.chunk_by(Group::is_followed_by) {
        match run.len() >= RANGE_MIN {
            true => runs.push(run.to_vec()),
            false => others.extend_from_slice(run),
        }
    }
    (runs, others)
}

/// Whether the relay would lead from a port, whatever its number is.
fn relays(record: &SandboxRecord, published: &Published) -> bool {
    record.relayed_target(&Published { host_port: published.host_port.max(1), ..*published }).is_some()
}

/// Takes the ports of a long range. Held are the first one, and those that somebody has, if that works; the others are later.
fn take_run(networks: &Networks, run: &[Group], record: &SandboxRecord) -> Taken {
    let mut taken = Taken::default();
    let refused = {
        let mut state = networks.state();
        let mut refused = None;
        for group in run {
            match state.ports.take(group) {
                Ok(port) => taken.ports.extend(group.published(port)),
                Err(err) => {
                    refused = Some(err);
                    break;
                }
            }
        }
        refused
    };
    let (Some(first), Some(last)) = (taken.ports.first(), taken.ports.last()) else {
        return Taken { failed: refused, ..taken };
    };
    let first = first.host_port;
    let suspected = match suspects(first..=last.host_port) {
        Ok(suspected) => suspected,
        Err(err) => {
            tracing::debug!(err = errdefs::chain(&err), "the kernel does not tell who listens: each port is tried");
            (first..=last.host_port).collect()
        }
    };
    let tried = |one: &&Published| one.host_port == first || suspected.binary_search(&one.host_port).is_ok();
    for one in taken.ports.iter().filter(tried) {
        match hold_for(record, one) {
            Ok(held) => taken.holds.extend(held),
            Err(errno) => {
                let group = &run[usize::from(one.host_port - first)];
                taken.failed = Some(not_held(group, *one, record, errno));
                return taken;
            }
        }
    }
    let held: HashSet<_> = taken.holds.iter().map(Hold::published).collect();
    networks.later.0.add(taken.ports.iter().filter(|one| !held.contains(one)).copied());
    drop(held);
    taken.failed = refused;
    taken
}

/// The ports of these that some program has, perhaps at another address.
fn suspects(among: std::ops::RangeInclusive<u16>) -> Result<Vec<u16>, NetlinkError> {
    netlink::listeners::ports(&mut Socket::open(netlink::Protocol::Diagnosis)?, among)
}

/// Takes a port for the group and holds it; from a range another one where other programs have those found.
fn hold_group(
    networks: &Networks,
    group: &Group,
    container: &SandboxRecord,
) -> Result<(Vec<Published>, Vec<Hold>), PortError> {
    let mut attempts = if group.is_exact() { 1 } else { PORT_ATTEMPTS };
    loop {
        let port = networks.state().ports.take(group)?;
        let published = group.published(port);
        let mut holds = Vec::new();
        let failed = published.iter().find_map(|one| match hold_for(container, one) {
            Ok(held) => {
                holds.extend(held);
                None
            }
            Err(errno) => Some((*one, errno)),
        });
        let Some((tried, errno)) = failed else { return Ok((published, holds)) };
        holds.into_iter().for_each(Hold::release);
        published.iter().for_each(|one| networks.state().give_back(one));
        attempts -= 1;
        if attempts == 0 {
            return Err(not_held(group, tried, container, errno));
        }
    }
}

/// Holds a port for whoever leads from it; none where nobody else could have it.
pub(super) fn hold_for(container: &SandboxRecord, one: &Published) -> Result<Option<Hold>, Errno> {
    match container.relayed_target(one) {
        Some(_) => hold_for_relay(one).map(Some),
        None if one.is_opened() => Ok(None),
        None => hold(one),
    }
}

/// Redirects a container's ports to it.
pub(super) fn publish(networks: &Networks, wired: &Wired, entry: &Entry) -> Result<(), NetworkError> {
    publish_some(networks, wired, entry, &entry.record.ports)
}

/// Redirects these, and has them served, where the others of the container are already.
pub(super) fn publish_some(
    networks: &Networks,
    wired: &Wired,
    entry: &Entry,
    fresh: &[Published],
) -> Result<(), NetworkError> {
    let serve = || relaying::serve(networks, entry, fresh);
    let (served, redirected) = together(fresh.len() >= MANY, serve, || redirect(networks, wired, entry, fresh));
    served.and(redirected)?;
    networks.later.0.begin();
    Ok(())
}

fn redirect(networks: &Networks, wired: &Wired, entry: &Entry, fresh: &[Published]) -> Result<(), NetworkError> {
    let redirections = entry.redirections_of(fresh);
    if redirections.is_empty() {
        return Ok(());
    }
    let mut firewall = lock(&networks.firewall);
    let now = entry.redirections();
    let before = networks.state().set_published(&entry.record.container, now.clone());
    let written = firewall.publish(&before, &now).or_else(|err| {
        // Somebody flushed the packet filter; all of it is due again.
        tracing::warn!(%err, "the packet filter is not what it was and is written anew");
        let all = networks.state().redirections();
        firewall.replace(&networks.rules(&wired.record), &all)
    });
    if let Err(err) = written {
        networks.state().set_published(&entry.record.container, before);
        return Err(err.into());
    }
    forget(&mut firewall, &redirections, &networks.route)
}

/// Redirects a container's ports no longer. On an error they are redirected as before.
pub(super) fn withdraw(networks: &Networks, container: &str) -> Result<(), NetworkError> {
    let all = networks.state().published.get(container).cloned();
    all.map_or(Ok(()), |all| withdraw_some(networks, container, &all))
}

/// Likewise some of them.
pub(super) fn withdraw_some(
    networks: &Networks,
    container: &str,
    redirections: &[Redirection],
) -> Result<(), NetworkError> {
    let gone: HashSet<&Redirection> = redirections.iter().collect();
    let wired = lock(&networks.wired).clone();
    let mut firewall = lock(&networks.firewall);
    let before = networks.state().published.get(container).cloned().unwrap_or_default();
    // The kernel refuses to remove what is not there.
    let (redirections, rest): (Vec<_>, Vec<_>) = before.iter().copied().partition(|one| gone.contains(one));
    if redirections.is_empty() {
        return Ok(());
    }
    networks.state().set_published(container, rest.clone());
    let withdrawn = match firewall.publish(&before, &rest) {
        // Somebody flushed the packet filter. If this process has the network, what is due is written anew.
        Err(err) if err.errno() == Some(Errno::NOENT) => wired.map_or(Ok(()), |wired| {
            let all = networks.state().redirections();
            firewall.replace(&networks.rules(&wired.record), &all)
        }),
        withdrawn => withdrawn,
    };
    if let Err(err) = withdrawn {
        networks.state().set_published(container, before);
        return Err(err.into());
    }
    forget(&mut firewall, &redirections, &networks.route)
}

/// Forgets UDP connections, if UDP is concerned at all.
fn forget(firewall: &mut Firewall, redirections: &[Redirection], route: &Mutex<Socket>) -> Result<(), NetworkError> {
    if redirections.iter().any(|(published, _)| published.protocol == Protocol::Udp) {
        firewall.forget(redirections, &local(route)?)?;
    }
    Ok(())
}

/// Forgets TCP connections that began while there were no rules, if anything is published at all.
pub(super) fn forget_stranded(
    firewall: &mut Firewall,
    redirections: &[Redirection],
    route: &Mutex<Socket>,
) -> Result<(), NetworkError> {
    if redirections.iter().any(|(published, _)| published.protocol == Protocol::Tcp) {
        firewall.forget_stranded(redirections, &local(route)?)?;
    }
    Ok(())
}

/// This machine's addresses.
fn local(route: &Mutex<Socket>) -> Result<Vec<IpAddr>, NetworkError> {
    Ok(address::list(&mut lock(route))?.into_iter().map(|address| address.address).collect())
}

fn not_held(group: &Group, tried: Published, container: &SandboxRecord, errno: Errno) -> PortError {
    let host = tried.host_address;
    let to = container.relay_target(host).or(container.target(host)).unwrap_or(host);
    bind_error(group, tried, group.text(host, to), errno)
}

fn bind_error(group: &Group, tried: Published, binding: String, errno: Errno) -> PortError {
    let source = SystemReason(errno.into());
    // dockerd counts "any port" as exact here: both ends of the range are 0.
    if group.host_ports.0 == group.host_ports.1 {
        PortError::Bind { binding, tried, source }
    } else {
        PortError::BindInRange { port: tried.host_port, binding, tried, source }
    }
}
