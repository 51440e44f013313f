//! Sets, as nft(8) reads them back and as packets meet them.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use netlink::nft::expression::{self as rule, Verdict};
use netlink::nft::set::{Ask, Set, SetElement, SetKind, set_keys};
use netlink::nft::{ChainKind, Expression, Family, Field, Hook, Transaction};
use netlink::{Protocol, Socket, conntrack};

use crate::{in_scratch_namespace, output};

const DEADLINE: Duration = Duration::from_secs(20);

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}

fn expiring(key: [u8; 4], time: Duration) -> SetElement {
    SetElement { timeout: Some(time), ..SetElement::new(key.to_vec()) }
}

#[test]
fn privileged_keys_go_by_themselves() {
    in_scratch_namespace(|| {
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        let mut change = Transaction::new("t");
        change.create_table();
        change.create_set(&Set { name: "s", key: &[Field::Ipv4Address], kind: SetKind::Expiring });
        let hour = Duration::from_secs(3600);
        change.add_to_set("s", &[expiring([10, 0, 0, 1], Duration::from_millis(50)), expiring([10, 0, 0, 2], hour)]);
        change.commit(&mut socket).unwrap();
        let mut keys = || set_keys(&mut socket, Family::Ipv4, "t", "s").unwrap();
        wait_until("one of two keys is gone", || keys().len() == 1);
        let last = keys().remove(0);
        assert_eq!(last.key, [10, 0, 0, 2]);
        assert!(last.timeout.is_some_and(|left| left <= hour && left > hour - DEADLINE), "{last:?}");
        // The new time counts where a key is added, taken out and added again: one that is there, and one that is not.
        let again = [expiring([10, 0, 0, 1], 2 * hour), expiring([10, 0, 0, 2], 2 * hour)];
        let mut change = Transaction::new("t");
        change.add_to_set("s", &again);
        change.delete_from_set("s", &[SetElement::new(vec![10, 0, 0, 1]), SetElement::new(vec![10, 0, 0, 2])]);
        change.add_to_set("s", &again);
        change.commit(&mut socket).unwrap();
        let left = set_keys(&mut socket, Family::Ipv4, "t", "s").unwrap();
        assert!(left.len() == 2 && left.iter().all(|one| one.timeout.is_some_and(|left| left > hour)), "{left:?}");
    });
}

#[test]
fn privileged_sets_are_what_nft_reads() {
    in_scratch_namespace(|| {
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        let mut change = Transaction::new("t");
        change.create_table();
        let key = [Field::Ipv4Address, Field::Protocol, Field::Port];
        change.create_set(&Set { name: "ranges", key: &key, kind: SetKind::Ranges });
        let range = |first: [u8; 4], last: [u8; 4], ports: [u8; 2]| SetElement {
            last: Some([&last[..], &[6, 0, 0, 0, 0, ports[1], 0, 0]].concat()),
            ..SetElement::new([&first[..], &[6, 0, 0, 0, 0, ports[0], 0, 0]].concat())
        };
        let many = (0..1000_u16).map(|at| {
            let [high, low] = at.to_be_bytes();
            range([10, 0, high, low], [10, 0, high, low], [80, 90])
        });
        change.add_to_set("ranges", &many.collect::<Vec<_>>());
        change.add_to_set("ranges", &[range([10, 1, 0, 0], [10, 1, 255, 255], [80, 80])]);
        change.create_set(&Set { name: "names", key: &[Field::InterfaceName], kind: SetKind::Keys });
        change.commit(&mut socket).unwrap();
        let read = output("nft", &["list", "table", "ip", "t"]);
        assert!(read.contains("type ipv4_addr . inet_proto . inet_service") && read.contains("type ifname"), "{read}");
        assert!(read.contains("10.1.0.0/16 . tcp . 80") && read.contains("10.0.3.231 . tcp . 80-90"), "{read}");
        // What overlaps in part is refused, and nothing is changed.
        let mut change = Transaction::new("t");
        change.add_to_set("ranges", &[range([10, 1, 2, 0], [10, 1, 2, 255], [80, 90])]);
        assert!(change.commit(&mut socket).is_err());
        assert_eq!(set_keys(&mut socket, Family::Ipv4, "t", "ranges").unwrap().len(), 1001);
    });
}

/// Drops what the loopback interface gets, at the ports of a set, but for a number of packets.
#[test]
fn privileged_packets_ask_sets_and_limits() {
    in_scratch_namespace(|| {
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        let mut change = Transaction::new("t");
        change.create_table();
        change.create_set(&Set { name: "closed", key: &[Field::Port], kind: SetKind::Keys });
        let kind = SetKind::Dynamic { size: 16, idle: Duration::from_secs(60) };
        change.create_set(&Set { name: "meters", key: &[Field::Ipv4Address], kind });
        change.create_chain("c", ChainKind::Filter, Hook::Input, 0);
        let ask = |ask| Expression::Ask(ask);
        let (accept, drop) = (Expression::Verdict(Verdict::Accept), Expression::Verdict(Verdict::Drop));
        let open = ask(Ask::Lacks { set: "closed".to_owned() });
        change.append_rule("c", &[rule::load_port(0), open, accept.clone()]);
        let few = ask(Ask::Throttle { set: "meters".to_owned(), per_second: 1, burst: 3 });
        change.append_rule("c", &[rule::load_source(Family::Ipv4, 0), few, accept]);
        change.append_rule("c", &[drop]);
        let receivers = [0, 0].map(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
        let [open, closed] = receivers.each_ref().map(|receiver| receiver.local_addr().unwrap());
        change.add_to_set("closed", &[SetElement::new([&closed.port().to_be_bytes()[..], &[0, 0]].concat())]);
        change.commit(&mut socket).unwrap();
        output("nft", &["list", "ruleset"]);
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for to in [open, closed] {
            // What a filter of the sender's own machine drops is no error of his.
            (0..100).for_each(|_| _ = sender.send_to(b"x", to));
        }
        let count = |receiver: &UdpSocket| {
            receiver.set_nonblocking(true).unwrap();
            std::iter::from_fn(|| receiver.recv(&mut [0; 8]).ok()).count()
        };
        assert_eq!(count(&receivers[0]), 100);
        assert!((3..50).contains(&count(&receivers[1])), "the burst, and one a second");
    });
}

#[test]
fn privileged_connections_are_forgotten_by_who_began_them() {
    in_scratch_namespace(|| {
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        let mut change = Transaction::new("t");
        change.create_table();
        // Asking for a connection's state is what has them tracked.
        change.create_chain("c", ChainKind::Filter, Hook::Output, 0);
        change.append_rule("c", &rule::connection_state(rule::ESTABLISHED_OR_RELATED));
        change.commit(&mut socket).unwrap();
        for own in ["127.0.0.1", "127.0.0.2"] {
            UdpSocket::bind((own, 0)).unwrap().send_to(b"x", "127.0.0.3:9").unwrap();
        }
        let begun_by = |address: &str| [address.parse().unwrap()];
        assert_eq!(conntrack::forget_begun_by(&mut socket, &begun_by("127.0.0.9")).unwrap(), 0);
        assert_eq!(conntrack::forget_begun_by(&mut socket, &begun_by("127.0.0.1")).unwrap(), 1);
        assert_eq!(conntrack::forget_begun_by(&mut socket, &begun_by("127.0.0.1")).unwrap(), 0);
        assert_eq!(conntrack::forget_begun_by(&mut socket, &begun_by("127.0.0.2")).unwrap(), 1);
        // A flood costs no request for each.
        let flood = UdpSocket::bind(("127.0.0.4", 0)).unwrap();
        (1000..2000).for_each(|port| _ = flood.send_to(b"x", ("127.0.0.3", port)));
        let sent = netlink::requests_sent();
        assert_eq!(conntrack::forget_begun_by(&mut socket, &begun_by("127.0.0.4")).unwrap(), 1000);
        assert!(netlink::requests_sent() - sent < 20);
        assert_eq!(conntrack::forget_begun_by(&mut socket, &begun_by("127.0.0.4")).unwrap(), 0);
    });
}
