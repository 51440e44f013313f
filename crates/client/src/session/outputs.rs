//! What a build came to, as the daemon sends it: a stream of bytes for each output (buildkit session/filesync, filesync.go).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use buildkit_api::messages::FileBytes;
use buildkit_api::server::Streaming;
use buildkit_api::status::{Code, Status};
use bytes::Bytes;
use tokio::sync::mpsc;

/// The call.
pub(super) const SEND: &str = "/moby.filesync.v1.FileSend/DiffCopy";

/// Which output it is of, from 0.
const NUMBER: &str = "buildkit-attachable-exporter-id";

/// Pieces that may wait for who writes them.
const PIECES: usize = 4;

/// A part of an output; `None` is its end: what has none is not whole.
pub type Piece = Option<Bytes>;

/// Who takes outputs, by their places among all of a build. Each comes once.
#[derive(Clone, Debug, Default)]
pub struct Outputs(Arc<Mutex<BTreeMap<usize, mpsc::Sender<Piece>>>>);

impl Outputs {
    /// Takes the output of a place.
    pub fn expect(&self, place: usize) -> mpsc::Receiver<Piece> {
        let (sender, receiver) = mpsc::channel(PIECES);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(place, sender);
        receiver
    }

    /// Nothing more comes: who waits hears that.
    pub fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) async fn take(&self, mut call: Streaming) {
        let number = call.headers.get(NUMBER).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or_default();
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        let taken = match sender {
            Some(sender) => pass(&mut call, &sender).await,
            None => Err(Status::new(Code::NotFound, format!("no output {number}"))),
        };
        if let Err(status) = taken {
            // A caller that has gone needs no answer.
            let _ = call.outgoing.send(Err(status)).await;
        }
    }
}

async fn pass(call: &mut Streaming, sender: &mpsc::Sender<Piece>) -> Result<(), Status> {
    let gone = || Status::new(Code::Unknown, "the output cannot be written");
    while let Some(FileBytes { data }) = call.incoming.next().await? {
        sender.send(Some(data)).await.map_err(|_| gone())?;
    }
    sender.send(None).await.map_err(|_| gone())
}
