//! The reading half: from the last lines or the first, across rotations, and on as the log grows.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::inotify;
use serde::Deserialize;
use stdx::time::Rfc3339;

use super::{Stream, rotated};

/// How much is read at a time.
const BLOCK_BYTES: usize = 64 * 1024;

/// A line longer than this is no line of a log: the longest that is written has about 100 KiB and attributes.
const LINE_MAX_BYTES: usize = 4 << 20;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Only the last so many lines; all if absent.
    pub tail: Option<usize>,
    /// Entries before the first one of this time or later are passed over.
    pub since: Option<SystemTime>,
    /// The first entry later than this ends the reading.
    pub until: Option<SystemTime>,
    /// Whether to go on with what is written later.
    pub follow: bool,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was written.
    pub time: SystemTime,
    /// Which output.
    pub stream: Stream,
    /// The bytes; without a newline at the end they are a piece of a longer line.
    pub log: Vec<u8>,
    /// The container's attributes.
    pub attrs: BTreeMap<String, String>,
}

/// What [`Reader::next_entry`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next entry.
    Entry(Entry),
    /// Nothing now: wait until [`Reader::watch_fd`] is readable.
    Pending,
    /// Nothing more will come.
    End,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Opening a file of it.
    #[error("open log {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Reading a file of it.
    #[error("read log {}", path.display())]
    Read {
        /// The current file's name.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Watching it for changes.
    #[error("watch log {}", path.display())]
    Watch {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl ReadError {
    /// What a caller can do about it.
    pub fn kind(&self) -> errdefs::ErrorKind {
        match self {
            ReadError::Open { source, .. } | ReadError::Read { source, .. } | ReadError::Watch { source, .. } => {
                errdefs::io_kind(source)
            }
        }
    }
}

/// Reads one container's log. Blocks for the disk only.
pub struct Reader {
    path: PathBuf,
    options: ReadOptions,
    watch: Option<OwnedFd>,
    /// Files still to read, the oldest first; the front one is being read.
    files: VecDeque<Segment>,
    /// What was read and not given out; `parsed` bytes of it are.
    buffer: Vec<u8>,
    parsed: usize,
    ended: bool,
}

/// A file and what of it is to be read.
struct Segment {
    file: File,
    position: u64,
    /// Where to stop; the file's end, wherever that will be, if absent.
    end: Option<u64>,
}

impl Reader {
    /// Opens the log at `path` with its rotated files. A log that does not exist yet has no entries.
    pub fn open(path: &Path, options: ReadOptions) -> Result<Reader, ReadError> {
        let watch = if options.follow { Some(watch(path)?) } else { None };
        let mut files = open_all(path)?;
        if let (false, Some(current)) = (options.follow, files.back_mut()) {
            // A container that writes all the time must not keep a reader who does not follow for ever.
            current.end = Some(size(path, &current.file)?);
        }
        if let Some(lines) = options.tail {
            keep_tail(&mut files, lines).map_err(|source| ReadError::Read { path: path.to_owned(), source })?;
        }
        Ok(Reader { path: path.to_owned(), options, watch, files, buffer: Vec::new(), parsed: 0, ended: false })
    }

    /// The next entry, in order. Lines that are none (torn by a power cut) are passed over.
    pub fn next_entry(&mut self) -> Result<Step, ReadError> {
        while !self.ended {
            while let Some(line) = next_line(&self.buffer, &mut self.parsed) {
                let Some(entry) = parse(line) else { continue };
                if let Some(step) = self.filter(entry) {
                    return Ok(step);
                }
            }
            if !self.fill()? && !self.next_file()? {
                return Ok(if self.options.follow { Step::Pending } else { Step::End });
            }
        }
        Ok(Step::End)
    }

    /// Readable when the log may have grown. The caller awaits it after [`Step::Pending`]; `None` without `follow`.
    pub fn watch_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// The container has ended: what is there by now is read, then comes [`Step::End`].
    pub fn stop_following(&mut self) {
        self.options.follow = false;
    }

    /// Applies `since` and `until`; times need not be in order, and only the first entry at or after `since` counts.
    fn filter(&mut self, entry: Entry) -> Option<Step> {
        if self.options.since.is_some_and(|since| entry.time < since) {
            return None;
        }
        self.options.since = None;
        if self.options.until.is_some_and(|until| entry.time > until) {
            self.ended = true;
            return Some(Step::End);
        }
        Some(Step::Entry(entry))
    }

    /// Reads on in the current file; whether there was something.
    fn fill(&mut self) -> Result<bool, ReadError> {
        self.buffer.drain(..self.parsed);
        self.parsed = 0;
        if self.buffer.len() > LINE_MAX_BYTES {
            self.buffer.clear();
        }
        let Some(segment) = self.files.front_mut() else { return Ok(false) };
        let left = segment.end.map_or(u64::MAX, |end| end.saturating_sub(segment.position));
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        let old = self.buffer.len();
        self.buffer.resize(old + wanted, 0);
        let read = segment.file.read_at(&mut self.buffer[old..], segment.position);
        self.buffer.truncate(old + *read.as_ref().unwrap_or(&0));
        let read = read.map_err(|source| ReadError::Read { path: self.path.clone(), source })?;
        segment.position += read as u64;
        Ok(read > 0)
    }

    /// At the end of a file: goes to the next one; whether there is one.
    fn next_file(&mut self) -> Result<bool, ReadError> {
        if let Some(watch) = &self.watch {
            // Only empties the queue of events, before looking: what happens later makes it readable again.
            let mut events = [0; 4096];
            while rustix::io::read(watch, &mut events).is_ok_and(|read| read > 0) {}
        }
        if self.files.len() <= 1 && self.options.follow {
            self.find_younger()?;
        }
        if self.files.len() > 1 {
            // A rotated file gets no more lines once its successor exists, but may have got some after our last look.
            if self.fill()? {
                return Ok(true);
            }
            self.files.pop_front();
            self.buffer.clear();
            return Ok(true);
        }
        self.fill()
    }

    /// Queues the files that are younger than the one being read.
    fn find_younger(&mut self) -> Result<(), ReadError> {
        let mut all = open_all(&self.path)?;
        let Some(reading) = self.files.front() else {
            self.files = all;
            return Ok(());
        };
        let identity = identity(&self.path, &reading.file)?;
        for at in 0..all.len() {
            if self::identity(&self.path, &all[at].file)? == identity {
                all.drain(..=at);
                break;
            }
        }
        self.files.extend(all);
        Ok(())
    }
}

/// Opens every file of the log, the oldest first.
///
/// From the youngest to the oldest, so that a rotation meanwhile shows one file twice instead of hiding one.
fn open_all(path: &Path) -> Result<VecDeque<Segment>, ReadError> {
    let mut files = VecDeque::new();
    let mut seen = Vec::new();
    for number in 0.. {
        let name = if number == 0 { path.to_owned() } else { rotated(path, number) };
        match File::open(&name) {
            Ok(file) => {
                let identity = identity(&name, &file)?;
                if !seen.contains(&identity) {
                    seen.push(identity);
                    files.push_front(Segment { file, position: 0, end: None });
                }
            }
            // In the middle of a rotation the current name is missing for a moment.
            Err(err) if err.kind() == io::ErrorKind::NotFound && number == 0 => {}
            Err(err) if err.kind() == io::ErrorKind::NotFound => break,
            Err(source) => return Err(ReadError::Open { path: name, source }),
        }
    }
    Ok(files)
}

fn identity(path: &Path, file: &File) -> Result<(u64, u64), ReadError> {
    let meta = file.metadata().map_err(|source| ReadError::Open { path: path.to_owned(), source })?;
    Ok((meta.dev(), meta.ino()))
}

fn size(path: &Path, file: &File) -> Result<u64, ReadError> {
    let meta = file.metadata().map_err(|source| ReadError::Open { path: path.to_owned(), source })?;
    Ok(meta.len())
}

/// Positions `files` so that `lines` lines remain.
fn keep_tail(files: &mut VecDeque<Segment>, lines: usize) -> io::Result<()> {
    let mut wanted = lines;
    let mut keep_from = files.len().saturating_sub(1);
    for at in (0..files.len()).rev() {
        let (position, found) = tail_position(&files[at], wanted)?;
        files[at].position = position;
        keep_from = at;
        wanted -= found;
        if wanted == 0 {
            break;
        }
    }
    files.drain(..keep_from);
    Ok(())
}

/// Where the last `wanted` lines of a file begin, and how many there are if it has fewer.
fn tail_position(segment: &Segment, wanted: usize) -> io::Result<(u64, usize)> {
    let end = match segment.end {
        Some(end) => end,
        None => segment.file.metadata()?.len(),
    };
    if wanted == 0 {
        return Ok((end, 0));
    }
    let (mut block_end, mut found) = (end, 0);
    let mut block = vec![0; BLOCK_BYTES];
    while block_end > 0 {
        let block_start = block_end.saturating_sub(BLOCK_BYTES as u64);
        let block = &mut block[..(block_end - block_start) as usize];
        segment.file.read_exact_at(block, block_start)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            // The newline that ends the last wanted line is not counted by itself: the one before its first line is.
            if found == wanted {
                return Ok((block_start + at as u64 + 1, found));
            }
            found += 1;
        }
        block_end = block_start;
    }
    Ok((0, found))
}

fn watch(path: &Path) -> Result<OwnedFd, ReadError> {
    // The directory, so that one watch sees the file grow and its successors come.
    let directory = path.parent().unwrap_or(Path::new("/"));
    let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    let open = || {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, directory, events)?;
        Ok(fd)
    };
    open().map_err(|err: rustix::io::Errno| ReadError::Watch { path: path.to_owned(), source: err.into() })
}

/// The next whole line of `buffer` from `*parsed` on, which moves behind it.
fn next_line<'a>(buffer: &'a [u8], parsed: &mut usize) -> Option<&'a [u8]> {
    let rest = &buffer[*parsed..];
    let length = rest.iter().position(|byte| *byte == b'\n')?;
    *parsed += length + 1;
    Some(&rest[..length])
}

fn parse(line: &[u8]) -> Option<Entry> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(default)]
        log: String,
        stream: String,
        time: String,
        #[serde(default)]
        attrs: BTreeMap<String, String>,
    }
    let line: Line = serde_json::from_slice(line).ok()?;
    let stream = if line.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
    Some(Entry { time: Rfc3339::parse(&line.time)?.0, stream, log: line.log.into_bytes(), attrs: line.attrs })
}

#[cfg(test)]
mod tests;
