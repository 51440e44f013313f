//! Published ports of containers: held, redirected, and given back.

use std::net::IpAddr;
use std::sync::Mutex;

use netlink::{Socket, address};
use rustix::io::Errno;

use super::endpoints::Entry;
use super::{Networks, Wired, lock, relaying};
use crate::error::{JoinError, NetworkError, PortError, SystemReason};
use crate::firewall::{Firewall, Redirection};
use crate::hold::{Hold, hold, hold_for_relay};
use crate::ports::{self, Group, PortRequest, Protocol, Published};
use crate::record::SandboxRecord;

/// How often a port out of a range is tried when other programs have the ones found, as dockerd does.
const PORT_ATTEMPTS: usize = 10;

/// Takes and holds all ports that a container of this name wants, of the families in which they lead anywhere and `had` led
/// nowhere before.
pub(super) fn hold_all(
    networks: &Networks,
    (name, wanted): (&str, &[PortRequest]),
    entry: &mut Entry,
    had: [bool; 2],
) -> Result<(), JoinError> {
    let record = &entry.record;
    let [ipv4, ipv6] = record.publishers();
    let (ipv4, ipv6) = (!had[0] && ipv4.is_some(), !had[1] && ipv6.is_some());
    let needs_relay = |one: &PortRequest| one.host_address.filter(|host| record.relay_target(*host).is_some());
    let first = had == [false; 2];
    let is_there = |one: &PortRequest, host: IpAddr| {
        let same = |port: &&Published| (port.protocol, port.container_port) == (one.protocol, one.container_port);
        record.ports.iter().filter(same).any(|port| port.host_address == host)
    };
    let is_new = |one: &&PortRequest| match one.host_address {
        None => true,
        // Relayed so far, or from now on: once, whatever families come.
        Some(host) if is_there(one, host) => false,
        Some(_) if needs_relay(one).is_some() => first,
        Some(host) => {
            if host.is_ipv4() {
                ipv4
            } else {
                ipv6
            }
        }
    };
    let requests: Vec<PortRequest> = wanted.iter().filter(is_new).copied().collect();
    hold_each(networks, (name, &requests), entry, [ipv4, ipv6])
}

/// Refuses ports of which two would be one.
pub(super) fn check_together(
    networks: &Networks,
    (name, requests): (&str, &[PortRequest]),
    record: &SandboxRecord,
) -> Result<(), JoinError> {
    let [ipv4, ipv6] = record.publishers();
    let Some(gateway) = ipv4.or(ipv6) else { return Ok(()) };
    let default = networks.users.host_address(&gateway.network).unwrap_or(networks.config.host_address);
    let groups = ports::groups(requests, &ports::defaults(default, ipv4.is_some(), ipv6.is_some()));
    match groups.iter().find(|group| group.is_in_its_own_way()) {
        Some(group) => Err(JoinError::Ports {
            name: name.to_owned(),
            id: gateway.endpoint_id.clone(),
            source: PortError::Twice(group.protocol),
        }),
        None => Ok(()),
    }
}

/// Takes and holds all of these; who names no address means all of the families. On an error those that were held until then
/// are the entry's.
pub(super) fn hold_each(
    networks: &Networks,
    (name, requests): (&str, &[PortRequest]),
    entry: &mut Entry,
    [ipv4, ipv6]: [bool; 2],
) -> Result<(), JoinError> {
    let record = &entry.record;
    let Some(gateway) = record.publishers().into_iter().flatten().next().cloned() else { return Ok(()) };
    let failed = |source| JoinError::Ports { name: name.to_owned(), id: gateway.endpoint_id.clone(), source };
    let relay = lock(&networks.relays).is_possible();
    let needs_relay = |one: &PortRequest| one.host_address.filter(|host| record.relay_target(*host).is_some());
    let cannot = |one: &PortRequest| needs_relay(one).filter(|_| !relay || one.protocol == Protocol::Sctp);
    if let Some(host) = requests.iter().find_map(cannot) {
        return Err(failed(PortError::NeedsRelay(host)));
    }
    let default = networks.users.host_address(&gateway.network).unwrap_or(networks.config.host_address);
    for group in ports::groups(requests, &ports::defaults(default, ipv4, ipv6)) {
        let held = hold_group(networks, &group, &entry.record).map_err(failed)?;
        entry.record.ports.extend(held.0);
        entry.holds.extend(held.1);
    }
    Ok(())
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
        let published: Vec<_> = group.published(port).collect();
        let mut holds = Vec::new();
        let hold_one = |one: &Published| match container.relay_target(one.host_address) {
            Some(_) => hold_for_relay(one).map(Some),
            None => hold(one),
        };
        let failed = published.iter().find_map(|one| match hold_one(one) {
            Ok(held) => {
                holds.extend(held);
                None
            }
            Err(errno) => Some((*one, errno)),
        });
        let Some((tried, errno)) = failed else { return Ok((published, holds)) };
        holds.into_iter().for_each(Hold::release);
        published.iter().for_each(|one| networks.state().ports.release(one));
        attempts -= 1;
        if attempts == 0 {
            let host = tried.host_address;
            let to = container.relay_target(host).or(container.target(host)).unwrap_or(host);
            return Err(bind_error(group, tried, group.text(tried.host_address, to), errno));
        }
    }
}

/// Redirects a container's ports to it.
pub(super) fn publish(networks: &Networks, wired: &Wired, entry: &Entry) -> Result<(), NetworkError> {
    publish_some(networks, wired, entry, &entry.redirections())
}

/// Redirects these, where the others of the container are redirected already.
pub(super) fn publish_some(
    networks: &Networks,
    wired: &Wired,
    entry: &Entry,
    redirections: &[Redirection],
) -> Result<(), NetworkError> {
    relaying::serve(networks, entry)?;
    if redirections.is_empty() {
        return Ok(());
    }
    let mut firewall = lock(&networks.firewall);
    networks.state().published.insert(entry.record.container.clone(), entry.redirections());
    if let Err(err) = firewall.publish(redirections) {
        // Somebody flushed the packet filter; all of it is due again.
        tracing::warn!(%err, "the packet filter is not what it was and is written anew");
        let all = networks.state().redirections();
        firewall.replace(&networks.rules(&wired.record), &all)?;
    }
    forget(&mut firewall, redirections, &networks.route)
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
    if redirections.is_empty() {
        return Ok(());
    }
    let wired = lock(&networks.wired).clone();
    let mut firewall = lock(&networks.firewall);
    let Some(before) = networks.state().published.remove(container) else { return Ok(()) };
    let rest: Vec<_> = before.iter().filter(|one| !redirections.contains(one)).copied().collect();
    if !rest.is_empty() {
        networks.state().published.insert(container.to_owned(), rest);
    }
    let withdrawn = match firewall.withdraw(redirections) {
        // Somebody flushed the packet filter. If this process has the network, what is due is written anew.
        Err(err) if err.errno() == Some(Errno::NOENT) => wired.map_or(Ok(()), |wired| {
            let all = networks.state().redirections();
            firewall.replace(&networks.rules(&wired.record), &all)
        }),
        withdrawn => withdrawn,
    };
    if let Err(err) = withdrawn {
        networks.state().published.insert(container.to_owned(), before);
        return Err(err.into());
    }
    forget(&mut firewall, redirections, &networks.route)
}

/// Forgets UDP connections, if UDP is concerned at all.
fn forget(firewall: &mut Firewall, redirections: &[Redirection], route: &Mutex<Socket>) -> Result<(), NetworkError> {
    if redirections.iter().any(|(published, _)| published.protocol == ports::Protocol::Udp) {
        let local: Vec<_> = address::list(&mut lock(route))?.into_iter().map(|address| address.address).collect();
        firewall.forget(redirections, &local)?;
    }
    Ok(())
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
