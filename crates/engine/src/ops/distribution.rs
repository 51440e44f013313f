//! `GET /distribution/{name}/json`

use std::sync::Arc;

use engine_api::auth::AuthConfig;
use engine_api::image::DistributionInspect;
use errdefs::ErrorKind;
use oci::image::Descriptor;
use oci::{Reference, ReferenceError};
use registry_client::{Registry, RegistryError};
use tracing::info;

use crate::Engine;
use crate::ops::login::credentials;

/// Why it is not known what a name means in its registry. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum DistributionError {
    /// The name is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The registry does not have it, or not for us.
    #[error("{answer}")]
    Unknown {
        /// In its words.
        answer: String,
    },
    /// The registry does not answer, or with something else.
    #[error(transparent)]
    Registry(RegistryError),
}

impl DistributionError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            DistributionError::Reference(_) => ErrorKind::InvalidArgument,
            DistributionError::Unknown { .. } => ErrorKind::NotFound,
            DistributionError::Registry(err) => err.kind(),
        }
    }
}

impl From<RegistryError> for DistributionError {
    fn from(err: RegistryError) -> DistributionError {
        match err {
            // A pull says more about these.
            RegistryError::ManifestUnknown { answer, .. }
            | RegistryError::NameUnknown { answer, .. }
            | RegistryError::Denied { answer, .. } => DistributionError::Unknown { answer: answer.to_string() },
            err => DistributionError::Registry(err),
        }
    }
}

/// Asks its registry what an image's name means. `authorization` is the header `X-Registry-Auth`, which may be empty.
pub async fn inspect(
    engine: &Engine,
    name: &str,
    authorization: &str,
) -> Result<DistributionInspect, DistributionError> {
    let reference: Reference = name.parse()?;
    let credentials = AuthConfig::from_header(authorization).map(credentials).unwrap_or_default();
    let registries = engine.current.registries();
    let (descriptor, platforms) = match inspect_mirrored(&registries, &reference).await {
        Some(found) => found,
        None => registries.session(&reference, credentials).await?.inspect(&reference).await?,
    };
    Ok(DistributionInspect { descriptor, platforms: Some(platforms).filter(|platforms| !platforms.is_empty()) })
}

/// What the first mirror says that knows it.
async fn inspect_mirrored(
    registries: &Arc<Registry>,
    reference: &Reference,
) -> Option<(Descriptor, Vec<oci::image::Platform>)> {
    for mirror in registries.mirrors(reference) {
        let asking = async { registries.mirror_session(&mirror, reference).await?.inspect(reference).await };
        match asking.await {
            Ok(found) => return Some(found),
            Err(err) => info!(%mirror, "the next one is asked: {}", errdefs::chain(&err)),
        }
    }
    None
}
