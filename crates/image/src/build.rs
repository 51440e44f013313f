//! An image of a tar: one layer more on an image that is here, or the first one.
//!
//! As a load it is nothing until it is recorded: a failure or a kill leaves what the next start sets aside.

use std::collections::HashMap;
use std::io::Read;

use oci::image::ImageConfig;
use oci::{Digest, Reference};
use sha2::{Digest as _, Sha256};
use snapshot::{ChainId, Stage};

use crate::load::assemble::assemble;
use crate::load::plan::{LAYERS_MAX, PlannedImage, PlannedLayer};
use crate::load::spool::{LayerBlob, Spool, Spooled};
use crate::pins::Pins;
use crate::settle::Lasting;
use crate::store::{DOCUMENT_MAX, Store};
use crate::unpacked::{Staging, Unpacked};
use crate::{ImageRecord, LoadError, Loaded};

/// What a layer is called among the files of a load.
const LAYER: &[u8] = b"layer";

impl Store {
    /// Makes the image that `configure` describes, of a layer and those of `parent` below it.
    ///
    /// `configure` is given the configuration of the parent, or an empty one, with the new layer in it. Blocks until
    /// everything is on disk.
    pub fn build(
        &self,
        parent: Option<&ImageRecord>,
        layer: impl Read + Send,
        reference: Option<Reference>,
        configure: impl FnOnce(&mut ImageConfig),
    ) -> Result<Loaded, LoadError> {
        of_unpacked(self, parent, (reference, Lasting::Now), configure, || filled(self, layer))
    }
}

/// What [`Store::build`] does, lasting as is said; `stage` is the directory that the layer is packed from, if its files may
/// become the image's as they are.
pub fn build_from(
    store: &Store,
    parent: Option<&ImageRecord>,
    (stage, layer): (Option<Stage>, impl Read + Send),
    named: (Option<Reference>, Lasting),
    configure: impl FnOnce(&mut ImageConfig),
) -> Result<Loaded, LoadError> {
    of_unpacked(store, parent, named, configure, || match stage {
        Some(stage) => Unpacked::of(store, stage, layer),
        None => filled(store, layer),
    })
}

fn filled(store: &Store, layer: impl Read + Send) -> Result<Box<Unpacked>, LoadError> {
    Ok(Staging::begin(store)?.fill(layer, u64::MAX)?)
}

fn of_unpacked(
    store: &Store,
    parent: Option<&ImageRecord>,
    (reference, lasting): (Option<Reference>, Lasting),
    configure: impl FnOnce(&mut ImageConfig),
    unpack: impl FnOnce() -> Result<Box<Unpacked>, LoadError>,
) -> Result<Loaded, LoadError> {
    let mut parsed = parent.map(|parent| (*parent.config).clone()).unwrap_or_default();
    let below = parsed.rootfs.diff_ids.clone();
    if below.len() >= LAYERS_MAX {
        return Err(LoadError::Depth);
    }
    let mut pins = Pins::new(store);
    // Held before the work begins: a removal meanwhile leaves them.
    let missing = ChainId::chain(&below).into_iter().position(|chain_id| pins.hold(&chain_id).is_none());
    if let Some(index) = missing {
        return Err(LoadError::Missing { path: below[index].to_string() });
    }
    let unpacked = unpack()?;
    parsed.rootfs.kind = "layers".to_owned();
    parsed.rootfs.diff_ids.push(unpacked.applied.diff_id.clone());
    configure(&mut parsed);
    let config = document(&parsed)?;
    let id = Digest::from_sha256(&Sha256::digest(&config).into());
    let layers = parsed.rootfs.diff_ids.iter();
    let planned = PlannedImage {
        id,
        config,
        layers: layers.map(|_| PlannedLayer { path: LAYER.to_vec(), descriptor: None }).collect(),
        parsed,
        references: reference.into_iter().collect(),
        manifest: None,
        index: None,
        attestations: Vec::new(),
        layer_blobs: Vec::new(),
        parent: parent.map(|parent| parent.id.clone()),
    };
    let spooled = vec![Spooled::Unpacked { unpacked, blob: LayerBlob::None }];
    let layers = HashMap::from([(LAYER.to_vec(), 0)]);
    let spool = Spool { layers, spooled, ..Spool::new(pins) };
    let assembly = assemble(store, spool, vec![planned], &mut |_| {})?;
    let built = assembly.record(store, lasting, &mut |_| {})?;
    Ok(built.into_iter().next().expect("one image was planned"))
}

/// The bytes of a configuration that is ours. A longer one could neither be pushed nor loaded elsewhere.
pub(crate) fn document(config: &ImageConfig) -> Result<Vec<u8>, LoadError> {
    let bytes = serde_json::to_vec(config).expect("configurations have string keys and no failing serializers");
    match bytes.len() as u64 {
        ..=DOCUMENT_MAX => Ok(bytes),
        _ => Err(LoadError::ConfigTooLong { limit_bytes: DOCUMENT_MAX }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_bounded() {
        let with = |length: usize| {
            let mut config = ImageConfig::default();
            config.config.env = Some(vec!["x".repeat(length)]);
            document(&config)
        };
        let empty = with(0).unwrap().len();
        let most = usize::try_from(DOCUMENT_MAX).unwrap() - empty;
        assert_eq!(with(most).unwrap().len() as u64, DOCUMENT_MAX);
        let err = with(most + 1).unwrap_err();
        assert_eq!(err.to_string(), "the image's configuration exceeds 4194304 bytes");
    }
}
