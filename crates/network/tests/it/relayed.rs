//! Ports that no rule leads to their container. The relay is a thread here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::AsFd;

use network::{EndpointRequest, Networks, UserNetworkRequest};

use crate::ipv6::{MACHINE_6, on, on_a_machine_of_both, publish_on, wish};
use crate::lab::*;

/// Networks whose relays are threads of the calling thread's machine.
fn with_relays(lab: &Lab) -> Networks {
    let networks = Networks::open(lab.config()).unwrap();
    let start = |dir: &std::path::Path, socket| {
        let dir = dir.to_owned();
        std::thread::Builder::new().spawn(move || relay::run(&dir, Some(socket)).unwrap()).map(drop)
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
