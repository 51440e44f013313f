//! Links between containers that are else strangers.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;

use network::{Config, EndpointRequest, JoinRequest, Joined, Networks, Protocol};

use crate::lab::*;
use crate::reach::on_machines_with_and_without_bridge_filter;

fn strangers(lab: &Lab) -> Networks {
    Networks::open(Config { icc: false, ..lab.config() }).unwrap()
}

fn exposing(container: &str, port: u16) -> JoinRequest {
    JoinRequest { exposed: vec![(Protocol::Tcp, port), (Protocol::Udp, port)], ..request(container, &[]) }
}

fn linking(container: &str, to: &str) -> JoinRequest {
    JoinRequest { links: vec![to.to_owned()], ..request(container, &[]) }
}

fn address(joined: &Joined) -> Ipv4Addr {
    joined.place.endpoints[0].ipv4.unwrap().address
}

fn reaches(from: &Joined, server: &TcpListener, to: &Joined, port: u16) {
    let client = inside(from.namespace.as_fd(), || reach(server, address(to), port)).unwrap();
    assert_eq!(client.ip(), address(from), "the server sees who it is");
}

fn is_shut(from: &Joined, to: &Joined, port: u16) -> bool {
    inside(from.namespace.as_fd(), || is_unreachable(address(to), port))
}

#[test]
fn privileged_a_link_opens_exposed_ports_and_nothing_else() {
    on_machines_with_and_without_bridge_filter(|lab| {
        let networks = strangers(&lab);
        networks.reconcile(&[]).unwrap();
        let db = networks.join(&exposing("db", 80)).unwrap();
        let (served, hidden) = (listen(&db, 80), listen(&db, 81));
        let other = networks.join(&request("other", &[])).unwrap();
        assert!(is_shut(&other, &db, 80));
        let web = networks.join(&linking("web", "db")).unwrap();
        let back = listen(&web, 80);
        reaches(&web, &served, &db, 80);
        assert!(is_shut(&web, &db, 81), "what is not exposed");
        assert!(is_shut(&db, &web, 80), "the other way round");
        assert!(is_shut(&other, &db, 80) && is_shut(&other, &web, 80), "who has no link");
        // Datagrams, both ways.
        let (asks, answers) = (bind_udp(&web, 5000), bind_udp(&db, 80));
        asks.send_to(b"?", (address(&db), 80)).unwrap();
        let (_, client) = answers.recv_from(&mut [0; 8]).unwrap();
        answers.send_to(b"!", client).unwrap();
        asks.recv_from(&mut [0; 8]).unwrap();
        drop((back, hidden));
    });
}

#[test]
fn privileged_links_follow_their_containers_and_outlive_the_daemon() {
    on_machines_with_and_without_bridge_filter(|lab| {
        let networks = strangers(&lab);
        networks.reconcile(&[]).unwrap();
        let first = networks.join(&exposing("db", 80)).unwrap();
        let web = networks.join(&linking("web", "db")).unwrap();
        let old = address(&first);
        networks.leave("db").unwrap();
        drop(first);
        let wanted = EndpointRequest { ipv4: Some(old), ..EndpointRequest::on(network::DEFAULT) };
        let thief = networks.join(&JoinRequest { endpoints: vec![wanted], ..exposing("thief", 80) }).unwrap();
        let _stolen = listen(&thief, 80);
        assert!(is_shut(&web, &thief, 80), "the address is another container's");
        let db = networks.join(&exposing("db", 80)).unwrap();
        let server = listen(&db, 80);
        reaches(&web, &server, &db, 80);
        // The next daemon has them again, with whatever somebody flushed meanwhile.
        kill(networks, 3);
        run(&["nft", "delete", "table", "ip", "longshore-0123abcd"]);
        let networks = strangers(&lab);
        networks.reconcile(&["db", "web", "thief"]).unwrap();
        reaches(&web, &server, &db, 80);
        assert!(is_shut(&web, &thief, 80));
        network::set_links(&networks, "web", Vec::new()).unwrap();
        assert!(is_shut(&web, &db, 80), "the link was taken away");
    });
}
