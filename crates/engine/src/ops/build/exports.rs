//! What steps came to, left in a registry for others (`builder::shared`).

use std::sync::Arc;

use builder::cache::Key;
use builder::shared::{DOCUMENT_TYPE, SharedCache, SharedStage, SharedStep};
use content::ReadError;
use image::ImageRecord;
use oci::{Digest, Reference, ReferenceError};
use registry_client::{RegistryError, Session};

use super::PartEvent;
use super::cache_options::CacheTo;
use super::lines::Lines;
use super::lookup::Lookup;
use crate::Engine;
use crate::ops::login::credentials;
use crate::ops::push::{self, PushError};

/// The longest document that those who read it take: as long as a configuration may be.
const DOCUMENT_MAX: usize = 4 * 1024 * 1024;

/// What a step came to.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) key: Key,
    pub(super) parent: Option<Digest>,
    pub(super) image: Digest,
}

/// Why nothing is left there.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The name is none.
    #[error(transparent)]
    Name(#[from] ReferenceError),
    /// A cache has a tag.
    #[error("a cache cannot be written to a digest")]
    Digest,
    /// The registry does not take it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer does not get there.
    #[error(transparent)]
    Push(#[from] PushError),
    /// An image is not here any more.
    #[error(transparent)]
    Image(#[from] image::ResolveError),
    /// A configuration cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is too much to be said.
    #[error("the cache's document would have more than {DOCUMENT_MAX} bytes")]
    Long,
}

/// Leaves it where it is wanted what stages came to, of which the last one is the target.
pub(super) async fn leave(
    engine: &Engine,
    to: &[CacheTo],
    stages: &[Vec<Done>],
    lookup: &Lookup,
    lines: &Lines,
) -> Result<(), ExportError> {
    for to in to {
        lines.begin(format!("exporting cache to registry {}", to.name), None).await;
        let first = if to.all_stages { 0 } else { stages.len().saturating_sub(1) };
        match leave_at(engine, &to.name, &stages[first..], lookup).await {
            Ok(digest) => lines.text(format!("Left the cache at {} ({digest})\n", to.name)).await,
            Err(err) if to.ignore_error => {
                let told = format!("the cache was not left at {}: {}\n", to.name, errdefs::chain(&err));
                lines.part(PartEvent::Output { is_error: true, bytes: told.clone().into_bytes() }).await;
                lines.text(format!("[Warning] {told}")).await;
            }
            Err(err) => {
                lines.failed().await;
                return Err(err);
            }
        }
        lines.part(PartEvent::Ended).await;
    }
    Ok(())
}

async fn leave_at(engine: &Engine, name: &str, stages: &[Vec<Done>], lookup: &Lookup) -> Result<Digest, ExportError> {
    let name = name.parse::<Reference>()?.with_default_tag();
    let Some(tag) = name.tag().filter(|_| name.digest().is_none()) else { return Err(ExportError::Digest) };
    let login = lookup.login(name.domain()).await.map(credentials).unwrap_or_default();
    let session = engine.current.registries().push_session(&name, login).await?;
    let mut cache = SharedCache::default();
    for steps in stages {
        cache.stages.extend(stage(engine, &session, &name, steps).await?);
    }
    let mut layers = Vec::new();
    for layer in cache.stages.iter().flat_map(|stage| &stage.layers) {
        // The registry keeps what the manifest names; once is enough.
        if !layers.contains(layer) {
            layers.push(layer.clone());
        }
    }
    let document = serde_json::to_vec(&cache).expect("texts and numbers are always JSON");
    if document.len() > DOCUMENT_MAX {
        return Err(ExportError::Long);
    }
    Ok(push::put(&session, tag, (DOCUMENT_TYPE, document), layers).await?)
}

/// What the steps of a stage came to, once the registry has their layers; nothing of a stage without steps.
async fn stage(
    engine: &Engine,
    session: &Arc<Session>,
    name: &Reference,
    steps: &[Done],
) -> Result<Option<SharedStage>, ExportError> {
    let Some(last) = steps.last() else { return Ok(None) };
    let layers = push::layers(engine, session, name, &last.image).await?;
    let mut shared = Vec::new();
    for step in steps {
        let image = engine.images.resolve(step.image.as_str())?;
        let config = config(engine, &image).await?;
        let layers = image.config.rootfs.diff_ids.len();
        shared.push(SharedStep { key: step.key.as_str().to_owned(), parent: step.parent.clone(), config, layers });
    }
    Ok(Some(SharedStage { layers, steps: shared }))
}

async fn config(engine: &Engine, image: &ImageRecord) -> Result<String, ExportError> {
    let (engine, id) = (engine.clone(), image.id.clone());
    let bytes = bridge::blocking(move || engine.images.content().read(&id, DOCUMENT_MAX as u64)).await?;
    // What we write is UTF-8.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
