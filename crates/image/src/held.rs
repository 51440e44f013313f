//! An image whose layers can be had as they came, whatever happens to it meanwhile.

use std::io::{self, Read, Write};
use std::sync::Arc;

use content::ReadError;
use errdefs::ErrorKind;
use layer::RecreateError;
use oci::Digest;
use sha2::{Digest as _, Sha256};
use snapshot::ChainId;

use crate::ImageRecord;
use crate::attestation::Attestation;
use crate::pins::Pins;
use crate::record::StoredLayer;
use crate::store::{RECORDED_MAX, Store};

/// How much of a kept blob is inflated at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// An image that stays whole until this is dropped: its layers and blobs are not collected, even if it is removed.
pub struct Held<'a> {
    store: &'a Store,
    record: Arc<ImageRecord>,
    layers: Vec<(ChainId, StoredLayer)>,
    _pins: Pins<'a>,
}

/// Why a layer's tar cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LayerTarError {
    /// A blob cannot be read.
    #[error(transparent)]
    Blob(#[from] ReadError),
    /// It cannot be made again.
    #[error(transparent)]
    Recreate(#[from] RecreateError),
    /// The blob that is kept of it cannot be inflated, or nobody takes what it gives.
    #[error("inflate layer {diff_id}")]
    Inflate {
        /// Which one.
        diff_id: Digest,
        /// Why.
        source: io::Error,
    },
    /// The blob that is kept of it inflates to something else.
    #[error("layer {diff_id} is not what it was: it inflates to {actual}")]
    Changed {
        /// Which one.
        diff_id: Digest,
        /// What it inflates to.
        actual: Digest,
    },
    /// It was stored by a version that kept neither.
    #[error(
        "layer {diff_id} was stored by an earlier version, which did not record its archive: remove the image, and pull or \
         load it again"
    )]
    Unrecorded {
        /// Which one.
        diff_id: Digest,
    },
}

impl LayerTarError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// The image of that id, held; `None` if there is none.
pub fn hold<'a>(store: &'a Store, id: &Digest) -> Option<Held<'a>> {
    let mut pins = Pins::new(store);
    // Pinned before it is looked at: a removal looks at the pins after it took the image away.
    pins.hold_blob(id);
    let record = store.get(id)?;
    record.manifest.iter().for_each(|manifest| pins.hold_blob(&manifest.digest));
    record.layer_blobs.iter().for_each(|blob| pins.hold_blob(blob));
    record.index.iter().chain(record.came_by.values()).for_each(|index| pins.hold_blob(&index.digest));
    record.attestations().flat_map(Attestation::contents).for_each(|blob| pins.hold_blob(blob));
    let held = record.chain.iter().map(|chain_id| Some((chain_id.clone(), pins.hold(chain_id)?)));
    let layers = held.collect::<Option<Vec<_>>>()?;
    // Gone while its blobs were pinned: they may be gone, too.
    store.get(id)?;
    Some(Held { store, record, layers, _pins: pins })
}

impl Held<'_> {
    /// What is known of the image.
    pub fn record(&self) -> &Arc<ImageRecord> {
        &self.record
    }

    /// The bytes of its configuration.
    pub fn config(&self) -> Result<Vec<u8>, ReadError> {
        self.store.content.read(&self.record.id, RECORDED_MAX)
    }

    /// The uncompressed layers, lowest first.
    pub fn diff_ids(&self) -> impl Iterator<Item = &Digest> {
        self.layers.iter().map(|(_, layer)| &layer.diff_id)
    }

    /// How long the tar of a layer is. Of one that has no recipe the kept blob is inflated to see it.
    pub fn layer_tar_bytes(&self, index: usize) -> Result<u64, LayerTarError> {
        match &self.layers[index].1.recipe {
            Some(recipe) => Ok(recipe.tar_bytes),
            None => self.inflate(index, &mut io::sink()),
        }
    }

    /// Writes the tar of a layer, the same bytes that it was made of; an error says that all of them are worth nothing.
    ///
    /// Blocks. Bounded memory, no file.
    pub fn layer_tar(&self, index: usize, to: &mut dyn Write) -> Result<(), LayerTarError> {
        let (chain_id, layer) = &self.layers[index];
        let Some(recipe) = &layer.recipe else { return self.inflate(index, to).map(drop) };
        let recipe = self.store.content.reader(&recipe.digest)?;
        Ok(layer::recreate(&recipe, &self.store.snapshots.layer(chain_id), &layer.diff_id, to)?)
    }

    fn inflate(&self, index: usize, to: &mut dyn Write) -> Result<u64, LayerTarError> {
        let layer = &self.layers[index].1;
        let diff_id = &layer.diff_id;
        let failed = |source| LayerTarError::Inflate { diff_id: diff_id.clone(), source };
        let Some(blob) = layer.blob.as_ref().or(self.record.layer_blobs.get(index)) else {
            return Err(LayerTarError::Unrecorded { diff_id: diff_id.clone() });
        };
        let (_, mut tar) = layer::decompress(self.store.content.reader(blob)?).map_err(failed)?;
        let (mut hasher, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; CHUNK_BYTES]);
        loop {
            let count = match tar.read(&mut buffer) {
                Ok(0) => break,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(failed)?,
            };
            hasher.update(&buffer[..count]);
            to.write_all(&buffer[..count]).map_err(failed)?;
            bytes += count as u64;
        }
        let actual = Digest::from_sha256(&hasher.finalize().into());
        match actual == *diff_id {
            true => Ok(bytes),
            false => Err(LayerTarError::Changed { diff_id: diff_id.clone(), actual }),
        }
    }
}
