//! What a session is asked while a build goes on: secrets, agents, and what is in directories of caches.

use std::io::Read;
use std::sync::Arc;

use buildkit_api::channel::Outgoing;
use buildkit_api::frame::Incoming;
use buildkit_api::messages::{AgentBytes, CheckAgentRequest, Empty, GetSecretRequest, GetSecretResponse};
use buildkit_api::session::Session;
use buildkit_api::status::{Code, Status};
use engine::ops::build::{Answer, AskError, Asks, Blob, Digest};
use http::header::{HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tracing::debug;

use super::blobs;

/// The call for a secret.
const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";

/// The calls of agents (session/sshforward).
const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";

/// Which agent a call is of.
const AGENT_ID: HeaderName = HeaderName::from_static("buildkit.ssh.id");

/// How many bytes are carried at once.
const PIECE_BYTES: usize = 32 << 10;

/// The client that opened a session.
pub(crate) struct SessionAsks(pub(crate) Arc<Session>);

impl Asks for SessionAsks {
    fn secret(&self, id: String) -> Answer<Result<Option<Vec<u8>>, AskError>> {
        let session = self.0.clone();
        Box::pin(async move {
            if !session.answers(SECRET) {
                return Ok(None);
            }
            let asked = session.channel.call::<GetSecretResponse>(SECRET, &GetSecretRequest { id }).await;
            match asked {
                Ok(answer) => Ok(Some(answer.data)),
                Err(status) if is_missing(&status) => Ok(None),
                Err(status) => Err(AskError(status.message)),
            }
        })
    }

    fn has_agent(&self, id: String) -> Answer<Result<bool, AskError>> {
        let session = self.0.clone();
        Box::pin(async move {
            if !session.answers(CHECK_AGENT) {
                return Ok(false);
            }
            match session.channel.call::<Empty>(CHECK_AGENT, &CheckAgentRequest { id }).await {
                Ok(_) => Ok(true),
                Err(status) if status.code == Code::Unimplemented as i32 => Ok(false),
                Err(status) => Err(AskError(status.message)),
            }
        })
    }

    fn forward(&self, id: String, stream: UnixStream) -> Answer<()> {
        let session = self.0.clone();
        Box::pin(async move {
            // Whoever connected sees that the connection ends.
            if let Err(status) = forward(&session, &id, stream).await {
                debug!(%status, "a connection to an agent has ended");
            }
        })
    }

    fn document(&self, directory: String, digest: Digest, max_bytes: usize) -> Answer<Result<Vec<u8>, AskError>> {
        let session = self.0.clone();
        Box::pin(async move { blobs::document(&session, &directory, &digest, max_bytes).await.map_err(in_words) })
    }

    fn blob(&self, directory: &str, blob: &Blob) -> Box<dyn Read + Send> {
        blobs::read(self.0.clone(), directory, blob)
    }

    fn has_blob(&self, directory: String, blob: Blob) -> Answer<Result<bool, AskError>> {
        let session = self.0.clone();
        Box::pin(async move { blobs::is_there(&session, &directory, &blob).await.map_err(in_words) })
    }

    fn put_blob(&self, directory: String, source: Box<dyn Read + Send>) -> Answer<Result<Blob, AskError>> {
        let session = self.0.clone();
        Box::pin(async move { blobs::write(&session, &directory, source).await.map_err(in_words) })
    }
}

/// Why a client does not answer.
pub(super) fn in_words(status: Status) -> AskError {
    AskError(status.message)
}

fn is_missing(status: &Status) -> bool {
    [Code::NotFound, Code::Unimplemented].iter().any(|code| status.code == *code as i32)
}

async fn forward(session: &Session, id: &str, stream: UnixStream) -> Result<(), Status> {
    let id = HeaderValue::from_str(id).map_err(|err| Status::new(Code::InvalidArgument, err.to_string()))?;
    let (outgoing, incoming) = session.channel.stream(FORWARD_AGENT, &[(AGENT_ID, id)]).await?;
    let (reader, writer) = stream.into_split();
    // Who asks may have said all before the answer comes; where the agent has gone nobody listens to more questions.
    let receiving = receive(incoming, writer);
    tokio::pin!(receiving);
    tokio::select! {
        sent = send(reader, outgoing) => sent?,
        received = &mut receiving => return received,
    }
    receiving.await
}

async fn send(mut reader: OwnedReadHalf, mut outgoing: Outgoing) -> Result<(), Status> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match reader.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(count) => outgoing.send(&AgentBytes { data: piece[..count].to_vec() }).await?,
        }
    }
    outgoing.end()
}

async fn receive(mut incoming: Incoming, mut writer: OwnedWriteHalf) -> Result<(), Status> {
    while let Some(AgentBytes { data }) = incoming.next().await? {
        // Nobody reads it any more.
        if writer.write_all(&data).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
