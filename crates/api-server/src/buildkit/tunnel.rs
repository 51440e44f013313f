//! Sessions within a call: `Control.Session`, whose messages are the bytes of a connection (session/grpchijack). Bake opens
//! one for several builds.

use std::sync::Arc;

use buildkit_api::frame::Incoming;
use buildkit_api::messages::AgentBytes;
use buildkit_api::server::Streaming;
use buildkit_api::session::Announced;
use buildkit_api::status::{Code, Status};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tracing::debug;

use super::BuildKit;

/// How many bytes wait to be carried on, and how many are carried at once.
const PIPE_BYTES: usize = 64 << 10;
const PIECE_BYTES: usize = 32 << 10;

/// Serves the session of a call to its end.
pub(super) async fn serve(kit: Arc<BuildKit>, call: Streaming) {
    let Streaming { headers, incoming, outgoing, .. } = call;
    let announced = Announced::of_headers(&headers);
    let announced = announced.and_then(|announced| kit.sessions.check(&announced).map(|()| announced));
    let ended = match announced {
        Err(err) => Err(Status::new(Code::InvalidArgument, err.to_string())),
        Ok(announced) => {
            let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
            let (reader, writer) = tokio::io::split(theirs);
            // Whichever ends first ends all.
            tokio::select! {
                served = kit.sessions.serve(announced, ours) => served,
                () = receive(incoming, writer) => Ok(()),
                () = send(reader, &outgoing) => Ok(()),
            }
        }
    };
    if let Err(status) = ended
        && let Err(err) = outgoing.send(Err(status)).await
    {
        // A client that has gone needs no answer.
        debug!(%err, "a session has failed, and nobody hears why");
    }
}

async fn receive(mut incoming: Incoming, mut writer: WriteHalf<DuplexStream>) {
    while let Ok(Some(AgentBytes { data })) = incoming.next().await {
        if writer.write_all(&data).await.is_err() {
            return;
        }
    }
}

async fn send(mut reader: ReadHalf<DuplexStream>, outgoing: &mpsc::Sender<Result<Vec<u8>, Status>>) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = reader.read(&mut piece).await {
        let message = AgentBytes { data: piece[..count].to_vec() }.encode_to_vec();
        if outgoing.send(Ok(message)).await.is_err() {
            return;
        }
    }
}
