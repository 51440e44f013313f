//! Which images an OCI layout holds (image-spec v1.1 image-layout.md). Pure.

use std::collections::HashSet;

use oci::image::{Descriptor, Index, Manifest};
use oci::{Digest, Reference};

use super::plan::{
    Documents, NESTING_MAX, PlannedImage, PlannedLayer, bare, blob_path, bounded, decode, host_architecture, is_host,
    parse_config,
};
use super::{LoadError, WantedPlatform};
use crate::attestation::{PlannedAttestation, attestation_blobs, attestations_of, attestations_room, is_attestation};

/// The names that annotate a manifest in a layout's index; the first is containerd's, with the repository.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// The images of a layout that is no docker-archive.
pub(super) fn plan_layout(
    documents: &Documents,
    index: &Index,
    platform: Option<&WantedPlatform<'_>>,
) -> Result<Vec<PlannedImage>, LoadError> {
    let Some(platform) = platform else {
        let for_us = |descriptor: &&Descriptor| descriptor.platform.as_ref().is_none_or(is_host);
        let mut wanted: Vec<&Descriptor> = index.manifests.iter().filter(for_us).collect();
        if let ([], [only]) = (&wanted[..], &index.manifests[..]) {
            // Asked for by whoever made the archive: loaded for another platform, as dockerd would.
            wanted.push(only);
        }
        return bounded(wanted.into_iter().flat_map(|named| each(plan_named(documents, named, None))));
    };
    let is_wanted = platform.is_wanted;
    let wanted = index.manifests.iter().filter(|one| one.platform.as_ref().is_none_or(is_wanted));
    let mut images = bounded(wanted.flat_map(|named| each(plan_named(documents, named, Some(platform)))))?;
    // A manifest that stands alone says its platform only in the configuration.
    images.retain(|image| is_wanted(&image.parsed.platform));
    match images[..] {
        [] if !index.manifests.is_empty() => Err(LoadError::Platform { platform: platform.text.clone() }),
        _ => Ok(images),
    }
}

/// The images of the indexes that a layout names, each index once. What is broken is left out: it is beside a docker-archive,
/// which has its own word.
pub(super) fn plan_indexes(
    documents: &Documents,
    index: &Index,
    platform: Option<&WantedPlatform<'_>>,
) -> Vec<PlannedImage> {
    let mut seen = HashSet::new();
    let named = index.manifests.iter().filter(|named| seen.insert(named.digest.clone()));
    let is_index = |named: &&Descriptor| documents.blob(named).is_ok_and(|bytes| as_index(bytes).is_some());
    let planned = named.filter(is_index).filter_map(|named| plan_named(documents, named, platform).ok());
    bounded(planned.flatten().map(Ok)).unwrap_or_default()
}

fn each(images: Result<Vec<PlannedImage>, LoadError>) -> Vec<Result<PlannedImage, LoadError>> {
    match images {
        Ok(images) => images.into_iter().map(Ok).collect(),
        Err(err) => vec![Err(err)],
    }
}

/// The images that an entry of a layout's own index stands for: itself, or what is here of an index.
fn plan_named(
    documents: &Documents,
    named: &Descriptor,
    platform: Option<&WantedPlatform<'_>>,
) -> Result<Vec<PlannedImage>, LoadError> {
    let references: Vec<Reference> = name(named)?.into_iter().collect();
    let bytes = documents.blob(named)?;
    let Some(index) = as_index(bytes) else {
        let image = plan_manifest(documents, named, None)?;
        return Ok(vec![PlannedImage { references, ..image }]);
    };
    let outermost = (bare(named), bytes, &index);
    let chosen = match platform {
        Some(platform) => vec![one_for(documents, &index, platform)?],
        None => all_here(documents, &index)?,
    };
    let planned = bounded(chosen.iter().map(|manifest| plan_manifest(documents, manifest, Some(&outermost))));
    Ok(planned?.into_iter().map(|image| PlannedImage { references: references.clone(), ..image }).collect())
}

/// The manifest for a platform: the first that fits, in an index of an index, too.
fn one_for(documents: &Documents, index: &Index, platform: &WantedPlatform<'_>) -> Result<Descriptor, LoadError> {
    let mut nested = None;
    for _ in 0..NESTING_MAX {
        let entries = &nested.as_ref().unwrap_or(index).manifests;
        let wanted = entries.iter().find(|one| one.platform.as_ref().is_none_or(platform.is_wanted)).cloned();
        let wanted = wanted.ok_or_else(|| LoadError::Platform { platform: platform.text.clone() })?;
        match as_index(documents.blob(&wanted)?) {
            Some(index) => nested = Some(index),
            None => return Ok(wanted),
        }
    }
    Err(LoadError::Nesting)
}

/// The manifests of all images of an index that are whole in the archive. The one for this machine is among them even if it
/// is not: then it is broken.
fn all_here(documents: &Documents, index: &Index) -> Result<Vec<Descriptor>, LoadError> {
    let (mut seen, mut here) = (HashSet::new(), Vec::new());
    collect(documents, index, NESTING_MAX, &mut seen, &mut here)?;
    if here.is_empty() {
        let host = WantedPlatform { text: format!("linux/{}", host_architecture()), is_wanted: &is_host };
        here.push(one_for(documents, index, &host)?);
    }
    // The last one is what the name means where none is for this machine: then it shall be the first of the index.
    here.reverse();
    Ok(here)
}

fn collect(
    documents: &Documents,
    index: &Index,
    nesting: usize,
    seen: &mut HashSet<Digest>,
    here: &mut Vec<Descriptor>,
) -> Result<(), LoadError> {
    for entry in index.manifests.iter().filter(|entry| may_be_image(entry)) {
        if !seen.insert(entry.digest.clone()) {
            continue;
        }
        let bytes = match documents.blob(entry) {
            Err(LoadError::Missing { .. }) => continue,
            found => found?,
        };
        if let Some(index) = as_index(bytes) {
            let nesting = nesting.checked_sub(1).ok_or(LoadError::Nesting)?;
            collect(documents, &index, nesting, seen, here)?;
        } else if entry.platform.as_ref().is_some_and(is_host) || is_whole(documents, bytes) {
            here.push(entry.clone());
        }
    }
    Ok(())
}

/// Whether an index does not say that it is something else, or for another system.
fn may_be_image(entry: &Descriptor) -> bool {
    !is_attestation(entry) && entry.platform.as_ref().is_none_or(|one| matches!(&one.os[..], "" | "linux"))
}

/// Whether all that a manifest names is in the archive, whatever it is worth: archives may hold a part of an index alone.
fn is_whole(documents: &Documents, manifest: &[u8]) -> bool {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(manifest) else { return false };
    let is_here = |blob: &Descriptor| {
        let path = documents.follow(blob_path(&blob.digest).as_bytes());
        documents.files.contains_key(&path) || documents.layers.contains(&path)
    };
    is_here(&manifest.config) && manifest.layers.iter().all(is_here)
}

/// An image, and the index through which it came with what that names about it.
fn plan_manifest(
    documents: &Documents,
    descriptor: &Descriptor,
    outermost: Option<&(Descriptor, &[u8], &Index)>,
) -> Result<PlannedImage, LoadError> {
    let (path, bytes) = (blob_path(&descriptor.digest), documents.blob(descriptor)?);
    let manifest: Manifest = decode(bytes, &path)?;
    let config = documents.blob(&manifest.config)?;
    let parsed = parse_config(config, &blob_path(&manifest.config.digest), manifest.layers.len())?;
    let layers = manifest.layers.into_iter();
    let layers =
        layers.map(|layer| PlannedLayer { path: blob_path(&layer.digest).into_bytes(), descriptor: Some(layer) });
    let attestations = outermost.map(|(_, _, index)| attestations(documents, index, &descriptor.digest));
    Ok(PlannedImage {
        id: manifest.config.digest,
        config: config.to_vec(),
        parsed,
        layers: layers.collect(),
        references: Vec::new(),
        manifest: Some((bare(descriptor), bytes.to_vec())),
        index: outermost.map(|(descriptor, bytes, _)| (descriptor.clone(), bytes.to_vec())),
        attestations: attestations.unwrap_or_default(),
        layer_blobs: Vec::new(),
        parent: None,
    })
}

/// What an index names about an image, and is in the archive.
fn attestations(documents: &Documents, index: &Index, manifest: &Digest) -> Vec<PlannedAttestation> {
    let (mut room, mut found) = (attestations_room(), Vec::new());
    for descriptor in attestations_of(index, manifest) {
        let Ok(manifest) = documents.blob(&descriptor) else { continue };
        let Some((blobs, left)) = attestation_blobs(manifest, room) else { continue };
        room = left;
        found.push(PlannedAttestation { descriptor, manifest: manifest.to_vec(), blobs });
    }
    found
}

/// Told by its fields: media types may be left out of OCI documents.
pub(super) fn as_index(bytes: &[u8]) -> Option<Index> {
    serde_json::from_slice(bytes).ok()
}

/// `None` for a bare tag such as `latest`, which names no repository.
fn name(descriptor: &Descriptor) -> Result<Option<Reference>, LoadError> {
    let annotation = NAME_ANNOTATIONS.iter().find_map(|key| descriptor.annotations.get(*key));
    match annotation.filter(|name| name.contains(['/', ':'])) {
        Some(name) => Ok(Some(name.parse::<Reference>()?.with_default_tag())),
        None => Ok(None),
    }
}
