//! The packet filter: one table of our own a family, with one map element per published port.
//!
//! ```text
//! table ip longshore-<key>
//!   raw          prerouting, before tracking: nothing from other links to a container's address that is not redirected
//!                later; nothing from a bridge to or from 127.0.0.0/8 (the guard of route_localnet)
//!   redirect     prerouting: packets to this machine, to a published port  -> container, except to 127.0.0.0/8
//!   output       output: the same for this machine's own packets
//!   arrive       where `forward` marks what it accepts: nobody else's packet goes on with that mark, see `foreign`
//!   forward      what enters or leaves the bridges, and nothing from one to another; before all others
//!   guard        where we switched forwarding on: nothing else is forwarded; stays when all else goes, with `arrive` and `unmark`
//!   masquerade   postrouting: containers leave with the host's address, and so does what returns to its bridge
//!   unmark       postrouting, likewise: the mark goes again
//!   maps: addresses (protocol . address . port), ports (protocol . port) -> container's address . port
//!         address-ranges, port-ranges: the same of ranges -> container's address; the port stays
//!         links (who links . whom . protocol . port) -> itself: what passes between neighbours who are else strangers
//!         opened (protocol . container's address . port) -> itself: what passes to networks of the mode `routed`
//! ```
//! The table `ip6 longshore-<key>` is there while a network has addresses of IPv6, or for `guard`, and changes in the same transactions. It is
//! the same but for the loopback addresses: packets from and to ::1 enter by no link, the kernel sees to that, not even answers that
//! were translated. So nothing to ::1 is redirected: the relay serves it, or a connection to a published port there is refused (`refuse`, at
//! output) instead of waiting for ever: clients that try it first, for `localhost`, go on to 127.0.0.1.
//!
//! An accept ends only our chain: a firewall of the machine's owner still has its say. What becomes of that where it drops
//! everything is `foreign`'s.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink::nft::expression::{self as rule, Verdict};
use netlink::nft::guest::{ForwardChain, TableFamily};
use netlink::nft::{self, ChainKind, Element, Expression, Family, Field, Hook, Map, Transaction};
use netlink::{NetlinkError, Protocol as Netlink, Socket, conntrack};

use crate::config::Config;
use crate::egress::Egress;
use crate::foreign::{Due, Foreign, ForeignChain, MARK};
use crate::options::GatewayMode;
use crate::ports::{Protocol, Published};
use crate::record::{BridgeRecord, Forwarding};
use crate::subnet::{Subnet, is_of_link};
use crate::user::UserNetwork;

mod egress;
mod elements;

const BY_ADDRESS: &str = "addresses";
const BY_PORT: &str = "ports";
/// Of ports one after the other that keep their numbers.
const RANGES_BY_ADDRESS: &str = "address-ranges";
const RANGES_BY_PORT: &str = "port-ranges";
/// A map only because rules find things in maps.
const OPENED: &str = "opened";
/// Likewise.
const LINKS: &str = "links";
const GUARD: &str = "guard";

/// Before connection tracking (NF_IP_PRI_RAW).
const PRIORITY_RAW: i32 = -300;
/// Before other filters of what is forwarded, which are to find the mark of what is accepted.
const PRIORITY_FORWARD: i32 = -400;
/// Before any instance of ours marks: it would else take away what another one has said.
const PRIORITY_ARRIVE: i32 = PRIORITY_FORWARD - 1;
/// Behind all instances' marks, and before anybody else may set them anew (NF_IP_PRI_MANGLE, -150, for one).
const PRIORITY_GUARD: i32 = PRIORITY_FORWARD + 1;
/// Before anybody behind the routing looks at marks.
const PRIORITY_UNMARK: i32 = PRIORITY_RAW;
/// The filters that take a mark away.
const UNMARKING: [(&str, Hook, i32); 2] =
    [("arrive", Hook::Forward, PRIORITY_ARRIVE), ("unmark", Hook::Postrouting, PRIORITY_UNMARK)];
const REFUSE: (&str, Hook, i32) = ("refuse", Hook::Output, PRIORITY_REFUSE);
/// One before the usual priorities of translation, so that the order beside another program's chains is certain.
const PRIORITY_REDIRECT: i32 = -101;
const PRIORITY_MASQUERADE: i32 = 99;

const LOOPBACK: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);
const LOOPBACK_OF_IPV6: (IpAddr, u8) = (IpAddr::V6(Ipv6Addr::LOCALHOST), 128);
/// Where filters usually stand (NF_IP_PRI_FILTER): behind the redirections.
const PRIORITY_REFUSE: i32 = 0;

/// What the rules depend on.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) bridges: Vec<BridgeRules>,
    /// What is open between neighbours on a bridge that keeps them apart.
    pub(crate) links: Vec<LinkedPort>,
    /// Whether nobody serves [::1].
    pub(crate) refuses_loopback: bool,
    pub(crate) guarded: Forwarding,
}

/// What the rules for one bridge depend on.
#[derive(Clone, Debug)]
pub(crate) struct BridgeRules {
    pub(crate) bridge: String,
    /// The bridge's addresses.
    pub(crate) gateways: Vec<Subnet>,
    pub(crate) icc: bool,
    /// Whether links open ports between neighbours who do not reach each other.
    pub(crate) links: bool,
    pub(crate) masquerade: bool,
    /// Nothing comes in, nothing goes out.
    pub(crate) internal: bool,
    /// How containers and everybody else reach each other, by IPv4 and by IPv6.
    pub(crate) modes: [GatewayMode; 2],
    /// The links whose neighbours reach published ports at the containers' own addresses.
    pub(crate) trusted: Vec<String>,
}

/// A port of a container that is open to one that links to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LinkedPort {
    /// Who links.
    pub(crate) from: Ipv4Addr,
    /// Who is linked.
    pub(crate) to: Ipv4Addr,
    pub(crate) protocol: Protocol,
    /// That one's port.
    pub(crate) port: u16,
}

/// A published port and where it leads, which is of the same family; of one that is opened the address at which.
pub(crate) type Redirection = (Published, IpAddr);

/// The table, and the socket to change it through.
#[derive(Debug)]
pub(crate) struct Firewall {
    socket: Socket,
    table: String,
    /// Whether there is a table of IPv6, as far as this process knows.
    stands_of_ipv6: Option<bool>,
    /// Whether what is accepted is marked.
    marks: bool,
    /// Whether this process has written all of it, and not the guard alone.
    is_whole: bool,
    foreign: Foreign,
    egress: Egress,
    /// The links that are open.
    links: HashSet<LinkedPort>,
    /// The networks whose published ports are also reached at the containers' own addresses.
    trusting: Vec<Subnet>,
}

impl BridgeRules {
    /// Those of the default bridge.
    pub(crate) fn new(config: &Config, record: &BridgeRecord) -> BridgeRules {
        BridgeRules {
            bridge: config.bridge_name(),
            gateways: record.gateways(),
            icc: config.icc,
            links: !config.icc,
            masquerade: config.ip_masq,
            internal: false,
            modes: [GatewayMode::Nat; 2],
            trusted: Vec::new(),
        }
    }

    /// Those of a user's network; none where it has no bridge.
    pub(crate) fn of(network: &UserNetwork) -> Option<BridgeRules> {
        let bridge = network.driver.bridge()?;
        Some(BridgeRules {
            bridge: bridge.bridge.clone(),
            gateways: network.gateways(),
            icc: bridge.icc,
            // They are names there, and open nothing, as with dockerd.
            links: false,
            masquerade: bridge.masquerade && !network.internal,
            internal: network.internal,
            modes: network.gateway_modes(),
            trusted: if network.internal { Vec::new() } else { network.trusted_interfaces() },
        })
    }
}

impl Firewall {
    pub(crate) fn open(table: String, host_firewall: bool) -> Result<Firewall, NetlinkError> {
        let foreign = Foreign::new(table.clone(), host_firewall);
        let (socket, egress) = (Socket::open(Netlink::Netfilter)?, Egress::new(&table));
        let (links, trusting) = (HashSet::new(), Vec::new());
        Ok(Firewall {
            socket,
            table,
            stands_of_ipv6: None,
            marks: false,
            is_whole: false,
            foreign,
            egress,
            links,
            trusting,
        })
    }

    /// Begins to listen to what others change.
    pub(crate) fn watch(&mut self) -> Result<nft::watch::Watch, NetlinkError> {
        nft::watch::Watch::open(self.socket.port()?)
    }

    /// What others have changed, as far as it concerns us.
    pub(crate) fn told(&self, watch: &mut nft::watch::Watch) -> Result<Due, NetlinkError> {
        let mut due = Due::Nothing;
        watch.read(|change| due = due.max(self.foreign.due(&change)))?;
        Ok(due)
    }

    /// Chains of others that drop what is forwarded.
    pub(crate) fn foreign_chains(&self) -> &[ForeignChain] {
        self.foreign.chains()
    }

    /// Makes good what others have changed. What fails is due again.
    pub(crate) fn heal(
        &mut self,
        due: Due,
        rules: &Rules,
        redirections: impl FnOnce() -> Vec<Redirection>,
    ) -> Result<(), NetlinkError> {
        if due == Due::Nothing {
            return Ok(());
        }
        let found = self.foreign.look(&mut self.socket);
        let marks = found.as_ref().map_or(self.marks, |found| rules.mark(self.foreign.needs_mark(found)));
        if due == Due::Rewrite || marks != self.marks {
            self.replace_own(rules, &redirections(), marks)?;
        }
        self.foreign.settle(&mut self.socket, &found?, rules.has_ipv6())
    }

    /// Replaces all that is in the table of each family in one transaction; packets meet the old rules or the new ones. Then our
    /// rules in chains of others are placed, or taken out: packets are marked by now. Where the chains of others are not seen, packets are
    /// marked as they were, and that is an error.
    pub(crate) fn replace(&mut self, rules: &Rules, redirections: &[Redirection]) -> Result<(), NetlinkError> {
        self.heal(Due::Rewrite, rules, || redirections.to_vec())
    }

    fn replace_own(&mut self, rules: &Rules, redirections: &[Redirection], marks: bool) -> Result<(), NetlinkError> {
        // The guard meets what stays on a bridge, too, where the kernel shows that to filters: our own rules mark it.
        let with_ipv6 = rules.has_ipv6() || rules.guarded.ipv6;
        let families = self.families(with_ipv6)?;
        let trusting = rules.trusting();
        let written = |over| {
            let mut change = Transaction::new(&self.table);
            for family in families {
                let wanted = *family == Family::Ipv4 || with_ipv6;
                begin(&mut change, *family, if wanted { over } else { Over::Nothing });
                if wanted {
                    change.create_table();
                    rules.write(&mut change, *family, marks);
                }
            }
            elements::change(&mut change, (&[], redirections), &trusting);
            change.on(Family::Ipv4);
            change.add_elements(LINKS, &rules.links.iter().map(LinkedPort::element).collect::<Vec<_>>());
            change
        };
        match written(Over::WhatStands).commit(&mut self.socket) {
            // Chains or maps of another version stand.
            Err(NetlinkError::Refused { .. }) => written(Over::Nothing).commit(&mut self.socket)?,
            replaced => replaced?,
        }
        self.trusting = trusting;
        self.links = rules.links.iter().copied().collect();
        self.stands_of_ipv6 = Some(with_ipv6);
        self.marks = marks;
        self.is_whole = true;
        Ok(())
    }

    /// Removes all but the guard.
    pub(crate) fn remove(&mut self, guarded: Forwarding) -> Result<(), NetlinkError> {
        let guests = self.foreign.remove(&mut self.socket);
        let egress = self.egress.remove(&mut self.socket);
        self.leave_guard(guarded).and(guests).and(egress)
    }

    /// Guards what an earlier daemon has switched on, unless all else is there by now, too.
    pub(crate) fn guard_alone(&mut self, guarded: Forwarding) -> Result<(), NetlinkError> {
        if guarded.is_any() && !self.is_whole { self.leave_guard(guarded) } else { Ok(()) }
    }

    /// Leaves of our own tables the guard, where there is to be one.
    fn leave_guard(&mut self, guarded: Forwarding) -> Result<(), NetlinkError> {
        let families = self.families(guarded.ipv6)?;
        let mut change = Transaction::new(&self.table);
        for family in families {
            begin(&mut change, *family, Over::Nothing);
            write_guard_alone(&mut change, *family, guarded);
        }
        change.commit(&mut self.socket)?;
        self.stands_of_ipv6 = Some(guarded.ipv6);
        self.marks = guarded.is_any();
        self.is_whole = false;
        Ok(())
    }

    /// Of which family a guard of ours stands, perhaps an earlier daemon's.
    pub(crate) fn guarded(&mut self) -> Result<Forwarding, NetlinkError> {
        let chains = nft::guest::forward_chains(&mut self.socket)?;
        let guards = |family| {
            let is_guard = |one: &ForwardChain| one.family == family && one.table == self.table && one.name == GUARD;
            chains.iter().any(is_guard)
        };
        Ok(Forwarding { ipv4: guards(TableFamily::Ip), ipv6: guards(TableFamily::Ip6) })
    }

    /// Those of which a table of ours is, or is to be. A kernel without IPv6 would refuse it all.
    fn families(&mut self, with_ipv6: bool) -> Result<&'static [Family], NetlinkError> {
        Ok(if with_ipv6 || self.stands_of_ipv6()? { &FAMILIES[..] } else { &FAMILIES[..1] })
    }

    /// Whether there is a table of IPv6, perhaps an earlier daemon's.
    fn stands_of_ipv6(&mut self) -> Result<bool, NetlinkError> {
        match self.stands_of_ipv6 {
            Some(stands) => Ok(stands),
            None => nft::table_exists(&mut self.socket, Family::Ipv6, &self.table),
        }
    }

    /// What a container's ports led to `before` goes, and what they lead to `now` comes.
    pub(crate) fn publish(&mut self, before: &[Redirection], now: &[Redirection]) -> Result<(), NetlinkError> {
        let mut change = Transaction::new(&self.table);
        elements::change(&mut change, (before, now), &self.trusting);
        change.commit(&mut self.socket)
    }

    /// These links are open, and no others.
    pub(crate) fn link(&mut self, wanted: &[LinkedPort]) -> Result<(), NetlinkError> {
        let wanted: HashSet<LinkedPort> = wanted.iter().copied().collect();
        let elements = |links: &HashSet<LinkedPort>, others: &HashSet<LinkedPort>| {
            links.difference(others).map(LinkedPort::element).collect::<Vec<_>>()
        };
        let mut change = Transaction::new(&self.table);
        change.on(Family::Ipv4);
        change.delete_elements(LINKS, &elements(&self.links, &wanted));
        change.add_elements(LINKS, &elements(&wanted, &self.links));
        change.commit(&mut self.socket)?;
        self.links = wanted;
        Ok(())
    }

    /// Forgets the TCP connections to these ports that began while others had taken our rules away: the kernel goes on leading them to
    /// this machine itself, where nobody answers, as often as they are tried again.
    pub(crate) fn forget_stranded(
        &mut self,
        redirections: &[Redirection],
        local: &[IpAddr],
    ) -> Result<(), NetlinkError> {
        let is_local = |address: IpAddr| address.is_loopback() || local.contains(&address);
        let is_published = |connection: &conntrack::Connection| {
            redirections.iter().any(|(published, container)| {
                published.protocol == Protocol::Tcp
                    && connection.port == published.host_port
                    && container.is_ipv4() == connection.destination.is_ipv4()
                    && (published.host_address.is_unspecified() || published.host_address == connection.destination)
            })
        };
        let is_stranded = |connection: &conntrack::Connection| {
            !connection.is_answered
                && connection.answered_by == connection.destination
                && is_local(connection.destination)
                && is_published(connection)
        };
        conntrack::forget_tcp(&mut self.socket, is_stranded)?;
        Ok(())
    }

    /// Forgets the UDP connections that the kernel would go on treating as before these ports came or went.
    pub(crate) fn forget(&mut self, redirections: &[Redirection], local: &[IpAddr]) -> Result<(), NetlinkError> {
        let concerns = |connection: &conntrack::Connection, (published, container): &Redirection| {
            if published.is_opened() {
                // Else the container that has the address next would hear what goes on.
                let port = connection.port == published.container_port;
                return published.protocol == Protocol::Udp && port && connection.destination == *container;
            }
            published.protocol == Protocol::Udp
                && connection.port == published.host_port
                && container.is_ipv4() == connection.destination.is_ipv4()
                && (published.host_address.is_unspecified() || published.host_address == connection.destination)
                && (connection.answered_by == *container
                    || connection.answered_by == connection.destination && local.contains(&connection.destination))
        };
        conntrack::forget_udp(&mut self.socket, |connection| redirections.iter().any(|one| concerns(connection, one)))?;
        Ok(())
    }
}

/// In the order of changes.
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

impl Rules {
    pub(crate) fn has_ipv6(&self) -> bool {
        self.bridges.iter().any(|one| one.gateway(Family::Ipv6).is_some())
    }

    /// The networks whose published ports are also reached at the containers' own addresses.
    fn trusting(&self) -> Vec<Subnet> {
        let trusting = self.bridges.iter().filter(|one| !one.trusted.is_empty());
        trusting.flat_map(|one| one.gateways.iter().map(|gateway| gateway.network())).collect()
    }

    /// Whether what is accepted is marked: for the chains of others, or for our own guard.
    fn mark(&self, for_others: bool) -> bool {
        for_others || self.guarded.is_any()
    }

    fn write(&self, change: &mut Transaction<'_>, family: Family, marks: bool) {
        let accept = accept(marks);
        let address = match family {
            Family::Ipv4 => Field::Ipv4Address,
            Family::Ipv6 => Field::Ipv6Address,
        };
        let value = &[address, Field::Port];
        let (by_address, by_port) = (&[Field::Protocol, address, Field::Port], &[Field::Protocol, Field::Port]);
        map(change, BY_ADDRESS, by_address, value);
        map(change, BY_PORT, by_port, value);
        map_of_ranges(change, RANGES_BY_ADDRESS, by_address, &[address]);
        map_of_ranges(change, RANGES_BY_PORT, by_port, &[address]);
        map(change, OPENED, by_address, value);
        if family == Family::Ipv4 {
            map(change, LINKS, &[address, address, Field::Protocol, Field::Port], value);
        }
        chain(change, "raw", ChainKind::Filter, Hook::Prerouting, PRIORITY_RAW);
        chain(change, "forward", ChainKind::Filter, Hook::Forward, PRIORITY_FORWARD);
        chain(change, "masquerade", ChainKind::Nat, Hook::Postrouting, PRIORITY_MASQUERADE);
        write_redirections(change, family, self.refuses_loopback);
        // Nobody there has an address of the family but one that he gave himself.
        let leads_nowhere = |one: &&BridgeRules| one.internal || one.gateway(family).is_none();
        // Before anybody lets everything in.
        for one in self.bridges.iter().filter(leads_nowhere) {
            let (entering, elsewhere) =
                (rule::interface_in(&one.bridge, true), rule::interface_out(&one.bridge, false));
            append(change, "forward", &[&entering, &elsewhere, &DROP]);
        }
        for one in &self.bridges {
            one.write_raw(change, family);
            one.write_inward(change, family, &accept);
            one.write_masquerade(change, family);
        }
        // What enters from one bridge and leaves through another one has met that one's verdict above.
        for one in self.bridges.iter().filter(|one| !leads_nowhere(one)) {
            append(change, "forward", &[&rule::interface_in(&one.bridge, true), &accept]);
        }
        if marks {
            write_unmarking(change);
        } else {
            UNMARKING.into_iter().for_each(|chain| without(change, chain));
        }
        if is_guarded(self.guarded, family) {
            write_guard(change);
        } else {
            without(change, (GUARD, Hook::Forward, PRIORITY_GUARD));
        }
    }
}

/// What a table is written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// Chains and maps stay, and what is in them is replaced. The kernel translates by what it found at a connection's first packet:
    /// one that came while a chain was being replaced, and met neither it nor its successor, would lead nowhere for good.
    WhatStands,
    /// The table is not there then.
    Nothing,
}

/// Begins to write a table of ours.
fn begin(change: &mut Transaction<'_>, family: Family, over: Over) {
    change.on(family);
    if over == Over::Nothing {
        // Creating it first makes deleting it succeed.
        change.create_table();
        change.delete_table();
    }
}

/// An empty chain, whether it is there or not.
fn chain(change: &mut Transaction<'_>, name: &str, kind: ChainKind, hook: Hook, priority: i32) {
    change.create_chain(name, kind, hook, priority);
    change.empty_chain(name);
}

/// No such filter, whether it is there or not.
fn without(change: &mut Transaction<'_>, (name, hook, priority): (&str, Hook, i32)) {
    // Creating it first makes deleting it succeed.
    change.create_chain(name, ChainKind::Filter, hook, priority);
    change.delete_chain(name);
}

/// An empty map, whether it is there or not.
fn map(change: &mut Transaction<'_>, name: &str, key: &[Field], value: &[Field]) {
    change.create_map(&Map { name, key, value, ranges: false });
    change.empty_map(name);
}

/// An empty map of ranges, whether it is there or not.
fn map_of_ranges(change: &mut Transaction<'_>, name: &str, key: &[Field], value: &[Field]) {
    change.create_map(&Map { name, key, value, ranges: true });
    change.empty_map(name);
}

fn is_guarded(guarded: Forwarding, family: Family) -> bool {
    match family {
        Family::Ipv4 => guarded.ipv4,
        Family::Ipv6 => guarded.ipv6,
    }
}

/// All of a table whose containers are gone, where there is to be one.
fn write_guard_alone(change: &mut Transaction<'_>, family: Family, guarded: Forwarding) {
    if is_guarded(guarded, family) {
        change.create_table();
        write_unmarking(change);
        write_guard(change);
    }
}

/// Whoever else sets our bit would pass every chain in which a rule of ours is, and the guard.
fn write_unmarking(change: &mut Transaction<'_>) {
    for (name, hook, priority) in UNMARKING {
        chain(change, name, ChainKind::Filter, hook, priority);
        append(change, name, &[&rule::has_mark(MARK), &rule::clear_mark(MARK)]);
    }
}

/// A policy, by which other instances of ours know that they have to mark what is theirs.
fn write_guard(change: &mut Transaction<'_>) {
    change.create_dropping_chain(GUARD, Hook::Forward, PRIORITY_GUARD);
    change.empty_chain(GUARD);
    append(change, GUARD, &[&rule::has_mark(MARK), &ACCEPT]);
}

impl BridgeRules {
    /// The bridge's address of a family.
    fn gateway(&self, family: Family) -> Option<Subnet> {
        self.gateways.iter().copied().find(|gateway| gateway.address.is_ipv4() == (family == Family::Ipv4))
    }

    /// Of an internal network that leads nobody in says nothing.
    fn is(&self, mode: GatewayMode, family: Family) -> bool {
        let [ipv4, ipv6] = self.modes;
        (mode == GatewayMode::Isolated || !self.internal) && mode == if family == Family::Ipv4 { ipv4 } else { ipv6 }
    }

    fn write_raw(&self, change: &mut Transaction<'_>, family: Family) {
        let (entering, other) = (rule::interface_in(&self.bridge, true), rule::interface_in(&self.bridge, false));
        if family == Family::Ipv4 {
            // The guard: containers could else reach what listens on this machine's loopback (CVE-2020-8558).
            append(change, "raw", &[&entering, &rule::destination_in(LOOPBACK.0, LOOPBACK.1, true), &DROP]);
            append(change, "raw", &[&entering, &rule::source_in(LOOPBACK.0, LOOPBACK.1), &DROP]);
        }
        if self.is(GatewayMode::Isolated, family) {
            // The bridge has no address, but takes packets for any other one of this machine.
            append(change, "raw", &[&entering, &rule::to_this_machine(), &DROP]);
        }
        // A rule about those of links would hit this machine's neighbours, too.
        let Some(gateway) = self.gateway(family).filter(|gateway| !is_of_link(gateway.address)) else { return };
        if self.is(GatewayMode::NatUnprotected, family) || self.is(GatewayMode::Routed, family) {
            return;
        }
        let network = gateway.network();
        let to_container = rule::destination_in(network.address, network.prefix, true);
        let not_gateway = rule::destination_in(gateway.address, gateway.width(), false);
        // One rule: whoever came by none of them.
        let trusted = self.trusted.iter().flat_map(|name| rule::interface_in(name, false)).collect::<Vec<_>>();
        append(change, "raw", &[&other, &trusted, &to_container, &not_gateway, &DROP]);
    }

    /// What leaves through the bridge, to its containers.
    fn write_inward(&self, change: &mut Transaction<'_>, family: Family, accept: &[Expression]) {
        let (entering, leaving) = (rule::interface_in(&self.bridge, true), rule::interface_out(&self.bridge, true));
        if !self.internal {
            let known = rule::connection_state(rule::ESTABLISHED_OR_RELATED);
            append(change, "forward", &[&leaving, &known, accept]);
            append(change, "forward", &[&leaving, &rule::connection_status(rule::REDIRECTED), accept]);
        }
        if self.links && family == Family::Ipv4 {
            for answers in [false, true] {
                append(change, "forward", &[&entering, &leaving, &rule::find_link(LINKS, family, answers), accept]);
            }
        }
        let neighbours = if self.icc { accept } else { &DROP };
        append(change, "forward", &[&entering, &leaving, neighbours]);
        if self.is(GatewayMode::Routed, family) {
            append(change, "forward", &[&leaving, &rule::find_by_address(OPENED, family), accept]);
            // Errors on the way to a container, and whether it is there, as with Docker.
            append(change, "forward", &[&leaving, &rule::is_icmp(family), accept]);
        }
        for name in &self.trusted {
            let (trusted, opened) = (rule::interface_in(name, true), rule::find_by_address(OPENED, family));
            append(change, "forward", &[&trusted, &leaving, &opened, accept]);
        }
        let open = self.is(GatewayMode::NatUnprotected, family) && self.gateway(family).is_some();
        let others = if open { accept } else { &DROP };
        append(change, "forward", &[&leaving, others]);
    }

    fn write_masquerade(&self, change: &mut Transaction<'_>, family: Family) {
        let Some(gateway) = self.gateway(family) else { return };
        let leaving = rule::interface_out(&self.bridge, true);
        let network = gateway.network();
        let containers = rule::source_in(network.address, network.prefix);
        if self.masquerade && !self.is(GatewayMode::Routed, family) {
            let elsewhere = rule::interface_out(&self.bridge, false);
            append(change, "masquerade", &[&containers, &elsewhere, &MASQUERADE]);
        }
        // The answer to one's own published port, or a neighbour's, would else go directly and not be recognised.
        let redirected = rule::connection_status(rule::REDIRECTED);
        append(change, "masquerade", &[&containers, &leaving, &redirected, &MASQUERADE]);
        if family == Family::Ipv4 {
            append(change, "masquerade", &[&rule::source_in(LOOPBACK.0, LOOPBACK.1), &leaving, &MASQUERADE]);
        }
    }
}

const ACCEPT: [Expression; 1] = [Expression::Verdict(Verdict::Accept)];
const DROP: [Expression; 1] = [Expression::Verdict(Verdict::Drop)];
const MASQUERADE: [Expression; 1] = [Expression::Masquerade];
const RESET: [Expression; 1] = [Expression::Reset];

/// The end of a rule that lets pass.
fn accept(marks: bool) -> Vec<Expression> {
    let mark = marks.then(|| rule::set_mark(MARK));
    mark.into_iter().flatten().chain(ACCEPT).collect()
}

/// How a packet to a published port is found, and what becomes of it.
fn ways(family: Family) -> [(Vec<Expression>, [Expression; 1]); 4] {
    let to_port = || [Expression::Redirect { family }];
    let to_address = || [Expression::RedirectAddress { family }];
    [
        (rule::find_by_address(BY_ADDRESS, family).to_vec(), to_port()),
        (rule::find_by_address(RANGES_BY_ADDRESS, family).to_vec(), to_address()),
        (rule::find_by_port(BY_PORT).to_vec(), to_port()),
        (rule::find_by_port(RANGES_BY_PORT).to_vec(), to_address()),
    ]
}

fn write_redirections(change: &mut Transaction<'_>, family: Family, refuses_loopback: bool) {
    let local = rule::to_this_machine();
    for (name, hook) in [("redirect", Hook::Prerouting), ("output", Hook::Output)] {
        chain(change, name, ChainKind::Nat, hook, PRIORITY_REDIRECT);
        if hook == Hook::Prerouting && family == Family::Ipv4 {
            // From a link nobody may reach what is published on 127.0.0.1, nor the socket that holds the port. The kernel
            // drops these too, where route_localnet is off. This machine's own packets have been through `output`.
            let loopback = rule::destination_in(LOOPBACK.0, LOOPBACK.1, true);
            for (found, _) in ways(family) {
                append(change, name, &[&loopback, &found, &DROP]);
            }
            append(change, name, &[&loopback, &ACCEPT]);
        }
        if hook == Hook::Output && family == Family::Ipv6 {
            let loopback = rule::destination_in(LOOPBACK_OF_IPV6.0, LOOPBACK_OF_IPV6.1, true);
            append(change, name, &[&loopback, &ACCEPT]);
            if refuses_loopback {
                let (refuse, hook, priority) = REFUSE;
                chain(change, refuse, ChainKind::Filter, hook, priority);
                for ports in [BY_PORT, RANGES_BY_PORT] {
                    append(change, refuse, &[&loopback, &rule::is_tcp(), &rule::find_by_port(ports), &RESET]);
                }
            } else {
                without(change, REFUSE);
            }
        }
        for (found, redirect) in ways(family) {
            append(change, name, &[&local, &found, &redirect]);
        }
    }
}

fn append(change: &mut Transaction<'_>, chain: &str, parts: &[&[Expression]]) {
    change.append_rule(chain, &parts.concat());
}

impl LinkedPort {
    fn element(&self) -> Element {
        let port = [self.port.to_be_bytes(), [0; 2]].concat();
        let to = self.to.octets();
        let protocol = [self.protocol.number(), 0, 0, 0];
        Element::new([&self.from.octets()[..], &to, &protocol, &port].concat(), [&to[..], &port].concat())
    }
}
