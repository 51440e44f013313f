//! The process without its loop: who is waited for when.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use super::*;

fn open(links_max: usize) -> (tempfile::TempDir, Relay) {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay { links_max, ..Relay::open(dir.path()).unwrap() };
    (dir, relay)
}

/// A server, and a port that leads there.
fn port(relay: &mut Relay, id: &str) -> (TcpListener, SocketAddr) {
    let [server, port] = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let address = port.local_addr().unwrap();
    let rule = Rule { id: id.to_owned(), udp: false, target: server.local_addr().unwrap(), range: None };
    relay.put(rule, Some(port.into())).unwrap();
    (server, address)
}

/// What the kernel tells now.
fn told(relay: &Relay) -> Vec<u64> {
    let mut events = Vec::with_capacity(EVENTS);
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    epoll::wait(&relay.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now)).unwrap();
    events.into_iter().map(|event| event.data.u64()).collect()
}

/// Does what there is to do until nothing is told any more.
fn rest(relay: &mut Relay) {
    for _ in 0..1000 {
        let told = told(relay);
        if told.is_empty() {
            return;
        }
        told.into_iter().for_each(|number| relay.handle(number));
    }
    panic!("it never rests");
}

#[test]
fn a_port_that_comes_while_it_is_full_waits_without_a_spin() {
    let (_dir, mut relay) = open(1);
    let (server, first) = port(&mut relay, "a");
    let _client = TcpStream::connect(first).unwrap();
    rest(&mut relay);
    let _more = TcpStream::connect(first).unwrap();
    rest(&mut relay);
    assert!(relay.full && relay.links.len() == 1);
    let (other_server, second) = port(&mut relay, "b");
    let _waiting = TcpStream::connect(second).unwrap();
    assert_eq!(told(&relay), [0; 0]);
    // It is its turn when there is room.
    let link = *relay.links.keys().next().unwrap();
    relay.close(link);
    rest(&mut relay);
    assert_eq!(relay.links.len(), 1);
    drop((server, other_server));
}

#[test]
fn one_port_takes_half_of_all_connections_where_there_are_others() {
    let (_dir, mut relay) = open(4);
    let (_server, first) = port(&mut relay, "a");
    let (_other_server, second) = port(&mut relay, "b");
    let _greedy = [(); 6].map(|()| TcpStream::connect(first).unwrap());
    rest(&mut relay);
    assert_eq!(relay.links.len(), 2);
    let _modest = [(); 2].map(|()| TcpStream::connect(second).unwrap());
    rest(&mut relay);
    assert_eq!((relay.links.len(), relay.rules["b"].links), (4, 2));
    // The next one's turn comes when one of its own has ended.
    let listener = relay.rules["a"].number;
    let of_first = |relayed: &Relayed| relayed.listener == listener;
    let link = *relay.links.iter().find(|(_, relayed)| of_first(relayed)).unwrap().0;
    relay.close(link);
    rest(&mut relay);
    assert_eq!((relay.rules["a"].links, relay.rules["b"].links), (2, 2));
}

#[test]
fn where_the_kernel_has_no_room_nothing_is_asked_for_a_while() {
    let (dir, mut relay) = open(4);
    let (_server, address) = port(&mut relay, "a");
    let _client = TcpStream::connect(address).unwrap();
    let _daemon = crate::Client::find(dir.path()).unwrap().unwrap();
    assert_eq!(told(&relay).len(), 2);
    relay.pause();
    assert_eq!(told(&relay), [0; 0]);
    relay.resume_at = Some(Instant::now());
    let mut events = Vec::with_capacity(EVENTS);
    relay.wait(&mut events).unwrap();
    assert_eq!((events.len(), relay.resume_at), (2, None));
}

#[test]
fn a_port_that_cannot_be_put_anew_is_served_as_before() {
    let (_dir, mut relay) = open(4);
    let (server, address) = port(&mut relay, "a");
    let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let rule = Rule { id: "a".to_owned(), udp: false, target: elsewhere, range: None };
    // epoll(7) watches no regular file.
    let file = tempfile::tempfile().unwrap();
    relay.put(rule, Some(file.into())).unwrap_err();
    let _client = TcpStream::connect(address).unwrap();
    rest(&mut relay);
    server.set_nonblocking(true).unwrap();
    server.accept().unwrap();
    assert_eq!(relay.rules["a"].rule.target, server.local_addr().unwrap());
    // Nor is anything left of one that was never served.
    let rule = Rule { id: "b".to_owned(), udp: false, target: elsewhere, range: None };
    let numbers = relay.sources.len();
    relay.put(rule, Some(tempfile::tempfile().unwrap().into())).unwrap_err();
    assert_eq!((relay.rules.len(), relay.sources.len()), (1, numbers));
}
