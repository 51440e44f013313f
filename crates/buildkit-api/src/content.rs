//! Blobs in a directory of the client's, by their digests (session/content; containerd's services.content.v1).
//!
//! ```text
//! Info(digest) --> there, or not
//! Read(digest) --> pieces
//! Write <--> WRITE piece, answered; ...; COMMIT digest, answered: there from now on
//! ```
//! Which directory is meant stands beside the messages. What comes is compared with its digest by whoever reads it.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tracing::debug;

use crate::channel::Outgoing;
use crate::frame::Incoming;
use crate::messages::{
    AbortWriteRequest, ContentInfoRequest, ContentInfoResponse, Empty, ReadContentRequest, ReadContentResponse,
    WriteAction, WriteContentRequest, WriteContentResponse,
};
use crate::session::Session;
use crate::status::{Code, Status};

/// The calls.
pub const INFO: &str = "/containerd.services.content.v1.Content/Info";
/// For a blob's bytes.
pub const READ: &str = "/containerd.services.content.v1.Content/Read";
/// With a blob's bytes.
pub const WRITE: &str = "/containerd.services.content.v1.Content/Write";
/// That a blob does not come after all.
pub const ABORT: &str = "/containerd.services.content.v1.Content/Abort";

/// What stands beside the messages: which directory they are about.
pub const STORE: HeaderName = HeaderName::from_static("buildkit-attachable-store-id");

/// How many bytes of a blob go at once; servers of gRPC's take 4 MiB.
pub const PIECE_BYTES: usize = 1 << 20;

/// A blob that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

/// A directory of a client's.
#[derive(Clone, Copy, Debug)]
pub struct Store<'a> {
    /// Whose.
    pub session: &'a Session,
    /// What the client calls it: `local:DIRECTORY`, `oci:NAME`.
    pub name: &'a str,
}

impl Store<'_> {
    fn headers(&self) -> Result<[(HeaderName, HeaderValue); 1], Status> {
        let name = HeaderValue::from_bytes(self.name.as_bytes());
        Ok([(STORE, name.map_err(|err| Status::new(Code::InvalidArgument, err.to_string()))?)])
    }

    fn check(&self, call: &str) -> Result<(), Status> {
        match self.session.answers(call) {
            true => Ok(()),
            false => Err(Status::new(Code::Unimplemented, "the client has no directories of blobs")),
        }
    }

    /// Asks for a blob; pieces of it come.
    pub async fn read(&self, digest: &str) -> Result<Incoming, Status> {
        self.check(READ)?;
        let (mut outgoing, incoming) = self.session.channel.stream(READ, &self.headers()?).await?;
        outgoing.send(&ReadContentRequest { digest: digest.to_owned(), ..ReadContentRequest::default() }).await?;
        outgoing.end()?;
        Ok(incoming)
    }

    /// A blob that has at most so many bytes.
    pub async fn read_whole(&self, digest: &str, max_bytes: usize) -> Result<Vec<u8>, Status> {
        let (mut incoming, mut bytes) = (self.read(digest).await?, Vec::new());
        while let Some(ReadContentResponse { data, .. }) = incoming.next().await? {
            if bytes.len() + data.len() > max_bytes {
                return Err(Status::new(Code::ResourceExhausted, format!("{digest} is too large")));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    }

    /// How long a blob is that is there, in bytes.
    pub async fn size(&self, digest: &str) -> Result<Option<u64>, Status> {
        self.check(INFO)?;
        let (mut outgoing, mut incoming) = self.session.channel.stream(INFO, &self.headers()?).await?;
        outgoing.send(&ContentInfoRequest { digest: digest.to_owned() }).await?;
        outgoing.end()?;
        match incoming.next::<ContentInfoResponse>().await {
            Ok(answer) => Ok(answer.and_then(|answer| answer.info).map(|info| info.size.unsigned_abs())),
            Err(status) if status.code == Code::NotFound as i32 => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Writes a blob of what comes, to the first piece that is empty; an error is the answer, and nothing is there.
    /// `name` is what it is called until it is whole, and nobody else's.
    pub async fn write(
        &self,
        name: &str,
        mut pieces: mpsc::Receiver<Result<Bytes, Status>>,
    ) -> Result<Written, Status> {
        self.check(WRITE)?;
        let (outgoing, incoming) = self.session.channel.stream(WRITE, &self.headers()?).await?;
        let mut writing = Writing { outgoing, incoming, name, size: 0, hash: Sha256::new() };
        let written = writing.all(&mut pieces).await;
        if written.is_err()
            && let Err(err) = self.abort(name).await
        {
            // A part of it stays where the client keeps such parts.
            debug!(%err, "a blob that is not whole is not given up");
        }
        written
    }

    async fn abort(&self, name: &str) -> Result<(), Status> {
        let (mut outgoing, mut incoming) = self.session.channel.stream(ABORT, &self.headers()?).await?;
        outgoing.send(&AbortWriteRequest { name: name.to_owned() }).await?;
        outgoing.end()?;
        incoming.next::<Empty>().await.map(drop)
    }
}

/// A blob that is being written.
struct Writing<'a> {
    outgoing: Outgoing,
    incoming: Incoming,
    name: &'a str,
    size: u64,
    hash: Sha256,
}

impl Writing<'_> {
    async fn all(&mut self, pieces: &mut mpsc::Receiver<Result<Bytes, Status>>) -> Result<Written, Status> {
        loop {
            let piece = pieces.recv().await;
            let mut piece = piece.ok_or_else(|| Status::new(Code::Internal, "a blob breaks off"))??;
            if piece.is_empty() {
                break;
            }
            while !piece.is_empty() {
                let data = piece.split_to(piece.len().min(PIECE_BYTES));
                self.hash.update(&data);
                let length = data.len() as u64;
                self.step(WriteAction::Write, String::new(), data).await?;
                self.size += length;
            }
        }
        let hash = std::mem::take(&mut self.hash).finalize();
        let digest = hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"));
        match self.step(WriteAction::Commit, digest.clone(), Bytes::new()).await {
            // Another one was quicker.
            Err(status) if status.code == Code::AlreadyExists as i32 => {}
            committed => committed?,
        }
        // With this step the call has ended, for the other end, too.
        let _ = self.outgoing.end();
        Ok(Written { digest, size: self.size })
    }

    async fn step(&mut self, action: WriteAction, expected: String, data: Bytes) -> Result<(), Status> {
        let offset = self.size.cast_signed();
        let total = if action == WriteAction::Commit { offset } else { 0 };
        let after = offset + i64::try_from(data.len()).unwrap_or_default();
        let name = self.name.to_owned();
        let step = WriteContentRequest { action: action as i32, name, total, expected, offset, data };
        // Why it does not go says the answer.
        let sent = self.outgoing.send(&step).await;
        let answer = self.incoming.next::<WriteContentResponse>().await?;
        sent?;
        match answer {
            Some(answer) if answer.offset == after => Ok(()),
            _ => Err(Status::new(Code::Internal, "the client has not taken all of a blob")),
        }
    }
}
