//! Layers that a load counts on.

use std::sync::PoisonError;

use oci::Digest;
use snapshot::ChainId;

use crate::record::StoredLayer;
use crate::store::Store;

/// Keeps layers from being collected, until it is dropped.
///
/// A pin is taken while the state that shows the layer is locked for reading; a removal replaces the state first and looks
/// at the pins afterwards. So a layer is either seen and pinned in time, or not seen at all.
pub(crate) struct Pins<'a> {
    store: &'a Store,
    held: Vec<ChainId>,
}

impl<'a> Pins<'a> {
    pub(crate) fn new(store: &'a Store) -> Pins<'a> {
        Pins { store, held: Vec::new() }
    }

    /// Holds that layer, if it is there.
    pub(crate) fn hold(&mut self, chain_id: &ChainId) -> Option<StoredLayer> {
        let store = self.store;
        store.read(|state| {
            let layer = state.layers.get(chain_id)?.clone();
            self.add(chain_id);
            Some(layer)
        })
    }

    /// Holds one of the places where a layer of that content is.
    pub(crate) fn hold_any(&mut self, diff_id: &Digest) -> Option<ChainId> {
        let store = self.store;
        store.read(|state| {
            let (chain_id, _) = state.layers.iter().find(|(_, layer)| layer.diff_id == *diff_id)?;
            self.add(chain_id);
            Some(chain_id.clone())
        })
    }

    fn add(&mut self, chain_id: &ChainId) {
        *self.store.pins.lock().unwrap_or_else(PoisonError::into_inner).entry(chain_id.clone()).or_default() += 1;
        self.held.push(chain_id.clone());
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        let mut pins = self.store.pins.lock().unwrap_or_else(PoisonError::into_inner);
        for chain_id in &self.held {
            match pins.get_mut(chain_id) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(pins.remove(chain_id)),
            }
        }
    }
}
