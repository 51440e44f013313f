//! The packet filter: one table of our own, with one map element per published port.
//!
//! ```text
//! table ip longshore-<key>
//!   raw          prerouting, before tracking: nothing from other links to a container's address that is not redirected
//!                later; nothing from a bridge to or from 127.0.0.0/8 (the guard of route_localnet)
//!   redirect     prerouting: packets to this machine, to a published port  -> container, except to 127.0.0.0/8
//!   output       output: the same for this machine's own packets
//!   forward      what enters or leaves the bridges, and nothing from one to another; where we switched forwarding on,
//!                nothing else
//!   masquerade   postrouting: containers leave with the host's address, and so does what returns to its bridge
//!   maps: addresses (protocol . address . port), ports (protocol . port) -> container's address . port
//! ```
//! An accept ends only our chain: a firewall of the machine's owner still has its say.

use std::net::Ipv4Addr;

use netlink::nft::expression::{self as rule, Verdict};
use netlink::nft::{ChainKind, Element, Expression, Field, Hook, Map, Transaction};
use netlink::{NetlinkError, Protocol as Family, Socket, conntrack};

use crate::config::Config;
use crate::ports::{Protocol, Published};
use crate::record::BridgeRecord;
use crate::subnet::Subnet;
use crate::user::UserNetwork;

const BY_ADDRESS: &str = "addresses";
const BY_PORT: &str = "ports";

/// Before connection tracking (NF_IP_PRI_RAW).
const PRIORITY_RAW: i32 = -300;
/// One before the usual priorities of translation, so that the order beside another program's chains is certain.
const PRIORITY_REDIRECT: i32 = -101;
const PRIORITY_MASQUERADE: i32 = 99;

const LOOPBACK: (Ipv4Addr, u8) = (Ipv4Addr::new(127, 0, 0, 0), 8);

/// What the rules depend on.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) bridges: Vec<BridgeRules>,
    pub(crate) guards_forwarding: bool,
}

/// What the rules for one bridge depend on.
#[derive(Clone, Debug)]
pub(crate) struct BridgeRules {
    pub(crate) bridge: String,
    /// The bridge's address.
    pub(crate) gateway: Subnet,
    pub(crate) icc: bool,
    pub(crate) masquerade: bool,
    /// Nothing comes in, nothing goes out.
    pub(crate) internal: bool,
}

/// A published port and where it leads.
pub(crate) type Redirection = (Published, Ipv4Addr);

/// The table, and the socket to change it through.
#[derive(Debug)]
pub(crate) struct Firewall {
    socket: Socket,
    table: String,
}

impl BridgeRules {
    /// Those of the default bridge.
    pub(crate) fn new(config: &Config, record: &BridgeRecord) -> BridgeRules {
        BridgeRules {
            bridge: config.bridge_name(),
            gateway: Subnet { address: record.gateway, prefix: record.prefix },
            icc: config.icc,
            masquerade: config.ip_masq,
            internal: false,
        }
    }

    /// Those of a user's network.
    pub(crate) fn of(network: &UserNetwork) -> BridgeRules {
        BridgeRules {
            bridge: network.bridge.clone(),
            gateway: Subnet { address: network.gateway, prefix: network.subnet.prefix },
            icc: network.icc,
            masquerade: network.masquerade && !network.internal,
            internal: network.internal,
        }
    }
}

impl Firewall {
    pub(crate) fn open(table: String) -> Result<Firewall, NetlinkError> {
        Ok(Firewall { socket: Socket::open(Family::Netfilter)?, table })
    }

    /// Replaces the whole table in one transaction; packets meet the old one or the new one.
    pub(crate) fn replace(&mut self, rules: &Rules, redirections: &[Redirection]) -> Result<(), NetlinkError> {
        let mut change = Transaction::new(&self.table);
        // Creating it first makes deleting it succeed.
        change.create_table();
        change.delete_table();
        change.create_table();
        rules.write(&mut change);
        add(&mut change, redirections);
        change.commit(&mut self.socket)
    }

    pub(crate) fn remove(&mut self) -> Result<(), NetlinkError> {
        let mut change = Transaction::new(&self.table);
        change.create_table();
        change.delete_table();
        change.commit(&mut self.socket)
    }

    pub(crate) fn publish(&mut self, redirections: &[Redirection]) -> Result<(), NetlinkError> {
        let mut change = Transaction::new(&self.table);
        add(&mut change, redirections);
        change.commit(&mut self.socket)
    }

    pub(crate) fn withdraw(&mut self, redirections: &[Redirection]) -> Result<(), NetlinkError> {
        let mut change = Transaction::new(&self.table);
        for (map, elements) in elements(redirections) {
            change.delete_elements(map, &elements);
        }
        change.commit(&mut self.socket)
    }

    /// Forgets the UDP connections that the kernel would go on treating as before these ports came or went.
    pub(crate) fn forget(&mut self, redirections: &[Redirection], local: &[Ipv4Addr]) -> Result<(), NetlinkError> {
        let concerns = |connection: &conntrack::Connection, (published, container): &Redirection| {
            published.protocol == Protocol::Udp
                && connection.port == published.host_port
                && (published.host_address.is_unspecified() || published.host_address == connection.destination)
                && (connection.answered_by == *container
                    || connection.answered_by == connection.destination && local.contains(&connection.destination))
        };
        conntrack::forget_udp(&mut self.socket, |connection| redirections.iter().any(|one| concerns(connection, one)))?;
        Ok(())
    }
}

impl Rules {
    fn write(&self, change: &mut Transaction<'_>) {
        let value = &[Field::Ipv4Address, Field::Port];
        change.create_map(&Map { name: BY_ADDRESS, key: &[Field::Protocol, Field::Ipv4Address, Field::Port], value });
        change.create_map(&Map { name: BY_PORT, key: &[Field::Protocol, Field::Port], value });
        change.create_chain("raw", ChainKind::Filter, Hook::Prerouting, PRIORITY_RAW);
        change.create_chain("forward", ChainKind::Filter, Hook::Forward, 0);
        change.create_chain("masquerade", ChainKind::Nat, Hook::Postrouting, PRIORITY_MASQUERADE);
        write_redirections(change);
        for one in &self.bridges {
            one.write_raw(change);
            one.write_inward(change);
            one.write_masquerade(change);
        }
        // What enters from one bridge and leaves through another one has met that one's drop above.
        for one in &self.bridges {
            let verdict = if one.internal { &DROP } else { &ACCEPT };
            append(change, "forward", &[&rule::interface_in(&one.bridge, true), verdict]);
        }
        if self.guards_forwarding {
            append(change, "forward", &[&DROP]);
        }
    }
}

impl BridgeRules {
    fn write_raw(&self, change: &mut Transaction<'_>) {
        let (entering, other) = (rule::interface_in(&self.bridge, true), rule::interface_in(&self.bridge, false));
        let network = self.gateway.network();
        // The guard: containers could else reach what listens on this machine's loopback (CVE-2020-8558).
        append(change, "raw", &[&entering, &rule::destination_in(LOOPBACK.0, LOOPBACK.1, true), &DROP]);
        append(change, "raw", &[&entering, &rule::source_in(LOOPBACK.0, LOOPBACK.1), &DROP]);
        let to_container = rule::destination_in(network.address, network.prefix, true);
        let not_gateway = rule::destination_in(self.gateway.address, 32, false);
        append(change, "raw", &[&other, &to_container, &not_gateway, &DROP]);
    }

    /// What leaves through the bridge, to its containers.
    fn write_inward(&self, change: &mut Transaction<'_>) {
        let (entering, leaving) = (rule::interface_in(&self.bridge, true), rule::interface_out(&self.bridge, true));
        if !self.internal {
            let known = rule::connection_state(rule::ESTABLISHED_OR_RELATED);
            append(change, "forward", &[&leaving, &known, &ACCEPT]);
            append(change, "forward", &[&leaving, &rule::connection_status(rule::REDIRECTED), &ACCEPT]);
        }
        if self.icc {
            append(change, "forward", &[&entering, &leaving, &ACCEPT]);
        }
        append(change, "forward", &[&leaving, &DROP]);
    }

    fn write_masquerade(&self, change: &mut Transaction<'_>) {
        let leaving = rule::interface_out(&self.bridge, true);
        let network = self.gateway.network();
        let containers = rule::source_in(network.address, network.prefix);
        if self.masquerade {
            let elsewhere = rule::interface_out(&self.bridge, false);
            append(change, "masquerade", &[&containers, &elsewhere, &MASQUERADE]);
        }
        // The answer to one's own published port, or a neighbour's, would else go directly and not be recognised.
        let redirected = rule::connection_status(rule::REDIRECTED);
        append(change, "masquerade", &[&containers, &leaving, &redirected, &MASQUERADE]);
        append(change, "masquerade", &[&rule::source_in(LOOPBACK.0, LOOPBACK.1), &leaving, &MASQUERADE]);
    }
}

const ACCEPT: [Expression; 1] = [Expression::Verdict(Verdict::Accept)];
const DROP: [Expression; 1] = [Expression::Verdict(Verdict::Drop)];
const REDIRECT: [Expression; 1] = [Expression::Redirect];
const MASQUERADE: [Expression; 1] = [Expression::Masquerade];

fn write_redirections(change: &mut Transaction<'_>) {
    let local = rule::to_this_machine();
    for (chain, hook) in [("redirect", Hook::Prerouting), ("output", Hook::Output)] {
        change.create_chain(chain, ChainKind::Nat, hook, PRIORITY_REDIRECT);
        if hook == Hook::Prerouting {
            // From a link nobody may reach what is published on 127.0.0.1, nor the socket that holds the port. The kernel
            // drops these too, where route_localnet is off. This machine's own packets have been through `output`.
            let loopback = rule::destination_in(LOOPBACK.0, LOOPBACK.1, true);
            append(change, chain, &[&loopback, &rule::find_by_address(BY_ADDRESS), &DROP]);
            append(change, chain, &[&loopback, &rule::find_by_port(BY_PORT), &DROP]);
            append(change, chain, &[&loopback, &ACCEPT]);
        }
        append(change, chain, &[&local, &rule::find_by_address(BY_ADDRESS), &REDIRECT]);
        append(change, chain, &[&local, &rule::find_by_port(BY_PORT), &REDIRECT]);
    }
}

fn append(change: &mut Transaction<'_>, chain: &str, parts: &[&[Expression]]) {
    change.append_rule(chain, &parts.concat());
}

fn add(change: &mut Transaction<'_>, redirections: &[Redirection]) {
    for (map, elements) in elements(redirections) {
        change.add_elements(map, &elements);
    }
}

/// The elements for each map.
fn elements(redirections: &[Redirection]) -> [(&'static str, Vec<Element>); 2] {
    let (any, one): (Vec<_>, Vec<_>) = redirections.iter().partition(|(one, _)| one.host_address.is_unspecified());
    let encode = |list: Vec<&Redirection>| list.into_iter().map(element).collect();
    [(BY_ADDRESS, encode(one)), (BY_PORT, encode(any))]
}

fn element((published, container): &Redirection) -> Element {
    let port = |number: u16| [number.to_be_bytes(), [0; 2]].concat();
    let mut key = vec![published.protocol.number(), 0, 0, 0];
    if !published.host_address.is_unspecified() {
        key.extend(published.host_address.octets());
    }
    key.extend(port(published.host_port));
    let mut value = container.octets().to_vec();
    value.extend(port(published.container_port));
    Element { key, value }
}
