//! Netlink against the kernel, in scratch network namespaces; nft(8) reads back what our encoder wrote.
#![allow(clippy::unwrap_used)]

mod sets;

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use netlink::nft::expression::{self as rule, Verdict};
use netlink::nft::{ChainKind, Element, Expression, Family, Field, Hook, Map, Transaction};
use netlink::{NetlinkError, Protocol, Socket, address, conntrack, link, neighbour, nft, route};
use rustix::thread::UnshareFlags;

/// Runs `test` on a thread in a network namespace of its own, which goes with the thread.
fn in_scratch_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
        sys::network::loopback_up().unwrap();
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn own_namespace() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn bridge(socket: &mut Socket, name: &str) -> link::Link {
    let mac = [2, 0, 0, 0, 0, 1];
    let create = link::create_bridge(&link::Bridge { name, mac, mtu: 1400 });
    socket.apply(vec![create, link::without_link_local(name), link::set_up(name)]).unwrap();
    link::by_name(socket, name).unwrap().unwrap()
}

#[test]
fn privileged_a_bridge_has_what_was_asked_for() {
    in_scratch_namespace(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        assert_eq!(link::by_name(&mut socket, "ls0").unwrap(), None);
        let found = bridge(&mut socket, "ls0");
        assert_eq!(
            (found.kind.as_str(), found.mac, found.mtu, found.up),
            ("bridge", Some([2, 0, 0, 0, 0, 1]), 1400, true)
        );
        let gateway = address::Address { index: found.index, address: Ipv4Addr::new(172, 17, 0, 1).into(), prefix: 16 };
        // Twice: having the address is no error.
        socket.apply(vec![address::add(gateway), address::add(gateway)]).unwrap();
        assert!(address::list(&mut socket).unwrap().contains(&gateway));
        let mac = [2, 0, 0, 0, 0, 9];
        socket.apply(vec![neighbour::set(found.index, Ipv4Addr::new(172, 17, 0, 2).into(), mac)]).unwrap();
        assert!(output("ip", &["neigh"]).contains("172.17.0.2 dev ls0 lladdr 02:00:00:00:00:09"));
        assert!(output("ip", &["addr", "show", "ls0"]).contains("inet 172.17.0.1/16 brd 172.17.255.255"));
        let routes = route::list(&mut socket).unwrap();
        let own = route::Destination { address: Ipv4Addr::new(172, 17, 0, 0).into(), prefix: 16 };
        assert_eq!(routes, [own]);
        let names: Vec<_> = link::list(&mut socket, None).unwrap().into_iter().map(|link| link.name).collect();
        assert!(names.contains(&"lo".to_owned()) && names.contains(&"ls0".to_owned()), "{names:?}");
        socket.apply(vec![link::delete("ls0")]).unwrap();
        assert_eq!(link::by_name(&mut socket, "ls0").unwrap(), None);
    });
}

#[test]
fn privileged_a_veth_pair_reaches_into_another_namespace() {
    in_scratch_namespace(|| {
        let mut host = Socket::open(Protocol::Route).unwrap();
        let found = bridge(&mut host, "ls0");
        let (inside, mut guest) = std::thread::spawn(|| {
            sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
            (own_namespace(), Socket::open(Protocol::Route).unwrap())
        })
        .join()
        .unwrap();
        let pair = link::VethPair {
            name: "vtest",
            master: found.index,
            mtu: 1400,
            peer_name: "eth0",
            peer_namespace: inside.as_fd(),
        };
        let before = netlink::requests_sent();
        host.apply(vec![link::create_veth(&pair), link::without_link_local("vtest"), link::set_up("vtest")]).unwrap();
        guest.apply(vec![link::set_up("eth0")]).unwrap();
        let eth0 = link::by_name(&mut guest, "eth0").unwrap().unwrap();
        assert!(netlink::requests_sent() >= before + 3);
        let inner = address::Address { index: eth0.index, address: Ipv4Addr::new(172, 17, 0, 2).into(), prefix: 16 };
        let mac = [2, 0, 0, 0, 0, 7];
        let requests = vec![
            address::add(inner),
            link::set_mac(eth0.index, mac),
            route::set_default(Ipv4Addr::new(172, 17, 0, 1).into()),
        ];
        guest.apply(requests).unwrap();
        let ports = link::list(&mut host, Some(found.index)).unwrap();
        assert_eq!(ports.len(), 1);
        assert_eq!((ports[0].name.as_str(), ports[0].kind.as_str(), ports[0].mtu), ("vtest", "veth", 1400));
        assert_eq!(link::by_name(&mut guest, "eth0").unwrap().unwrap().mac, Some(mac));
        assert!(route::list(&mut guest).unwrap().iter().any(|route| route.prefix == 0));
        // Coming up enables a port, when the kernel gets to it.
        let deadline = Instant::now() + Duration::from_secs(20);
        while !output("ip", &["-d", "link", "show", "vtest"]).contains("state UP") {
            assert!(Instant::now() < deadline, "the veth pair has no carrier");
        }
        host.apply(vec![link::isolate_port("vtest", ports[0].index), link::disable_port("vtest", ports[0].index)])
            .unwrap();
        let shown = output("ip", &["-d", "link", "show", "vtest"]);
        assert!(shown.contains("isolated on") && shown.contains("state disabled"), "{shown}");
        assert!(!output("ip", &["-6", "addr", "show", "dev", "vtest"]).contains("fe80"));
    });
}

#[test]
fn privileged_the_refused_request_of_a_batch_is_named() {
    in_scratch_namespace(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        bridge(&mut socket, "ls0");
        let again = link::create_bridge(&link::Bridge { name: "ls0", mac: [2, 0, 0, 0, 0, 2], mtu: 1500 });
        let refused = socket.apply(vec![link::set_up("lo"), again, link::set_up("ls0")]).unwrap_err();
        assert_eq!(refused.to_string(), "create bridge ls0");
        assert_eq!(refused.kind(), errdefs::ErrorKind::AlreadyExists);
        // The socket is in step with the kernel again.
        assert!(link::by_name(&mut socket, "lo").unwrap().is_some());
        let refused = socket.apply(vec![link::set_up("nosuch"), link::set_up("lo")]).unwrap_err();
        assert_eq!(refused.to_string(), "bring up nosuch");
        assert!(matches!(refused, NetlinkError::Refused { source, .. } if source.is_missing()));
    });
}

fn element(port: u16, address: [u8; 4]) -> Element {
    let mut key = vec![6, 0, 0, 0];
    key.extend(port.to_be_bytes());
    key.extend([0, 0]);
    let mut value = address.to_vec();
    value.extend([0, 80, 0, 0]);
    Element::new(key, value)
}

fn table(socket: &mut Socket) {
    let mut change = Transaction::new("longshore-test");
    change.create_table();
    change.create_map(&Map {
        name: "ports",
        key: &[Field::Protocol, Field::Port],
        value: &[Field::Ipv4Address, Field::Port],
        ranges: false,
    });
    change.create_map(&Map {
        name: "addresses",
        key: &[Field::Protocol, Field::Ipv4Address, Field::Port],
        value: &[Field::Ipv4Address, Field::Port],
        ranges: false,
    });
    change.create_chain("prerouting", ChainKind::Nat, Hook::Prerouting, -101);
    change.create_chain("forward", ChainKind::Filter, Hook::Forward, 0);
    change.create_chain("postrouting", ChainKind::Nat, Hook::Postrouting, 99);
    let local = rule::to_this_machine();
    change.append_rule(
        "prerouting",
        &[
            &local[..],
            &rule::find_by_address("addresses", Family::Ipv4),
            &[Expression::Redirect { family: Family::Ipv4 }],
        ]
        .concat(),
    );
    change.append_rule(
        "prerouting",
        &[&local[..], &rule::find_by_port("ports"), &[Expression::Redirect { family: Family::Ipv4 }]].concat(),
    );
    let accept = [Expression::Verdict(Verdict::Accept)];
    change.append_rule(
        "forward",
        &[&rule::interface_out("ls0", true)[..], &rule::connection_state(rule::ESTABLISHED_OR_RELATED), &accept]
            .concat(),
    );
    change.append_rule("forward", &[&rule::connection_status(rule::REDIRECTED)[..], &accept].concat());
    change.append_rule(
        "forward",
        &[
            &rule::destination_in(Ipv4Addr::new(172, 17, 0, 1).into(), 32, false)[..],
            &[Expression::Verdict(Verdict::Drop)],
        ]
        .concat(),
    );
    let subnet = rule::source_in(Ipv4Addr::new(172, 17, 0, 0).into(), 16);
    change.append_rule(
        "postrouting",
        &[&subnet[..], &rule::interface_out("ls0", false), &[Expression::Masquerade]].concat(),
    );
    change.commit(socket).unwrap();
}

#[test]
fn privileged_nft_reads_what_the_encoder_wrote() {
    in_scratch_namespace(|| {
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        assert!(!nft::table_exists(&mut socket, Family::Ipv4, "longshore-test").unwrap());
        table(&mut socket);
        assert!(nft::table_exists(&mut socket, Family::Ipv4, "longshore-test").unwrap());
        let shown = output("nft", &["list", "ruleset"]);
        for line in [
            "type inet_proto . inet_service : ipv4_addr . inet_service",
            "type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service",
            "type nat hook prerouting priority dstnat - 1; policy accept;",
            "fib daddr type local dnat ip to meta l4proto . ip daddr . th dport map @addresses",
            "fib daddr type local dnat ip to meta l4proto . th dport map @ports",
            "oifname \"ls0\" ct state established,related accept",
            "ct status dnat accept",
            "ip daddr != 172.17.0.1 drop",
            "ip saddr 172.17.0.0/16 oifname != \"ls0\" masquerade",
        ] {
            assert!(shown.contains(line), "{line}\n in\n{shown}");
        }
    });
}

#[test]
fn privileged_a_transaction_is_whole_or_nothing() {
    in_scratch_namespace(|| {
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        table(&mut socket);
        let (one, two) = (element(8080, [172, 17, 0, 2]), element(8081, [172, 17, 0, 3]));
        let mut change = Transaction::new("longshore-test");
        change.add_elements("ports", std::slice::from_ref(&one));
        change.commit(&mut socket).unwrap();
        let shown = output("nft", &["list", "map", "ip", "longshore-test", "ports"]);
        assert!(shown.contains("tcp . 8080 : 172.17.0.2 . 80"), "{shown}");
        let mut change = Transaction::new("longshore-test");
        change.add_elements("ports", std::slice::from_ref(&two));
        change.delete_elements("ports", &[element(1, [0; 4])]);
        let refused = change.commit(&mut socket).unwrap_err();
        assert_eq!(refused.to_string(), "delete elements of nft map ports");
        assert_eq!(
            nft::elements(&mut socket, Family::Ipv4, "longshore-test", "ports").unwrap(),
            std::slice::from_ref(&one)
        );
        let mut change = Transaction::new("longshore-test");
        change.add_elements("ports", std::slice::from_ref(&two));
        change.delete_elements("ports", &[one]);
        change.commit(&mut socket).unwrap();
        assert_eq!(nft::elements(&mut socket, Family::Ipv4, "longshore-test", "ports").unwrap(), [two]);
        let many: Vec<_> = (1..=3000).map(|port| element(port, [172, 17, 0, 4])).collect();
        let mut change = Transaction::new("longshore-test");
        change.add_elements("ports", &many);
        change.commit(&mut socket).unwrap();
        assert_eq!(nft::elements(&mut socket, Family::Ipv4, "longshore-test", "ports").unwrap().len(), 3001);
        Transaction::new("longshore-test").commit(&mut socket).unwrap();
        let refused = conntrack::forget_udp(&mut socket, |_| true).unwrap();
        assert_eq!(refused, 0);
    });
}

#[test]
fn privileged_a_refusal_of_the_whole_transaction_does_not_hang() {
    in_scratch_namespace(|| {
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        let mut change = Transaction::new("longshore-test");
        change.delete_table();
        assert_eq!(change.commit(&mut socket).unwrap_err().to_string(), "delete nft table longshore-test");
        table(&mut socket);
        let mut change = Transaction::new("longshore-test");
        change.delete_table();
        change.commit(&mut socket).unwrap();
        assert!(!nft::table_exists(&mut socket, Family::Ipv4, "longshore-test").unwrap());
    });
}

const LAN: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x17, 0, 0, 0, 0, 0, 0);

fn on_lan(last: u16) -> std::net::IpAddr {
    Ipv6Addr::from_bits(LAN.to_bits() | u128::from(last)).into()
}

#[test]
fn privileged_addresses_and_routes_of_ipv6_are_there_at_once() {
    in_scratch_namespace(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let found = bridge(&mut socket, "ls0");
        let own = address::Address { index: found.index, address: on_lan(1), prefix: 64 };
        let mac = [2, 0, 0, 0, 0, 9];
        let requests = vec![
            address::add(own),
            address::add(own),
            route::set_default(on_lan(2)),
            route::set_default(on_lan(3)),
            neighbour::set(found.index, on_lan(3), mac),
        ];
        socket.apply(requests).unwrap();
        let addresses = address::list(&mut socket).unwrap();
        assert!(addresses.contains(&own), "{addresses:?}");
        let shown = output("ip", &["-6", "addr", "show", "dev", "ls0"]);
        assert!(shown.contains("fd00:17::1/64 scope global nodad") && !shown.contains("tentative"), "{shown}");
        let routes = route::list(&mut socket).unwrap();
        for (address, prefix) in [(LAN, 64), (Ipv6Addr::UNSPECIFIED, 0)] {
            let wanted = route::Destination { address: address.into(), prefix };
            assert_eq!(routes.iter().filter(|route| **route == wanted).count(), 1, "{wanted:?} {routes:?}");
        }
        assert!(output("ip", &["-6", "route"]).contains("default via fd00:17::3"));
        assert!(output("ip", &["-6", "neigh"]).contains("fd00:17::3 dev ls0 lladdr 02:00:00:00:00:09 REACHABLE"));
    });
}

#[test]
fn privileged_a_map_of_ranges_is_split_in_one_transaction() {
    in_scratch_namespace(|| {
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        table(&mut socket);
        let mut change = Transaction::new("longshore-test");
        let (key, value) = (&[Field::Protocol, Field::Port][..], &[Field::Ipv4Address][..]);
        change.create_map(&Map { name: "ranges", key, value, ranges: true });
        let redirect = [Expression::RedirectAddress { family: Family::Ipv4 }];
        change.append_rule("prerouting", &[&rule::find_by_port("ranges")[..], &redirect].concat());
        let key = |port: u16| [&[6, 0, 0, 0], &port.to_be_bytes()[..], &[0; 2]].concat();
        let range = |first, last| Element { last: Some(key(last)), ..Element::new(key(first), vec![172, 17, 0, 2]) };
        let whole = range(20_000, 20_999);
        change.add_elements("ranges", std::slice::from_ref(&whole));
        change.commit(&mut socket).unwrap();
        let all = nft::elements(&mut socket, Family::Ipv4, "longshore-test", "ranges").unwrap();
        assert_eq!(all, std::slice::from_ref(&whole));
        let mut change = Transaction::new("longshore-test");
        change.delete_elements("ranges", &[whole]);
        change.add_elements("ranges", &[range(20_000, 20_004), range(20_006, 20_999)]);
        change.commit(&mut socket).unwrap();
        let shown = output("nft", &["list", "table", "ip", "longshore-test"]);
        for line in [
            "type inet_proto . inet_service : ipv4_addr",
            "tcp . 20000-20004 : 172.17.0.2",
            "tcp . 20006-20999 : 172.17.0.2",
            "dnat to meta l4proto . th dport map @ranges",
        ] {
            assert!(shown.contains(line), "{line}\n{shown}");
        }
    });
}

#[test]
fn privileged_a_table_of_ipv6_changes_with_that_of_ipv4() {
    in_scratch_namespace(|| {
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        table(&mut socket);
        let mut change = Transaction::new("longshore-test");
        change.delete_table();
        change.on(Family::Ipv6);
        change.create_table();
        let value = &[Field::Ipv6Address, Field::Port];
        let key = &[Field::Protocol, Field::Ipv6Address, Field::Port];
        change.create_map(&Map { name: "addresses", key, value, ranges: false });
        change.create_map(&Map { name: "ports", key: &[Field::Protocol, Field::Port], value, ranges: false });
        change.create_chain("prerouting", ChainKind::Nat, Hook::Prerouting, -101);
        change.create_chain("postrouting", ChainKind::Nat, Hook::Postrouting, 99);
        let redirect = [Expression::Redirect { family: Family::Ipv6 }];
        let local = rule::to_this_machine();
        let by_address = rule::find_by_address("addresses", Family::Ipv6);
        change.append_rule("prerouting", &[&local[..], &by_address, &redirect].concat());
        change.append_rule("prerouting", &[&local[..], &rule::find_by_port("ports"), &redirect].concat());
        let containers = rule::source_in(on_lan(0), 61);
        let drop = [Expression::Verdict(Verdict::Drop)];
        let gateway = rule::destination_in(on_lan(1), 128, false);
        change.append_rule("prerouting", &[&gateway[..], &drop].concat());
        change.append_rule("postrouting", &[&containers[..], &[Expression::Masquerade]].concat());
        change.create_chain("output", ChainKind::Filter, Hook::Output, 0);
        change
            .append_rule("output", &[&rule::is_tcp()[..], &rule::find_by_port("ports"), &[Expression::Reset]].concat());
        let mut one = Element::new(vec![6, 0, 0, 0, 0x1f, 0x90, 0, 0], vec![]);
        one.value.extend(LAN.octets());
        one.value.extend([0, 80, 0, 0]);
        change.add_elements("ports", std::slice::from_ref(&one));
        change.commit(&mut socket).unwrap();
        assert!(!nft::table_exists(&mut socket, Family::Ipv4, "longshore-test").unwrap());
        assert_eq!(nft::elements(&mut socket, Family::Ipv6, "longshore-test", "ports").unwrap(), [one]);
        let shown = output("nft", &["list", "ruleset"]);
        for line in [
            "table ip6 longshore-test",
            "type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service",
            "tcp . 8080 : fd00:17:: . 80",
            "fib daddr type local dnat ip6 to meta l4proto . ip6 daddr . th dport map @addresses",
            "fib daddr type local dnat ip6 to meta l4proto . th dport map @ports",
            "ip6 daddr != fd00:17::1 drop",
            "ip6 saddr fd00:17::/61 masquerade",
            "reject with tcp reset",
        ] {
            assert!(shown.contains(line), "{line}\n in\n{shown}");
        }
    });
}

#[test]
fn privileged_a_link_on_top_of_another_one_is_in_its_namespace_alone() {
    in_scratch_namespace(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        socket.apply(vec![link::create_loose_pair("a", "b"), link::set_up("a"), link::set_up("b")]).unwrap();
        let macvlan = link::Upper::Macvlan { mode: 1 };
        assert!(link::is_known(&mut socket, macvlan).unwrap());
        let lower = link::by_name(&mut socket, "a").unwrap().unwrap().index;
        let (namespace, mut inside) = std::thread::spawn(|| {
            sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
            (own_namespace(), Socket::open(Protocol::Route).unwrap())
        })
        .join()
        .unwrap();
        let before = link::list(&mut socket, None).unwrap();
        socket.apply(vec![link::create_upper("eth0", lower, namespace.as_fd(), macvlan)]).unwrap();
        assert_eq!(link::list(&mut socket, None).unwrap(), before);
        let found = link::by_name(&mut inside, "eth0").unwrap().unwrap();
        assert_eq!((found.kind.as_str(), found.up), ("macvlan", false));
        let mac = [2, 0, 0, 0, 0, 9];
        inside.apply(vec![link::set_mac(found.index, mac), link::set_up("eth0")]).unwrap();
        let found = link::by_name(&mut inside, "eth0").unwrap().unwrap();
        assert_eq!((found.mac.map(link::text).as_deref(), found.up), (Some("02:00:00:00:00:09"), true));
        inside.apply(vec![route::set_default_through(found.index, Ipv4Addr::new(10, 0, 0, 1).into())]).unwrap();
        assert!(route::list(&mut inside).unwrap().iter().any(|to| to.prefix == 0 && to.address.is_ipv4()));
        inside.apply(vec![link::delete_number(found.index)]).unwrap();
        assert_eq!(link::by_name(&mut inside, "eth0").unwrap(), None);
    });
}
