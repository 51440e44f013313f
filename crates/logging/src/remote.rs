//! A server's socket under the writing thread: sends messages, connects again. Allocates only in [`Remote::open`].

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// How long a server may take to accept the first connection: the start of the container waits for that.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Where the server of this machine listens: the places, in this order, are those of Docker's library (srslog).
const LOCAL_PATHS: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// Why a server is not reached. The texts are Go's and dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// There is no server on this machine.
    #[error("Unix syslog delivery error")]
    NoSyslog,
    /// There is no journal on this machine.
    #[error("journald is not enabled on this host")]
    NoJournal,
    /// The name has no address.
    #[error("dial {network}: lookup {host}: no such host")]
    Lookup {
        /// `tcp` or `udp`.
        network: String,
        /// As given.
        host: String,
    },
    /// It says no, or nothing.
    #[error("dial {network} {address}: connect: {reason}")]
    Connect {
        /// `tcp`, `udp`, `unix` or `unixgram`.
        network: String,
        /// Where.
        address: String,
        /// In the words of the system.
        reason: String,
    },
}

/// A server's address.
enum Endpoint {
    Unix(SocketAddrUnix, SocketType),
    Inet(SocketAddr, SocketType),
}

/// A connection that is made again when it breaks.
pub(crate) struct Remote {
    endpoint: Endpoint,
    socket: Option<OwnedFd>,
    /// How much of the message in front has been sent on a stream.
    sent: usize,
    /// Messages that are too long for a datagram go as a file: the journal knows that.
    sends_files: bool,
}

/// What became of a message.
pub(crate) enum Sent {
    /// It went.
    Whole(usize),
    /// The rest of it has to go.
    Part,
    /// It never will: it is too long.
    Refused(usize),
}

impl Remote {
    /// Connects to a syslog server; answers also the address that it sees us at.
    pub(crate) fn syslog(network: &str, address: &str) -> Result<(Remote, String), DialError> {
        match network {
            "" => {
                let kinds = [SocketType::DGRAM, SocketType::STREAM];
                let places = kinds.into_iter().flat_map(|kind| LOCAL_PATHS.map(|path| (path, kind)));
                let mut found = places.filter_map(|(path, kind)| unix(Path::new(path), kind).ok());
                found.next().map(|remote| (remote, "localhost".to_owned())).ok_or(DialError::NoSyslog)
            }
            "unix" | "unixgram" => {
                let kind = if network == "unix" { SocketType::STREAM } else { SocketType::DGRAM };
                let remote = unix(Path::new(address), kind).map_err(|err| refused(network, address, &err.into()))?;
                // What Go prints for the address of a socket without a name.
                Ok((remote, "@".to_owned()))
            }
            _ => inet(network, address),
        }
    }

    /// Connects to the journal.
    pub(crate) fn journal(socket: &Path) -> Result<Remote, DialError> {
        let remote = unix(socket, SocketType::DGRAM).map_err(|_| DialError::NoJournal)?;
        Ok(Remote { sends_files: true, ..remote })
    }

    /// Sends the message, or goes on with it.
    pub(crate) fn send(&mut self, message: &[u8]) -> Result<Sent, Errno> {
        let fresh = self.socket.is_none();
        match self.try_send(message) {
            // The server may have been started again: one more try, and from the message's beginning.
            Err(_) if !fresh => {
                self.hang_up();
                self.try_send(message).inspect_err(|_| self.hang_up())
            }
            Err(err) => {
                self.hang_up();
                Err(err)
            }
            sent => sent,
        }
    }

    fn hang_up(&mut self) {
        self.socket = None;
        self.sent = 0;
    }

    fn try_send(&mut self, message: &[u8]) -> Result<Sent, Errno> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => self.socket.insert(self.endpoint.connect()?),
        };
        let rest = &message[self.sent..];
        match rustix::io::retry_on_intr(|| rustix::net::send(socket, rest, SendFlags::NOSIGNAL)) {
            Ok(count) if self.endpoint.is_stream() && count < rest.len() => {
                self.sent += count;
                Ok(Sent::Part)
            }
            Ok(_) => {
                self.sent = 0;
                Ok(Sent::Whole(message.len()))
            }
            Err(Errno::MSGSIZE | Errno::NOBUFS) if self.sends_files => {
                send_file(socket, message)?;
                Ok(Sent::Whole(message.len()))
            }
            Err(Errno::MSGSIZE) => Ok(Sent::Refused(message.len())),
            Err(err) => Err(err),
        }
    }
}

impl Endpoint {
    fn is_stream(&self) -> bool {
        matches!(self, Endpoint::Unix(_, kind) | Endpoint::Inet(_, kind) if *kind == SocketType::STREAM)
    }

    fn connect(&self) -> Result<OwnedFd, Errno> {
        let socket = |family, kind| rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None);
        match self {
            Endpoint::Unix(address, kind) => {
                let socket = socket(AddressFamily::UNIX, *kind)?;
                rustix::net::connect(&socket, address)?;
                Ok(socket)
            }
            Endpoint::Inet(address, kind) => {
                let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let socket = socket(family, *kind)?;
                rustix::net::connect(&socket, address)?;
                Ok(socket)
            }
        }
    }
}

fn unix(path: &Path, kind: SocketType) -> Result<Remote, Errno> {
    let endpoint = Endpoint::Unix(SocketAddrUnix::new(path)?, kind);
    let socket = Some(endpoint.connect()?);
    Ok(Remote { endpoint, socket, sent: 0, sends_files: false })
}

fn inet(network: &str, address: &str) -> Result<(Remote, String), DialError> {
    let host = || address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
    let lookup = || DialError::Lookup { network: network.to_owned(), host: host() };
    let mut addresses = address.to_socket_addrs().map_err(|_| lookup())?;
    let server = addresses.next().ok_or_else(lookup)?;
    let failed = |err: io::Error| refused(network, &server.to_string(), &err);
    let (socket, kind): (OwnedFd, _) = if network == "udp" {
        let socket = Endpoint::Inet(server, SocketType::DGRAM).connect().map_err(|err| failed(err.into()))?;
        (socket, SocketType::DGRAM)
    } else {
        (TcpStream::connect_timeout(&server, CONNECT_WITHIN).map_err(failed)?.into(), SocketType::STREAM)
    };
    let own = rustix::net::getsockname(&socket).map_err(|err| failed(err.into()))?;
    let own = SocketAddr::try_from(own).map(|own| own.to_string()).map_err(|err| failed(err.into()))?;
    Ok((Remote { endpoint: Endpoint::Inet(server, kind), socket: Some(socket), sent: 0, sends_files: false }, own))
}

fn refused(network: &str, address: &str, err: &io::Error) -> DialError {
    let text = err.to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    // Go writes the words of the system small.
    let reason = words.chars().take(1).flat_map(char::to_lowercase).chain(words.chars().skip(1)).collect();
    DialError::Connect { network: network.to_owned(), address: address.to_owned(), reason }
}

/// A message that is too long for a datagram, in a file without a name (systemd.io, JOURNAL_NATIVE_PROTOCOL).
fn send_file(socket: &OwnedFd, message: &[u8]) -> Result<(), Errno> {
    let file = rustix::fs::memfd_create(c"journal", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = message;
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
        rest = &rest[written..];
    }
    // The journal reads only what cannot change any more.
    use rustix::fs::SealFlags;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [file.as_fd()];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::INVAL);
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&[])], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}
