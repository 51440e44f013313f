//! What the packet filter has of policies: tables of their own, as long as there is an endpoint with one.
//!
//! ```text
//! table bridge longshore-<key>-egress
//!   guard        prerouting: a frame from the port of an endpoint with a policy has one of its own addresses as its source
//!   sets: ports (port), sources (port . address), sources6
//! table ip longshore-<key>-egress, and ip6
//!   egress       prerouting, behind tracking and before redirections: what such an endpoint begins goes to its neighbours, to
//!                what is allowed of addresses, to what its names have led to; the rest is told of and dropped
//!   local        input: what it sends to everybody on its network is not for this machine
//!   beyond       forward: nor for anybody behind it
//!   sets: policed (bridge . source), near (source . addresses), allowed (source . addresses . protocol . ports),
//!         learned (source . address . protocol . port), meters (source)
//! ```
//! Whatever the number of containers, a packet of one without a policy is looked up once in each table. Sources can be believed
//! behind `guard`; connections that others began, and those that were allowed once, go on as answers (`ct state`).
//!
//! `learned` is all that changes while a container lives: its elements go by themselves.

use std::net::IpAddr;
use std::time::Duration;

use netlink::nft::expression::{self as rule, Verdict};
use netlink::nft::set::{Ask, Set, SetElement, SetKind};
use netlink::nft::{ChainKind, Expression, Family, Field, Hook, Transaction};

use super::plan::{Guarded, Opening, of_link};
use super::ways::Way;

/// Behind connection tracking (NF_IP_PRI_CONNTRACK, -200), before redirections: what counts is where a container sends to.
const PRIORITY_EGRESS: i32 = -150;
/// Before br_netfilter shows frames to the other tables (NF_BR_PRI_BRNF, 0), and before other filters of frames.
const PRIORITY_GUARD: i32 = -300;
/// Where filters usually stand.
const PRIORITY_LOCAL: i32 = 0;

/// How many denials of one container, or of one port, are told of in a second, and at once: programs try again and again.
const TOLD_PER_SECOND: u64 = 1;
const TOLD_AT_ONCE: u32 = 16;
/// How many containers are told of at a time, and for how long one is kept that is silent.
const METERS: u32 = 65536;
const METER_IDLE: Duration = Duration::from_secs(60);
/// How much of a packet is told: both headers of IPv6 with room for an extension.
pub(crate) const TOLD_BYTES: u32 = 96;

/// What is told with a packet that no policy allows, and with a frame whose source is another one's.
pub(crate) const DENIED: &str = "egress";
pub(crate) const FORGED: &str = "source";

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Solicitation and advertisement of a neighbour, without which IPv6 reaches no gateway (RFC 4861).
const NEIGHBOURS: [u8; 2] = [135, 136];

const NAME_BYTES: usize = 16;

/// Which tables there are: of IPv4, of IPv6, of frames.
pub(crate) type Tables = [bool; 3];

/// A change of the set `learned`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// Each way with its time from now on.
    Open,
    /// Without them.
    Close,
}

/// The tables that there have to be for these endpoints.
pub(crate) fn needed<'a>(guarded: impl IntoIterator<Item = &'a Guarded>) -> Tables {
    guarded.into_iter().fold([false; 3], |[_, ipv6, _], one| [true, ipv6 || one.has_ipv6(), true])
}

/// Turns a transaction to one of [`Tables`].
pub(crate) fn turn(change: &mut Transaction<'_>, table: usize) {
    match table {
        0 => change.on(Family::Ipv4),
        1 => change.on(Family::Ipv6),
        _ => change.on_bridge(),
    }
}

/// Creates sets, chains and rules in a table that is new. Denials are told to the group.
pub(crate) fn write(change: &mut Transaction<'_>, table: usize, group: Option<u16>) {
    match table {
        0 => write_family(change, Family::Ipv4, group),
        1 => write_family(change, Family::Ipv6, group),
        _ => write_guard(change, group),
    }
}

/// Adds what belongs to an endpoint, or takes it out.
pub(crate) fn endpoint(change: &mut Transaction<'_>, guarded: &Guarded, added: bool) {
    for (table, set, elements) in elements(guarded) {
        turn(change, table);
        match (elements.is_empty(), added) {
            (true, _) => {}
            (false, true) => change.add_to_set(set, &elements),
            (false, false) => change.delete_from_set(set, &elements),
        }
    }
}

/// Adds again what an endpoint has in common with one that goes.
pub(crate) fn again(change: &mut Transaction<'_>, guarded: &Guarded) {
    let common = elements(&Guarded { own: Vec::new(), ..guarded.clone() });
    for (table, set, elements) in common.into_iter().filter(|(table, _, elements)| *table != 2 && !elements.is_empty())
    {
        turn(change, table);
        change.add_to_set(set, &elements);
    }
}

/// Opens or closes ways. One that is there already gets its new time, one that is not there any more is closed without an error:
/// each is added, taken out, and added again, which nobody sees.
pub(crate) fn learned(change: &mut Transaction<'_>, ways: &[(Way, Duration)], what: Learned) {
    for table in [0, 1] {
        let of_table = ways.iter().filter(|(way, _)| way.to.is_ipv6() == (table == 1));
        let elements: Vec<SetElement> =
            of_table.map(|(way, time)| SetElement { timeout: Some(*time), ..SetElement::new(way.key()) }).collect();
        if elements.is_empty() {
            continue;
        }
        let keys: Vec<SetElement> = elements.iter().map(|one| SetElement::new(one.key.clone())).collect();
        turn(change, table);
        change.add_to_set("learned", &elements);
        change.delete_from_set("learned", &keys);
        if what == Learned::Open {
            change.add_to_set("learned", &elements);
        }
    }
}

fn address_field(family: Family) -> Field {
    if family == Family::Ipv4 { Field::Ipv4Address } else { Field::Ipv6Address }
}

/// How many registers an address takes.
fn registers(family: Family) -> u32 {
    if family == Family::Ipv4 { 1 } else { 4 }
}

fn write_family(change: &mut Transaction<'_>, family: Family, group: Option<u16>) {
    let address = address_field(family);
    let meters = SetKind::Dynamic { size: METERS, idle: METER_IDLE };
    for (name, key, kind) in [
        ("policed", &[Field::InterfaceName, address][..], SetKind::Keys),
        ("near", &[address, address], SetKind::Ranges),
        ("allowed", &[address, address, Field::Protocol, Field::Port], SetKind::Ranges),
        ("learned", &[address, address, Field::Protocol, Field::Port], SetKind::Expiring),
        ("meters", &[address], meters),
    ] {
        change.create_set(&Set { name, key, kind });
    }
    change.create_chain("egress", ChainKind::Filter, Hook::Prerouting, PRIORITY_EGRESS);
    change.create_chain("local", ChainKind::Filter, Hook::Input, PRIORITY_LOCAL);
    change.create_chain("beyond", ChainKind::Filter, Hook::Forward, PRIORITY_LOCAL);
    write_egress(change, family, group);
    write_to_everybody(change, family);
}

fn write_egress(change: &mut Transaction<'_>, family: Family, group: Option<u16>) {
    let width = registers(family);
    let mut append = |parts: &[&[Expression]]| change.append_rule("egress", &parts.concat());
    append(&[&policed(family, true, false), &ACCEPT]);
    append(&[&rule::connection_state(rule::ESTABLISHED_OR_RELATED), &ACCEPT]);
    for everybody in to_everybody(family) {
        append(&[&everybody, &ACCEPT]);
    }
    if family == Family::Ipv6 {
        for kind in NEIGHBOURS {
            append(&[&rule::to_this_machine(), &rule::icmpv6_type(kind), &ACCEPT]);
        }
    }
    let ends = [rule::load_source(family, 0), rule::load_destination(family, width)];
    let others = rule::to_others();
    append(&[&others, &ends, &[has("near")], &ACCEPT]);
    let service = [rule::load_protocol(2 * width), rule::load_port(2 * width + 1)];
    append(&[&ends, &service, &[has("allowed")], &ACCEPT]);
    append(&[&others, &ends, &service, &[has("learned")], &ACCEPT]);
    if let Some(group) = group {
        append(&[&[rule::load_source(family, 0)], &tell(group, DENIED)]);
    }
    append(&[&DROP]);
}

/// What goes to everybody on a network goes to nobody else.
fn write_to_everybody(change: &mut Transaction<'_>, family: Family) {
    if family == Family::Ipv6 {
        for kind in NEIGHBOURS {
            change.append_rule("local", &[&rule::icmpv6_type(kind)[..], &ACCEPT].concat());
        }
    }
    if family == Family::Ipv4 {
        // No router passes on what is from an address of the link (RFC 3927, 2.7); of IPv6 the kernel does not.
        let of_link = of_link(IpAddr::from([0; 4]));
        let (source, elsewhere) = (rule::source_in(of_link.address, of_link.prefix), policed(family, false, false));
        change.append_rule("beyond", &[&source, &policed(family, true, true)[..], &elsewhere, &DROP].concat());
    }
    for everybody in to_everybody(family) {
        change.append_rule("local", &[&everybody, &policed(family, true, true)[..], &DROP].concat());
        // Frames that stay on the bridge come by here, too (br_netfilter).
        let elsewhere = policed(family, false, false);
        change.append_rule("beyond", &[&everybody, &policed(family, true, true)[..], &elsewhere, &DROP].concat());
    }
}

/// Destinations that are everybody on a network.
fn to_everybody(family: Family) -> Vec<Vec<Expression>> {
    match family {
        Family::Ipv4 => {
            let group = IpAddr::from([224, 0, 0, 0]);
            vec![rule::destination_in(group, 4, true).to_vec(), rule::to_all().to_vec()]
        }
        Family::Ipv6 => {
            let group = IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]);
            vec![rule::destination_in(group, 8, true).to_vec()]
        }
    }
}

/// Whether a packet that came by a bridge, or leaves by it, is from one of its endpoints with a policy, or is not.
fn policed(family: Family, entering: bool, is: bool) -> [Expression; 3] {
    let set = "policed".to_owned();
    let ask = if is { Ask::Has { set } } else { Ask::Lacks { set } };
    [rule::load_interface(entering, 0), rule::load_source(family, 4), Expression::Ask(ask)]
}

fn write_guard(change: &mut Transaction<'_>, group: Option<u16>) {
    let meters = SetKind::Dynamic { size: METERS, idle: METER_IDLE };
    let port = Field::InterfaceName;
    for (name, key, kind) in [
        ("ports", &[port][..], SetKind::Keys),
        ("sources", &[port, Field::Ipv4Address], SetKind::Keys),
        ("sources6", &[port, Field::Ipv6Address], SetKind::Keys),
        ("meters", &[port], meters),
    ] {
        change.create_set(&Set { name, key, kind });
    }
    change.create_chain("guard", ChainKind::Filter, Hook::Prerouting, PRIORITY_GUARD);
    let mut append = |parts: &[&[Expression]]| change.append_rule("guard", &parts.concat());
    let port = [rule::load_interface(true, 0)];
    let free = Ask::Lacks { set: "ports".to_owned() };
    append(&[&port, &[Expression::Ask(free)], &ACCEPT]);
    append(&[&rule::ethertype(ARP), &ACCEPT]);
    for (number, family, set) in [(IPV4, Family::Ipv4, "sources"), (IPV6, Family::Ipv6, "sources6")] {
        let source = [rule::load_source(family, 4), has(set)];
        append(&[&rule::ethertype(number), &port, &source, &ACCEPT]);
    }
    // Who asks whether an address is free has none yet.
    append(&[&rule::ethertype(IPV6), &rule::unspecified_icmpv6(), &ACCEPT]);
    if let Some(group) = group {
        append(&[&port, &tell(group, FORGED)]);
    }
    append(&[&DROP]);
}

const ACCEPT: [Expression; 1] = [Expression::Verdict(Verdict::Accept)];
const DROP: [Expression; 1] = [Expression::Verdict(Verdict::Drop)];

fn has(set: &str) -> Expression {
    Expression::Ask(Ask::Has { set: set.to_owned() })
}

/// Tells of a packet, unless there were too many with the key in the first registers.
fn tell(group: u16, prefix: &str) -> [Expression; 2] {
    let (set, per_second, burst) = ("meters".to_owned(), TOLD_PER_SECOND, TOLD_AT_ONCE);
    let log = Expression::Log { group, prefix: prefix.to_owned(), bytes: TOLD_BYTES };
    [Expression::Ask(Ask::Throttle { set, per_second, burst }), log]
}

/// All elements of an endpoint: of which table, of which set.
fn elements(guarded: &Guarded) -> Vec<(usize, &'static str, Vec<SetElement>)> {
    let port = interface(&guarded.interface);
    let mut all = vec![(2, "ports", vec![SetElement::new(port.clone())])];
    for (table, sources) in [(0, "sources"), (1, "sources6")] {
        let own = || guarded.own.iter().filter(|own| own.is_ipv6() == (table == 1));
        let of_table = |address: IpAddr| address.is_ipv6() == (table == 1);
        let aside = || guarded.aside.iter().filter(|aside| of_table(**aside));
        let near = || guarded.near.iter().filter(|near| of_table(near.address));
        let openings = || guarded.openings.iter().filter(|opening| of_table(opening.first));
        let key = |parts: &[&[u8]]| SetElement::new(parts.concat());
        let bridge = interface(&guarded.bridge);
        all.extend([
            (2, sources, own().chain(aside()).map(|own| key(&[&port, &octets(*own)])).collect()),
            (table, "policed", own().chain(aside()).map(|own| key(&[&bridge, &octets(*own)])).collect()),
            (
                table,
                "near",
                own()
                    .flat_map(|own| near().map(|near| range(*own, near.network().address, near.last(), &[], &[])))
                    .chain(
                        aside()
                            .map(|own| (of_link(*own), own))
                            .map(|(near, own)| range(*own, near.address, near.last(), &[], &[])),
                    )
                    .collect(),
            ),
            (table, "allowed", own().flat_map(|own| openings().map(|opening| opened(*own, opening))).collect()),
        ]);
    }
    all
}

/// A range of addresses seen from one, with what goes behind the addresses.
fn range(own: IpAddr, first: IpAddr, last: IpAddr, from: &[u8], to: &[u8]) -> SetElement {
    let key = |end: IpAddr, rest: &[u8]| [&octets(own)[..], &octets(end), rest].concat();
    SetElement { last: Some(key(last, to)), ..SetElement::new(key(first, from)) }
}

fn opened(own: IpAddr, opening: &Opening) -> SetElement {
    let ends = |protocol: u8, port: u16| service(protocol, port);
    let (from, to) = (ends(opening.protocols.0, opening.ports.0), ends(opening.protocols.1, opening.ports.1));
    range(own, opening.first, opening.last, &from, &to)
}

/// A protocol and a port, each padded.
pub(super) fn service(protocol: u8, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![protocol, 0, 0, 0, high, low, 0, 0]
}

fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(NAME_BYTES, 0);
    bytes
}

/// In network byte order.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded(own: &[&str]) -> Guarded {
        let policies: Vec<crate::EgressPolicy> =
            vec!["allow=10.0.0.0/8:80-90,allow=example.org:443,allow=[fd00::/8]:53/udp".parse().unwrap()];
        Guarded {
            interface: "v0".to_owned(),
            bridge: "br0".to_owned(),
            own: own.iter().map(|one| one.parse().unwrap()).collect(),
            aside: Vec::new(),
            near: vec!["172.18.0.1/16".parse().unwrap(), "fd01::1/64".parse().unwrap()],
            openings: super::super::plan::openings(&policies),
            policies,
        }
    }

    #[test]
    fn an_endpoint_has_elements_of_its_own_families_alone() {
        let names = |own: &[&str]| {
            let count = |(table, set, elements): (usize, &str, Vec<SetElement>)| match elements.len() {
                0 => None,
                count => Some(format!("{table} {set} {count}")),
            };
            elements(&guarded(own)).into_iter().filter_map(count).collect::<Vec<_>>()
        };
        let ipv4 = ["2 ports 1", "2 sources 1", "0 policed 1", "0 near 1", "0 allowed 1"];
        assert_eq!(names(&["172.18.0.2"]), ipv4);
        let ipv6 = ["2 sources6 2", "1 policed 2", "1 near 2", "1 allowed 2"];
        assert_eq!(names(&["172.18.0.2", "fd01::2", "fe80::2"]), [&ipv4[..], &ipv6].concat());
        assert_eq!(needed([&guarded(&["172.18.0.2"])]), [true, false, true]);
        assert_eq!(needed([&guarded(&["172.18.0.2"]), &guarded(&["fd01::2"])]), [true, true, true]);
        assert_eq!(needed([]), [false; 3]);
    }

    #[test]
    fn ranges_are_written_from_their_first_key_to_their_last() {
        let all = elements(&guarded(&["172.18.0.2"]));
        let of = |wanted: &str| {
            let mut found = all.iter().filter(|(table, set, _)| *table == 0 && *set == wanted);
            found.next().unwrap().2[0].clone()
        };
        let own = [172, 18, 0, 2];
        assert_eq!(of("near").key, [own, [172, 18, 0, 0]].concat());
        assert_eq!(of("near").last.unwrap(), [own, [172, 18, 255, 255]].concat());
        assert_eq!(of("allowed").key, [own, [10, 0, 0, 0], [6, 0, 0, 0], [0, 80, 0, 0]].concat());
        assert_eq!(of("allowed").last.unwrap(), [own, [10, 255, 255, 255], [6, 0, 0, 0], [0, 90, 0, 0]].concat());
    }
}
