//! One relayed connection: two sockets and a pipe for each direction.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags, splice};

/// What goes from one end to the other at a time: the size of a pipe.
const PIECE: usize = 64 << 10;
/// How many pieces go before others have their turn.
const TURNS: usize = 16;

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

    /// Moves what can be moved. An error is the end of the connection.
    pub(crate) fn pump(&mut self) -> Result<(), Errno> {
        if !self.connected {
            match sockopt::socket_error(&self.container)? {
                Ok(()) if rustix::net::getpeername(&self.container).is_ok() => self.connected = true,
                Ok(()) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        self.inward.pump(&self.client, &self.container)?;
        self.outward.pump(&self.container, &self.client)
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
        Ok(Direction { out_of_pipe, into_pipe, waiting: 0, ended: false, told: false })
    }

    fn pump(&mut self, from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        for _ in 0..TURNS {
            if self.waiting == 0 && !self.ended {
                match retry(|| splice(from, None, &self.into_pipe, None, PIECE, flags)) {
                    Ok(0) => self.ended = true,
                    Ok(length) => self.waiting = length,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(errno) => return Err(errno),
                }
            }
            if self.waiting > 0 {
                match retry(|| splice(&self.out_of_pipe, None, to, None, self.waiting, flags)) {
                    Ok(length) => self.waiting -= length.min(self.waiting),
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(errno) => return Err(errno),
                }
            }
            if self.ended && self.waiting == 0 {
                if !self.told {
                    self.told = true;
                    return rustix::net::shutdown(to, Shutdown::Write);
                }
                return Ok(());
            }
        }
        Ok(())
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    rustix::io::retry_on_intr(&mut call)
}
