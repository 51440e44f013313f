//! A tar as gzip, for registries: deflated in blocks, at once on all processors, the same bytes every time.
//!
//! ```text
//! write --> block of 1 MiB --> deflate (threads) --> in order --> header, blocks, an empty last one, checksum, length
//! ```
//! A block begins without the history of the one before it, so that the number of threads changes nothing; that costs less
//! than a hundredth of the size. It is one member of gzip (RFC 1952), which everybody can inflate.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// How a layer was compressed: with these values, and this version, its bytes are the same again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compressor {
    /// Raised whenever other bytes come out, also because of a library; a test tells.
    pub version: u32,
    /// Deflate's, 0 to 9.
    pub level: u32,
    /// Bytes of the tar in one block.
    pub block_bytes: u32,
}

/// What layers are compressed with. Level 6 is everybody's default.
pub const COMPRESSOR: Compressor = Compressor { version: 1, level: 6, block_bytes: 1024 * 1024 };

/// Several layers are compressed at a time: more threads for each are not worth their memory, which is 4 MiB.
const THREADS_MAX: usize = 4;

/// No name, no time, no system (RFC 1952, 2.3.1).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// A last block in which nothing is (RFC 1951, 3.2.6).
const LAST_BLOCK: [u8; 2] = [3, 0];

/// A block to be deflated, and who waits for it.
type Job = (Vec<u8>, SyncSender<Vec<u8>>);

/// Compresses what is written to it; [`Gzip::finish`] must end it.
pub struct Gzip<W> {
    to: W,
    compressor: Compressor,
    block: Vec<u8>,
    crc: Crc,
    jobs: Option<SyncSender<Job>>,
    /// Blocks on their way, in order.
    waiting: VecDeque<Receiver<Vec<u8>>>,
    threads: Vec<JoinHandle<()>>,
}

impl<W: Write> Gzip<W> {
    /// Writes the header.
    pub fn new(compressor: Compressor, mut to: W) -> io::Result<Gzip<W>> {
        to.write_all(&HEADER)?;
        let count = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let (jobs, queue) = sync_channel::<Job>(count);
        let queue = Arc::new(Mutex::new(queue));
        let deflating = |queue: Arc<Mutex<Receiver<Job>>>| move || deflate_all(&queue, compressor.level);
        let threads: io::Result<Vec<_>> =
            (0..count).map(|_| thread::Builder::new().name("deflate".into()).spawn(deflating(queue.clone()))).collect();
        let (block, crc) = (Vec::with_capacity(compressor.block_bytes as usize), Crc::new());
        Ok(Gzip { to, compressor, block, crc, jobs: Some(jobs), waiting: VecDeque::new(), threads: threads? })
    }

    /// Writes what is left, and the end.
    pub fn finish(mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            self.submit()?;
        }
        while !self.waiting.is_empty() {
            self.take_first()?;
        }
        self.to.write_all(&LAST_BLOCK)?;
        self.to.write_all(&self.crc.sum().to_le_bytes())?;
        self.to.write_all(&self.crc.amount().to_le_bytes())?;
        self.to.flush()
    }

    fn submit(&mut self) -> io::Result<()> {
        let next = Vec::with_capacity(self.compressor.block_bytes as usize);
        let block = std::mem::replace(&mut self.block, next);
        if self.waiting.len() > self.threads.len() {
            self.take_first()?;
        }
        let (done, deflated) = sync_channel(1);
        let jobs = self.jobs.as_ref().expect("only the end takes the queue");
        jobs.send((block, done)).map_err(|_| broken())?;
        self.waiting.push_back(deflated);
        Ok(())
    }

    fn take_first(&mut self) -> io::Result<()> {
        let Some(first) = self.waiting.pop_front() else { return Ok(()) };
        let deflated = first.recv().map_err(|_| broken())?;
        self.to.write_all(&deflated)
    }
}

fn broken() -> io::Error {
    io::Error::other("a compressing thread ended")
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.compressor.block_bytes as usize - self.block.len();
        let count = room.min(bytes.len());
        self.crc.update(&bytes[..count]);
        self.block.extend_from_slice(&bytes[..count]);
        if count == room {
            self.submit()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        // A flush would change the bytes.
        Ok(())
    }
}

impl<W> Drop for Gzip<W> {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // Whoever waited for a block of a thread that panicked has heard so.
            let _ = thread.join();
        }
    }
}

fn deflate_all(queue: &Mutex<Receiver<Job>>, level: u32) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((block, done)) = job else { return };
        let Some(deflated) = deflate(&block, level) else { return };
        // Whoever gave it may have failed meanwhile.
        let _ = done.send(deflated);
    }
}

/// One block that others may follow: it ends at a byte.
fn deflate(block: &[u8], level: u32) -> Option<Vec<u8>> {
    let mut deflated = Vec::with_capacity(block.len() / 2 + 64);
    let mut stream = Compress::new(Compression::new(level), false);
    loop {
        let read = usize::try_from(stream.total_in()).ok()?;
        let status = stream.compress_vec(&block[read..], &mut deflated, FlushCompress::Sync).ok()?;
        // With room left, all that there was is written.
        if stream.total_in() == block.len() as u64 && deflated.len() < deflated.capacity() {
            return Some(deflated);
        }
        match status {
            Status::Ok | Status::BufError => deflated.reserve(deflated.capacity().max(4096)),
            Status::StreamEnd => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use oci::Digest;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// Text that can be compressed, and noise that cannot.
    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = |at: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if (at / 5000).is_multiple_of(2) { b"abcdefgh"[at % 8] ^ (state >> 30) as u8 } else { (state >> 24) as u8 }
        };
        (0..length).map(&mut next).collect()
    }

    fn compress(tar: &[u8], piece: usize, compressor: Compressor) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut gzip = Gzip::new(compressor, &mut bytes).unwrap();
        tar.chunks(piece).for_each(|piece| gzip.write_all(piece).unwrap());
        gzip.finish().unwrap();
        bytes
    }

    #[test]
    fn what_is_compressed_comes_back_and_is_the_same_every_time() {
        let small = Compressor { block_bytes: 4096, ..COMPRESSOR };
        for length in [0, 1, 4095, 4096, 4097, 200_000] {
            let tar = sample(length);
            let gzip = compress(&tar, 1000, small);
            let mut inflated = Vec::new();
            GzDecoder::new(&gzip[..]).read_to_end(&mut inflated).unwrap();
            assert!(inflated == tar, "{length}");
            assert!(gzip == compress(&tar, 77_777, small), "{length}");
        }
    }

    /// Fails when a library writes other bytes: raise [`COMPRESSOR`]'s version then, and write the new digest here.
    #[test]
    fn the_version_says_which_bytes_come_out() {
        let gzip = compress(&sample(3_000_000), 100_000, COMPRESSOR);
        let digest = Digest::from_sha256(&Sha256::digest(&gzip).into());
        assert_eq!(
            (COMPRESSOR.version, digest.as_str()),
            (1, "sha256:e516112776eba6d42591dc460ac4350f716b924faedd7e013a2076ea95da872b")
        );
    }

    #[test]
    fn a_receiver_that_fails_ends_it() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if bytes.len() > HEADER.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(bytes.len()) }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut gzip = Gzip::new(COMPRESSOR, Full).unwrap();
        let written = gzip.write_all(&sample(40_000_000));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
