//! What a client has not read yet: first in memory, then in an unnamed file.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

/// Bytes kept in memory at most, before the file is used. A client that reads never comes near.
const MEMORY_MAX_BYTES: usize = 256 * 1024;

/// Bytes kept in the file at most: a client that is so far behind holds the container up.
const SPILL_MAX_BYTES: u64 = 64 << 20;

/// Bytes that are taken back from the file at a time.
const RELOAD_BYTES: u64 = 64 * 1024;

/// Bytes in order. Takes everything that is pushed; [`Queue::is_full`] says when to stop pushing.
#[derive(Default)]
pub(crate) struct Queue {
    memory: Vec<u8>,
    /// How much of `memory` is gone already.
    consumed: usize,
    /// What came after `memory`.
    spill: Option<Spill>,
    /// The disk took nothing: memory grows over its limit by at most one push.
    disk_failed: bool,
}

/// A ring inside an unnamed file: positions count for ever, and are taken modulo its size.
struct Spill {
    file: OwnedFd,
    head: u64,
    tail: u64,
}

impl Queue {
    /// Appends. `spool_dir` is where the file is made if it is needed.
    pub(crate) fn push(&mut self, bytes: &[u8], spool_dir: &Path) {
        if self.spill.is_none() && self.memory.len() - self.consumed + bytes.len() > MEMORY_MAX_BYTES {
            self.spill = Spill::open(spool_dir);
            self.disk_failed = self.spill.is_none();
        }
        if self.spill.as_mut().is_some_and(|spill| spill.push(bytes)) {
            return;
        }
        self.disk_failed |= self.spill.is_some();
        self.reload_all();
        self.memory.extend_from_slice(bytes);
    }

    /// The oldest bytes, empty only if there are none.
    pub(crate) fn front(&mut self) -> &[u8] {
        if self.consumed == self.memory.len() {
            self.memory.clear();
            self.consumed = 0;
            self.reload();
        }
        &self.memory[self.consumed..]
    }

    /// Takes `count` bytes from the front.
    pub(crate) fn consume(&mut self, count: usize) {
        self.consumed += count;
        if self.is_empty() {
            // An idle client keeps no memory.
            *self = Queue::default();
        }
    }

    /// How many bytes there are.
    pub(crate) fn len_bytes(&self) -> u64 {
        (self.memory.len() - self.consumed) as u64 + self.spill.as_ref().map_or(0, |spill| spill.tail - spill.head)
    }

    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.consumed == self.memory.len() && self.spill.is_none()
    }

    /// Whether nothing more should be pushed now.
    pub(crate) fn is_full(&self) -> bool {
        match &self.spill {
            Some(spill) => spill.tail - spill.head >= SPILL_MAX_BYTES - PUSH_MAX_BYTES,
            None => self.disk_failed && self.memory.len() - self.consumed > MEMORY_MAX_BYTES,
        }
    }

    fn reload(&mut self) {
        let Some(spill) = &mut self.spill else { return };
        let count = (spill.tail - spill.head).min(RELOAD_BYTES);
        if !spill.take(count, &mut self.memory) || spill.head == spill.tail {
            self.spill = None;
        }
    }

    /// The disk takes no more: what it holds comes back to memory. That is much only if a full file cannot be written.
    fn reload_all(&mut self) {
        if let Some(mut spill) = self.spill.take() {
            let count = spill.tail - spill.head;
            spill.take(count, &mut self.memory);
        }
    }
}

/// More than one push ever brings: the read buffer and a header.
const PUSH_MAX_BYTES: u64 = 1 << 20;

impl Spill {
    fn open(dir: &Path) -> Option<Spill> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, dir, flags, Mode::from_raw_mode(0o600)).ok()?;
        Some(Spill { file, head: 0, tail: 0 })
    }

    /// Whether all of it was written.
    fn push(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        let mut at = self.tail;
        while !rest.is_empty() {
            let offset = at % SPILL_MAX_BYTES;
            let room = usize::try_from(SPILL_MAX_BYTES - offset).unwrap_or(usize::MAX).min(rest.len());
            match rustix::io::retry_on_intr(|| rustix::io::pwrite(&self.file, &rest[..room], offset)) {
                Ok(0) | Err(_) => return false,
                Ok(written) => {
                    rest = &rest[written..];
                    at += written as u64;
                }
            }
        }
        self.tail = at;
        true
    }

    /// Appends `count` bytes from the front to `out`; whether all could be read.
    fn take(&mut self, count: u64, out: &mut Vec<u8>) -> bool {
        let end = self.head + count;
        while self.head < end {
            let offset = self.head % SPILL_MAX_BYTES;
            let wanted = (end - self.head).min(SPILL_MAX_BYTES - offset);
            let old = out.len();
            out.resize(old + usize::try_from(wanted).unwrap_or(0), 0);
            let read = rustix::io::retry_on_intr(|| rustix::io::pread(&self.file, &mut out[old..], offset));
            let read = read.unwrap_or(0);
            out.truncate(old + read);
            if read == 0 {
                return false;
            }
            self.head += read as u64;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_back_in_order_through_memory_and_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = Queue::default();
        let (mut pushed, mut taken) = (0_u32, 0_u32);
        // Ahead by more than memory holds, several times around the ring would be too slow for a test: once is enough.
        while pushed < 18_000_000 {
            let chunk: Vec<u8> = (pushed..pushed + 16_000).flat_map(u32::to_le_bytes).collect();
            pushed += 16_000;
            queue.push(&chunk, dir.path());
            assert!(!queue.is_full());
            while pushed - taken > 2_000_000 || pushed >= 18_000_000 && taken < pushed {
                let front = queue.front();
                let words = front.as_chunks::<4>().0;
                assert!(!words.is_empty());
                assert!(words.iter().map(|word| u32::from_le_bytes(*word)).eq(taken..taken + words.len() as u32));
                let count = words.len();
                queue.consume(count * 4);
                taken += count as u32;
            }
        }
        assert!(queue.is_empty() && queue.front().is_empty());
    }

    #[test]
    fn a_queue_is_full_at_its_cap_or_when_the_disk_fails() {
        let dir = tempfile::tempdir().unwrap();
        for (dir, expected_bytes) in [(dir.path(), SPILL_MAX_BYTES as usize), (Path::new("/nowhere"), MEMORY_MAX_BYTES)]
        {
            let mut queue = Queue::default();
            let mut pushed = 0_usize;
            while !queue.is_full() {
                queue.push(&[7; 100_000], dir);
                pushed += 100_000;
            }
            assert!(pushed.abs_diff(expected_bytes) < 2 << 20, "{pushed}");
            let mut taken = 0;
            while !queue.front().is_empty() {
                let count = queue.front().len();
                taken += count;
                queue.consume(count);
            }
            assert_eq!(taken, pushed);
        }
    }
}
