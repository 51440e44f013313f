//! What layers take, from records: nothing is measured.

use std::collections::HashMap;

use snapshot::ChainId;

use crate::record::ImageRecord;
use crate::store::Store;

/// The layers of all images at one moment.
#[derive(Clone, Debug, Default)]
pub struct LayerUsage {
    /// Bytes of each layer, and how many images have it.
    layers: HashMap<ChainId, (u64, usize)>,
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
