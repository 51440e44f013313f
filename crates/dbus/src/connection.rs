//! A connection: the greeting, calls, signals.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::wire::{Body, Call, HEAD_BYTES, Kind, Received, Value, length};

/// Why a call was not answered, or with no.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Nobody is at the socket.
    #[error("connect")]
    Connect(#[source] io::Error),
    /// Whoever is there does not take us in.
    #[error("greet")]
    Greet(#[source] io::Error),
    /// The connection broke, or nobody answered in time. It is of no more use.
    #[error("send or receive a message")]
    Call(#[source] io::Error),
    /// What came is no message that we read. The connection is of no more use.
    #[error("what came is no message")]
    Protocol,
    /// The answer is an error.
    #[error("{member} is refused: {name}: {text}")]
    Refused {
        /// The method.
        member: String,
        /// The error's name.
        name: String,
        /// What it says.
        text: String,
    },
}

impl BusError {
    /// Whether it is the answer with the error whose name ends so.
    pub fn is(&self, error: &str) -> bool {
        matches!(self, BusError::Refused { name, .. } if name.rsplit('.').next() == Some(error))
    }
}

/// A signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Its name, without the interface's.
    pub member: String,
    /// The texts that it brings.
    pub texts: Vec<String>,
}

/// A connection, ready for calls. Its descriptor is readable when a message is there that was not read.
#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    serial: u32,
    deadline: Instant,
    /// Those that came before the answer that was waited for.
    signals: VecDeque<Signal>,
}

/// More than a line of the greeting ever is.
const LINE_MAX: usize = 1024;

const BUS: &str = "org.freedesktop.DBus";

impl Connection {
    /// Connects to a bus, or to somebody who listens himself, and who wants no greeting but the proof of who we are.
    /// All that is asked for has to be answered by the deadline.
    pub fn open(path: &Path, is_bus: bool, deadline: Instant) -> Result<Connection, BusError> {
        let socket = connect(path, deadline).map_err(|err| match err.kind() {
            io::ErrorKind::WouldBlock => BusError::Greet(io::ErrorKind::TimedOut.into()),
            _ => BusError::Connect(err),
        })?;
        let mut connection = Connection { socket, serial: 0, deadline, signals: VecDeque::new() };
        connection.authenticate().map_err(BusError::Greet)?;
        if is_bus {
            connection.bus("Hello", &[]).map_err(|err| BusError::Greet(io::Error::other(err)))?;
        }
        Ok(connection)
    }

    /// By when what is asked for from now on has to be answered.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Proves who we are (D-Bus specification, "Authentication Protocol", EXTERNAL: the socket knows).
    fn authenticate(&mut self) -> io::Result<()> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        // All at once, as systemd's own clients do: a message that comes to its socket together with BEGIN is looked at
        // only when something else happens there (seen with 252).
        self.send(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.receive(&mut byte)?;
            line.push(byte[0]);
            if line.len() > LINE_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        if !line.starts_with(b"OK ") {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    }

    /// Asks a bus for the signals that a rule is about (D-Bus specification, "Match Rules").
    pub fn subscribe(&mut self, rule: String) -> Result<(), BusError> {
        self.bus("AddMatch", &[Value::Text(rule)]).map(drop)
    }

    /// A method of the bus itself (D-Bus specification, "Message Bus Messages").
    pub fn bus(&mut self, member: &str, body: &[Value]) -> Result<Body, BusError> {
        self.call(&Call { destination: BUS, path: "/org/freedesktop/DBus", interface: BUS, member, body })
    }

    /// Calls a method, and answers what comes back.
    pub fn call(&mut self, call: &Call<'_>) -> Result<Body, BusError> {
        self.serial += 1;
        let serial = self.serial;
        self.send(&call.message(serial)).map_err(BusError::Call)?;
        loop {
            let received = self.next()?;
            match received.kind {
                Kind::Answer(to) if to == serial => return Ok(received.body),
                Kind::Error(to, name) if to == serial => {
                    let text = received.body.texts.into_iter().next().unwrap_or_default();
                    return Err(BusError::Refused { member: call.member.to_owned(), name, text });
                }
                Kind::Signal(member) => self.signals.push_back(Signal { member, texts: received.body.texts }),
                _ => {}
            }
        }
    }

    /// The signals that came before answers, in their order; afterwards none is kept.
    pub fn kept_signals(&mut self) -> impl Iterator<Item = Signal> + use<'_> {
        self.signals.drain(..)
    }

    /// Waits for the next message; answers it if it is a signal.
    pub fn read(&mut self) -> Result<Option<Signal>, BusError> {
        let received = self.next()?;
        Ok(match received.kind {
            Kind::Signal(member) => Some(Signal { member, texts: received.body.texts }),
            _ => None,
        })
    }

    fn next(&mut self) -> Result<Received, BusError> {
        let mut head = [0; HEAD_BYTES];
        self.receive(&mut head).map_err(BusError::Call)?;
        let length = length(&head).ok_or(BusError::Protocol)?;
        let mut message = head.to_vec();
        message.resize(length, 0);
        self.receive(&mut message[HEAD_BYTES..]).map_err(BusError::Call)?;
        Received::parse(&message).ok_or(BusError::Protocol)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.socket.set_write_timeout(Some(self.left()?))?;
            match self.socket.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                sent => rest = &rest[unless_interrupted(sent)?..],
            }
        }
        Ok(())
    }

    /// Until the deadline, however little comes at a time.
    fn receive(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut had = 0;
        while had < bytes.len() {
            self.socket.set_read_timeout(Some(self.left()?))?;
            match self.socket.read(&mut bytes[had..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => had += unless_interrupted(read)?,
            }
        }
        Ok(())
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// A signal handler is no reason to give up.
fn unless_interrupted(moved: io::Result<usize>) -> io::Result<usize> {
    match moved {
        Err(err) if err.kind() == io::ErrorKind::Interrupted => Ok(0),
        moved => moved,
    }
}

/// Connects by the deadline: whoever listens and does not take anybody in lets others wait once some are waiting.
fn connect(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // connect(2) of such sockets waits as long as sending may take.
    set_socket_timeout(&socket, Timeout::Send, Some(deadline.saturating_duration_since(Instant::now())))?;
    let address = SocketAddrUnix::new(path)?;
    rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address))?;
    Ok(socket.into())
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const DEADLINE: Duration = Duration::from_millis(300);
    const FAR: Duration = Duration::from_secs(10);

    fn open(path: &Path) -> (BusError, Duration) {
        let begun = Instant::now();
        let err = Connection::open(path, true, begun + DEADLINE).unwrap_err();
        (err, begun.elapsed())
    }

    #[test]
    fn who_answers_byte_by_byte_is_given_up_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let mut client = listener.accept().unwrap().0;
            while client.write_all(b"O").is_ok() {
                std::thread::sleep(DEADLINE / 10);
            }
        });
        let (err, took) = open(&path);
        assert!(matches!(err, BusError::Greet(_)) && took < FAR, "{err:?} {took:?}");
    }

    #[test]
    fn who_takes_nobody_in_is_given_up_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bus");
        let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first_in_line = UnixStream::connect(&path).unwrap();
        let (err, took) = open(&path);
        assert!(matches!(err, BusError::Greet(_)) && took < FAR, "{err:?} {took:?}");
    }
}
