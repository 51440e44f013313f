//! The writing half: records from output, a bounded buffer, one thread for the sink.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::buffer::{Exchange, Limit, Shared, State};
use crate::encoder::Encoder;
use crate::packed::Packer;
use crate::record::{PIECE_MAX_BYTES, Piece, Record, Stream, now_nanos};
use crate::sink::Sink;

/// A sink that takes nothing for this long costs lines; one that is only slow holds the container up instead.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// How long the thread waits after an error before it tries again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Stack of the thread: a few frames of system calls and, where it compresses, zlib's.
const STACK_BYTES: usize = 128 * 1024;

/// Writes to one sink. Dropping it without [`Writer::close`] can lose what was not written yet.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// Made readable when there is room again, or at the end.
    event: Arc<OwnedFd>,
    thread: Thread,
    encoder: Encoder,
    stdout: Pending,
    stderr: Pending,
    /// Output that found no room; nothing newer overtakes it.
    backlog: Vec<(Stream, Vec<u8>)>,
    loss: Loss,
    /// Records are no older than this.
    not_before_nanos: u64,
    /// Somebody waits until a mark is reached.
    awaits_mark: bool,
}

enum Thread {
    NotStarted(Box<Sink>),
    Running,
    /// It could not be started: every line is lost, and counted.
    Failed,
}

/// The beginning of a line whose end has not come yet.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Of the line's pieces that were written already.
    begun: Option<Begun>,
    /// The line's beginning was lost: its rest is not logged either.
    skip_line: bool,
}

/// A line that is longer than a piece. All its pieces have the moment of the first, as dockerd's.
struct Begun {
    nanos: u64,
    id: String,
    pieces: u32,
}

/// What could not be written.
#[derive(Default)]
struct Loss {
    /// Lines go nowhere until the sink takes some again.
    active: bool,
    /// Not yet named in the log.
    lines: u64,
    /// Not yet taken by [`Writer::take_lost`].
    untold: u64,
}

/// A place in a log: after everything that was written before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// What is before it is not younger, and what is behind it is.
    pub(crate) nanos: u64,
    written: u64,
}

impl Writer {
    /// Starts no thread: that happens with the first output.
    pub(crate) fn new(sink: Sink, encoder: Encoder, limit: Limit, event: Arc<OwnedFd>) -> Writer {
        Writer {
            shared: Arc::new(Shared::new(limit)),
            event,
            thread: Thread::NotStarted(Box::new(sink)),
            encoder,
            stdout: Pending::default(),
            stderr: Pending::default(),
            backlog: Vec::new(),
            loss: Loss::default(),
            not_before_nanos: 0,
            awaits_mark: false,
        }
    }

    /// Takes output. Never blocks; what finds no room is kept, and then the caller should bring no more
    /// ([`Writer::is_full`]).
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
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
    fn end(&mut self, stream: Stream) {
        let pending = std::mem::take(self.begun(stream));
        if pending.bytes.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if self.loss.active || !state.has_room(pending.bytes.len()) {
            self.loss.lines += 1;
            return;
        }
        let nanos = self.now();
        let begun = pending.begun.unwrap_or_else(|| Begun::new(nanos, &self.encoder));
        let piece = Some(Piece { id: &begun.id, ordinal: begun.pieces + 1 });
        let parts = [pending.bytes.as_slice(), b""];
        add(&mut state, &mut self.encoder, Record { stream, nanos: begun.nanos, parts, ends_line: false, piece });
        drop(state);
        shared.signal();
    }

    /// Whether the caller should bring nothing until the event is readable or [`Writer::deadline`] has passed.
    pub(crate) fn is_full(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Whether the event is worth awaiting: something waits for room, was lost for lack of it, or for the end.
    pub(crate) fn awaits_event(&self) -> bool {
        self.loss.active || self.deadline().is_some()
    }

    /// When to call [`Writer::drain`] even if nothing became readable.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let state = self.shared.lock();
        let waits = self.awaits_mark || !self.backlog.is_empty() || state.closing && !state.ended;
        waits.then(|| state.progress_at + STUCK_AFTER)
    }

    /// Moves what was kept into the buffer, as far as there is room; gives it up if the sink is stuck.
    pub(crate) fn drain(&mut self) {
        let (room, stuck) = {
            let mut state = self.shared.lock();
            self.loss.untold += std::mem::take(&mut state.abandoned_records);
            if state.closing {
                return;
            }
            (state.has_room(0), state.progress_at.elapsed() >= STUCK_AFTER)
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
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.loss.untold)
    }

    /// Gives memory back to the kernel that a burst of output needed. For a quiet moment.
    pub(crate) fn trim(&mut self) {
        self.shared.lock().trim();
    }

    /// Says that nothing more will come. The thread writes what is left; wait with [`Writer::is_closed`]. What
    /// [`Writer::is_full`] tells of is lost: close when it does no more.
    pub(crate) fn close(&mut self) {
        self.drain();
        self.end(Stream::Stdout);
        self.end(Stream::Stderr);
        let mut state = self.shared.lock();
        state.supply();
        state.closing = true;
        state.owner_waits = true;
        state.progress_at = Instant::now();
        state.ended |= !matches!(self.thread, Thread::Running);
        drop(state);
        self.shared.signal();
    }

    /// Whether [`Writer::close`] was called.
    pub(crate) fn is_closing(&self) -> bool {
        self.shared.lock().closing
    }

    /// After [`Writer::close`]: whether everything is written, or was given up and counted, which happens to what a stuck
    /// sink does not take in two seconds.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut state = self.shared.lock();
        if !state.closing {
            return false;
        }
        let gave_up = !state.ended && state.progress_at.elapsed() >= STUCK_AFTER;
        if !state.ended && !gave_up {
            return false;
        }
        let mut lost = std::mem::take(&mut state.abandoned_records);
        if gave_up {
            lost += state.filling_records + state.records_in_flight;
        }
        drop(state);
        for (stream, bytes) in std::mem::take(&mut self.backlog) {
            self.lose(stream, &bytes);
        }
        self.loss.untold += lost + std::mem::take(&mut self.loss.lines);
        true
    }

    /// The place behind everything that came before now. What comes later is younger, the rest of a long line included.
    pub(crate) fn mark(&mut self) -> Mark {
        let nanos = self.now();
        self.not_before_nanos = nanos + 1;
        for pending in [&mut self.stdout, &mut self.stderr] {
            pending.begun = None;
        }
        self.awaits_mark = true;
        let mut state = self.shared.lock();
        state.owner_waits = true;
        Mark { nanos, written: state.taken + u64::from(!state.filling.is_empty()) }
    }

    /// Whether the sink has everything that is before the mark, or never will.
    pub(crate) fn has_reached(&mut self, mark: Mark) -> bool {
        let mut state = self.shared.lock();
        let stuck = self.loss.active || state.ended || state.progress_at.elapsed() >= STUCK_AFTER;
        let reached = state.written >= mark.written || stuck || !matches!(self.thread, Thread::Running);
        state.owner_waits |= !reached;
        self.awaits_mark = !reached;
        reached
    }

    /// What came and is in no record yet: beginnings of lines, and output that found no room.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (Stream, &[u8])> {
        let begun = [(Stream::Stdout, &self.stdout.bytes), (Stream::Stderr, &self.stderr.bytes)];
        let backlog = self.backlog.iter().map(|(stream, bytes)| (*stream, bytes));
        begun.into_iter().chain(backlog).map(|(stream, bytes)| (stream, bytes.as_slice()))
    }

    fn start(&mut self) {
        if !matches!(self.thread, Thread::NotStarted(_)) {
            self.shared.lock().reserve();
            return;
        }
        let Thread::NotStarted(sink) = std::mem::replace(&mut self.thread, Thread::Failed) else { return };
        self.shared.lock().reserve();
        let (shared, event) = (Arc::clone(&self.shared), Arc::clone(&self.event));
        let ready = Arc::new(std::sync::Barrier::new(2));
        let thread_ready = Arc::clone(&ready);
        let body = move || {
            // std allocates while it starts a thread: the owner goes on, and may fork, only after that.
            thread_ready.wait();
            run(*sink, &shared, &event);
        };
        if std::thread::Builder::new().stack_size(STACK_BYTES).spawn(body).is_ok() {
            ready.wait();
            self.thread = Thread::Running;
        } else {
            self.loss.active = true;
        }
    }

    fn now(&self) -> u64 {
        now_nanos().max(self.not_before_nanos)
    }

    fn begun(&mut self, stream: Stream) -> &mut Pending {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Encodes from the front of `bytes` while there is room; answers how many bytes were taken.
    fn append(&mut self, stream: Stream, bytes: &[u8]) -> usize {
        let shared = Arc::clone(&self.shared);
        if self.loss.lines > 0 && shared.lock().has_room(0) {
            self.tell_loss();
        }
        let nanos = self.now();
        let pending = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let mut state = shared.lock();
        let was_empty = state.filling.is_empty();
        let supplied = state.supply();
        let drops = state.drops();
        let mut rest = bytes;
        while !rest.is_empty() {
            if !drops && !state.has_room(0) {
                state.owner_waits = true;
                break;
            }
            let (taken, record) = pending.take_piece(stream, rest, nanos, &self.encoder);
            rest = &rest[taken..];
            let Some(record) = record else { continue };
            let ends_line = record.ends_line;
            if !drops || state.has_room(record.len()) {
                add(&mut state, &mut self.encoder, record);
            } else {
                self.loss.lines += 1;
            }
            pending.written(ends_line);
        }
        let wake = was_empty && !state.filling.is_empty();
        if wake {
            // The thread has slept: how long is no sign of a stuck disk.
            state.progress_at = Instant::now();
        }
        drop(state);
        if wake || supplied {
            shared.signal();
        }
        bytes.len() - rest.len()
    }

    /// Counts output that goes nowhere.
    fn lose(&mut self, stream: Stream, bytes: &[u8]) {
        let pending = self.begun(stream);
        *pending = Pending { skip_line: bytes.last() != Some(&b'\n'), ..Pending::default() };
        self.loss.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
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
        let parts = [text.as_bytes(), b""];
        let record = Record { stream: Stream::Stderr, nanos: self.now(), parts, ends_line: true, piece: None };
        add(&mut self.shared.lock(), &mut self.encoder, record);
        self.shared.signal();
    }
}

impl State {
    /// Gives the thread what it needs to compress; whether it was given now.
    fn supply(&mut self) -> bool {
        let wanted = self.wants_packer && self.packer.is_none();
        if wanted {
            self.packer = Some(Box::new(Packer::new()));
        }
        wanted
    }
}

impl Begun {
    fn new(nanos: u64, encoder: &Encoder) -> Begun {
        let id = if encoder.names_pieces() { stdx::id::random_hex::<32>() } else { String::new() };
        Begun { nanos, id, pieces: 0 }
    }
}

impl Pending {
    /// Takes one line or piece from the front of `bytes`, or keeps them all if the line is unfinished. Answers how many
    /// bytes were taken, and the record if there is one; then [`Pending::written`] has to follow.
    fn take_piece<'a>(
        &'a mut self,
        stream: Stream,
        bytes: &'a [u8],
        nanos: u64,
        encoder: &Encoder,
    ) -> (usize, Option<Record<'a>>) {
        let window = &bytes[..bytes.len().min(PIECE_MAX_BYTES - self.bytes.len())];
        let end = memchr::memchr(b'\n', window);
        if std::mem::take(&mut self.skip_line) {
            self.skip_line = end.is_none();
            return (end.map_or(window.len(), |end| end + 1), None);
        }
        let taken = match end {
            Some(end) => end + 1,
            None => window.len(),
        };
        if end.is_none() && self.bytes.len() + window.len() < PIECE_MAX_BYTES {
            self.bytes.extend_from_slice(window);
            return (taken, None);
        }
        if end.is_none() && self.begun.is_none() {
            self.begun = Some(Begun::new(nanos, encoder));
        }
        let text = &window[..end.unwrap_or(window.len())];
        let piece = self.begun.as_ref().map(|begun| Piece { id: &begun.id, ordinal: begun.pieces + 1 });
        let nanos = self.begun.as_ref().map_or(nanos, |begun| begun.nanos);
        (taken, Some(Record { stream, nanos, parts: [&self.bytes, text], ends_line: end.is_some(), piece }))
    }

    /// The record is in the buffer.
    fn written(&mut self, ended_line: bool) {
        if !self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        match &mut self.begun {
            Some(begun) if !ended_line => begun.pieces += 1,
            begun => *begun = None,
        }
    }
}

fn add(state: &mut State, encoder: &mut Encoder, record: Record<'_>) {
    if encoder.encode(&mut state.filling, record) {
        state.filling_records += 1;
        state.filling_text_bytes += record.len() as u64;
    }
}

/// The thread. Never allocates: see the page of the crate.
fn run(mut sink: Sink, shared: &Shared, event: &OwnedFd) {
    let (mut written, mut packer) = (None, None);
    loop {
        let can_pack = |state: &State| sink.wants_packing() && (packer.is_some() || state.packer.is_some());
        match shared.exchange(written.take(), can_pack) {
            Exchange::Batch(mut batch) => {
                // The empty buffer has taken this one's place: an owner that waits has room already.
                tell_owner(shared, event);
                write_batch(&mut sink, &batch, shared, packer.as_deref_mut());
                batch.clear();
                written = Some(batch);
                shared.lock().written += 1;
                tell_owner(shared, event);
            }
            Exchange::Idle => {}
            Exchange::End => break,
        }
        pack(&mut sink, shared, &mut packer);
    }
    shared.lock().ended = true;
    // An eventfd takes a small number whenever it is not full, which one writer cannot achieve.
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
}

/// Goes on with a compression, between two writes.
fn pack(sink: &mut Sink, shared: &Shared, packer: &mut Option<Box<Packer>>) {
    if sink.wants_packing() {
        if packer.is_none() {
            let mut state = shared.lock();
            *packer = state.packer.take();
            state.wants_packer = true;
        }
        if let Some(packer) = packer {
            sink.pack(packer);
        }
    }
    if !sink.wants_packing() && packer.is_some() {
        // Given back: the owner frees it.
        let mut state = shared.lock();
        state.packer = packer.take();
        state.wants_packer = false;
    }
}

fn tell_owner(shared: &Shared, event: &OwnedFd) {
    if std::mem::take(&mut shared.lock().owner_waits) {
        // As above.
        let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
    }
}

/// Writes all of `batch`, however long that takes; gives the rest up only at the end.
fn write_batch(sink: &mut Sink, batch: &[u8], shared: &Shared, mut packer: Option<&mut Packer>) {
    let mut written = 0;
    while written < batch.len() {
        let at_start = written == 0 || batch[written - 1] == b'\n';
        match sink.write(&batch[written..], at_start, packer.as_deref_mut()) {
            Ok(done) => {
                written += done.bytes;
                let mut state = shared.lock();
                state.progress_at = Instant::now();
                state.abandoned_records += done.refused;
            }
            Err(_) if shared.pause(RETRY_AFTER) => {}
            Err(_) => {
                let mut state = shared.lock();
                state.records_in_flight = 0;
                state.abandoned_records += sink.count(&batch[written..]);
                return;
            }
        }
    }
    shared.lock().records_in_flight = 0;
}

#[cfg(test)]
mod tests;
