//! Which images may come in, as the administrator's policy says: asked before a configuration or a layer is fetched.
//!
//! It is about what comes, not about what is here: images that were pulled before, that are built, imported or committed are
//! not looked at.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use errdefs::ErrorKind;
use oci::Reference;
use registry_client::{RegistryError, Resolved, Session, Signed};
use trust::{Policy, PolicyError, Requirements, Signature, TrustError};

use crate::Engine;

/// The policy, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustConfig {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub policy: Policy,
}

/// Why a policy does not count.
#[derive(Debug, thiserror::Error)]
pub enum TrustConfigError {
    /// The file cannot be read.
    #[error("read the trust policy {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not say what a policy says.
    #[error("trust policy {}", path.display())]
    Policy {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: PolicyError,
    },
}

impl TrustConfigError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

impl TrustConfig {
    /// Reads a policy and the keys that it names. Blocks.
    pub fn load(path: &Path) -> Result<TrustConfig, TrustConfigError> {
        let text = std::fs::read(path).map_err(|source| TrustConfigError::Read { path: path.to_owned(), source })?;
        let policy = Policy::parse(&text, &|key| std::fs::read(key));
        let policy = policy.map_err(|source| TrustConfigError::Policy { path: path.to_owned(), source })?;
        Ok(TrustConfig { path: path.to_owned(), policy })
    }
}

/// Why an image may not come in.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The policy says no.
    #[error("{what} is refused by {}", policy.display())]
    Refused {
        /// The image, or the archive.
        what: String,
        /// The policy's file.
        policy: PathBuf,
        /// Why.
        source: Box<TrustError>,
    },
    /// The registry does not give the signatures that are asked for.
    #[error("get the signatures of {what}")]
    Signatures {
        /// Of which image.
        what: String,
        /// Why.
        source: Box<RegistryError>,
    },
}

impl AdmissionError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            AdmissionError::Refused { source, .. } => source.kind(),
            AdmissionError::Signatures { source, .. } => source.kind(),
        }
    }
}

/// Lets an image of a registry in, or not. Signatures of what the name means count, be it an index, and those of the image in
/// it: an index that is signed says which images are meant.
pub(crate) async fn image(
    engine: &Engine,
    session: &Arc<Session>,
    name: &Reference,
    resolved: &Resolved,
) -> Result<(), AdmissionError> {
    let settings = engine.current.settings();
    let Some(trust) = &settings.trust else { return Ok(()) };
    let requirements = trust.policy.of_registry(name);
    let (what, policy) = (name.familiar(), trust.path.clone());
    let refused = |source: TrustError| AdmissionError::Refused { what, policy, source: source.into() };
    if !requirements.wants_signatures() {
        return requirements.check(name, &resolved.digest, &[]).map_err(refused);
    }
    let first = signed(&requirements, session, name, &resolved.digest).await?;
    let own = &resolved.descriptor.digest;
    match first {
        Err(_) if *own != resolved.digest => signed(&requirements, session, name, own).await?.or(first),
        _ => first,
    }
    .map_err(refused)
}

async fn signed(
    requirements: &Requirements<'_>,
    session: &Arc<Session>,
    name: &Reference,
    digest: &oci::Digest,
) -> Result<Result<(), TrustError>, AdmissionError> {
    let mut check = requirements.begin(name, digest);
    let add = |one: Signed| check.add(&Signature { payload: one.payload, signature: one.signature });
    let failed = |source: RegistryError| AdmissionError::Signatures { what: name.familiar(), source: source.into() };
    session.signatures(digest, add).await.map_err(failed)?;
    Ok(check.end())
}

/// Lets an archive in, or not. It has no signatures.
pub(crate) fn archive(engine: &Engine) -> Result<(), AdmissionError> {
    let settings = engine.current.settings();
    let Some(trust) = &settings.trust else { return Ok(()) };
    trust.policy.of_archive().check_archive().map_err(|source| AdmissionError::Refused {
        what: "an archive of images".to_owned(),
        policy: trust.path.clone(),
        source: source.into(),
    })
}
