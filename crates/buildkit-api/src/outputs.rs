//! What a build came to, sent to the client: a directory's files (tonistiigi/fsutil, send.go), or one stream of bytes
//! (buildkit session/filesync, filesync.go).
//!
//! ```text
//! daemon   DiffCopy, beside it which output of the build
//! daemon   STAT a   STAT b   STAT b/c ...   STAT without an entry: these are all
//! client   REQ 0    REQ 2                   the numbers of files, as they were told, while more are told
//! daemon   DATA 0 bytes  DATA 0 (none: its end)  ...
//! client   FIN      daemon   FIN
//! ```
//! Of a directory nothing is kept here but how much was told; whoever has the files is asked for one after the other.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use prost::Message;
use tokio::sync::mpsc;

use crate::channel::Outgoing;
use crate::frame::Incoming;
use crate::messages::{FileBytes, Packet, PacketKind};
use crate::session::Session;
use crate::status::{Code, Status};

/// The call, of a directory and of a stream.
const DIFF_COPY: &str = "/moby.filesync.v1.FileSend/DiffCopy";

/// Which output of the build it is, from 0.
const EXPORTER_ID: HeaderName = HeaderName::from_static("buildkit-attachable-exporter-id");

/// Why an output does not arrive.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The client takes none. The sentence is BuildKit's.
    #[error("method {DIFF_COPY} not supported by the client")]
    NotTaken,
    /// The client has gone, or fails in its own words.
    #[error("rpc error: code = {} desc = {}", .0.name(), .0.message)]
    Client(Status),
    /// The client cannot keep what it is sent.
    #[error("error from receiver: {0}")]
    Receiver(String),
    /// The client does not keep to the protocol.
    #[error("the client breaks the transfer off")]
    Protocol,
    /// There is nothing more to send, because of what whoever sends knows.
    #[error("what is sent breaks off")]
    Source,
}

impl OutputError {
    /// The failure as clients are told it.
    pub fn status(&self) -> Status {
        let code = match self {
            OutputError::Client(status) => status.code,
            _ => Code::Unknown as i32,
        };
        Status { code, message: self.to_string(), details: Vec::new() }
    }
}

/// Begins to send an output of the build, by its place among all of them.
async fn begin(session: &Session, output: usize) -> Result<(Outgoing, Incoming), OutputError> {
    if !session.answers(DIFF_COPY) {
        return Err(OutputError::NotTaken);
    }
    let headers = [(EXPORTER_ID, HeaderValue::from(output))];
    session.channel.stream(DIFF_COPY, &headers).await.map_err(OutputError::Client)
}

/// Sends bytes as they come, to the end of `pieces`; `whole` says whether that is all. `bytes` counts them.
///
/// What a client is sent that is not whole must not look like it: the call is given up.
pub async fn send_stream(
    session: &Session,
    output: usize,
    mut pieces: mpsc::Receiver<Bytes>,
    whole: impl Future<Output = bool>,
    bytes: &AtomicU64,
) -> Result<(), OutputError> {
    let (mut outgoing, mut incoming) = begin(session, output).await?;
    let sending = async {
        while let Some(data) = pieces.recv().await {
            bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
            outgoing.send(&FileBytes { data }).await.map_err(OutputError::Client)?;
        }
        if !whole.await {
            return Err(OutputError::Source);
        }
        outgoing.end().map_err(OutputError::Client)
    };
    let answered = async {
        // Whatever it says before the end is nothing to us.
        while incoming.next::<FileBytes>().await.map_err(OutputError::Client)?.is_some() {}
        Ok(())
    };
    both(sending, answered).await
}

/// Sends a directory's files: `packets` are entries, the end of them, and bytes of files as they are asked for by `requests`.
///
/// Ends when the client has all. `bytes` counts what is sent, as BuildKit does.
pub async fn send_directory(
    session: &Session,
    output: usize,
    packets: mpsc::Receiver<Packet>,
    requests: mpsc::UnboundedSender<u32>,
    bytes: &AtomicU64,
) -> Result<(), OutputError> {
    let (outgoing, incoming) = begin(session, output).await?;
    let told = AtomicU32::new(0);
    let sending = tell(outgoing, packets, &told, bytes);
    let listening = listen(incoming, requests, &told);
    both(sending, listening).await
}

/// Waits for both; of two failures that of the client, who knows why.
async fn both(
    sending: impl Future<Output = Result<(), OutputError>>,
    listening: impl Future<Output = Result<(), OutputError>>,
) -> Result<(), OutputError> {
    tokio::pin!(sending, listening);
    tokio::select! {
        biased;
        listened = &mut listening => {
            listened?;
            // It has all, and says so while we still have to say that this was all.
            sending.await
        }
        sent = &mut sending => match sent {
            Err(err @ OutputError::Client(_)) => match tokio::time::timeout(LAST_WORDS, listening).await {
                Ok(Err(said)) => Err(said),
                _ => Err(err),
            },
            sent => {
                sent?;
                listening.await
            }
        },
    }
}

/// How long a client that takes no more may take to say why.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(5);

async fn tell(
    mut outgoing: Outgoing,
    mut packets: mpsc::Receiver<Packet>,
    told: &AtomicU32,
    bytes: &AtomicU64,
) -> Result<(), OutputError> {
    let mut ended = false;
    while let Some(packet) = packets.recv().await {
        ended = packet.kind == PacketKind::End as i32;
        let failed = packet.kind == PacketKind::Failure as i32;
        if packet.kind == PacketKind::Stat as i32 && packet.stat.is_some() {
            told.fetch_add(1, Ordering::Relaxed);
        }
        bytes.fetch_add(packet.encoded_len() as u64, Ordering::Relaxed);
        outgoing.send(&packet).await.map_err(OutputError::Client)?;
        if failed {
            return Err(OutputError::Source);
        }
    }
    if !ended {
        return Err(OutputError::Source);
    }
    // A client that has ended the call already needs no word of that.
    let _ = outgoing.end();
    Ok(())
}

/// Hears what the client asks for. Each file is asked for once at most: who asks more often than there are entries is refused.
async fn listen(
    mut incoming: Incoming,
    requests: mpsc::UnboundedSender<u32>,
    told: &AtomicU32,
) -> Result<(), OutputError> {
    let mut requests = Some(requests);
    let mut asked = 0;
    while let Some(packet) = incoming.next::<Packet>().await.map_err(OutputError::Client)? {
        match (packet.kind, &requests) {
            (kind, _) if kind == PacketKind::Failure as i32 => {
                return Err(OutputError::Receiver(String::from_utf8_lossy(&packet.data).into_owned()));
            }
            (kind, Some(sender)) if kind == PacketKind::Request as i32 => {
                asked += 1;
                if asked > told.load(Ordering::Relaxed) || sender.send(packet.id).is_err() {
                    return Err(OutputError::Protocol);
                }
            }
            // It asks for no more.
            (kind, Some(_)) if kind == PacketKind::End as i32 => requests = None,
            _ => return Err(OutputError::Protocol),
        }
    }
    // A call that ends well before its client has said that it has all.
    if requests.is_some() { Err(OutputError::Protocol) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
