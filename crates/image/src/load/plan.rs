//! Which images an archive describes. Pure.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use oci::image::{ArchiveManifest, Descriptor, History, ImageConfig, Index, Manifest, Platform};
use oci::{Digest, Reference};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::layout::{as_index, plan_indexes, plan_layout};
use super::spool::DOCUMENTS_MAX;
use super::{LoadError, WantedPlatform};
use crate::attestation::PlannedAttestation;

/// Indexes within indexes: a layout's own, an image's, and one to spare.
pub(super) const NESTING_MAX: usize = 4;

/// Layers of one image: dockerd's limit (moby layer/layer_store.go, `maxLayerDepth`), below what overlayfs takes.
pub(crate) const LAYERS_MAX: usize = 125;

/// Images of one archive. Each entry of a manifest is one, and a few bytes name it again and again.
const IMAGES_MAX: usize = 4096;

/// The documents of an archive, by path.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    pub(crate) files: HashMap<Vec<u8>, Vec<u8>>,
    /// Paths of layers.
    pub(crate) layers: HashSet<Vec<u8>>,
    /// Symbolic and hard links, with clean targets.
    pub(crate) links: HashMap<Vec<u8>, Vec<u8>>,
    /// Digests of files, computed when they are first wanted: many descriptors may name one blob.
    digests: RefCell<HashMap<Vec<u8>, Digest>>,
}

/// An image that the archive holds.
#[derive(Debug)]
pub(crate) struct PlannedImage {
    pub(crate) id: Digest,
    pub(crate) config: Vec<u8>,
    pub(crate) parsed: ImageConfig,
    pub(crate) layers: Vec<PlannedLayer>,
    pub(crate) references: Vec<Reference>,
    /// The OCI manifest and its bytes, if the archive has one for this image.
    pub(crate) manifest: Option<(Descriptor, Vec<u8>)>,
    /// The index through which it came, and its bytes; kept with the manifest.
    pub(crate) index: Option<(Descriptor, Vec<u8>)>,
    /// What that index names about it.
    pub(crate) attestations: Vec<PlannedAttestation>,
    /// The compressed layers that are kept with the manifest; known once they are verified.
    pub(crate) layer_blobs: Vec<Digest>,
    /// The image that it was built from, if it was built here.
    pub(crate) parent: Option<Digest>,
}

/// A layer of such an image.
#[derive(Debug)]
pub(crate) struct PlannedLayer {
    /// In the archive.
    pub(crate) path: Vec<u8>,
    /// What a manifest says it is.
    pub(crate) descriptor: Option<Descriptor>,
}

impl Documents {
    /// Where a path leads through links; a loop ends anywhere.
    pub(crate) fn follow(&self, path: &[u8]) -> Vec<u8> {
        let mut path = layer::clean_path(path).unwrap_or_default();
        for _ in 0..16 {
            match self.links.get(&path) {
                Some(target) => path.clone_from(target),
                None => break,
            }
        }
        path
    }

    fn find(&self, path: &str) -> Result<&[u8], LoadError> {
        let found = self.files.get(&self.follow(path.as_bytes()));
        found.map(Vec::as_slice).ok_or_else(|| LoadError::Missing { path: path.to_owned() })
    }

    /// A blob of an OCI layout, verified.
    pub(crate) fn blob(&self, descriptor: &Descriptor) -> Result<&[u8], LoadError> {
        let path = blob_path(&descriptor.digest);
        let bytes = self.find(&path)?;
        let actual = self.digest(self.follow(path.as_bytes()), bytes);
        match actual == descriptor.digest && bytes.len() as u64 == descriptor.size {
            true => Ok(bytes),
            false => Err(LoadError::Digest { path, expected: descriptor.digest.clone() }),
        }
    }

    fn digest(&self, path: Vec<u8>, bytes: &[u8]) -> Digest {
        let mut digests = self.digests.borrow_mut();
        digests.entry(path).or_insert_with(|| Digest::from_sha256(&Sha256::digest(bytes).into())).clone()
    }
}

pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8], path: &str) -> Result<T, LoadError> {
    serde_json::from_slice(bytes).map_err(|source| LoadError::Document { path: path.to_owned(), source })
}

/// The images of an archive, in its order. A docker-archive that is an OCI layout, too, is read as the former.
pub(crate) fn plan(
    documents: &Documents,
    platform: Option<&WantedPlatform<'_>>,
) -> Result<Vec<PlannedImage>, LoadError> {
    let layout = documents.find("index.json").ok();
    let Ok(manifest) = documents.find("manifest.json") else {
        let index = decode(layout.ok_or(LoadError::NoManifest)?, "index.json")?;
        return plan_layout(documents, &index, platform);
    };
    let manifest: Option<Vec<ArchiveManifest>> = decode(manifest, "manifest.json")?;
    // Only for the manifests: a layout that is broken does not matter to a docker-archive.
    let index = layout.and_then(|bytes| serde_json::from_slice::<Index>(bytes).ok());
    let manifest = manifest.ok_or(LoadError::NullManifest)?;
    let manifests = index.as_ref().map(|index| Manifests::of(documents, index)).unwrap_or_default();
    let mut archived = bounded(manifest.into_iter().map(|entry| plan_archive(documents, entry, &manifests)))?;
    archived.retain(|image| platform.is_none_or(|platform| (platform.is_wanted)(&image.parsed.platform)));
    let indexed = index.map(|index| plan_indexes(documents, &index, platform)).unwrap_or_default();
    let mut images = bounded(merge(indexed, archived).into_iter().map(Ok))?;
    check_parents(&mut images)?;
    Ok(images)
}

/// An image that is in an index of the layout, too, comes with all others of that index, and these get its names: an archive
/// means what its `manifest.json` says. An index of which that says nothing keeps its own.
fn merge(mut indexed: Vec<PlannedImage>, archived: Vec<PlannedImage>) -> Vec<PlannedImage> {
    let index_of = |image: &PlannedImage| image.index.as_ref().map(|(index, _)| index.digest.clone());
    let (mut named, mut others) = (HashMap::<Digest, Vec<Reference>>::new(), Vec::new());
    for image in archived {
        let same = indexed.iter().filter(|other| other.id == image.id);
        let of: HashSet<Digest> = same.filter_map(index_of).collect();
        for index in &of {
            let names = named.entry(index.clone()).or_default();
            let new = image.references.iter().filter(|name| !names.contains(name)).cloned();
            let new: Vec<Reference> = new.collect();
            names.extend(new);
        }
        if of.is_empty() {
            others.push(image);
        }
    }
    for image in &mut indexed {
        if let Some(names) = index_of(image).and_then(|index| named.get(&index)) {
            image.references.clone_from(names);
        }
    }
    indexed.into_iter().chain(others).collect()
}

/// Keeps parents that are in the archive, too, and are what the image could have been built from.
fn check_parents(images: &mut [PlannedImage]) -> Result<(), LoadError> {
    let positions: HashMap<Digest, usize> =
        images.iter().enumerate().map(|(index, image)| (image.id.clone(), index)).collect();
    for index in 0..images.len() {
        let Some(id) = images[index].parent.take().filter(|parent| *parent != images[index].id) else { continue };
        let Some(position) = positions.get(&id) else { continue };
        if !follows(&images[index].parsed.history, &images[*position].parsed.history) {
            return Err(LoadError::Parent { image: images[index].id.clone(), parent: id });
        }
        images[index].parent = Some(id);
    }
    Ok(())
}

/// Whether a history is another one and a step more; images need not have any (moby image/tarexport/load.go,
/// `checkValidParent`).
fn follows(history: &[History], before: &[History]) -> bool {
    match history.split_last() {
        None => before.is_empty(),
        Some((_, earlier)) => earlier == before,
    }
}

/// Collects images as long as they are not more than an archive can mean: each has a copy of its documents.
pub(super) fn bounded(
    images: impl Iterator<Item = Result<PlannedImage, LoadError>>,
) -> Result<Vec<PlannedImage>, LoadError> {
    let (mut planned, mut bytes) = (Vec::new(), 0);
    for image in images {
        let image = image?;
        let length = |document: &Option<(Descriptor, Vec<u8>)>| document.as_ref().map_or(0, |(_, bytes)| bytes.len());
        let beside: usize = image.attestations.iter().map(|one| one.manifest.len()).sum();
        bytes += (image.config.len() + length(&image.manifest) + length(&image.index) + beside) as u64;
        if planned.len() == IMAGES_MAX {
            return Err(LoadError::TooMuch { what: "number of images", limit: IMAGES_MAX as u64 });
        }
        if bytes > DOCUMENTS_MAX {
            return Err(LoadError::TooMuch { what: "size of all images' documents", limit: DOCUMENTS_MAX });
        }
        planned.push(image);
    }
    Ok(planned)
}

fn plan_archive(
    documents: &Documents,
    entry: ArchiveManifest,
    manifests: &Manifests<'_>,
) -> Result<PlannedImage, LoadError> {
    let config = documents.find(&entry.config)?;
    let parsed = parse_config(config, &entry.config, entry.layers.len())?;
    let id = documents.digest(documents.follow(entry.config.as_bytes()), config);
    let manifest = manifests.by_config.get(&id).map(|(descriptor, bytes)| (descriptor.clone(), bytes.to_vec()));
    let layers = entry.layers.into_iter().map(|path| PlannedLayer { path: path.into_bytes(), descriptor: None });
    let references = entry.repo_tags.unwrap_or_default().into_iter().map(|tag| {
        let reference: Reference = tag.parse()?;
        reference.tag().is_some().then(|| reference.clone()).ok_or_else(|| LoadError::Untagged(tag))
    });
    Ok(PlannedImage {
        id,
        config: config.to_vec(),
        parsed,
        layers: layers.collect(),
        references: references.collect::<Result<_, _>>()?,
        manifest,
        index: None,
        attestations: Vec::new(),
        layer_blobs: Vec::new(),
        // Something else than an id means nothing, as one that is not in the archive.
        parent: entry.parent.parse().ok(),
    })
}

pub(super) fn parse_config(config: &[u8], path: &str, layers: usize) -> Result<ImageConfig, LoadError> {
    #[derive(serde::Deserialize)]
    struct Outline {
        #[serde(default)]
        rootfs: Option<serde_json::Value>,
    }
    let outline: Outline = decode(config, path)?;
    outline.rootfs.ok_or(LoadError::NoRootFs)?;
    let parsed: ImageConfig = decode(config, path)?;
    if !matches!(&parsed.platform.os[..], "" | "linux") {
        return Err(LoadError::OperatingSystem { os: parsed.platform.os });
    }
    let actual = parsed.rootfs.diff_ids.len();
    if actual > LAYERS_MAX {
        return Err(LoadError::Depth);
    }
    match actual == layers {
        true => Ok(parsed),
        false => Err(LoadError::LayerCount { expected: layers, actual }),
    }
}

/// The manifests of a layout, by the configuration that they name.
#[derive(Default)]
struct Manifests<'a> {
    by_config: HashMap<Digest, (Descriptor, &'a [u8])>,
    /// Blobs that were looked at: an index that names another one many times, which does the same, must not multiply.
    seen: HashSet<Digest>,
}

impl<'a> Manifests<'a> {
    fn of(documents: &'a Documents, index: &Index) -> Manifests<'a> {
        let mut manifests = Manifests::default();
        manifests.collect(documents, &index.manifests, NESTING_MAX);
        manifests
    }

    fn collect(&mut self, documents: &'a Documents, descriptors: &[Descriptor], nesting: usize) {
        for descriptor in descriptors {
            let Ok(bytes) = documents.blob(descriptor) else { continue };
            if !self.seen.insert(descriptor.digest.clone()) {
                continue;
            }
            if let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) {
                self.by_config.entry(manifest.config.digest).or_insert_with(|| (bare(descriptor), bytes));
            } else if let (Some(index), Some(nesting)) = (as_index(bytes), nesting.checked_sub(1)) {
                self.collect(documents, &index.manifests, nesting);
            }
        }
    }
}

/// Without what an index says about it, which is not the manifest's.
pub(super) fn bare(descriptor: &Descriptor) -> Descriptor {
    Descriptor { annotations: Default::default(), platform: None, ..descriptor.clone() }
}

pub(crate) fn is_host(platform: &Platform) -> bool {
    platform.os == "linux" && platform.architecture == host_architecture()
}

/// Go's name of this machine's processor.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
