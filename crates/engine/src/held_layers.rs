//! The layers of an image, which stay for as long as somebody makes tars of them.
//!
//! What the store holds belongs to a thread, since it borrows from the store; jobs are sent to it, and each runs on a thread
//! of its own. When the last sender is gone, so is the thread, and what was held is free.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;

use image::{Compressor, Gzip, Held};
use oci::Digest;

use crate::Engine;

/// Pieces of a compressed layer that wait for whoever sends them; a piece is a block at most.
const PIECES_AHEAD: usize = 2;

type Job = Box<dyn FnOnce(&Held<'_>) + Send>;

/// An image that is held.
#[derive(Debug)]
pub(crate) struct HeldLayers(Sender<Job>);

impl HeldLayers {
    /// Holds an image; `None` if it is gone. Blocks.
    pub(crate) fn hold(engine: &Engine, id: &Digest) -> io::Result<Option<HeldLayers>> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, is_held) = mpsc::channel();
        let (engine, id) = (engine.clone(), id.clone());
        thread::Builder::new().name("held-layers".to_owned()).spawn(move || {
            let Some(held) = image::hold(&engine.images, &id) else { return };
            // Whoever asked waits for it.
            if ready.send(()).is_err() {
                return;
            }
            thread::scope(|scope| {
                for job in queue {
                    let held = &held;
                    scope.spawn(move || job(held));
                }
            });
            drop(held);
            engine.let_go([&id]);
        })?;
        Ok(is_held.recv().ok().map(|()| HeldLayers(jobs)))
    }

    /// A layer, compressed while it is read. `tar_bytes` counts what of its tar was compressed.
    pub(crate) fn gzip(
        &self,
        index: usize,
        compressor: Compressor,
        tar_bytes: Arc<AtomicU64>,
    ) -> impl Read + Send + use<> {
        let (pieces, queue) = mpsc::sync_channel(PIECES_AHEAD);
        tar_bytes.store(0, Ordering::Relaxed);
        let job = move |held: &Held<'_>| {
            let end = match compress(held, index, compressor, &tar_bytes, &pieces) {
                Ok(()) => Ok(Vec::new()),
                Err(err) => Err(err),
            };
            // Whoever does not read any more does not want to know.
            let _ = pieces.send(end);
        };
        // If the thread is gone, the reader says so: nobody holds the other end of its queue.
        let _ = self.0.send(Box::new(job));
        Pieces { queue, current: Vec::new(), position: 0, ended: false }
    }
}

fn compress(
    held: &Held<'_>,
    index: usize,
    compressor: Compressor,
    tar_bytes: &AtomicU64,
    pieces: &SyncSender<io::Result<Vec<u8>>>,
) -> io::Result<()> {
    let gzip = Gzip::new(compressor, ToPieces(pieces))?;
    let mut counted = Counted { gzip, tar_bytes };
    held.layer_tar(index, &mut counted).map_err(io::Error::other)?;
    counted.gzip.finish()
}

/// Counts what is compressed.
struct Counted<'a, W> {
    gzip: Gzip<W>,
    tar_bytes: &'a AtomicU64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.gzip.write(bytes)?;
        self.tar_bytes.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.gzip.flush()
    }
}

/// Sends what is written.
struct ToPieces<'a>(&'a SyncSender<io::Result<Vec<u8>>>);

impl Write for ToPieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An empty piece is the end.
        if !bytes.is_empty() {
            self.0.send(Ok(bytes.to_vec())).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads pieces up to the empty one; without it they were broken off.
struct Pieces {
    queue: Receiver<io::Result<Vec<u8>>>,
    current: Vec<u8>,
    position: usize,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.current.len() && !self.ended {
            let broken = |_| io::Error::other("the thread that makes the layer ended");
            (self.current, self.position) = (self.queue.recv().map_err(broken)??, 0);
            self.ended = self.current.is_empty();
        }
        let rest = &self.current[self.position..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}
