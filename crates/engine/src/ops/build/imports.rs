//! Steps that were done elsewhere: in a cache in a registry or in a directory of the client's, or in an image, here or there
//! (`builder::shared`).
//!
//! What a step came to is stored as if it had been pulled: the layers that are here stay, the one that is missing is fetched. It
//! is known from then on like one that was done here. Who may write to such a cache says what is in these layers, as with BuildKit;
//! what is said beside them is compared with what the step would say.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use builder::cache::Key;
use builder::shared::{self, DOCUMENT_TYPE, Place, SharedCache, SharedStep};
use content::Blob;
use engine_api::container::Config;
use image::{ImageRecord, Lasting, LoadError, PulledImage};
use oci::image::{Descriptor, History, ImageConfig, Index, Manifest, Platform, media_type};
use oci::{Digest, Reference};
use registry_client::{RegistryError, Session, Transfer, Wanted};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tracing::debug;

use super::asks::{AskError, Asks};
use super::cache_options::{CacheFrom, CacheSource};
use super::caches::Wish;
use super::carried::{self, Carried};
use super::exports::{DOCUMENT_MAX, For};
use super::{BuildOptions, PartEvent};
use crate::ops::commit;
use crate::ops::login::credentials;
use crate::ops::pull::PullError;
use crate::pulls::{Follower, Key as PullKey, News};
use crate::{AdmissionError, Engine, admission};

/// What a build may find elsewhere.
pub(super) struct Imports {
    engine: Engine,
    sources: Vec<Source>,
}

/// A step that is not known here.
pub(super) struct Sought<'a> {
    pub(super) key: &'a Key,
    /// What history will say of it, where that says all that it depends on.
    pub(super) words: Option<String>,
    pub(super) parent: Option<&'a ImageRecord>,
    pub(super) config: &'a Config,
    pub(super) platform: &'a Platform,
}

enum Source {
    /// Steps by their keys.
    Steps { cache: SharedCache, places: HashMap<String, Vec<Place>>, origin: Origin, from: CacheFrom },
    /// An image, and where its layers are if they are not here.
    Image { config: Arc<ImageConfig>, remote: Option<(Vec<Descriptor>, Origin)> },
}

/// Who has layers.
#[derive(Clone)]
pub(super) enum Origin {
    Registry(Arc<Session>),
    /// The client, in a directory.
    Local(Arc<dyn Asks>, String),
}

/// Why nothing is found there: told, and no failure of the build.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error(transparent)]
    Name(#[from] oci::ReferenceError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    #[error("what is there is no cache")]
    Format(#[from] serde_json::Error),
    #[error("a directory of the client's needs a session")]
    NoClient,
    #[error(transparent)]
    Client(#[from] AskError),
    #[error("{0} is not what it is called")]
    Digest(Digest),
    #[error("{0} is for no such platform")]
    NoMatch(Digest),
}

/// Why what a step came to elsewhere is not here: noted, and the step is done.
#[derive(Debug, thiserror::Error)]
enum BringError {
    #[error(transparent)]
    Compose(#[from] LoadError),
    #[error("fetch the layer of a step")]
    Pull(#[source] Arc<PullError>),
    #[error("take the layer of a step from the client")]
    Take(#[from] image::PullError),
}

/// What a step came to, and whence its layer comes.
struct Found {
    config: ImageConfig,
    /// The configuration's bytes, if these have come.
    bytes: Option<Vec<u8>>,
    remote: Option<(Vec<Descriptor>, Origin)>,
}

impl Imports {
    /// Looks at what is named; who cannot be reached has nothing.
    pub(super) async fn open(whom: For<'_>, options: &BuildOptions, platform: &Platform) -> Imports {
        let For { engine, lines, .. } = whom;
        let mut sources = Vec::new();
        // Nothing is looked for where all is done again.
        let wanted = if options.no_cache { &[][..] } else { &options.cache_from };
        for from in wanted {
            if let CacheSource::Any(name) = &from.source
                && let Ok(images) = image::resolve_all(&engine.images, name)
            {
                sources.extend(images.iter().map(|image| Source::Image { config: image.config.clone(), remote: None }));
                continue;
            }
            lines.begin(format!("importing cache manifest from {}", from.name()), None).await;
            match ask(whom, from, platform).await {
                Ok(source) => sources.push(source),
                Err(err) => {
                    let told = format!("{}: {}\n", from.name(), errdefs::chain(&err));
                    lines.part(PartEvent::Output { is_error: true, bytes: told.clone().into_bytes() }).await;
                    lines.text(format!("[Warning] cache-from: {told}")).await;
                }
            }
            lines.part(PartEvent::Ended).await;
        }
        Imports { engine: engine.clone(), sources }
    }

    /// What a step came to elsewhere, which is here then.
    pub(super) async fn find(&self, sought: &Sought<'_>) -> Option<Digest> {
        for source in &self.sources {
            let Some(found) = source.find(sought) else { continue };
            match self.bring(found, sought.parent).await {
                Ok(image) => return Some(image),
                // It is done here.
                Err(err) => {
                    let err = errdefs::chain(&err);
                    debug!(key = sought.key.as_str(), err, "a step of a shared cache does not come");
                }
            }
        }
        None
    }

    /// What somebody else has of a cache of commands.
    pub(super) fn carried(&self, wish: &Wish) -> Option<Carried> {
        self.sources.iter().find_map(|source| {
            let Source::Steps { cache, origin, from, .. } = source else { return None };
            if !from.mounts.has(wish.id()) {
                return None;
            }
            let key = carried::name(&wish.key);
            let layer = cache.mounts.iter().find(|mount| mount.key == key)?.layer.clone();
            let (cache, whose) = (wish.id().to_owned(), from.name().to_owned());
            Some(Carried { engine: self.engine.clone(), cache, layer, origin: origin.clone(), whose })
        })
    }

    async fn bring(&self, found: Found, parent: Option<&ImageRecord>) -> Result<Digest, BringError> {
        let parent = parent.map(|parent| parent.id.clone());
        let Found { config, bytes, remote } = found;
        let Some((layers, origin)) = remote else {
            let engine = self.engine.clone();
            let composed =
                bridge::blocking(move || image::compose(&engine.images, config, parent, (None, Lasting::Later))).await;
            return Ok(composed?.id);
        };
        let bytes = bytes.unwrap_or_else(|| serde_json::to_vec(&config).expect("configurations have string keys"));
        let image = pulled(bytes, layers, parent);
        let id = image.manifest.config.digest.clone();
        let session = match origin {
            Origin::Registry(session) => session,
            Origin::Local(client, directory) => return self.take(image, client, directory).await.map(|()| id),
        };
        let key = PullKey { origin: registry_client::origin(&session), manifest: image.descriptor.digest.clone() };
        let (mut follower, _) = Follower::join(&self.engine, key, || (image, session));
        loop {
            if let News::Over(outcome) = follower.news().await {
                return outcome.map(|()| id).map_err(BringError::Pull);
            }
        }
    }

    /// Stores an image whose layers the client has.
    async fn take(&self, image: PulledImage, client: Arc<dyn Asks>, directory: String) -> Result<(), BringError> {
        let engine = self.engine.clone();
        // The bytes come from tasks that may themselves wait for a thread.
        let stored = bridge::waiting(move || {
            let open =
                |layer: &Descriptor| client.blob(&directory, &Blob { digest: layer.digest.clone(), size: layer.size });
            let stored = image::pull_with(&engine.images, image, open, Vec::new, &|_| {});
            // What was unpacked before an error is in the trash.
            engine.sweep_soon();
            stored
        });
        Ok(stored.await.map(drop)?)
    }
}

impl Origin {
    /// A blob as it comes, and what it takes for that. For a thread that may block; called where there is a runtime.
    pub(super) fn open(&self, engine: &Engine, blob: &Descriptor) -> (Box<dyn Read + Send>, Option<Transfer>) {
        match self {
            Origin::Local(client, directory) => {
                let blob = Blob { digest: blob.digest.clone(), size: blob.size };
                (client.blob(directory, &blob), None)
            }
            Origin::Registry(session) => {
                // Nobody hears how it goes.
                let reports = mpsc::channel(1).0;
                let transfer = Transfer::new(session.clone(), engine.images.content(), reports);
                (Box::new(transfer.open(blob)), Some(transfer))
            }
        }
    }
}

impl Source {
    fn find(&self, sought: &Sought<'_>) -> Option<Found> {
        match self {
            Source::Steps { cache, places, origin, .. } => {
                let places = places.get(sought.key.as_str())?;
                places.iter().find_map(|place| {
                    let (step, config, layers) = of_step(cache, *place, sought)?;
                    let bytes = Some(step.config.clone().into_bytes());
                    Some(Found { config, bytes, remote: Some((layers.to_vec(), origin.clone())) })
                })
            }
            Source::Image { config, remote } => of_image(config, remote.as_ref(), sought),
        }
    }
}

/// What a document says of a step, if that is what the step would say of itself; with the image's layers.
fn of_step<'a>(
    cache: &'a SharedCache,
    (stage, step): Place,
    sought: &Sought<'_>,
) -> Option<(&'a SharedStep, ImageConfig, &'a [Descriptor])> {
    let stage = cache.stages.get(stage)?;
    let step = stage.steps.get(step)?;
    if step.parent.as_ref() != sought.parent.map(|parent| &parent.id) {
        return None;
    }
    let config: ImageConfig = serde_json::from_str(&step.config).ok()?;
    let said = config.history.last()?.clone();
    let below = sought.parent.map_or(0, |parent| parent.config.rootfs.diff_ids.len());
    let layer = config.rootfs.diff_ids.get(below);
    if said.empty_layer != layer.is_none() || wanted(sought, layer, said) != config {
        return None;
    }
    Some((step, config, stage.layers.get(..step.layers)?))
}

/// What an image says of a step.
fn of_image(image: &ImageConfig, remote: Option<&(Vec<Descriptor>, Origin)>, sought: &Sought<'_>) -> Option<Found> {
    let platform = sought.parent.map_or(sought.platform, |parent| &parent.config.platform);
    if image.platform != *platform {
        return None;
    }
    let parent = sought.parent.map(|parent| &*parent.config);
    let (said, layer) = shared::next_step(parent, image, sought.words.as_ref()?)?;
    let config = wanted(sought, layer, said.clone());
    let count = config.rootfs.diff_ids.len();
    let remote = match remote {
        Some((layers, origin)) => Some((layers.get(..count)?.to_vec(), origin.clone())),
        None => None,
    };
    Some(Found { config, bytes: None, remote })
}

/// What the step would come to here, at that time, with that layer.
fn wanted(sought: &Sought<'_>, layer: Option<&Digest>, said: History) -> ImageConfig {
    let parent = sought.parent.map(|parent| &*parent.config);
    commit::step_config(parent, layer, (sought.config, sought.platform.clone()), said)
}

/// Asks whoever has it.
async fn ask(whom: For<'_>, from: &CacheFrom, platform: &Platform) -> Result<Source, ImportError> {
    let engine = whom.engine;
    let name = match &from.source {
        CacheSource::Any(name) | CacheSource::Registry(name) => name.parse::<Reference>()?.with_default_tag(),
        CacheSource::Local { directory, digest } => {
            admission::archive(engine)?;
            let client = whom.client.clone().ok_or(ImportError::NoClient)?;
            let (manifest, document) = of_directory(&*client, directory, digest, platform).await?;
            return source(from, &manifest, &document, Origin::Local(client, directory.clone()));
        }
    };
    let login = whom.lookup.login(name.domain()).await.map(credentials).unwrap_or_default();
    let session = engine.current.registries().session(&name, login).await?;
    let resolved = registry_client::resolve_or(&session, &name, &Wanted(platform.clone()), Some(DOCUMENT_TYPE)).await?;
    admission::image(engine, &session, &name, &resolved).await?;
    let document = session.config(&resolved.manifest).await?;
    source(from, &resolved.manifest, &document, Origin::Registry(session))
}

/// Looks into a directory of the client's. What is there may be anything.
async fn of_directory(
    client: &dyn Asks,
    directory: &str,
    digest: &Digest,
    platform: &Platform,
) -> Result<(Manifest, Vec<u8>), ImportError> {
    let mut bytes = document(client, directory, digest).await?;
    let named = serde_json::from_slice::<Index>(&bytes);
    if let Ok(index) = named {
        let chosen = Wanted(platform.clone()).choose(&index.manifests).into_iter().next();
        let chosen = chosen.ok_or_else(|| ImportError::NoMatch(digest.clone()))?;
        bytes = document(client, directory, &chosen.digest).await?;
    }
    let manifest: Manifest = serde_json::from_slice(&bytes)?;
    let document = document(client, directory, &manifest.config.digest).await?;
    Ok((manifest, document))
}

/// A short blob that is what it is called.
async fn document(client: &dyn Asks, directory: &str, digest: &Digest) -> Result<Vec<u8>, ImportError> {
    let bytes = client.document(directory.to_owned(), digest.clone(), DOCUMENT_MAX).await?;
    match Digest::from_sha256(&Sha256::digest(&bytes).into()) == *digest {
        true => Ok(bytes),
        false => Err(ImportError::Digest(digest.clone())),
    }
}

/// What a manifest names, with the document that it is about.
fn source(from: &CacheFrom, manifest: &Manifest, document: &[u8], origin: Origin) -> Result<Source, ImportError> {
    if manifest.config.media_type != DOCUMENT_TYPE {
        let config = Arc::new(serde_json::from_slice(document)?);
        return Ok(Source::Image { config, remote: Some((manifest.layers.clone(), origin)) });
    }
    let cache: SharedCache = serde_json::from_slice(document)?;
    let places = shared::places(&cache).into_iter().map(|(key, places)| (key.to_owned(), places)).collect();
    Ok(Source::Steps { cache, places, origin, from: from.clone() })
}

/// An image as a registry would give it.
fn pulled(config: Vec<u8>, layers: Vec<Descriptor>, parent: Option<Digest>) -> PulledImage {
    let described = |kind: &str, bytes: &[u8]| Descriptor {
        media_type: kind.to_owned(),
        digest: Digest::from_sha256(&Sha256::digest(bytes).into()),
        size: bytes.len() as u64,
        annotations: Default::default(),
        platform: None,
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: described(media_type::OCI_CONFIG, &config),
        layers,
        annotations: Default::default(),
    };
    let manifest_bytes = serde_json::to_vec(&manifest).expect("documents have string keys and no failing serializers");
    let descriptor = described(media_type::OCI_MANIFEST, &manifest_bytes);
    PulledImage { config, manifest, descriptor, manifest_bytes, index: None, references: Vec::new(), parent }
}

#[cfg(test)]
mod tests {
    use builder::shared::SharedStage;

    use super::*;

    fn cache(config: &ImageConfig, parent: Option<Digest>, layers: usize) -> SharedCache {
        let config = serde_json::to_string(config).unwrap();
        let step = SharedStep { key: "k".into(), parent, config, layers };
        SharedCache { stages: vec![SharedStage { layers: Vec::new(), steps: vec![step] }], mounts: Vec::new() }
    }

    #[test]
    fn a_step_is_believed_what_it_would_say_of_itself_and_no_more() {
        let config = Config { env: Some(vec!["A=b".into()]), ..Config::default() };
        let platform = Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() };
        let key = builder::cache::key(None, &config, &[], &[]);
        let sought = Sought { key: &key, words: None, parent: None, config: &config, platform: &platform };
        let digest = Digest::from_sha256(&[1; 32]);
        let said = |empty_layer| History { created_by: "ENV A=b".into(), empty_layer, ..History::default() };
        let good = wanted(&sought, None, said(true));
        let believed = |cache: &SharedCache| of_step(cache, (0, 0), &sought).is_some();
        assert!(believed(&cache(&good, None, 0)));
        let mut other = good.clone();
        other.config.env = Some(vec!["A=c".into()]);
        let mut for_another = good.clone();
        for_another.platform.architecture = "arm64".into();
        let mut with_a_past = good.clone();
        with_a_past.history.insert(0, said(true));
        let layered = wanted(&sought, Some(&digest), said(true));
        let mut two = wanted(&sought, Some(&digest), said(false));
        two.rootfs.diff_ids.push(digest.clone());
        for (what, lie) in [
            ("another environment", cache(&other, None, 0)),
            ("another platform", cache(&for_another, None, 0)),
            ("another past", cache(&with_a_past, None, 0)),
            ("another parent", cache(&good, Some(digest.clone()), 0)),
            ("a layer of a step without one", cache(&layered, None, 0)),
            ("a second layer", cache(&two, None, 0)),
            ("layers that are not there", cache(&good, None, 1)),
            ("nothing", cache(&ImageConfig::default(), None, 0)),
        ] {
            assert!(!believed(&lie), "{what}");
        }
    }
}
