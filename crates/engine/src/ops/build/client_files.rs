//! What a command gets of the client's: secrets as files in memory or as variables, agents as sockets.
//!
//! ```text
//! <exec-root>/build-secrets-<random>/secret-0      a tmpfs, else below /dev/shm
//!                                    agent-1       whoever connects is carried to the client's agent
//! ```
//! The directory is root's alone, and goes with the command; what a kill leaves goes at the daemon's next start. Nothing of
//! it is ever in a layer or on a record: a variable is given to the start alone.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use builder::mounts::{Mounted, Owner, RunMount};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tracing::debug;

use super::asks::{AskError, Asks, Client};
use super::mounts::{PreparedMounts, bound, give};
use crate::Engine;
use crate::config::EngineConfig;

/// The longest secret, in bytes: BuildKit's (session/secrets/secretsprovider, MaxSecretSize).
const SECRET_MAX: usize = 500 * 1024;

/// What names of such directories begin with.
const PREFIX: &str = "build-secrets-";

/// How many connections to agents a command may have at a time. Each takes a descriptor of the daemon, which all clients
/// share; ssh needs one, and a build tool that fetches from many repositories one for each that it fetches from.
const CONNECTIONS_MAX: usize = 64;

/// How long nothing is accepted where that has failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Memory that every system has (Filesystem Hierarchy Standard's supplement for Linux).
const SHARED_MEMORY: &str = "/dev/shm";

/// The number of tmpfs (statfs(2)).
const TMPFS: i64 = 0x0102_1994;

/// Why a command does not get what it needs of the client.
#[derive(Debug, thiserror::Error)]
pub enum ClientFileError {
    /// There is no such secret. BuildKit's sentence.
    #[error("secret {0}: not found")]
    NoSecret(String),
    /// There is no such agent. BuildKit's sentence.
    #[error("no SSH key {0:?} forwarded from the client")]
    NoAgent(String),
    /// The client says that there is no such agent.
    #[error(transparent)]
    Agent(AskError),
    /// The client does not answer.
    #[error("ask for the secret {id}")]
    Ask {
        /// Its name.
        id: String,
        /// Why.
        source: AskError,
    },
    /// It is too long. BuildKit's sentence.
    #[error("invalid secret size {0}")]
    TooLong(usize),
    /// It can be no variable.
    #[error("the secret {0} is no text, which a variable has to be")]
    NoText(String),
    /// There is no place for it.
    #[error("{what}")]
    Place {
        /// What was being done.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// There is no memory that files can be in.
    #[error("neither {} nor {SHARED_MEMORY} is a tmpfs: a secret would be on a disk", .0.display())]
    NoMemory(PathBuf),
}

/// A secret that a command has.
#[derive(Clone)]
pub(super) struct Secret {
    pub(super) id: String,
    pub(super) value: Vec<u8>,
}

/// A place for what a command gets of the client's; gone when it is dropped.
pub(super) struct ClientFiles {
    directory: PathBuf,
    agents: Vec<JoinHandle<()>>,
    /// For how many connections there is room.
    room: Arc<Semaphore>,
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> ClientFileError {
    move |source| ClientFileError::Place { what, source }
}

/// Gets what a command needs of the client; what is not there and need not be is left out.
pub(super) async fn add(
    engine: &Engine,
    client: &Client,
    mounts: &[RunMount],
    ready: &mut PreparedMounts,
) -> Result<(), ClientFileError> {
    for (index, mount) in mounts.iter().enumerate() {
        match &mount.what {
            Mounted::Secret { id, env, required, owner } => match ask(client, id).await? {
                Some(value) => {
                    secret(engine, mount, (index, *owner), Secret { id: id.clone(), value }, env.as_deref(), ready)?;
                }
                None if *required => return Err(ClientFileError::NoSecret(id.clone())),
                // It is there all the same, also where the image has one.
                None => ready.unrecorded.env.extend(env.iter().map(|name| format!("{name}="))),
            },
            Mounted::Ssh { id, required, owner } => {
                let has_agent = match client {
                    Some(client) => client.has_agent(id.clone()).await,
                    None => Ok(false),
                };
                match has_agent {
                    Ok(true) => agent(engine, client, mount, (index, *owner), id, ready)?,
                    Ok(false) if *required => return Err(ClientFileError::NoAgent(id.clone())),
                    Err(err) if *required => return Err(ClientFileError::Agent(err)),
                    Ok(false) | Err(_) => {}
                }
            }
            Mounted::Bind(_) | Mounted::Cache { .. } | Mounted::Tmpfs(_) => {}
        }
    }
    Ok(())
}

/// A secret of the client's; `None` where there is none of that name.
pub(super) async fn ask(client: &Client, id: &str) -> Result<Option<Vec<u8>>, ClientFileError> {
    let Some(client) = client else { return Ok(None) };
    let value = client.secret(id.to_owned()).await;
    let value = value.map_err(|source| ClientFileError::Ask { id: id.to_owned(), source })?;
    match value {
        Some(value) if value.len() > SECRET_MAX => Err(ClientFileError::TooLong(value.len())),
        value => Ok(value),
    }
}

fn secret(
    engine: &Engine,
    mount: &RunMount,
    (index, owner): (usize, Owner),
    secret: Secret,
    env: Option<&str>,
    ready: &mut PreparedMounts,
) -> Result<(), ClientFileError> {
    if let Some(name) = env {
        let text = String::from_utf8(secret.value.clone()).ok().filter(|text| !text.contains('\0'));
        let text = text.ok_or_else(|| ClientFileError::NoText(secret.id.clone()))?;
        ready.unrecorded.env.push(format!("{name}={text}"));
    }
    if !mount.target.is_empty() {
        let path = ready.kept(engine)?.directory.join(format!("secret-{index}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path);
        let written = file.and_then(|mut file| file.write_all(&secret.value));
        written.and_then(|()| give(&path, (owner.uid, owner.gid, owner.mode))).map_err(failed("write a secret"))?;
        let mut made = bound(&path, true);
        // Whoever gives a build its secrets would else give its commands the rights of any user.
        made.options.extend(["nosuid", "nodev"].map(str::to_owned));
        ready.add(mount, made, false);
    }
    ready.secrets.push(secret);
    Ok(())
}

fn agent(
    engine: &Engine,
    client: &Client,
    mount: &RunMount,
    (index, owner): (usize, Owner),
    id: &str,
    ready: &mut PreparedMounts,
) -> Result<(), ClientFileError> {
    let Some(client) = client.clone() else { return Ok(()) };
    let path = ready.kept(engine)?.agent(&client, id, &format!("agent-{index}"), owner)?;
    ready.add(mount, bound(&path, false), false);
    Ok(())
}

impl ClientFiles {
    pub(super) fn new(config: &EngineConfig) -> Result<ClientFiles, ClientFileError> {
        let name = format!("{PREFIX}{}", stdx::id::random_hex::<16>());
        let directory = match () {
            () if is_memory(&config.exec_root) => config.exec_root.join(name),
            // Everybody may write there: of what we make nobody else has the name.
            () if is_memory(Path::new(SHARED_MEMORY)) => PathBuf::from(format!("{}{name}", shared(config).display())),
            () => return Err(ClientFileError::NoMemory(config.exec_root.clone())),
        };
        DirBuilder::new().mode(0o700).create(&directory).map_err(failed("make a place for secrets"))?;
        Ok(ClientFiles { directory, agents: Vec::new(), room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) })
    }

    /// Makes a socket that leads to a client's agent; answers where it is.
    pub(super) fn agent(
        &mut self,
        client: &Arc<dyn Asks>,
        id: &str,
        name: &str,
        owner: Owner,
    ) -> Result<PathBuf, ClientFileError> {
        let path = self.directory.join(name);
        let listener = UnixListener::bind(&path).map_err(failed("listen for an agent"))?;
        give(&path, (owner.uid, owner.gid, owner.mode)).map_err(failed("give an agent's socket away"))?;
        self.agents.push(tokio::spawn(carry(listener, self.room.clone(), client.clone(), id.to_owned())));
        Ok(path)
    }
}

/// Carries connections to a client's agent, as many at a time as there is room for: others wait in the kernel until one has
/// ended, with no descriptor of ours.
async fn carry(listener: UnixListener, room: Arc<Semaphore>, client: Arc<dyn Asks>, id: String) {
    // With it whatever is being carried ends.
    let mut carried = JoinSet::new();
    loop {
        let one = async {
            let room = room.clone().acquire_owned().await.expect("nobody closes it");
            (room, listener.accept().await)
        };
        tokio::select! {
            (room, accepted) = one => match accepted {
                Ok((stream, _)) => {
                    let forwarded = client.forward(id.clone(), stream);
                    drop(carried.spawn(async move {
                        forwarded.await;
                        drop(room);
                    }));
                }
                Err(err) => {
                    // Whoever takes all descriptors gives some back, and the connection still waits (accept(2), EMFILE).
                    debug!(%err, "an agent's socket accepts nothing for now");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            },
            Some(_) = carried.join_next() => {}
        }
    }
}

impl Drop for ClientFiles {
    fn drop(&mut self) {
        self.agents.iter().for_each(JoinHandle::abort);
        if let Err(err) = fs::remove_dir_all(&self.directory) {
            // The next start removes it.
            debug!(%err, "the place of a build's secrets stays behind");
        }
    }
}

/// What names in shared memory begin with.
fn shared(config: &EngineConfig) -> PathBuf {
    Path::new(SHARED_MEMORY).join(format!("longshore-{}-", config.instance_key))
}

fn is_memory(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == TMPFS)
}

/// Removes what an earlier daemon left. Blocks.
pub(crate) fn discard_secrets(config: &EngineConfig) {
    let shared = shared(config);
    let own = shared.file_name().unwrap_or_default().to_string_lossy().into_owned() + PREFIX;
    for (directory, prefix) in [(config.exec_root.as_path(), PREFIX), (Path::new(SHARED_MEMORY), &own)] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let is_ours = || entry.metadata().is_ok_and(|found| found.uid() == rustix::process::geteuid().as_raw());
            if entry.file_name().to_string_lossy().starts_with(prefix)
                && is_ours()
                && let Err(err) = fs::remove_dir_all(entry.path())
            {
                debug!(%err, "what an earlier build knew stays behind");
            }
        }
    }
}

#[cfg(test)]
mod tests;
