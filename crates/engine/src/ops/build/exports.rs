//! What steps came to, left for others in a registry or in a directory of the client's (`builder::shared`).

use std::io::{self, Cursor};
use std::sync::Arc;

use builder::cache::Key;
use builder::shared::{DOCUMENT_TYPE, SharedCache, SharedMount, SharedStage, SharedStep};
use content::ReadError;
use image::ImageRecord;
use oci::image::Descriptor;
use oci::{Digest, Reference, ReferenceError};
use registry_client::{RegistryError, Session, Upload};

use super::asks::{AskError, Asks, Client};
use super::cache_options::{CachePlace, CacheTo};
use super::carried::{self, CarryError, Noted, Packed};
use super::client_files::{self, ClientFileError, Secret};
use super::lines::Lines;
use super::lookup::Lookup;
use super::receive::Place;
use super::{BuildLine, PartEvent};
use crate::Engine;
use crate::ops::login::credentials;
use crate::ops::push::{self, PushError};

/// The longest document that those who read it take: as long as a configuration may be.
pub(super) const DOCUMENT_MAX: usize = 4 * 1024 * 1024;

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
    /// Nobody has such a directory.
    #[error("a directory of the client's needs a session")]
    NoClient,
    /// The client does not take it.
    #[error(transparent)]
    Client(#[from] AskError),
    /// What commands keep cannot go.
    #[error(transparent)]
    Carry(#[from] CarryError),
    /// The client does not say what must not go.
    #[error(transparent)]
    Secret(#[from] ClientFileError),
    /// A layer cannot be read.
    #[error("read a layer")]
    Layer(#[source] io::Error),
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

/// Whom a build is for, and what knows its logins.
#[derive(Clone, Copy)]
pub(super) struct For<'a> {
    pub(super) engine: &'a Engine,
    pub(super) lookup: &'a Lookup,
    pub(super) client: &'a Client,
    pub(super) lines: &'a Lines,
}

/// What may be left.
pub(super) struct Goods<'a> {
    /// What the steps of stages came to, of which the last one is the target.
    pub(super) stages: &'a [Vec<Done>],
    /// What commands keep.
    pub(super) kept: &'a Noted,
    /// A place of the build's for files.
    pub(super) place: &'a Place,
}

/// Leaves it where it is wanted what a build came to.
pub(super) async fn leave(whom: For<'_>, to: &[CacheTo], goods: &Goods<'_>) -> Result<(), ExportError> {
    let lines = whom.lines;
    for to in to {
        let name = match &to.place {
            CachePlace::Registry(name) => format!("exporting cache to registry {name}"),
            CachePlace::Local(_) => "exporting cache to client directory".to_owned(),
        };
        lines.begin(name, None).await;
        match leave_at(whom, to, goods).await {
            Ok(manifest) => {
                lines.text(format!("Left the cache at {} ({})\n", to.place, manifest.digest)).await;
                if let CachePlace::Local(directory) = &to.place {
                    lines.tell(BuildLine::CacheLeft { directory: directory.clone(), manifest }).await;
                }
            }
            Err(err) if to.ignore_error => {
                let told = format!("the cache was not left at {}: {}\n", to.place, errdefs::chain(&err));
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

async fn leave_at(whom: For<'_>, to: &CacheTo, goods: &Goods<'_>) -> Result<Box<Descriptor>, ExportError> {
    let destination = Destination::open(whom, &to.place).await?;
    let mut cache = SharedCache::default();
    let first = if to.all_stages { 0 } else { goods.stages.len().saturating_sub(1) };
    for steps in &goods.stages[first..] {
        cache.stages.extend(stage(whom.engine, &destination, steps).await?);
    }
    cache.mounts = mounts(whom, to, goods, &destination).await?;
    let mut layers = Vec::new();
    let kept = cache.mounts.iter().map(|mount| &mount.layer);
    for layer in cache.stages.iter().flat_map(|stage| &stage.layers).chain(kept) {
        // What the manifest names is kept; once is enough.
        if !layers.contains(layer) {
            layers.push(layer.clone());
        }
    }
    let document = serde_json::to_vec(&cache).expect("texts and numbers are always JSON");
    if document.len() > DOCUMENT_MAX {
        return Err(ExportError::Long);
    }
    Ok(Box::new(destination.put(document, layers).await?))
}

/// What the steps of a stage came to, once their layers are there; nothing of a stage without steps.
async fn stage(engine: &Engine, destination: &Destination, steps: &[Done]) -> Result<Option<SharedStage>, ExportError> {
    let Some(last) = steps.last() else { return Ok(None) };
    let layers = destination.layers(engine, &last.image).await?;
    let mut shared = Vec::new();
    for step in steps {
        let image = engine.images.resolve(step.image.as_str())?;
        let config = config(engine, &image).await?;
        let layers = image.config.rootfs.diff_ids.len();
        shared.push(SharedStep { key: step.key.as_str().to_owned(), parent: step.parent.clone(), config, layers });
    }
    Ok(Some(SharedStage { layers, steps: shared }))
}

/// What commands keep, as far as that is wanted, once it is there; none of it knows a secret of the build's.
async fn mounts(
    whom: For<'_>,
    to: &CacheTo,
    goods: &Goods<'_>,
    destination: &Destination,
) -> Result<Vec<SharedMount>, ExportError> {
    let wishes = goods.kept.wanted(|id| to.mounts.has(id));
    if wishes.is_empty() {
        return Ok(Vec::new());
    }
    let mut secrets = Vec::new();
    for id in &goods.kept.secrets {
        let value = client_files::ask(whom.client, id).await?;
        secrets.extend(value.map(|value| Secret { id: id.clone(), value }));
    }
    let (secrets, mut shared) = (Arc::new(secrets), Vec::new());
    for wish in wishes {
        let path = goods.place.join(&format!("cache-{}", stdx::id::random_hex::<8>()));
        if let Some(packed) = carried::pack(whom.engine, wish, path, secrets.clone()).await? {
            shared.push(packed.shared());
            destination.file(packed).await?;
        }
    }
    Ok(shared)
}

async fn config(engine: &Engine, image: &ImageRecord) -> Result<String, ExportError> {
    let (engine, id) = (engine.clone(), image.id.clone());
    let bytes = bridge::blocking(move || engine.images.content().read(&id, DOCUMENT_MAX as u64)).await?;
    // What we write is UTF-8.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where a cache goes.
enum Destination {
    Registry { session: Arc<Session>, name: Reference, tag: String },
    Local { client: Arc<dyn Asks>, directory: String },
}

impl Destination {
    async fn open(whom: For<'_>, place: &CachePlace) -> Result<Destination, ExportError> {
        let name = match place {
            CachePlace::Local(directory) => {
                let client = whom.client.clone().ok_or(ExportError::NoClient)?;
                return Ok(Destination::Local { client, directory: directory.clone() });
            }
            CachePlace::Registry(name) => name.parse::<Reference>()?.with_default_tag(),
        };
        let Some(tag) = name.tag().filter(|_| name.digest().is_none()) else { return Err(ExportError::Digest) };
        let tag = tag.to_owned();
        let login = whom.lookup.login(name.domain()).await.map(credentials).unwrap_or_default();
        let session = whom.engine.current.registries().push_session(&name, login).await?;
        Ok(Destination::Registry { session, name, tag })
    }

    /// Brings the layers of an image there.
    async fn layers(&self, engine: &Engine, image: &Digest) -> Result<Vec<Descriptor>, ExportError> {
        let (client, directory) = match self {
            Destination::Registry { session, name, .. } => {
                return Ok(push::layers(engine, session, name, image).await?);
            }
            Destination::Local { client, directory } => (client, directory),
        };
        let mut given = Vec::new();
        for layer in push::open_layers(engine, image).await? {
            let blob = match layer.blob().cloned() {
                Some(blob) if client.has_blob(directory.clone(), blob.clone()).await? => blob,
                _ => client.put_blob(directory.clone(), layer.reader().map_err(ExportError::Layer)?).await?,
            };
            given.push(layer.given(engine, blob).await?);
        }
        Ok(given)
    }

    /// Brings what commands keep there.
    async fn file(&self, packed: Packed) -> Result<(), ExportError> {
        let blob = packed.blob.clone();
        match self {
            Destination::Registry { session, .. } => {
                let upload = Upload { blob: Some(blob), mounts: Vec::new(), source: Arc::new(packed) };
                session.upload(&upload, Arc::new(|_| {})).await?;
            }
            Destination::Local { client, directory } => {
                if !client.has_blob(directory.clone(), blob).await? {
                    client.put_blob(directory.clone(), Box::new(packed.reader())).await?;
                }
            }
        }
        Ok(())
    }

    /// Brings a document there, and what names it and layers that are there; answers what that is.
    async fn put(&self, document: Vec<u8>, layers: Vec<Descriptor>) -> Result<Descriptor, ExportError> {
        match self {
            Destination::Registry { session, tag, .. } => {
                Ok(push::put(session, tag, (DOCUMENT_TYPE, document), layers).await?)
            }
            Destination::Local { client, directory } => {
                let (manifest, bytes) = push::manifest_of(DOCUMENT_TYPE, &document, layers);
                for bytes in [document, bytes] {
                    client.put_blob(directory.clone(), Box::new(Cursor::new(bytes))).await?;
                }
                Ok(manifest)
            }
        }
    }
}
