//! The writing half: lines from output, a bounded buffer, one thread for the disk.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use stdx::time::Rfc3339;

use super::Stream;
use super::buffer::{Shared, State, newlines};
use super::file::LogFile;
use super::line::{self, Frame, PIECE_MAX_BYTES};

/// A disk that takes nothing for this long costs lines; one that is only slow holds the container up instead.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// How long the thread waits after an error before it tries again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Stack of the thread: a few frames of system calls.
const STACK_BYTES: usize = 64 * 1024;

/// When files change places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file of at least this size gets no further line; never rotated if absent.
    pub max_size_bytes: Option<u64>,
    /// How many files are kept, the current one included; at least 1.
    pub max_files: u32,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file.
    #[error("open log {}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The descriptor that tells of room.
    #[error("make event descriptor of a log")]
    Event(#[source] io::Error),
}

impl OpenError {
    /// What a caller can do about it.
    pub fn kind(&self) -> errdefs::ErrorKind {
        match self {
            OpenError::File { source, .. } | OpenError::Event(source) => errdefs::io_kind(source),
        }
    }
}

/// Writes one container's log. Dropping it without [`Writer::close`] can lose what was not written yet.
pub struct Writer {
    shared: Arc<Shared>,
    /// Readable when there is room again, or at the end.
    event: Arc<OwnedFd>,
    thread: Thread,
    attrs: String,
    stdout: Pending,
    stderr: Pending,
    /// Output that found no room; nothing newer overtakes it.
    backlog: Vec<(Stream, Vec<u8>)>,
    loss: Loss,
}

enum Thread {
    NotStarted(Box<LogFile>),
    Running,
    /// It could not be started: every line is lost, and counted.
    Failed,
}

/// The beginning of a line whose end has not come yet.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// The moment of the line's first piece, which all its pieces carry, as dockerd's.
    first_piece_at: Option<String>,
    /// The line's beginning was lost: its rest is not logged either.
    skip_line: bool,
}

/// What could not be written.
#[derive(Default)]
struct Loss {
    /// Lines go nowhere until the disk takes some again.
    active: bool,
    /// Not yet named in the log.
    lines: u64,
    /// Not yet taken by [`Writer::take_lost`].
    untold: u64,
}

impl Writer {
    /// Opens the log at `path`. Starts no thread: that happens with the first output. Blocks.
    pub fn open(path: &Path, rotation: Rotation, attrs: &BTreeMap<String, String>) -> Result<Writer, OpenError> {
        let file = LogFile::open(path, rotation).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = eventfd(0, flags).map_err(|err| OpenError::Event(err.into()))?;
        Ok(Writer {
            shared: Arc::new(Shared::new()),
            event: Arc::new(event),
            thread: Thread::NotStarted(Box::new(file)),
            attrs: encode_attrs(attrs),
            stdout: Pending::default(),
            stderr: Pending::default(),
            backlog: Vec::new(),
            loss: Loss::default(),
        })
    }

    /// Takes output. Never blocks; what finds no room is kept, and then the caller should bring no more
    /// ([`Writer::is_full`]).
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        self.start();
        if !self.backlog.is_empty() || self.loss.active {
            self.drain();
        }
        let taken = if !self.backlog.is_empty() {
            0
        } else if self.loss.active {
            self.lose(stream, bytes);
            bytes.len()
        } else {
            self.append(stream, bytes)
        };
        if taken < bytes.len() {
            self.backlog.push((stream, bytes[taken..].to_vec()));
        }
    }

    /// Ends a stream: an unfinished last line is written as it is, without a newline, as dockerd does.
    pub fn end(&mut self, stream: Stream) {
        let pending = std::mem::take(self.pending(stream));
        if pending.bytes.is_empty() {
            return;
        }
        let time = pending.first_piece_at.unwrap_or_else(now);
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if self.loss.active || !state.has_room(self.attrs.len()) {
            self.loss.add(1);
            return;
        }
        let frame = Frame { stream, time: &time, attrs: &self.attrs };
        line::encode(&mut state.filling, [&pending.bytes, b""], false, frame);
        drop(state);
        shared.signal();
    }

    /// Whether the caller should bring nothing until [`Writer::fd`] is readable or [`Writer::deadline`] has passed.
    pub fn is_full(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Whether [`Writer::fd`] is worth awaiting: something waits for room, was lost for lack of it, or for the end.
    pub fn awaits_event(&self) -> bool {
        self.loss.active || self.deadline().is_some()
    }

    /// Readable when there is room again, and when a close has ended. Then call [`Writer::drain`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// When to call [`Writer::drain`] even if nothing became readable.
    pub fn deadline(&self) -> Option<Instant> {
        let state = self.shared.lock();
        let waits = !self.backlog.is_empty() || state.closing && !state.ended;
        waits.then(|| state.progress_at + STUCK_AFTER)
    }

    /// Moves what was kept into the buffer, as far as there is room; gives it up if the disk is stuck.
    pub fn drain(&mut self) {
        let mut count = [0; 8];
        // Only resets the event; that it was not set is no error.
        let _ = rustix::io::read(&*self.event, &mut count);
        let (room, stuck) = {
            let state = self.shared.lock();
            if state.closing {
                return;
            }
            (state.has_room(self.attrs.len()), state.progress_at.elapsed() >= STUCK_AFTER)
        };
        if room && !matches!(self.thread, Thread::Failed) {
            self.tell_loss();
            for (stream, bytes) in std::mem::take(&mut self.backlog) {
                self.write(stream, &bytes);
            }
        } else if stuck || matches!(self.thread, Thread::Failed) {
            self.loss.active = true;
            for (stream, bytes) in std::mem::take(&mut self.backlog) {
                self.lose(stream, &bytes);
            }
        }
    }

    /// The number of lines lost since the last call that the log names by now, or never will.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.loss.untold)
    }

    /// Gives memory back to the kernel that a burst of output needed. For a quiet moment.
    pub fn trim(&mut self) {
        self.shared.lock().trim();
    }

    /// Says that nothing more will come. The thread writes what is left; wait with [`Writer::is_closed`]. What
    /// [`Writer::is_full`] tells of is lost: close when it does no more.
    pub fn close(&mut self) {
        self.drain();
        self.end(Stream::Stdout);
        self.end(Stream::Stderr);
        let mut state = self.shared.lock();
        state.closing = true;
        state.owner_waits = true;
        state.progress_at = Instant::now();
        state.ended |= !matches!(self.thread, Thread::Running);
        drop(state);
        self.shared.signal();
    }

    /// Whether [`Writer::close`] was called.
    pub fn is_closing(&self) -> bool {
        self.shared.lock().closing
    }

    /// After [`Writer::close`]: whether everything is written, or was given up and counted, which happens to what a stuck
    /// disk does not take in two seconds.
    pub fn is_closed(&mut self) -> bool {
        let mut state = self.shared.lock();
        if !state.closing {
            return false;
        }
        let gave_up = !state.ended && state.progress_at.elapsed() >= STUCK_AFTER;
        if !state.ended && !gave_up {
            return false;
        }
        let mut lost = std::mem::take(&mut state.abandoned_lines);
        if gave_up {
            lost += newlines(&state.filling) + state.lines_in_flight;
        }
        drop(state);
        for (stream, bytes) in std::mem::take(&mut self.backlog) {
            self.lose(stream, &bytes);
        }
        self.loss.untold += lost + std::mem::take(&mut self.loss.lines);
        true
    }

    fn start(&mut self) {
        if !matches!(self.thread, Thread::NotStarted(_)) {
            self.reserve();
            return;
        }
        let Thread::NotStarted(file) = std::mem::replace(&mut self.thread, Thread::Failed) else { return };
        self.reserve();
        let (shared, event) = (Arc::clone(&self.shared), Arc::clone(&self.event));
        let ready = Arc::new(std::sync::Barrier::new(2));
        let thread_ready = Arc::clone(&ready);
        let body = move || {
            // std allocates while it starts a thread: the owner goes on, and may fork, only after that.
            thread_ready.wait();
            run(*file, &shared, &event);
        };
        if std::thread::Builder::new().stack_size(STACK_BYTES).spawn(body).is_ok() {
            ready.wait();
            self.thread = Thread::Running;
        } else {
            self.loss.active = true;
        }
    }

    fn reserve(&self) {
        self.shared.lock().reserve();
    }

    fn pending(&mut self, stream: Stream) -> &mut Pending {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Encodes from the front of `bytes` while there is room; answers how many bytes were taken.
    fn append(&mut self, stream: Stream, bytes: &[u8]) -> usize {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        let was_empty = state.filling.is_empty();
        let pending = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let time = now();
        let mut rest = bytes;
        while !rest.is_empty() {
            if !state.has_room(self.attrs.len()) {
                state.owner_waits = true;
                break;
            }
            let frame = Frame { stream, time: &time, attrs: &self.attrs };
            rest = pending.take_piece(rest, frame, &mut state);
        }
        let wake = was_empty && !state.filling.is_empty();
        if wake {
            // The thread has slept: how long is no sign of a stuck disk.
            state.progress_at = Instant::now();
        }
        drop(state);
        if wake {
            shared.signal();
        }
        bytes.len() - rest.len()
    }

    /// Counts output that goes nowhere.
    fn lose(&mut self, stream: Stream, bytes: &[u8]) {
        let pending = self.pending(stream);
        *pending = Pending { skip_line: bytes.last() != Some(&b'\n'), ..Pending::default() };
        self.loss.add(newlines(bytes));
        self.shared.lock().owner_waits = true;
    }

    /// Puts the number of lost lines into the log, now that it takes lines again.
    fn tell_loss(&mut self) {
        self.loss.active = false;
        let lines = std::mem::take(&mut self.loss.lines);
        if lines == 0 {
            return;
        }
        self.loss.untold += lines;
        let text = format!("longshore: {lines} lines of output are missing here: the log could not be written");
        let frame = Frame { stream: Stream::Stderr, time: &now(), attrs: &self.attrs };
        line::encode(&mut self.shared.lock().filling, [text.as_bytes(), b""], true, frame);
        self.shared.signal();
    }
}

impl Loss {
    fn add(&mut self, lines: u64) {
        self.lines += lines;
    }
}

impl Pending {
    /// Takes one line or piece from the front of `bytes`, or keeps them all if the line is unfinished; answers the rest.
    fn take_piece<'a>(&mut self, bytes: &'a [u8], frame: Frame<'_>, state: &mut State) -> &'a [u8] {
        let window = &bytes[..bytes.len().min(PIECE_MAX_BYTES - self.bytes.len())];
        let end = window.iter().position(|byte| *byte == b'\n');
        if std::mem::take(&mut self.skip_line) {
            self.skip_line = end.is_none();
            return &bytes[end.map_or(window.len(), |end| end + 1)..];
        }
        let first_piece_at = self.first_piece_at.take();
        let time = first_piece_at.as_deref().unwrap_or(frame.time);
        match end {
            Some(end) => {
                line::encode(&mut state.filling, [&self.bytes, &window[..end]], true, Frame { time, ..frame });
                self.bytes = Vec::new();
                &bytes[end + 1..]
            }
            None if self.bytes.len() + window.len() == PIECE_MAX_BYTES => {
                line::encode(&mut state.filling, [&self.bytes, window], false, Frame { time, ..frame });
                self.first_piece_at = Some(time.to_owned());
                self.bytes = Vec::new();
                &bytes[window.len()..]
            }
            None => {
                self.first_piece_at = first_piece_at;
                self.bytes.extend_from_slice(window);
                &[]
            }
        }
    }
}

/// The thread. Never allocates: see the page of the crate.
fn run(mut file: LogFile, shared: &Shared, event: &OwnedFd) {
    let mut written = None;
    while let Some(mut batch) = shared.exchange(written.take()) {
        // The empty buffer has taken this one's place: an owner that waits has room already.
        tell_owner(shared, event);
        write_batch(&mut file, &batch, shared);
        batch.clear();
        written = Some(batch);
    }
    shared.lock().ended = true;
    // An eventfd takes a small number whenever it is not full, which one writer cannot achieve.
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
}

fn tell_owner(shared: &Shared, event: &OwnedFd) {
    if std::mem::take(&mut shared.lock().owner_waits) {
        // As above.
        let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
    }
}

/// Writes all of `batch`, however long that takes; gives the rest up only at the end.
fn write_batch(file: &mut LogFile, batch: &[u8], shared: &Shared) {
    let mut written = 0;
    while written < batch.len() {
        let at_line_start = written == 0 || batch[written - 1] == b'\n';
        match file.write(&batch[written..], at_line_start) {
            Ok(count) => {
                written += count;
                shared.lock().progress_at = Instant::now();
            }
            Err(_) if shared.pause(RETRY_AFTER) => {}
            Err(_) => {
                let mut state = shared.lock();
                state.lines_in_flight = 0;
                state.abandoned_lines += newlines(&batch[written..]);
                return;
            }
        }
    }
    shared.lock().lines_in_flight = 0;
}

fn now() -> String {
    Rfc3339::now().to_string()
}

fn encode_attrs(attrs: &BTreeMap<String, String>) -> String {
    if attrs.is_empty() {
        return String::new();
    }
    let mut out = Vec::new();
    for (name, value) in attrs {
        out.push(if out.is_empty() { b'{' } else { b',' });
        for (text, end) in [(name, &b"\":"[..]), (value, b"\"")] {
            out.push(b'"');
            line::escape(&mut out, text.as_bytes());
            out.extend_from_slice(end);
        }
    }
    out.push(b'}');
    String::from_utf8(out).expect("escaping keeps valid UTF-8 valid")
}

#[cfg(test)]
mod tests;
