//! `/longshore/registry/...`: documents of registries as they are, read and written for a client that puts lists of images
//! together. What Docker's client does with registries itself ours has us do (docs/adr/0007).

use std::sync::Arc;

use engine_api::auth::AuthConfig;
use engine_api::manifest::{BlobMounted, ManifestPlatform, ManifestStored, RegistryManifest};
use errdefs::ErrorKind;
use oci::{Digest, DigestError, Reference, ReferenceError};
use registry_client::{Registry, RegistryError, Session, Stored};

use crate::Engine;
use crate::config::RegistriesConfig;
use crate::ops::login::credentials;
use crate::ops::push::unlisted_warning;
use crate::pulls;

/// Which document of which registry, and who asks.
#[derive(Clone, Debug, Default)]
pub struct ManifestQuery {
    /// With its registry, and a tag or a digest.
    pub name: String,
    /// Whether the registry needs no good certificate, nor TLS.
    pub insecure: bool,
    /// The header `X-Registry-Auth`, which may be empty.
    pub authorization: String,
}

/// Why a document is not read or written. The texts are those of Docker's client.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The name is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The digest is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The registry does not have it, or not for us, or is not to be asked without TLS.
    #[error("no such manifest: {0}")]
    Absent(Reference),
    /// The registry is not reached.
    #[error("failed to configure transport: error pinging v2 registry")]
    Greet(#[source] RegistryError),
    /// The registry answers something else.
    #[error(transparent)]
    Registry(RegistryError),
    /// It says that it is text, and is not.
    #[error("the manifest of {0} is no text")]
    Text(Reference),
    /// The configuration is none of an image.
    #[error("decode the configuration of {name}")]
    Config {
        /// Whose.
        name: Reference,
        /// Why.
        source: serde_json::Error,
    },
    /// The registry does not take it.
    #[error("failed to put manifest {name}")]
    Put {
        /// Under which name.
        name: Reference,
        /// Why.
        source: RegistryError,
    },
    /// The registry does not take it from the other repository.
    #[error("failed to mount blob {from}@{digest} to {name}")]
    Mount {
        /// From where.
        from: String,
        /// What.
        digest: Digest,
        /// To where.
        name: Reference,
        /// Why.
        source: RegistryError,
    },
}

impl ManifestError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ManifestError::Reference(_) | ManifestError::Digest(_) => ErrorKind::InvalidArgument,
            ManifestError::Absent(_) => ErrorKind::NotFound,
            ManifestError::Text(_) | ManifestError::Config { .. } => ErrorKind::Internal,
            ManifestError::Greet(err) | ManifestError::Registry(err) => err.kind(),
            ManifestError::Put { source, .. } | ManifestError::Mount { source, .. } => source.kind(),
        }
    }
}

/// Reads what a name means: a manifest with what its image is for, or an index.
pub async fn read(engine: &Engine, query: &ManifestQuery) -> Result<RegistryManifest, ManifestError> {
    let name = query.name.parse::<Reference>()?.with_default_tag();
    let registries = registries(engine, &name, query.insecure);
    // Docker's client reads without TLS only if it is told to, also from this machine.
    let session = match registries.protected_session(&name, who(query)).await {
        Err(err) if err.is_plain_http() && !query.insecure => return Err(ManifestError::Absent(name)),
        Err(err) if err.is_plain_http() => registries.session(&name, who(query)).await,
        session => session,
    };
    let session = session.map_err(ManifestError::Greet)?;
    let found = session.raw_manifest(&name).await.map_err(|err| match is_absent(&err) {
        true => ManifestError::Absent(name.clone()),
        false => ManifestError::Registry(err),
    })?;
    let platform = found.config.map(|config| serde_json::from_slice::<ManifestPlatform>(&config)).transpose();
    Ok(RegistryManifest {
        media_type: found.descriptor.media_type,
        digest: found.descriptor.digest.to_string(),
        raw: String::from_utf8(found.bytes).map_err(|_| ManifestError::Text(name.clone()))?,
        platform: platform.map_err(|source| ManifestError::Config { name, source })?,
    })
}

/// Gives a name to a document of that type.
pub async fn write(
    engine: &Engine,
    query: &ManifestQuery,
    media_type: &str,
    document: &[u8],
) -> Result<ManifestStored, ManifestError> {
    let name = query.name.parse::<Reference>()?.with_default_tag();
    let session = push_session(engine, &name, query).await?;
    // As Docker's client: with both it is the tag that is given.
    let digest = name.digest().map(ToString::to_string);
    let tag = name.tag().map(str::to_owned).or(digest).unwrap_or_default();
    let stored = session.put_manifest(&tag, media_type, document).await;
    let Stored { digest, unlisted } = stored.map_err(|source| ManifestError::Put { name, source })?;
    let warning = unlisted.map(|err| unlisted_warning(&digest, &err)).unwrap_or_default();
    Ok(ManifestStored { digest: digest.to_string(), warning })
}

/// Has the registry take a blob from another of its repositories.
pub async fn mount(
    engine: &Engine,
    query: &ManifestQuery,
    from: &str,
    digest: &str,
) -> Result<BlobMounted, ManifestError> {
    let name = query.name.parse::<Reference>()?.with_default_tag();
    let (source, digest): (Reference, Digest) = (format!("{}/{from}", name.domain()).parse()?, digest.parse()?);
    let session = push_session(engine, &name, query).await?;
    let mounted = registry_client::mount(&session, &digest, &source).await;
    let from = from.to_owned();
    Ok(BlobMounted { mounted: mounted.map_err(|source| ManifestError::Mount { from, digest, name, source })? })
}

async fn push_session(engine: &Engine, name: &Reference, query: &ManifestQuery) -> Result<Arc<Session>, ManifestError> {
    let registries = registries(engine, name, query.insecure);
    registries.push_session(name, who(query)).await.map_err(ManifestError::Greet)
}

fn who(query: &ManifestQuery) -> registry_client::Credentials {
    AuthConfig::from_header(&query.authorization).map(credentials).unwrap_or_default()
}

/// Registries as they are reached now; one that needs no TLS by the client's word is such for this call alone.
fn registries(engine: &Engine, name: &Reference, insecure: bool) -> Arc<Registry> {
    if !insecure {
        return engine.current.registries();
    }
    let settings = engine.current.settings();
    let mut config: RegistriesConfig = settings.registries.clone();
    config.insecure.push(name.domain().to_owned());
    engine.current.registries().changed(pulls::settings(&config))
}

/// What Docker's client takes for a registry that does not have it (docker/cli registry/client/fetcher.go, `continueOnError`).
fn is_absent(err: &RegistryError) -> bool {
    match err {
        RegistryError::ManifestUnknown { .. } | RegistryError::NameUnknown { .. } => true,
        RegistryError::Refused { answer } => {
            ["UNAUTHORIZED", "MANIFEST_UNKNOWN", "NAME_UNKNOWN"].contains(&answer.code.as_str())
        }
        RegistryError::Status { .. } => true,
        _ => false,
    }
}
