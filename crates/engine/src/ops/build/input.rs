//! What is built from.

use std::fmt;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;

use engine_api::auth::AuthConfig;

use super::asks::{Answer, AskError};
use super::graph::Needed;
use super::kept_context::{ContextFiles, ContextName};
use super::receive::{self, Context, ContextError};
use super::remote_context::RemoteFiles;
use crate::Engine;

/// What is built from.
#[derive(Debug)]
pub enum Input {
    /// An archive of the context, which the Dockerfile is in.
    Archive(Archive),
    /// A Dockerfile, and a directory of the client's that is sent in part; as with an archive lines are told.
    Directory(Directory),
    /// A Dockerfile, and files when they are needed.
    Local(Local),
    /// The address of a repository, of an archive or of a Dockerfile.
    Remote(String),
}

/// A directory of a client's, and the Dockerfile of it.
pub struct Directory {
    /// The Dockerfile's name.
    pub name: String,
    /// What is in it.
    pub text: Vec<u8>,
    /// Who has the files, but for those that are left out.
    pub files: SentFiles,
}

/// An archive on its way.
pub struct Archive(pub(super) Box<dyn Read + Send>);

/// Gives the archive of the files that are needed: an empty one where none are, and of what is there what has changed. Asked
/// once.
pub type ContextSource = Box<dyn FnOnce(Needed, Option<Arc<ContextFiles>>) -> Box<dyn Read + Send> + Send + Sync>;

/// Files of the client's.
pub struct SentFiles {
    /// Which directory they are, where the client says something of that.
    pub name: Option<ContextName>,
    /// Who sends them.
    pub source: ContextSource,
}

/// Gives the user's login at a registry, if there is one.
pub type AskLogin = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = Option<AuthConfig>> + Send>> + Send + Sync>;

/// Gives what leaves files of a context out. Asked once.
pub type AskIgnore = Box<dyn FnOnce() -> Answer<Result<Vec<u8>, AskError>> + Send>;

/// A Dockerfile, and who has the rest.
pub struct Local {
    /// The Dockerfile's name.
    pub name: String,
    /// What is in it.
    pub text: Vec<u8>,
    /// Who knows what leaves files of the context out; asked when all images have come.
    pub ignore: AskIgnore,
    /// Who has the files.
    pub context: LocalFiles,
    /// Who knows logins.
    pub login: AskLogin,
}

/// Who has the files of a [`Local`].
pub enum LocalFiles {
    /// The client, who sends them when it is known which ones are needed.
    Sent(SentFiles),
    /// We, who have fetched them.
    Fetched(RemoteFiles),
}

impl LocalFiles {
    /// A context of a Dockerfile, and who sends what is not in it yet. Blocks.
    pub(super) fn open(self, engine: &Engine, name: &str, text: &[u8]) -> Result<(Context, SentFiles), ContextError> {
        match self {
            LocalFiles::Sent(files) => Ok((receive::of_text(engine, name, text)?, files)),
            LocalFiles::Fetched(files) => {
                let source: ContextSource = Box::new(|_, _| Box::new(io::empty()));
                let nothing = SentFiles { name: None, source };
                Ok((receive::of_text_in(files.place, name, text)?, nothing))
            }
        }
    }
}

impl Input {
    /// An archive.
    pub fn archive(archive: impl Read + Send + 'static) -> Input {
        Input::Archive(Archive(Box::new(archive)))
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Archive")
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("name", &self.name).finish_non_exhaustive()
    }
}
