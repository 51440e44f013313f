use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use dns::Endpoint;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;

use super::*;

/// Everything that a test waits for comes within this time or never.
const DEADLINE: Duration = Duration::from_secs(20);

const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const REFUSED: u8 = 5;

/// A container `web` on the network `front`, its name server, and what stands in for the world.
struct Fixture {
    names: Names,
    container: ContainerId,
    server: SocketAddr,
    /// The world's places, each with its address. Whoever is there has taken them out.
    places: Mutex<HashMap<String, Place>>,
    dir: tempfile::TempDir,
}

/// Where a server of the world listens.
struct Place {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
}

impl Fixture {
    /// The host's file names servers at these addresses.
    async fn new(servers: &[&str], internal: bool) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        std::fs::write(dir.path().join("resolv.conf"), text).unwrap();
        let (places, port) = places(servers);
        let names = Names::new(dir.path().join("resolv.conf"), port);
        let container: ContainerId = stdx::id::random_hex::<32>().parse().unwrap();
        names.place(&container, vec![on("front", internal, &container, "web", 2)]);
        let (sockets, server) = sockets();
        names.serve(&container, sockets, Rules::default()).unwrap();
        Fixture { names, container, server, places: Mutex::new(places), dir }
    }

    async fn ask(&self, name: &str) -> (u8, Vec<u8>) {
        ask(self.server, name).await
    }

    fn take_place(&self, address: &str) -> (UdpSocket, TcpListener) {
        let Place { udp, tcp } = lock(&self.places).remove(address).unwrap();
        (UdpSocket::from_std(udp).unwrap(), TcpListener::from_std(tcp).unwrap())
    }

    /// Nobody is at an address: its place takes datagrams of another one alone, and so the kernel refuses ours.
    fn desert(&self, address: &str) {
        lock(&self.places)[address].udp.connect("127.0.0.99:9").unwrap();
    }

    /// A server of the world, which answers as `answer` says.
    async fn upstream(&self, address: &str, answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Upstream {
        let (socket, _) = self.take_place(address);
        Upstream::at(socket, answer)
    }
}

/// Tells of each query once it is answered.
struct Upstream(mpsc::UnboundedReceiver<Vec<u8>>);

impl Upstream {
    fn at(socket: UdpSocket, answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Upstream {
        let (sender, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (count, from) = socket.recv_from(&mut buffer).await.unwrap();
                for answer in answer(&buffer[..count]) {
                    socket.send_to(&answer, from).await.unwrap();
                }
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Upstream(asked)
    }
}

/// Places at these addresses, which share a port.
fn places(addresses: &[&str]) -> (HashMap<String, Place>, u16) {
    'ports: loop {
        let (mut places, mut port) = (HashMap::new(), 0);
        for address in addresses {
            // Somebody may have the port at one of the addresses, or for one of the protocols.
            let Ok(udp) = std::net::UdpSocket::bind((*address, port)) else { continue 'ports };
            port = udp.local_addr().unwrap().port();
            let Ok(tcp) = std::net::TcpListener::bind((*address, port)) else { continue 'ports };
            udp.set_nonblocking(true).unwrap();
            tcp.set_nonblocking(true).unwrap();
            places.insert((*address).to_owned(), Place { udp, tcp });
        }
        return (places, port);
    }
}

fn on(network: &str, internal: bool, container: &ContainerId, name: &str, last: u8) -> Membership {
    let addresses = vec![Ipv4Addr::new(172, 18, 0, last).into()];
    let endpoint =
        Endpoint { container: container.to_string(), names: vec![name.to_owned()], addresses, ..Endpoint::default() };
    Membership { network_id: format!("id of {network}"), network_name: network.to_owned(), internal, endpoint }
}

/// Sockets of a name server at a port of loopback.
fn sockets() -> (ResolverSockets, SocketAddr) {
    loop {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        let Ok(tcp) = std::net::TcpListener::bind(address) else { continue };
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        return (ResolverSockets { udp: udp.into(), tcp: tcp.into() }, address);
    }
}

fn query(name: &str, kind: u8) -> Vec<u8> {
    let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, kind, 0, 1]);
    query
}

/// The answer to `query` with one record, the address 9.9.9.`last`.
fn answer(query: &[u8], last: u8) -> Vec<u8> {
    let mut answer = query.to_vec();
    (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 9, 9, 9, last]);
    answer
}

fn failure(query: &[u8], code: u8) -> Vec<u8> {
    let mut answer = query.to_vec();
    (answer[2], answer[3]) = (0x81, 0x80 | code);
    answer
}

/// The code of the answer and what it has of records.
async fn ask(server: SocketAddr, name: &str) -> (u8, Vec<u8>) {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(server).await.unwrap();
    let query = query(name, 1);
    client.send(&query).await.unwrap();
    let mut buffer = [0; 4096];
    let count = tokio::time::timeout(DEADLINE, client.recv(&mut buffer)).await.unwrap().unwrap();
    take_apart(&query, &buffer[..count])
}

async fn ask_over_tcp(server: SocketAddr, name: &str) -> (u8, Vec<u8>) {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let query = query(name, 1);
    stream.write_u16(query.len() as u16).await.unwrap();
    stream.write_all(&query).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.unwrap();
    take_apart(&query, &answer)
}

fn take_apart(query: &[u8], answer: &[u8]) -> (u8, Vec<u8>) {
    assert_eq!((&answer[..2], &answer[12..query.len()]), (&query[..2], &query[12..]));
    (answer[3] & 15, answer[query.len()..].to_vec())
}

fn last(answer: &(u8, Vec<u8>)) -> (u8, Option<u8>) {
    (answer.0, answer.1.last().copied())
}

#[tokio::test]
async fn names_are_answered_at_once_and_changes_too() {
    let fixture = Fixture::new(&[], false).await;
    assert_eq!(last(&fixture.ask("web").await), (NO_ERROR, Some(2)));
    assert_eq!(last(&ask_over_tcp(fixture.server, "Web.front").await), (NO_ERROR, Some(2)));
    assert_eq!(last(&fixture.ask("db").await), (SERVER_FAILURE, None), "no server of the world");
    let db: ContainerId = stdx::id::random_hex::<32>().parse().unwrap();
    fixture.names.place(&db, vec![on("front", false, &db, "db", 3)]);
    assert_eq!(last(&fixture.ask("db").await), (NO_ERROR, Some(3)));
    fixture.names.place(&db, vec![on("back", false, &db, "db", 3)]);
    assert_eq!(last(&fixture.ask("db").await), (SERVER_FAILURE, None));
}

#[tokio::test]
async fn other_names_are_asked_of_the_world_as_they_came() {
    let fixture = Fixture::new(&["127.0.0.2"], false).await;
    let mut world = fixture.upstream("127.0.0.2", |query| vec![answer(query, 5)]).await;
    assert_eq!(last(&fixture.ask("example.com").await), (NO_ERROR, Some(5)));
    let asked = world.0.recv().await.unwrap();
    assert_eq!(asked[2..], query("example.com", 1)[2..]);
    assert_eq!(last(&fixture.ask("web").await), (NO_ERROR, Some(2)));
    assert!(world.0.try_recv().is_err(), "our own names stay here");
}

#[tokio::test]
async fn a_server_that_fails_or_is_silent_is_not_waited_for() {
    let fixture = Fixture::new(&["127.0.0.2", "127.0.0.3", "127.0.0.4"], false).await;
    // The first refuses, the second says nothing, the third knows.
    let _first = fixture.upstream("127.0.0.2", |query| vec![failure(query, REFUSED)]).await;
    let _second = fixture.upstream("127.0.0.3", |_| vec![]).await;
    let _third = fixture.upstream("127.0.0.4", |query| vec![answer(query, 6)]).await;
    assert_eq!(last(&fixture.ask("example.com").await), (NO_ERROR, Some(6)));
}

#[tokio::test]
async fn a_server_that_was_slow_still_counts() {
    let fixture = Fixture::new(&["127.0.0.2", "127.0.0.3"], false).await;
    let mut second = fixture.upstream("127.0.0.3", |query| vec![failure(query, SERVER_FAILURE)]).await;
    let (first, _) = fixture.take_place("127.0.0.2");
    let (asked, ()) = tokio::join!(fixture.ask("example.com"), async {
        let mut buffer = [0; 512];
        let (count, from) = first.recv_from(&mut buffer).await.unwrap();
        // The second one has been asked and has failed.
        second.0.recv().await.unwrap();
        first.send_to(&answer(&buffer[..count], 5), from).await.unwrap();
    });
    assert_eq!(last(&asked), (NO_ERROR, Some(5)));
}

#[tokio::test]
async fn without_an_answer_the_client_is_told_so() {
    let fixture = Fixture::new(&["127.0.0.2", "127.0.0.3"], false).await;
    // Nobody is at the second: the kernel says so.
    fixture.desert("127.0.0.3");
    let _first = fixture.upstream("127.0.0.2", |query| vec![failure(query, SERVER_FAILURE)]).await;
    assert_eq!(last(&fixture.ask("example.com").await), (SERVER_FAILURE, None));
}

#[tokio::test]
async fn forged_answers_are_passed_over() {
    let fixture = Fixture::new(&["127.0.0.2"], false).await;
    let forge = |query: &[u8]| {
        let mut wrong_id = answer(query, 66);
        wrong_id[0] ^= 1;
        let mut other_name = answer(query, 66);
        other_name[13] = b'z';
        vec![wrong_id, other_name, vec![1, 2, 3], answer(query, 5)]
    };
    let _world = fixture.upstream("127.0.0.2", forge).await;
    assert_eq!(last(&fixture.ask("example.com").await), (NO_ERROR, Some(5)));
}

#[tokio::test]
async fn an_answer_that_was_cut_is_fetched_whole() {
    let fixture = Fixture::new(&["127.0.0.2"], false).await;
    let cut = |query: &[u8]| {
        let mut cut = failure(query, NO_ERROR);
        cut[2] |= 2;
        vec![cut]
    };
    let (socket, listener) = fixture.take_place("127.0.0.2");
    let _world = Upstream::at(socket, cut);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await.unwrap();
            let mut reply = answer(&query, 7);
            if query.len() > 29 {
                // More than goes into a datagram that was not agreed upon.
                reply.extend([7; 600]);
            }
            stream.write_u16(reply.len() as u16).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    assert_eq!(last(&fixture.ask("example.com").await), (NO_ERROR, Some(7)));
    assert_eq!(last(&fixture.ask("a.longer.example.com").await), (NO_ERROR, None), "what was cut, as it came");
    let whole = ask_over_tcp(fixture.server, "a.longer.example.com").await;
    assert_eq!((whole.0, whole.1.len()), (NO_ERROR, 616));
}

#[tokio::test]
async fn nobody_reaches_out_from_an_internal_network() {
    let fixture = Fixture::new(&["127.0.0.2"], true).await;
    let mut world = fixture.upstream("127.0.0.2", |query| vec![answer(query, 5)]).await;
    assert_eq!(last(&fixture.ask("example.com").await), (SERVER_FAILURE, None));
    assert_eq!(last(&fixture.ask("web").await), (NO_ERROR, Some(2)));
    assert!(world.0.try_recv().is_err());
    // On another network, too, that leads out.
    let web = &fixture.container;
    fixture.names.place(web, vec![on("front", true, web, "web", 2), on("back", false, web, "web", 9)]);
    assert_eq!(last(&fixture.ask("example.com").await), (NO_ERROR, Some(5)));
}

#[tokio::test]
async fn a_change_of_the_hosts_servers_is_seen() {
    let fixture = Fixture::new(&["127.0.0.2", "127.0.0.3"], false).await;
    let _old = fixture.upstream("127.0.0.2", |query| vec![answer(query, 5)]).await;
    let _new = fixture.upstream("127.0.0.3", |query| vec![answer(query, 6)]).await;
    assert_eq!(last(&fixture.ask("example.com").await), (NO_ERROR, Some(5)));
    let file = fixture.dir.path().join("new");
    std::fs::write(&file, "nameserver 127.0.0.3\n").unwrap();
    std::fs::rename(file, fixture.dir.path().join("resolv.conf")).unwrap();
    let seen = async { while last(&fixture.ask("example.com").await) != (NO_ERROR, Some(6)) {} };
    tokio::time::timeout(DEADLINE, seen).await.unwrap();
}

#[tokio::test]
async fn a_flood_is_refused_and_names_go_on() {
    let fixture = Fixture::new(&["127.0.0.2"], false).await;
    let _silent = fixture.upstream("127.0.0.2", |_| vec![]).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(fixture.server).await.unwrap();
    let flood = async {
        let mut buffer = [0; 512];
        loop {
            // Slower than the socket's buffer fills.
            client.send(&query("example.com", 1)).await.unwrap();
            tokio::task::yield_now().await;
            // The first of them are given up meanwhile, on a slow machine.
            if client.try_recv(&mut buffer).is_ok() && buffer[3] & 15 == REFUSED {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, flood).await.unwrap();
    assert_eq!(last(&fixture.ask("web").await), (NO_ERROR, Some(2)));
}

#[tokio::test]
async fn who_is_forgotten_is_served_no_more() {
    let fixture = Fixture::new(&[], false).await;
    assert!(fixture.names.serves(&fixture.container) && fixture.names.knows(&fixture.container));
    fixture.names.forget(&fixture.container);
    assert!(!fixture.names.serves(&fixture.container) && !fixture.names.knows(&fixture.container));
    let closed = async {
        while TcpStream::connect(fixture.server).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, closed).await.unwrap();
}

#[tokio::test]
async fn each_of_several_owners_comes_first_however_clients_ask() {
    let fixture = Fixture::new(&[], false).await;
    for address in [3, 4] {
        let id: ContainerId = stdx::id::random_hex::<32>().parse().unwrap();
        fixture.names.place(&id, vec![on("front", false, &id, "db", address)]);
    }
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(fixture.server).await.unwrap();
    let mut firsts = BTreeSet::new();
    // As the C library does, both kinds by turns. Once in 2^99 it is the same one a hundred times.
    for kind in [1, 28].into_iter().cycle().take(200) {
        let query = query("db", kind);
        client.send(&query).await.unwrap();
        let mut buffer = [0; 512];
        let count = tokio::time::timeout(DEADLINE, client.recv(&mut buffer)).await.unwrap().unwrap();
        if kind == 1 {
            firsts.insert(buffer[..count][query.len() + 15]);
        }
    }
    assert_eq!(firsts, BTreeSet::from([3, 4]));
}

#[tokio::test]
async fn whoever_was_forgotten_meanwhile_is_not_served() {
    let fixture = Fixture::new(&[], false).await;
    fixture.names.forget(&fixture.container);
    let (sockets, server) = sockets();
    fixture.names.serve(&fixture.container, sockets, Rules::default()).unwrap();
    assert!(!fixture.names.serves(&fixture.container));
    assert!(TcpStream::connect(server).await.is_err());
}

#[tokio::test]
async fn forwarded_queries_end_with_their_server() {
    let fixture = Fixture::new(&["127.0.0.2"], false).await;
    // It is silent over TCP, too: connections wait to be accepted.
    let (socket, _listener) = fixture.take_place("127.0.0.2");
    let mut silent = Upstream::at(socket, |_| vec![]);
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(&query("example.com", 1), fixture.server).await.unwrap();
    let mut stream = TcpStream::connect(fixture.server).await.unwrap();
    let over_tcp = query("example.com", 1);
    stream.write_u16(over_tcp.len() as u16).await.unwrap();
    stream.write_all(&over_tcp).await.unwrap();
    tokio::time::timeout(DEADLINE, silent.0.recv()).await.unwrap().unwrap();
    let both = async {
        while fixture.names.0.flights.available_permits() > FLIGHTS - 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, both).await.unwrap();
    let shared: std::sync::Weak<Shared> = Arc::downgrade(&fixture.names.0);
    fixture.names.forget(&fixture.container);
    drop(fixture.names);
    // Tasks that are ended go within some turns of the runtime, and nobody waits for the silent server.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(shared.strong_count(), 0);
}

#[tokio::test]
async fn who_asks_little_is_served_while_others_have_taken_all_turns() {
    let fixture = Fixture::new(&["127.0.0.2"], false).await;
    let (socket, _listener) = fixture.take_place("127.0.0.2");
    let _upstream = Upstream::at(socket, |query| vec![answer(query, 1)]);
    let taken = fixture.names.0.flights.acquire_many(FLIGHTS as u32).await.unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(&query("example.com", 1), fixture.server).await.unwrap();
    let mut buffer = [0; 512];
    let (length, _) = tokio::time::timeout(DEADLINE, client.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(buffer[..length][3] & 15, 0, "the answer is a refusal");
    drop(taken);
}

#[tokio::test]
async fn names_are_answered_while_connections_cannot_be_accepted() {
    let fixture = Fixture::new(&[], false).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(fixture.server).await.unwrap();
    // It waits to be accepted: the kernel has made it.
    let stream = std::net::TcpStream::connect(fixture.server).unwrap();
    let usual = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..usual }).unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let query = query("web", 1);
    client.send(&query).await.unwrap();
    // A server that rested would take more turns of the runtime than these.
    let (mut buffer, mut count) = ([0; 512], None);
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
        count = client.try_recv(&mut buffer).ok();
        if count.is_some() {
            break;
        }
    }
    setrlimit(Resource::Nofile, usual).unwrap();
    assert_eq!(last(&take_apart(&query, &buffer[..count.unwrap()])), (NO_ERROR, Some(2)));
    drop(stream);
    assert_eq!(last(&ask_over_tcp(fixture.server, "web").await), (NO_ERROR, Some(2)));
}

/// Notes what it is told; opens nothing while it `fails`.
#[derive(Default)]
struct Notes {
    opened: Mutex<Vec<String>>,
    refused: Mutex<Vec<String>>,
    fails: std::sync::atomic::AtomicBool,
}

impl Warden for Arc<Notes> {
    fn open(&self, _: &ContainerId, name: &str, addresses: &[(IpAddr, Duration)]) -> Result<(), network::EgressError> {
        let text = addresses.iter().map(|(address, time)| format!(" {address} {}", time.as_secs()));
        lock(&self.opened).push(format!("{name}{}", text.collect::<String>()));
        let fails = self.fails.load(std::sync::atomic::Ordering::Relaxed);
        if fails { Err(network::EgressError::Full) } else { Ok(()) }
    }

    fn refused(&self, _: &ContainerId, name: &str) {
        lock(&self.refused).push(name.to_owned());
    }
}

/// The fixture's container may ask for names as this policy says, and is on 172.18.0.0/16.
fn watch(fixture: &Fixture, policy: &str) -> Arc<Notes> {
    let notes = Arc::new(Notes::default());
    fixture.names.appoint(Arc::new(notes.clone()));
    let near = network::Subnet::new([172, 18, 0, 0], 16);
    let gate = EgressGate::new(vec![vec![policy.parse().unwrap()]], vec![near]);
    fixture.names.guard(&fixture.container, Some(gate));
    notes
}

#[tokio::test]
async fn names_that_no_policy_allows_are_refused_here() {
    let fixture = Fixture::new(&["127.0.0.2"], false).await;
    let notes = watch(&fixture, "allow=*.example.org:443");
    let mut world = fixture.upstream("127.0.0.2", |query| vec![answer(query, 5)]).await;
    assert_eq!(fixture.ask("Evil.example.com").await, (REFUSED, vec![]));
    assert_eq!(ask_over_tcp(fixture.server, "example.org").await, (REFUSED, vec![]));
    assert_eq!(*lock(&notes.refused), ["evil.example.com", "example.org"]);
    assert!(world.0.try_recv().is_err(), "nobody outside has heard of them");
    assert_eq!(last(&fixture.ask("web").await), (NO_ERROR, Some(2)), "our own names are everybody's");
    // Without a policy everything is asked again.
    fixture.names.guard(&fixture.container, None);
    assert_eq!(last(&fixture.ask("evil.example.com").await), (NO_ERROR, Some(5)));
    assert_eq!(*lock(&notes.opened), [""; 0]);
}

#[tokio::test]
async fn what_a_name_leads_to_is_opened_before_it_is_answered() {
    let fixture = Fixture::new(&["127.0.0.2"], false).await;
    let notes = watch(&fixture, "allow=*.example.org:443");
    let _world = fixture.upstream("127.0.0.2", |query| vec![answer(query, 5)]).await;
    assert_eq!(last(&fixture.ask("www.Example.org").await), (NO_ERROR, Some(5)));
    assert_eq!(*lock(&notes.opened), ["www.example.org 9.9.9.5 60"]);
    // What could not be opened is not told.
    notes.fails.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(fixture.ask("www.example.org").await, (SERVER_FAILURE, vec![]));
    // Who is gone has no policy that would be the next one's.
    fixture.names.forget(&fixture.container);
    assert!(read(&fixture.names.0.gates).is_empty());
}

#[tokio::test]
async fn an_answer_without_anybody_to_open_it_is_kept_back() {
    let fixture = Fixture::new(&["127.0.0.2"], false).await;
    let gate = EgressGate::new(vec![vec!["allow=a.org:1".parse().unwrap()]], Vec::new());
    fixture.names.guard(&fixture.container, Some(gate));
    let _world = fixture.upstream("127.0.0.2", |query| vec![answer(query, 5)]).await;
    assert_eq!(fixture.ask("a.org").await, (SERVER_FAILURE, vec![]));
}

#[test]
fn privileged_own_servers_are_asked_from_the_containers_network() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (done, waits) = std::sync::mpsc::channel::<()>();
    let container = std::thread::spawn(move || {
        sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
        sys::network::loopback_up().unwrap();
        let namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let sockets = ResolverSockets::open(namespace.as_fd()).unwrap();
        // Only there is anybody at this address and port.
        let upstream = std::net::UdpSocket::bind("127.0.0.2:0").unwrap();
        sender.send((sockets, upstream.local_addr().unwrap())).unwrap();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        upstream.set_read_timeout(Some(DEADLINE)).unwrap();
        client.connect((network::RESOLVER, 53)).unwrap();
        client.send(&query("example.com", 1)).unwrap();
        let mut buffer = [0; 512];
        let (count, from) = upstream.recv_from(&mut buffer).unwrap();
        upstream.send_to(&answer(&buffer[..count], 8), from).unwrap();
        let count = client.recv(&mut buffer).unwrap();
        assert_eq!(buffer[count - 1], 8);
        drop(done);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (sockets, upstream) = receiver.recv().unwrap();
        let names = Names::new("/nowhere".into(), upstream.port());
        let id: ContainerId = stdx::id::random_hex::<32>().parse().unwrap();
        // Of an internal network: such servers may be there.
        names.place(&id, vec![on("front", true, &id, "web", 2)]);
        let rules = Rules { servers: Some(vec![upstream.ip()]), keeps_words: false };
        names.serve(&id, sockets, rules).unwrap();
        // An error says that the other thread is through, well or not.
        let _ = bridge::blocking(move || waits.recv()).await;
    });
    container.join().unwrap();
}
