//! Contexts that the daemon fetches: a repository, an archive, or a Dockerfile alone.
//!
//! ```text
//! <data-root>/builds/<build>/web/0/tree      a repository, which then is the context
//!                                 /context   what else was fetched: unpacked, or read as a Dockerfile
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use bridge::Abandoned;
use dockerfile::{GitAddress, GitAddressError};
use registry_client::{WebAddress, WebError};

use super::asks::Client;
use super::client_files::ClientFileError;
use super::git::{GitError, Repository};
use super::git_access::Access;
use super::receive::{self, Context, ContextError, Place};
use super::remote;
use super::sources::{SourceError, is_url};
use super::tree::Tree;
use crate::Engine;

/// How much is looked at to see whether it is an archive: more than a header of tar.
const HEAD_BYTES: u64 = 1024;

/// What a Dockerfile alone is called by dockerd's own builder.
const DOCKERFILE: &str = "Dockerfile";

/// What BuildKit calls it (frontend/dockerui, context.go).
pub const ALONE: &str = "context";

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
    /// The client's agent cannot be had for it.
    #[error(transparent)]
    Agent(#[from] ClientFileError),
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
    /// What the client uploads does not come.
    #[error("receive the build context")]
    Upload(#[source] io::Error),
}

/// What has come.
pub struct FetchedContext {
    place: Place,
    /// Whether the files are in their place already.
    is_tree: bool,
}

/// The files of what has come, in their place.
pub struct RemoteFiles {
    pub(super) place: Place,
    /// Whether they are a Dockerfile alone, which then is called [`ALONE`].
    pub is_dockerfile: bool,
}

/// Of a repository's address what people may read, without a password; `None` of what is no repository.
pub fn shown_repository(url: &str) -> Option<String> {
    match GitAddress::parse_context(url) {
        Ok(None) => None,
        Ok(Some(address)) => Some(address.without_credentials(url)),
        // It is told why it is wrong where it is asked for.
        Err(_) => Some("with a wrong address".to_owned()),
    }
}

/// What clients say that a context is, as people may read it: of an address neither user nor password.
pub fn shown_context(text: &str) -> String {
    // What stands before the `@` of these is no user: what stands behind it is a digest.
    let is_reference = text.starts_with("docker-image:") || text.starts_with("oci-layout:");
    match GitAddress::parse_context(text) {
        Ok(Some(address)) => address.without_credentials(text),
        _ if is_reference || !text.contains("://") => text.to_owned(),
        _ => registry_client::without_password(text),
    }
}

/// Has a context come; of a repository its `.git`, too, where that is wanted here or by the address.
pub async fn fetch(
    engine: &Engine,
    url: &str,
    keep_git_dir: bool,
    client: &Client,
) -> Result<FetchedContext, RemoteContextError> {
    let repository = GitAddress::parse_context(url)?;
    if repository.is_none() && !is_url(url) {
        return Err(RemoteContextError::Address(url.to_owned()));
    }
    let place = new_place(engine).await?;
    let own = place.join(remote::WEB).join("0");
    let Some(address) = repository else {
        let address = WebAddress::parse(url)?;
        let failed = |source| RemoteContextError::Web { address: address.to_string(), source };
        let fetched = engine.current.registries().fetch(&address).await.map_err(|err| failed(err.into()))?;
        remote::receive(fetched, &address, &own, &own.join(ALONE), "").await.map_err(failed)?;
        return Ok(FetchedContext { place, is_tree: false });
    };
    let inside = own.join("tree").join(address.directory());
    let keep_git_dir = keep_git_dir || address.keep_git_dir.unwrap_or(false);
    let access = Access::obtain(engine, client, &address).await?;
    Repository { address, keep_git_dir, access, place: own }.look(true).await?;
    let context = place.join("context");
    let moved = bridge::blocking(move || {
        fs::remove_dir(&context)?;
        fs::rename(inside, context)
    });
    moved.await.map_err(RemoteContextError::Place)?;
    Ok(FetchedContext { place, is_tree: true })
}

/// Keeps an archive that a client uploads as what has come.
pub async fn keep(engine: &Engine, archive: impl Read + Send + 'static) -> Result<FetchedContext, RemoteContextError> {
    let place = new_place(engine).await?;
    let own = place.join(remote::WEB).join("0");
    let kept = bridge::waiting(move || {
        fs::create_dir_all(&own)?;
        let mut file = File::create_new(own.join(ALONE))?;
        let count = io::copy(&mut archive.take(remote::BYTES_MAX + 1), &mut file)?;
        if count > remote::BYTES_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
    });
    kept.await.map_err(RemoteContextError::Upload)?;
    Ok(FetchedContext { place, is_tree: false })
}

async fn new_place(engine: &Engine) -> Result<Place, RemoteContextError> {
    let engine = engine.clone();
    bridge::blocking(move || Place::new(&engine)).await.map_err(RemoteContextError::Place)
}

impl FetchedContext {
    /// Reads its Dockerfile, by its name if it is not alone, as long as somebody waits for it. Blocks.
    pub(super) fn open(self, name: &str, abandoned: &Abandoned) -> Result<Context, ContextError> {
        if self.is_tree || self.unpack_archive(abandoned)? {
            return receive::in_place(self.place, name);
        }
        let mut text = Vec::new();
        self.fetched()?.take(receive::TEXT_MAX + 1).read_to_end(&mut text).map_err(ContextError::Read)?;
        if text.len() as u64 > receive::TEXT_MAX {
            return Err(ContextError::Read(io::ErrorKind::FileTooLarge.into()));
        }
        receive::of_text_in(self.place, DOCKERFILE, &text)
    }

    /// Puts its files in their place; what is no archive is a file called [`ALONE`].
    pub async fn files(self) -> Result<RemoteFiles, ContextError> {
        bridge::abandonable(move |abandoned| {
            let is_dockerfile = !self.is_tree && !self.unpack_archive(abandoned)?;
            if is_dockerfile {
                let (from, to) = (self.path(), self.place.join("context").join(ALONE));
                fs::rename(from, to).map_err(ContextError::Place)?;
            }
            Ok(RemoteFiles { place: self.place, is_dockerfile })
        })
        .await
    }

    fn path(&self) -> PathBuf {
        self.place.join(remote::WEB).join("0").join(ALONE)
    }

    fn fetched(&self) -> Result<File, ContextError> {
        File::open(self.path()).map_err(ContextError::Read)
    }

    /// Unpacks what was fetched; answers whether it is an archive.
    fn unpack_archive(&self, abandoned: &Abandoned) -> Result<bool, ContextError> {
        let mut head = Vec::new();
        // What cannot be inflated is told as the Dockerfile that it is not.
        let is_archive = match layer::decompress(self.fetched()?) {
            Ok((_, plain)) => plain.take(HEAD_BYTES).read_to_end(&mut head).is_ok() && archive::looks_like_tar(&head),
            Err(_) => false,
        };
        if is_archive {
            receive::unpack_file(&self.place, &self.fetched()?, abandoned)?;
        }
        Ok(is_archive)
    }
}

impl RemoteFiles {
    /// What is in a file of them; `None` if there is none.
    pub async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, ContextError> {
        let (root, name) = (self.place.root()?, name.to_owned());
        let read = bridge::blocking(move || Tree::new(root)?.read(&name, receive::TEXT_MAX));
        read.await.map_err(ContextError::Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_shown_without_passwords() {
        for (text, wanted) in [
            ("https://me:secret@h/x.git#main", "https://xxxxx:xxxxx@h/x.git#main"),
            ("https://token@h/x.git", "https://xxxxx@h/x.git"),
            ("http://me:secret@h/file", "http://xxxxx:xxxxx@h/file"),
            ("https://me:secret@h/x.git?wrong=1", "https://xxxxx:xxxxx@h/x.git?wrong=1"),
            // Neither a name of a user of ssh nor a digest is a secret.
            ("git@github.com:x/y.git", "git@github.com:x/y.git"),
            ("ssh://git@h/x.git", "ssh://git@h/x.git"),
            ("docker-image://alpine@sha256:00", "docker-image://alpine@sha256:00"),
            ("oci-layout://store@sha256:00", "oci-layout://store@sha256:00"),
            ("local:name", "local:name"),
            ("", ""),
        ] {
            assert_eq!(shown_context(text), wanted, "{text}");
        }
    }
}
