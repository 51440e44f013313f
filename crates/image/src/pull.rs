//! `pull`: an image whose documents are known, and whose layers come while they are unpacked.
//!
//! ```text
//! plan      which layers there are already, and which must be fetched (pinned, so that they stay)
//! unpack    every missing layer is read as it arrives, three at a time, into a staged directory
//! assemble  as for a load: each layer gets its place, diff_ids and digests are checked
//! record    as for a load: one sync, renames, one commit
//! ```
//! Whoever calls gives a reader per layer, which blocks until bytes arrive: transfers run ahead of the unpacking. The
//! bytes lie in the content store as partial blobs; they become blobs with the record, so that a pull that fails leaves
//! nothing that is listed, and the next one goes on with what is there: with partial blobs, and with the layers that were
//! unpacked (`cut`), of which it reads the blob, and no more.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use errdefs::ErrorKind;
use layer::{ApplyError, TarError};
use oci::image::{Descriptor, ImageConfig, Manifest};
use oci::{Digest, Reference};
use snapshot::ChainId;

use crate::attestation::{PlannedAttestation, PulledAttestation, attestation_blobs, attestations_room};
use crate::cut;
use crate::load::assemble::assemble;
use crate::load::plan::{LAYERS_MAX, PlannedImage, PlannedLayer, blob_path};
use crate::load::spool::{LayerBlob, Spool, Spooled};
use crate::pins::{Form, Pins};
use crate::settle::Lasting;
use crate::store::Store;
use crate::unpacked::{Staging, Unpacked};
use crate::{LoadError, Loaded};

/// Layers unpacked at the same time.
const LAYERS_AT_ONCE: usize = 3;

/// The least time between two reports of one layer: more often is nothing that anybody sees.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// How many times longer than its blob a layer may be. Deflate cannot do better than 1032; what does more is made to.
const INFLATION_MAX: u64 = 1100;

/// What every layer may be long, however short its blob: zstd says a thousand zeros in a few bytes.
const INFLATED_ALWAYS: u64 = 64 * 1024 * 1024;

/// How many bytes a layer may be long whose blob is so long; before the disk is full of one that is made to fill it.
pub fn inflated_max(blob_bytes: u64) -> u64 {
    blob_bytes.saturating_mul(INFLATION_MAX).max(INFLATED_ALWAYS)
}

/// The documents of an image, verified by whoever fetched them.
#[derive(Clone, Debug)]
pub struct PulledImage {
    /// The bytes of its configuration.
    pub config: Vec<u8>,
    /// What they say.
    pub manifest: Manifest,
    /// The manifest's address and length.
    pub descriptor: Descriptor,
    /// The manifest's bytes.
    pub manifest_bytes: Vec<u8>,
    /// The index that names the manifest, and its bytes, if the name means one.
    pub index: Option<(Descriptor, Vec<u8>)>,
    /// The names that it gets: the tag, and the repository with the digest of what was asked for.
    pub references: Vec<Reference>,
    /// The image that it was built from, where that is known and here.
    pub parent: Option<Digest>,
}

/// What happens to a layer, as it happens, on any thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullEvent {
    /// It is there.
    Exists(Digest),
    /// It is wanted: all of these come before the first layer is read.
    Wanted(Digest),
    /// So many of its compressed bytes are unpacked. Told now and then, and at the end.
    Extracting {
        /// Which one, by the digest in the manifest.
        layer: Digest,
        /// Compressed bytes that were read.
        current: u64,
        /// Compressed bytes that there are.
        total: u64,
    },
    /// It is unpacked and verified.
    Complete(Digest),
}

/// Why an image was not stored. The texts are dockerd's where it has one.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The configuration is none.
    #[error("decode the image configuration {digest}")]
    Config {
        /// Which one.
        digest: Digest,
        /// Why.
        source: serde_json::Error,
    },
    /// The configuration names no layers at all.
    #[error("invalid rootfs in image configuration")]
    NoRootFs,
    /// It is for another operating system.
    #[error("image operating system \"{os}\" cannot be used on this platform: operating system is not supported")]
    OperatingSystem {
        /// Which one.
        os: String,
    },
    /// Manifest and configuration disagree.
    #[error("layers from manifest don't match image configuration")]
    Layers,
    /// It has more layers than can be mounted.
    #[error("failed to register layer: max depth exceeded")]
    Depth,
    /// A layer is not what its descriptor says.
    #[error("filesystem layer verification failed for digest {digest}")]
    Layer {
        /// Which one.
        digest: Digest,
    },
    /// A layer cannot be unpacked, or its bytes did not come.
    #[error("failed to register layer")]
    Unpack {
        /// Why.
        source: ApplyError,
    },
    /// There is no room for a layer.
    #[error("prepare a layer")]
    Stage {
        /// Why.
        source: LoadError,
    },
    /// The image cannot be put together or recorded.
    #[error("store the image")]
    Store {
        /// Why.
        source: LoadError,
    },
}

impl PullError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PullError::OperatingSystem { .. } => ErrorKind::InvalidArgument,
            _ => ErrorKind::Internal,
        }
    }
}

/// A layer to be fetched.
struct Missing<R> {
    descriptor: Descriptor,
    source: R,
}

impl Store {
    /// Stores an image; `fetch` is called for every layer that is missing, all of them at once, from the lowest.
    ///
    /// Blocks until everything is on disk or something failed; for the reason of a reader's failure ask whoever gave it.
    /// When one layer fails, the readers of all others are dropped.
    pub fn pull<R: Read + Send>(
        &self,
        image: PulledImage,
        fetch: impl FnMut(&Descriptor) -> R,
        events: &(dyn Fn(PullEvent) + Sync),
    ) -> Result<Loaded, PullError> {
        pull_with(self, image, fetch, Vec::new, events)
    }

    /// Finds the layers that are there, at their place or at another one; answers those that are not.
    fn known(
        &self,
        image: &PulledImage,
        planned: &PlannedImage,
        spool: &mut Spool<'_>,
        events: &dyn Fn(PullEvent),
    ) -> Vec<Descriptor> {
        let diff_ids = &planned.parsed.rootfs.diff_ids;
        // Docker says nothing of the layers of an image that it has.
        let is_new = self.get(&planned.id).is_none();
        let exists = |digest: &Digest| is_new.then(|| events(PullEvent::Exists(digest.clone())));
        let mut wanted: Vec<Descriptor> = Vec::new();
        let chain = ChainId::chain(diff_ids);
        for ((descriptor, chain_id), diff_id) in image.manifest.layers.iter().zip(&chain).zip(diff_ids) {
            if spool.pins.hold(chain_id).is_some() {
                exists(&descriptor.digest);
            } else if let Some((chain_id, layer)) = spool.pins.hold_any(diff_id, Form::Tar) {
                let path = blob_path(&descriptor.digest).into_bytes();
                spool.layers.insert(path, spool.spooled.len());
                spool.spooled.push(Spooled::Known { chain_id, layer, bytes: descriptor.size });
                exists(&descriptor.digest);
            } else if !wanted.iter().any(|other| other.digest == descriptor.digest) {
                events(PullEvent::Wanted(descriptor.digest.clone()));
                wanted.push(descriptor.clone());
            }
        }
        wanted
    }

    /// Unpacks layers, lowest first, [`LAYERS_AT_ONCE`] at a time; the first failure ends it.
    fn unpack<R: Read + Send>(
        &self,
        missing: VecDeque<Missing<R>>,
        events: &(dyn Fn(PullEvent) + Sync),
    ) -> Result<Vec<(Descriptor, Box<Unpacked>)>, PullError> {
        let workers = missing.len().min(LAYERS_AT_ONCE);
        let (queue, ending) = (Mutex::new(missing), Ending::default());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let work = || {
            let mut done = Vec::new();
            while let Some(layer) = next() {
                match self.unpack_one(layer, &ending, events) {
                    Ok(unpacked) => done.push(unpacked),
                    Err(err) => {
                        // Whoever feeds the others learns that nobody waits for them. Their failures come later, and say
                        // nothing: the first stays.
                        let _ = ending.failure.set(err);
                        queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    }
                }
            }
            done
        };
        let unpacked: Vec<(Descriptor, Box<Unpacked>)> = thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let joined = threads.into_iter().map(|thread| thread.join().expect("unpacking has no invariant to break"));
            joined.flatten().collect()
        });
        let Some(err) = ending.failure.into_inner() else { return Ok(unpacked) };
        if ending.cut.into_inner() {
            cut::keep(self, unpacked.into_iter().map(|(_, unpacked)| unpacked));
        }
        Err(err)
    }

    fn unpack_one<R: Read + Send>(
        &self,
        layer: Missing<R>,
        ending: &Ending,
        events: &(dyn Fn(PullEvent) + Sync),
    ) -> Result<(Descriptor, Box<Unpacked>), PullError> {
        let Missing { descriptor, source } = layer;
        if let Some(unpacked) = cut::take(self, &descriptor) {
            let mut rest = Watched { source, ending };
            if let Err(source) = io::copy(&mut rest, &mut io::sink()) {
                cut::keep(self, [unpacked]);
                return Err(PullError::Unpack { source: ApplyError::Archive { source: TarError::Read { source } } });
            }
            events(PullEvent::Complete(descriptor.digest.clone()));
            return Ok((descriptor, unpacked));
        }
        let staging = Staging::begin(self).map_err(|source| PullError::Stage { source })?;
        let limit = inflated_max(descriptor.size);
        let source = Watched { source, ending };
        let counted = Counted { source, descriptor: &descriptor, current: 0, told: None, events };
        let unpacked = staging.fill(counted, limit).map_err(|source| PullError::Unpack { source })?;
        let applied = &unpacked.applied;
        if applied.digest != descriptor.digest || applied.size != descriptor.size {
            return Err(PullError::Layer { digest: descriptor.digest });
        }
        events(PullEvent::Complete(descriptor.digest.clone()));
        Ok((descriptor, unpacked))
    }
}

/// As [`Store::pull`], and `beside` is asked at the end for what the index names about the image: it may block until that
/// has come. What it leaves out is not kept.
pub fn pull_with<R: Read + Send>(
    store: &Store,
    image: PulledImage,
    mut fetch: impl FnMut(&Descriptor) -> R,
    beside: impl FnOnce() -> Vec<PulledAttestation>,
    events: &(dyn Fn(PullEvent) + Sync),
) -> Result<Loaded, PullError> {
    let mut planned = plan(&image)?;
    let mut pins = Pins::new(store);
    image.manifest.layers.iter().for_each(|layer| pins.hold_blob(&layer.digest));
    let mut spool = Spool::new(pins);
    let wanted = store.known(&image, &planned, &mut spool, events);
    let missing = wanted.into_iter().map(|descriptor| Missing { source: fetch(&descriptor), descriptor }).collect();
    for (descriptor, unpacked) in store.unpack(missing, events)? {
        let blob = match store.content.verified(&descriptor.digest, descriptor.size) {
            Some(ingest) => LayerBlob::New(Box::new(ingest)),
            // Another pull has recorded it meanwhile, for a layer at another place.
            None if store.content.contains(&descriptor.digest) => LayerBlob::Here,
            None => LayerBlob::None,
        };
        let path = blob_path(&descriptor.digest).into_bytes();
        spool.layers.insert(path, spool.spooled.len());
        spool.spooled.push(Spooled::Unpacked { unpacked, blob });
    }
    plan_attestations(&mut planned, beside(), &mut spool);
    let stored = assemble(store, spool, vec![planned], &mut |_| {})
        .and_then(|assembly| assembly.record(store, Lasting::Now, &mut |_| {}))
        .map_err(refused)?;
    let is_ours = |blob: &Digest| image.manifest.layers.iter().any(|layer| layer.digest == *blob);
    cut::discard_cut(store, |blob, _| is_ours(blob));
    Ok(stored.into_iter().next().expect("one image was planned"))
}

/// What came about the image, as a load finds it in an archive.
fn plan_attestations(planned: &mut PlannedImage, came: Vec<PulledAttestation>, spool: &mut Spool<'_>) {
    let mut room = attestations_room();
    for one in came {
        let Some((blobs, left)) = attestation_blobs(&one.manifest, room) else { continue };
        room = left;
        spool.blobs.extend(one.blobs.into_iter().map(|ingest| (ingest.digest(), ingest)));
        let (descriptor, manifest) = (one.descriptor, one.manifest);
        planned.attestations.push(PlannedAttestation { descriptor, manifest, blobs });
    }
}

/// What the documents say, if they go together.
fn plan(image: &PulledImage) -> Result<PlannedImage, PullError> {
    let digest = &image.manifest.config.digest;
    let failed = |source| PullError::Config { digest: digest.clone(), source };
    let outline: serde_json::Value = serde_json::from_slice(&image.config).map_err(failed)?;
    if outline.get("rootfs").is_none_or(serde_json::Value::is_null) {
        return Err(PullError::NoRootFs);
    }
    let parsed: ImageConfig = serde_json::from_value(outline).map_err(failed)?;
    if !matches!(&parsed.platform.os[..], "" | "linux") {
        return Err(PullError::OperatingSystem { os: parsed.platform.os });
    }
    if parsed.rootfs.diff_ids.len() != image.manifest.layers.len() {
        return Err(PullError::Layers);
    }
    if parsed.rootfs.diff_ids.len() > LAYERS_MAX {
        return Err(PullError::Depth);
    }
    let layers = image.manifest.layers.iter().map(|descriptor| PlannedLayer {
        path: blob_path(&descriptor.digest).into_bytes(),
        descriptor: Some(descriptor.clone()),
    });
    Ok(PlannedImage {
        id: digest.clone(),
        config: image.config.clone(),
        parsed,
        layers: layers.collect(),
        references: image.references.clone(),
        manifest: Some((image.descriptor.clone(), image.manifest_bytes.clone())),
        index: image.index.clone(),
        attestations: Vec::new(),
        layer_blobs: Vec::new(),
        parent: image.parent.clone(),
    })
}

fn refused(err: LoadError) -> PullError {
    match err {
        LoadError::DiffId { .. } | LoadError::LayerCount { .. } => PullError::Layers,
        source => PullError::Store { source },
    }
}

/// How the unpacking of all layers ends, if not well.
#[derive(Debug, Default)]
struct Ending {
    /// The first one's.
    failure: OnceLock<PullError>,
    /// Whether the bytes of some layer did not come, which says nothing against those that did.
    cut: AtomicBool,
}

/// Ends with the first layer that fails.
struct Watched<'a, R> {
    source: R,
    ending: &'a Ending,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer).inspect_err(|err| {
            if err.kind() != io::ErrorKind::Interrupted && self.ending.failure.get().is_none() {
                self.ending.cut.store(true, Ordering::Release);
            }
        })?;
        match self.ending.failure.get() {
            Some(_) => Err(io::Error::other("another layer failed")),
            None => Ok(count),
        }
    }
}

/// Tells how far the unpacking is.
struct Counted<'a, R> {
    source: R,
    descriptor: &'a Descriptor,
    current: u64,
    /// When it was told last.
    told: Option<Instant>,
    events: &'a (dyn Fn(PullEvent) + Sync),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        if count > 0 {
            self.current += count as u64;
            let now = Instant::now();
            if self.current == self.descriptor.size || self.told.is_none_or(|told| now - told >= REPORT_EVERY) {
                self.told = Some(now);
                let (layer, total) = (self.descriptor.digest.clone(), self.descriptor.size);
                (self.events)(PullEvent::Extracting { layer, current: self.current, total });
            }
        }
        Ok(count)
    }
}
