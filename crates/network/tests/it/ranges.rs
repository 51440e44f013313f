//! Ports one after the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use network::{Joined, Networks, PortChange, PortRequest, republish};

use crate::lab::*;

fn change(networks: &Networks, before: Vec<PortRequest>, after: Vec<PortRequest>) {
    republish(networks, &PortChange { container: "one".to_owned(), name: "one".to_owned(), before, after }).unwrap();
}

/// The ranges that the packet filter has, without spaces around them.
fn ranges() -> Vec<String> {
    let listed = run(&["nft", "list", "map", "ip", "longshore-0123abcd", "port-ranges"]);
    let elements = listed.split_once("elements = {").map_or("", |(_, elements)| elements.split('}').next().unwrap());
    let mut ranges: Vec<String> =
        elements.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect();
    ranges.sort();
    ranges
}

#[test]
fn privileged_a_range_is_one_element_and_is_split_where_a_port_goes() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let some = |ports: &[u16]| ports.iter().map(|port| publish(None, *port, *port)).collect::<Vec<_>>();
        let all: Vec<u16> = (20_000..20_100).collect();
        let joined = networks.join(&request("one", &some(&all))).unwrap();
        let address = joined.place.endpoints[0].ipv4.unwrap().address;
        assert_eq!(ranges(), [format!("tcp . 20000-20099 : {address}")]);
        let reached = |port: u16| {
            let server = listen(&joined, port);
            inside(lab.second.as_fd(), || reach(&server, MACHINE, port)).unwrap();
            reach(&server, HOME, port).unwrap();
        };
        [20_000, 20_050, 20_099].into_iter().for_each(reached);
        let rest: Vec<u16> = all.iter().copied().filter(|port| *port != 20_050).collect();
        change(&networks, some(&all), some(&rest));
        assert_eq!(ranges(), [format!("tcp . 20000-20049 : {address}"), format!("tcp . 20051-20099 : {address}")]);
        [20_049, 20_051].into_iter().for_each(reached);
        assert!(inside(lab.second.as_fd(), || is_unreachable(MACHINE, 20_050)));
        // Another's, in the gap.
        let other = networks.join(&request("two", &some(&[20_050]))).unwrap();
        let server = listen(&other, 20_050);
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 20_050)).unwrap();
        networks.leave("two").unwrap();
        change(&networks, some(&rest), some(&all));
        assert_eq!(ranges(), [format!("tcp . 20000-20099 : {address}")]);
        // The next daemon writes the same.
        std::mem::forget(networks);
        let networks = lab.networks_with(&["one"]);
        assert_eq!(ranges(), [format!("tcp . 20000-20099 : {address}")]);
        networks.leave("one").unwrap();
        assert!(ranges().is_empty());
    });
}

/// What relays are started by, on a thread each.
type Start = fn(&std::path::Path, OwnedFd) -> std::io::Result<()>;

fn start(dir: &std::path::Path, socket: OwnedFd) -> std::io::Result<()> {
    let dir = dir.to_owned();
    let serve = move || relay::run(&dir, Some(socket), std::time::Duration::ZERO).unwrap();
    std::thread::Builder::new().spawn(serve).map(drop)
}

/// A relay that may not have the kernel lead many ports to one socket.
fn start_without_ranges(dir: &std::path::Path, socket: OwnedFd) -> std::io::Result<()> {
    let dir = dir.to_owned();
    let serve = move || {
        sys::capability::set(Default::default(), Default::default(), Default::default()).unwrap();
        relay::run(&dir, Some(socket), std::time::Duration::ZERO).unwrap();
    };
    std::thread::Builder::new().spawn(serve).map(drop)
}

fn with_relays(lab: &Lab, alive: &[&str], start: Start) -> Networks {
    let networks = Networks::open(lab.config()).unwrap();
    network::start_relays_by(&networks, Box::new(start));
    networks.reconcile(alive).unwrap();
    networks
}

/// How many rules the relay has; none where there is none.
fn rules(lab: &Lab) -> Vec<String> {
    let relay = relay::Client::find(&lab.config().state_dir.join("relay")).unwrap();
    let rules = relay.map(|mut relay| relay.list().unwrap()).unwrap_or_default();
    rules.into_iter().map(|rule| rule.id).collect()
}

fn requests(ports: impl IntoIterator<Item = u16>) -> Vec<PortRequest> {
    ports.into_iter().map(|port| publish(None, port, port)).collect()
}

/// Connects to ports of [::1] and of 127.0.0.1.
fn all_lead(joined: &Joined, ports: &[u16]) {
    for port in ports {
        let server = listen(joined, *port);
        for host in [IpAddr::from(Ipv6Addr::LOCALHOST), Ipv4Addr::LOCALHOST.into()] {
            let _client = TcpStream::connect_timeout(&(host, *port).into(), DEADLINE).unwrap();
            server.accept().unwrap();
        }
    }
}

fn is_refused(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv6Addr::LOCALHOST, port)), DEADLINE).is_err()
}

fn both_are_free(port: u16) -> bool {
    let ipv6 = rustix::net::socket(rustix::net::AddressFamily::INET6, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::sockopt::set_ipv6_v6only(&ipv6, true).unwrap();
    rustix::net::sockopt::set_socket_reuseaddr(&ipv6, true).unwrap();
    rustix::net::bind(&ipv6, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).is_ok()
        && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

fn all_are_held(ports: std::ops::Range<u16>) -> bool {
    ports.into_iter().all(|port| {
        [IpAddr::from(Ipv6Addr::UNSPECIFIED), Ipv4Addr::UNSPECIFIED.into()]
            .into_iter()
            .all(|host| TcpListener::bind((host, port)).is_err())
    })
}

/// Whether somebody listens to all of these by both families. Whoever tries to bind them would be in the way of who is about to.
fn all_are_listened_to(ports: std::ops::Range<u16>) -> bool {
    ["tcp", "tcp6"].into_iter().all(|family| {
        let sockets = std::fs::read_to_string(format!("/proc/thread-self/net/{family}")).unwrap();
        // sl, local address, remote address, state: 0A is listening (proc_pid_net(5)).
        let listening = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            let (local, state) = (words.next()?, words.nth(1)?);
            u16::from_str_radix(local.rsplit(':').next()?, 16).ok().filter(|_| state == "0A")
        };
        let listening: std::collections::HashSet<u16> = sockets.lines().filter_map(listening).collect();
        ports.clone().all(|port| listening.contains(&port))
    })
}

#[test]
fn privileged_a_range_of_a_thousand_ports_is_served_by_one_socket() {
    on_a_machine(|lab| {
        let networks = with_relays(&lab, &[], start);
        let joined = networks.join(&request("one", &[])).unwrap();
        change(&networks, Vec::new(), requests(20_000..21_000));
        assert_eq!(rules(&lab), ["tcp [::]:20000-20999"]);
        all_lead(&joined, &[20_000, 20_500, 20_999]);
        // Whoever comes later finds the ports taken.
        wait_until("the ports are held", || all_are_listened_to(20_000..21_000));
        assert!(all_are_held(20_000..21_000));
        all_lead(&joined, &[20_001]);
        // One goes, and what is led by the others goes on.
        let server = listen(&joined, 20_501);
        let mut client = TcpStream::connect((Ipv6Addr::LOCALHOST, 20_501)).unwrap();
        let mut served = server.accept().unwrap().0;
        let rest = || (20_000..21_000).filter(|port| *port != 20_500);
        change(&networks, requests(20_000..21_000), requests(rest()));
        assert_eq!(rules(&lab), ["tcp [::]:20000-20499", "tcp [::]:20501-20999"]);
        assert!(is_refused(20_500) && both_are_free(20_500));
        std::io::Write::write_all(&mut client, b"x").unwrap();
        std::io::Read::read_exact(&mut served, &mut [0; 1]).unwrap();
        drop((server, client, served));
        all_lead(&joined, &[20_000, 20_499, 20_501, 20_999]);
        wait_until("the ports are held", || all_are_listened_to(20_501..21_000));
        assert!(all_are_held(20_501..21_000));
        // The next daemon finds it so, and puts the port back.
        drop(networks);
        let networks = with_relays(&lab, &["one"], start);
        all_lead(&joined, &[20_000, 20_499, 20_501, 20_999]);
        let both = [20_000..20_500, 20_501..21_000];
        wait_until("the ports are held again", || both.iter().cloned().all(all_are_listened_to));
        assert!(both.into_iter().all(all_are_held));
        change(&networks, requests(rest()), requests(20_000..21_000));
        assert_eq!(rules(&lab), ["tcp [::]:20000-20999"]);
        all_lead(&joined, &[20_000, 20_500, 20_501, 20_999]);
        // A short one is a socket for each port.
        change(&networks, requests(20_000..21_000), requests(20_000..20_003));
        assert_eq!(rules(&lab).len(), 3);
        all_lead(&joined, &[20_000, 20_002]);
        change(&networks, requests(20_000..20_003), requests(20_000..20_100));
        assert_eq!(rules(&lab), ["tcp [::]:20000-20099"]);
        all_lead(&joined, &[20_000, 20_002, 20_099]);
        networks.leave("one").unwrap();
        assert!((20_000..21_000).all(both_are_free) && is_refused(20_000));
        wait_until("the relay has ended", || rules(&lab).is_empty());
    });
}

#[test]
fn privileged_where_the_relay_may_not_steer_each_port_has_a_socket() {
    on_a_machine(|lab| {
        let networks = with_relays(&lab, &[], start_without_ranges);
        let joined = networks.join(&request("one", &requests(20_000..20_100))).unwrap();
        assert_eq!(rules(&lab).len(), 100);
        assert!(all_are_held(20_000..20_100));
        all_lead(&joined, &[20_000, 20_050, 20_099]);
        networks.leave("one").unwrap();
        assert!((20_000..20_100).all(both_are_free));
    });
}

#[test]
fn privileged_a_port_of_a_range_that_another_program_has_is_named() {
    for start in [start as Start, start_without_ranges] {
        on_a_machine(move |lab| {
            let networks = with_relays(&lab, &[], start);
            let joined = networks.join(&request("one", &[])).unwrap();
            for (theirs, host) in [
                (SocketAddr::from((Ipv4Addr::LOCALHOST, 20_300)), "0.0.0.0"),
                (SocketAddr::from((Ipv6Addr::LOCALHOST, 20_300)), "[::]"),
                (SocketAddr::from((Ipv4Addr::UNSPECIFIED, 20_999)), "0.0.0.0"),
            ] {
                let _theirs = TcpListener::bind(theirs).unwrap();
                let refused = republish(
                    &networks,
                    &PortChange {
                        container: "one".to_owned(),
                        name: "one".to_owned(),
                        before: Vec::new(),
                        after: requests(20_000..21_000),
                    },
                );
                let port = theirs.port();
                let text = errdefs::chain(&refused.unwrap_err());
                let address = joined.place.endpoints[0].ipv4.unwrap().address;
                let ending =
                    format!("failed to bind host port for {host}:{port}:{address}:{port}/tcp: address already in use");
                assert!(text.ends_with(&ending), "{text}");
                assert!((20_000..20_300).all(both_are_free), "nothing is left of it");
            }
            change(&networks, Vec::new(), requests(20_000..21_000));
            all_lead(&joined, &[20_300]);
            // And what is ours already is told as before.
            networks.join(&request("two", &[])).unwrap();
            let refused = networks.join(&request("three", &requests(20_950..21_050)));
            let text = errdefs::chain(&refused.unwrap_err());
            assert!(text.ends_with("Bind for 0.0.0.0:20950 failed: port is already allocated"), "{text}");
        });
    }
}
