//! A container's log as its owner sees it: one sink, or a server and a file beside it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};

use crate::buffer::Limit;
use crate::encoder::{Encoder, Format};
use crate::file::{LogFile, Rotation};
use crate::journald::Journal;
use crate::record::Stream;
use crate::remote::{DialError, Remote};
use crate::sink::Sink;
use crate::syslog::{Syslog, SyslogOptions};
use crate::writer::{Mark, Writer};

/// What a log consists of: at least one of both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// A file of this machine.
    pub file: Option<FileOptions>,
    /// A server.
    pub remote: Option<RemoteOptions>,
}

/// A file and its rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// The current file. Its directory is made.
    pub path: PathBuf,
    /// How its lines look.
    pub format: Format,
    /// When files change places.
    pub rotation: Rotation,
    /// Attributes in every line, where the format has them.
    pub attrs: BTreeMap<String, String>,
    /// Lines that find no room among so many bytes are dropped; if absent, who writes them waits.
    pub buffer_max_bytes: Option<u64>,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteOptions {
    /// Which one.
    pub target: Target,
    /// As [`FileOptions::buffer_max_bytes`].
    pub buffer_max_bytes: Option<u64>,
}

/// Kinds of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One that speaks syslog.
    Syslog(SyslogOptions),
    /// The journal.
    Journal {
        /// Its socket.
        socket: PathBuf,
        /// What every message says.
        fields: BTreeMap<String, String>,
    },
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file.
    #[error("open log {}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The descriptor that tells of room.
    #[error("make event descriptor of a log")]
    Event(#[source] io::Error),
    /// The server.
    #[error(transparent)]
    Dial(#[from] DialError),
}

impl OpenError {
    /// What a caller can do about it.
    pub fn kind(&self) -> errdefs::ErrorKind {
        match self {
            OpenError::File { source, .. } | OpenError::Event(source) => errdefs::io_kind(source),
            OpenError::Dial(_) => errdefs::ErrorKind::Internal,
        }
    }
}

/// Writes one container's log. Dropping it without [`Log::close`] can lose what was not written yet.
pub struct Log {
    /// Readable when one of the writers has room again, or has ended.
    event: Arc<OwnedFd>,
    /// The last one is that whose output can be read again.
    writers: Vec<Writer>,
}

/// A place in a log, see [`Log::mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(Mark);

impl Place {
    /// What is before it was written at this moment at the latest, what is behind it later; nanoseconds since 1970.
    pub fn nanos(self) -> u64 {
        self.0.nanos
    }
}

impl Log {
    /// Opens the files and connects to the server. Starts no thread: that happens with the first output. Blocks.
    pub fn open(options: &LogOptions) -> Result<Log, OpenError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = Arc::new(eventfd(0, flags).map_err(|err| OpenError::Event(err.into()))?);
        let mut writers = Vec::new();
        if let Some(remote) = &options.remote {
            let (sink, encoder) = connect(&remote.target)?;
            writers.push(writer(Sink::Remote(sink), encoder, remote.buffer_max_bytes, &event));
        }
        if let Some(file) = &options.file {
            let failed = |source| OpenError::File { path: file.path.clone(), source };
            if let Some(directory) = file.path.parent() {
                std::fs::create_dir_all(directory).map_err(failed)?;
            }
            let sink = Sink::File(LogFile::open(&file.path, file.rotation).map_err(failed)?);
            let encoder = Encoder::of_file(file.format, &file.attrs);
            writers.push(writer(sink, encoder, file.buffer_max_bytes, &event));
        }
        Ok(Log { event, writers })
    }

    /// Takes output. Never blocks; what finds no room is kept, and then the caller should bring no more
    /// ([`Log::is_full`]).
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        self.writers.iter_mut().for_each(|writer| writer.write(stream, bytes));
    }

    /// Whether the caller should bring nothing until [`Log::fd`] is readable or [`Log::deadline`] has passed.
    pub fn is_full(&self) -> bool {
        self.writers.iter().any(Writer::is_full)
    }

    /// Whether [`Log::fd`] is worth awaiting: something waits for room, was lost for lack of it, or for the end.
    pub fn awaits_event(&self) -> bool {
        self.writers.iter().any(Writer::awaits_event)
    }

    /// Readable when there is room again, and when a close has ended. Then call [`Log::drain`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// When to call [`Log::drain`] even if nothing became readable.
    pub fn deadline(&self) -> Option<Instant> {
        self.writers.iter().filter_map(Writer::deadline).min()
    }

    /// Moves what was kept into the buffer, as far as there is room; gives it up if the disk or the server is stuck.
    pub fn drain(&mut self) {
        let mut count = [0; 8];
        // Only resets the event; that it was not set is no error.
        let _ = rustix::io::read(&*self.event, &mut count);
        self.writers.iter_mut().for_each(Writer::drain);
    }

    /// The number of lines lost since the last call that the log names by now, or never will.
    pub fn take_lost(&mut self) -> u64 {
        self.writers.iter_mut().map(Writer::take_lost).sum()
    }

    /// Gives memory back to the kernel that a burst of output needed. For a quiet moment.
    pub fn trim(&mut self) {
        self.writers.iter_mut().for_each(Writer::trim);
    }

    /// Says that nothing more will come: what is left is written; wait with [`Log::is_closed`]. What [`Log::is_full`]
    /// tells of is lost: close when it does no more.
    pub fn close(&mut self) {
        self.writers.iter_mut().for_each(Writer::close);
    }

    /// Whether [`Log::close`] was called.
    pub fn is_closing(&self) -> bool {
        self.writers.iter().any(Writer::is_closing)
    }

    /// After [`Log::close`]: whether everything is written, or was given up and counted, which happens to what a stuck
    /// disk or server does not take in two seconds.
    pub fn is_closed(&mut self) -> bool {
        // Each of them has to be asked: that is how it counts what it gave up.
        let open = self.writers.iter_mut().filter_map(|writer| (!writer.is_closed()).then_some(())).count();
        open == 0
    }

    /// The place behind everything that came before now, in the part of the log that can be read again.
    pub fn mark(&mut self) -> Option<Place> {
        self.writers.last_mut().map(|writer| Place(writer.mark()))
    }

    /// Whether everything that is before a place can be read, or never will be.
    pub fn has_reached(&mut self, place: Place) -> bool {
        self.writers.last_mut().is_none_or(|writer| writer.has_reached(place.0))
    }

    /// What came before now and will be behind a place of this moment: beginnings of lines, and output that found no room.
    pub fn pending(&self) -> impl Iterator<Item = (Stream, &[u8])> {
        self.writers.last().into_iter().flat_map(Writer::pending).filter(|(_, bytes)| !bytes.is_empty())
    }
}

fn connect(target: &Target) -> Result<(Remote, Encoder), DialError> {
    match target {
        Target::Syslog(options) => {
            let (remote, hostname) = Remote::syslog(&options.network, &options.address)?;
            Ok((remote, Encoder::Syslog(Syslog::new(options, &hostname))))
        }
        Target::Journal { socket, fields } => Ok((Remote::journal(socket)?, Encoder::Journal(Journal::new(fields)))),
    }
}

fn writer(sink: Sink, encoder: Encoder, buffer_max_bytes: Option<u64>, event: &Arc<OwnedFd>) -> Writer {
    let limit = match buffer_max_bytes {
        Some(text_max_bytes) => Limit::NonBlocking { text_max_bytes },
        None => Limit::blocking(encoder.record_max_bytes()),
    };
    Writer::new(sink, encoder, limit, Arc::clone(event))
}
