//! Sessions: what the daemon asks the client while it builds (BuildKit's API, crate `buildkit-api`).
//!
//! ```text
//! POST /session  --> daemon: who we are, and which calls we answer
//! calls          <-- GetSecret, Credentials, CheckAgent, ForwardAgent, Pull, DiffCopy; Info, Read, Write of blobs
//! ```
//! A session lives as long as what [`open`] answers is polled.

pub mod agent;
pub mod keys;
pub mod layouts;
pub mod outputs;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use buildkit_api::content;
pub use buildkit_api::messages::Stat;
use buildkit_api::messages::{
    AgentBytes, CheckAgentRequest, ContentInfoRequest, CredentialsRequest, CredentialsResponse, Empty,
    GetSecretRequest, GetSecretResponse, ReadContentRequest,
};
pub use buildkit_api::modes;
use buildkit_api::sender;
pub use buildkit_api::sender::{Directory, followed};
use buildkit_api::server::{self, Call, Reply, Service, Streaming};
use buildkit_api::status::{Code, Status};
use engine_api::auth::AuthConfig;
use http::HeaderMap;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use self::agent::Agent;
use self::layouts::Layout;
use self::outputs::Outputs;
use crate::call::Client;
use crate::error::ClientError;
use crate::hijack::upgrade;
use crate::transport::unix;

/// The protocol that the connection is upgraded to.
const PROTOCOL: &str = "h2c";

/// The calls that are answered.
const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const PULL: &str = "/moby.upload.v1.Upload/Pull";
const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
const FILES: &str = "/moby.filesync.v1.FileSync/DiffCopy";
const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";

/// Which agent a call is of.
const AGENT_ID: &str = "buildkit.ssh.id";

/// Which directory a call is of, behind a slash.
const PULLED: &str = "urlpath";

/// Makes an archive of a directory.
pub type Packer = fn(&Path) -> io::Result<Box<dyn Read + Send>>;

/// The agent that a call means which says nothing of it.
const AGENT_DEFAULT: &str = "default";

/// Docker Hub's registry, and by what its login is kept.
const HUB: &str = "registry-1.docker.io";
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// How many bytes of an agent go at once.
const PIECE_BYTES: usize = 32 << 10;

/// Pieces of a blob that may wait to be sent.
const PIECES: usize = 2;

/// What a build may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// Secrets by name.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Agents by name.
    pub agents: BTreeMap<String, Agent>,
    /// Directories by name, of which archives are sent.
    pub directories: BTreeMap<String, PathBuf>,
    /// Directories of caches by name.
    pub layouts: BTreeMap<String, Layout>,
    /// Logins by registry.
    pub logins: BTreeMap<String, AuthConfig>,
}

/// The directory that a build is of.
pub struct Context {
    /// The same for builds of the same directory, and of no other one: what was sent of it need not be sent again. Empty: nothing
    /// of it is kept.
    pub key: String,
    /// What is in it; told once.
    pub directory: Box<dyn Directory>,
}

/// Where a secret is; it is read when it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In a variable of ours.
    Variable(String),
}

impl Offers {
    /// Whether there is nothing to ask for; logins alone are told with the build.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.agents.is_empty() && self.directories.is_empty() && self.layouts.is_empty()
    }
}

/// Opens a session of that id; what is answered answers its calls, to the end of the connection.
pub async fn open(
    client: &Client,
    id: &str,
    offers: Offers,
    pack: Packer,
    context: Option<Context>,
    outputs: Outputs,
) -> Result<impl Future<Output = Result<(), Status>>, ClientError> {
    let (key, directory) = context.map(|context| (context.key, context.directory)).unzip();
    let calls = [SECRET, CREDENTIALS, CHECK_AGENT, FORWARD_AGENT, PULL, outputs::SEND];
    let calls = calls.into_iter().chain(directory.is_some().then_some(FILES));
    let mut headers = vec![("X-Docker-Expose-Session-Uuid", id), ("X-Docker-Expose-Session-Name", "longshore")];
    headers.extend(key.iter().map(|key| ("X-Docker-Expose-Session-Sharedkey", key.as_str())));
    let calls = calls.chain([content::INFO, content::READ, content::WRITE, content::ABORT]);
    headers.extend(calls.map(|call| ("X-Docker-Expose-Session-Grpc-Method", call)));
    let hijacked = upgrade(client, "/session", PROTOCOL, &headers, b"").await?;
    let io = tokio::io::join(hijacked.reader, hijacked.writer);
    let directory = Arc::new(Mutex::new(directory));
    Ok(server::serve(io, Answers { offers: Arc::new(offers), pack, directory, outputs }))
}

/// Who answers.
#[derive(Clone)]
struct Answers {
    offers: Arc<Offers>,
    pack: Packer,
    directory: Arc<Mutex<Option<Box<dyn Directory>>>>,
    outputs: Outputs,
}

impl Service for Answers {
    async fn call(&self, call: Call) -> Result<Reply, Status> {
        match call.path.as_str() {
            SECRET => {
                let id = call.message::<GetSecretRequest>()?.id;
                let data = self.secret(&id)?;
                Ok(Reply::message(&GetSecretResponse { data }))
            }
            CREDENTIALS => {
                let host = call.message::<CredentialsRequest>()?.host;
                Ok(Reply::message(&self.login(&host)))
            }
            CHECK_AGENT => {
                let id = call.message::<CheckAgentRequest>()?.id;
                self.agent(&id).map(|_| Reply::message(&Empty {}))
            }
            content::INFO => {
                let digest = call.message::<ContentInfoRequest>()?.digest;
                layouts::info(self.layout(&call.headers)?, &digest).map(|info| Reply::message(&info))
            }
            content::READ => {
                let (layout, wanted) = (self.layout(&call.headers)?.clone(), call.message::<ReadContentRequest>()?);
                Ok(Reply::Stream(read(layout, wanted)))
            }
            // What is not whole goes with the call that wrote it.
            content::ABORT => Ok(Reply::message(&Empty {})),
            other => Err(Status::new(Code::Unimplemented, format!("unknown method {other}"))),
        }
    }

    fn streams(&self, path: &str) -> bool {
        matches!(path, FORWARD_AGENT | PULL | FILES | content::WRITE | outputs::SEND)
    }

    async fn stream(&self, call: Streaming) {
        if call.path == outputs::SEND {
            return self.outputs.take(call).await;
        }
        if call.path == content::WRITE {
            return match self.layout(&call.headers).cloned() {
                Ok(layout) => layouts::write(&layout, call).await,
                // A caller that has gone needs no answer.
                Err(status) => drop(call.outgoing.send(Err(status)).await),
            };
        }
        let header = |name| call.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if call.path == PULL {
            return self.upload(header(PULLED).to_owned(), call.outgoing);
        }
        if call.path == FILES {
            let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner).take();
            return match directory {
                Some(directory) => sender::send(call, directory).await,
                None => {
                    let failed = Status::new(Code::NotFound, "the context was sent already");
                    // A caller that has gone needs no answer.
                    let _ = call.outgoing.send(Err(failed)).await;
                }
            };
        }
        let id = header(AGENT_ID);
        let failed = match self.agent(id) {
            Ok(Agent::Keys(keys)) => {
                let (ours, theirs) = tokio::io::duplex(PIECE_BYTES);
                let (_, ()) = tokio::join!(agent::serve(keys.clone(), ours), carry(Box::new(theirs), call));
                return;
            }
            Ok(Agent::Socket(path)) => match unix::connect(path).await {
                Ok(stream) => return carry(stream, call).await,
                Err(err) => Status::new(Code::Unknown, format!("failed to connect to agent: {err}")),
            },
            Err(status) => status,
        };
        // A caller that has gone needs no answer.
        let _ = call.outgoing.send(Err(failed)).await;
    }
}

impl Answers {
    /// The directory of caches that a call is about.
    fn layout(&self, headers: &HeaderMap) -> Result<&Layout, Status> {
        let store = headers.get(content::STORE).map(|value| String::from_utf8_lossy(value.as_bytes()));
        layouts::chosen(&self.offers.layouts, &store.unwrap_or_default())
    }

    fn secret(&self, id: &str) -> Result<Vec<u8>, Status> {
        let missing = || Status::new(Code::NotFound, format!("secret {id} not found"));
        match self.offers.secrets.get(id).ok_or_else(missing)? {
            SecretSource::Variable(name) => std::env::var(name).map(String::into_bytes).map_err(|_| missing()),
            SecretSource::File(path) => std::fs::read(path)
                .map_err(|err| Status::new(Code::Unknown, format!("failed to read {}: {err}", path.display()))),
        }
    }

    /// What is shown to a registry; nothing where there is no login.
    fn login(&self, host: &str) -> CredentialsResponse {
        let key = if host == HUB { HUB_KEY } else { host };
        match self.offers.logins.get(key) {
            None => CredentialsResponse::default(),
            Some(login) if !login.identity_token.is_empty() => {
                CredentialsResponse { username: String::new(), secret: login.identity_token.clone() }
            }
            Some(login) => CredentialsResponse { username: login.username.clone(), secret: login.password.clone() },
        }
    }

    fn agent(&self, id: &str) -> Result<&Agent, Status> {
        let id = if id.is_empty() { AGENT_DEFAULT } else { id };
        self.offers.agents.get(id).ok_or_else(|| Status::new(Code::NotFound, format!("unset ssh forward key {id}")))
    }
}

impl Answers {
    /// Sends the archive of a directory, from a thread of its own: reading files blocks.
    fn upload(&self, path: String, outgoing: mpsc::Sender<Result<Vec<u8>, Status>>) {
        let name = path.trim_start_matches('/').to_owned();
        let (offers, pack) = (self.offers.clone(), self.pack);
        std::thread::spawn(move || {
            let failed =
                |err: io::Error| Status::new(Code::Unknown, format!("failed to read the context {name}: {err}"));
            let sent = match offers.directories.get(&name) {
                Some(directory) => pack(directory).and_then(|archive| send(archive, &outgoing)).map_err(failed),
                None => Err(Status::new(Code::NotFound, format!("no context {name}"))),
            };
            if let Err(status) = sent {
                // A caller that has gone needs no answer.
                let _ = outgoing.blocking_send(Err(status));
            }
        });
    }
}

/// Sends a blob, from a thread of its own.
fn read(layout: Layout, wanted: ReadContentRequest) -> mpsc::Receiver<Result<Vec<u8>, Status>> {
    let (sender, receiver) = mpsc::channel(PIECES);
    std::thread::spawn(move || {
        if let Err(status) = layouts::read(&layout, &wanted, &sender) {
            // A caller that has gone needs no answer.
            let _ = sender.blocking_send(Err(status));
        }
    });
    receiver
}

fn send(mut archive: impl Read, outgoing: &mpsc::Sender<Result<Vec<u8>, Status>>) -> io::Result<()> {
    loop {
        let mut data = vec![0; PIECE_BYTES];
        let count = archive.read(&mut data)?;
        data.truncate(count);
        // What is behind the end of an archive is nobody's.
        if count == 0 || outgoing.blocking_send(Ok(AgentBytes { data }.encode_to_vec())).is_err() {
            return Ok(());
        }
    }
}

/// Carries bytes both ways until one side has said all.
async fn carry(stream: Box<dyn crate::transport::Stream>, mut call: Streaming) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let ask = async {
        while let Ok(Some(AgentBytes { data })) = call.incoming.next().await {
            if writer.write_all(&data).await.is_err() {
                return;
            }
        }
        // The agent closes when it has answered; it need not hear of it.
        let _ = writer.shutdown().await;
        std::future::pending().await
    };
    let answer = async {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(count @ 1..) = reader.read(&mut piece).await {
            let message = AgentBytes { data: piece[..count].to_vec() }.encode_to_vec();
            if call.outgoing.send(Ok(message)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = ask => {}
        () = answer => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_when_they_are_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let secrets = [("file", SecretSource::File(path.clone())), ("home", SecretSource::Variable("PATH".into()))];
        let secrets = secrets.map(|(name, source)| (name.to_owned(), source)).into();
        let offers = Arc::new(Offers { secrets, ..Offers::default() });
        let answers = Answers {
            offers,
            pack: |_| Ok(Box::new(io::empty())),
            directory: Arc::default(),
            outputs: Outputs::default(),
        };
        assert_eq!(answers.secret("file").unwrap_err().code, Code::Unknown as i32);
        std::fs::write(&path, "said").unwrap();
        assert_eq!(answers.secret("file").unwrap(), b"said");
        assert_eq!(answers.secret("home").unwrap(), std::env::var("PATH").unwrap().into_bytes());
        assert_eq!(answers.secret("other").unwrap_err().code, Code::NotFound as i32);
        assert_eq!(answers.agent("").unwrap_err().message, "unset ssh forward key default");
    }
}
