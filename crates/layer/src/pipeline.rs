//! From the bytes as they come to the chunks of a tar, inflated and hashed on threads of their own.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use oci::Digest;
use sha2::{Digest as _, Sha256};

/// The size of a chunk: large enough that handing it over costs nothing, small enough to stay in the cache between
/// inflating, hashing and writing.
const CHUNK_BYTES: usize = 256 * 1024;

/// Chunks between two threads: what one may be ahead of the other. Two layers in flight stay below 20 MiB.
pub(crate) const CHUNKS_AHEAD: usize = 16;

/// How much of a stream tells its compression.
const MAGIC_BYTES: usize = 10;

pub(crate) type Chunk = Arc<Vec<u8>>;

/// How a stream is compressed, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not, or in a way that we do not know.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// Tells it from the first bytes of a stream; four are enough.
    pub fn detect(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, 8, ..] => Compression::Gzip,
            // A frame, or a frame to skip, with which zstd:chunked may begin.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::Plain,
        }
    }
}

/// Whether a stream that begins so is a layer: a compressed one, a tar, or an empty tar.
pub fn looks_like_layer(start: &[u8]) -> bool {
    Compression::detect(start) != Compression::Plain || archive::looks_like_tar(start)
}

/// The compressions that we know and cannot inflate; without a name they would be told as broken archives.
fn unsupported(start: &[u8]) -> Option<&'static str> {
    match start {
        // Its first block begins with the digits of pi: a file's name, with which a tar begins, can look like the rest.
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Some("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("xz"),
        _ => None,
    }
}

/// Inflates a stream of whatever compression it has.
pub fn decompress<'a>(mut source: impl Read + Send + 'a) -> io::Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut start = Vec::with_capacity(MAGIC_BYTES);
    source.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut start)?;
    if let Some(name) = unsupported(&start) {
        let sentence = format!("compression with {name} is not supported: gzip, zstd and none are");
        return Err(io::Error::new(io::ErrorKind::Unsupported, sentence));
    }
    let compression = Compression::detect(&start);
    let whole = Cursor::new(start).chain(source);
    let reader: Box<dyn Read + Send + 'a> = match compression {
        Compression::Plain => Box::new(whole),
        Compression::Gzip => {
            Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(CHUNK_BYTES, whole)))
        }
        Compression::Zstd => {
            Box::new(zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(CHUNK_BYTES, whole))?)
        }
    };
    Ok((compression, reader))
}

/// What went through the inflating thread.
pub(crate) struct Fed {
    pub(crate) compression: Compression,
    /// Of the bytes as read; for a plain tar it is computed by the hashing thread alone.
    pub(crate) digest: Option<Digest>,
    /// Bytes as read.
    pub(crate) size: u64,
}

/// Reads, inflates, and gives every chunk to both receivers. Stops early when the first one is gone.
pub(crate) fn feed(
    source: impl Read + Send,
    limit_bytes: u64,
    chunks: SyncSender<io::Result<Chunk>>,
    hash: SyncSender<Chunk>,
) -> Option<Fed> {
    let mut counted = Counted { source, hasher: Sha256::new(), hash: true, size: 0 };
    match pump(&mut counted, limit_bytes, &chunks, &hash) {
        Ok(Some(compression)) => {
            let compressed = compression != Compression::Plain;
            let digest = compressed.then(|| Digest::from_sha256(&counted.hasher.finalize().into()));
            Some(Fed { compression, digest, size: counted.size })
        }
        Ok(None) => None,
        Err(err) => {
            // Whoever waits for chunks learns why there are no more; if nobody waits, nobody needs to know.
            let _ = chunks.send(Err(err));
            None
        }
    }
}

/// `None` if nobody takes the chunks any more.
fn pump<R: Read + Send>(
    counted: &mut Counted<R>,
    limit_bytes: u64,
    chunks: &SyncSender<io::Result<Chunk>>,
    hash: &SyncSender<Chunk>,
) -> io::Result<Option<Compression>> {
    let mut start = Vec::with_capacity(MAGIC_BYTES);
    counted.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut start)?;
    // The same bytes need not be hashed twice.
    counted.hash = Compression::detect(&start) != Compression::Plain;
    let (compression, mut reader) = decompress(Cursor::new(start).chain(counted))?;
    let mut inflated = 0;
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let filled = fill(&mut reader, &mut chunk)?;
        if filled == 0 {
            return Ok(Some(compression));
        }
        inflated += filled as u64;
        if inflated > limit_bytes {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it inflates to more than any layer of its size"));
        }
        chunk.truncate(filled);
        let chunk = Arc::new(chunk);
        if hash.send(chunk.clone()).is_err() || chunks.send(Ok(chunk)).is_err() {
            return Ok(None);
        }
    }
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(filled)
}

/// Hashes chunks until there are no more.
pub(crate) fn hash(chunks: Receiver<Chunk>) -> (Digest, u64) {
    let (mut hasher, mut size) = (Sha256::new(), 0);
    for chunk in chunks {
        hasher.update(&chunk[..]);
        size += chunk.len() as u64;
    }
    (Digest::from_sha256(&hasher.finalize().into()), size)
}

struct Counted<R> {
    source: R,
    hasher: Sha256,
    hash: bool,
    size: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        if self.hash {
            self.hasher.update(&buffer[..count]);
        }
        self.size += count as u64;
        Ok(count)
    }
}

/// The receiving end of the chunks, as a reader that copies nothing.
pub(crate) struct ChunkReader {
    chunks: Receiver<io::Result<Chunk>>,
    current: Chunk,
    position: usize,
}

impl ChunkReader {
    pub(crate) fn new(chunks: Receiver<io::Result<Chunk>>) -> ChunkReader {
        ChunkReader { chunks, current: Chunk::default(), position: 0 }
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.len()
            && let Ok(next) = self.chunks.recv()
        {
            (self.current, self.position) = (next?, 0);
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressions_that_are_not_there_are_named() {
        let told = |bytes: &[u8]| decompress(bytes).map(|(compression, _)| compression).map_err(|err| err.to_string());
        let refused = |name: &str| Err(format!("compression with {name} is not supported: gzip, zstd and none are"));
        assert_eq!(told(b"BZh91AY&SY..."), refused("bzip2"));
        assert_eq!(told(b"\xfd7zXZ\0..."), refused("xz"));
        // A tar whose first file has such a name.
        assert_eq!(told(b"BZh9.txt\0\0\0"), Ok(Compression::Plain));
        assert_eq!(told(b"BZ"), Ok(Compression::Plain));
    }
}
