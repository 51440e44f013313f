//! Contexts that the daemon fetches: a repository, an archive, or a Dockerfile alone.
//!
//! ```text
//! <data-root>/builds/<build>/web/0/tree      a repository, which then is the context
//!                                 /context   what else was fetched: unpacked, or read as a Dockerfile
//! ```

use std::fs::{self, File};
use std::io::{self, Read};

use dockerfile::{GitAddress, GitAddressError};
use registry_client::{WebAddress, WebError};

use super::git::{GitError, Repository};
use super::receive::{self, Context, ContextError, Place};
use super::remote;
use super::sources::{SourceError, is_url};
use crate::Engine;

/// How much is looked at to see whether it is an archive: more than a header of tar.
const HEAD_BYTES: u64 = 1024;

/// What a Dockerfile alone is called.
const DOCKERFILE: &str = "Dockerfile";

/// Why a context does not come. The sentences are dockerd's where it has one.
#[derive(Debug, thiserror::Error)]
pub enum RemoteContextError {
    /// It is no address.
    #[error("remoteURL ({0}) could not be recognized as URL")]
    Address(String),
    /// The address of a repository is wrong.
    #[error(transparent)]
    GitAddress(#[from] GitAddressError),
    /// The repository does not come.
    #[error(transparent)]
    Git(#[from] GitError),
    /// Nothing else comes.
    #[error("error downloading remote context {address}")]
    Web {
        /// The address, without a password.
        address: String,
        /// Why.
        source: SourceError,
    },
    /// It is no address of the web.
    #[error(transparent)]
    WebAddress(#[from] WebError),
    /// It cannot be put in its place.
    #[error("make a place for the build context")]
    Place(#[source] io::Error),
}

/// What has come.
pub(super) struct FetchedContext {
    place: Place,
    /// Whether the files are in their place already.
    is_tree: bool,
}

/// Has a context come.
pub(super) async fn fetch(engine: &Engine, url: &str) -> Result<FetchedContext, RemoteContextError> {
    let task = engine.clone();
    let make = move || Place::new(&task);
    let repository = GitAddress::parse_context(url)?;
    if repository.is_none() && !is_url(url) {
        return Err(RemoteContextError::Address(url.to_owned()));
    }
    let place = bridge::blocking(make).await.map_err(RemoteContextError::Place)?;
    let own = place.join(remote::WEB).join("0");
    let Some(address) = repository else {
        let address = WebAddress::parse(url)?;
        let failed = |source| RemoteContextError::Web { address: address.to_string(), source };
        let fetched = engine.current.registries().fetch(&address).await.map_err(|err| failed(err.into()))?;
        remote::receive(fetched, &address, &own, &own.join("context"), "").await.map_err(failed)?;
        return Ok(FetchedContext { place, is_tree: false });
    };
    let inside = own.join("tree").join(address.directory());
    let keep_git_dir = address.keep_git_dir.unwrap_or(false);
    Repository { address, keep_git_dir, place: own }.look(true).await?;
    let context = place.join("context");
    let moved = bridge::blocking(move || {
        fs::remove_dir(&context)?;
        fs::rename(inside, context)
    });
    moved.await.map_err(RemoteContextError::Place)?;
    Ok(FetchedContext { place, is_tree: true })
}

impl FetchedContext {
    /// Reads its Dockerfile, by its name if it is not alone. Blocks.
    pub(super) fn open(self, name: &str) -> Result<Context, ContextError> {
        if self.is_tree {
            return receive::in_place(self.place, name);
        }
        let path = self.place.join(remote::WEB).join("0/context");
        let open = || File::open(&path).map_err(ContextError::Read);
        let mut head = Vec::new();
        // What cannot be inflated is told as the Dockerfile that it is not.
        let is_archive = match layer::decompress(open()?) {
            Ok((_, plain)) => plain.take(HEAD_BYTES).read_to_end(&mut head).is_ok() && archive::looks_like_tar(&head),
            Err(_) => false,
        };
        if is_archive {
            receive::unpack_in(&self.place, open()?)?;
            return receive::in_place(self.place, name);
        }
        let mut text = Vec::new();
        open()?.take(receive::TEXT_MAX + 1).read_to_end(&mut text).map_err(ContextError::Read)?;
        if text.len() as u64 > receive::TEXT_MAX {
            return Err(ContextError::Read(io::ErrorKind::FileTooLarge.into()));
        }
        receive::of_text_in(self.place, DOCKERFILE, &text)
    }
}
