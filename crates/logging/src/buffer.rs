//! What the owner's thread and the writing thread share: two buffers that change places.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::packed::Packer;

/// Bytes that wait for the disk at most. Above the allocator's threshold for mappings of their own, so that what a burst
/// touched goes back to the kernel with [`State::trim`].
const CAPACITY_BYTES: usize = 384 * 1024;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Who finds no room waits: as many encoded bytes, of which one record may need so many.
    Blocking { capacity_bytes: usize, record_max_bytes: usize },
    /// Who finds no room is dropped: as many bytes of text.
    NonBlocking { text_max_bytes: u64 },
}

/// The meeting point of both threads. Held only for a copy or a swap, never during I/O.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Told when there is something to write, or nothing more will come.
    work: Condvar,
}

/// Guarded by the mutex.
pub(crate) struct State {
    limit: Limit,
    /// Encoded records in order.
    pub(crate) filling: Vec<u8>,
    /// How many records are in `filling`.
    pub(crate) filling_records: u64,
    /// How many bytes of text are in `filling`.
    pub(crate) filling_text_bytes: u64,
    /// The other buffer, while it is not being written.
    pub(crate) spare: Option<Vec<u8>>,
    /// The owner waits for room, or for the end.
    pub(crate) owner_waits: bool,
    /// Nothing more will come.
    pub(crate) closing: bool,
    /// The thread has ended.
    pub(crate) ended: bool,
    /// When the thread last wrote something or had nothing to write.
    pub(crate) progress_at: Instant,
    /// Records that the thread has taken and not written.
    pub(crate) records_in_flight: u64,
    /// Records that the thread gave up: at the end, or because nobody takes them.
    pub(crate) abandoned_records: u64,
    /// How many buffers the thread has taken, and how many of them it has written.
    pub(crate) taken: u64,
    pub(crate) written: u64,
    /// What the thread needs to compress, which it must not allocate itself.
    pub(crate) packer: Option<Box<Packer>>,
    /// It needs one.
    pub(crate) wants_packer: bool,
}

impl Limit {
    /// The usual one for records of that size.
    pub(crate) fn blocking(record_max_bytes: usize) -> Limit {
        Limit::Blocking { capacity_bytes: CAPACITY_BYTES.max(2 * record_max_bytes), record_max_bytes }
    }
}

impl Shared {
    pub(crate) fn new(limit: Limit) -> Shared {
        Shared {
            state: Mutex::new(State {
                limit,
                filling: Vec::new(),
                filling_records: 0,
                filling_text_bytes: 0,
                spare: Some(Vec::new()),
                owner_waits: false,
                closing: false,
                ended: false,
                progress_at: Instant::now(),
                records_in_flight: 0,
                abandoned_records: 0,
                taken: 0,
                written: 0,
                packer: None,
                wants_packer: false,
            }),
            work: Condvar::new(),
        }
    }

    /// The state. Nobody panics while holding it; if somebody did, the buffers are still whole records.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread.
    pub(crate) fn signal(&self) {
        self.work.notify_one();
    }

    /// For the thread: waits until there is something to write and takes it, leaving the empty `written` buffer in its
    /// place. `None` at the end, and when `idle` says that there is other work to do.
    pub(crate) fn exchange(&self, written: Option<Vec<u8>>, idle: impl Fn(&State) -> bool) -> Exchange {
        let mut state = self.lock();
        state.progress_at = Instant::now();
        if written.is_some() {
            state.spare = written;
        }
        while state.filling.is_empty() {
            if idle(&state) {
                return Exchange::Idle;
            }
            if state.closing {
                return Exchange::End;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.progress_at = Instant::now();
        let Some(empty) = state.spare.take() else { return Exchange::End };
        let taken = std::mem::replace(&mut state.filling, empty);
        state.records_in_flight = std::mem::take(&mut state.filling_records);
        state.filling_text_bytes = 0;
        state.taken += 1;
        Exchange::Batch(taken)
    }

    /// For the thread: waits a moment after an error; whether it is worth to try again.
    pub(crate) fn pause(&self, for_how_long: std::time::Duration) -> bool {
        let state = self.lock();
        if state.closing {
            return false;
        }
        let (state, _) = self.work.wait_timeout(state, for_how_long).unwrap_or_else(PoisonError::into_inner);
        !state.closing
    }
}

/// What the thread has to do.
pub(crate) enum Exchange {
    /// Write this.
    Batch(Vec<u8>),
    /// Something else.
    Idle,
    /// Nothing any more.
    End,
}

impl State {
    /// Whether one more record fits: however long it becomes, or one of so many bytes of text where records are dropped.
    pub(crate) fn has_room(&self, text_bytes: usize) -> bool {
        match self.limit {
            Limit::Blocking { capacity_bytes, record_max_bytes } => {
                self.filling.len() + record_max_bytes <= capacity_bytes
            }
            Limit::NonBlocking { text_max_bytes } => {
                self.filling.is_empty() || self.filling_text_bytes + text_bytes as u64 <= text_max_bytes
            }
        }
    }

    /// Whether records that find no room are dropped.
    pub(crate) fn drops(&self) -> bool {
        matches!(self.limit, Limit::NonBlocking { .. })
    }

    /// Gives both buffers their full capacity: growing bit by bit would copy.
    pub(crate) fn reserve(&mut self) {
        let capacity = match self.limit {
            Limit::Blocking { capacity_bytes, .. } => capacity_bytes,
            Limit::NonBlocking { .. } => CAPACITY_BYTES,
        };
        if self.filling.capacity() < capacity {
            self.filling.reserve_exact(capacity - self.filling.len());
        }
        if let Some(spare) = self.spare.as_mut().filter(|spare| spare.capacity() < capacity) {
            spare.reserve_exact(capacity);
        }
    }

    /// Gives the memory back to the kernel if nothing is in use.
    pub(crate) fn trim(&mut self) {
        if self.filling.is_empty() && self.spare.is_some() {
            self.filling = Vec::new();
            self.spare = Some(Vec::new());
        }
        if !self.wants_packer {
            self.packer = None;
        }
    }
}
