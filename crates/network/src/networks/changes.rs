//! A running container joins one more network, or leaves one of several.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;

use netlink::Socket;

use super::endpoints::Entry;
use super::{DEFAULT, JoinRequest, Networks, Place, Wired, egress, join, links, ports, relaying};
use crate::error::{JoinError, NetworkError};
use crate::hold::Hold;
use crate::record::{EndpointRecord, SandboxRecord};
use crate::sandbox::Room;

impl Networks {
    /// Gives a running container the places that it asks for beside those that it has. On an error it has what it had. Blocks as
    /// [`Networks::join`], but for the namespace.
    pub fn connect(&self, request: &JoinRequest, namespace: BorrowedFd<'_>) -> Result<Place, JoinError> {
        let wired = self.wire()?;
        let mut entry = take_out(self, request, &wired)?;
        let (before, holds) = (entry.record.clone(), entry.holds.len());
        let connected = add(self, request, &wired, namespace, &mut entry);
        if connected.is_err() {
            fall_back(self, &wired, &before, holds, namespace, &mut entry);
        }
        let place = self.place_of(&entry.record);
        if connected.is_err() && before.endpoints.is_empty() {
            // An entry without a place would only be in the way of the container's next start.
            if let Err(err) = self.records.remove_endpoint(&request.container) {
                tracing::warn!(err = errdefs::chain(&err), "the record of a connect that failed stays");
            }
            self.state().release(&entry.record);
        } else {
            self.state().insert(request.container.clone(), entry);
        }
        links::settle_or_warn(self);
        connected.map(|()| place)
    }

    /// Takes a running container off a network; without a namespace nothing is done inside. `None` if it is not on it.
    pub fn disconnect(
        &self,
        container: &str,
        network: &str,
        namespace: Option<BorrowedFd<'_>>,
    ) -> Result<Option<Place>, NetworkError> {
        let wired = self.wire()?;
        if self.state().record(container).is_none_or(|record| record.on(network).is_none()) {
            return Ok(None);
        }
        let Some(mut entry) = self.state().remove(container) else { return Ok(None) };
        // Before somebody else has its address.
        links::settle_or_warn(self);
        let taken_off = take_off(self, &wired, &mut entry, network, namespace);
        let place = self.place_of(&entry.record);
        self.state().insert(container.to_owned(), entry);
        links::settle_or_warn(self);
        taken_off.map(|()| Some(place))
    }

    /// Takes a container off all networks but these; for what an earlier daemon began.
    pub fn keep_only(&self, container: &str, networks: &[impl AsRef<str>]) -> Result<(), NetworkError> {
        let surplus = self.state().record(container).map(|record| {
            let on = record.endpoints.iter().map(|endpoint| endpoint.network.clone());
            on.filter(|network| !networks.iter().any(|kept| kept.as_ref() == network)).collect::<Vec<_>>()
        });
        for network in surplus.into_iter().flatten() {
            self.disconnect(container, &network, None)?;
        }
        Ok(())
    }
}

/// The container's entry, which nobody else touches meanwhile; a new one if it is on no network.
fn take_out(networks: &Networks, request: &JoinRequest, wired: &Wired) -> Result<Entry, JoinError> {
    let mut state = networks.state();
    let joined = state.record(&request.container);
    let wanted = request.endpoints.iter().find(|one| joined.is_some_and(|on| on.on(&one.network).is_some()));
    if let Some(wanted) = wanted {
        drop(state);
        let name = networks.lan(wired, &wanted.network).map_or_else(|| DEFAULT.to_owned(), |lan| lan.name);
        return Err(join::joined_already(request, name));
    }
    let networks = || request.endpoints.iter().map(|one| one.network.as_str());
    if let Some(entry) = state.take_out(&request.container, networks()) {
        return Ok(entry);
    }
    match state.begin(&request.container, networks()) {
        true => Ok(Entry::new(&request.container)),
        false => Err(join::joined_already(request, DEFAULT.to_owned())),
    }
}

fn add(
    networks: &Networks,
    request: &JoinRequest,
    wired: &Wired,
    namespace: BorrowedFd<'_>,
    entry: &mut Entry,
) -> Result<(), JoinError> {
    let had = entry.record.clone();
    let held = entry.holds.len();
    if had.endpoints.is_empty() {
        entry.record.egress.clone_from(&request.egress);
        links::note(networks, request, &mut entry.record);
        entry.record.relays_loopback = relaying::leads_from_loopback(networks);
    }
    for one in &request.endpoints {
        let lan = networks.plan_endpoint(one, &request.name, wired, entry)?;
        let at = entry.record.endpoints.len() - 1;
        if !entry.record.endpoints[at].inside {
            entry.record.endpoints[at].interface = join::new_interface(networks);
        }
        networks.records.write_endpoint(&entry.record)?;
        // Before its link is there: the container runs.
        egress::guard(networks, wired, entry)?;
        let mut room = Room::of(namespace)?;
        join::plug(networks, wired, &mut room, &mut entry.record.endpoints[at], one, &lan)?;
        if entry.record.gateways() != had.gateways() {
            join::route_outward(networks, wired, &mut room, entry)?;
        }
        if entry.record.has_inside() {
            entry.inside.get_or_insert(room.socket);
        }
    }
    entry.record.note_wanted(&request.ports);
    if ports::leads(networks, &entry.record) != ports::leads(networks, &had) {
        ports::hold_all(networks, (&request.name, &request.ports), entry)?;
    }
    networks.records.write_endpoint(&entry.record)?;
    if entry.record.gateways() != had.gateways() {
        ports::withdraw(networks, &entry.record.container)?;
        ports::publish(networks, wired, entry)?;
    }
    if entry.holds.len() > held {
        // Nobody who outlives us takes them: the next daemon holds these ports again.
        join::seal(&entry.record.container, &entry.holds);
        networks.later.0.begin();
    }
    let released = release_unled(networks, entry);
    entry.record.sort_ports();
    if let Err(err) = released.and_then(|()| networks.records.write_endpoint(&entry.record)) {
        // It is on the network; the relay is told when it answers, and the record says too much.
        tracing::warn!(err = errdefs::chain(&err), container = had.container, "ports that lead nowhere are kept");
    }
    Ok(())
}

/// Gives ports back that lead nowhere since the gateway is another one.
fn release_unled(networks: &Networks, entry: &mut Entry) -> Result<(), NetworkError> {
    let relayed: HashSet<_> = entry.record.ports.iter().copied().filter(|one| networks.relayed.has(one)).collect();
    let gone = entry.release_unled(|published| relayed.contains(published));
    let withdrawn = relaying::withdraw(networks, entry, &gone);
    gone.iter().for_each(|one| networks.state().give_back(one));
    withdrawn
}

/// Takes the link of an endpoint away, wherever it is. Without a namespace nothing is done in one that is not known.
fn unplug(
    networks: &Networks,
    inside: &mut Option<Socket>,
    endpoint: &EndpointRecord,
    namespace: Option<BorrowedFd<'_>>,
) -> Result<(), NetworkError> {
    if !endpoint.inside {
        return if endpoint.interface.is_empty() { Ok(()) } else { super::remove_link(networks, &endpoint.interface) };
    }
    if endpoint.interface_index == 0 {
        return Ok(());
    }
    if let (None, Some(namespace)) = (&inside, namespace) {
        *inside = Some(Room::of(namespace)?.socket);
    }
    inside.as_mut().map_or(Ok(()), |socket| join::unstack(networks, socket, endpoint))
}

/// Takes ports that lead to a container from now on, as far as they are free: it has left the other network in any case.
fn hold_wanted(networks: &Networks, entry: &mut Entry) {
    let wanted = entry.record.wanted.clone();
    let container = entry.record.container.clone();
    if let Err(err) = ports::hold_all(networks, (&container, &wanted), entry) {
        tracing::warn!(err = errdefs::chain(&err), container, "ports stay unpublished");
    }
    entry.record.sort_ports();
    join::seal(&entry.record.container, &entry.holds);
}

/// Back to what a container had.
fn fall_back(
    networks: &Networks,
    wired: &Wired,
    before: &SandboxRecord,
    holds: usize,
    namespace: BorrowedFd<'_>,
    entry: &mut Entry,
) {
    let failed = |err: NetworkError| {
        // The error of the connect is the one that matters.
        tracing::warn!(err = errdefs::chain(&err), container = before.container, "a connect could not be undone");
    };
    let moved = entry.record.gateways() != before.gateways();
    for endpoint in entry.record.endpoints.split_off(before.endpoints.len()) {
        unplug(networks, &mut entry.inside, &endpoint, Some(namespace)).unwrap_or_else(failed);
        networks.state().release_addresses(&endpoint);
    }
    relaying::withdraw(networks, entry, &entry.record.ports[before.ports.len()..]).unwrap_or_else(failed);
    entry.holds.drain(holds..).for_each(Hold::release);
    for published in entry.record.ports.split_off(before.ports.len()) {
        networks.state().give_back(&published);
    }
    entry.record.wanted.clone_from(&before.wanted);
    if let Err(err) = egress::guard(networks, wired, entry) {
        tracing::warn!(err = errdefs::chain(&err), container = before.container, "a policy is kept too long");
    }
    networks.records.write_endpoint(&entry.record).unwrap_or_else(failed);
    if moved {
        lead(networks, wired, Some(namespace), entry).unwrap_or_else(failed);
    }
}

/// Sends packets out by the network that counts, and those for published ports to the address there.
fn lead(
    networks: &Networks,
    wired: &Wired,
    namespace: Option<BorrowedFd<'_>>,
    entry: &Entry,
) -> Result<(), NetworkError> {
    let routed = match namespace {
        Some(namespace) => join::route_outward(networks, wired, &mut Room::of(namespace)?, entry),
        None => Ok(()),
    };
    // Each of them does good without the other.
    ports::withdraw(networks, &entry.record.container).and_then(|()| ports::publish(networks, wired, entry)).and(routed)
}

fn take_off(
    networks: &Networks,
    wired: &Wired,
    entry: &mut Entry,
    network: &str,
    namespace: Option<BorrowedFd<'_>>,
) -> Result<(), NetworkError> {
    let mut after = entry.record.clone();
    let Some(at) = after.endpoints.iter().position(|endpoint| endpoint.network == network) else {
        return Ok(());
    };
    let endpoint = after.endpoints.remove(at);
    let moved = after.gateways() != entry.record.gateways();
    if moved {
        // Before the link goes: nothing is sent to an address that is free.
        ports::withdraw(networks, &entry.record.container)?;
    }
    if let Err(err) = unplug(networks, &mut entry.inside, &endpoint, namespace) {
        // It is on the network as before.
        if let Err(err) = ports::publish(networks, wired, entry) {
            tracing::warn!(err = errdefs::chain(&err), container = after.container, "published ports are withdrawn");
        }
        return Err(err);
    }
    let had = ports::leads(networks, &entry.record);
    entry.record = after;
    if let Err(err) = egress::guard(networks, wired, entry) {
        // It denies what nobody sends any more.
        tracing::warn!(err = errdefs::chain(&err), container = entry.record.container, "a policy is kept too long");
    }
    if moved {
        if let Err(err) = release_unled(networks, entry) {
            // It hears that when it answers; all the rest is due all the same: the link has gone.
            tracing::warn!(
                err = errdefs::chain(&err),
                container = entry.record.container,
                "ports are relayed too long"
            );
        }
        if ports::leads(networks, &entry.record) != had {
            hold_wanted(networks, entry);
        }
    }
    // It is off the network now, whatever the disk says: the next reconcile reads the record, and finds no link.
    let written = networks.records.write_endpoint(&entry.record);
    networks.state().release_addresses(&endpoint);
    let led = if moved { lead(networks, wired, namespace, entry) } else { Ok(()) };
    written.and(led)
}
