//! A compressed archive, inflated no further than a layer is: before the disk is full of one that is made to fill it.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::LoadError;
use crate::pull::inflated_max;

/// What comes out, as long as that is in proportion to what went in.
struct Inflated<'a> {
    source: Box<dyn Read + Send + 'a>,
    /// Bytes that were read of the archive so far: at most a buffer ahead of what comes out.
    taken: Arc<AtomicU64>,
    given: u64,
}

impl Read for Inflated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.given += length as u64;
        if self.given > inflated_max(self.taken.load(Ordering::Relaxed)) {
            let words = "it inflates to more than any archive of its size";
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, words));
        }
        Ok(length)
    }
}

/// Counts what is read.
struct Counted<R> {
    source: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        // One thread reads both ends.
        self.taken.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// The tar in an archive of whatever compression.
pub(super) fn inflate<'a>(source: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>, LoadError> {
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Counted { source, taken: Arc::clone(&taken) };
    let (compression, source) = layer::decompress(counted).map_err(|source| LoadError::Inflate { source })?;
    Ok(match compression {
        layer::Compression::Plain => source,
        _ => Box::new(Inflated { source, taken, given: 0 }),
    })
}
