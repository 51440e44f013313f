//! `GET /containers/{id}/logs`

use std::sync::Arc;

use errdefs::ErrorKind;
use logging::{Entry, Progress, ReadError, ReadOptions, Reader, Stream};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::Engine;
use crate::container::{Container, Ending};
use crate::log_target;
use crate::readiness;
use crate::registry::LookupError;
use crate::stream::{STDERR, STDOUT};
use crate::time_query::{self, TimeError};

/// How much is read before it is sent: large enough that crossings do not show.
const BATCH_BYTES: usize = 128 * 1024;

/// What comes in the query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogsQuery {
    /// Whether what comes from now on is sent, too.
    pub follow: bool,
    /// Whether standard output is wanted.
    pub stdout: bool,
    /// Whether standard error is wanted.
    pub stderr: bool,
    /// Nothing before that, as the client sent it (`seconds[.nanoseconds]` since 1970); empty for everything.
    pub since: String,
    /// Nothing after that, likewise.
    pub until: String,
    /// Whether each line begins with its time.
    pub timestamps: bool,
    /// How many lines from the end, as the client sent it; everything if empty, `all` or no number.
    pub tail: String,
    /// Whether each line shows its attributes.
    pub details: bool,
}

/// Why a log cannot be had. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Neither output is wanted.
    #[error("You must choose at least one stream")]
    NoStream,
    /// It is being removed.
    #[error("can not get logs from container which is dead or marked for removal")]
    Removing,
    /// It keeps no log.
    #[error("configured logging driver does not support reading")]
    NoLog,
    /// `since` or `until` is no time.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its growth cannot be watched.
    #[error("watch the container's log")]
    Watch(#[source] std::io::Error),
}

impl LogsError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LogsError::Lookup(err) => err.kind(),
            LogsError::NoStream => ErrorKind::InvalidArgument,
            LogsError::Removing => ErrorKind::Conflict,
            LogsError::NoLog => ErrorKind::NotImplemented,
            LogsError::Time(err) => err.kind(),
            LogsError::Read(_) | LogsError::Watch(_) => ErrorKind::Internal,
        }
    }
}

/// The log of a container, as bytes for the client.
pub struct LogStream {
    /// Absent while a blocking thread has it.
    reader: Option<Reader>,
    view: View,
    follower: Option<Follower>,
}

/// How entries are shown.
#[derive(Clone, Copy)]
struct View {
    tty: bool,
    stdout: bool,
    stderr: bool,
    timestamps: bool,
    details: bool,
}

/// What wakes who follows.
struct Follower {
    growth: AsyncFd<std::os::fd::OwnedFd>,
    ends: watch::Receiver<Ending>,
    container: Arc<Container>,
}

/// What one crossing brings.
enum Batch {
    Bytes(Vec<u8>),
    Pending(Vec<u8>),
    End(Vec<u8>),
}

/// Opens the log of a container.
pub async fn open(engine: &Engine, name: &str, query: LogsQuery) -> Result<LogStream, LogsError> {
    if !query.stdout && !query.stderr {
        return Err(LogsError::NoStream);
    }
    let container = engine.containers.find(name)?;
    open_container(engine, &container, query).await
}

pub(crate) async fn open_container(
    engine: &Engine,
    container: &Arc<Container>,
    query: LogsQuery,
) -> Result<LogStream, LogsError> {
    if container.state().name() == "removing" {
        return Err(LogsError::Removing);
    }
    let (path, format) = log_target::readable(engine, container).ok_or(LogsError::NoLog)?;
    let (ends, state) = container.watch();
    let until = time_query::parse(&query.until)?.filter(|nanos| *nanos != 0);
    let options = ReadOptions {
        format,
        tail: query.tail.parse().ok(),
        since_nanos: time_query::parse(&query.since)?.map(nanos),
        until_nanos: until.map(nanos),
        // dockerd follows only what runs.
        follow: query.follow && state.is_running(),
        unwatched: false,
    };
    let reader = bridge::blocking(move || Reader::open(&path, options)).await?;
    let view = View {
        tty: container.tty(),
        stdout: query.stdout,
        stderr: query.stderr,
        timestamps: query.timestamps,
        details: query.details,
    };
    let follower = match reader.watch_fd() {
        None => None,
        Some(fd) => {
            let fd = fd.try_clone_to_owned().map_err(LogsError::Watch)?;
            let growth = readiness::register(fd, Interest::READABLE).map_err(LogsError::Watch)?;
            Some(Follower { growth, ends, container: container.clone() })
        }
    };
    Ok(LogStream { reader: Some(reader), view, follower })
}

/// Opens the log of a container for a client who goes on with its streams: see [`LogStream::available`].
pub(crate) async fn open_for_attach(
    engine: &Engine,
    container: &Arc<Container>,
    stdout: bool,
    stderr: bool,
    framed: bool,
) -> Result<LogStream, LogsError> {
    let (path, format) = log_target::readable(engine, container).ok_or(LogsError::NoLog)?;
    let options = ReadOptions { format, follow: true, unwatched: true, ..ReadOptions::default() };
    let reader = bridge::blocking(move || Reader::open(&path, options)).await?;
    let view = View { tty: !framed, stdout, stderr, timestamps: false, details: false };
    Ok(LogStream { reader: Some(reader), view, follower: None })
}

/// Nothing was logged before 1970.
fn nanos(nanos: i64) -> u64 {
    u64::try_from(nanos).unwrap_or(0)
}

impl LogStream {
    /// Whether the container has a terminal, so that the stream is raw instead of multiplexed.
    pub fn tty(&self) -> bool {
        self.view.tty
    }

    /// The next bytes of what there is now, as by [`next`](Self::next); `None` if there is nothing more, up to the time of
    /// [`read_until`](Self::read_until). Later there may be.
    pub(crate) async fn available(&mut self) -> Result<Option<Vec<u8>>, LogsError> {
        let Some((reader, batch)) = self.read().await else { return Ok(None) };
        let (Batch::Bytes(bytes) | Batch::Pending(bytes) | Batch::End(bytes)) = batch?;
        self.reader = Some(reader);
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// Sets what is not read: everything later than that, in nanoseconds since 1970.
    pub(crate) fn read_until(&mut self, nanos: Option<u64>) {
        self.reader.iter_mut().for_each(|reader| reader.set_until(nanos));
    }

    /// The next bytes: some frames, or raw output of a terminal. `None` is the end.
    ///
    /// Must not be called again after its future was dropped: what it was reading is lost then.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, LogsError> {
        loop {
            let Some((reader, batch)) = self.read().await else { return Ok(None) };
            match batch? {
                // Not put back: the next call says that this was all.
                Batch::End(bytes) => return Ok(Some(bytes).filter(|bytes| !bytes.is_empty())),
                Batch::Bytes(bytes) => {
                    self.reader = Some(reader);
                    return Ok(Some(bytes));
                }
                Batch::Pending(bytes) => {
                    let reader = self.reader.insert(reader);
                    if !bytes.is_empty() {
                        return Ok(Some(bytes));
                    }
                    let Some(follower) = &mut self.follower else { return Ok(None) };
                    if follower.wait().await? {
                        reader.stop_following();
                    }
                }
            }
        }
    }

    /// What is there now, and the reader, to be put back by whoever wants to read on. `None` after the end.
    async fn read(&mut self) -> Option<(Reader, Result<Batch, ReadError>)> {
        let (mut reader, view) = (self.reader.take()?, self.view);
        let read = bridge::blocking(move || {
            let batch = read_batch(&mut reader, view);
            (reader, batch)
        });
        Some(read.await)
    }
}

impl Follower {
    /// Waits until the log has grown, or answers true: its container has ended, and what is there now is all.
    async fn wait(&mut self) -> Result<bool, LogsError> {
        loop {
            if !self.container.state().is_running() {
                return Ok(true);
            }
            tokio::select! {
                ready = self.growth.readable() => {
                    // The reader empties the descriptor.
                    ready.map_err(LogsError::Watch)?.clear_ready();
                    return Ok(false);
                }
                // An error says that the container is gone.
                changed = self.ends.changed() => if changed.is_err() { return Ok(true) },
            }
        }
    }
}

fn read_batch(reader: &mut Reader, view: View) -> Result<Batch, ReadError> {
    let mut bytes = Vec::with_capacity(BATCH_BYTES + BATCH_BYTES / 4);
    let progress = reader.read(|entry| {
        view.show(entry, &mut bytes);
        bytes.len() < BATCH_BYTES
    });
    Ok(match progress? {
        Progress::More => Batch::Bytes(bytes),
        Progress::Pending => Batch::Pending(bytes),
        Progress::End => Batch::End(bytes),
    })
}

impl View {
    fn show(self, entry: &Entry<'_>, to: &mut Vec<u8>) {
        let (wanted, number) = match entry.stream {
            Stream::Stdout => (self.stdout, STDOUT),
            Stream::Stderr => (self.stderr, STDERR),
        };
        if !wanted {
            return;
        }
        let begin = to.len();
        if !self.tty {
            to.extend([number, 0, 0, 0, 0, 0, 0, 0]);
        }
        let text = to.len();
        if self.timestamps {
            entry.append_time(to);
            to.push(b' ');
        }
        if self.details {
            to.extend(details(entry).into_bytes());
            to.push(b' ');
        }
        entry.append_text(to);
        if !self.tty {
            let length = u32::try_from(to.len() - text).expect("a line of a log is far below 4 GiB");
            to[begin + 4..text].copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// `a=1,b=2`, escaped as in a URL's query.
fn details(entry: &Entry<'_>) -> String {
    let attrs = entry.attrs();
    let pairs = attrs.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value)));
    pairs.collect::<Vec<_>>().join(",")
}

fn escape(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            b' ' => escaped.push('+'),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_shown_as_dockerd_shows_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let line = r#"{"log":"hi\n","stream":"stderr","attrs":{"a b":"1/2"},"time":"1970-01-01T00:00:01.000000005Z"}"#;
        std::fs::write(&path, format!("{line}\n")).unwrap();
        let show = |view: View| {
            let mut reader = Reader::open(&path, ReadOptions::default()).unwrap();
            let Batch::End(bytes) = read_batch(&mut reader, view).unwrap() else { panic!("one line is no batch") };
            String::from_utf8(bytes).unwrap()
        };
        let view = View { tty: true, stdout: true, stderr: true, timestamps: false, details: false };
        assert_eq!(show(view), "hi\n");
        assert_eq!(show(View { timestamps: true, ..view }), "1970-01-01T00:00:01.000000005Z hi\n");
        assert_eq!(show(View { details: true, ..view }), "a+b=1%2F2 hi\n");
        assert_eq!(show(View { tty: false, ..view }), "\u{2}\0\0\0\0\0\0\u{3}hi\n");
        assert_eq!(show(View { stderr: false, ..view }), "");
    }
}
