//! One relayed connection: two sockets and a pipe for each direction.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType, ipproto, recv, socket_with, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags, splice};

/// What goes from one end to the other at a time: the size of a pipe.
const PIECE: usize = 64 << 10;
/// How many pieces go before others have their turn.
const TURNS: usize = 16;
/// After how much silence an end is asked whether it is still there, and how often again. As Docker's proxy does (Go's net package).
const SILENCE: Duration = Duration::from_secs(15);

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Container,
}

/// A connection and the one it is relayed to.
#[derive(Debug)]
pub(crate) struct Link {
    client: OwnedFd,
    container: OwnedFd,
    /// Whether the container has been reached.
    connected: bool,
    inward: Direction,
    outward: Direction,
}

#[derive(Debug)]
struct Direction {
    out_of_pipe: OwnedFd,
    into_pipe: OwnedFd,
    /// Bytes in the pipe.
    waiting: usize,
    ended: bool,
    /// Whether the end was passed on.
    told: bool,
    /// Whether nobody takes the bytes any more: what still comes is thrown away.
    broken: bool,
}

impl Link {
    /// Begins to connect.
    pub(crate) fn begin(client: OwnedFd, target: SocketAddr) -> Result<Link, Errno> {
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let container = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        // What one end sends at once the other one gets at once.
        sockopt::set_tcp_nodelay(&container, true)?;
        sockopt::set_tcp_nodelay(&client, true)?;
        for end in [&container, &client] {
            sockopt::set_socket_keepalive(end, true)?;
            sockopt::set_tcp_keepidle(end, SILENCE)?;
            sockopt::set_tcp_keepintvl(end, SILENCE)?;
        }
        let connected = match rustix::net::connect(&container, &target) {
            Err(Errno::INPROGRESS) => false,
            connected => connected.map(|()| true)?,
        };
        Ok(Link { client, container, connected, inward: Direction::new()?, outward: Direction::new()? })
    }

    pub(crate) fn end(&self, side: Side) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        match side {
            Side::Client => self.client.as_fd(),
            Side::Container => self.container.as_fd(),
        }
    }

    /// Moves what can be moved. An error is the end of the connection: nothing more comes from one end, and that was passed on.
    ///
    /// An end that takes nothing any more may have said something before: a server that answers early and closes. So both
    /// directions have their turn first, and such an error is the end of its own direction alone.
    pub(crate) fn pump(&mut self) -> Result<(), Errno> {
        if !self.connected {
            match sockopt::socket_error(&self.container)? {
                Ok(()) if rustix::net::getpeername(&self.container).is_ok() => self.connected = true,
                Ok(()) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        let inward = self.inward.pump(&self.client, &self.container);
        self.outward.pump(&self.container, &self.client).and(inward)
    }

    /// Whether both directions have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.inward.told && self.outward.told
    }

    /// What to wait for at an end; nothing for nothing.
    pub(crate) fn interest(&self, side: Side) -> EventFlags {
        if !self.connected {
            return if side == Side::Container { EventFlags::OUT } else { EventFlags::empty() };
        }
        let (from, to) = match side {
            Side::Client => (&self.inward, &self.outward),
            Side::Container => (&self.outward, &self.inward),
        };
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, !from.ended && from.waiting == 0);
        flags.set(EventFlags::OUT, to.waiting > 0);
        flags
    }
}

impl Direction {
    fn new() -> Result<Direction, Errno> {
        let (out_of_pipe, into_pipe) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Direction { out_of_pipe, into_pipe, waiting: 0, ended: false, told: false, broken: false })
    }

    fn pump(&mut self, from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        for _ in 0..TURNS {
            if self.waiting == 0 && !self.ended {
                match self.take(from, flags) {
                    Ok(0) => self.ended = true,
                    Ok(length) if !self.broken => self.waiting = length,
                    Ok(_) => {}
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(errno) => return Err(errno),
                }
            }
            if self.waiting > 0 {
                match retry(|| splice(&self.out_of_pipe, None, to, None, self.waiting, flags)) {
                    Ok(length) => self.waiting -= length.min(self.waiting),
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(_) => (self.waiting, self.told, self.broken) = (0, true, true),
                }
            }
            if self.ended && self.waiting == 0 {
                if !self.told {
                    self.told = true;
                    // Who is gone is told nothing; what he said before still counts.
                    _ = rustix::net::shutdown(to, Shutdown::Write);
                }
                return Ok(());
            }
        }
        Ok(())
    }

    fn take(&self, from: &OwnedFd, flags: SpliceFlags) -> Result<usize, Errno> {
        if self.broken {
            // Unread bytes would have the kernel reset the connection when it is closed, and drop what the other direction has sent.
            let thrown = retry(|| recv(from, &mut [0; 4096], RecvFlags::TRUNC | RecvFlags::DONTWAIT));
            return thrown.map(|(_, length)| length);
        }
        retry(|| splice(from, None, &self.into_pipe, None, PIECE, flags))
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    rustix::io::retry_on_intr(&mut call)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    /// Both ends of a connection.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (stream, listener.accept().unwrap().0)
    }

    /// A link between the client and the container's server.
    fn link() -> (TcpStream, Link, TcpStream) {
        let ((client, ours), server) = (pair(), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        ours.set_nonblocking(true).unwrap();
        let mut link = Link::begin(ours.into(), server.local_addr().unwrap()).unwrap();
        let served = server.accept().unwrap().0;
        wait(&link, Side::Container, PollFlags::OUT);
        link.pump().unwrap();
        (client, link, served)
    }

    fn wait(link: &Link, side: Side, flags: PollFlags) {
        let mut fds = [PollFd::from_borrowed_fd(link.end(side), flags)];
        poll(&mut fds, None).unwrap();
    }

    #[test]
    fn what_a_server_has_answered_before_it_closes_is_delivered() {
        let (mut client, mut link, mut served) = link();
        client.write_all(b"much").unwrap();
        wait(&link, Side::Client, PollFlags::IN);
        link.pump().unwrap();
        // It answers without having read, and closes: the kernel resets the connection.
        poll(&mut [PollFd::new(&served, PollFlags::IN)], None).unwrap();
        served.write_all(&[7; 20_000]).unwrap();
        drop(served);
        wait(&link, Side::Container, PollFlags::HUP);
        client.write_all(b"more").unwrap();
        wait(&link, Side::Client, PollFlags::IN);
        for _ in 0..3 {
            link.pump().unwrap();
        }
        assert!(link.is_over());
        drop(link);
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, [7; 20_000]);
    }

    #[test]
    fn what_a_client_has_sent_before_it_goes_is_delivered() {
        let (mut client, mut link, mut served) = link();
        served.write_all(b"unread").unwrap();
        wait(&link, Side::Container, PollFlags::IN);
        link.pump().unwrap();
        poll(&mut [PollFd::new(&client, PollFlags::IN)], None).unwrap();
        client.write_all(b"last words").unwrap();
        drop(client);
        wait(&link, Side::Client, PollFlags::HUP);
        served.write_all(b"more").unwrap();
        wait(&link, Side::Container, PollFlags::IN);
        while link.pump().is_ok() && !link.is_over() {}
        drop(link);
        let mut heard = Vec::new();
        served.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"last words");
    }

    #[test]
    fn an_end_that_is_gone_without_a_word_is_asked() {
        let (_client, link, _served) = link();
        for side in [Side::Client, Side::Container] {
            assert!(sockopt::socket_keepalive(link.end(side)).unwrap());
            assert_eq!(sockopt::tcp_keepidle(link.end(side)).unwrap(), SILENCE);
        }
    }
}
