//! Between the user's standard streams and a container's.
//!
//! ```text
//! stdin --thread--> channel --> daemon         a thread, because a read of stdin cannot be taken back: the process
//!                                              must be able to end while it waits
//! daemon --> (demultiplex) --> stdout, stderr
//! ```

use std::borrow::Cow;
use std::io::{self, Read};

use client::frame::{Demultiplexer, FrameError, Kind};
use client::hijack::{Hijacked, Reader, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Stderr, Stdout};
use tokio::sync::{mpsc, oneshot};

use crate::console::BROKEN_PIPE_STATUS;
use crate::detach::DetachKeys;
use crate::report::Exit;
use crate::term::RawMode;

/// Bytes read at once.
const PIECE_BYTES: usize = 32 << 10;

/// What is connected.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// Standard output or standard error.
    pub output: bool,
    /// The container has a terminal: raw bytes, and keys that detach.
    pub tty: bool,
    /// Those keys.
    pub detach_keys: DetachKeys,
}

/// Why the streams ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The container's output ended.
    Output,
    /// The user detached.
    Detached,
}

/// The user's side, with the terminal in raw mode if it takes part.
pub struct Session {
    hijacked: Hijacked,
    wanted: Wanted,
    raw: Option<RawMode>,
}

impl Session {
    /// Prepares the terminal.
    pub fn new(hijacked: Hijacked, wanted: Wanted) -> Result<Session, Exit> {
        let raw = match wanted.tty && wanted.stdin {
            true => RawMode::enter().map_err(|err| Exit::error(&err))?,
            false => None,
        };
        Ok(Session { hijacked, wanted, raw })
    }

    /// Whether the terminal is in raw mode.
    pub fn is_raw(&self) -> bool {
        self.raw.is_some()
    }

    /// Copies until the container's output ends or the user detaches.
    pub async fn run(self) -> Result<Ended, Exit> {
        let Session { hijacked, wanted, raw } = self;
        let (detached, on_detach) = oneshot::channel();
        let input = tokio::spawn(copy_input(hijacked.writer, wanted.clone(), detached));
        if !wanted.output {
            // Nothing comes back: the end of the input is the end.
            let detached = tokio::select! {
                biased;
                Ok(()) = on_detach => true,
                _ = input => false,
            };
            drop(raw);
            return Ok(if detached { Ended::Detached } else { Ended::Output });
        }
        let ended = tokio::select! {
            outcome = copy_output(hijacked.reader, wanted.tty) => outcome.map(|()| Ended::Output),
            Ok(()) = on_detach => Ok(Ended::Detached),
        };
        drop(raw);
        ended
    }
}

async fn copy_input(mut writer: Writer, wanted: Wanted, detached: oneshot::Sender<()>) {
    if wanted.stdin {
        let mut pieces = read_stdin(wanted.tty.then_some(wanted.detach_keys));
        while let Some(piece) = pieces.recv().await {
            let Some(bytes) = piece else {
                // The receiver is gone only when the session has ended by itself.
                let _ = detached.send(());
                return;
            };
            // The container may have closed its end; the output says how it went on.
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    }
    // As above: a closed stream needs no closing.
    let _ = writer.shutdown().await;
}

/// Pieces of standard input; `None` for the keys that detach.
fn read_stdin(mut keys: Option<DetachKeys>) -> mpsc::Receiver<Option<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let typed = match io::stdin().lock().read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(length) => &buffer[..length],
            };
            let (bytes, detach) = match &mut keys {
                Some(keys) => keys.feed(typed),
                None => (typed.to_vec(), false),
            };
            if !bytes.is_empty() && sender.blocking_send(Some(bytes)).is_err() {
                return;
            }
            if detach {
                // The receiver is gone only when the session has ended by itself.
                let _ = sender.blocking_send(None);
                return;
            }
        }
    });
    receiver
}

async fn copy_output(mut reader: Reader, raw: bool) -> Result<(), Exit> {
    let mut output = Output::new(raw);
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        // A broken connection ends the output as its end does; the exit status tells more.
        let length = reader.read(&mut buffer).await.unwrap_or(0);
        if length == 0 {
            return Ok(());
        }
        output.write(&buffer[..length]).await?;
    }
}

/// The user's standard output and error.
pub struct Output {
    stdout: Stdout,
    stderr: Stderr,
    demultiplexer: Option<Demultiplexer>,
}

impl Output {
    /// `raw` bytes all go to standard output; others are framed.
    pub fn new(raw: bool) -> Output {
        let demultiplexer = (!raw).then(Demultiplexer::default);
        Output { stdout: tokio::io::stdout(), stderr: tokio::io::stderr(), demultiplexer }
    }

    /// Writes what came from the daemon.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Exit> {
        let runs = match &mut self.demultiplexer {
            None => vec![(Kind::Stdout, Cow::Borrowed(bytes))],
            Some(demultiplexer) => runs(demultiplexer, bytes).map_err(|err| Exit::error(&err))?,
        };
        for (kind, run) in runs {
            let written = match kind {
                Kind::Stdout => write_flushed(&mut self.stdout, &run).await,
                Kind::Stderr => write_flushed(&mut self.stderr, &run).await,
                Kind::SystemError => {
                    let reason = String::from_utf8_lossy(&run);
                    return Err(Exit::new(1, format!("error from daemon in stream: {reason}")));
                }
            };
            written.map_err(|err| match err.kind() {
                io::ErrorKind::BrokenPipe => Exit::silent(BROKEN_PIPE_STATUS),
                _ => Exit::error(&err),
            })?;
        }
        Ok(())
    }
}

/// What goes to one of the user's streams.
type Run<'a> = (Kind, Cow<'a, [u8]>);

/// The payload in its order, neighbours of one stream as one piece: each piece costs a way to another thread and back,
/// and a log has a frame for every line.
fn runs<'a>(demultiplexer: &mut Demultiplexer, bytes: &'a [u8]) -> Result<Vec<Run<'a>>, FrameError> {
    let mut runs: Vec<Run<'a>> = Vec::new();
    demultiplexer.feed(bytes, |kind, payload| match runs.last_mut() {
        Some((last, run)) if *last == kind => run.to_mut().extend_from_slice(payload),
        _ => runs.push((kind, Cow::Borrowed(payload))),
    })?;
    Ok(runs)
}

async fn write_flushed(out: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes).await?;
    out.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_stream_are_one_piece() {
        let frame = |kind: u8, text: &str| [&[kind, 0, 0, 0, 0, 0, 0, text.len() as u8], text.as_bytes()].concat();
        let bytes = [frame(1, "a\n"), frame(1, "b\n"), frame(2, "c\n"), frame(1, "d\n"), frame(1, "e\n")].concat();
        let found = runs(&mut Demultiplexer::default(), &bytes).unwrap();
        let found: Vec<_> = found.iter().map(|(kind, run)| (*kind, str::from_utf8(run).unwrap())).collect();
        assert_eq!(found, [(Kind::Stdout, "a\nb\n"), (Kind::Stderr, "c\n"), (Kind::Stdout, "d\ne\n")]);
    }
}
