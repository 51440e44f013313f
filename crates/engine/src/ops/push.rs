//! `POST /images/{name}/push`: an image to a registry.
//!
//! ```text
//! plan      the query: which tags of which repository, and who we are
//! check     the wanted platform; what is wrong here has a status of its own
//! layers    all at once, as many as the registry client sends at a time: there, mounted, or sent
//! config, manifest, and the name `repository@digest`
//! ```
//! A name that came through an index (crate `image`, `platforms`) is that index: of each image all that, what the index names
//! about them, then the index as it came (`goods`).
//!
//! A layer whose compressed form is kept goes as it is, and so does the manifest that an image came with: what was pulled
//! has the same digests when it is pushed. Other layers are made again and compressed while they are sent; what comes out is
//! remembered, so that the next push asks for it and makes nothing.

use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use content::Blob;
use engine_api::auth::AuthConfig;
use errdefs::ErrorKind;
use image::{Compression, Compressor, ImageRecord, KeptBlob, PushAttestation, PushImage, PushImageError, PushLayer};
use oci::image::{Descriptor, Manifest, media_type};
use oci::{Digest, Reference, ReferenceError};
pub use registry_client::UploadProgress;
use registry_client::{Credentials, RegistryError, Session, Source, Stored, Upload};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::Engine;
use crate::held_layers::HeldLayers;
use crate::ops::image_budget;
use crate::ops::login::credentials;
use crate::ops::pull::tell_event;
use crate::platforms::{self, PlatformMismatch};

mod goods;
mod opened;
pub mod outcome;

use goods::{Goods, What};
use opened::Opened;
pub(super) use opened::open_layers;

/// How many steps may wait for a client.
const STEPS: usize = 100;

/// Numbers of one layer that may wait besides.
const NUMBERS: usize = 8;

/// What is said once about a layer: that it waits, and how it ended.
const SENTENCES: usize = 4;

/// What comes in the path, the query and the headers.
#[derive(Clone, Debug, Default)]
pub struct PushQuery {
    /// The repository, or one tag of it.
    pub name: String,
    /// `tag`; empty for the name's, or for all.
    pub tag: String,
    /// `platform`, as `os/architecture[/variant]`, which may be empty.
    pub platform: String,
    /// `X-Registry-Auth`, which may be empty.
    pub authorization: String,
}

/// What is wanted.
#[derive(Debug)]
pub struct Plan {
    /// Without a tag and a digest: all tags.
    reference: Reference,
    /// Only the image for this one, where a tag stands for several.
    platform: Option<String>,
    credentials: Credentials,
}

/// Something to tell the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushStep {
    /// A sentence about the whole.
    Said(String),
    /// A layer has got on.
    Layer {
        /// The first 12 digits of the digest of its tar.
        id: String,
        /// Where it is.
        stage: PushStage,
    },
    /// A tag is there.
    Pushed {
        /// Which one.
        tag: String,
        /// Its manifest's.
        digest: Digest,
        /// The length of its manifest.
        size: u64,
    },
    /// A tag has one image of those that it means here, since not all of them are there.
    Instead {
        /// What it means here.
        index: Box<Descriptor>,
        /// What was pushed.
        manifest: Box<Descriptor>,
    },
}

/// Where a layer is on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushStage {
    /// It will go.
    Preparing,
    /// It goes, or need not.
    Upload(UploadProgress),
}

/// Why an image did not go. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The name is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The tag is none.
    #[error("invalid tag format")]
    TagFormat,
    /// There is no such image to compare with the wanted platform.
    #[error(transparent)]
    Resolve(#[from] image::ResolveError),
    /// It is for another platform.
    #[error(transparent)]
    Platform(#[from] PlatformMismatch),
    /// No image has a name in that repository.
    #[error("An image does not exist locally with the tag: {name}")]
    NoImage {
        /// The repository.
        name: String,
    },
    /// No image has that tag.
    #[error("tag does not exist: {name}")]
    NoTag {
        /// With the tag.
        name: String,
    },
    /// A digest is not a name to give.
    #[error("cannot push a digest reference")]
    Digest,
    /// The repository's images have digests alone.
    #[error("no tags to push for {name}")]
    NoTags {
        /// The repository.
        name: String,
    },
    /// The name means several images, of which none is for this machine, and others that are not here.
    #[error("multiple matching manifests found but no specific platform requested")]
    Several,
    /// The registry does not take it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It cannot be read.
    #[error(transparent)]
    Image(#[from] PushImageError),
    /// No thread to make layers on.
    #[error("hold the layers of the image")]
    Hold(#[source] io::Error),
}

impl PushError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PushError::Reference(_) | PushError::TagFormat => ErrorKind::InvalidArgument,
            PushError::Resolve(err) => err.kind(),
            PushError::Platform(err) => err.kind(),
            PushError::NoImage { .. } | PushError::NoTag { .. } | PushError::NoTags { .. } => ErrorKind::NotFound,
            PushError::Digest => ErrorKind::InvalidArgument,
            PushError::Several => ErrorKind::Conflict,
            PushError::Registry(err) => err.kind(),
            PushError::Image(err) => err.kind(),
            PushError::Hold(_) => ErrorKind::Internal,
        }
    }
}

/// What the query means; looks at the image only where a platform is wanted.
pub fn plan(engine: &Engine, query: &PushQuery) -> Result<Plan, PushError> {
    let reference = reference(&query.name, &query.tag)?;
    if !query.platform.is_empty() {
        let images = image::resolve_all(&engine.images, &reference.to_string())?;
        platforms::choose(&images, &reference.familiar(), Some(&query.platform))?;
    }
    let platform = Some(query.platform.clone()).filter(|platform| !platform.is_empty());
    // dockerd takes what it cannot read for nothing, too.
    let credentials = AuthConfig::from_header(&query.authorization).map(credentials).unwrap_or_default();
    Ok(Plan { reference, platform, credentials })
}

fn reference(name: &str, tag: &str) -> Result<Reference, PushError> {
    let reference: Reference = name.parse()?;
    if tag.is_empty() {
        return Ok(reference);
    }
    // A digest is no tag.
    let tagged: Result<Reference, _> = format!("{}/{}:{tag}", reference.domain(), reference.path()).parse();
    tagged.ok().filter(|tagged| tagged.tag() == Some(tag)).ok_or(PushError::TagFormat)
}

/// A push that goes on; dropped, it ends.
#[derive(Debug)]
pub struct Pushing {
    steps: mpsc::Receiver<PushStep>,
    task: Option<JoinHandle<Result<(), PushError>>>,
}

impl Pushing {
    /// The next step; nothing more comes behind an error.
    pub async fn next(&mut self) -> Option<Result<PushStep, PushError>> {
        if let Some(step) = self.steps.recv().await {
            return Some(Ok(step));
        }
        match self.task.take()?.await {
            Ok(Ok(())) => None,
            Ok(Err(err)) => Some(Err(err)),
            Err(err) => match err.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down: whoever waits here is about to be dropped, too.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Drop for Pushing {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
    }
}

/// Begins a push.
pub fn start(engine: &Engine, plan: Plan) -> Pushing {
    let (sender, steps) = mpsc::channel(STEPS);
    let client = Client { engine: engine.clone(), steps: sender };
    Pushing { steps, task: Some(tokio::spawn(client.push(plan))) }
}

/// Has a registry hold an image's layers and nothing else of it; answers what they are there, the
/// lowest first.
pub(super) async fn layers(
    engine: &Engine,
    session: &Arc<Session>,
    name: &Reference,
    id: &Digest,
) -> Result<Vec<Descriptor>, PushError> {
    // Nobody hears how it goes.
    let client = Client { engine: engine.clone(), steps: mpsc::channel(1).0 };
    let (task, of) = (engine.clone(), id.clone());
    let image = bridge::blocking(move || image::push_image(&task.images, &of)).await?;
    let held = client.hold(id, &image.layers).await?;
    let compressions: Vec<_> =
        image.layers.iter().map(|layer| layer.kept.as_ref().map(|kept| kept.compression)).collect();
    let blobs = client.push_layers(session, name, image.layers, &held).await?;
    let described = |(blob, compression): (Blob, &Option<Compression>)| Descriptor {
        media_type: oci_layer_type(*compression).to_owned(),
        digest: blob.digest,
        size: blob.size,
        annotations: Default::default(),
        platform: None,
    };
    Ok(blobs.into_iter().zip(&compressions).map(described).collect())
}

/// Has a registry hold a document, and a manifest that names it, and layers that are there, by that name; answers what the
/// manifest is there.
pub(super) async fn put(
    session: &Session,
    tag: &str,
    (media_type, document): (&str, Vec<u8>),
    layers: Vec<Descriptor>,
) -> Result<Descriptor, PushError> {
    let (manifest, bytes) = manifest_of(media_type, &document, layers);
    let blob = Some(Blob { digest: digest_of(&document), size: document.len() as u64 });
    let upload = Upload { blob, mounts: Vec::new(), source: Arc::new(Document(document)) };
    session.upload(&upload, Arc::new(|_| {})).await?;
    session.put_manifest(tag, &manifest.media_type, &bytes).await?;
    Ok(manifest)
}

/// A manifest that names a document, and layers: how others name it, and its bytes.
pub(super) fn manifest_of(media_type: &str, document: &[u8], layers: Vec<Descriptor>) -> (Descriptor, Vec<u8>) {
    let described = |media_type: &str, bytes: &[u8]| Descriptor {
        media_type: media_type.to_owned(),
        digest: digest_of(bytes),
        size: bytes.len() as u64,
        annotations: Default::default(),
        platform: None,
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: described(media_type, document),
        layers,
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec(&manifest).expect("documents have string keys and no failing serializers");
    (described(media_type::OCI_MANIFEST, &bytes), bytes)
}

/// The images of these names, those for other platforms, too.
fn all_of(engine: &Engine, names: &[(Reference, Digest)]) -> Vec<Digest> {
    let of_name = |(name, _): &(Reference, Digest)| image::resolve_all(&engine.images, &name.to_string());
    let images = names.iter().filter_map(|name| of_name(name).ok()).flatten();
    images.map(|image| image.id.clone()).collect()
}

/// Whom a push is for.
#[derive(Clone)]
struct Client {
    engine: Engine,
    steps: mpsc::Sender<PushStep>,
}

impl Client {
    async fn tell(&self, step: PushStep) {
        // A client that has gone ends us soon.
        let _ = self.steps.send(step).await;
    }

    async fn push(self, plan: Plan) -> Result<(), PushError> {
        let Plan { reference, platform, credentials } = plan;
        let repository = format!("{}/{}", reference.domain(), reference.path());
        self.tell(PushStep::Said(format!("The push refers to repository [{repository}]"))).await;
        let named = self.named(&repository);
        if named.is_empty() {
            return Err(PushError::NoImage { name: reference.familiar_name() });
        }
        let session = self.engine.current.registries().push_session(&reference, credentials).await?;
        let chosen = chosen(&reference, named)?;
        let ids = all_of(&self.engine, &chosen);
        // Without this the budget may take them when the first of their tags is there.
        let _held = image_budget::hold(&self.engine, ids.clone()).await;
        for (tag, _) in chosen {
            let mut images = image::resolve_all(&self.engine.images, &tag.to_string())?;
            if platform.is_some() {
                images = vec![platforms::choose(&images, &tag.familiar(), platform.as_deref())?];
            }
            let goods = goods::choose(&self.engine, &session, &tag, images, platform.is_some()).await?;
            self.push_tag(&session, &tag, goods).await?;
        }
        tell_event(&self.engine, &reference, "push");
        image_budget::look_soon(&self.engine, ids);
        Ok(())
    }

    /// The names of a repository and what they mean, sorted.
    fn named(&self, repository: &str) -> Vec<(Reference, Digest)> {
        let images = self.engine.images.list();
        let names =
            images.iter().flat_map(|image| image.references.iter().map(|name| (name.clone(), image.id.clone())));
        let mut names: Vec<_> =
            names.filter(|(name, _)| format!("{}/{}", name.domain(), name.path()) == repository).collect();
        names.sort_by_key(|(name, _)| name.to_string());
        names
    }

    async fn push_tag(&self, session: &Arc<Session>, name: &Reference, goods: Goods) -> Result<(), PushError> {
        let tag = name.tag().unwrap_or(oci::reference::DEFAULT_TAG).to_owned();
        let Goods { images, what } = goods;
        let mut pushed = Vec::new();
        for image in &images {
            let (kind, bytes) = self.push_image(session, name, &image.id).await?;
            let digest = digest_of(&bytes);
            if !matches!(what, What::Image { .. }) {
                self.put_manifest(session, digest.as_str(), &kind, &bytes).await?;
            }
            pushed.push((described(image, kind, digest, bytes.len() as u64), bytes));
        }
        let (kind, bytes, instead_of) = match what {
            What::Index { came, attestations } => {
                for one in attestations {
                    self.push_attestation(session, name, one).await?;
                }
                (came.descriptor.media_type, came.bytes, None)
            }
            What::NewIndex => {
                let (kind, bytes) = image::index_of(pushed.into_iter().map(|(descriptor, _)| descriptor).collect());
                (kind, bytes, None)
            }
            What::Image { instead_of } => {
                let (descriptor, bytes) = pushed.swap_remove(0);
                let kind = descriptor.media_type.clone();
                (kind, bytes, instead_of.map(|index| (index, descriptor)))
            }
        };
        let (digest, size) = (self.put_manifest(session, &tag, &kind, &bytes).await?, bytes.len() as u64);
        self.tell(PushStep::Said(format!("{tag}: digest: {digest} size: {size}"))).await;
        let digested: Reference = format!("{}/{}@{digest}", name.domain(), name.path()).parse()?;
        let (engine, ids) = (self.engine.clone(), images.iter().map(|image| image.id.clone()).collect::<Vec<_>>());
        bridge::blocking(move || image::name_pushed(&engine.images, &ids, &digested)).await?;
        self.tell(PushStep::Pushed { tag, digest, size }).await;
        if let Some((index, manifest)) = instead_of {
            self.tell(PushStep::Instead { index: Box::new(index), manifest: Box::new(manifest) }).await;
        }
        Ok(())
    }

    /// Has the registry hold what is said about an image, as it came.
    async fn push_attestation(
        &self,
        session: &Session,
        name: &Reference,
        one: PushAttestation,
    ) -> Result<(), PushError> {
        for kept in one.blobs {
            let mounts = self.mounts(name, &kept.blob.digest);
            let upload = Upload { blob: Some(kept.blob.clone()), mounts, source: Arc::new(Kept(Arc::new(kept))) };
            session.upload(&upload, Arc::new(|_| {})).await?;
        }
        let Descriptor { digest, media_type, .. } = one.descriptor;
        self.put_manifest(session, digest.as_str(), &media_type, &one.manifest).await?;
        Ok(())
    }

    /// Gives a name to a manifest whose blobs are there. What does not undo that is told.
    async fn put_manifest(
        &self,
        session: &Session,
        name: &str,
        media_type: &str,
        manifest: &[u8],
    ) -> Result<Digest, PushError> {
        let Stored { digest, unlisted } = session.put_manifest(name, media_type, manifest).await?;
        if let Some(err) = unlisted {
            self.tell(PushStep::Said(format!("WARNING: {}", unlisted_warning(&digest, &err)))).await;
        }
        Ok(digest)
    }

    /// Other repositories of the registry that may have a blob.
    fn mounts(&self, name: &Reference, blob: &Digest) -> Vec<Reference> {
        let known = image::repositories_with(&self.engine.images, name.domain(), blob);
        known.into_iter().filter(|other| other.path() != name.path()).collect()
    }

    /// Has the registry hold all that an image is but its manifest, which is answered.
    async fn push_image(
        &self,
        session: &Arc<Session>,
        name: &Reference,
        id: &Digest,
    ) -> Result<(String, Vec<u8>), PushError> {
        let (engine, of) = (self.engine.clone(), id.clone());
        let image = bridge::blocking(move || image::push_image(&engine.images, &of)).await?;
        let PushImage { config, manifest, layers } = image;
        let held = self.hold(id, &layers).await?;
        let compressions: Vec<_> =
            layers.iter().map(|layer| layer.kept.as_ref().map(|kept| kept.compression)).collect();
        let blobs = self.push_layers(session, name, layers, &held).await?;
        let blob = Blob { digest: id.clone(), size: config.len() as u64 };
        let upload = Upload { blob: Some(blob.clone()), mounts: Vec::new(), source: Arc::new(Document(config)) };
        session.upload(&upload, Arc::new(|_| {})).await?;
        Ok(manifest.unwrap_or_else(|| make_manifest(&blob, &blobs, &compressions)))
    }

    /// Answers what the registry has now, lowest first.
    async fn push_layers(
        &self,
        session: &Arc<Session>,
        name: &Reference,
        layers: Vec<PushLayer>,
        held: &Option<Arc<Making>>,
    ) -> Result<Vec<Blob>, PushError> {
        // From the top, as dockerd tells them.
        for layer in layers.iter().rev() {
            let id = short(&layer.diff_id);
            self.tell(PushStep::Layer { id, stage: PushStage::Preparing }).await;
        }
        let mut blobs: Vec<Option<Blob>> = layers.iter().map(|_| None).collect();
        let (mut uploads, mut begun) = (JoinSet::new(), Vec::<(Digest, usize)>::new());
        let mut same = Vec::new();
        for (index, layer) in layers.into_iter().enumerate().rev() {
            if let Some((_, first)) = begun.iter().find(|(diff_id, _)| *diff_id == layer.diff_id) {
                same.push((index, *first));
                continue;
            }
            begun.push((layer.diff_id.clone(), index));
            let (client, session, name, held) = (self.clone(), session.clone(), name.clone(), held.clone());
            uploads.spawn(async move {
                client.push_layer(&session, &name, (index, layer), held).await.map(|blob| (index, blob))
            });
        }
        // Dropped on the first failure, the set ends all others.
        while let Some(ended) = uploads.join_next().await {
            match ended {
                Ok(done) => {
                    let (index, blob) = done?;
                    blobs[index] = Some(blob);
                }
                Err(err) => match err.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return Err(RegistryError::Cancelled.into()),
                },
            }
        }
        for (index, first) in same {
            blobs[index] = blobs[first].clone();
        }
        Ok(blobs.into_iter().flatten().collect())
    }

    /// Holds the layers that have to be compressed, if there are such.
    async fn hold(&self, id: &Digest, layers: &[PushLayer]) -> Result<Option<Arc<Making>>, PushError> {
        if layers.iter().all(|layer| layer.kept.is_some()) {
            return Ok(None);
        }
        let (engine, of) = (self.engine.clone(), id.clone());
        let held = bridge::blocking(move || HeldLayers::hold(&engine, &of)).await.map_err(PushError::Hold)?;
        let layers = held.ok_or_else(|| PushImageError::Gone { id: id.clone() })?;
        Ok(Some(Arc::new(Making { image: id.clone(), layers })))
    }

    async fn push_layer(
        &self,
        session: &Session,
        name: &Reference,
        (index, layer): (usize, PushLayer),
        held: Option<Arc<Making>>,
    ) -> Result<Blob, PushError> {
        let id = short(&layer.diff_id);
        let Opened { blob, source, new } = Opened::of(index, layer, held);
        let mounts = blob.as_ref().map(|blob| self.mounts(name, &blob.digest)).unwrap_or_default();
        let upload = Upload { blob, mounts, source };
        let (told, mut heard) = mpsc::channel(NUMBERS + SENTENCES);
        let tell = move |progress: UploadProgress| {
            let is_number = matches!(progress, UploadProgress::Sending { .. } | UploadProgress::Retrying { .. });
            // Numbers that a slow client does not take are followed by others; there is room for what is said once.
            if !is_number || told.capacity() > SENTENCES {
                let _ = told.try_send(progress);
            }
        };
        let hear = async {
            while let Some(progress) = heard.recv().await {
                self.tell(PushStep::Layer { id: id.clone(), stage: PushStage::Upload(progress) }).await;
            }
        };
        // Whoever tells is gone with the upload.
        let (uploaded, ()) = tokio::join!(session.upload(&upload, Arc::new(tell)), hear);
        let blob = uploaded?;
        if let Some(new) = new {
            new.remember(&self.engine, &blob).await?;
        }
        Ok(blob)
    }
}

/// What is said of a manifest that is there, and is not in the list of those that refer to another one.
pub(super) fn unlisted_warning(digest: &Digest, err: &RegistryError) -> String {
    format!("{digest} was pushed, but is not listed with what it refers to: {}", errdefs::chain(err))
}

/// The tags that are wanted.
fn chosen(reference: &Reference, named: Vec<(Reference, Digest)>) -> Result<Vec<(Reference, Digest)>, PushError> {
    if reference.tag().is_some() {
        let found = named.into_iter().find(|(name, _)| name.digest().is_none() && name.tag() == reference.tag());
        return found.map(|found| vec![found]).ok_or_else(|| PushError::NoTag { name: reference.familiar() });
    }
    if reference.digest().is_some() {
        return Err(PushError::Digest);
    }
    let tagged: Vec<_> = named.into_iter().filter(|(name, _)| name.tag().is_some()).collect();
    match tagged.is_empty() {
        true => Err(PushError::NoTags { name: reference.familiar_name() }),
        false => Ok(tagged),
    }
}

/// An image in an index.
fn described(image: &ImageRecord, media_type: String, digest: Digest, size: u64) -> Descriptor {
    let platform = Some(image.config.platform.clone());
    Descriptor { media_type, digest, size, annotations: Default::default(), platform }
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(&Sha256::digest(bytes).into())
}

fn short(diff_id: &Digest) -> String {
    diff_id.hex()[..12].to_owned()
}

/// A document to be sent.
struct Document(Vec<u8>);

impl Source for Document {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>> {
        let rest = self.0.get(from as usize..).unwrap_or_default().to_vec();
        Ok(Box::new(io::Cursor::new(rest)))
    }

    fn progress(&self, sent: u64) -> (u64, u64) {
        (sent, self.0.len() as u64)
    }
}

/// A compressed layer that is kept.
struct Kept(Arc<KeptBlob>);

impl Source for Kept {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(KeptReader { kept: self.0.clone(), position: from }))
    }

    fn progress(&self, sent: u64) -> (u64, u64) {
        (sent, self.0.blob.size)
    }
}

/// An image whose layers are compressed while they are sent.
#[derive(Debug)]
struct Making {
    image: Digest,
    layers: HeldLayers,
}

/// One of its layers.
struct Made {
    making: Arc<Making>,
    index: usize,
    compressor: Compressor,
    /// The length of its tar.
    total: u64,
    /// What of it was compressed.
    done: Arc<AtomicU64>,
}

impl Source for Made {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut reader = self.making.layers.gzip(self.index, self.compressor, self.done.clone());
        // It is the same every time: what was sent already is passed over.
        io::copy(&mut reader.by_ref().take(from), &mut io::sink())?;
        Ok(Box::new(reader))
    }

    fn progress(&self, _sent: u64) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total)
    }
}

/// Reads at a position of its own: an attempt that was given up may still be reading.
struct KeptReader {
    kept: Arc<KeptBlob>,
    position: u64,
}

impl Read for KeptReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.kept.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// A descriptor in the order in which Docker writes its fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Described<'a> {
    media_type: &'a str,
    size: u64,
    digest: &'a Digest,
}

/// A manifest in the order in which Docker writes its fields (distribution, manifest-v2-2.md).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: Described<'a>,
    layers: Vec<Described<'a>>,
}

fn oci_layer_type(compression: Option<Compression>) -> &'static str {
    match compression {
        Some(Compression::Zstd) => media_type::OCI_LAYER_ZSTD,
        Some(Compression::Plain) => media_type::OCI_LAYER,
        // What has no type of its own is not kept for this.
        Some(Compression::Gzip | Compression::Bzip2 | Compression::Xz) | None => media_type::OCI_LAYER_GZIP,
    }
}

/// The manifest of an image that has none: Docker's, or OCI's where a layer is in a form that Docker's has no type for.
fn make_manifest(config: &Blob, layers: &[Blob], compressions: &[Option<Compression>]) -> (String, Vec<u8>) {
    let docker = compressions.iter().flatten().all(|compression| *compression == Compression::Gzip);
    let (manifest, config_type) = match docker {
        true => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
        false => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
    };
    let layer_type = |compression: Option<Compression>| match docker {
        true => media_type::DOCKER_LAYER_GZIP,
        false => oci_layer_type(compression),
    };
    let layers = layers.iter().zip(compressions).map(|(blob, compression)| Described {
        media_type: layer_type(*compression),
        size: blob.size,
        digest: &blob.digest,
    });
    let written = Written {
        schema_version: 2,
        media_type: manifest,
        config: Described { media_type: config_type, size: config.size, digest: &config.digest },
        layers: layers.collect(),
    };
    // With three blanks, as Docker's client of registries writes them.
    let mut bytes = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut bytes, serde_json::ser::PrettyFormatter::with_indent(b"   "));
    written.serialize(&mut serializer).expect("documents have string keys and no failing serializers");
    (manifest.to_owned(), bytes)
}
