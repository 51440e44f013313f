//! What images take: layers from records, which are not measured again, and blobs by their lengths.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use content::ReadError;
use oci::Digest;
use snapshot::ChainId;

use crate::attestation::Attestation;
use crate::record::{ImageRecord, State};
use crate::store::{Store, needed_blobs};

/// The layers of all images at one moment.
#[derive(Clone, Debug, Default)]
pub struct LayerUsage {
    /// Bytes of each layer, and how many images have it.
    layers: HashMap<ChainId, (u64, usize)>,
}

/// Something on the disk that images have, maybe several the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// An unpacked layer.
    Layer(ChainId),
    /// A configuration, a manifest, an index, a compressed layer, or the recipe of one.
    Blob(Digest),
}

/// An image, and what it takes.
#[derive(Clone, Debug)]
pub struct ImageParts {
    /// Which one.
    pub image: Arc<ImageRecord>,
    /// What would go with it if no other had it, and its bytes. Each once.
    pub parts: Vec<(Part, u64)>,
}

/// All images with what they take, by id. Blocks: how long a blob is is read from the disk, once.
pub fn image_parts(store: &Store) -> Result<Vec<ImageParts>, ReadError> {
    let sizes = lengths(store)?;
    Ok(store.read(|state| {
        let images = state.images.values();
        images.map(|image| ImageParts { image: Arc::clone(image), parts: parts(state, image, &sizes) }).collect()
    }))
}

/// What all blobs that images need take together. Blocks as [`image_parts`] does.
pub fn blob_bytes(store: &Store) -> Result<u64, ReadError> {
    Ok(lengths(store)?.values().fold(0, |sum, bytes| sum.saturating_add(*bytes)))
}

/// How long the blobs are that images need: a blob never changes, so that each is looked at once. What is gone is left out.
fn lengths(store: &Store) -> Result<Arc<HashMap<Digest, u64>>, ReadError> {
    let known = || store.lengths.lock().unwrap_or_else(PoisonError::into_inner);
    let (needed, measured) = (store.read(needed_blobs), Arc::clone(&known()));
    let length = |digest: Digest| match measured.get(&digest) {
        Some(bytes) => Some(Ok((digest, *bytes))),
        None => store.content.size(&digest).transpose().map(|bytes| Ok((digest, bytes?))),
    };
    let lengths = Arc::new(needed.into_iter().filter_map(length).collect::<Result<HashMap<_, _>, _>>()?);
    *known() = Arc::clone(&lengths);
    Ok(lengths)
}

/// What is kept beside the layers of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Bytes of it.
    pub bytes: u64,
    /// Of these, bytes that other images have, too.
    pub shared_bytes: u64,
}

/// What is kept beside the layers, by image. Blocks as [`image_parts`] does.
pub fn beside_layers(store: &Store) -> Result<HashMap<Digest, Beside>, ReadError> {
    Ok(add_up(&image_parts(store)?))
}

fn add_up(all: &[ImageParts]) -> HashMap<Digest, Beside> {
    let blobs = |image: &ImageParts| {
        let blob = |(part, bytes): &(Part, u64)| match part {
            Part::Blob(digest) => Some((digest.clone(), *bytes)),
            Part::Layer(_) => None,
        };
        image.parts.iter().filter_map(blob).collect::<Vec<_>>()
    };
    let mut users: HashMap<Digest, usize> = HashMap::new();
    for (digest, _) in all.iter().flat_map(blobs) {
        *users.entry(digest).or_default() += 1;
    }
    let sum = |blobs: &[(Digest, u64)], counts: &dyn Fn(usize) -> bool| {
        let counted = blobs.iter().filter(|(digest, _)| users.get(digest).is_some_and(|users| counts(*users)));
        counted.fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes))
    };
    let one = |image: &ImageParts| {
        let blobs = blobs(image);
        let beside = Beside { bytes: sum(&blobs, &|_| true), shared_bytes: sum(&blobs, &|users| users > 1) };
        (image.image.id.clone(), beside)
    };
    all.iter().map(one).collect()
}

fn parts(state: &State, image: &ImageRecord, sizes: &HashMap<Digest, u64>) -> Vec<(Part, u64)> {
    let documents = [&image.manifest, &image.index].into_iter().flatten().map(|document| &document.digest);
    let layers = image.chain.iter().filter_map(|chain_id| Some((chain_id, state.layers.get(chain_id)?)));
    let kept = layers.clone().flat_map(|(_, layer)| layer.blobs());
    let beside = image.attestations().flat_map(Attestation::contents);
    let blobs = std::iter::once(&image.id).chain(documents).chain(&image.layer_blobs).chain(kept).chain(beside);
    // One that was made or removed since is none that counts.
    let blobs = blobs.filter_map(|blob| Some((Part::Blob(blob.clone()), *sizes.get(blob)?)));
    let layers = layers.map(|(chain_id, layer)| (Part::Layer(chain_id.clone()), layer.size_bytes));
    let mut seen = HashSet::new();
    layers.chain(blobs).filter(|(part, _)| seen.insert(part.clone())).collect()
}

impl Store {
    /// What the layers of all images take. No I/O.
    pub fn layer_usage(&self) -> LayerUsage {
        self.read(|state| {
            let mut layers: HashMap<ChainId, (u64, usize)> =
                state.layers.iter().map(|(chain_id, layer)| (chain_id.clone(), (layer.size_bytes, 0))).collect();
            for chain_id in state.images.values().flat_map(|record| &record.chain) {
                if let Some((_, users)) = layers.get_mut(chain_id) {
                    *users += 1;
                }
            }
            LayerUsage { layers }
        })
    }
}

impl LayerUsage {
    /// Bytes of all layers, each counted once.
    pub fn total_bytes(&self) -> u64 {
        self.layers.values().fold(0, |sum, (bytes, _)| sum.saturating_add(*bytes))
    }

    /// Bytes of one layer; `None` if no image has it.
    pub fn bytes(&self, chain_id: &ChainId) -> Option<u64> {
        self.layers.get(chain_id).map(|(bytes, _)| *bytes)
    }

    /// Bytes of an image's layers that other images have, too.
    pub fn shared_bytes(&self, image: &ImageRecord) -> u64 {
        let shared =
            image.chain.iter().filter_map(|chain_id| self.layers.get(chain_id)).filter(|(_, users)| *users > 1);
        shared.fold(0, |sum, (bytes, _)| sum.saturating_add(*bytes))
    }
}
