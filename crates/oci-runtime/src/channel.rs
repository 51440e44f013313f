//! What parent and child say to each other while a process is made.
//!
//! ```text
//! child                                   parent
//!   |  BORN (with the process's pidfd)       |     only exec: the usher has made the process
//!   |--------------------------------------->|
//!   |  CONSOLE (with the terminal's master)  |     only with a terminal
//!   |--------------------------------------->|
//!   |                                     GO |     only with a user namespace: its ids are mapped,
//!   |<---------------------------------------|
//!   |                     GIVEN (with a tree)|     and these are its parts of the host's
//!   |<---------------------------------------|
//!   |  MADE                                  |     only with hooks: the parent runs its own,
//!   |--------------------------------------->|
//!   |                                     GO |     then the child goes on
//!   |<---------------------------------------|
//!   |  READY | FAILED reason                 |
//!   |--------------------------------------->|
//!   |                                  START |     exec: at once; the first process: Container::start
//!   |<---------------------------------------|
//!   |  end of stream: execve                 |
//!   |  FAILED reason                         |     only the first process, whose execve has failed
//!   |--------------------------------------->|
//! ```
//!
//! A sequenced-packet pair, so that a message is whole or absent. Both ends are close-on-exec. If the parent dies before
//! START the child reads the end of the stream and ends, too. For a parent that ends before its container, START comes through
//! a FIFO instead ([`crate::Handover`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Pid;
use sys::fork::Child;

use crate::error::{ProcessError, Step, SystemError};

const BORN: u8 = b'B';
const CONSOLE: u8 = b'C';
const MADE: u8 = b'M';
const LISTENER: u8 = b'L';
const SEND: u8 = b'D';
const GO: u8 = b'G';
const GIVEN: u8 = b'T';
const READY: u8 = b'R';
const FAILED: u8 = b'F';
const START: u8 = b'S';

/// The longest message: a reason with a path. What is longer is cut.
const MESSAGE_BYTES: usize = 4096 + 64;

/// A failure in the child, in the form in which it travels.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) errno: i32,
    pub(crate) subject: String,
}

/// Which [`ProcessError`] a failure becomes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason {
    NotInPath,
    Stat,
    NotExecutable,
    IsDirectory,
    Cwd,
    Rlimit(u8),
    Hook,
    /// The subject is a field with what was tried.
    Refused,
    Mount(Step),
    Step(Step),
    Execute,
    /// The subject is the program, a zero and the interpreter.
    Interpreter,
    /// The subject is what the fields say, a zero, what is mounted, a zero and the place.
    Sides,
}

impl Reason {
    fn bytes(self) -> [u8; 2] {
        match self {
            Reason::NotInPath => [0, 0],
            Reason::Stat => [1, 0],
            Reason::NotExecutable => [2, 0],
            Reason::IsDirectory => [3, 0],
            Reason::Cwd => [4, 0],
            Reason::Rlimit(number) => [5, number],
            Reason::Mount(step) => [6, step as u8],
            Reason::Step(step) => [7, step as u8],
            Reason::Hook => [8, 0],
            Reason::Refused => [9, 0],
            Reason::Execute => [10, 0],
            Reason::Interpreter => [11, 0],
            Reason::Sides => [12, 0],
        }
    }
}

impl Failure {
    fn error(reason: [u8; 2], errno: i32, subject: String) -> ProcessError {
        let source = SystemError(io::Error::from_raw_os_error(errno));
        let step = Step::from_byte(reason[1]).unwrap_or(Step::Report);
        match reason[0] {
            0 => ProcessError::NotInPath { name: subject },
            1 => ProcessError::Stat { path: subject, source },
            2 => ProcessError::NotExecutable { path: subject },
            3 => ProcessError::IsDirectory { path: subject },
            4 => ProcessError::Cwd { path: subject, source },
            5 => ProcessError::Rlimit { number: reason[1], field: subject, source },
            6 => ProcessError::Mount { place: subject, step, source },
            8 => ProcessError::Hook { text: subject },
            9 => ProcessError::Refused { text: subject, source },
            10 => ProcessError::Execute { path: subject, source },
            11 => {
                let (path, interpreter) = subject.split_once('\0').unwrap_or((&subject, ""));
                ProcessError::Interpreter { path: path.to_owned(), interpreter: interpreter.to_owned(), source }
            }
            12 => {
                let mut parts = subject.split('\0').map(str::to_owned);
                let mut part = || parts.next().unwrap_or_default();
                ProcessError::Sides { text: part(), mounted: part(), place: part(), source }
            }
            _ => ProcessError::Step { step, subject, source },
        }
    }
}

/// Says which step of the child a failure belongs to.
pub(crate) trait At<T> {
    /// For steps with a subject of their own.
    fn at(self, step: Step, subject: &str) -> Result<T, Failure>;
    /// For what a field asks for: its full name, and what was tried.
    fn asked(self, field: &str, what: impl std::fmt::Display) -> Result<T, Failure>;
    /// For any other reason.
    fn because(self, reason: Reason, subject: &str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: Step, subject: &str) -> Result<T, Failure> {
        self.because(Reason::Step(step), subject)
    }

    fn asked(self, field: &str, what: impl std::fmt::Display) -> Result<T, Failure> {
        self.map_err(Into::into)
            .or_else(|err: io::Error| Err(err).because(Reason::Refused, &format!("{field}: {what}")))
    }

    fn because(self, reason: Reason, subject: &str) -> Result<T, Failure> {
        self.map_err(|err| {
            let errno = err.into().raw_os_error().unwrap_or(Errno::IO.raw_os_error());
            Failure { reason, errno, subject: subject.to_owned() }
        })
    }
}

/// Where the listener of a process's filter is.
#[derive(Debug)]
pub(crate) enum Offer {
    /// At this descriptor of its own.
    At(i32),
    /// Here.
    Sent(OwnedFd),
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(pub(crate) OwnedFd);

/// One message of the child.
#[derive(Debug)]
pub(crate) enum Message {
    /// A process was made: its number, as the parent sees it, and its pidfd.
    Born(Pid, OwnedFd),
    /// The terminal's master.
    Console(OwnedFd),
    /// Everything is mounted, nothing is hidden yet: it waits for [`Channel::send_go`].
    Made,
    /// Its filter has a listener: it waits for [`Channel::send_go`], or [`Channel::ask_for_listener`].
    Listener(Offer),
    /// It waits at its gate.
    Ready,
    /// It gave up and ends.
    Failed(ProcessError),
    /// It is gone without a word.
    Gone,
}

impl Channel {
    /// Parent's end, child's end.
    pub(crate) fn pair() -> io::Result<(Channel, Channel)> {
        let (parent, child) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel(parent), Channel(child)))
    }

    pub(crate) fn send_born(&self, child: &Child) -> io::Result<()> {
        let [a, b, c, d] = child.pid.as_raw_nonzero().get().to_ne_bytes();
        sys::socket::send(self.0.as_fd(), &[BORN, a, b, c, d], &[child.pidfd.as_fd()]).map(drop)
    }

    pub(crate) fn send_console(&self, master: &OwnedFd) -> Result<(), Failure> {
        sys::socket::send(self.0.as_fd(), &[CONSOLE], &[master.as_fd()]).map(drop).at(Step::Report, "")
    }

    /// Says MADE and waits for GO. A parent that ends instead has told the reason itself.
    pub(crate) fn send_made(&self) -> Result<(), Failure> {
        sys::socket::send(self.0.as_fd(), &[MADE], &[]).at(Step::Report, "")?;
        self.wait_for_go()
    }

    /// Says where its filter's listener is, and waits until the parent has it. With write(2): any other call may be one
    /// that waits for the listener.
    pub(crate) fn send_listener(&self, listener: &OwnedFd) -> Result<(), Failure> {
        let [a, b, c, d] = listener.as_raw_fd().to_ne_bytes();
        rustix::io::write(&self.0, &[LISTENER, a, b, c, d]).at(Step::Report, "")?;
        if self.read_answer()? == SEND {
            sys::socket::send(self.0.as_fd(), &[LISTENER], &[listener.as_fd()]).at(Step::Report, "")?;
            self.read_answer()?;
        }
        Ok(())
    }

    /// Waits for GO.
    pub(crate) fn wait_for_go(&self) -> Result<(), Failure> {
        self.read_answer().map(drop)
    }

    fn read_answer(&self) -> Result<u8, Failure> {
        let mut byte = [0];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut byte)).at(Step::Report, "")?;
        match byte {
            [answer @ (GO | SEND)] if read == 1 => Ok(answer),
            _ => Err(Errno::PIPE).at(Step::Report, ""),
        }
    }

    /// Lets the process send what could not be taken from it.
    pub(crate) fn ask_for_listener(&self) -> io::Result<()> {
        sys::socket::send(self.0.as_fd(), &[SEND], &[]).map(drop)
    }

    pub(crate) fn send_go(&self) -> io::Result<()> {
        sys::socket::send(self.0.as_fd(), &[GO], &[]).map(drop)
    }

    pub(crate) fn send_tree(&self, tree: BorrowedFd<'_>) -> io::Result<()> {
        sys::socket::send(self.0.as_fd(), &[GIVEN], &[tree]).map(drop)
    }

    /// Waits for the next GIVEN.
    pub(crate) fn receive_tree(&self) -> Result<OwnedFd, Failure> {
        let (mut byte, mut fds) = ([0], Vec::new());
        sys::socket::receive(self.0.as_fd(), &mut byte, &mut fds).at(Step::Report, "")?;
        fds.pop().filter(|_| byte[0] == GIVEN).ok_or(Errno::PIPE).at(Step::Report, "")
    }

    pub(crate) fn send_ready(&self) -> Result<(), Failure> {
        sys::socket::send(self.0.as_fd(), &[READY], &[]).map(drop).at(Step::Report, "")
    }

    /// That the parent does not hear it means that it is gone; then there is nobody to tell.
    pub(crate) fn send_failure(&self, failure: &Failure) {
        let mut message = vec![FAILED];
        message.extend(failure.reason.bytes());
        message.extend(failure.errno.to_ne_bytes());
        message.extend(failure.subject.bytes().take(MESSAGE_BYTES - message.len()));
        let _ = sys::socket::send(self.0.as_fd(), &message, &[]);
    }

    /// The next message; blocks until there is one.
    pub(crate) fn receive(&self) -> io::Result<Message> {
        let (mut buffer, mut fds) = ([0; MESSAGE_BYTES], Vec::new());
        let length = sys::socket::receive(self.0.as_fd(), &mut buffer, &mut fds)?;
        match (&buffer[..length], fds.pop()) {
            ([], _) => Ok(Message::Gone),
            ([BORN, pid @ ..], Some(pidfd)) => {
                let pid = pid.try_into().ok().and_then(|pid| Pid::from_raw(i32::from_ne_bytes(pid)));
                Ok(Message::Born(pid.ok_or(io::ErrorKind::InvalidData)?, pidfd))
            }
            ([CONSOLE], Some(master)) => Ok(Message::Console(master)),
            ([MADE], _) => Ok(Message::Made),
            ([LISTENER], Some(listener)) => Ok(Message::Listener(Offer::Sent(listener))),
            ([LISTENER, number @ ..], _) => {
                let number = number.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
                Ok(Message::Listener(Offer::At(i32::from_ne_bytes(number))))
            }
            ([READY], _) => Ok(Message::Ready),
            ([FAILED, kind, detail, a, b, c, d, subject @ ..], _) => {
                let errno = i32::from_ne_bytes([*a, *b, *c, *d]);
                let subject = String::from_utf8_lossy(subject).into_owned();
                Ok(Message::Failed(Failure::error([*kind, *detail], errno, subject)))
            }
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    }

    pub(crate) fn send_start(&self) -> io::Result<()> {
        sys::socket::send(self.0.as_fd(), &[START], &[]).map(drop)
    }
}

/// Opens the gate of a container that was handed over: `gate` is the FIFO of [`crate::Handover`], open for writing.
pub fn open_gate(gate: impl AsFd) -> io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::io::write(gate.as_fd(), &[START])).map(drop)?;
    Ok(())
}

/// Waits for START on the child's end; false if the parent is gone.
pub(crate) fn wait_for_start(channel: impl AsFd) -> bool {
    let mut byte = [0];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(channel.as_fd(), &mut byte));
    read.is_ok() && byte[0] == START
}
