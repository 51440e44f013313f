//! Holding a host port, so that no other program takes it while it is published.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, bind, ipproto, listen, shutdown, socket_with, sockopt,
};

use crate::ports::{Protocol, Published};

/// A bound socket, which nobody ever reads: packets to it are redirected before they would reach it.
#[derive(Debug)]
pub(crate) struct Hold {
    socket: OwnedFd,
    published: Published,
    /// Whether somebody reads it after all.
    relayed: bool,
}

/// Connections that wait to be relayed at most, or as many as the kernel allows.
const BACKLOG: i32 = 1024;

/// Binds a host port that the relay is to serve. The hold is complete: whoever connects now waits for the relay.
///
/// Others bind the same port as long as nobody listens, and one of them would fail only then, when no other port can be chosen.
pub(crate) fn hold_for_relay(published: &Published) -> Result<Hold, Errno> {
    // Nobody relays SCTP.
    let held = bound(published, true)?.ok_or(Errno::PROTONOSUPPORT)?;
    held.seal()?;
    Ok(held)
}

/// Binds the host port. SCTP ports are not held: the kernel may have no such sockets.
pub(crate) fn hold(published: &Published) -> Result<Option<Hold>, Errno> {
    bound(published, false)
}

fn bound(published: &Published, relayed: bool) -> Result<Option<Hold>, Errno> {
    let (kind, protocol) = match published.protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => return Ok(None),
    };
    let ipv6 = published.host_address.is_ipv6();
    let family = if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    if ipv6 {
        // The port of IPv4 is held by a socket of its own, or another program's.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // Else closed connections of a program that had the port before would be in the way for a minute (TIME_WAIT).
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Where others have flushed our rules a packet comes through. It must not be taken for a connection, which nobody would ever serve.
    if !relayed {
        sys::socket::drop_packets(socket.as_fd()).map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))?;
    }
    bind(&socket, &SocketAddr::new(published.host_address, published.host_port))?;
    Ok(Some(Hold { socket, published: *published, relayed }))
}

impl Hold {
    /// What it holds.
    pub(crate) fn published(&self) -> &Published {
        &self.published
    }

    /// The socket itself.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the relay serves it.
    pub(crate) fn is_relayed(&self) -> bool {
        self.relayed
    }

    /// One more descriptor of the socket, for somebody who outlives this process.
    pub(crate) fn share(&self) -> std::io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Makes the hold complete. To be called when packets are redirected already: whoever came before would wait, for nobody.
    ///
    /// With SO_REUSEADDR the kernel refuses a TCP port to others only while somebody listens, a UDP port never.
    pub(crate) fn seal(&self) -> Result<(), Errno> {
        match self.published.protocol {
            Protocol::Tcp => listen(&self.socket, if self.relayed { BACKLOG } else { 0 }),
            Protocol::Udp | Protocol::Sctp => sockopt::set_socket_reuseaddr(&self.socket, false),
        }
    }

    /// Makes a sealed hold of TCP one that the relay is to serve: the port is never free.
    pub(crate) fn for_relay(self) -> Result<Hold, Errno> {
        sys::socket::accept_packets(self.socket.as_fd())
            .map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))?;
        let held = Hold { relayed: true, ..self };
        held.seal()?;
        Ok(held)
    }

    /// Frees a TCP port also where somebody shares the socket. Without this a port goes with the last descriptor: who holds the
    /// port beyond the end of this process goes on doing so.
    pub(crate) fn release(self) {
        let freed = match self.published.protocol {
            Protocol::Tcp => shutdown(&self.socket, Shutdown::Both),
            Protocol::Udp | Protocol::Sctp => sockopt::set_socket_reuseaddr(&self.socket, true),
        };
        if let Err(errno) = freed {
            // Normal for one that was never sealed: it does not listen.
            tracing::trace!(%errno, "the hold of a port goes with its descriptor only");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn nobody_connects_to_a_hold() {
        let port = rustix::net::getsockname(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap();
        let port = SocketAddrV4::try_from(port).unwrap();
        let published = Published {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_address: (*port.ip()).into(),
            host_port: port.port(),
        };
        let held = hold(&published).unwrap().unwrap();
        held.seal().unwrap();
        let err = TcpStream::connect_timeout(&port.into(), Duration::from_millis(300)).unwrap_err();
        assert_eq!(err.kind(), std::io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_port_of_the_relay_is_nobody_elses_at_once() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let free = match protocol {
                Protocol::Udp => std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr(),
                _ => std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr(),
            };
            let host_address = Ipv4Addr::LOCALHOST.into();
            let published = Published { protocol, container_port: 80, host_address, host_port: free.unwrap().port() };
            let held = hold_for_relay(&published).unwrap();
            assert_eq!(hold_for_relay(&published).unwrap_err(), Errno::ADDRINUSE);
            held.release();
        }
    }
}
