//! A relay on a thread of the test, between sockets of the loopback interface.
#![allow(clippy::unwrap_used)]

mod ranges;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::thread::JoinHandle;
use std::time::Duration;

use relay::{AskError, Client, Rule};

const DEADLINE: Duration = Duration::from_secs(20);

/// A relay, and the daemon's connection to it.
fn start(dir: &std::path::Path) -> (Client, JoinHandle<std::io::Result<()>>) {
    start_lingering(dir, Duration::ZERO)
}

fn start_lingering(dir: &std::path::Path, linger: Duration) -> (Client, JoinHandle<std::io::Result<()>>) {
    let (client, theirs) = Client::pair().unwrap();
    let dir = dir.to_owned();
    (client, std::thread::spawn(move || relay::run(&dir, Some(theirs), linger)))
}

fn rule(id: &str, target: SocketAddr) -> Rule {
    Rule { id: id.to_owned(), udp: false, target, range: None }
}

/// The container's server, and a port that is to lead there.
fn server() -> (TcpListener, SocketAddr) {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = server.local_addr().unwrap();
    (server, address)
}

fn port() -> (TcpListener, SocketAddr) {
    let port = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let address = port.local_addr().unwrap();
    (port, address)
}

/// A timeout is no end.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(length) => length == 0,
        Err(err) => err.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn connected(server: &TcpListener, port: SocketAddr) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect_timeout(&port, DEADLINE).unwrap();
    let served = server.accept().unwrap().0;
    for stream in [&client, &served] {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
    }
    (client, served)
}

#[test]
fn bytes_and_ends_pass_in_both_directions() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, relay) = start(dir.path());
    let ((server, target), (held, port)) = (server(), port());
    daemon.put(&rule("a", target), Some(held.as_fd())).unwrap();
    let (mut client, mut served) = connected(&server, port);
    client.write_all(b"question").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut heard = String::new();
    served.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "question");
    // The other direction is open still.
    served.write_all(b"answer").unwrap();
    drop(served);
    heard.clear();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "answer");
    assert!(daemon.remove("a").unwrap(), "the last one");
    relay.join().unwrap().unwrap();
    assert!(Client::find(dir.path()).unwrap().is_none());
}

#[test]
fn who_does_not_read_holds_up_the_writer_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, relay) = start(dir.path());
    let ((server, target), (held, port)) = (server(), port());
    daemon.put(&rule("a", target), Some(held.as_fd())).unwrap();
    let (mut client, served) = connected(&server, port);
    client.set_nonblocking(true).unwrap();
    let piece = vec![7; 1 << 20];
    let mut sent = 0;
    // Until pipes and sockets are full.
    let deadline = std::time::Instant::now() + DEADLINE;
    let mut quiet = 0;
    while quiet < 200 {
        match client.write(&piece) {
            Ok(length) => (sent, quiet) = (sent + length, 0),
            Err(_) => {
                quiet += 1;
                std::thread::yield_now();
            }
        }
        assert!(sent < 64 << 20 && std::time::Instant::now() < deadline, "{sent} bytes are kept by somebody");
    }
    let (mut other, mut other_served) = connected(&server, port);
    other.write_all(b"x").unwrap();
    other_served.read_exact(&mut [0; 1]).unwrap();
    // It all comes when it is read.
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    (&served).read_to_end(&mut heard).unwrap();
    assert_eq!(heard.len(), sent);
    daemon.remove("a").unwrap();
    relay.join().unwrap().unwrap();
}

#[test]
fn a_rule_that_changes_or_goes_takes_its_connections_along() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, relay) = start(dir.path());
    let ((first, to_first), (second, to_second)) = (server(), server());
    let ((held, port), (other_held, other_port)) = (port(), port());
    daemon.put(&rule("a", to_first), Some(held.as_fd())).unwrap();
    daemon.put(&rule("b", to_first), Some(other_held.as_fd())).unwrap();
    let ((mut client, _served), (mut stays, mut served)) = (connected(&first, port), connected(&first, other_port));
    // A later daemon finds it, and has no socket.
    drop(daemon);
    let mut daemon = Client::find(dir.path()).unwrap().unwrap();
    assert_eq!(daemon.list().unwrap(), [rule("a", to_first), rule("b", to_first)]);
    daemon.put(&rule("a", to_second), None).unwrap();
    assert!(is_closed(&mut client));
    connected(&second, port);
    assert!(daemon.put(&rule("c", to_second), None).is_err(), "no socket");
    assert!(!daemon.remove("a").unwrap() && !daemon.remove("never was").unwrap());
    drop(held);
    assert!(TcpStream::connect_timeout(&port, DEADLINE).is_err());
    stays.write_all(b"x").unwrap();
    served.read_exact(&mut [0; 1]).unwrap();
    assert!(daemon.remove("b").unwrap());
    relay.join().unwrap().unwrap();
}

#[test]
fn who_is_not_there_is_hung_up_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, relay) = start(dir.path());
    let ((server, target), (held, port)) = (server(), port());
    drop(server);
    daemon.put(&rule("a", target), Some(held.as_fd())).unwrap();
    let mut client = TcpStream::connect_timeout(&port, DEADLINE).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(is_closed(&mut client));
    daemon.remove("a").unwrap();
    relay.join().unwrap().unwrap();
}

#[test]
fn answers_to_datagrams_find_their_clients() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, relay) = start(dir.path());
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let held = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let port = held.local_addr().unwrap();
    let served = Rule { udp: true, ..rule("a", server.local_addr().unwrap()) };
    daemon.put(&served, Some(held.as_fd())).unwrap();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    let clients = [(); 3].map(|()| UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap());
    for (number, client) in clients.iter().enumerate() {
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.send_to(&[number as u8], port).unwrap();
        let mut byte = [9];
        let (_, from) = server.recv_from(&mut byte).unwrap();
        server.send_to(&byte, from).unwrap();
    }
    for (number, client) in clients.iter().enumerate() {
        let mut byte = [9];
        assert_eq!((client.recv_from(&mut byte).unwrap().1, byte), (port, [number as u8]));
    }
    assert!(daemon.remove("a").unwrap());
    relay.join().unwrap().unwrap();
}

#[test]
fn a_relay_that_cannot_begin_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let ((_server, target), (held, _)) = (server(), port());
    let (mut daemon, relay) = start(&dir.path().join("missing"));
    let refused = daemon.put(&rule("a", target), Some(held.as_fd())).unwrap_err();
    assert!(refused.to_string().starts_with("the relay cannot begin: No such file"), "{refused}");
    assert!(relay.join().unwrap().is_err());
    let ended = daemon.list();
    assert!(matches!(&ended, Err(AskError::Io(err)) if err.kind() == std::io::ErrorKind::BrokenPipe), "{ended:?}");
}

#[test]
fn a_relay_that_nobody_asks_for_anything_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, relay) = start(dir.path());
    drop(daemon);
    relay.join().unwrap().unwrap();
    assert!(Client::find(&dir.path().join("never")).unwrap().is_none());
}

#[test]
fn many_ports_come_and_go_in_few_messages() {
    // More than one answer lists.
    const PORTS: usize = 1500;
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, relay) = start(dir.path());
    let ((server, target), (held, port)) = (server(), port());
    let rules: Vec<Rule> = (0..PORTS).map(|number| rule(&format!("{number:04}"), target)).collect();
    // One socket for all of them, which is as good: the kernel tells one of those who wait.
    let ports: Vec<_> = rules.iter().map(|rule| (rule.clone(), held.as_fd())).collect();
    daemon.put_all(&ports).unwrap();
    let (mut later, ids) = (Client::find(dir.path()).unwrap().unwrap(), |rules: &[Rule]| {
        rules.iter().map(|rule| rule.id.clone()).collect::<Vec<_>>()
    });
    assert_eq!(ids(&later.list().unwrap()), ids(&rules));
    let (mut client, mut served) = connected(&server, port);
    client.write_all(b"x").unwrap();
    served.read_exact(&mut [0; 1]).unwrap();
    assert!(!later.remove_all(&ids(&rules[..PORTS - 1])).unwrap());
    assert_eq!(later.list().unwrap(), rules[PORTS - 1..]);
    later.put_all(&ports[..2]).unwrap();
    assert!(daemon.remove_all(&ids(&rules)).unwrap(), "all of them, served or not");
    assert!(is_closed(&mut client));
    relay.join().unwrap().unwrap();
}

#[test]
fn one_of_many_that_is_refused_leaves_no_answer_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, relay) = start(dir.path());
    let ((_server, target), (held, _)) = (server(), port());
    // Nobody waits for a file (epoll_ctl(2), EPERM).
    let file = tempfile::tempfile().unwrap();
    let rules: Vec<Rule> = (0..1000).map(|number| rule(&format!("{number:04}"), target)).collect();
    let socket = |at: usize| if at == 100 { file.as_fd() } else { held.as_fd() };
    let ports: Vec<_> = rules.iter().enumerate().map(|(at, rule)| (rule.clone(), socket(at))).collect();
    assert!(matches!(daemon.put_all(&ports), Err(AskError::Refused(_))));
    // The answers to what was sent meanwhile are not taken for this one.
    let served = daemon.list().unwrap();
    assert!(!served.contains(&rules[100]) && served.contains(&rules[99]), "{} are served", served.len());
    let ids: Vec<_> = rules.iter().map(|rule| rule.id.clone()).collect();
    assert!(daemon.remove_all(&ids).unwrap());
    relay.join().unwrap().unwrap();
}

#[test]
fn a_relay_without_ports_waits_for_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let ((server, target), (held, port)) = (server(), port());
    let (mut daemon, relay) = start_lingering(dir.path(), Duration::from_secs(3600));
    for _ in 0..2 {
        daemon.put(&rule("a", target), Some(held.as_fd())).unwrap();
        drop(connected(&server, port));
        assert!(!daemon.remove("a").unwrap(), "it does not end");
    }
    // With its last daemon it does.
    drop(daemon);
    relay.join().unwrap().unwrap();
    assert!(Client::find(dir.path()).unwrap().is_none());
    // And beside one that needs nothing for long.
    let (mut daemon, relay) = start_lingering(dir.path(), Duration::from_millis(1));
    daemon.put(&rule("a", target), Some(held.as_fd())).unwrap();
    assert!(!daemon.remove("a").unwrap());
    relay.join().unwrap().unwrap();
    assert!(matches!(daemon.list(), Err(AskError::Io(_))));
    assert!(Client::find(dir.path()).unwrap().is_none());
}

/// What a relay of version 1 answers, which knows no message about several rules; and what it was asked.
fn answer_as_version_1(door: &std::os::fd::OwnedFd) -> Vec<String> {
    let daemon = rustix::net::accept(door).unwrap();
    let (mut bytes, mut asked) = (vec![0; 4096], Vec::new());
    while let Ok(length @ 1..) = sys::socket::receive(daemon.as_fd(), &mut bytes, &mut Vec::new()) {
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let word = text.trim_start_matches(['{', '"']).split('"').next().unwrap().to_owned();
        let reply = match word.as_str() {
            "List" => r#"{"Rules":{"version":1,"rules":[]}}"#,
            "Put" => r#""Done""#,
            "Remove" => r#""Ends""#,
            _ => r#"{"Refused":"unknown variant"}"#,
        };
        sys::socket::send(daemon.as_fd(), reply.as_bytes(), &[]).unwrap();
        asked.push(word);
    }
    asked
}

#[test]
fn a_relay_of_an_earlier_build_is_spoken_to_in_its_words() {
    let dir = tempfile::tempdir().unwrap();
    let kind = rustix::net::SocketType::SEQPACKET;
    let door = rustix::net::socket(rustix::net::AddressFamily::UNIX, kind, None).unwrap();
    rustix::net::bind(&door, &rustix::net::SocketAddrUnix::new(dir.path().join("relay.sock")).unwrap()).unwrap();
    rustix::net::listen(&door, 1).unwrap();
    let relay = std::thread::spawn(move || answer_as_version_1(&door));
    let mut daemon = Client::find(dir.path()).unwrap().unwrap();
    assert!(daemon.list().unwrap().is_empty());
    let ((_, target), (held, _)) = (server(), port());
    let ports = ["a", "b"].map(|id| (rule(id, target), held.as_fd()));
    daemon.put_all(&ports).unwrap();
    assert!(daemon.remove_all(&["a".to_owned(), "b".to_owned()]).unwrap(), "it ends at once");
    drop(daemon);
    assert_eq!(relay.join().unwrap(), ["List", "Put", "Put", "Remove", "Remove"]);
}

#[test]
fn answers_come_from_the_address_that_was_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, relay) = start(dir.path());
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let held = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = held.local_addr().unwrap().port();
    let datagrams = Rule { udp: true, ..rule("a", server.local_addr().unwrap()) };
    daemon.put(&datagrams, Some(held.as_fd())).unwrap();
    let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
    }
    // One socket asks at two addresses, and has each answer from where it asked.
    let asked = [[127, 0, 0, 8], [127, 0, 0, 9]].map(|address| SocketAddr::from((address, port)));
    let flows = asked.map(|address| {
        client.send_to(b"?", address).unwrap();
        server.recv_from(&mut [0; 8]).unwrap().1
    });
    for (flow, address) in flows.into_iter().zip(asked).rev() {
        server.send_to(b"!", flow).unwrap();
        assert_eq!(client.recv_from(&mut [0; 8]).unwrap(), (1, address));
    }
    daemon.remove("a").unwrap();
    relay.join().unwrap().unwrap();
}
