//! Connections of daemons: frames in, frames out.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use shim_api::frame::{Decoder, encode};
use shim_api::{Fact, Message, Request};

/// Bytes that wait for a daemon at most. One that reads nothing is disconnected: it can come back and ask.
const OUTGOING_MAX_BYTES: usize = 1 << 20;

/// Descriptors that wait for their frames at most.
const DESCRIPTORS_MAX: usize = 256;

/// Where daemons connect. The socket's file goes with it.
pub(crate) struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

/// Those of all daemons: rarely more than one.
#[derive(Default)]
pub(crate) struct Connections {
    pub(crate) all: Vec<Connection>,
    /// How many there have been.
    count: u64,
}

/// One daemon's connection.
pub(crate) struct Connection {
    /// Tells it apart from all others, also earlier ones.
    pub(crate) number: u64,
    socket: OwnedFd,
    decoder: Decoder,
    descriptors: VecDeque<OwnedFd>,
    outgoing: Vec<u8>,
    /// It gets facts.
    pub(crate) subscribed: bool,
    gone: bool,
}

impl Listener {
    /// Listens on `<dir>/shim.sock`, mode 0600. A socket left there by an earlier shim is replaced.
    pub(crate) fn open(dir: &Path) -> io::Result<Listener> {
        let path = shim_api::paths::socket(dir);
        stdx::fs::remove_if_exists(&path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // The directory may be deeper than a socket's path may be long: name it through our descriptor.
        let directory =
            rustix::fs::open(dir, rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
        let short = format!("/proc/self/fd/{}/shim.sock", std::os::fd::AsRawFd::as_raw_fd(&directory));
        // No moment in which somebody else could connect: the directory is 0700, and the umask covers the rest.
        let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(short.as_str())?);
        rustix::process::umask(umask);
        bound?;
        rustix::net::listen(&socket, 16)?;
        Ok(Listener { socket, path })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next daemon, if one waits. Others than root are turned away.
    pub(crate) fn accept(&self) -> Option<OwnedFd> {
        let socket = rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()?;
        let peer = sys::socket::peer(socket.as_fd()).ok()?;
        (peer.uid == 0).then_some(socket)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The daemon removes the directory anyway.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Connections {
    /// One more daemon; the socket must be non-blocking.
    pub(crate) fn add(&mut self, socket: OwnedFd) {
        self.count += 1;
        self.all.push(Connection::new(socket, self.count));
    }

    /// Whether everybody who is there has everything.
    pub(crate) fn are_flushed(&self) -> bool {
        self.all.iter().all(Connection::is_flushed)
    }

    /// To the one of that number; whether it is still there: its successor asks for itself.
    pub(crate) fn send_to(&mut self, number: u64, message: &Message) -> bool {
        let mut all = self.all.iter_mut();
        let connection = all.find(|connection| connection.number == number && !connection.is_gone());
        connection.map(|connection| connection.send(message)).is_some()
    }

    /// To all that said Hello.
    pub(crate) fn post(&mut self, fact: &Fact) {
        let message = Message::Fact(fact.clone());
        self.all.iter_mut().filter(|connection| connection.subscribed).for_each(|connection| connection.send(&message));
    }
}

impl Connection {
    fn new(socket: OwnedFd, number: u64) -> Connection {
        Connection {
            number,
            socket,
            decoder: Decoder::default(),
            descriptors: VecDeque::new(),
            outgoing: Vec::new(),
            subscribed: false,
            gone: false,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn interest(&self) -> PollFlags {
        if self.outgoing.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }

    /// Takes what came into the decoder.
    pub(crate) fn receive(&mut self) {
        let mut buffer = [0; 4096];
        let mut fds = Vec::new();
        loop {
            match sys::socket::receive(self.socket.as_fd(), &mut buffer, &mut fds) {
                Ok(count @ 1..) => self.decoder.push(&buffer[..count]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => {
                    self.gone = true;
                    break;
                }
            }
            self.descriptors.extend(fds.drain(..));
            self.gone |= self.descriptors.len() > DESCRIPTORS_MAX;
        }
    }

    /// The next request and its descriptors. One that makes no sense ends the connection.
    pub(crate) fn next_request(&mut self) -> Option<(Request, Vec<OwnedFd>)> {
        let request: Request = match self.decoder.next_message() {
            Ok(Some(request)) => request,
            Ok(None) => return None,
            Err(_) => {
                self.close();
                return None;
            }
        };
        let count = request.descriptors as usize;
        if count > self.descriptors.len() {
            self.close();
            return None;
        }
        let descriptors = self.descriptors.drain(..count).collect();
        Some((request, descriptors))
    }

    /// Frees the memory of requests that were answered: the first ones are large and never come again.
    pub(crate) fn trim(&mut self) {
        self.decoder.trim();
        self.descriptors.shrink_to_fit();
    }

    /// Sends a message, or keeps it until the daemon reads.
    pub(crate) fn send(&mut self, message: &Message) {
        self.outgoing.extend(encode(message));
        self.flush();
        if self.outgoing.len() > OUTGOING_MAX_BYTES {
            self.close();
        }
    }

    /// Sends a message with descriptors. False where a daemon that does not read leaves no room for it.
    pub(crate) fn send_with(&mut self, message: &Message, descriptors: &[OwnedFd]) -> bool {
        self.flush();
        if !self.outgoing.is_empty() || self.gone {
            return false;
        }
        let bytes = encode(message);
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let sent = sys::socket::send(self.socket.as_fd(), &bytes, &borrowed);
        // They went with the first byte.
        self.outgoing.extend(sent.iter().flat_map(|sent| &bytes[*sent..]));
        sent.is_ok()
    }

    pub(crate) fn flush(&mut self) {
        while !self.outgoing.is_empty() && !self.gone {
            match rustix::net::send(&self.socket, &self.outgoing, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => _ = self.outgoing.drain(..sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.close(),
            }
        }
        self.outgoing = Vec::new();
    }

    /// Whether everything was handed over, or nobody wants it.
    fn is_flushed(&self) -> bool {
        self.gone || self.outgoing.is_empty()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// The other end is closed.
    pub(crate) fn close(&mut self) {
        self.gone = true;
    }
}
