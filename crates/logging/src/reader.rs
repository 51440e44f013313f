//! The reading half: from the last lines or the first, across rotations, and on as the log grows.

mod entry;
mod seek;
mod segment;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify;

pub use entry::Entry;
use segment::Segment;

use crate::encoder::Format;

/// How much is read at a time.
const BLOCK_BYTES: usize = 128 * 1024;

/// A line longer than this is no line of a log: the longest that is written has about 100 KiB and attributes.
const LINE_MAX_BYTES: usize = 4 << 20;

/// What looks like a rotation for longer than this is a gap that somebody has left: a writer that was killed, or whoever
/// removed a file. Rotations take less than a millisecond.
const PATIENCE: Duration = Duration::from_secs(1);

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// How its lines look.
    pub format: Format,
    /// Only the last so many lines; all if absent.
    pub tail: Option<usize>,
    /// Entries before the first one of this time or later are passed over; nanoseconds since 1970.
    pub since_nanos: Option<u64>,
    /// The first entry later than this ends the reading; nanoseconds since 1970.
    pub until_nanos: Option<u64>,
    /// Whether to go on with what is written later.
    pub follow: bool,
    /// Whether who follows looks for himself, without a descriptor to await.
    pub unwatched: bool,
}

/// What [`Reader::read`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more.
    More,
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
    /// Nothing is written any more: what is there is read to its end, then no more is awaited.
    ending: bool,
    ended: bool,
    /// Since when files have changed places at every look; absent if they did not at the last one.
    disturbed: Option<Instant>,
    /// Bytes that were read from files, those of searches included.
    read_bytes: u64,
}

impl Reader {
    /// Opens the log at `path` with its rotated files. A log that does not exist yet has no entries.
    pub fn open(path: &Path, options: ReadOptions) -> Result<Reader, ReadError> {
        let watch = if options.follow && !options.unwatched { Some(watch(path)?) } else { None };
        let mut files = segment::open_all(path, None)?.files;
        if let (false, Some(current)) = (options.follow, files.back_mut()) {
            // A container that writes all the time must not keep a reader who does not follow for ever.
            current.stop_at_end().map_err(|source| ReadError::Read { path: path.to_owned(), source })?;
        }
        let found = seek::position(&mut files, &options);
        let read_bytes = found.map_err(|source| ReadError::Read { path: path.to_owned(), source })?;
        let path = path.to_owned();
        Ok(Reader {
            path,
            options,
            watch,
            files,
            buffer: Vec::new(),
            parsed: 0,
            ending: false,
            ended: false,
            disturbed: None,
            read_bytes,
        })
    }

    /// Shows the next entries, in order, until `show` says that this was enough. Lines that are none (torn by a power cut)
    /// are passed over.
    pub fn read(&mut self, mut show: impl FnMut(&Entry<'_>) -> bool) -> Result<Progress, ReadError> {
        while !self.ended {
            let mut begin = self.parsed;
            while let Some(line) = next_line(&self.buffer, &mut self.parsed) {
                let line_begin = std::mem::replace(&mut begin, self.parsed);
                let Some(entry) = Entry::parse(self.options.format, line) else { continue };
                // Times need not be in order, and only the first entry at or after `since` counts.
                if self.options.since_nanos.is_some_and(|since| entry.nanos() < since) {
                    continue;
                }
                self.options.since_nanos = None;
                if self.options.until_nanos.is_some_and(|until| entry.nanos() > until) {
                    self.parsed = line_begin;
                    self.ended = true;
                    return Ok(Progress::End);
                }
                if !show(&entry) {
                    return Ok(Progress::More);
                }
            }
            if !self.fill()? && !self.next_file()? {
                if self.buffer.is_empty() {
                    // A follower waits for long, most of the time.
                    self.buffer = Vec::new();
                }
                return Ok(if self.options.follow && !self.ending { Progress::Pending } else { Progress::End });
            }
        }
        Ok(Progress::End)
    }

    /// Readable when the log may have grown. The caller awaits it after [`Progress::Pending`]; `None` without `follow`.
    pub fn watch_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// The container has ended: what is there by now is read, then comes [`Progress::End`].
    pub fn stop_following(&mut self) {
        self.ending = true;
    }

    /// Reads until another time, be it that the last one was reached.
    pub fn set_until(&mut self, until_nanos: Option<u64>) {
        self.options.until_nanos = until_nanos;
        self.ended = false;
    }

    /// How many bytes were read from the disk, or unpacked.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Reads on in the current file; whether there was something.
    fn fill(&mut self) -> Result<bool, ReadError> {
        self.buffer.drain(..self.parsed);
        self.parsed = 0;
        if self.buffer.len() > LINE_MAX_BYTES {
            self.buffer.clear();
        }
        let Some(segment) = self.files.front_mut() else { return Ok(false) };
        let read = segment.read(&mut self.buffer, BLOCK_BYTES);
        let read = read.map_err(|source| ReadError::Read { path: self.path.clone(), source })?;
        self.read_bytes += read as u64;
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
        let reading = self.files.front().map(|segment| segment.identity);
        let found = segment::open_all(&self.path, reading)?;
        if found.settled || self.ending {
            self.disturbed = None;
        } else if self.disturbed.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
            // The end of the rotation wakes us.
            return Ok(());
        }
        let mut all = found.files;
        if let Some(at) = all.iter().rposition(|segment| Some(segment.identity) == reading) {
            all.drain(..=at);
        }
        self.files.extend(all);
        Ok(())
    }
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
    let length = memchr::memchr(b'\n', rest)?;
    *parsed += length + 1;
    Some(&rest[..length])
}

#[cfg(test)]
mod tests;
