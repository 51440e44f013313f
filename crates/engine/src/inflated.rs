//! Archives that somebody else made, inflated within bounds: a bomb ends with an error instead of a full disk, and what
//! nobody waits for any more ends, too.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bridge::Abandoned;

/// The plain bytes of an archive. Reading them fails when they are more than those of a layer could be
/// ([`image::inflated_max`]), and when nobody waits for them any more.
pub(crate) struct Inflated<'a> {
    plain: Box<dyn Read + Send + 'a>,
    plain_bytes: u64,
    /// How many bytes the archive has, as far as that is known.
    archive_bytes: Arc<AtomicU64>,
    abandoned: Abandoned,
}

/// Counts what is read.
struct Counted<R> {
    archive: R,
    read_bytes: u64,
    archive_bytes: Arc<AtomicU64>,
}

/// Inflates an archive of whatever compression it has. `archive_bytes` is its length where that is known, else 0: it is
/// what was read of it then.
pub(crate) fn inflate<'a>(
    archive: impl Read + Send + 'a,
    archive_bytes: u64,
    abandoned: &Abandoned,
) -> io::Result<Inflated<'a>> {
    let archive_bytes = Arc::new(AtomicU64::new(archive_bytes));
    let (_, plain) = layer::decompress(Counted { archive, read_bytes: 0, archive_bytes: archive_bytes.clone() })?;
    Ok(Inflated { plain, plain_bytes: 0, archive_bytes, abandoned: abandoned.clone() })
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.archive.read(buffer)?;
        self.read_bytes += count as u64;
        self.archive_bytes.fetch_max(self.read_bytes, Ordering::Relaxed);
        Ok(count)
    }
}

impl Read for Inflated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.abandoned.is_so() {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        let count = self.plain.read(buffer)?;
        self.plain_bytes += count as u64;
        match self.plain_bytes > image::inflated_max(self.archive_bytes.load(Ordering::Relaxed)) {
            true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it inflates to more than any layer of its size")),
            false => Ok(count),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a block says in which a byte is repeated, and how long one may be.
    pub(crate) const REPEATED: u32 = 1;
    pub(crate) const BLOCK_BYTES: u32 = 128 * 1024;

    /// A frame of blocks, each a head of three bytes and what is behind it (RFC 8878, 3.1.1.2).
    pub(crate) fn zstd(blocks: &[(u32, u32, &[u8])]) -> Vec<u8> {
        // No length, no checksum, a window of 128 KiB.
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
        for (index, (kind, length, bytes)) in blocks.iter().enumerate() {
            let last = u32::from(index + 1 == blocks.len());
            frame.extend_from_slice(&(length << 3 | kind << 1 | last).to_le_bytes()[..3]);
            frame.extend_from_slice(bytes);
        }
        frame
    }

    fn read(bytes: &[u8], archive_bytes: u64, abandoned: &Abandoned) -> Result<u64, io::ErrorKind> {
        let read = inflate(bytes, archive_bytes, abandoned).and_then(|mut plain| io::copy(&mut plain, &mut io::sink()));
        read.map_err(|err| err.kind())
    }

    #[test]
    fn what_inflates_to_more_than_a_layer_of_its_length_is_refused() {
        // Four bytes each, of which the disk would be full.
        let zeros = (REPEATED, BLOCK_BYTES, &b"\0"[..]);
        let (small, bomb) = (zstd(&[zeros; 500]), zstd(&[zeros; 1000]));
        let waited_for = Abandoned::default();
        assert_eq!(read(&small, 0, &waited_for), Ok(500 * u64::from(BLOCK_BYTES)));
        assert_eq!(read(&bomb, 0, &waited_for), Err(io::ErrorKind::FileTooLarge));
        assert_eq!(read(&bomb, bomb.len() as u64, &waited_for), Err(io::ErrorKind::FileTooLarge));
        // What is known to come counts before it comes.
        assert_eq!(read(&bomb, 1 << 20, &waited_for), Ok(1000 * u64::from(BLOCK_BYTES)));
    }

    #[test]
    fn nothing_is_inflated_for_nobody() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (sender, ended) = std::sync::mpsc::channel();
        runtime.block_on(async move {
            let (begun, has_begun) = tokio::sync::oneshot::channel();
            let inflating = tokio::spawn(bridge::abandonable(move |abandoned| {
                begun.send(()).unwrap();
                // It never ends.
                let mut plain = inflate(io::repeat(b'x'), 0, abandoned).unwrap();
                let _ = sender.send(io::copy(&mut plain, &mut io::sink()));
            }));
            has_begun.await.unwrap();
            inflating.abort();
            assert!(inflating.await.unwrap_err().is_cancelled());
        });
        assert!(ended.recv().unwrap().is_err());
    }
}
