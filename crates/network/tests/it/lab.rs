//! A machine and a second host, as network namespaces connected by a link.
//!
//! Threads are the actors: a thread in a namespace opens a socket, and the socket stays there when the thread has ended.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use network::{Config, DEFAULT, EndpointRequest, JoinRequest, Joined, Networks, PortRequest, Protocol};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

pub(crate) const MACHINE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(crate) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub(crate) const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// How long something that must happen may take on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// How long we look whether something happens that must not. A lost race makes a test pass, never fail.
const GLIMPSE: Duration = Duration::from_millis(400);

/// Runs `test` on a thread whose namespace is a machine of its own, with a link to a second host.
pub(crate) fn on_a_machine(test: impl FnOnce(Lab) + Send + 'static) {
    let thread = std::thread::spawn(|| {
        sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
        sys::network::loopback_up().unwrap();
        // Whatever the machine of the tests is: where we switch it on ourselves something stays.
        setting("ip_forward", "1");
        let second = host_behind("up0", MACHINE, NEIGHBOUR);
        test(Lab { second, directory: tempfile::tempdir().unwrap() });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) struct Lab {
    pub(crate) second: File,
    pub(crate) directory: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn config(&self) -> Config {
        Config::new("0123abcd", self.directory.path().join("network"))
    }

    pub(crate) fn networks(&self) -> Networks {
        self.networks_with(&[])
    }

    /// Those of the next daemon, which finds these containers alive.
    pub(crate) fn networks_with(&self, alive: &[&str]) -> Networks {
        let networks = Networks::open(self.config()).unwrap();
        networks.reconcile(alive).unwrap();
        networks
    }
}

pub(crate) fn run(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `act` on a thread in this namespace.
pub(crate) fn inside<T: Send>(namespace: BorrowedFd<'_>, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network)).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

/// A new host at the other end of a new link of the calling thread's machine; both have addresses in a /24.
pub(crate) fn host_behind(link: &str, here: Ipv4Addr, there: Ipv4Addr) -> File {
    let host = std::thread::spawn(|| {
        sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    let host = host.join().unwrap();
    // A thread's number stands for its namespace.
    let own = rustix::thread::gettid().as_raw_nonzero().to_string();
    inside(host.as_fd(), || run(&["ip", "link", "add", "eth0", "type", "veth", "peer", "name", link, "netns", &own]));
    run(&["ip", "addr", "add", &format!("{here}/24"), "dev", link]);
    run(&["ip", "link", "set", link, "up"]);
    inside(host.as_fd(), || {
        run(&["ip", "addr", "add", &format!("{there}/24"), "dev", "eth0"]);
        run(&["ip", "link", "set", "eth0", "up"]);
        run(&["ip", "route", "add", "default", "via", &here.to_string()]);
    });
    // The kernel sees the carrier a moment later. Until then two looks at the links differ, and what is sent is lost.
    until_up(link);
    inside(host.as_fd(), || until_up("eth0"));
    host
}

/// Waits until the kernel passes on what is sent to this link.
fn until_up(link: &str) {
    let deadline = Instant::now() + DEADLINE;
    while !run(&["ip", "-o", "link", "show", link]).contains(" state UP ") {
        assert!(Instant::now() < deadline, "{link} is not up");
        std::thread::yield_now();
    }
}

pub(crate) fn request(container: &str, ports: &[PortRequest]) -> JoinRequest {
    request_on(container, ports, vec![EndpointRequest::on(DEFAULT)])
}

pub(crate) fn request_on(container: &str, ports: &[PortRequest], endpoints: Vec<EndpointRequest>) -> JoinRequest {
    JoinRequest {
        container: container.to_owned(),
        name: format!("name-of-{container}"),
        ports: ports.to_vec(),
        endpoints,
        egress: None,
        exposed: Vec::new(),
        links: Vec::new(),
    }
}

pub(crate) fn publish(host_address: Option<Ipv4Addr>, host_port: u16, container_port: u16) -> PortRequest {
    let host_address = host_address.map(IpAddr::V4);
    PortRequest { protocol: Protocol::Tcp, container_port, host_address, host_ports: (host_port, host_port) }
}

/// A server in the container.
pub(crate) fn listen(endpoint: &Joined, port: u16) -> TcpListener {
    inside(endpoint.namespace.as_fd(), || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap())
}

/// Likewise, for IPv6 alone.
pub(crate) fn listen_on_ipv6(endpoint: &Joined, port: u16) -> TcpListener {
    inside(endpoint.namespace.as_fd(), || {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET6, rustix::net::SocketType::STREAM, None).unwrap();
        rustix::net::sockopt::set_ipv6_v6only(&socket, true).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).unwrap();
        rustix::net::listen(&socket, 16).unwrap();
        TcpListener::from(socket)
    })
}

pub(crate) fn bind_udp(endpoint: &Joined, port: u16) -> UdpSocket {
    let socket = inside(endpoint.namespace.as_fd(), || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// Connects from the calling thread's namespace, and answers whom the server sees.
pub(crate) fn reach(server: &TcpListener, address: impl Into<IpAddr>, port: u16) -> io::Result<SocketAddr> {
    reach_within(server, address, port, DEADLINE)
}

pub(crate) fn reach_within(
    server: &TcpListener,
    address: impl Into<IpAddr>,
    port: u16,
    within: Duration,
) -> io::Result<SocketAddr> {
    let stream = TcpStream::connect_timeout(&(address.into(), port).into(), within)?;
    server.set_nonblocking(true)?;
    let own = stream.local_addr()?.port();
    let deadline = Instant::now() + DEADLINE;
    loop {
        match server.accept() {
            Ok((_, client)) => return Ok(client),
            // The connection stands for its client before the server has seen the last packet.
            Err(err) if err.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::yield_now();
            }
            Err(err) => return Err(io::Error::other(format!("port {own} never arrived: {err}"))),
        }
    }
}

/// Whether no connection comes about within a glimpse.
pub(crate) fn is_unreachable(address: impl Into<IpAddr>, port: u16) -> bool {
    TcpStream::connect_timeout(&(address.into(), port).into(), GLIMPSE).is_err()
}

/// As if the daemon were killed, which has this many veth pairs of containers: nothing is closed or removed.
///
/// Its thread lives on here, and would make pairs behind the back of whoever comes next, until it has those that it keeps ready.
pub(crate) fn kill(networks: Networks, joined: usize) {
    const READY: usize = 4;
    wait_until_links(joined + READY);
    std::mem::forget(networks);
}

/// Waits until so many veth pairs of ours are there.
pub(crate) fn wait_until_links(count: usize) {
    let found = || run(&["ip", "-o", "link"]).lines().filter(|line| line.contains(": v0123abcd")).count();
    wait_until(&format!("there are {count} links"), || found() == count);
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}\n{}", run(&["ip", "-o", "link"]));
        std::thread::yield_now();
    }
}

/// A table taken by somebody who lets nobody else change it until this is dropped.
pub(crate) struct OwnedTable(Child);

impl OwnedTable {
    /// With the table's name stands what is in it, its owner's flag too.
    pub(crate) fn new(table: &str) -> OwnedTable {
        let mut nft = Command::new("nft").arg("-i").stdin(Stdio::piped()).spawn().unwrap();
        let stdin = nft.stdin.as_mut().unwrap();
        writeln!(stdin, "add table {table}").unwrap();
        wait_until("the table is taken", || run(&["nft", "list", "ruleset"]).contains("flags owner"));
        OwnedTable(nft)
    }

    /// That of our rules.
    pub(crate) fn of_ours() -> OwnedTable {
        let mut nft = Command::new("nft").arg("-i").stdin(Stdio::piped()).spawn().unwrap();
        let table = "table ip longshore-0123abcd";
        writeln!(nft.stdin.as_mut().unwrap(), "delete {table}; add {table} {{ flags owner; }}").unwrap();
        wait_until("the table is taken", || run(&["nft", "list", "ruleset"]).contains("flags owner"));
        OwnedTable(nft)
    }
}

impl Drop for OwnedTable {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
        wait_until("the table is gone", || !run(&["nft", "list", "ruleset"]).contains("flags owner"));
    }
}

pub(crate) fn setting(path: &str, value: &str) {
    fs::write(format!("/proc/sys/net/ipv4/{path}"), value).unwrap();
}

/// What the instance's table of a family has left when it has gone from a machine that it made a router.
pub(crate) fn chains_left(family: &str) -> Vec<String> {
    let rules = run(&["nft", "list", "table", family, "longshore-0123abcd"]);
    assert!(!rules.contains("map "), "{rules}");
    let chains = rules.lines().filter_map(|line| line.trim().strip_prefix("chain ")?.strip_suffix(" {"));
    let mut chains: Vec<_> = chains.map(str::to_owned).collect();
    chains.sort();
    chains
}
