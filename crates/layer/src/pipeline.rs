//! From the bytes as they come to the chunks of a tar, inflated and hashed on threads of their own.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use oci::Digest;
use sha2::{Digest as _, Sha256};

use crate::recipe::Recorder;

/// The size of a chunk: large enough that handing it over costs nothing, small enough to stay in the cache between
/// inflating, hashing and writing.
const CHUNK_BYTES: usize = 256 * 1024;

/// Chunks between two threads: what one may be ahead of the other. Two layers in flight stay below 20 MiB.
pub(crate) const CHUNKS_AHEAD: usize = 16;

/// How much of a stream tells its compression.
const MAGIC_BYTES: usize = 10;

/// What `xz -9` makes is read with a window of 64 MiB, and some; a header may ask for 4 GiB.
const XZ_MEMORY_KIB: u32 = 80 * 1024;

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
    /// Of bzip2 1.0; no registry's, but archives are.
    Bzip2,
    /// The .xz file format; the same.
    Xz,
}

impl Compression {
    /// Tells it from the first bytes of a stream; ten are enough.
    pub fn detect(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, 8, ..] => Compression::Gzip,
            // A frame, or a frame to skip, with which zstd:chunked may begin.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            // Its first block begins with the digits of pi, and an empty one ends with those of their root: a file's name,
            // with which a tar begins, can look like the rest.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Compression::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            _ => Compression::Plain,
        }
    }
}

/// Whether a stream that begins so is a layer: a compressed one, a tar, or an empty tar.
pub fn looks_like_layer(start: &[u8]) -> bool {
    Compression::detect(start) != Compression::Plain || archive::looks_like_tar(start)
}

/// Inflates a stream of whatever compression it has.
pub fn decompress<'a>(mut source: impl Read + Send + 'a) -> io::Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut start = Vec::with_capacity(MAGIC_BYTES);
    source.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut start)?;
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
        Compression::Bzip2 => {
            Box::new(bzip2::bufread::MultiBzDecoder::new(BufReader::with_capacity(CHUNK_BYTES, whole)))
        }
        Compression::Xz => {
            let buffered = BufReader::with_capacity(CHUNK_BYTES, whole);
            Box::new(lzma_rust2::XzReader::new_mem_limit(buffered, true, XZ_MEMORY_KIB))
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
pub(crate) struct ChunkReader<'a> {
    chunks: Receiver<io::Result<Chunk>>,
    current: Chunk,
    position: usize,
    /// Sees all that is taken.
    pub(crate) recorder: Option<Recorder<'a>>,
}

impl<'a> ChunkReader<'a> {
    pub(crate) fn new(chunks: Receiver<io::Result<Chunk>>, recorder: Option<Recorder<'a>>) -> ChunkReader<'a> {
        ChunkReader { chunks, current: Chunk::default(), position: 0, recorder }
    }
}

impl BufRead for ChunkReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.len()
            && let Ok(next) = self.chunks.recv()
        {
            (self.current, self.position) = (next?, 0);
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, count: usize) {
        if let Some(recorder) = &mut self.recorder {
            recorder.taken(&self.current[self.position..self.position + count]);
        }
        self.position += count;
    }
}

impl Read for ChunkReader<'_> {
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
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn compressions_are_told_by_their_first_bytes() {
        for (bytes, expected) in [
            (&b"BZh91AY&SY..."[..], Compression::Bzip2),
            (b"\xfd7zXZ\0...", Compression::Xz),
            // A tar whose first file has such a name.
            (b"BZh9.txt\0\0\0", Compression::Plain),
            (b"BZ", Compression::Plain),
            (b"\x1f\x8b\x08\0", Compression::Gzip),
        ] {
            assert_eq!(Compression::detect(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn everything_that_the_usual_programs_make_is_inflated() {
        let text: Vec<u8> = (0..400_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for program in ["bzip2", "xz", "gzip", "zstd"] {
            let run = |arguments: &[&str], input: &[u8]| {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(input).unwrap();
                file.rewind().unwrap();
                std::process::Command::new(program).args(arguments).stdin(file).output().map(|output| output.stdout)
            };
            // Without the program there is nothing to try.
            let Ok(packed) = run(&["-9", "-c"], &text) else { continue };
            // Two streams after one another are one.
            for (bytes, expected) in
                [(packed.clone(), text.clone()), ([packed.clone(), packed].concat(), text.repeat(2))]
            {
                let (compression, mut reader) = decompress(&bytes[..]).unwrap();
                let mut inflated = Vec::new();
                reader.read_to_end(&mut inflated).unwrap();
                assert_ne!(compression, Compression::Plain);
                assert!(inflated == expected, "{program}");
                let cut = decompress(&bytes[..bytes.len() - 9])
                    .and_then(|(_, mut reader)| reader.read_to_end(&mut Vec::new()));
                assert!(cut.is_err(), "{program}");
            }
        }
    }

    #[test]
    fn a_window_that_no_program_makes_is_refused_before_it_is_made() {
        // A stream's header and its first block's (xz file format, 3.1), which says how large the window is.
        let with_window = |bits: u8| {
            let mut block = vec![2, 0, 0x21, 1, bits, 0, 0, 0];
            let mut crc = flate2::Crc::new();
            crc.update(&block);
            block.extend(crc.sum().to_le_bytes());
            let stream = [b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46", &block[..]].concat();
            decompress(&stream[..]).and_then(|(_, mut reader)| reader.read_to_end(&mut Vec::new())).unwrap_err().kind()
        };
        // 64 MiB: what `xz -9` has; here the data is missing. 1.5 GiB and 4 GiB.
        assert_eq!(
            [28, 37, 40].map(with_window),
            [io::ErrorKind::UnexpectedEof, io::ErrorKind::OutOfMemory, io::ErrorKind::OutOfMemory]
        );
    }
}
