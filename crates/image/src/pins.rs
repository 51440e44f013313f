//! Layers and blobs that a load counts on.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::PoisonError;

use oci::Digest;
use snapshot::ChainId;

use crate::record::StoredLayer;
use crate::store::Store;

/// What a digest of a layer is the digest of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Of the uncompressed tar: a DiffId.
    Tar,
    /// Of the compressed bytes.
    Compressed,
}

/// What is not collected though no record may name it, and how many loads count on it.
#[derive(Debug, Default)]
pub(crate) struct Pinned {
    pub(crate) layers: HashMap<ChainId, usize>,
    pub(crate) blobs: HashMap<Digest, usize>,
}

/// Keeps layers and their kept blobs from being collected, until it is dropped.
///
/// A pin is taken while the state that shows the layer is locked for reading; a removal replaces the state first and looks
/// at the pins afterwards. So a layer is either seen and pinned in time, or not seen at all.
pub(crate) struct Pins<'a> {
    store: &'a Store,
    held: Vec<(ChainId, Vec<Digest>)>,
    blobs: Vec<Digest>,
}

impl<'a> Pins<'a> {
    pub(crate) fn new(store: &'a Store) -> Pins<'a> {
        Pins { store, held: Vec::new(), blobs: Vec::new() }
    }

    /// Holds that layer, if it is there.
    pub(crate) fn hold(&mut self, chain_id: &ChainId) -> Option<StoredLayer> {
        let store = self.store;
        store.read(|state| {
            let layer = state.layers.get(chain_id)?;
            self.add(chain_id, layer);
            Some(layer.clone())
        })
    }

    /// Holds one of the places of the layer whose uncompressed tar or kept blob has that digest.
    pub(crate) fn hold_any(&mut self, digest: &Digest, form: Form) -> Option<(ChainId, StoredLayer)> {
        let store = self.store;
        let is_it = |layer: &StoredLayer| match form {
            Form::Tar => layer.diff_id == *digest,
            Form::Compressed => layer.blob.as_ref() == Some(digest),
        };
        store.read(|state| {
            let (chain_id, layer) = state.layers.iter().find(|(_, layer)| is_it(layer))?;
            self.add(chain_id, layer);
            Some((chain_id.clone(), layer.clone()))
        })
    }

    /// Holds a blob, whether it is there or comes later.
    pub(crate) fn hold_blob(&mut self, blob: &Digest) {
        self.store.pinned(|pinned| *pinned.blobs.entry(blob.clone()).or_default() += 1);
        self.blobs.push(blob.clone());
    }

    fn add(&mut self, chain_id: &ChainId, layer: &StoredLayer) {
        let blobs: Vec<Digest> = layer.blobs().cloned().collect();
        self.store.pinned(|pinned| {
            *pinned.layers.entry(chain_id.clone()).or_default() += 1;
            blobs.iter().for_each(|blob| *pinned.blobs.entry(blob.clone()).or_default() += 1);
        });
        self.held.push((chain_id.clone(), blobs));
    }
}

impl Store {
    /// Looks at what is pinned, or changes it.
    pub(crate) fn pinned<T>(&self, look: impl FnOnce(&mut Pinned) -> T) -> T {
        look(&mut self.pins.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        self.store.pinned(|pinned| {
            for (chain_id, blobs) in &self.held {
                release(&mut pinned.layers, chain_id);
                blobs.iter().for_each(|blob| release(&mut pinned.blobs, blob));
            }
            self.blobs.iter().for_each(|blob| release(&mut pinned.blobs, blob));
        });
    }
}

fn release<K: Hash + Eq>(pinned: &mut HashMap<K, usize>, key: &K) {
    match pinned.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => drop(pinned.remove(key)),
    }
}
