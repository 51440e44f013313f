//! One file of a log, compressed or not.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::ReadError;
use crate::file::{rotated, rotated_packed};
use crate::packed::{self, Identity};

/// A file and what of it is to be read.
pub(super) struct Segment {
    pub(super) source: Source,
    /// Which file it is, or was before it was compressed.
    pub(super) identity: Identity,
}

/// Where the bytes come from.
pub(super) enum Source {
    /// A file as it is.
    Plain {
        file: File,
        position: u64,
        /// Where to stop; the file's end, wherever that will be, if absent.
        end: Option<u64>,
    },
    /// A compressed one, which can only be read from its beginning, and so many lines of which are passed over.
    Packed { unpacked: Box<GzDecoder<File>>, skip_lines: u64 },
}

impl Segment {
    /// Nothing that is written later is read.
    pub(super) fn stop_at_end(&mut self) -> io::Result<()> {
        if let Source::Plain { file, end, .. } = &mut self.source {
            *end = Some(file.metadata()?.len());
        }
        Ok(())
    }

    /// Appends at most `wanted` bytes; answers how many there were.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>, wanted: usize) -> io::Result<usize> {
        let old = buffer.len();
        match &mut self.source {
            Source::Plain { file, position, end } => {
                let left = end.map_or(u64::MAX, |end| end.saturating_sub(*position));
                let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
                buffer.resize(old + wanted, 0);
                let read = file.read_at(&mut buffer[old..], *position);
                buffer.truncate(old + *read.as_ref().unwrap_or(&0));
                *position += *read.as_ref().unwrap_or(&0) as u64;
                read
            }
            Source::Packed { unpacked, skip_lines } => loop {
                buffer.resize(old + wanted, 0);
                let read = unpacked.read(&mut buffer[old..]);
                buffer.truncate(old + *read.as_ref().unwrap_or(&0));
                let read = read?;
                if read == 0 || *skip_lines == 0 {
                    return Ok(read);
                }
                skip(buffer, old, skip_lines);
                if buffer.len() > old {
                    return Ok(buffer.len() - old);
                }
            },
        }
    }
}

/// Opens a compressed file once more, from its beginning.
pub(super) fn reopen(unpacked: &GzDecoder<File>) -> io::Result<GzDecoder<File>> {
    let file = File::open(format!("/proc/self/fd/{}", unpacked.get_ref().as_raw_fd()))?;
    Ok(GzDecoder::new(file))
}

/// Removes lines from `buffer[from..]`, as many as are still to be passed over.
fn skip(buffer: &mut Vec<u8>, from: usize, lines: &mut u64) {
    for at in memchr::memchr_iter(b'\n', &buffer[from..]) {
        *lines -= 1;
        if *lines == 0 {
            buffer.drain(from..=from + at);
            return;
        }
    }
    buffer.truncate(from);
}

/// How often is looked before something that looks like a rotation under way is taken for what a killed writer left.
const LOOKS: u32 = 100;

/// The files of a log, as one look found them.
pub(super) struct Found {
    /// The oldest first.
    pub(super) files: VecDeque<Segment>,
    /// Whether no rotation came between: one can hide a file, two can make a younger one appear the older.
    pub(super) settled: bool,
}

/// Opens the files of the log, from the youngest to `oldest`, or all of them if that is none or not among them. Looks again,
/// up to a bound, while files change places.
pub(super) fn open_all(path: &Path, oldest: Option<Identity>) -> Result<Found, ReadError> {
    let mut looks = 1;
    loop {
        let found = look(path, oldest)?;
        if found.settled || looks == LOOKS {
            return Ok(found);
        }
        looks += 1;
    }
}

/// Opens from the youngest to the oldest, while a rotation moves the oldest first: it leaves a number without a file until
/// it is done, or the current name with another file, or it was met and shows one file twice.
fn look(path: &Path, oldest: Option<Identity>) -> Result<Found, ReadError> {
    let mut found = Found { files: VecDeque::new(), settled: true };
    for number in 0.. {
        if oldest.is_some() && found.files.front().map(|segment| segment.identity) == oldest {
            break;
        }
        match open_number(path, number)? {
            Some(segment) if found.files.iter().any(|other| other.identity == segment.identity) => {}
            Some(segment) => found.files.push_front(segment),
            None if open_number(path, number + 1)?.is_some() => found.settled = false,
            None => break,
        }
    }
    let current = open_plain(path.to_owned())?.map(|segment| segment.identity);
    found.settled &= current == found.files.back().map(|segment| segment.identity);
    Ok(found)
}

/// Opens the file of a number, compressed or not; 0 is the current one.
fn open_number(path: &Path, number: u32) -> Result<Option<Segment>, ReadError> {
    if number == 0 {
        return open_plain(path.to_owned());
    }
    // One that is being compressed is found under one of its names at least.
    match open_plain(rotated(path, number))? {
        Some(segment) => Ok(Some(segment)),
        None => open_packed(rotated_packed(path, number)),
    }
}

fn open_plain(path: PathBuf) -> Result<Option<Segment>, ReadError> {
    let Some(file) = open(&path)? else { return Ok(None) };
    let identity = identity(&path, &file)?;
    Ok(Some(Segment { source: Source::Plain { file, position: 0, end: None }, identity }))
}

fn open_packed(path: PathBuf) -> Result<Option<Segment>, ReadError> {
    let Some(file) = open(&path)? else { return Ok(None) };
    // One that somebody else compressed is known by itself.
    let own = identity(&path, &file)?;
    let (identity, unpacked) = packed::open(file).map_err(|source| ReadError::Open { path, source })?;
    let source = Source::Packed { unpacked: Box::new(unpacked), skip_lines: 0 };
    Ok(Some(Segment { source, identity: identity.unwrap_or(own) }))
}

fn open(path: &Path) -> Result<Option<File>, ReadError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReadError::Open { path: path.to_owned(), source }),
    }
}

fn identity(path: &Path, file: &File) -> Result<Identity, ReadError> {
    Identity::of(file).map_err(|err| ReadError::Open { path: path.to_owned(), source: err.into() })
}
