//! From a recipe and a directory back to the tar, to the byte.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use errdefs::ErrorKind;
use oci::Digest;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use sha2::{Digest as _, Sha256};

use crate::recipe::{BYTES, END, FILE, FOOTER_BYTES, MAGIC};

/// What is hashed and written at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// What is read of a recipe at a time.
const READ_BYTES: usize = 64 * 1024;

/// The longest path that a recipe names: PATH_MAX, as for directories.
const PATH_MAX: u64 = 4096;

/// Why a layer's tar was not re-created. What was written until then is worth nothing.
#[derive(Debug, thiserror::Error)]
pub enum RecreateError {
    /// The recipe is torn.
    #[error("read the recipe of layer {diff_id}")]
    Recipe {
        /// Of which layer.
        diff_id: Digest,
        /// Why.
        source: io::Error,
    },
    /// A file of the layer is not there, or not as long as it was.
    #[error("read {path:?} of layer {diff_id}")]
    File {
        /// Of which layer.
        diff_id: Digest,
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody changed the layer.
    #[error("layer {diff_id} is not what it was: it gives a tar of {actual}")]
    Changed {
        /// Which one.
        diff_id: Digest,
        /// What it gives now.
        actual: Digest,
    },
    /// Whoever takes the bytes takes no more.
    #[error("write the tar of layer {diff_id}")]
    Write {
        /// Of which layer.
        diff_id: Digest,
        /// Why.
        source: io::Error,
    },
}

impl RecreateError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// Writes the tar of `diff_id` to `to`: what [`crate::apply_recorded`] was given when it made `directory` and `recipe`.
///
/// Blocks. The last bytes are verified only after they were written: an error says that all of them are wrong.
pub fn recreate(recipe: &File, directory: &Path, diff_id: &Digest, to: &mut dyn Write) -> Result<(), RecreateError> {
    let failed = |failure: Failure| failure.of(diff_id);
    let root = open_root(directory).map_err(|source| Failure::File { path: Vec::new(), source }).map_err(failed)?;
    let opened = Streams::open(recipe).map_err(Failure::Recipe).map_err(failed)?;
    let mut output = Output { to, hasher: Sha256::new(), buffer: vec![0; CHUNK_BYTES], filled: 0 };
    opened.play(&root, &mut output).map_err(failed)?;
    let actual = output.finish().map_err(failed)?;
    match actual == *diff_id {
        true => Ok(()),
        false => Err(RecreateError::Changed { diff_id: diff_id.clone(), actual }),
    }
}

fn open_root(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, directory, flags, Mode::empty())?)
}

enum Failure {
    Recipe(io::Error),
    File { path: Vec<u8>, source: io::Error },
    Write(io::Error),
}

impl Failure {
    fn of(self, diff_id: &Digest) -> RecreateError {
        let diff_id = diff_id.clone();
        match self {
            Failure::Recipe(source) => RecreateError::Recipe { diff_id, source },
            Failure::File { path, source } => {
                RecreateError::File { diff_id, path: String::from_utf8_lossy(&path).into_owned(), source }
            }
            Failure::Write(source) => RecreateError::Write { diff_id, source },
        }
    }
}

/// Where the tar goes, in large pieces, and its digest.
struct Output<'a> {
    to: &'a mut dyn Write,
    hasher: Sha256,
    buffer: Vec<u8>,
    filled: usize,
}

impl Output<'_> {
    /// Moves `length` bytes of `from`; `fault` says whose fault a failure of it is.
    fn copy(&mut self, mut from: impl Read, length: u64, fault: impl Fn(io::Error) -> Failure) -> Result<(), Failure> {
        let mut left = length;
        while left > 0 {
            let room = &mut self.buffer[self.filled..];
            let wanted = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match from.read(&mut room[..wanted]) {
                Ok(0) => return Err(fault(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    self.filled += count;
                    left -= count as u64;
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(fault(err)),
            }
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let bytes = &self.buffer[..self.filled];
        self.hasher.update(bytes);
        self.filled = 0;
        self.to.write_all(bytes).map_err(Failure::Write)
    }

    fn finish(mut self) -> Result<Digest, Failure> {
        self.flush()?;
        Ok(Digest::from_sha256(&self.hasher.finalize().into()))
    }
}

type Stream<'a> = BufReader<zstd::Decoder<'static, BufReader<Part<'a>>>>;

/// Both streams of a recipe.
struct Streams<'a> {
    script: Stream<'a>,
    replaced: Stream<'a>,
    /// The next file whose contents are in `replaced`.
    next: Option<(u64, u64)>,
}

impl<'a> Streams<'a> {
    fn open(recipe: &'a File) -> io::Result<Streams<'a>> {
        let mut file = recipe;
        let end = file.seek(SeekFrom::End(0))?.checked_sub(FOOTER_BYTES).ok_or(io::ErrorKind::UnexpectedEof)?;
        let part = |offset, end| Part { file, offset, end };
        let mut magic = [0; MAGIC.len()];
        part(0, end).read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is none"));
        }
        let mut footer = [0; FOOTER_BYTES as usize];
        part(end, end + FOOTER_BYTES).read_exact(&mut footer)?;
        let script_end = u64::from_le_bytes(footer);
        let stream = |offset, end| {
            let buffered = BufReader::with_capacity(READ_BYTES, part(offset, end));
            Ok::<_, io::Error>(BufReader::with_capacity(READ_BYTES, zstd::Decoder::with_buffer(buffered)?))
        };
        let script = stream(MAGIC.len() as u64, script_end)?;
        let mut streams = Streams { script, replaced: stream(script_end, end)?, next: None };
        streams.advance()?;
        Ok(streams)
    }

    fn advance(&mut self) -> io::Result<()> {
        self.next = match byte(&mut self.replaced)? {
            END => None,
            BYTES => Some((number(&mut self.replaced)?, number(&mut self.replaced)?)),
            _ => return Err(torn()),
        };
        Ok(())
    }

    fn play(mut self, root: &OwnedFd, output: &mut Output<'_>) -> Result<(), Failure> {
        let mut files = 0;
        loop {
            match byte(&mut self.script).map_err(Failure::Recipe)? {
                END => return Ok(()),
                BYTES => {
                    let length = number(&mut self.script).map_err(Failure::Recipe)?;
                    output.copy(&mut self.script, length, Failure::Recipe)?;
                }
                FILE => {
                    let (length, path) = named(&mut self.script).map_err(Failure::Recipe)?;
                    match self.next {
                        Some((number, kept)) if number == files => {
                            if kept != length {
                                return Err(Failure::Recipe(torn()));
                            }
                            output.copy(&mut self.replaced, length, Failure::Recipe)?;
                            self.advance().map_err(Failure::Recipe)?;
                        }
                        _ => {
                            let fault = |source| Failure::File { path: path.clone(), source };
                            let file = open_file(root, &path).map_err(fault)?;
                            output.copy(file, length, fault)?;
                        }
                    }
                    files += 1;
                }
                _ => return Err(Failure::Recipe(torn())),
            }
        }
    }
}

fn named(script: &mut impl Read) -> io::Result<(u64, Vec<u8>)> {
    let (length, path_length) = (number(script)?, number(script)?);
    if path_length > PATH_MAX {
        return Err(torn());
    }
    let mut path = vec![0; path_length as usize];
    script.read_exact(&mut path)?;
    Ok((length, path))
}

fn open_file(root: &OwnedFd, path: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(File::from(rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?))
}

fn byte(stream: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn number(stream: &mut impl Read) -> io::Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = byte(stream)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(torn())
}

fn torn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is torn")
}

/// A part of a file, read without its position: two are read from one descriptor.
struct Part<'a> {
    file: &'a File,
    offset: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let count = std::os::unix::fs::FileExt::read_at(self.file, &mut buffer[..wanted], self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
