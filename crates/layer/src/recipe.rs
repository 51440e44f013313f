//! Recipes: everything of a layer's tar that its directory does not keep.
//!
//! ```text
//! magic       8 bytes
//! script      zstd: steps of the tar in its order
//!               1 LENGTH BYTES         as they stood: headers, padding, what follows the end, files with holes
//!               2 LENGTH PATH_LENGTH PATH   the contents of that file, of so many bytes
//!               0                      the end
//! replaced    zstd: contents of files that a later entry of the tar replaced, by the number of their step
//!               1 NUMBER LENGTH BYTES  for the NUMBERth step of kind 2, counted from 0
//!               0                      the end
//! footer      where `replaced` begins, 8 bytes, little-endian
//! ```
//! Numbers are LEB128. Two streams, because what is replaced is known only after the step that made it was written; both
//! are read side by side, once, in their order, so that a tar is re-created with bounded memory and no file besides.
//!
//! Writing costs a copy of the headers: [`Recorder`] sits in the reader of the tar, and sees what is taken from it.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};

/// What a recipe begins with; another layout gets another one.
pub(crate) const MAGIC: &[u8; 8] = b"lsrecip1";

/// Bytes of the footer.
pub(crate) const FOOTER_BYTES: u64 = 8;

/// Steps.
pub(crate) const END: u8 = 0;
/// In `script` bytes as they stood, in `replaced` those of a file.
pub(crate) const BYTES: u8 = 1;
pub(crate) const FILE: u8 = 2;

/// Headers shrink to a twentieth, and a higher level gains a tenth of that for twice the time.
const LEVEL: i32 = 1;

/// Bytes that are collected before they become a step.
const PENDING_BYTES: usize = 64 * 1024;

/// How much is copied at a time.
const COPY_BYTES: usize = 64 * 1024;

/// Writes the script while its tar is read.
pub(crate) struct Recorder<'a> {
    /// `None` once it failed.
    script: Option<zstd::Encoder<'a, Counting<'a>>>,
    failure: Option<io::Error>,
    pending: Vec<u8>,
    /// Bytes of the tar that are to come and are in a file.
    in_file: u64,
    files: u32,
}

struct Counting<'a> {
    sink: &'a mut dyn Write,
    written: u64,
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.sink.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl<'a> Recorder<'a> {
    pub(crate) fn begin(sink: &'a mut dyn Write) -> io::Result<Recorder<'a>> {
        let mut sink = Counting { sink, written: 0 };
        sink.write_all(MAGIC)?;
        let script = Some(zstd::Encoder::new(sink, LEVEL)?);
        Ok(Recorder { script, failure: None, pending: Vec::with_capacity(PENDING_BYTES), in_file: 0, files: 0 })
    }

    /// The next bytes of the tar. A failure is told by [`Recorder::finish`]: who reads a tar cannot be told.
    pub(crate) fn taken(&mut self, mut bytes: &[u8]) {
        let skipped = bytes.len().min(usize::try_from(self.in_file).unwrap_or(usize::MAX));
        self.in_file -= skipped as u64;
        bytes = &bytes[skipped..];
        if self.pending.len() + bytes.len() > PENDING_BYTES {
            self.flush();
        }
        match bytes.len() {
            ..=PENDING_BYTES => self.pending.extend_from_slice(bytes),
            length => {
                let head = [&[BYTES][..], &leb128(length as u64)].concat();
                self.step(&[&head, bytes]);
            }
        }
    }

    /// The next `length` bytes of the tar are the contents of a file; answers its number.
    pub(crate) fn file(&mut self, path: &[u8], length: u64) -> u32 {
        self.flush();
        self.in_file = length;
        self.step(&[&[FILE], &leb128(length), &leb128(path.len() as u64), path]);
        let number = self.files;
        self.files += 1;
        number
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            self.step(&[&[BYTES], &leb128(pending.len() as u64), &pending]);
            self.pending = pending;
            self.pending.clear();
        }
    }

    fn step(&mut self, parts: &[&[u8]]) {
        let Some(script) = &mut self.script else { return };
        if let Err(err) = parts.iter().try_for_each(|part| script.write_all(part)) {
            (self.script, self.failure) = (None, Some(err));
        }
    }

    /// Writes what is left, after the last byte of the tar.
    pub(crate) fn finish(mut self, replaced: Option<Originals>) -> io::Result<()> {
        self.flush();
        self.step(&[&[END]]);
        let Some(script) = self.script else {
            return Err(self.failure.unwrap_or_else(|| io::Error::other("the recipe was not begun")));
        };
        let mut sink = script.finish()?;
        let script_end = sink.written;
        let mut encoder = zstd::Encoder::new(&mut sink, LEVEL)?;
        if let Some(originals) = replaced {
            originals.write(&mut encoder)?;
        }
        encoder.write_all(&[END])?;
        encoder.finish()?;
        sink.write_all(&script_end.to_le_bytes())
    }
}

/// The contents of files that are replaced, kept until the recipe ends.
///
/// Files are known by a hash of their path: a layer may have a million, and an accident would be noticed when the tar is
/// re-created, as everything else is.
#[derive(Default)]
pub(crate) struct Originals {
    hasher: RandomState,
    numbers: HashMap<u64, u32>,
    /// Has no name; gone with the process.
    copies: Option<File>,
    replaced: Vec<Replaced>,
    failure: Option<io::Error>,
}

struct Replaced {
    number: u32,
    offset: u64,
    length: u64,
}

impl Originals {
    /// That path is the file of that number now.
    pub(crate) fn made(&mut self, path: &[u8], number: u32) {
        self.numbers.insert(self.hasher.hash_one(path), number);
    }

    /// Something is about to be removed: `name` in `directory`, whose path is `path`.
    pub(crate) fn going(&mut self, directory: impl AsFd, name: &[u8], path: &[u8]) {
        if self.numbers.is_empty() {
            return;
        }
        let Some(number) = self.numbers.remove(&self.hasher.hash_one(path)) else { return };
        if let Err(err) = self.keep(directory, name, number) {
            self.failure.get_or_insert(err);
        }
    }

    /// Bytes of memory that all of it takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.replaced.len() * size_of::<Replaced>() + self.numbers.len() * size_of::<(u64, u32)>()
    }

    fn keep(&mut self, directory: impl AsFd, name: &[u8], number: u32) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&directory, name, flags, Mode::empty())?);
        let copies = match self.copies.take() {
            Some(copies) => copies,
            None => {
                let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
                File::from(rustix::fs::openat(&directory, c".", flags, Mode::RUSR | Mode::WUSR)?)
            }
        };
        let copies = self.copies.insert(copies);
        let offset = copies.seek(SeekFrom::End(0))?;
        let length = io::copy(&mut file, copies)?;
        self.replaced.push(Replaced { number, offset, length });
        Ok(())
    }

    fn write(mut self, to: &mut impl Write) -> io::Result<()> {
        if let Some(err) = self.failure {
            return Err(err);
        }
        let Some(copies) = &mut self.copies else { return Ok(()) };
        self.replaced.sort_unstable_by_key(|replaced| replaced.number);
        let mut buffer = vec![0; COPY_BYTES];
        for Replaced { number, offset, length } in self.replaced {
            to.write_all(&[BYTES])?;
            to.write_all(&leb128(u64::from(number)))?;
            to.write_all(&leb128(length))?;
            copies.seek(SeekFrom::Start(offset))?;
            let mut left = copies.take(length);
            loop {
                match left.read(&mut buffer)? {
                    0 => break,
                    count => to.write_all(&buffer[..count])?,
                }
            }
        }
        Ok(())
    }
}

/// A number, seven bits a byte, the lowest first.
fn leb128(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4);
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
