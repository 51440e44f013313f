//! What the owner's thread and the writing thread share: two buffers that change places.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::line::ENCODED_MAX_BYTES;

/// Bytes that wait for the disk at most. Above the allocator's threshold for mappings of their own, so that what a burst
/// touched goes back to the kernel with [`Shared::trim`].
pub(super) const CAPACITY_BYTES: usize = 384 * 1024;

/// The meeting point of both threads. Held only for a copy or a swap, never during I/O.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Told when there is something to write, or nothing more will come.
    work: Condvar,
}

/// Guarded by the mutex.
pub(super) struct State {
    /// Encoded lines in order. Never grows past its capacity.
    pub(super) filling: Vec<u8>,
    /// The other buffer, while it is not being written.
    pub(super) spare: Option<Vec<u8>>,
    /// The owner waits for room, or for the end.
    pub(super) owner_waits: bool,
    /// Nothing more will come.
    pub(super) closing: bool,
    /// The thread has ended.
    pub(super) ended: bool,
    /// When the thread last wrote something or had nothing to write.
    pub(super) progress_at: Instant,
    /// Lines that the thread has taken and not written.
    pub(super) lines_in_flight: u64,
    /// Lines that the thread gave up at the end.
    pub(super) abandoned_lines: u64,
}

impl Shared {
    pub(super) fn new() -> Shared {
        Shared {
            state: Mutex::new(State {
                filling: Vec::new(),
                spare: Some(Vec::new()),
                owner_waits: false,
                closing: false,
                ended: false,
                progress_at: Instant::now(),
                lines_in_flight: 0,
                abandoned_lines: 0,
            }),
            work: Condvar::new(),
        }
    }

    /// The state. Nobody panics while holding it; if somebody did, the buffers are still whole lines.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread.
    pub(super) fn signal(&self) {
        self.work.notify_one();
    }

    /// For the thread: waits until there is something to write and takes it, leaving the empty `written` buffer in its
    /// place. `None` at the end.
    pub(super) fn exchange(&self, written: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let mut state = self.lock();
        state.progress_at = Instant::now();
        if written.is_some() {
            state.spare = written;
        }
        while state.filling.is_empty() {
            if state.closing {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.progress_at = Instant::now();
        let empty = state.spare.take()?;
        let taken = std::mem::replace(&mut state.filling, empty);
        state.lines_in_flight = newlines(&taken);
        Some(taken)
    }

    /// For the thread: waits a moment after an error; whether it is worth to try again.
    pub(super) fn pause(&self, for_how_long: std::time::Duration) -> bool {
        let state = self.lock();
        if state.closing {
            return false;
        }
        let (state, _) = self.work.wait_timeout(state, for_how_long).unwrap_or_else(PoisonError::into_inner);
        !state.closing
    }
}

/// The number of lines in `bytes`.
pub(super) fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

impl State {
    /// Whether one more line fits, however long it becomes.
    pub(super) fn has_room(&self, attrs_bytes: usize) -> bool {
        CAPACITY_BYTES - self.filling.len().min(CAPACITY_BYTES) >= ENCODED_MAX_BYTES + attrs_bytes
    }

    /// Gives both buffers their full capacity, so that the thread never needs to grow one.
    pub(super) fn reserve(&mut self) {
        let capacity = CAPACITY_BYTES;
        if self.filling.capacity() < capacity {
            self.filling.reserve_exact(capacity - self.filling.len());
        }
        if let Some(spare) = self.spare.as_mut().filter(|spare| spare.capacity() < capacity) {
            spare.reserve_exact(capacity);
        }
    }

    /// Gives the memory back to the kernel if nothing is in use.
    pub(super) fn trim(&mut self) {
        if self.filling.is_empty() && self.spare.is_some() {
            self.filling = Vec::new();
            self.spare = Some(Vec::new());
        }
    }
}
