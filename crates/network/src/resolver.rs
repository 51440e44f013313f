//! Where containers of user-defined networks ask for names: 127.0.0.11 in their own network namespace.
//!
//! ```text
//!   container's program -- to 127.0.0.11:53 --> output: port 53 becomes N --> our sockets at 127.0.0.11:N
//!   container's program <-- from 127.0.0.11:53 -- output: port N becomes 53 <-- our answer
//! ```
//! Port 53 itself stays free: a container may be a name server, which binds it on every address and would find it taken. The
//! ports are rewritten packet by packet, on loopback: no connection is tracked, of this or of any other traffic.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{BorrowedFd, OwnedFd};

use errdefs::ErrorKind;
use netlink::nft::expression::{self as rule, End, Ported};
use netlink::nft::{ChainKind, Hook, Transaction};
use netlink::{NetlinkError, Protocol, Socket};

/// The address of a container's name server. Docker's, which programs and files know.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;

/// The table in the container's namespace.
const TABLE: &str = "longshore-dns";
const CHAIN: &str = "output";
/// Where rules usually rewrite packets (NF_IP_PRI_MANGLE): before those of the container's own that filter.
const PRIORITY_REWRITE: i32 = -150;

/// How often a port is chosen that another program has for the other protocol.
const ATTEMPTS: u32 = 16;

/// A container's name server, as far as the kernel goes. Both sockets do not block.
#[derive(Debug)]
pub struct ResolverSockets {
    /// Datagrams.
    pub udp: OwnedFd,
    /// It listens.
    pub tcp: OwnedFd,
}

/// Why a container gets no name server.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The namespace cannot be entered.
    #[error("enter the container's network namespace")]
    Enter(#[source] io::Error),
    /// The sockets cannot be made.
    #[error("open the sockets of the container's name server")]
    Sockets(#[source] io::Error),
    /// Port 53 cannot be led to them.
    #[error("lead port 53 to the container's name server")]
    Redirect(#[from] NetlinkError),
}

impl ResolverError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

impl ResolverSockets {
    /// Opens a name server's sockets in a network namespace whose loopback interface is up. Blocks shortly; visits the
    /// namespace with the calling thread.
    pub fn open(namespace: BorrowedFd<'_>) -> Result<ResolverSockets, ResolverError> {
        let inside = || -> Result<_, ResolverError> {
            let (udp, tcp, port) = bind().map_err(ResolverError::Sockets)?;
            Ok((udp, tcp, port, Socket::open(Protocol::Netfilter)?))
        };
        let opened = sys::namespace::in_network_namespace(namespace, inside).map_err(ResolverError::Enter)?;
        let (udp, tcp, port, mut socket) = opened?;
        rewrite(port).commit(&mut socket)?;
        Ok(ResolverSockets { udp: udp.into(), tcp: tcp.into() })
    }
}

/// Both sockets, at the same port.
fn bind() -> io::Result<(UdpSocket, TcpListener, u16)> {
    let mut attempt = 1;
    loop {
        let udp = UdpSocket::bind(SocketAddrV4::new(RESOLVER, 0))?;
        let address = udp.local_addr()?;
        match TcpListener::bind(address) {
            Ok(tcp) => {
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                return Ok((udp, tcp, address.port()));
            }
            Err(err) if err.kind() == io::ErrorKind::AddrInUse && attempt < ATTEMPTS => attempt += 1,
            Err(err) => return Err(err),
        }
    }
}

fn rewrite(port: u16) -> Transaction<'static> {
    let mut change = Transaction::new(TABLE);
    // An earlier one leads to sockets that are gone.
    change.create_table();
    change.delete_table();
    change.create_table();
    change.create_chain(CHAIN, ChainKind::Filter, Hook::Output, PRIORITY_REWRITE);
    for protocol in [Ported::Udp, Ported::Tcp] {
        let question = [
            &rule::destination_in(RESOLVER.into(), 32, true)[..],
            &rule::port(protocol, End::Destination, PORT),
            &rule::set_port(protocol, End::Destination, port),
        ];
        let answer = [
            &rule::source_in(RESOLVER.into(), 32)[..],
            &rule::port(protocol, End::Source, port),
            &rule::set_port(protocol, End::Source, PORT),
        ];
        change.append_rule(CHAIN, &question.concat());
        change.append_rule(CHAIN, &answer.concat());
    }
    change
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

    /// Runs `inside` in a new namespace, in a thread of its own.
    fn in_new_namespace(inside: impl FnOnce(BorrowedFd<'_>) + Send + 'static) {
        let thread = std::thread::spawn(|| {
            sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
            sys::network::loopback_up().unwrap();
            inside(std::fs::File::open("/proc/thread-self/ns/net").unwrap().as_fd());
        });
        thread.join().unwrap();
    }

    #[test]
    fn privileged_port_53_is_led_to_the_sockets_and_stays_free() {
        in_new_namespace(|namespace| {
            let sockets = ResolverSockets::open(namespace).unwrap();
            let (udp, tcp) = (UdpSocket::from(sockets.udp), TcpListener::from(sockets.tcp));
            udp.set_nonblocking(false).unwrap();
            tcp.set_nonblocking(false).unwrap();
            udp.set_read_timeout(PATIENCE).unwrap();
            // A name server of the container's own, on all addresses.
            let own = UdpSocket::bind("0.0.0.0:53").unwrap();
            let _own = TcpListener::bind("0.0.0.0:53").unwrap();
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(PATIENCE).unwrap();
            client.connect((RESOLVER, PORT)).unwrap();
            client.send(b"question").unwrap();
            let mut buffer = [0; 64];
            let (count, from) = udp.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"question");
            udp.send_to(b"answer", from).unwrap();
            // A connected socket takes nothing from another port than it asked.
            let count = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"answer");
            own.set_read_timeout(PATIENCE).unwrap();
            client.connect("127.0.0.1:53").unwrap();
            client.send(b"theirs").unwrap();
            assert_eq!(own.recv(&mut buffer).unwrap(), 6);
            let asking = std::thread::spawn(|| {
                let mut client = TcpStream::connect((RESOLVER, PORT)).unwrap();
                client.write_all(b"question").unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).unwrap();
                answer
            });
            // The thread is in this namespace: it was born there.
            let (mut server, _) = tcp.accept().unwrap();
            server.read_exact(&mut buffer[..8]).unwrap();
            server.write_all(b"answer").unwrap();
            drop(server);
            assert_eq!(asking.join().unwrap(), "answer");
        });
    }

    #[test]
    fn privileged_a_second_name_server_takes_the_place_of_the_first() {
        in_new_namespace(|namespace| {
            let first = ResolverSockets::open(namespace).unwrap();
            let second = UdpSocket::from(ResolverSockets::open(namespace).unwrap().udp);
            let place = sys::network::namespace_of(second.as_fd()).unwrap();
            assert_eq!(rustix::fs::fstat(place).unwrap().st_ino, rustix::fs::fstat(namespace).unwrap().st_ino);
            second.set_nonblocking(false).unwrap();
            second.set_read_timeout(PATIENCE).unwrap();
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.send_to(b"question", (RESOLVER, PORT)).unwrap();
            assert_eq!(second.recv(&mut [0; 64]).unwrap(), 8);
            drop(first);
        });
    }
}
