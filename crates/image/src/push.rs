//! What a registry is given: documents, and each layer in the form in which it is kept.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::Arc;

use content::{Blob, ReadError};
use errdefs::ErrorKind;
use layer::{COMPRESSOR, Compression, Compressor};
use oci::image::{Descriptor, Index, Manifest, media_type};
use oci::{Digest, Reference};
use snapshot::ChainId;

use crate::attestation::PushAttestation;
use crate::metadata::Change;
use crate::outcome::{descriptor, outcome_index};
use crate::record::{ImageRecord, StoredCompressed};
use crate::remove::difference;
use crate::store::{DOCUMENT_MAX, RECORDED_MAX, Store, TagError, resolve};

/// An image as it goes to a registry.
#[derive(Debug)]
pub struct PushImage {
    /// The bytes of its configuration; its id is their digest.
    pub config: Vec<u8>,
    /// The manifest that it came with, type and bytes, if that and its layers are kept: it goes as it is.
    pub manifest: Option<(String, Vec<u8>)>,
    /// Its layers, lowest first.
    pub layers: Vec<PushLayer>,
}

/// A layer as it goes to a registry.
#[derive(Debug)]
pub struct PushLayer {
    /// The digest of its tar, by which users know it.
    pub diff_id: Digest,
    /// A compressed form that is kept.
    pub kept: Option<KeptBlob>,
    /// Without one: what its `compressor` makes of it, if it did that before.
    pub compressed: Option<Blob>,
    /// What compresses it: [`COMPRESSOR`], or what did so before, so that it has one digest for ever.
    pub compressor: Compressor,
    /// The length of its tar; 0 if that is not known.
    pub tar_bytes: u64,
}

/// A compressed layer that is open, so that it stays until it is sent.
#[derive(Debug)]
pub struct KeptBlob {
    /// Its address and length.
    pub blob: Blob,
    /// Its bytes.
    pub file: File,
    /// How it is compressed.
    pub compression: Compression,
}

/// Why an image cannot be pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushImageError {
    /// It was removed.
    #[error("No such image: {id}")]
    Gone {
        /// Its id.
        id: Digest,
    },
    /// A document or a layer of it cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its manifest cannot be understood any more.
    #[error("decode the manifest of image {id}")]
    Manifest {
        /// Its id.
        id: Digest,
        /// Why.
        source: serde_json::Error,
    },
    /// A layer that is kept cannot be looked at.
    #[error("read layer {digest}")]
    Layer {
        /// Which one.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The database does not take what is to be remembered.
    #[error("record the push")]
    Record {
        /// Why.
        source: redb::Error,
    },
}

impl PushImageError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PushImageError::Gone { .. } => ErrorKind::NotFound,
            _ => ErrorKind::Internal,
        }
    }
}

/// Reads what a push of the image needs, and opens its layers. Blocks.
pub fn push_image(store: &Store, id: &Digest) -> Result<PushImage, PushImageError> {
    let record = store.get(id).ok_or_else(|| PushImageError::Gone { id: id.clone() })?;
    let config = store.content.read(id, RECORDED_MAX)?;
    let manifest = match &record.manifest {
        Some(descriptor) => {
            Some((descriptor.media_type.clone(), store.content.read(&descriptor.digest, DOCUMENT_MAX)?))
        }
        None => None,
    };
    let named: Vec<Digest> = match &manifest {
        Some((_, bytes)) => {
            let parsed: Manifest =
                serde_json::from_slice(bytes).map_err(|source| PushImageError::Manifest { id: id.clone(), source })?;
            parsed.layers.into_iter().map(|layer| layer.digest).collect()
        }
        None => Vec::new(),
    };
    let layers = record.config.rootfs.diff_ids.iter().zip(&record.chain).enumerate();
    let layers = layers.map(|(index, (diff_id, chain_id))| {
        let layer = store.read(|state| state.layers.get(chain_id).cloned());
        let known = layer.as_ref().and_then(|layer| layer.blob.clone());
        let is_named = index < named.len();
        let kept = named.get(index).cloned().or(known).map(|digest| open_kept(store, digest)).transpose()?;
        // Registries have no name for other compressions; a manifest that came from one may have.
        let kept = kept.filter(|kept| is_named || !matches!(kept.compression, Compression::Bzip2 | Compression::Xz));
        let tar_bytes = layer.as_ref().and_then(|layer| layer.recipe.as_ref()).map_or(0, |recipe| recipe.tar_bytes);
        let compressed = layer.and_then(|layer| layer.compressed).filter(StoredCompressed::comes_again);
        let compressor = compressed.as_ref().map_or(COMPRESSOR, StoredCompressed::compressor);
        let compressed = compressed.map(StoredCompressed::blob);
        Ok(PushLayer { diff_id: diff_id.clone(), kept, compressed, compressor, tar_bytes })
    });
    Ok(PushImage { config, manifest, layers: layers.collect::<Result<_, PushImageError>>()? })
}

pub(crate) fn open_kept(store: &Store, digest: Digest) -> Result<KeptBlob, PushImageError> {
    let mut file = store.content.reader(&digest)?;
    let mut start = Vec::new();
    let looked = (&file).take(4).read_to_end(&mut start).and_then(|_| file.rewind()).and_then(|()| file.metadata());
    let size = looked.map_err(|source| PushImageError::Layer { digest: digest.clone(), source })?.len();
    Ok(KeptBlob { blob: Blob { digest, size }, file, compression: Compression::detect(&start) })
}

/// An index, as it came and as it is understood.
#[derive(Debug)]
pub struct CameBy {
    /// Its address, length and type.
    pub descriptor: Descriptor,
    /// As it came.
    pub bytes: Vec<u8>,
    /// What it says.
    pub index: Index,
}

impl CameBy {
    /// What it names that is neither of these images nor of what is known about them. Pure.
    pub fn missing(&self, images: &[Arc<ImageRecord>], attestations: &[PushAttestation]) -> Vec<&Descriptor> {
        let kept = images.iter().filter_map(|image| image.manifest.as_ref());
        let known = attestations.iter().map(|one| &one.descriptor);
        let here: HashSet<&Digest> = kept.chain(known).map(|descriptor| &descriptor.digest).collect();
        self.index.manifests.iter().filter(|entry| !here.contains(&entry.digest)).collect()
    }
}

/// The index through which an image has a name, if it has it through one and that is kept. Blocks.
pub fn came_by(store: &Store, image: &ImageRecord, name: &Reference) -> Result<Option<CameBy>, PushImageError> {
    let kept = |index: &&Descriptor| store.content.contains(&index.digest);
    let Some(descriptor) = image.index_of(name).filter(kept) else { return Ok(None) };
    let bytes = store.content.read(&descriptor.digest, DOCUMENT_MAX)?;
    let failed = |source| PushImageError::Manifest { id: image.id.clone(), source };
    let index = serde_json::from_slice(&bytes).map_err(failed)?;
    Ok(Some(CameBy { descriptor: descriptor.clone(), bytes, index }))
}

/// An index of images that were pushed, type and bytes, for those that came through none that is kept. Pure.
pub fn index_of(pushed: Vec<Descriptor>) -> (String, Vec<u8>) {
    let kind = media_type::OCI_INDEX.to_owned();
    let index = Index { schema_version: 2, media_type: kind.clone(), manifests: pushed, annotations: BTreeMap::new() };
    (kind, serde_json::to_vec(&index).expect("documents have string keys and no failing serializers"))
}

/// Repositories of `registry` that have this layer, as far as is known: images of it were pulled from there, or pushed to.
pub fn repositories_with(store: &Store, registry: &str, layer: &Digest) -> Vec<Reference> {
    let made = |chain_id: &ChainId| {
        store.read(|state| {
            let compressed = state.layers.get(chain_id).and_then(|layer| layer.compressed.as_ref());
            compressed.is_some_and(|compressed| compressed.digest == *layer)
        })
    };
    let has = |record: &ImageRecord| record.layer_blobs.contains(layer) || record.chain.iter().any(made);
    let images = store.list();
    let names = |record: &Arc<ImageRecord>| [&record.references[..], &record.platform_of[..]].concat();
    let known: Vec<Reference> = images.iter().filter(|record| has(record)).flat_map(names).collect();
    let there = known.iter().filter(|name| name.digest().is_some() && name.domain() == registry);
    let mut paths: Vec<&str> = there.map(Reference::path).collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().filter_map(|path| format!("{registry}/{path}").parse().ok()).collect()
}

/// Remembers what a compressor made of a layer of an image, so that the next push need not do it.
pub fn remember_compressed(
    store: &Store,
    id: &Digest,
    index: usize,
    blob: &Blob,
    compressor: Compressor,
) -> Result<(), PushImageError> {
    let mut metadata = store.writer();
    let mut next = store.read(Clone::clone);
    let chain_id = next.images.get(id).and_then(|image| image.chain.get(index).cloned());
    // An image that was removed meanwhile needs no memory.
    let Some((chain_id, layer)) = chain_id.and_then(|chain| Some((chain.clone(), next.layers.get_mut(&chain)?))) else {
        return Ok(());
    };
    let Compressor { version, level, block_bytes } = compressor;
    let (digest, bytes) = (blob.digest.clone(), blob.size);
    layer.compressed = Some(StoredCompressed { digest, bytes, version, level, block_bytes });
    let change = Change { layers: vec![(chain_id, Some(layer.clone()))], ..Change::default() };
    metadata.commit(&change).map_err(|source| PushImageError::Record { source })?;
    store.replace(next);
    Ok(())
}

impl StoredCompressed {
    fn compressor(&self) -> Compressor {
        Compressor { version: self.version, level: self.level, block_bytes: self.block_bytes }
    }

    /// Whether this build makes the same bytes again: any level of its version does.
    fn comes_again(&self) -> bool {
        self.version == COMPRESSOR.version
    }

    fn blob(self) -> Blob {
        Blob { digest: self.digest, size: self.bytes }
    }
}

/// Gives a name to images for several platforms, of which it means the one for this machine. They have it through an index
/// that nobody keeps: a push makes one of what there is.
pub fn name_several(store: &Store, ids: &[Digest], name: &Reference) -> Result<Arc<ImageRecord>, TagError> {
    if name.digest().is_some() {
        return Err(TagError::Digest);
    }
    let mut metadata = store.writer();
    let now = stdx::time::Rfc3339::now().to_string();
    let before = store.read(Clone::clone);
    let mut next = before.clone();
    let images: Vec<_> = ids.iter().filter_map(|id| next.images.get(id).cloned()).collect();
    let entries = images.iter().map(|image| {
        let platform = Some(image.config.platform.clone());
        Descriptor { platform, ..descriptor(media_type::OCI_CONFIG, image.id.clone(), 0) }
    });
    let (index, _) = outcome_index(entries.collect(), BTreeMap::new());
    next.point(name, None, None);
    next.gather(name, &images, |_| Some(index.clone()), Some(&now));
    let record = resolve(&next, &name.to_string())?;
    let change = difference(&before, &next);
    metadata.commit(&change).map_err(|source| TagError::Record { source })?;
    store.replace(next);
    Ok(record)
}

/// Gives images the name under which a registry knows them now, `repository@digest`; several where it is that of an index.
/// Those that are gone meanwhile need none.
pub fn name_pushed(store: &Store, ids: &[Digest], name: &Reference) -> Result<(), PushImageError> {
    let mut metadata = store.writer();
    let before = store.read(Clone::clone);
    let mut next = before.clone();
    let images: Vec<_> = ids.iter().filter_map(|id| next.images.get(id).cloned()).collect();
    if images.is_empty() || next.group(name).iter().map(|image| &image.id).eq(ids) {
        return Ok(());
    }
    let pushed = |image: &ImageRecord| {
        let known = image.index.iter().chain(image.came_by.values());
        known.into_iter().find(|index| name.digest() == Some(&index.digest)).cloned()
    };
    next.point(name, None, None);
    next.gather(name, &images, pushed, None);
    let change = difference(&before, &next);
    metadata.commit(&change).map_err(|source| PushImageError::Record { source })?;
    store.replace(next);
    Ok(())
}
