//! Sends one blob: asks whether it is there, has it mounted, or uploads it, resumed where the registry lets us.
//!
//! ```text
//! HEAD blob ---- is there ------------------------------------------------> done
//! POST uploads?mount= ---- 201 -------------------------------------------> mounted
//!      | 202                 (cut: GET the upload says how far it came)
//! PATCH upload, all bytes that are missing ---> PUT upload?digest= -- 201 -> done
//! ```

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use content::Blob;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderMap, Method, Response, StatusCode};
use oci::{Digest, Reference};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::access::{Ask, Reply};
use crate::connection::{Body, Url};
use crate::document::{digest_of, list_referrer};
use crate::error::RegistryError;
use crate::fetch::pause;
use crate::outgoing::{Outgoing, Piece};
use crate::session::Session;

/// How often an upload is tried that does not get on; dockerd's bound (moby distribution/xfer, `maxUploadAttempts`).
const ATTEMPTS: u32 = 5;

/// What is read at a time.
const PIECE_BYTES: usize = 128 * 1024;

/// Pieces between the disk, or the compressor, and the network.
const PIECES_AHEAD: usize = 4;

/// An attempt that begins so much behind the one before it counts as one that gets on.
const GETS_ON_BYTES: u64 = 64 * 1024;

/// Repositories that a blob may be mounted from, which are tried; each costs a request.
const MOUNTS_MAX: usize = 3;

/// Longer answers to uploads are not read; nobody looks at them.
const ANSWER_MAX: u64 = 64 * 1024;

/// Where the bytes of a blob come from. Called on threads that may block.
pub trait Source: Send + Sync + 'static {
    /// The bytes from `from` on.
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>>;

    /// How far it is when `sent` bytes were sent, and how far it will be, as users are told.
    fn progress(&self, sent: u64) -> (u64, u64);
}

/// A blob to be sent.
pub struct Upload {
    /// Its address and length; without them it is made while it is sent, whole and always the same.
    pub blob: Option<Blob>,
    /// Other repositories of the registry that may have it.
    pub mounts: Vec<Reference>,
    /// Its bytes.
    pub source: Arc<dyn Source>,
}

/// How far an upload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadProgress {
    /// Others are first.
    Waiting,
    /// The registry has it already.
    Exists,
    /// The registry took it from another repository.
    Mounted {
        /// Which one, without the registry.
        from: String,
    },
    /// Bytes go.
    Sending {
        /// What went.
        current: u64,
        /// What there is.
        total: u64,
    },
    /// It was cut, and goes on in so many seconds.
    Retrying {
        /// How many.
        seconds: u64,
    },
    /// The registry has it now.
    Sent,
}

/// Told of progress, on any thread.
pub type Tell = Arc<dyn Fn(UploadProgress) + Send + Sync>;

/// A manifest that a registry has, under the name that was given.
#[derive(Debug)]
pub struct Stored {
    /// Its address.
    pub digest: Digest,
    /// Why whoever looks for what refers to another manifest does not find it, if it refers to one: the list cannot be read or
    /// written. Told, and no failure of the push (distribution-spec v1.1, "Pushing Manifests with Subject").
    pub unlisted: Option<RegistryError>,
}

impl Session {
    /// Brings a blob to the registry, if it is not there; answers what it is.
    pub async fn upload(&self, upload: &Upload, tell: Tell) -> Result<Blob, RegistryError> {
        let uploads = &self.registry().uploads;
        let _permit = match uploads.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                tell(UploadProgress::Waiting);
                uploads.acquire().await.expect("nobody closes the semaphore")
            }
        };
        Sending { session: self, upload, tell, blob: upload.blob.clone(), place: None, begun: false }.run().await
    }

    /// Gives a tag, or a digest, to a manifest whose blobs are there. One that refers to another manifest is listed there, by us
    /// where the registry does not do it; it is there, and has its name, also where that fails.
    pub async fn put_manifest(&self, name: &str, media_type: &str, manifest: &[u8]) -> Result<Stored, RegistryError> {
        let path = self.manifest_path(name);
        let content = Some((media_type, Bytes::copy_from_slice(manifest)));
        let ask = Ask { method: Method::PUT, content, ..Ask::get(&path) };
        let (headers, _) = self.document(&ask, None).await?;
        let digest = digest_of(manifest);
        let told = headers.get("docker-content-digest").and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
        // One that stored something else would give that to everybody who pulls.
        if told.is_some_and(|told| told != digest) {
            return Err(RegistryError::ManifestDigest { digest });
        }
        let unlisted = list_referrer(self, &headers, media_type, manifest).await.err();
        Ok(Stored { digest, unlisted })
    }
}

/// An upload that was begun.
struct Place {
    url: Url,
    from: u64,
}

/// What came of the wish to begin one.
enum Begun {
    At(Url),
    Mounted(Blob),
}

struct Sending<'a> {
    session: &'a Session,
    upload: &'a Upload,
    tell: Tell,
    /// What is known of it: one that is made while it is sent is known once all of it was.
    blob: Option<Blob>,
    /// Where a cut upload may go on.
    place: Option<Url>,
    begun: bool,
}

impl Sending<'_> {
    async fn run(&mut self) -> Result<Blob, RegistryError> {
        let timing = self.session.registry().settings.timing;
        let (mut failures, mut mark) = (0, 0);
        loop {
            let mut from = 0;
            let err = match self.attempt(&mut from).await {
                Ok(blob) => return Ok(blob),
                Err(err) => err,
            };
            // A registry may have kept something else of what was cut than it said.
            let spoilt = from > 0 && matches!(&err, RegistryError::Refused { answer } if answer.status < 500);
            if spoilt {
                self.place = None;
            } else if !err.is_outage() {
                return Err(err);
            }
            if from >= mark + GETS_ON_BYTES {
                (failures, mark) = (0, from);
            }
            failures += 1;
            let wait = err.wait(timing.retry * 2u32.saturating_pow(failures - 1).min(60));
            let Some(wait) = wait.filter(|_| failures < ATTEMPTS) else { return Err(err) };
            tracing::debug!("send a layer again: {}", errdefs::chain(&err));
            pause(wait, |seconds| (self.tell)(UploadProgress::Retrying { seconds })).await;
        }
    }

    /// Tells in `from` where it began.
    async fn attempt(&mut self, from: &mut u64) -> Result<Blob, RegistryError> {
        if let Some(blob) = &self.blob
            && self.is_there(&blob.digest).await?
        {
            (self.tell)(if self.begun { UploadProgress::Sent } else { UploadProgress::Exists });
            return Ok(blob.clone());
        }
        let place = match self.resume().await? {
            Some(place) => place,
            None => match self.begin().await? {
                Begun::Mounted(blob) => return Ok(blob),
                Begun::At(url) => Place { url, from: 0 },
            },
        };
        self.begun = true;
        *from = place.from;
        self.place = Some(place.url.clone());
        let (blob, url) = self.send(place).await?;
        self.blob = Some(blob.clone());
        self.place = Some(url.clone());
        self.finish(url, &blob.digest).await?;
        (self.tell)(UploadProgress::Sent);
        Ok(blob)
    }

    /// What the registry does not want to tell counts as absent: it says why when something is to be written.
    async fn is_there(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let path = self.session.blob_path(digest);
        let ask = Ask { method: Method::HEAD, ..Ask::get(&path) };
        let reply = self.session.ask(&ask).await.map_err(|source| self.session.failed(&ask, source))?;
        let status = reply.response.status();
        match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            true => Err(self.session.refused(reply, None).await),
            false => Ok(status.is_success()),
        }
    }

    /// How far a cut upload came, if the registry still knows it.
    async fn resume(&mut self) -> Result<Option<Place>, RegistryError> {
        let Some(url) = self.place.clone() else { return Ok(None) };
        let ask = Ask::get(&url.path);
        let reply = self.ask_at(&url, &ask).await?;
        let (status, headers) = (reply.response.status(), reply.response.headers());
        let from = received(headers).filter(|_| status == StatusCode::NO_CONTENT);
        let too_far = |from: &u64| self.upload.blob.as_ref().is_some_and(|blob| *from > blob.size);
        let next = self.next_url(headers, &url)?;
        drain(reply).await;
        match from.filter(|from| !too_far(from)) {
            Some(from) => Ok(Some(Place { url: next, from })),
            None => {
                self.place = None;
                Ok(None)
            }
        }
    }

    /// Begins an upload, or spares it.
    async fn begin(&self) -> Result<Begun, RegistryError> {
        let repository = self.session.repository.path();
        let path = format!("/v2/{repository}/blobs/uploads/");
        let mut begun = None;
        // What could not be mounted at first cannot be mounted later either.
        let mounts = if self.begun { &[][..] } else { &self.upload.mounts };
        for from in mounts.iter().take(MOUNTS_MAX) {
            let Some(blob) = &self.upload.blob else { break };
            // Whoever may not read there may still write here.
            let Ok(reply) = self.session.ask_to_mount(&blob.digest, from).await else { continue };
            match reply.response.status() {
                StatusCode::CREATED => {
                    drain(reply).await;
                    (self.tell)(UploadProgress::Mounted { from: from.path().to_owned() });
                    return Ok(Begun::Mounted(blob.clone()));
                }
                StatusCode::ACCEPTED => {
                    begun = Some(self.location(&reply.response)?);
                    drain(reply).await;
                    break;
                }
                _ => drain(reply).await,
            }
        }
        if let Some(url) = begun {
            return Ok(Begun::At(url));
        }
        let ask = Ask::change(Method::POST, &path);
        let reply = self.session.ask(&ask).await.map_err(|source| self.session.failed(&ask, source))?;
        if reply.response.status() != StatusCode::ACCEPTED {
            return Err(self.session.refused(reply, None).await);
        }
        let url = self.location(&reply.response)?;
        drain(reply).await;
        Ok(Begun::At(url))
    }

    /// Sends all bytes that are missing; answers what they are and where to say so.
    async fn send(&self, place: Place) -> Result<(Blob, Url), RegistryError> {
        let (pieces, queue) = mpsc::channel(PIECES_AHEAD);
        let (blob, from) = (self.upload.blob.clone(), place.from);
        let length = blob.as_ref().map(|blob| blob.size - from);
        let mut headers = vec![(CONTENT_TYPE, "application/octet-stream".to_owned())];
        if let Some(length) = length.filter(|length| from > 0 && *length > 0) {
            headers.push((CONTENT_RANGE, format!("{from}-{}", from + length - 1)));
        }
        headers.extend(length.map(|length| (CONTENT_LENGTH, length.to_string())));
        let taken = Arc::new(AtomicU64::default());
        let body = Outgoing::Pieces { queue, length, taken: taken.clone() };
        let (source, tell) = (self.upload.source.clone(), self.tell.clone());
        let reader = Reader { source, tell, pieces, report: self.session.registry().settings.timing.report };
        // It waits for the registry to take what it reads.
        let reading = bridge::waiting(move || reader.run(blob, from));
        let exchange = async {
            let exchange = self.session.access.stream(&place.url, &headers, body, &taken).await;
            let ask = Ask { method: Method::PATCH, ..Ask::get(&place.url.path) };
            let reply = exchange.map_err(|source| self.session.failed(&ask, source))?;
            if !reply.response.status().is_success() {
                return Err(self.session.refused(reply, None).await);
            }
            let next = self.next_url(reply.response.headers(), &place.url)?;
            // Nothing more is sent: a registry that answers before it has everything does not have it.
            drain(reply).await;
            Ok(next)
        };
        let (exchanged, read) = tokio::join!(exchange, reading);
        // The source's failure breaks the exchange off; it is the reason.
        let read = read.map_err(|source| RegistryError::Source { source })?;
        let next = exchanged?;
        Ok((read.ok_or(RegistryError::Truncated)?, next))
    }

    /// Makes a blob of an upload.
    async fn finish(&self, mut url: Url, digest: &Digest) -> Result<(), RegistryError> {
        let separator = if url.path.contains('?') { '&' } else { '?' };
        url.path = format!("{}{separator}digest={digest}", url.path);
        let path = url.path.clone();
        let reply = self.ask_at(&url, &Ask::change(Method::PUT, &path)).await?;
        match reply.response.status().is_success() {
            true => drain(reply).await,
            false => return Err(self.session.refused(reply, None).await),
        }
        Ok(())
    }

    async fn ask_at(&self, url: &Url, ask: &Ask<'_>) -> Result<Reply, RegistryError> {
        self.session.access.ask_at(url.clone(), ask).await.map_err(|source| self.session.failed(ask, source))
    }

    fn location(&self, response: &Response<Body>) -> Result<Url, RegistryError> {
        let location = response.headers().get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let location = location.ok_or(RegistryError::NoLocation)?;
        self.session.access.join(&location).map_err(|source| self.session.failed(&Ask::get("/v2/"), source))
    }

    /// Where an upload goes on: every answer may say it anew.
    fn next_url(&self, headers: &HeaderMap, current: &Url) -> Result<Url, RegistryError> {
        let Some(location) = headers.get(LOCATION) else { return Ok(current.clone()) };
        let next = current.join(&String::from_utf8_lossy(location.as_bytes()));
        next.map_err(|source| self.session.failed(&Ask::get("/v2/"), source))
    }
}

/// Reads the rest of an answer, so that its connection can be used again. What goes wrong concerns the connection alone.
async fn drain(reply: Reply) {
    if let Err(err) = reply.response.into_body().read(ANSWER_MAX, Duration::from_secs(10)).await {
        tracing::debug!("the answer of a registry: {}", errdefs::chain(&err));
    }
}

/// How many bytes of an upload are there: `0-99` are 100. `0-0` are one or none; none is safe.
fn received(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let (start, end) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    let end: u64 = end.parse().ok()?;
    (start == "0" && end > 0).then_some(end.checked_add(1)?)
}

/// Gives the bytes of a source to a connection.
struct Reader {
    source: Arc<dyn Source>,
    tell: Tell,
    pieces: mpsc::Sender<Piece>,
    /// The least time between two reports.
    report: Duration,
}

impl Reader {
    /// Answers what was sent, or nothing if the connection did not want it all.
    fn run(&self, blob: Option<Blob>, from: u64) -> io::Result<Option<Blob>> {
        // Only whoever sees all bytes can say what they are.
        let (mut reader, mut skip) = match &blob {
            Some(_) => (self.source.open(from)?, 0),
            None => (self.source.open(0)?, from),
        };
        let mut hasher = blob.is_none().then(Sha256::new);
        let (mut position, mut told) = (if blob.is_some() { from } else { 0 }, None::<Instant>);
        loop {
            let wanted = blob.as_ref().map_or(PIECE_BYTES as u64, |blob| blob.size - position);
            let mut piece = vec![0; PIECE_BYTES.min(wanted as usize)];
            let count = read_some(&mut *reader, &mut piece)?;
            if count == 0 {
                break;
            }
            piece.truncate(count);
            hasher.iter_mut().for_each(|hasher| hasher.update(&piece));
            position += count as u64;
            let known = skip.min(count as u64);
            skip -= known;
            let piece = Bytes::from(piece).slice(known as usize..);
            if !piece.is_empty() && self.pieces.blocking_send(Piece::Bytes(piece)).is_err() {
                return Ok(None);
            }
            if told.is_none_or(|told| told.elapsed() >= self.report) {
                told = Some(Instant::now());
                self.tell_progress(position);
            }
        }
        if blob.as_ref().is_some_and(|blob| blob.size != position) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.tell_progress(position);
        // With a length that is known the connection may have stopped asking already.
        let ended = self.pieces.blocking_send(Piece::End);
        let made = hasher.map(|hasher| Blob { digest: Digest::from_sha256(&hasher.finalize().into()), size: position });
        Ok(blob.or(made.filter(|_| ended.is_ok())))
    }

    fn tell_progress(&self, position: u64) {
        let (current, total) = self.source.progress(position);
        (self.tell)(UploadProgress::Sending { current, total });
    }
}

fn read_some(reader: &mut dyn Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match reader.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_say_how_far_an_upload_came() {
        for (text, bytes) in [
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            ("0-0", None),
            ("5-9", None),
            ("0-18446744073709551615", None),
            ("", None),
            ("x", None),
        ] {
            let headers = HeaderMap::from_iter([(RANGE, text.parse().unwrap())]);
            assert_eq!(received(&headers), bytes, "{text}");
        }
    }
}
