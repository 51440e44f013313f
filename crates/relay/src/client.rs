//! The daemon's end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::{Ask, LIST_MAX, MESSAGE_MAX, RULES_AT_ONCE, Reply, Rule, VERSION};

/// How many rules may go in one message: their ids are of 20 bytes, of 64 KiB.
const GONE_AT_ONCE: usize = 2048;

/// How long an answer may take, which the relay has at once unless it is stopped.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How many messages it may have before it has answered the first: it works on one while the next is written.
const AHEAD: usize = 4;

/// Why a relay did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It says so, and goes on.
    #[error("{0}")]
    Refused(String),
    /// It is gone, or does not answer.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where a rule's socket comes from that follows others.
#[derive(Clone, Debug)]
pub enum Source<'a> {
    /// This one listens.
    Socket(BorrowedFd<'a>),
    /// That of the rule of this id, which goes.
    Heir(String),
}

/// A connection to the relay. Its descriptor tells of the relay's end (`EPOLLRDHUP`).
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    /// The relay's version, as far as it has told.
    version: u32,
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Client {
    /// Speaks, or is about to connect: that, too, waits only as long as sending may take.
    fn new(socket: OwnedFd) -> io::Result<Client> {
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WITHIN))?;
        set_socket_timeout(&socket, Timeout::Send, Some(ANSWER_WITHIN))?;
        Ok(Client { socket, version: 1 })
    }

    /// A client, and the end that a relay of this build about to be started gets as descriptor 3.
    pub fn pair() -> io::Result<(Client, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Client { version: VERSION, ..Client::new(ours)? }, theirs))
    }

    /// Finds the relay of this directory; none if there is none. Blocks for five seconds at most while it takes nobody.
    pub fn find(dir: &Path) -> io::Result<Option<Client>> {
        let opened = rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let dir = match opened {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            opened => opened?,
        };
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let client = Client::new(socket)?;
        // The directory may be deeper than a socket's path may be long.
        let path = crate::socket_path(Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())));
        match rustix::net::connect(&client.socket, &SocketAddrUnix::new(path)?) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => Ok(None),
            connected => Ok(connected.map(|()| Some(client))?),
        }
    }

    /// Has a rule served, with a listening socket unless the relay has one for it. Blocks until the answer, as all questions do, five
    /// seconds at most: after that, as after every [`AskError::Io`], answers may come that belong to nothing, and this client is to go.
    pub fn put(&mut self, rule: &Rule, socket: Option<BorrowedFd<'_>>) -> Result<(), AskError> {
        self.ask(&Ask::Put(rule.clone()), socket.as_slice()).map(drop)
    }

    /// Has a rule served no longer, no error if it is not; whether the relay ends now. Blocks as [`Client::put`].
    pub fn remove(&mut self, id: &str) -> Result<bool, AskError> {
        Ok(self.ask(&Ask::Remove(id.to_owned()), &[])? == Reply::Ends)
    }

    /// [`Client::put`] of many, each with a socket. After an error some are served, perhaps. Blocks as that one, for each
    /// [`RULES_AT_ONCE`] of them.
    pub fn put_all(&mut self, rules: &[(Rule, BorrowedFd<'_>)]) -> Result<(), AskError> {
        if self.version < 2 {
            return rules.iter().try_for_each(|(rule, socket)| self.put(rule, Some(*socket)));
        }
        let mut put = Ok(());
        let mut unanswered = 0;
        for some in rules.chunks(RULES_AT_ONCE) {
            let (rules, sockets): (Vec<_>, Vec<_>) = some.iter().cloned().unzip();
            self.send(&Ask::PutAll(rules), &sockets)?;
            unanswered += 1;
            if unanswered == AHEAD {
                first_refusal(&mut put, self.hear())?;
                unanswered -= 1;
            }
        }
        // Of one that is refused, too, all answers are heard: the next question's would be taken for one of them.
        (0..unanswered).try_for_each(|_| first_refusal(&mut put, self.hear()))?;
        put
    }

    /// [`Client::remove`] of many.
    pub fn remove_all(&mut self, ids: &[String]) -> Result<bool, AskError> {
        let mut ends = false;
        if self.version < 2 {
            for id in ids {
                ends = self.remove(id)?;
            }
            return Ok(ends);
        }
        for some in ids.chunks(RULES_AT_ONCE) {
            ends = self.ask(&Ask::RemoveAll(some.to_vec()), &[])? == Reply::Ends;
        }
        Ok(ends)
    }

    /// Whether it can serve ranges; one of an earlier build cannot. Blocks as [`Client::put`].
    pub fn steers(&mut self) -> Result<bool, AskError> {
        match self.version {
            ..3 => Ok(false),
            _ => match self.ask(&Ask::Steer, &[]) {
                Err(AskError::Refused(_)) => Ok(false),
                asked => asked.map(|_| true),
            },
        }
    }

    /// Has other rules served instead of some. Connections through a port that leads where it did go on, but where more than
    /// [`RULES_AT_ONCE`] ranges come with a socket, or thousands of rules go. After an error nobody knows what is served. Blocks as
    /// [`Client::put_all`]. From version 3 on, and not for rules of UDP.
    pub fn replace(&mut self, gone: &[String], rules: &[(Rule, Source<'_>)]) -> Result<(), AskError> {
        // Those that go first may hand on neither socket nor connections, which is only so where thousands go.
        let (first, gone) = gone.split_at(gone.len().saturating_sub(GONE_AT_ONCE));
        if !first.is_empty() {
            self.remove_all(first)?;
        }
        let (mut put, mut inherit) = (Vec::new(), Vec::new());
        for (rule, source) in rules {
            match source {
                Source::Socket(socket) => put.push((rule.clone(), *socket)),
                Source::Heir(id) => inherit.push((rule.clone(), id.clone())),
            }
        }
        put.sort_by_key(|(rule, _)| rule.range.is_none());
        let rest = put.split_off(put.len().min(RULES_AT_ONCE));
        // Single ports of a range that goes have nothing to do as long as that one is there, and then its connections.
        let is_new = |rule: &Rule| rule.range.is_none() && !gone.contains(&rule.id);
        let (before, after): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(rule, _)| is_new(rule));
        self.put_all(&before)?;
        let (put, sockets): (Vec<_>, Vec<_>) = put.into_iter().unzip();
        self.ask(&Ask::Replace { gone: gone.to_vec(), put, inherit }, &sockets)?;
        self.put_all(&after)
    }

    /// What is served. Blocks as [`Client::put`], for each thousand of them.
    pub fn list(&mut self) -> Result<Vec<Rule>, AskError> {
        let mut all = Vec::new();
        let mut ask = Ask::List;
        loop {
            let (version, rules) = match self.ask(&ask, &[])? {
                Reply::Rules { version, rules } => (version, rules),
                reply => return Err(io::Error::other(format!("the relay's answer is {reply:?}")).into()),
            };
            self.version = version;
            let count = rules.len();
            all.extend(rules);
            match all.last() {
                // The first version has no more.
                Some(last) if version > 1 && count >= LIST_MAX => ask = Ask::ListBehind(last.id.clone()),
                _ => return Ok(all),
            }
        }
    }

    fn ask(&mut self, ask: &Ask, sockets: &[BorrowedFd<'_>]) -> Result<Reply, AskError> {
        self.send(ask, sockets)?;
        self.hear()
    }

    fn send(&mut self, ask: &Ask, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(ask)?;
        match sys::socket::send(self.socket.as_fd(), &bytes, sockets) {
            // One that has ended may have said why: the kernel tells of its end first.
            Err(err) if ended(&err) => Ok(()),
            sent => sent.map(drop),
        }
    }

    fn hear(&mut self) -> Result<Reply, AskError> {
        let mut answer = vec![0; MESSAGE_MAX];
        let mut receive = || sys::socket::receive(self.socket.as_fd(), &mut answer, &mut Vec::new());
        let length = match receive() {
            Err(err) if ended(&err) => receive()?,
            received => received?,
        };
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
        }
        match serde_json::from_slice(&answer[..length]).map_err(io::Error::from)? {
            Reply::Refused(reason) => Err(AskError::Refused(reason)),
            reply => Ok(reply),
        }
    }
}

fn ended(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Keeps what was refused first; fails with what tells of no refusal.
fn first_refusal(kept: &mut Result<(), AskError>, answer: Result<Reply, AskError>) -> Result<(), AskError> {
    match answer {
        Err(AskError::Refused(reason)) if kept.is_ok() => *kept = Err(AskError::Refused(reason)),
        Err(AskError::Io(err)) => return Err(AskError::Io(err)),
        Ok(_) | Err(AskError::Refused(_)) => {}
    }
    Ok(())
}
