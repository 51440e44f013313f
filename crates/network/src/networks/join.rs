//! Joining and leaving: plan, apply, record, and the way back.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use netlink::link::{self, Mac};
use netlink::{NetlinkError, Socket, address, neighbour, route};
use rustix::io::Errno;

use super::endpoints::Entry;
use super::{
    BridgeFooting, EndpointRequest, Footing, JoinRequest, Joined, Lan, Networks, Wired, egress, links, lock, ports,
    relaying,
};
use crate::DEFAULT;
use crate::addresses::NoAddress;
use crate::bridge;
use crate::error::{JoinError, NetworkError};
use crate::hold::Hold;
use crate::options::GatewayMode;
use crate::parent::ParentError;
use crate::record::EndpointRecord;
use crate::sandbox::{INTERFACE, Plug, Room, Sandbox, Stack, own_namespace};
use crate::subnet::Subnet;

/// The length of the prefix of addresses that are nobody's to give (RFC 3927, RFC 4291).
const LINK_LOCAL_PREFIX: u8 = 16;
const LINK_LOCAL_PREFIX_OF_IPV6: u8 = 64;

impl Networks {
    /// Gives a container its places, in a namespace of its own. On an error nothing is left of it.
    ///
    /// Blocks for about a millisecond; for as long as a namespace is not ready (20 s at most), firewalld does not answer (5 s), somebody
    /// else chooses a network (10 s, the first time alone), or the relay does not answer which is to serve a port of it (5 s a question).
    pub fn join(&self, request: &JoinRequest) -> Result<Joined, JoinError> {
        let wired = self.wire()?;
        finish_leaving(self);
        if !self.state().begin(&request.container, request.endpoints.iter().map(|one| one.network.as_str())) {
            let network = request.endpoints.first().and_then(|first| self.lan(&wired, &first.network));
            return Err(joined_already(request, network.map_or_else(|| DEFAULT.to_owned(), |lan| lan.name)));
        }
        let mut entry = Entry::new(&request.container);
        let joined = self.plan(request, &wired, &mut entry).and_then(|lans| {
            entry.record.note_wanted(&request.ports);
            ports::hold_all(self, (&request.name, &request.ports), &mut entry)?;
            apply(self, &wired, request, &lans, &mut entry)
        });
        let joined = match joined {
            Ok(joined) => joined,
            Err(err) => {
                undo(self, entry);
                return Err(err);
            }
        };
        self.state().insert(request.container.clone(), entry);
        links::settle(self).map_err(|err| abandon(self, &request.container, err))?;
        // Its first packet is to pass.
        self.firewalld.settle();
        Ok(joined)
    }

    /// Takes a container off its networks; no error if it is on none.
    ///
    /// Its ports, its addresses and its name are free when this returns, although the veth pairs go only with the last
    /// holder of the namespace.
    pub fn leave(&self, container: &str) -> Result<(), NetworkError> {
        let Some(mut entry) = self.state().remove(container) else { return Ok(()) };
        // Before somebody else has its address.
        let closed = links::settle(self);
        let cleaned = clean(self, &mut entry).and(closed);
        give_back(self, entry, cleaned.is_ok());
        cleaned
    }

    /// Takes addresses and ids; the ports follow.
    fn plan(&self, request: &JoinRequest, wired: &Wired, entry: &mut Entry) -> Result<Vec<Lan>, JoinError> {
        entry.record.egress.clone_from(&request.egress);
        links::note(self, request, &mut entry.record);
        entry.record.relays_loopback = relaying::leads_from_loopback(self);
        let mut lans = Vec::with_capacity(request.endpoints.len());
        for one in &request.endpoints {
            lans.push(self.plan_endpoint(one, &request.name, wired, entry)?);
        }
        egress::check_names(&entry.record)?;
        Ok(lans)
    }

    /// Takes an address for one more endpoint, which it adds to the entry.
    pub(super) fn plan_endpoint(
        &self,
        request: &EndpointRequest,
        endpoint_name: &str,
        wired: &Wired,
        entry: &mut Entry,
    ) -> Result<Lan, JoinError> {
        let missing = || match self.users.is_template(&request.network) {
            true => JoinError::Configuration,
            false => JoinError::NoNetwork(request.network.clone()),
        };
        let lan = self.lan(wired, &request.network).ok_or_else(missing)?;
        if let Some(address) = request.link_local.iter().find(|address| !is_link_local(**address)) {
            return Err(JoinError::NotLinkLocal(*address));
        }
        if request.mac.is_some() && !lan.footing.has_macs() {
            let (driver, endpoint, network) = (lan.footing.kind(), endpoint_name.to_owned(), lan.name.clone());
            return Err(JoinError::Parent(ParentError::OwnMac { driver, endpoint, network }));
        }
        let lent = match &lan.footing {
            Footing::Parent(parent) if parent.upper().is_none() => Some(parent.lend(&mut lock(&self.route))?),
            _ => None,
        };
        let (lent, own_mac) = lent.map_or((None, None), |(link, lent)| (Some(lent), link.mac));
        let taken = self.state().take_addresses(&request.network, (request.ipv4, request.ipv6));
        let (ipv4, ipv6) = taken.map_err(|(reason, family)| match reason {
            NoAddress::Exhausted => {
                JoinError::AddressesExhausted { family, name: lan.name.clone(), network: lan.id.clone() }
            }
            NoAddress::Taken => JoinError::AddressTaken,
            NoAddress::Outside => {
                let wanted = (request.ipv4.map(IpAddr::V4), request.ipv6.map(IpAddr::V6));
                let address = if family == "IPv6" { wanted.1 } else { wanted.0 };
                JoinError::AddressOutside { address: address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()) }
            }
        })?;
        let numbered = || {
            let taken = |name: &String| entry.record.endpoints.iter().any(|one| one.inner == *name);
            let names = (0..=entry.record.endpoints.len()).map(|number| format!("{}{number}", lan.interface_prefix));
            names.into_iter().find(|name| !taken(name)).unwrap_or_else(|| INTERFACE.to_owned())
        };
        let own_name = lent.as_ref().map(|lent| lent.name.clone());
        let inner = request.interface.clone().or(own_name).unwrap_or_else(numbered);
        let is_free = |mac: Mac| Some(mac).filter(|_| lan.footing.has_macs());
        entry.record.endpoints.push(EndpointRecord {
            network: request.network.clone(),
            network_name: lan.name.clone(),
            internal: lan.internal,
            endpoint_id: stdx::id::random_hex::<32>(),
            ipv4,
            ipv6,
            link_local: request.link_local.clone(),
            mac: own_mac.or_else(|| is_free(request.mac.unwrap_or_else(bridge::random_mac))),
            interface: String::new(),
            interface_index: 0,
            inner,
            inside: lan.footing.bridge().is_none(),
            lent,
            gateway_priority: request.gateway_priority,
            routed: lan.modes.map(|mode| mode == GatewayMode::Routed && !lan.internal),
        });
        Ok(lan)
    }
}

/// Whether an address counts on its link alone (RFC 3927, RFC 4291).
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Tries again what did not go when containers left.
pub(super) fn finish_leaving(networks: &Networks) {
    let left = networks.state().left();
    for container in left {
        if let Err(err) = networks.leave(&container) {
            tracing::warn!(err = errdefs::chain(&err), container, "what a container had is kept still");
        }
    }
}

/// Records the endpoints, then makes them true in the kernel.
fn apply(
    networks: &Networks,
    wired: &Wired,
    request: &JoinRequest,
    lans: &[Lan],
    entry: &mut Entry,
) -> Result<Joined, JoinError> {
    let ready = match entry.record.endpoints.first_mut() {
        Some(first) if first.network == DEFAULT && first.inner == INTERFACE => {
            let sandbox = wired.pool.take().map_err(|err| bridge_full(err, &lans[0]))?;
            first.interface.clone_from(&sandbox.interface);
            first.interface_index = sandbox.interface_index;
            Some(sandbox)
        }
        _ => None,
    };
    let ahead = usize::from(ready.is_some());
    for endpoint in entry.record.endpoints[ahead..].iter_mut().filter(|endpoint| !endpoint.inside) {
        endpoint.interface = new_interface(networks);
    }
    networks.records.write_endpoint(&entry.record)?;
    egress::guard(networks, wired, entry)?;
    let mut room = match ready {
        Some(sandbox) => furnish(networks, sandbox, &request.endpoints[0], &lans[0], entry)?,
        None => Room::new()?,
    };
    let plugged = plug_all(networks, wired, request, lans, ahead, (&mut room, entry));
    let Room { namespace, socket } = room;
    // Whoever undoes this needs it, too.
    entry.inside = Some(socket).filter(|_| entry.record.has_inside());
    plugged?;
    ports::publish(networks, wired, entry)?;
    seal(&entry.record.container, &entry.holds);
    let holds = shared(entry);
    Ok(Joined { namespace, holds, place: networks.place_of(&entry.record) })
}

/// Makes the links of all endpoints but those made `ahead`, and the way outward.
fn plug_all(
    networks: &Networks,
    wired: &Wired,
    request: &JoinRequest,
    lans: &[Lan],
    ahead: usize,
    (room, entry): (&mut Room, &mut Entry),
) -> Result<(), JoinError> {
    for ((endpoint, one), lan) in entry.record.endpoints.iter_mut().zip(&request.endpoints).zip(lans).skip(ahead) {
        plug(networks, wired, room, endpoint, one, lan)?;
    }
    if entry.record.endpoints.len() > ahead {
        // The numbers of the interfaces, for whoever cleans up.
        networks.records.write_endpoint(&entry.record)?;
        route_outward(networks, wired, room, entry)?;
    }
    Ok(())
}

/// Names the one address in a namespace that was made ahead for the default bridge.
fn furnish(
    networks: &Networks,
    mut sandbox: Sandbox,
    request: &EndpointRequest,
    lan: &Lan,
    entry: &Entry,
) -> Result<Room, NetworkError> {
    let endpoint = &entry.record.endpoints[0];
    let index = sandbox.inner_index;
    let address = |one: Subnet| address::Address { index, address: one.address, prefix: one.prefix };
    let mut inside = Vec::new();
    if lan.has_ipv6() {
        // It is down so far.
        inside.extend(endpoint.mac.map(|mac| link::set_mac(index, mac)));
        inside.push(link::set_up(INTERFACE));
    }
    inside.extend(addresses(endpoint, request, lan).into_iter().map(|one| address::add(address(one))));
    if entry.record.endpoints.len() == 1 {
        inside.extend(lan.ranges.iter().filter_map(|range| range.gateway).map(route::set_default));
    }
    // The Ethernet address last: the kernel announces the addresses when it changes.
    inside.extend(endpoint.mac.map(|mac| link::set_mac(index, mac)));
    sandbox.socket.apply(inside)?;
    lock(&networks.route).apply(known(endpoint, lan))?;
    let room = Room { namespace: sandbox.namespace, socket: sandbox.socket };
    room.tune(INTERFACE, &request.sysctls)?;
    Ok(room)
}

/// Makes the link of an endpoint whose record is written.
pub(super) fn plug(
    networks: &Networks,
    wired: &Wired,
    room: &mut Room,
    endpoint: &mut EndpointRecord,
    request: &EndpointRequest,
    lan: &Lan,
) -> Result<(), JoinError> {
    match &lan.footing {
        Footing::Bridge(footing) => plug_into_bridge(networks, wired, room, endpoint, request, (lan, footing))?,
        Footing::Parent(parent) => {
            let mut host = lock(&networks.route);
            let stack = Stack {
                inner: endpoint.inner.clone(),
                lower: parent.ensure(&mut host)?,
                upper: parent.upper(),
                lent: endpoint.lent.clone(),
                mac: endpoint.mac.filter(|_| lan.footing.has_macs()),
                addresses: match &endpoint.lent {
                    Some(lent) if lan.ranges.is_empty() => lent.addresses.clone(),
                    _ => addresses(endpoint, request, lan),
                },
                ipv6: lan.has_ipv6() || lan.ranges.is_empty(),
            };
            endpoint.interface_index = room.stack(&mut host, &stack)?;
        }
    }
    Ok(room.tune(&endpoint.inner, &request.sysctls)?)
}

/// Makes a veth pair.
fn plug_into_bridge(
    networks: &Networks,
    wired: &Wired,
    room: &mut Room,
    endpoint: &mut EndpointRecord,
    request: &EndpointRequest,
    (lan, footing): (&Lan, &BridgeFooting),
) -> Result<(), JoinError> {
    let plug = Plug {
        interface: endpoint.interface.clone(),
        inner: endpoint.inner.clone(),
        bridge_index: footing.index,
        mtu: footing.mtu,
        mac: endpoint.mac.unwrap_or_else(bridge::random_mac),
        addresses: addresses(endpoint, request, lan),
        ipv6: lan.has_ipv6(),
        hairpin: wired.filters_bridged || wired.filters_bridged_of_ipv6,
        isolated: !footing.icc && !wired.filters_all_bridged(lan),
    };
    let mut host = lock(&networks.route);
    endpoint.interface_index = room.plug(&mut host, &plug).map_err(|err| bridge_full(err, lan))?;
    host.apply(known(endpoint, lan)).map_err(NetworkError::from)?;
    Ok(())
}

/// Tells this machine who has the addresses of an endpoint: it need not ask, where it is there.
fn known(endpoint: &EndpointRecord, lan: &Lan) -> Vec<netlink::Request> {
    let (Some(mac), Some(footing)) = (endpoint.mac, lan.footing.bridge()) else { return Vec::new() };
    let is_there = |address: &IpAddr| lan.modes[usize::from(address.is_ipv6())] != GatewayMode::Isolated;
    endpoint.addresses().filter(is_there).map(|address| neighbour::set(footing.index, address, mac)).collect()
}

/// Sends what has no route of its own to the gateways that count.
pub(super) fn route_outward(
    networks: &Networks,
    wired: &Wired,
    room: &mut Room,
    entry: &Entry,
) -> Result<(), NetworkError> {
    let route = |endpoint: &EndpointRecord, own: Option<IpAddr>| {
        let lan = networks.lan(wired, &endpoint.network)?;
        match lan.range(own?)?.gateway {
            Some(gateway) => Some(route::set_default(gateway)),
            None if lan.is_routed() => Some(route::set_default_through(endpoint.interface_index, own?)),
            None => None,
        }
    };
    let ipv4 = entry.record.gateway().and_then(|one| route(one, one.ipv4.map(IpAddr::V4)));
    let ipv6 = entry.record.gateway_of_ipv6().and_then(|one| route(one, one.ipv6.map(IpAddr::V6)));
    Ok(room.socket.apply(ipv4.into_iter().chain(ipv6).collect())?)
}

/// A name for an interface on the host.
pub(super) fn new_interface(networks: &Networks) -> String {
    format!("{}{}", networks.config.link_prefix(), stdx::id::random_hex::<3>())
}

/// A container that has joined all but its links leaves again.
fn abandon(networks: &Networks, container: &str, err: NetworkError) -> JoinError {
    if let Err(err) = networks.leave(container) {
        // The error of the join is the one that matters.
        tracing::warn!(err = errdefs::chain(&err), container, "an endpoint could not be undone");
    }
    err.into()
}

fn undo(networks: &Networks, mut entry: Entry) {
    let cleaned = clean(networks, &mut entry);
    if let Err(err) = &cleaned {
        // The error of the join is the one that matters.
        tracing::warn!(%err, container = entry.record.container, "an endpoint could not be undone");
    }
    give_back(networks, entry, cleaned.is_ok());
}

/// Gives back what a container had that has left, unless the kernel has something of it: that is tried again before somebody else
/// joins, and by the next daemon, for which the record stays.
fn give_back(networks: &Networks, mut entry: Entry, cleaned: bool) {
    let mut state = networks.state();
    if cleaned {
        state.release(&entry.record);
    } else {
        entry.left = true;
        state.insert(entry.record.container.clone(), entry);
    }
}

/// Takes a container out of the kernel, as far as that goes; then its record, if nothing is left. Answers the first error.
fn clean(networks: &Networks, entry: &mut Entry) -> Result<(), NetworkError> {
    let relayed = relaying::withdraw(networks, entry, &entry.record.ports);
    // Before the rules: a connection that finds our socket instead of the container would wait for ever.
    entry.holds.drain(..).for_each(Hold::release);
    entry.record.ports.iter().for_each(|port| networks.later.0.release(port));
    let withdrawn = ports::withdraw(networks, &entry.record.container);
    let unplugged = entry.record.endpoints.iter().filter(|endpoint| endpoint.interface_index != 0).map(|endpoint| {
        match (&mut entry.inside, endpoint.inside) {
            (Some(socket), true) => unstack(networks, socket, endpoint),
            // It goes with its namespace.
            (None, true) => Ok(()),
            (_, false) => shut(networks, endpoint),
        }
    });
    let unplugged = unplugged.fold(Ok(()), Result::and);
    // Nothing enters by its ports any more.
    let released = if unplugged.is_ok() { egress::release(networks, &entry.record.container) } else { Ok(()) };
    withdrawn.and(unplugged).and(released)?;
    // A relay that does not answer will, and has been told.
    networks.records.remove_endpoint(&entry.record.container).and(relayed)
}

/// Has nothing enter by a container's port of its bridge any more.
fn shut(networks: &Networks, endpoint: &EndpointRecord) -> Result<(), NetworkError> {
    let port = link::disable_port(&endpoint.interface, endpoint.interface_index);
    match lock(&networks.route).apply(vec![port]) {
        // Gone with its namespace, the normal case after a container's end; or no port of a bridge any more.
        Err(err) if matches!(err.errno(), Some(Errno::NODEV | Errno::OPNOTSUPP | Errno::INVAL)) => Ok(()),
        disabled => Ok(disabled?),
    }
}

/// Removes a link that is in a container alone. At once: its parent may give its Ethernet address, or its only place, to nobody
/// else before.
pub(super) fn unstack(networks: &Networks, socket: &mut Socket, endpoint: &EndpointRecord) -> Result<(), NetworkError> {
    let index = endpoint.interface_index;
    let removed = match &endpoint.lent {
        Some(lent) => send_home(socket, index, &lent.name)?,
        None => socket.apply(vec![link::delete_number(index)]),
    };
    match removed {
        // The container may do so, too.
        Err(err) if err.errno() == Some(Errno::NODEV) => Ok(()),
        removed => {
            removed?;
            endpoint.lent.as_ref().map_or(Ok(()), |lent| lent.restore(&mut lock(&networks.route)))
        }
    }
}

/// Moves a link out of a container. Where somebody has its name meanwhile, it gets one of the kernel's choice.
fn send_home(socket: &mut Socket, index: u32, name: &str) -> Result<Result<(), NetlinkError>, NetworkError> {
    let home = own_namespace().map_err(|source| NetworkError::Namespace { source })?;
    let send = |name: &str| vec![link::send(index, home.as_fd(), name)];
    Ok(match socket.apply(send(name)) {
        Err(err) if err.errno() == Some(Errno::EXIST) => socket.apply(send("dev%d")),
        sent => sent,
    })
}

/// Completes the holds of ports; answers one more descriptor of each, for whoever outlives us.
pub(super) fn seal(container: &str, holds: &[Hold]) {
    for held in holds.iter().filter(|held| !held.is_relayed()) {
        if let Err(errno) = held.seal() {
            // Another program listens on the very address; it loses to the redirection, as with dockerd.
            tracing::warn!(%errno, container, "a published port is another program's too");
        }
    }
}

/// What holds the ports that the relay does not hold, for somebody who outlives this process.
fn shared(entry: &Entry) -> Vec<std::os::fd::OwnedFd> {
    let shared = entry.holds.iter().filter(|held| !held.is_relayed()).filter_map(|held| {
        // Without descriptors to spare the port is held as long as this process lives.
        held.share().inspect_err(|err| tracing::warn!(%err, "the hold of a port is not shared")).ok()
    });
    shared.collect()
}

pub(super) fn joined_already(request: &JoinRequest, network: String) -> JoinError {
    JoinError::Joined { name: request.name.clone(), network }
}

/// The addresses of an interface.
fn addresses(endpoint: &EndpointRecord, request: &EndpointRequest, lan: &Lan) -> Vec<Subnet> {
    let own = endpoint.addresses().filter_map(|address| lan.own(address));
    let link_local = request.link_local.iter().map(|address| {
        let prefix = if address.is_ipv4() { LINK_LOCAL_PREFIX } else { LINK_LOCAL_PREFIX_OF_IPV6 };
        Subnet { address: *address, prefix }
    });
    own.chain(link_local).collect()
}

fn bridge_full(err: NetworkError, lan: &Lan) -> JoinError {
    match err {
        NetworkError::Netlink(err) if err.errno() == Some(Errno::XFULL) => {
            let bridge = lan.footing.bridge().map(|footing| footing.bridge.clone()).unwrap_or_default();
            JoinError::BridgeFull { bridge }
        }
        err => err.into(),
    }
}
