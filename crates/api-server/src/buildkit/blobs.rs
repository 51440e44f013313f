//! Blobs in directories of the client's, as readers and writers that block: where it keeps caches (`--cache-to type=local`).

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use buildkit_api::content::{PIECE_BYTES, Store};
use buildkit_api::messages::ReadContentResponse;
use buildkit_api::session::Session;
use buildkit_api::status::{Code, Status};
use engine::ops::build::{Blob, Digest};
use hyper::body::Bytes;
use tokio::sync::mpsc;

use crate::upload::{self, Upload};

/// Pieces that may wait for the client.
const PIECES: usize = 2;

/// What names of blobs begin with that are not whole yet.
const UNFINISHED: &str = "longshore-";

/// Of the next blob.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// The client's name of a directory of caches (buildkit cache/remotecache/local).
fn store_name(directory: &str) -> String {
    format!("local:{directory}")
}

/// A short blob, whole; nobody has compared it with its digest.
pub(super) async fn document(
    session: &Session,
    directory: &str,
    digest: &Digest,
    max_bytes: usize,
) -> Result<Vec<u8>, Status> {
    Store { session, name: &store_name(directory) }.read_whole(digest.as_str(), max_bytes).await
}

/// Whether a blob is there, as long as it should be.
pub(super) async fn is_there(session: &Session, directory: &str, blob: &Blob) -> Result<bool, Status> {
    let size = Store { session, name: &store_name(directory) }.size(blob.digest.as_str()).await?;
    Ok(size == Some(blob.size))
}

/// A blob as it comes: no more than it should be long.
pub(super) fn read(session: Arc<Session>, directory: &str, blob: &Blob) -> Box<dyn Read + Send> {
    let (upload, reader) = upload::channel();
    let (name, blob) = (store_name(directory), blob.clone());
    tokio::spawn(async move {
        match bring(&session, &name, &blob, &upload).await {
            Ok(()) => upload.end().await,
            Err(status) => upload.fail(status.message).await,
        }
    });
    Box::new(reader)
}

async fn bring(session: &Session, name: &str, blob: &Blob, upload: &Upload) -> Result<(), Status> {
    let wrong = || Status::new(Code::Unknown, format!("{} has another length than its descriptor says", blob.digest));
    let mut incoming = Store { session, name }.read(blob.digest.as_str()).await?;
    let mut left = blob.size;
    while let Some(ReadContentResponse { data, .. }) = incoming.next().await? {
        left = left.checked_sub(data.len() as u64).ok_or_else(wrong)?;
        // Nobody wants the rest.
        if !upload.send(data).await {
            return Ok(());
        }
    }
    if left == 0 { Ok(()) } else { Err(wrong()) }
}

/// Writes a blob of what is read, on a thread of its own; answers what it is.
pub(super) async fn write(session: &Session, directory: &str, source: Box<dyn Read + Send>) -> Result<Blob, Status> {
    let (sender, pieces) = mpsc::channel(PIECES);
    // It may wait for other work; one that breaks off is noticed.
    std::thread::spawn(move || send(source, &sender));
    // Nobody else has such a session.
    let name = format!("{UNFINISHED}{}-{}", session.id, NUMBER.fetch_add(1, Ordering::Relaxed));
    let written = Store { session, name: &store_name(directory) }.write(&name, pieces).await?;
    let digest = written.digest.parse().map_err(|_| Status::new(Code::Internal, "a digest is none"))?;
    Ok(Blob { digest, size: written.size })
}

/// Reads to the end, which an empty piece tells.
fn send(mut source: Box<dyn Read + Send>, pieces: &mpsc::Sender<Result<Bytes, Status>>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = source.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
        let is_last = read.is_err() || piece.is_empty();
        let piece = match read {
            Ok(_) => Ok(Bytes::from(piece)),
            Err(err) => Err(failed(&err)),
        };
        if pieces.blocking_send(piece).is_err() || is_last {
            return;
        }
    }
}

fn failed(err: &io::Error) -> Status {
    Status::new(Code::Unknown, errdefs::chain(err).to_string())
}
