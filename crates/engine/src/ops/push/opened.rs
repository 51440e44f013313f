//! Layers of an image, open to be read by whoever gives them away.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use content::Blob;
use image::{Compressor, PushImage, PushLayer};
use oci::Digest;
use oci::image::Descriptor;
use registry_client::Source;
use tokio::sync::mpsc;

use super::{Client, Kept, Made, Making, PushError, oci_layer_type};
use crate::Engine;

/// A layer that may be read.
pub(super) struct Opened {
    /// Its address and length; without them it is compressed while it is read.
    pub(super) blob: Option<Blob>,
    pub(super) source: Arc<dyn Source>,
    /// What is to be remembered of it when it was read.
    pub(super) new: Option<New>,
}

/// A layer that was never compressed before.
pub(super) struct New {
    image: Digest,
    index: usize,
    compressor: Compressor,
}

impl Opened {
    /// `held` are the layers of the image, if one of them has to be compressed.
    pub(super) fn of(index: usize, layer: PushLayer, held: Option<Arc<Making>>) -> Opened {
        if let Some(kept) = layer.kept {
            return Opened { blob: Some(kept.blob.clone()), source: Arc::new(Kept(Arc::new(kept))), new: None };
        }
        let making = held.expect("held are the layers of an image of which one is not kept");
        let compressor = layer.compressor;
        let image = making.image.clone();
        let new = layer.compressed.is_none().then_some(New { image, index, compressor });
        let made = Made { making, index, compressor, total: layer.tar_bytes, done: Arc::<AtomicU64>::default() };
        Opened { blob: layer.compressed, source: Arc::new(made), new }
    }
}

impl New {
    /// Remembers what it is, so that the next one who gives it away need not compress what is there already.
    pub(super) async fn remember(self, engine: &Engine, blob: &Blob) -> Result<(), PushError> {
        let New { image, index, compressor } = self;
        let (engine, blob) = (engine.clone(), blob.clone());
        let remember = move || image::remember_compressed(&engine.images, &image, index, &blob, compressor);
        Ok(bridge::blocking(remember).await?)
    }
}

/// A layer of an image, which is there as long as this is.
pub(in crate::ops) struct OpenedLayer {
    opened: Opened,
    media_type: &'static str,
}

/// Opens the layers of an image, lowest first.
pub(in crate::ops) async fn open_layers(engine: &Engine, id: &Digest) -> Result<Vec<OpenedLayer>, PushError> {
    // Nobody hears how it goes.
    let client = Client { engine: engine.clone(), steps: mpsc::channel(1).0 };
    let (task, of) = (engine.clone(), id.clone());
    let image = bridge::blocking(move || image::push_image(&task.images, &of)).await?;
    let PushImage { layers, .. } = image;
    let held = client.hold(id, &layers).await?;
    let opened = layers.into_iter().enumerate().map(|(index, layer)| {
        let media_type = oci_layer_type(layer.kept.as_ref().map(|kept| kept.compression));
        OpenedLayer { opened: Opened::of(index, layer, held.clone()), media_type }
    });
    Ok(opened.collect())
}

impl OpenedLayer {
    /// What it is, where that is known before it is read.
    pub(in crate::ops) fn blob(&self) -> Option<&Blob> {
        self.opened.blob.as_ref()
    }

    /// Its bytes.
    pub(in crate::ops) fn reader(&self) -> io::Result<Box<dyn Read + Send>> {
        self.opened.source.open(0)
    }

    /// How a manifest names it, which was read and is that blob.
    pub(in crate::ops) async fn given(self, engine: &Engine, blob: Blob) -> Result<Descriptor, PushError> {
        if let Some(new) = self.opened.new {
            new.remember(engine, &blob).await?;
        }
        let media_type = self.media_type.to_owned();
        Ok(Descriptor {
            media_type,
            digest: blob.digest,
            size: blob.size,
            annotations: Default::default(),
            platform: None,
        })
    }
}
