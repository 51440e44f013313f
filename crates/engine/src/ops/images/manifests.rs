//! What a name stands for, platform by platform: `manifests=1` of API 1.48.

use std::sync::Arc;

use engine_api::image::{AttestationData, ImageData, ManifestSize, ManifestSummary, Summary, UnpackedSize};
use image::{Attestation, ImageRecord};
use oci::Digest;
use oci::image::{Descriptor, Index, Manifest};
use tracing::debug;

use crate::Engine;
use crate::ops::images::signed;

/// The longest document that the store holds.
const DOCUMENT_MAX: u64 = 4 * 1024 * 1024;

/// How many of an index's entries are told. An index of 4 MiB names more than 20,000, none of which anybody could read.
const ENTRIES_MAX: usize = 1024;

/// The image that it is about.
const ATTESTATION_FOR: &str = "vnd.docker.reference.digest";

type Manifests = (Option<Descriptor>, Option<Vec<ManifestSummary>>);

/// Adds what each image consists of. Its size is then that of all that is here of it.
pub(super) async fn add(engine: &Engine, images: Vec<Arc<ImageRecord>>, summaries: Vec<Summary>) -> Vec<Summary> {
    let task = engine.clone();
    bridge::blocking(move || {
        let one = |(image, mut summary): (Arc<ImageRecord>, Summary)| {
            (summary.descriptor, summary.manifests) = look(&task, &image);
            if let Some(manifests) = &summary.manifests {
                summary.size = manifests.iter().fold(0, |sum: i64, one| sum.saturating_add(one.size.total));
            }
            summary
        };
        images.into_iter().zip(summaries).map(one).collect()
    })
    .await
}

/// The same of one image.
pub(super) async fn of_image(engine: &Engine, image: Arc<ImageRecord>) -> Manifests {
    let task = engine.clone();
    bridge::blocking(move || look(&task, &image)).await
}

/// Blocks.
fn look(engine: &Engine, image: &Arc<ImageRecord>) -> Manifests {
    let mut images = vec![Arc::clone(image)];
    for name in image.references.iter().chain(&image.platform_of) {
        let all = image::resolve_all(&engine.images, &name.to_string()).unwrap_or_default();
        let known = |other: &ImageRecord| images.iter().any(|image| image.id == other.id);
        let new: Vec<_> = all.into_iter().filter(|other| !known(other)).collect();
        images.extend(new);
    }
    let containers = engine.containers.all();
    let users = |image: &ImageRecord| {
        let of_image = containers.iter().filter(|container| container.definition.image_id == image.id.as_str());
        of_image.map(|container| container.id().to_string()).collect()
    };
    let mut kept: Vec<ManifestSummary> = Vec::new();
    for image in &images {
        let Some(descriptor) = &image.manifest else { continue };
        kept.push(kept_image(image, descriptor, content_bytes(engine, image, descriptor), users(image)));
    }
    let index = image.index.as_ref().filter(|_| image.manifest.is_some());
    let about = images.iter().flat_map(|image| image.attestations());
    let about: Vec<_> = about.filter(|one| index.is_some_and(|index| one.index == index.digest)).collect();
    // What is not there any more has no size, and is told as if it were not.
    let size = |blob: &Digest| engine.images.content().size(blob).ok().flatten();
    kept.extend(about.into_iter().filter_map(|one| {
        let mut sizes = one.blobs.iter().map(size);
        let bytes = sizes.try_fold(one.manifest.size, |sum, bytes| Some(sum.saturating_add(bytes?)))?;
        Some(kept_attestation(one, signed(bytes)))
    }));
    let entries = index.and_then(|index| read::<Index>(engine, index)).map(|index| index.manifests);
    let target = index.or(image.manifest.as_ref()).cloned();
    let manifests = with_entries(kept, entries.unwrap_or_default());
    (target, Some(manifests).filter(|manifests| !manifests.is_empty()))
}

/// What is kept in the order of the index, and among it what the index names besides. Pure.
fn with_entries(mut kept: Vec<ManifestSummary>, entries: Vec<Descriptor>) -> Vec<ManifestSummary> {
    let mut all = Vec::new();
    for entry in entries.into_iter().take(ENTRIES_MAX) {
        let here = kept.iter().position(|one| one.id == entry.digest.as_str());
        all.push(match here.map(|position| kept.remove(position)) {
            Some(mut here) => {
                if let (Some(image), Some(platform)) = (&mut here.image_data, &entry.platform) {
                    image.platform.clone_from(platform);
                }
                ManifestSummary { descriptor: entry, ..here }
            }
            None => absent(entry),
        });
    }
    all.extend(kept);
    all
}

fn kept_image(
    image: &ImageRecord,
    descriptor: &Descriptor,
    content_bytes: u64,
    containers: Vec<String>,
) -> ManifestSummary {
    let total = content_bytes.saturating_add(image.size_bytes);
    ManifestSummary {
        id: descriptor.digest.to_string(),
        descriptor: descriptor.clone(),
        available: true,
        size: ManifestSize { content: signed(content_bytes), total: signed(total) },
        kind: "image".to_owned(),
        image_data: Some(ImageData {
            platform: image.config.platform.clone(),
            size: UnpackedSize { unpacked: signed(image.size_bytes) },
            containers,
        }),
        attestation_data: None,
    }
}

/// What is kept about an image.
fn kept_attestation(one: &Attestation, bytes: i64) -> ManifestSummary {
    ManifestSummary {
        id: one.manifest.digest.to_string(),
        descriptor: one.manifest.clone(),
        available: true,
        size: ManifestSize { content: bytes, total: bytes },
        kind: "attestation".to_owned(),
        image_data: None,
        attestation_data: Some(about(&one.manifest)),
    }
}

fn about(entry: &Descriptor) -> AttestationData {
    AttestationData { of: entry.annotations.get(ATTESTATION_FOR).cloned().unwrap_or_default() }
}

/// What the index names and nobody fetched.
fn absent(entry: Descriptor) -> ManifestSummary {
    let (kind, image_data, attestation_data) = match &entry.platform {
        _ if image::is_attestation(&entry) => ("attestation", None, Some(about(&entry))),
        Some(platform) => {
            let platform = platform.clone();
            ("image", Some(ImageData { platform, size: UnpackedSize::default(), containers: Vec::new() }), None)
        }
        None => ("unknown", None, None),
    };
    ManifestSummary {
        id: entry.digest.to_string(),
        descriptor: entry,
        available: false,
        size: ManifestSize::default(),
        kind: kind.to_owned(),
        image_data,
        attestation_data,
    }
}

/// Bytes of the blobs that are kept of an image: manifest, configuration, compressed layers.
fn content_bytes(engine: &Engine, image: &ImageRecord, descriptor: &Descriptor) -> u64 {
    let layers = read::<Manifest>(engine, descriptor).map(|manifest| manifest.layers).unwrap_or_default();
    let layers = layers.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.size));
    layers.saturating_add(descriptor.size).saturating_add(image.config_bytes)
}

/// A document that is kept; one that cannot be read is told as if it were not.
fn read<T: serde::de::DeserializeOwned>(engine: &Engine, descriptor: &Descriptor) -> Option<T> {
    let bytes = engine.images.content().read(&descriptor.digest, DOCUMENT_MAX);
    let bytes = bytes.inspect_err(|err| debug!("a document is not told: {}", errdefs::chain(err))).ok()?;
    serde_json::from_slice(&bytes).ok()
}
