//! An image of another one's layers, that says something else.

use oci::image::ImageConfig;
use oci::{Digest, Reference};
use sha2::{Digest as _, Sha256};
use snapshot::ChainId;

use crate::build::document;
use crate::load::assemble::assemble;
use crate::load::plan::{PlannedImage, PlannedLayer};
use crate::load::spool::Spool;
use crate::pins::Pins;
use crate::settle::Lasting;
use crate::store::Store;
use crate::{ImageRecord, LoadError, Loaded};

/// Makes the image that `configure` describes, of the layers of `parent`; of none without one.
///
/// `configure` is given the configuration of the parent, or an empty one, and leaves its layers as they are. Blocks
/// until everything is on disk, if it has to last now.
pub fn derive(
    store: &Store,
    parent: Option<&ImageRecord>,
    named: (Option<Reference>, Lasting),
    configure: impl FnOnce(&mut ImageConfig),
) -> Result<Loaded, LoadError> {
    let mut config = parent.map(|parent| (*parent.config).clone()).unwrap_or_default();
    let layers = config.rootfs.diff_ids.clone();
    config.rootfs.kind = "layers".to_owned();
    configure(&mut config);
    config.rootfs.diff_ids = layers;
    compose(store, config, parent.map(|parent| parent.id.clone()), named)
}

/// Makes the image that `config` describes, whose layers are all here. Blocks as [`derive`] does.
pub fn compose(
    store: &Store,
    parsed: ImageConfig,
    parent: Option<Digest>,
    (reference, lasting): (Option<Reference>, Lasting),
) -> Result<Loaded, LoadError> {
    let layers = &parsed.rootfs.diff_ids;
    let mut pins = Pins::new(store);
    // Held before the work begins: a removal meanwhile leaves them.
    let missing = ChainId::chain(layers).into_iter().position(|chain_id| pins.hold(&chain_id).is_none());
    if let Some(index) = missing {
        return Err(LoadError::Missing { path: layers[index].to_string() });
    }
    let config = document(&parsed)?;
    let planned = PlannedImage {
        id: Digest::from_sha256(&Sha256::digest(&config).into()),
        config,
        layers: layers.iter().map(|_| PlannedLayer { path: Vec::new(), descriptor: None }).collect(),
        parsed,
        references: reference.into_iter().collect(),
        manifest: None,
        index: None,
        attestations: Vec::new(),
        layer_blobs: Vec::new(),
        parent,
    };
    let spool = Spool::new(pins);
    let assembly = assemble(store, spool, vec![planned], &mut |_| {})?;
    let made = assembly.record(store, lasting, &mut |_| {})?;
    Ok(made.into_iter().next().expect("one image was planned"))
}
