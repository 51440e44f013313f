//! Agents for builds: one that runs on this machine, or one of ours, which signs with keys of files and does nothing else
//! (draft-miller-ssh-agent).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::keys::{KeyError, Keyring, Wire, put};
use crate::transport::unix;

/// The longest message that is read, in bytes: OpenSSH's agent takes no longer one.
const MESSAGE_MAX: u32 = 256 << 10;

/// How much of a file of keys is read, in bytes: as much as buildx reads.
const FILE_MAX: u64 = 100 << 10;

/// What is asked, and what is answered (draft-miller-ssh-agent, 6.1).
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
const FAILURE: u8 = 5;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_RESPONSE: u8 = 14;

/// Who signs for a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agent {
    /// Who listens there.
    Socket(PathBuf),
    /// We.
    Keys(Keyring),
}

/// Why there is no agent. The sentences are buildx's.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file is not there.
    #[error("stat {}", path.display())]
    Stat {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("failed to read {0}: read {0}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be opened.
    #[error("failed to open {0}: open {0}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file has no key.
    #[error("failed to parse {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// Something stands behind a socket.
    #[error("only single socket allowed")]
    Sockets,
    /// A socket stands behind keys.
    #[error("invalid combination of keys and sockets")]
    Mixed,
}

impl Agent {
    /// A socket, or files of keys. Blocks.
    pub fn open(paths: &[PathBuf]) -> Result<Agent, AgentError> {
        let (mut socket, mut texts) = (None, Vec::new());
        for path in paths {
            if socket.is_some() {
                return Err(AgentError::Sockets);
            }
            let found = fs::metadata(path).map_err(|source| AgentError::Stat { path: path.clone(), source })?;
            if unix::is_socket(&found) {
                socket = Some(path.clone());
                continue;
            }
            let text = read(path)?;
            Keyring::of(std::slice::from_ref(&text))
                .map_err(|source| AgentError::Parse { path: path.clone(), source })?;
            texts.push(text);
        }
        match socket {
            Some(_) if !texts.is_empty() => Err(AgentError::Mixed),
            Some(socket) => Ok(Agent::Socket(socket)),
            None => {
                let path = paths.first().cloned().unwrap_or_default();
                Keyring::of(&texts).map(Agent::Keys).map_err(|source| AgentError::Parse { path, source })
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AgentError> {
    let file = File::open(path).map_err(|source| AgentError::Open { path: path.to_owned(), source })?;
    let mut text = Vec::new();
    let read = file.take(FILE_MAX).read_to_end(&mut text);
    read.map_err(|source| AgentError::Read { path: path.to_owned(), source })?;
    Ok(text)
}

/// Answers who asks, until he says nothing more, or nothing that an agent reads.
pub(super) async fn serve(keys: Keyring, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let length = match stream.read_u32().await {
            Ok(length @ 1..=MESSAGE_MAX) => length,
            Ok(_) => return Ok(()),
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(err) => return Err(err),
        };
        let mut question = vec![0; length as usize];
        stream.read_exact(&mut question).await?;
        let mut message = Vec::new();
        put(&mut message, &answer(&keys, &question).unwrap_or_else(|| vec![FAILURE]));
        stream.write_all(&message).await?;
    }
}

/// What is answered; `None` for what is refused.
fn answer(keys: &Keyring, question: &[u8]) -> Option<Vec<u8>> {
    let (kind, question) = question.split_first()?;
    let mut wire = Wire(question);
    match *kind {
        REQUEST_IDENTITIES => {
            let all: Vec<&[u8]> = keys.public().collect();
            let mut answer = vec![IDENTITIES_ANSWER];
            answer.extend((all.len() as u32).to_be_bytes());
            for public in all {
                put(&mut answer, public);
                // buildx' agent says nothing of them either.
                put(&mut answer, b"");
            }
            Some(answer)
        }
        SIGN_REQUEST => {
            let (public, data, flags) = (wire.text()?, wire.text()?, wire.number()?);
            let mut answer = vec![SIGN_RESPONSE];
            put(&mut answer, &keys.sign(public, data, flags)?);
            Some(answer)
        }
        // Nobody adds or removes keys.
        _ => None,
    }
}

#[cfg(test)]
mod tests;
