//! The streams of one process: its output goes to a log and to clients, their input goes to it.

pub(crate) mod hold;
pub(crate) mod names;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use logging::{Log, Stream};
use oci_runtime::Stdio;
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use shim_api::Attach;

use crate::client::{Client, Received};
use crate::stdin::Input;

/// The news of the exit wait this long at most for clients that do read.
const EXIT_DELAY_MAX: Duration = Duration::from_secs(10);

/// What a terminal may hold of its processes' output (tty_buffer.c's limit, and the line discipline's own 4 KiB): FIONREAD
/// tells only of the latter.
const TERMINAL_HOLDS_BYTES: usize = 128 * 1024;

/// Which part of a process's streams became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Output(usize),
    Input,
    Client(usize),
    /// What tells that a client has read what it has.
    Greeting(usize),
    Log,
}

/// The streams of one process.
pub(crate) struct Streams {
    terminal: bool,
    stdin_once: bool,
    /// Where output that a client has not read yet is kept.
    pub(crate) spool_dir: PathBuf,
    outputs: Vec<Output>,
    input: Input,
    clients: Vec<Client>,
    log: Option<Log>,
    /// Since when the process is gone: what is in the pipes now is all that is awaited.
    ended_at: Option<Instant>,
    /// Clients that typed the detach keys and were not yet reported.
    detached: u32,
}

struct Output {
    stream: Stream,
    fd: Rc<OwnedFd>,
    /// How many bytes are still read: after the process's end only what it has left, or a descendant that writes on and on
    /// would keep us reading for ever.
    left_bytes: Option<usize>,
}

/// Our ends of a process's streams, before the process exists.
pub(crate) struct Ends {
    /// What the process gets.
    pub(crate) stdio: Stdio,
    outputs: Vec<(Stream, OwnedFd)>,
    input: Option<OwnedFd>,
}

/// A buffer for everything that is read: small, unless much comes.
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    const SMALL_BYTES: usize = 4096;
    /// Above the allocator's threshold for mappings of their own: freed, it goes back to the kernel at once.
    const LARGE_BYTES: usize = 256 * 1024;

    pub(crate) fn new() -> Scratch {
        Scratch(vec![0; Scratch::SMALL_BYTES])
    }

    /// Makes the next read larger if this one, of `count` bytes, filled it.
    fn adapt(&mut self, count: usize) {
        if count == Scratch::SMALL_BYTES && self.0.len() == count {
            self.0 = vec![0; Scratch::LARGE_BYTES];
        }
    }

    pub(crate) fn is_large(&self) -> bool {
        self.0.len() > Scratch::SMALL_BYTES
    }
}

impl Ends {
    /// Pipes, or nothing for a terminal, whose end comes with the process.
    pub(crate) fn open(terminal: bool, open_stdin: bool, output: bool) -> io::Result<Ends> {
        if terminal {
            return Ok(Ends { stdio: Stdio::Terminal, outputs: Vec::new(), input: None });
        }
        let null = || rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let (stdin, input) = if open_stdin {
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            (read, Some(write))
        } else {
            (null()?, None)
        };
        if !output {
            return Ok(Ends { stdio: Stdio::Fds([stdin, null()?, null()?]), outputs: Vec::new(), input });
        }
        let (out, stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let (err, stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let outputs = vec![(Stream::Stdout, out), (Stream::Stderr, err)];
        Ok(Ends { stdio: Stdio::Fds([stdin, stdout, stderr]), outputs, input })
    }

    /// Splits off what the process gets.
    pub(crate) fn take_stdio(&mut self) -> Stdio {
        std::mem::replace(&mut self.stdio, Stdio::Terminal)
    }
}

impl Streams {
    /// The streams of a process that exists now; `console` is its terminal's master.
    pub(crate) fn new(
        ends: Ends,
        console: Option<OwnedFd>,
        stdin_once: bool,
        spool_dir: PathBuf,
    ) -> io::Result<Streams> {
        let terminal = console.is_some();
        let mut outputs = Vec::new();
        let mut input = Input::none();
        if let Some(console) = console {
            rustix::io::ioctl_fionbio(&console, true)?;
            let console = Rc::new(console);
            input = Input::new(Rc::clone(&console));
            outputs.push(Output { stream: Stream::Stdout, fd: console, left_bytes: None });
        }
        for (stream, fd) in ends.outputs {
            rustix::io::ioctl_fionbio(&fd, true)?;
            outputs.push(Output { stream, fd: Rc::new(fd), left_bytes: None });
        }
        if let Some(fd) = ends.input {
            rustix::io::ioctl_fionbio(&fd, true)?;
            input = Input::new(Rc::new(fd));
        }
        let (clients, log) = (Vec::new(), None);
        Ok(Streams { terminal, stdin_once, spool_dir, outputs, input, clients, log, ended_at: None, detached: 0 })
    }

    /// Writes the output to this log, too.
    pub(crate) fn set_log(&mut self, log: Log) {
        self.log = Some(log);
    }

    /// Connects a client. After the process's end it only gets the end of the stream.
    pub(crate) fn attach(&mut self, socket: OwnedFd, wants: Attach) {
        let mut client = Client::new(socket, wants, self.terminal);
        client.greet(&self.spool_dir);
        let received = if client.is_held() { Received::Nothing } else { client.take_already_read() };
        self.clients.push(client);
        self.take_input(self.clients.len() - 1, received);
        if self.ended_at.is_some() && self.outputs.is_empty() {
            self.finish_clients();
        }
    }

    /// The terminal, to be resized.
    pub(crate) fn console(&self) -> Option<BorrowedFd<'_>> {
        self.outputs.first().filter(|_| self.terminal).map(|output| output.fd.as_fd())
    }

    /// Tells what to await, and for what.
    pub(crate) fn interests<'a>(&'a self, mut add: impl FnMut(Part, BorrowedFd<'a>, PollFlags)) {
        if !self.is_throttled() {
            for (at, output) in self.outputs.iter().enumerate() {
                add(Part::Output(at), output.fd.as_fd(), PollFlags::IN);
            }
        }
        if let Some(fd) = self.input.blocked_fd() {
            add(Part::Input, fd, PollFlags::OUT);
        }
        for (at, client) in self.clients.iter().enumerate() {
            if let Some(flags) = client.interest(self.input.room() > 0) {
                add(Part::Client(at), client.fd(), flags);
            }
            if let Some(fd) = client.awaited() {
                add(Part::Greeting(at), fd, PollFlags::IN);
            }
        }
        if let Some(log) = self.log.as_ref().filter(|log| log.awaits_event()) {
            add(Part::Log, log.fd(), PollFlags::IN);
        }
    }

    /// Acts on what became ready.
    pub(crate) fn ready(&mut self, part: Part, flags: PollFlags, scratch: &mut Scratch) {
        match part {
            Part::Output(at) => _ = self.read_output(at, scratch),
            Part::Input => self.input.flush(),
            Part::Client(at) => self.client_ready(at, flags, scratch),
            Part::Greeting(at) => self.clients.get_mut(at).into_iter().for_each(Client::greeted),
            Part::Log => self.log.iter_mut().for_each(Log::drain),
        }
    }

    /// Work that no descriptor announces: deadlines, draining after the end, clients that left. At the end of every turn.
    pub(crate) fn settle(&mut self, now: Instant, scratch: &mut Scratch) {
        if let Some(log) = &mut self.log
            && log.deadline().is_some_and(|deadline| now >= deadline)
        {
            log.drain();
        }
        for client in &mut self.clients {
            client.give_up(now);
        }
        if self.ended_at.is_some() {
            self.drain(scratch);
        }
        self.clients.retain(|client| !client.is_gone());
    }

    /// The process has ended.
    pub(crate) fn end(&mut self, now: Instant) {
        if self.ended_at.is_none() {
            self.ended_at = Some(now);
            self.input.close();
            for output in &mut self.outputs {
                let held = rustix::io::ioctl_fionread(&*output.fd).unwrap_or(0);
                let held = usize::try_from(held).unwrap_or(usize::MAX);
                output.left_bytes = Some(if self.terminal { held.max(TERMINAL_HOLDS_BYTES) } else { held });
            }
        }
    }

    /// After [`Streams::end`]: whether the log has everything and so has every client that reads.
    pub(crate) fn is_settled(&mut self, now: Instant) -> bool {
        let written = self.outputs.is_empty() && self.log.as_mut().is_none_or(Log::is_closed);
        written && self.exit_delay(now).is_none()
    }

    /// Whether no client is left that has something to get.
    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// When [`Streams::settle`] or [`Streams::is_settled`] has something to do even if nothing becomes ready.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let log = self.log.as_ref().and_then(Log::deadline);
        let stalls = self.clients.iter().filter_map(Client::stall_deadline);
        let exit = if self.ended_at.is_some() { self.exit_delay(now) } else { None };
        stalls.chain(log).chain(exit).min()
    }

    /// Lines that the log did not take, since the last call.
    pub(crate) fn take_lost_lines(&mut self) -> u64 {
        self.log.as_mut().map_or(0, Log::take_lost)
    }

    /// How many clients typed the detach keys since the last call.
    pub(crate) fn take_detached(&mut self) -> u32 {
        std::mem::take(&mut self.detached)
    }

    /// The exit was told: what a stuck disk has not taken by now is counted already.
    pub(crate) fn drop_log(&mut self) {
        self.log = None;
    }

    /// Gives back memory that a burst needed.
    pub(crate) fn trim(&mut self) {
        self.log.iter_mut().for_each(Log::trim);
    }

    fn is_throttled(&self) -> bool {
        self.log.as_ref().is_some_and(Log::is_full) || self.clients.iter().any(Client::holds_up)
    }

    fn exit_delay(&self, now: Instant) -> Option<Instant> {
        let end = self.ended_at? + EXIT_DELAY_MAX;
        let latest = self.clients.iter().filter_map(|client| client.delays_exit_until(now)).max()?;
        (now < end).then_some(latest.min(end))
    }

    /// Reads once; whether more may be there.
    fn read_output(&mut self, at: usize, scratch: &mut Scratch) -> bool {
        let Some(output) = self.outputs.get_mut(at) else { return false };
        let stream = output.stream;
        let size = output.left_bytes.unwrap_or(usize::MAX).min(scratch.0.len());
        match rustix::io::read(&*output.fd, &mut scratch.0[..size]) {
            Ok(count @ 1..) => {
                output.left_bytes = output.left_bytes.map(|left| left - count);
                self.deliver(stream, &scratch.0[..count]);
                scratch.adapt(count);
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            // The end of a pipe is 0, that of a terminal EIO; and nothing is read of nothing left.
            Ok(_) | Err(_) => {
                self.outputs.remove(at);
                false
            }
        }
    }

    fn deliver(&mut self, stream: Stream, bytes: &[u8]) {
        for client in &mut self.clients {
            client.send(stream, bytes, !self.terminal, &self.spool_dir);
        }
        if let Some(log) = &mut self.log {
            log.write(stream, bytes);
        }
    }

    fn client_ready(&mut self, at: usize, flags: PollFlags, scratch: &mut Scratch) {
        let Some(client) = self.clients.get_mut(at) else { return };
        if flags.contains(PollFlags::OUT) {
            client.flush();
        }
        if flags.contains(PollFlags::IN) {
            let size = scratch.0.len().min(self.input.room().max(1));
            let received = client.receive(&mut scratch.0[..size]);
            self.take_input(at, received);
        } else if flags.intersects(PollFlags::HUP | PollFlags::ERR) && client.hang_up() {
            self.input_ended(at);
        }
    }

    fn take_input(&mut self, at: usize, received: Received) {
        match received {
            Received::Nothing => {}
            Received::Input(bytes) => self.input.push(&bytes),
            Received::Ended => self.input_ended(at),
            Received::Detached(bytes) => {
                self.input.push(&bytes);
                self.detached += 1;
                self.clients[at].finish();
            }
        }
    }

    /// A client's input is over: the end of the process's input if it was to have one client, else that client's end, as
    /// with Docker (moby container/stream/attach.go, CopyStreams).
    fn input_ended(&mut self, at: usize) {
        if self.stdin_once && !self.terminal {
            self.input.end();
        } else {
            self.clients[at].finish();
        }
    }

    /// Reads what the pipes hold. Descendants outside the container may keep them open: what they write later is nobody's.
    fn drain(&mut self, scratch: &mut Scratch) {
        while !self.outputs.is_empty() && !self.is_throttled() {
            let left = self.outputs.len();
            // Neither more bytes nor the end: empty for now, which is enough.
            if !self.read_output(0, scratch) && self.outputs.len() == left {
                self.outputs.remove(0);
            }
        }
        if self.outputs.is_empty() {
            self.finish_clients();
            self.close_log();
        }
    }

    fn finish_clients(&mut self) {
        self.clients.iter_mut().for_each(Client::finish);
    }

    fn close_log(&mut self) {
        if let Some(log) = self.log.as_mut().filter(|log| !log.is_full() && !log.is_closing()) {
            log.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_written_after_the_end_is_nobodys() {
        let mut ends = Ends::open(false, false, true).unwrap();
        let Stdio::Fds([_, stdout, _]) = ends.take_stdio() else { panic!("pipes were asked for") };
        let mut streams = Streams::new(ends, None, false, "/".into()).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        streams.attach(ours.into(), Attach { stdout: true, ..Attach::default() });
        rustix::io::write(&stdout, b"before").unwrap();
        streams.end(Instant::now());
        rustix::io::write(&stdout, b"after").unwrap();
        streams.settle(Instant::now(), &mut Scratch::new());
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"\x01\0\0\0\0\0\0\x06before");
    }

    #[test]
    fn a_client_that_reads_nothing_holds_the_output_up_for_ten_seconds() {
        let ends = Ends::open(false, false, true).unwrap();
        // Without a spool directory memory is all there is.
        let mut streams = Streams::new(ends, None, false, "/nowhere".into()).unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        streams.attach(ours.into(), Attach { stdout: true, ..Attach::default() });
        let reads_output = |streams: &Streams| {
            let mut reads = false;
            streams.interests(|part, _, _| reads |= matches!(part, Part::Output(_)));
            reads
        };
        assert!(reads_output(&streams));
        streams.deliver(Stream::Stdout, &[0; 1 << 20]);
        let now = Instant::now();
        streams.settle(now, &mut Scratch::new());
        assert!(!reads_output(&streams));
        let deadline = streams.deadline(now).unwrap();
        assert!(deadline > now + Duration::from_secs(9) && deadline <= now + Duration::from_secs(10));
        streams.settle(deadline, &mut Scratch::new());
        assert!(reads_output(&streams) && streams.is_empty());
    }
}
