//! An attached client: what it gets, what it sends.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use logging::Stream;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown};
use shim_api::Attach;

use crate::detach::Matcher;
use crate::queue::Queue;
use crate::unread::Unread;

/// A client that is full and reads nothing for this long is disconnected: until then it holds the container up.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// What a client of a process that is gone has not read goes into its socket, if it is no more than so many bytes: there it
/// stays for as long as the client lives, who may be a pager, and the shim ends. It is memory that the kernel cannot swap.
const LEFT_IN_SOCKET_MAX_BYTES: u64 = 8 << 20;

/// More than that is kept for so long after the client read something. Somebody who never reads must not keep the shim.
const ABANDONED_AFTER: Duration = Duration::from_secs(120);

/// A client that has read nothing for this long lags: the news of the exit does not wait for it.
const LAGGING_AFTER: Duration = Duration::from_millis(500);

/// How long the daemon may hold a client back, whose queue can hold the container up meanwhile.
const HELD_MAX: Duration = Duration::from_secs(10);

/// The news of the exit waits so long for the release of a client: of what an exec printed there is no log to read it in.
const HELD_DELAYS_EXIT: Duration = Duration::from_secs(2);

/// The news of the exit waits so long for a client that has everything in its socket and has not read it. One that reads at
/// once is never waited for, one that never reads costs this; clients may hang up when they hear of the exit (dockerode does
/// so), and would lose what they have not read.
const LINGERS: Duration = Duration::from_millis(100);

/// One client's connection.
pub(crate) struct Client {
    socket: OwnedFd,
    wants: Attach,
    queue: Queue,
    greeting: Greeting,
    matcher: Matcher,
    progress_at: Instant,
    /// It has shut down its sending side.
    input_ended: bool,
    hold: Option<Hold>,
    phase: Phase,
}

/// The daemon has something to send first.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hold {
    number: u64,
    until: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Nothing more comes: it is closed when the queue is empty.
    Finishing {
        since: Instant,
    },
    /// It has the end of its stream; only the news of the exit still waits for it to read.
    Lingering {
        until: Instant,
    },
    Gone,
}

/// Whether the client has read the head of the answer; behind the end of the stream, whether it has read everything.
///
/// A client may read the head with a reader of its own and go on with the bare connection: output that lies beside the head
/// then is lost to it (the Python SDK does so: docker/api/client.py, `_get_raw_response_socket`). Docker is too slow for that.
enum Greeting {
    /// It may not have been read; nobody has looked.
    Sent,
    /// It is being waited for.
    Awaited(Unread),
    /// It has been read, or nobody can tell.
    Taken,
}

impl Greeting {
    /// Whether the client behind `socket` has read the head; begins to wait for it if it has not.
    fn is_taken(&mut self, socket: &OwnedFd) -> bool {
        let still = match self {
            Greeting::Taken => return true,
            Greeting::Sent => Unread::watch(socket.as_fd()),
            Greeting::Awaited(unread) => match unread.is_read(socket.as_fd()) {
                true => Ok(None),
                false => return false,
            },
        };
        // What cannot be waited for is not: most clients lose nothing.
        *self = still.ok().flatten().map_or(Greeting::Taken, Greeting::Awaited);
        matches!(self, Greeting::Taken)
    }
}

/// What a client sent.
pub(crate) enum Received {
    /// Input for the process, after a look for the detach keys.
    Input(Vec<u8>),
    /// As before, and then the detach keys.
    Detached(Vec<u8>),
    /// Its input has ended. Told once.
    Ended,
    /// Nothing now, or nothing that counts.
    Nothing,
}

impl Client {
    pub(crate) fn new(socket: OwnedFd, mut wants: Attach, terminal: bool) -> Client {
        let keys = std::mem::take(&mut wants.detach_keys);
        let matcher = Matcher::new(if terminal { keys } else { Vec::new() });
        let progress_at = Instant::now();
        let hold = wants.hold.map(|number| Hold { number, until: progress_at + HELD_MAX });
        let (queue, greeting, phase) = (Queue::default(), Greeting::Sent, Phase::Open);
        Client { socket, wants, queue, greeting, matcher, progress_at, input_ended: false, hold, phase }
    }

    /// Sends what comes before all output, as far as the client takes it at once; keeps the rest.
    pub(crate) fn greet(&mut self, spool_dir: &Path) {
        let preamble = std::mem::take(&mut self.wants.preamble);
        if preamble.is_empty() {
            return;
        }
        let sent = if self.hold.is_none() { self.send_now(&[], &preamble) } else { 0 };
        if sent < preamble.len() {
            self.queue.push(&preamble[sent..], spool_dir);
        }
    }

    /// Whether the daemon has something to send before.
    pub(crate) fn is_held(&self) -> bool {
        self.hold.is_some()
    }

    /// Lets it go if this is the one that is held by that number; whether it is.
    pub(crate) fn release(&mut self, number: u64, already_read: &[u8]) -> bool {
        let found = self.hold.is_some_and(|hold| hold.number == number) && self.phase != Phase::Gone;
        if found {
            self.hold = None;
            self.progress_at = Instant::now();
            self.wants.already_read.extend_from_slice(already_read);
            self.flush();
            if matches!(self.phase, Phase::Finishing { .. }) {
                self.leave_in_socket();
            }
        }
        found
    }

    /// The shim ends: who is held is the daemon's again.
    pub(crate) fn drop_held(&mut self) {
        if self.hold.is_some() {
            self.phase = Phase::Gone;
        }
    }

    /// What the daemon had read already, as if it came now. Once.
    pub(crate) fn take_already_read(&mut self) -> Received {
        let bytes = std::mem::take(&mut self.wants.already_read);
        if self.wants.stdin { typed(&mut self.matcher, &bytes) } else { Received::Nothing }
    }

    /// Sends output if the client wants that stream, as far as it takes it at once; keeps the rest.
    pub(crate) fn send(&mut self, stream: Stream, bytes: &[u8], framed: bool, spool_dir: &Path) {
        let wanted = match stream {
            Stream::Stdout => self.wants.stdout,
            Stream::Stderr => self.wants.stderr,
        };
        if !wanted || bytes.is_empty() || self.phase != Phase::Open {
            return;
        }
        let header = if self.wants.framed.unwrap_or(framed) { &frame_header(stream, bytes.len())[..] } else { &[] };
        let now = self.queue.is_empty() && self.hold.is_none() && self.greeting.is_taken(&self.socket);
        let sent = if now { self.send_now(header, bytes) } else { 0 };
        for part in [&header[sent.min(header.len())..], &bytes[sent.saturating_sub(header.len())..]] {
            if !part.is_empty() {
                self.queue.push(part, spool_dir);
            }
        }
    }

    /// Sends what was kept, as far as the client takes it.
    pub(crate) fn flush(&mut self) {
        if self.hold.is_some() || (!self.queue.is_empty() && !self.greeting.is_taken(&self.socket)) {
            return;
        }
        while self.phase != Phase::Gone && !self.queue.is_empty() {
            match send(&self.socket, self.queue.front(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.queue.consume(sent);
                    self.progress_at = Instant::now();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.phase = Phase::Gone,
            }
        }
        if matches!(self.phase, Phase::Finishing { .. }) {
            self.close();
        }
    }

    /// Reads at most as much as `buffer` holds.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Received {
        match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                let first = !std::mem::replace(&mut self.input_ended, true);
                if first && self.wants.stdin { Received::Ended } else { Received::Nothing }
            }
            Ok((count, _)) if self.wants.stdin => typed(&mut self.matcher, &buffer[..count]),
            // Docker, too, ignores what a client sends that did not ask for input.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
            Err(_) => {
                self.phase = Phase::Gone;
                if self.gives_input_end() { Received::Ended } else { Received::Nothing }
            }
        }
    }

    /// The other end is closed altogether. Whether that ends the input, too.
    pub(crate) fn hang_up(&mut self) -> bool {
        self.phase = Phase::Gone;
        self.gives_input_end()
    }

    /// Nothing more comes for it.
    pub(crate) fn finish(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Finishing { since: Instant::now() };
        }
        self.flush();
        self.leave_in_socket();
    }

    /// Puts everything that is left into the socket, if it is not too much.
    fn leave_in_socket(&mut self) {
        let left = self.queue.len_bytes();
        if self.hold.is_some() || left == 0 || left > LEFT_IN_SOCKET_MAX_BYTES {
            return;
        }
        // Beyond the limit of the system, for which root may ask (socket(7)); twice as much, because the kernel counts its own
        // structures. Where we may not, the client has its time.
        let size = usize::try_from(2 * left).unwrap_or(usize::MAX);
        if rustix::net::sockopt::set_socket_send_buffer_size_force(&self.socket, size).is_ok() {
            self.flush();
        }
    }

    /// What to await on [`Client::fd`]; `None` if not even its hanging up is to be noticed. `input_room` tells whether input
    /// can be passed on.
    pub(crate) fn interest(&self, input_room: bool) -> Option<PollFlags> {
        let flags = self.flags(input_room);
        let gives_input = self.wants.stdin && !self.input_ended && self.phase == Phase::Open;
        match self.phase {
            // What we have shut down ourselves is hung up for good.
            Phase::Lingering { .. } => None,
            // A client that went away behind input which the process has yet to take is left alone until then.
            _ => (!flags.is_empty() || !gives_input).then_some(flags),
        }
    }

    fn flags(&self, input_room: bool) -> PollFlags {
        let mut flags = PollFlags::empty();
        if self.hold.is_some() {
            return flags;
        }
        if !self.input_ended && (input_room || !self.wants.stdin) {
            flags |= PollFlags::IN;
        }
        if !self.queue.is_empty() && !matches!(self.greeting, Greeting::Awaited(_)) {
            flags |= PollFlags::OUT;
        }
        flags
    }

    /// What becomes readable when [`Client::greeted`] has something to do, though the connection may have had room all the time.
    pub(crate) fn awaited(&self) -> Option<BorrowedFd<'_>> {
        match &self.greeting {
            Greeting::Awaited(unread) if self.phase != Phase::Gone => Some(unread.fd()),
            _ => None,
        }
    }

    /// It has read something.
    pub(crate) fn greeted(&mut self) {
        if matches!(self.phase, Phase::Lingering { .. }) && self.greeting.is_taken(&self.socket) {
            self.phase = Phase::Gone;
        }
        self.flush();
        if matches!(self.phase, Phase::Finishing { .. }) {
            self.leave_in_socket();
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Whether the process must wait for it.
    pub(crate) fn holds_up(&self) -> bool {
        self.phase == Phase::Open && self.queue.is_full()
    }

    /// Disconnects it if it has not read for too long.
    pub(crate) fn give_up(&mut self, now: Instant) {
        if self.stall_deadline().is_some_and(|deadline| now >= deadline) {
            self.phase = Phase::Gone;
        }
    }

    /// When [`Client::give_up`] does so.
    pub(crate) fn stall_deadline(&self) -> Option<Instant> {
        if let (Some(hold), true) = (self.hold, self.phase != Phase::Gone) {
            return Some(hold.until);
        }
        match self.phase {
            Phase::Open => self.queue.is_full().then(|| self.progress_at + STALLED_AFTER),
            Phase::Finishing { since } => Some(since.max(self.progress_at) + ABANDONED_AFTER),
            Phase::Lingering { until } => Some(until),
            Phase::Gone => None,
        }
    }

    /// Until when the news of the exit waits for it; `None` if it does not.
    pub(crate) fn delays_exit_until(&self, now: Instant) -> Option<Instant> {
        if let (Some(hold), true) = (self.hold, self.phase != Phase::Gone) {
            return Some(hold.until.min(self.progress_at + HELD_DELAYS_EXIT)).filter(|until| now < *until);
        }
        let until = match self.phase {
            Phase::Lingering { until } => Some(until),
            // It has not even read the head of its answer.
            Phase::Finishing { since } if matches!(self.greeting, Greeting::Awaited(_)) => Some(since + LINGERS),
            Phase::Gone => None,
            _ => (!self.queue.is_empty()).then_some(self.progress_at + LAGGING_AFTER),
        };
        until.filter(|until| now < *until)
    }

    fn gives_input_end(&mut self) -> bool {
        !std::mem::replace(&mut self.input_ended, true) && self.wants.stdin
    }

    fn send_now(&mut self, header: &[u8], bytes: &[u8]) -> usize {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = match self.greeting {
            Greeting::Taken => {
                let parts = [IoSlice::new(header), IoSlice::new(bytes)];
                sendmsg(&self.socket, &parts, &mut SendAncillaryBuffer::default(), flags).map_err(io::Error::from)
            }
            // The head. What is sent when the client's reading has woken us can be part of the same read; not so behind this.
            Greeting::Sent | Greeting::Awaited(_) => sys::socket::send_apart(self.socket.as_fd(), bytes),
        };
        match sent {
            Ok(sent) => {
                self.progress_at = Instant::now();
                sent
            }
            Err(err) if matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(_) => {
                self.phase = Phase::Gone;
                header.len() + bytes.len()
            }
        }
    }

    /// Ends its stream.
    fn close(&mut self) {
        // The daemon may hold a copy of the descriptor: closing ours would not tell the client. It has gone if this fails.
        let _ = shutdown(&self.socket, Shutdown::Both);
        // Closing a unix socket with unread input in it makes the client's next read ECONNRESET instead of the end.
        let mut unread = [0; 512];
        while recv(&self.socket, &mut unread, RecvFlags::DONTWAIT).is_ok_and(|(count, _)| count > 0) {}
        self.greeting = Greeting::Sent;
        self.phase = match self.greeting.is_taken(&self.socket) {
            true => Phase::Gone,
            false => Phase::Lingering { until: Instant::now() + LINGERS },
        };
    }
}

fn typed(matcher: &mut Matcher, bytes: &[u8]) -> Received {
    let typed = matcher.take(bytes);
    if typed.detached { Received::Detached(typed.input) } else { Received::Input(typed.input) }
}

/// Docker's header of a piece of output: 1 or 2, three zeros, the length big-endian (Engine API, "Stream format").
fn frame_header(stream: Stream, length: usize) -> [u8; 8] {
    let mut header = [0; 8];
    header[0] = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    // Pieces are as long as the read buffer at most.
    header[4..].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    header
}

#[cfg(test)]
mod tests;
