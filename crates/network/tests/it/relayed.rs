//! Ports that no rule leads to their container. The relay is a thread here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use network::{Config, EndpointRequest, Joined, Networks, PortRequest, Protocol, UserNetworkRequest};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::ipv6::{MACHINE_6, on, on_a_machine_of_both, publish_on, wish};
use crate::lab::*;

/// Networks whose relays are threads of the calling thread's machine.
fn with_relays(lab: &Lab) -> Networks {
    with_relays_and(lab.config())
}

fn with_relays_and(config: Config) -> Networks {
    let networks = Networks::open(config).unwrap();
    let start = |dir: &std::path::Path, socket| {
        let dir = dir.to_owned();
        std::thread::Builder::new()
            .spawn(move || relay::run(&dir, Some(socket), std::time::Duration::ZERO).unwrap())
            .map(drop)
    };
    network::start_relays_by(&networks, Box::new(start));
    networks
}

fn is_relayed(lab: &Lab) -> bool {
    relay::Client::find(&lab.config().state_dir.join("relay")).unwrap().is_some()
}

#[test]
fn privileged_the_relay_leads_where_rules_do_not() {
    on_a_machine_of_both(|lab| {
        let networks = with_relays(&lab);
        networks.reconcile(&[]).unwrap();
        let both = networks.create(wish("a", "10.7.0.0/24", "fd07::/64")).unwrap();
        let alone = UserNetworkRequest { without_ipv4: true, ..wish("b", "", "fd08::/64") };
        let alone = networks.create(alone).unwrap();
        let one = networks.join(&request_on("one", &[publish_on(Ipv6Addr::LOCALHOST, 8080)], on(&[&both.id]))).unwrap();
        let two = networks.join(&request_on("two", &[publish(Some(HOME), 8081, 80)], on(&[&alone.id]))).unwrap();
        let three = networks.join(&request("three", &[publish_on(Ipv6Addr::UNSPECIFIED, 8082)])).unwrap();
        assert!(one.holds.is_empty() && two.holds.is_empty() && three.holds.is_empty(), "the relay has them");
        let servers = [listen_on_ipv6(&one, 80), listen_on_ipv6(&two, 80), listen(&three, 80)];
        reach(&servers[0], Ipv6Addr::LOCALHOST, 8080).map(drop).unwrap_or_else(|err| panic!("[::1]: {err}"));
        for (server, address, port) in [
            (&servers[1], IpAddr::from(HOME), 8081),
            (&servers[2], Ipv6Addr::LOCALHOST.into(), 8082),
            (&servers[2], MACHINE_6.into(), 8082),
        ] {
            std::net::TcpStream::connect_timeout(&(address, port).into(), DEADLINE).unwrap();
            server.accept().unwrap();
        }
        inside(lab.second.as_fd(), || std::net::TcpStream::connect_timeout(&(MACHINE_6, 8082).into(), DEADLINE))
            .unwrap();
        assert!(servers[2].accept().unwrap().1.ip().is_ipv4());
        // Gone without a word: the relay goes on, and the next daemon has nothing to do but for those who ended.
        drop(networks);
        let networks = with_relays(&lab);
        networks.reconcile(&["one", "three"]).unwrap();
        TcpListener::bind((HOME, 8081)).unwrap();
        std::net::TcpStream::connect_timeout(&(Ipv6Addr::LOCALHOST, 8082).into(), DEADLINE).unwrap();
        servers[2].accept().unwrap();
        networks.leave("one").unwrap();
        TcpListener::bind((Ipv6Addr::LOCALHOST, 8080)).unwrap();
        assert!(is_relayed(&lab));
        networks.leave("three").unwrap();
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, 8082)).unwrap();
        wait_until("the relay has ended", || !is_relayed(&lab));
    });
}

#[test]
fn privileged_relayed_ports_follow_the_network_that_leads_outward() {
    on_a_machine_of_both(|lab| {
        let networks = with_relays(&lab);
        let network = |name: &str| {
            networks.create(UserNetworkRequest { name: name.to_owned(), ..UserNetworkRequest::default() }).unwrap()
        };
        let (a, b) = (network("a"), network("b"));
        let ports = [publish_on(Ipv6Addr::LOCALHOST, 8080)];
        let one = networks.join(&request_on("one", &ports, on(&[&b.id]))).unwrap();
        let server = listen(&one, 80);
        let reached = || {
            let _client = std::net::TcpStream::connect_timeout(&(Ipv6Addr::LOCALHOST, 8080).into(), DEADLINE).unwrap();
            match server.accept().unwrap().0.local_addr().unwrap().ip() {
                IpAddr::V4(address) => address,
                IpAddr::V6(address) => address.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED),
            }
        };
        let of = |place: &network::Place, id: &str| place.on(id).unwrap().ipv4.unwrap().address;
        assert_eq!(reached(), of(&one.place, &b.id));
        let wanted = request_on("one", &ports, vec![EndpointRequest::on(&a.id)]);
        let place = networks.connect(&wanted, one.namespace.as_fd()).unwrap();
        assert_eq!(reached(), of(&place, &a.id), "the first name leads");
        // As a later daemon, which has no socket.
        drop(networks);
        let networks = with_relays(&lab);
        networks.reconcile(&["one"]).unwrap();
        let place = networks.disconnect("one", &a.id, Some(one.namespace.as_fd())).unwrap().unwrap();
        assert_eq!(reached(), of(&place, &b.id));
        networks.leave("one").unwrap();
        wait_until("the relay has ended", || !is_relayed(&lab));
    });
}

fn shown(place: &network::Place) -> Vec<String> {
    place.ports.iter().map(|one| SocketAddr::new(one.host_address, one.host_port).to_string()).collect()
}

/// Connects from the calling thread's network, and answers by which of its addresses the container is reached.
fn led_to(server: &TcpListener, address: impl Into<IpAddr>, port: u16) -> IpAddr {
    let _client = TcpStream::connect_timeout(&(address.into(), port).into(), DEADLINE).unwrap();
    server.accept().unwrap().0.local_addr().unwrap().ip()
}

/// Networks whose relay does not understand what it is to end, which is passed on by somebody in between.
fn with_a_deaf_relay(lab: &Lab) -> Networks {
    let networks = Networks::open(lab.config()).unwrap();
    let start = |dir: &std::path::Path, daemon: OwnedFd| {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let dir = dir.to_owned();
        std::thread::spawn(move || relay::run(&dir, Some(theirs), Duration::ZERO).unwrap());
        std::thread::spawn(move || {
            let (mut bytes, mut fds) = (vec![0; 1 << 18], Vec::new());
            while let Ok(length @ 1..) = sys::socket::receive(daemon.as_fd(), &mut bytes, &mut fds) {
                if bytes[..length].starts_with(b"{\"Remove") {
                    sys::socket::send(daemon.as_fd(), b"what?", &[]).unwrap();
                    continue;
                }
                let passed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                sys::socket::send(ours.as_fd(), &bytes[..length], &passed).unwrap();
                fds.clear();
                let length = sys::socket::receive(ours.as_fd(), &mut bytes, &mut Vec::new()).unwrap();
                sys::socket::send(daemon.as_fd(), &bytes[..length], &[]).unwrap();
            }
        });
        Ok(())
    };
    network::start_relays_by(&networks, Box::new(start));
    networks
}

#[test]
fn privileged_a_relay_that_does_not_answer_holds_up_nobody_who_has_no_port_of_its() {
    on_a_machine_of_both(|lab| {
        let networks = with_relays_and(lab.config());
        let (asked, is_asked) = std::sync::mpsc::channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stopped);
        // As one that is stopped: it has its questions, and no answer.
        let start = move |_: &std::path::Path, socket: OwnedFd| {
            if ended.load(Ordering::Relaxed) {
                return Err(std::io::ErrorKind::Unsupported.into());
            }
            asked.send(socket).unwrap();
            Ok(())
        };
        network::start_relays_by(&networks, Box::new(start));
        networks.join(&request("zero", &[publish(Some(HOME), 8000, 80)])).unwrap();
        std::thread::scope(|scope| {
            let stuck = scope.spawn(|| networks.join(&request("stuck", &[publish_on(Ipv6Addr::LOCALHOST, 8080)])));
            let relay = is_asked.recv_timeout(DEADLINE).unwrap();
            for round in 0..3 {
                let ports = [publish(Some(HOME), 8081, 80)];
                let one = networks.join(&request("one", &ports)).unwrap();
                networks.leave("one").unwrap();
                drop(one);
                assert!(!stuck.is_finished(), "round {round} has waited for the relay");
            }
            networks.leave("zero").unwrap();
            networks.create(wish("a", "10.7.0.0/24", "fd07::/64")).unwrap();
            assert!(!stuck.is_finished());
            stopped.store(true, Ordering::Relaxed);
            drop(relay);
            assert!(stuck.join().unwrap().is_err());
        });
        assert!(networks.place("stuck").is_none());
        TcpListener::bind((Ipv6Addr::LOCALHOST, 8080)).unwrap();
    });
}

#[test]
fn privileged_a_container_leaves_a_network_whatever_the_relay_says() {
    on_a_machine_of_both(|lab| {
        let networks = with_a_deaf_relay(&lab);
        let network = |name: &str, internal: bool| {
            let request = UserNetworkRequest { name: name.to_owned(), internal, ..UserNetworkRequest::default() };
            networks.create(request).unwrap()
        };
        let (outer, inner) = (network("outer", false), network("inner", true));
        let ports = [publish(None, 8080, 80)];
        let one = networks.join(&request_on("one", &ports, on(&[&outer.id, &inner.id]))).unwrap();
        assert_eq!(one.place.ports.len(), 2, "one of them is relayed");
        let place = networks.disconnect("one", &outer.id, Some(one.namespace.as_fd())).unwrap().unwrap();
        assert_eq!((place.ports.len(), place.endpoints.len()), (0, 1));
        // Nobody has an address of it any more.
        networks.remove(&outer.id).unwrap();
        drop(networks);
        let networks = with_relays(&lab);
        networks.reconcile(&["one"]).unwrap();
        assert_eq!(networks.place("one").unwrap(), place);
    });
}

#[test]
fn privileged_containers_of_ipv4_alone_are_published_on_all_of_ipv6() {
    on_a_machine_of_both(|lab| {
        let networks = with_relays(&lab);
        networks.reconcile(&[]).unwrap();
        let ports = [publish(None, 8080, 80), publish(None, 0, 81), publish(Some(HOME), 8082, 82)];
        let datagrams = PortRequest { protocol: Protocol::Udp, ..publish(None, 8053, 53) };
        let sctp = PortRequest { protocol: Protocol::Sctp, ..publish(None, 8054, 54) };
        let all = [ports.as_slice(), &[datagrams, sctp]].concat();
        let one = networks.join(&request("one", &all)).unwrap();
        let any = one.place.ports.iter().find(|port| port.container_port == 81).unwrap().host_port;
        let mut expected =
            ["0.0.0.0:8053", "[::]:8053", "0.0.0.0:8054", "0.0.0.0:8080", "[::]:8080"].map(str::to_owned).to_vec();
        expected.extend(["127.0.0.1:8082".to_owned(), format!("0.0.0.0:{any}"), format!("[::]:{any}")]);
        assert_eq!(shown(&one.place), expected, "both at one port, IPv4 first; nobody relays SCTP");
        let server = listen(&one, 80);
        let own = IpAddr::from(one.place.endpoints[0].ipv4.unwrap().address);
        for address in [IpAddr::from(Ipv6Addr::LOCALHOST), MACHINE_6.into(), HOME.into(), MACHINE.into()] {
            assert_eq!(led_to(&server, address, 8080), own, "{address}");
        }
        for address in [IpAddr::from(MACHINE_6), MACHINE.into()] {
            assert_eq!(inside(lab.second.as_fd(), || led_to(&server, address, 8080)), own, "{address}");
        }
        // Not what is published on one address.
        assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, 8082)).is_err());
        let answerer = bind_udp(&one, 53);
        let client = inside(lab.second.as_fd(), || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap());
        client.connect((MACHINE_6, 8053)).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.send(b"question").unwrap();
        let (_, from) = answerer.recv_from(&mut [0; 16]).unwrap();
        answerer.send_to(b"answer", from).unwrap();
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 6);
        // What somebody has is told before anything is there.
        let taken = networks.join(&request("two", &[publish(None, 8080, 80)])).unwrap_err();
        assert!(errdefs::chain(&taken).ends_with("Bind for 0.0.0.0:8080 failed: port is already allocated"));
        let held = TcpListener::bind((MACHINE_6, 8090)).unwrap();
        let taken = networks.join(&request("two", &[publish(None, 8090, 80)])).unwrap_err();
        let own = "failed to bind host port for [::]:8090:172.17.0.3:80/tcp: address already in use";
        assert!(errdefs::chain(&taken).ends_with(own), "{}", errdefs::chain(&taken));
        drop((held, TcpListener::bind((MACHINE, 8090)).unwrap()));
        // The next daemon changes nothing, and what ends goes.
        drop(networks);
        let networks = with_relays(&lab);
        networks.reconcile(&["one"]).unwrap();
        assert_eq!(shown(&networks.place("one").unwrap()), expected);
        led_to(&server, Ipv6Addr::LOCALHOST, 8080);
        networks.leave("one").unwrap();
        TcpListener::bind((MACHINE_6, 8080)).unwrap();
        wait_until("the relay has ended", || !is_relayed(&lab));
    });
}

#[test]
fn privileged_who_wants_no_proxy_or_another_address_has_no_port_of_ipv6() {
    on_a_machine_of_both(|lab| {
        for (config, address) in [
            (Config { userland_proxy: false, ..lab.config() }, "0.0.0.0:8080"),
            (Config { host_address: HOME, ..lab.config() }, "127.0.0.1:8080"),
        ] {
            let networks = with_relays_and(config.clone());
            let joined = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
            assert_eq!(shown(&joined.place), [address]);
            networks.leave("one").unwrap();
            let named = networks.join(&request("one", &[publish_on(Ipv6Addr::UNSPECIFIED, 8080)])).unwrap();
            // As dockerd: nothing, without a word.
            let wanted: &[&str] = if config.userland_proxy { &["[::]:8080"] } else { &[] };
            assert_eq!(shown(&named.place), wanted);
            networks.leave("one").unwrap();
            let binding = "com.docker.network.bridge.host_binding_ipv4".to_owned();
            let bound = UserNetworkRequest {
                name: "n".to_owned(),
                options: [(binding, MACHINE.to_string())].into(),
                ..UserNetworkRequest::default()
            };
            let bound = networks.create(bound).unwrap();
            let joined = networks.join(&request_on("one", &[publish(None, 8080, 80)], on(&[&bound.id]))).unwrap();
            assert_eq!(shown(&joined.place), [format!("{MACHINE}:8080")]);
            networks.leave("one").unwrap();
            networks.remove(&bound.id).unwrap();
            networks.close().unwrap();
        }
    });
}

#[test]
fn privileged_all_of_ipv6_is_whose_network_has_it() {
    on_a_machine_of_both(|lab| {
        let networks = with_relays(&lab);
        let old = UserNetworkRequest { with_ipv6: false, ..wish("b", "10.8.0.0/24", "") };
        let old = networks.create(old).unwrap();
        let both = networks.create(wish("a", "10.7.0.0/24", "fd07::/64")).unwrap();
        let ports = [publish(None, 8080, 80), publish(None, 0, 81)];
        let one = networks.join(&request_on("one", &ports, on(&[&old.id]))).unwrap();
        let here = one.namespace.as_fd();
        let (server, server_6) = (listen(&one, 80), listen_on_ipv6(&one, 80));
        let before = shown(&one.place);
        assert_eq!((before.len(), &before[..2]), (4, &["0.0.0.0:8080".to_owned(), "[::]:8080".to_owned()][..]));
        let from_outside = |server: &TcpListener| inside(lab.second.as_fd(), || led_to(server, MACHINE_6, 8080));
        assert_eq!(from_outside(&server).to_string(), "10.8.0.2");
        // By rules as soon as they can, at the same ports, and by the relay again.
        for _ in 0..2 {
            let place = networks.connect(&request_on("one", &ports, on(&[&both.id])), here).unwrap();
            assert_eq!(shown(&place), before);
            assert_eq!(from_outside(&server_6).to_string(), "fd07::2");
            let place = networks.disconnect("one", &both.id, Some(here)).unwrap().unwrap();
            assert_eq!(shown(&place), before);
            assert_eq!(from_outside(&server).to_string(), "10.8.0.2");
            led_to(&server, Ipv6Addr::LOCALHOST, 8080);
        }
        networks.leave("one").unwrap();
        // One that had it from the beginning, whose port of IPv6 is the relay's all along.
        let two = networks.join(&request_on("two", &ports[..1], on(&[&both.id, &old.id]))).unwrap();
        let server = listen(&two, 80);
        let place = networks.disconnect("two", &both.id, Some(two.namespace.as_fd())).unwrap().unwrap();
        assert_eq!((shown(&place), two.holds.len()), (before[..2].to_vec(), 1));
        assert_eq!(from_outside(&server), IpAddr::from(place.endpoints[0].ipv4.unwrap().address));
        led_to(&server, Ipv6Addr::LOCALHOST, 8080);
        networks.leave("two").unwrap();
        wait_until("the relay has ended", || !is_relayed(&lab));
    });
}

fn range(first: u16, last: u16) -> Vec<PortRequest> {
    (first..=last).map(|port| publish(None, port, port)).collect()
}

fn join_timed(networks: &Networks, container: &str, ports: &[PortRequest]) -> (Joined, Duration) {
    let begun = std::time::Instant::now();
    let joined = networks.join(&request(container, ports)).unwrap();
    (joined, begun.elapsed())
}

#[test]
fn privileged_a_thousand_ports_are_published_on_both_families_at_once() {
    on_a_machine_of_both(|lab| {
        // Two sockets each.
        rustix::process::setrlimit(
            rustix::process::Resource::Nofile,
            rustix::process::Rlimit { current: Some(16384), maximum: Some(16384) },
        )
        .unwrap();
        let ports = range(20_000, 20_999);
        for (userland_proxy, published) in [(false, 1000), (true, 2000)] {
            let networks = with_relays_and(Config { userland_proxy, ..lab.config() });
            for _ in 0..2 {
                let (joined, took) = join_timed(&networks, "many", &ports);
                assert_eq!(joined.place.ports.len(), published);
                let begun = std::time::Instant::now();
                networks.leave("many").unwrap();
                println!("{published}: {took:?} to join, {:?} to leave", begun.elapsed());
            }
            networks.close().unwrap();
        }
        let networks = with_relays(&lab);
        let (many, _) = join_timed(&networks, "many", &ports);
        let (more, _) = join_timed(&networks, "more", &range(21_000, 21_499));
        for (joined, port) in [(&many, 20_000), (&many, 20_999), (&more, 21_499)] {
            let server = listen(joined, port);
            led_to(&server, Ipv6Addr::LOCALHOST, port);
            inside(lab.second.as_fd(), || led_to(&server, MACHINE_6, port));
        }
        // All of them are the next daemon's.
        drop(networks);
        let networks = with_relays(&lab);
        networks.reconcile(&["many"]).unwrap();
        let mut client = relay::Client::find(&lab.config().state_dir.join("relay")).unwrap().unwrap();
        let served: Vec<_> = client.list().unwrap().into_iter().map(|rule| rule.id).collect();
        assert_eq!(served, ["tcp [::]:20000-20999"]);
        TcpListener::bind((MACHINE_6, 21_000)).unwrap();
        networks.leave("many").unwrap();
        TcpListener::bind((MACHINE_6, 20_500)).unwrap();
        drop(client);
        wait_until("the relay has ended", || !is_relayed(&lab));
    });
}

#[test]
fn privileged_loopback_leads_to_containers_that_have_ipv6_themselves() {
    on_a_machine_of_both(|lab| {
        let networks = with_relays(&lab);
        networks.reconcile(&[]).unwrap();
        let both = networks.create(wish("a", "10.7.0.0/24", "fd07::/64")).unwrap();
        let datagrams = PortRequest { protocol: Protocol::Udp, ..publish(None, 8053, 53) };
        let sctp = PortRequest { protocol: Protocol::Sctp, ..publish(None, 8054, 54) };
        let ports = [publish(None, 8080, 80), datagrams, sctp];
        let one = networks.join(&request_on("one", &ports, on(&[&both.id]))).unwrap();
        let server = listen_on_ipv6(&one, 80);
        let own = IpAddr::V6(one.place.endpoints[0].ipv6.unwrap().address);
        assert_eq!(led_to(&server, Ipv6Addr::LOCALHOST, 8080), own);
        // From elsewhere by rules: the client is seen.
        let client = inside(lab.second.as_fd(), || reach(&server, MACHINE_6, 8080)).unwrap();
        assert_eq!(client.ip(), IpAddr::V6(crate::ipv6::NEIGHBOUR_6));
        reach(&server, MACHINE_6, 8080).unwrap();
        let by_rules = network::port_accesses(&networks, "one");
        assert!(by_rules.iter().all(|access| !access.relayed), "{by_rules:?}");
        let answerer = inside(one.namespace.as_fd(), || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 53)).unwrap());
        answerer.set_read_timeout(Some(DEADLINE)).unwrap();
        let client = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        client.connect((Ipv6Addr::LOCALHOST, 8053)).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.send(b"question").unwrap();
        let (_, from) = answerer.recv_from(&mut [0; 16]).unwrap();
        answerer.send_to(b"answer", from).unwrap();
        assert_eq!(client.recv(&mut [0; 16]).unwrap(), 6);
        // The next daemon has it so, too.
        drop(networks);
        let networks = with_relays(&lab);
        networks.reconcile(&["one"]).unwrap();
        reach(&server, Ipv6Addr::LOCALHOST, 8080).unwrap();
        networks.leave("one").unwrap();
        TcpListener::bind((MACHINE_6, 8080)).unwrap();
        wait_until("the relay has ended", || !is_relayed(&lab));
        networks.close().unwrap();
        // Without a relay whoever tries it first goes on at once.
        let networks = with_relays_and(Config { userland_proxy: false, ..lab.config() });
        let one = networks.join(&request_on("one", &[publish(None, 8081, 80)], on(&[&both.id]))).unwrap();
        let server = listen_on_ipv6(&one, 80);
        let refused = TcpStream::connect((Ipv6Addr::LOCALHOST, 8081)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        reach(&server, MACHINE_6, 8081).unwrap();
    });
}
