//! Brings one blob: asks, resumes, writes, verifies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use content::{Content, IngestError, Partial};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, StatusCode};
use tokio::sync::mpsc;

use crate::access::Ask;
use crate::download::{Download, Progress};
use crate::error::{ExchangeError, RegistryError};
use crate::session::Session;

/// Pieces of a body between the network and the disk; each is at most as long as a connection's buffer.
const PIECES_AHEAD: usize = 8;

/// An attempt that brought that much counts as one that gets on, so that the attempts begin anew.
const GETS_ON_BYTES: u64 = 64 * 1024;

/// For small blobs it is this part of them.
const GETS_ON_PART: u64 = 32;

/// Brings the blob into the content store, as a partial blob that is whole and verified.
pub(crate) async fn fetch(session: &Session, content: &Content, download: &Arc<Download>) -> Result<(), RegistryError> {
    let permits = &session.registry().downloading;
    let permit = match permits.clone().try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => {
            download.progress.send_replace(Progress::Waiting);
            let next = permits.clone().acquire_owned();
            let next = tokio::select! {
                permit = next => permit,
                () = download.abandoned.notified() => return Err(RegistryError::Cancelled),
            };
            next.expect("nobody closes the semaphore")
        }
    };
    let fetched = Fetch { session, content, download }.run().await;
    drop(permit);
    fetched
}

struct Fetch<'a> {
    session: &'a Session,
    content: &'a Content,
    download: &'a Arc<Download>,
}

impl Fetch<'_> {
    async fn run(&self) -> Result<(), RegistryError> {
        let descriptor = &self.download.descriptor;
        // Bytes of this digest are there, and another pull is about to record them: the wrong length must not touch them.
        let whole = self.session.registry().downloads.whole(&descriptor.digest);
        if whole.is_some_and(|whole| whole != descriptor.size) {
            return Err(RegistryError::LayerDigest { digest: descriptor.digest.clone() });
        }
        if self.open_blob().await? {
            return Ok(());
        }
        let (content, digest) = (self.content.clone(), descriptor.digest.clone());
        let mut partial =
            bridge::blocking(move || content.partial(&digest)).await.map_err(|err| self.unwritten(err))?;
        if partial.size() > descriptor.size {
            partial.restart().map_err(|err| self.unwritten(err))?;
        }
        let resumed = partial.size() > 0;
        let (partial, outcome) = self.transfer(partial, !resumed).await;
        if outcome.is_err() && partial.size() == 0 {
            partial.discard().map_err(|err| self.unwritten(err))?;
            return outcome;
        }
        outcome?;
        self.download.progress.send_replace(Progress::Verifying);
        if partial.digest() == descriptor.digest {
            self.download.set_readable(descriptor.size);
            return Ok(());
        }
        if !resumed {
            partial.discard().map_err(|err| self.unwritten(err))?;
            return Err(RegistryError::LayerDigest { digest: descriptor.digest.clone() });
        }
        // What an earlier process left may have suffered in a power cut. Nobody has seen a byte of it.
        let mut partial = partial;
        partial.restart().map_err(|err| self.unwritten(err))?;
        let (partial, outcome) = self.transfer(partial, true).await;
        outcome?;
        if partial.digest() == descriptor.digest {
            return Ok(());
        }
        partial.discard().map_err(|err| self.unwritten(err))?;
        Err(RegistryError::LayerDigest { digest: descriptor.digest.clone() })
    }

    /// Whether it is in the store already: for a layer that was removed while its blob is still another image's.
    async fn open_blob(&self) -> Result<bool, RegistryError> {
        let (content, digest) = (self.content.clone(), self.download.descriptor.digest.clone());
        let opened = bridge::blocking(move || content.reader(&digest).map(|file| (file.metadata(), file)).ok());
        match opened.await {
            Some((Ok(metadata), file)) if metadata.len() == self.download.descriptor.size => {
                // What a transfer that was cut has left: nobody goes on with it, and only we write there.
                let (content, digest) = (self.content.clone(), self.download.descriptor.digest.clone());
                bridge::blocking(move || content.discard(&digest)).await.map_err(|err| self.unwritten(err))?;
                self.download.set_file(Arc::new(file));
                self.download.set_readable(self.download.descriptor.size);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Fills `partial`; readers see it grow if it is `visible`.
    async fn transfer(&self, partial: Partial, visible: bool) -> (Partial, Result<(), RegistryError>) {
        let position = partial.size();
        match partial.reader() {
            Ok(file) => self.download.set_file(Arc::new(file)),
            Err(err) => return (partial, Err(self.unwritten(err))),
        }
        let (pieces, queue) = mpsc::channel(PIECES_AHEAD);
        let download = self.download.clone();
        // It waits for the registry, for which somebody may have to look a name up on a thread of the pool.
        let writing = bridge::waiting(move || write(partial, queue, &download, visible));
        // Owns its end of the queue, so that the writer comes to its own when this is over.
        let reading = async move {
            tokio::select! {
                fetched = self.attempts(position, &pieces) => fetched,
                () = self.download.abandoned.notified() => Err(RegistryError::Cancelled),
            }
        };
        let (fetched, (partial, wrote)) = tokio::join!(reading, writing);
        // A disk that is full ends the reading, too; the disk is the reason.
        (partial, wrote.map_err(|err| self.unwritten(err)).and(fetched))
    }

    fn unwritten(&self, source: IngestError) -> RegistryError {
        RegistryError::Write { digest: self.download.descriptor.digest.clone(), source }
    }

    /// Asks until all bytes were sent to the writer.
    async fn attempts(&self, mut position: u64, pieces: &mpsc::Sender<Bytes>) -> Result<(), RegistryError> {
        let size = self.download.descriptor.size;
        let settings = &self.session.registry().settings;
        let gets_on = (size / GETS_ON_PART).clamp(1, GETS_ON_BYTES);
        let (mut failures, mut mark) = (0, position);
        while position < size {
            let Err(err) = self.attempt(&mut position, pieces).await else { continue };
            // A registry that restarts refuses connections for a while.
            if !err.is_outage() || matches!(err, RegistryError::Cancelled) {
                return Err(err);
            }
            if position - mark >= gets_on {
                (failures, mark) = (0, position);
            }
            failures += 1;
            if failures >= settings.download_attempts.max(1) {
                return Err(err);
            }
            tracing::debug!("resume a layer at byte {position}: {}", errdefs::chain(&err));
            let usual = match failures {
                1 => Duration::ZERO,
                _ => settings.timing.retry * 2u32.saturating_pow(failures - 2).min(60),
            };
            let Some(wait) = err.wait(usual) else { return Err(err) };
            let tell = |seconds| {
                self.download.progress.send_replace(Progress::Retrying { seconds });
            };
            pause(wait, tell).await;
        }
        Ok(())
    }

    /// One request; moves `position` as far as it comes.
    async fn attempt(&self, position: &mut u64, pieces: &mpsc::Sender<Bytes>) -> Result<(), RegistryError> {
        let descriptor = &self.download.descriptor;
        let path = self.session.blob_path(&descriptor.digest);
        let ask = Ask { from: *position, ..Ask::get(&path) };
        let failed = |source| self.session.failed(&ask, source);
        let broken = |source| match source {
            ExchangeError::Truncated => RegistryError::Truncated,
            source => failed(source),
        };
        let reply = self.session.ask(&ask).await.map_err(failed)?;
        let skip = match reply.response.status() {
            StatusCode::OK => *position,
            StatusCode::PARTIAL_CONTENT if starts_at(reply.response.headers(), *position) => 0,
            StatusCode::PARTIAL_CONTENT => return Err(failed(ExchangeError::Range)),
            _ => return Err(self.session.refused(reply, None).await),
        };
        let expected = descriptor.size - *position + skip;
        if length(reply.response.headers()).is_some_and(|length| length != expected) {
            return Err(RegistryError::LayerDigest { digest: descriptor.digest.clone() });
        }
        let mut body = reply.response.into_body();
        let (mut skip, mut window) = (skip, Window::new());
        while let Some(mut piece) = body.chunk().await.map_err(broken)? {
            if !window.is_worth_it(piece.len() as u64, &self.session.registry().settings.timing) {
                return Err(failed(ExchangeError::Stalled));
            }
            // A registry that knows no ranges begins anew; the bytes are the same, or the digest will tell.
            let known = skip.min(piece.len() as u64);
            skip -= known;
            let piece = piece.split_off(known as usize);
            if piece.len() as u64 > descriptor.size - *position {
                return Err(RegistryError::LayerDigest { digest: descriptor.digest.clone() });
            }
            *position += piece.len() as u64;
            if pieces.send(piece).await.is_err() {
                // The writer ended, and says why.
                return Err(RegistryError::Cancelled);
            }
        }
        match *position < descriptor.size {
            true => Err(RegistryError::Truncated),
            false => Ok(()),
        }
    }
}

/// Waits, and says every second how many are left, as dockerd does.
pub(crate) async fn pause(whole: Duration, tell: impl Fn(u64)) {
    let mut left = whole;
    while !left.is_zero() {
        tell(left.as_millis().div_ceil(1000) as u64);
        let step = left.min(Duration::from_secs(1));
        tokio::time::sleep(step).await;
        left -= step;
    }
}

/// Whether a body comes fast enough, measured over a while.
struct Window {
    since: Instant,
    bytes: u64,
}

impl Window {
    fn new() -> Window {
        Window { since: Instant::now(), bytes: 0 }
    }

    fn is_worth_it(&mut self, bytes: u64, timing: &crate::Timing) -> bool {
        self.bytes += bytes;
        if self.since.elapsed() < timing.trickle {
            return true;
        }
        std::mem::replace(self, Window::new()).bytes >= timing.trickle_bytes
    }
}

/// Writes pieces until there are no more, or the disk does not take one; readers see them if they are `visible`.
fn write(
    mut partial: Partial,
    mut queue: mpsc::Receiver<Bytes>,
    download: &Download,
    visible: bool,
) -> (Partial, Result<(), IngestError>) {
    let total = download.descriptor.size;
    while let Some(piece) = queue.blocking_recv() {
        if let Err(err) = partial.write(&piece) {
            // A disk that is full must not stay so for the sake of a transfer that failed. Readers keep what they have open.
            let cleared = partial.restart();
            return (partial, Err(cleared.err().unwrap_or(err)));
        }
        let current = partial.size();
        download.progress.send_replace(Progress::Downloading { current, total });
        if visible {
            download.set_readable(current);
        }
    }
    (partial, Ok(()))
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `bytes 100-199/200` begins at 100.
fn starts_at(headers: &HeaderMap, position: u64) -> bool {
    let range =
        headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()?.strip_prefix("bytes ")?.split_once('-'));
    range.is_some_and(|(start, _)| start.parse() == Ok(position))
}
