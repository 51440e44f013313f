//! What an index names beside an image and what is about it: where it came from, what is in it (buildx,
//! docs/attestations/attestation-storage.md). Nobody unpacks it; it is kept, so that the index can be given back whole.

use std::collections::HashSet;

use content::{Blob, Ingest, ReadError};
use oci::Digest;
use oci::image::{Descriptor, Index, Manifest};
use serde::{Deserialize, Serialize};

use crate::push::{KeptBlob, PushImageError, open_kept};
use crate::record::ImageRecord;
use crate::store::{DOCUMENT_MAX, Store};

/// How an entry of an index says that it is such a document.
pub(crate) const KIND: (&str, &str) = ("vnd.docker.reference.type", "attestation-manifest");

/// The manifest of the image that it is about.
pub(crate) const ABOUT: &str = "vnd.docker.reference.digest";

/// How many are kept of one image. buildx writes one, with a layer for each statement.
const ATTESTATIONS_MAX: usize = 16;

/// Blobs of one of them.
const BLOBS_MAX: usize = 64;

/// What all of one image may take together; a list of all programs in a large image has some 20 MiB. What is longer is not
/// fetched: an index is hostile, and says nothing beforehand of what it makes us store.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A document beside an image that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The index that names it.
    pub index: Digest,
    /// Its manifest, as the index says.
    pub manifest: Descriptor,
    /// All that this names.
    pub blobs: Vec<Digest>,
}

impl Attestation {
    /// Everything that is kept of it.
    pub(crate) fn contents(&self) -> impl Iterator<Item = &Digest> {
        std::iter::once(&self.manifest.digest).chain(&self.blobs)
    }
}

/// Such a document as it came, verified by whoever fetched it.
#[derive(Debug)]
pub struct PulledAttestation {
    /// What the index says of it.
    pub descriptor: Descriptor,
    /// Its manifest's bytes.
    pub manifest: Vec<u8>,
    /// What this names.
    pub blobs: Vec<Ingest>,
}

/// Such a document on its way into the store.
#[derive(Debug)]
pub(crate) struct PlannedAttestation {
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: Vec<u8>,
    pub(crate) blobs: Vec<Descriptor>,
}

/// What an index names about the image of that manifest, as much as is kept. Pure.
pub fn attestations_of(index: &Index, manifest: &Digest) -> Vec<Descriptor> {
    let about = |entry: &&Descriptor| {
        is_attestation(entry) && entry.annotations.get(ABOUT).is_some_and(|about| about == manifest.as_str())
    };
    let mut found: Vec<Descriptor> = Vec::new();
    for entry in index.manifests.iter().filter(about) {
        if found.len() < ATTESTATIONS_MAX && !found.iter().any(|other| other.digest == entry.digest) {
            found.push(entry.clone());
        }
    }
    found
}

/// Whether an entry of an index says that it is such a document.
pub fn is_attestation(entry: &Descriptor) -> bool {
    entry.annotations.get(KIND.0).is_some_and(|kind| kind == KIND.1)
}

/// The blobs of such a manifest, each once, if it is one and they are no more than `room` bytes; what is left of that. Pure.
pub fn attestation_blobs(manifest: &[u8], room: u64) -> Option<(Vec<Descriptor>, u64)> {
    let manifest: Manifest = serde_json::from_slice(manifest).ok()?;
    let mut seen = HashSet::new();
    let all = std::iter::once(manifest.config).chain(manifest.layers);
    let blobs: Vec<Descriptor> = all.filter(|blob| seen.insert(blob.digest.clone())).collect();
    let left = blobs.iter().try_fold(room, |room, blob| room.checked_sub(blob.size))?;
    (blobs.len() <= BLOBS_MAX).then_some((blobs, left))
}

/// How many bytes all of one image may take.
pub fn attestations_room() -> u64 {
    BYTES_MAX
}

impl ImageRecord {
    /// What is kept about it of the indexes through which it is known still.
    pub fn attestations(&self) -> impl Iterator<Item = &Attestation> {
        let mut indexes = self.index.iter().chain(self.came_by.values());
        let known: HashSet<&Digest> = indexes.by_ref().map(|index| &index.digest).collect();
        self.attested.iter().filter(move |one| known.contains(&one.index))
    }

    /// Whether everything is here that an index names about it.
    pub fn is_attested(&self, index: &Descriptor, named: &Index) -> bool {
        let Some(manifest) = &self.manifest else { return true };
        let here: HashSet<&Digest> =
            self.attested.iter().filter(|one| one.index == index.digest).map(|one| &one.manifest.digest).collect();
        attestations_of(named, &manifest.digest).iter().all(|entry| here.contains(&entry.digest))
    }
}

/// Such a document as it goes to a registry: its blobs are open, so that they stay until they are sent.
#[derive(Debug)]
pub struct PushAttestation {
    /// Of its manifest.
    pub descriptor: Descriptor,
    /// Its manifest's bytes.
    pub manifest: Vec<u8>,
    /// What this names.
    pub blobs: Vec<KeptBlob>,
}

/// Reads what a push of all that an index names about an image needs. What is not here any more is left out. Blocks.
pub fn push_attestations(
    store: &Store,
    image: &ImageRecord,
    index: &Digest,
) -> Result<Vec<PushAttestation>, PushImageError> {
    let mut all = Vec::new();
    for one in image.attestations().filter(|one| one.index == *index) {
        match open(store, one) {
            // A version that knows nothing of it has removed it.
            Err(PushImageError::Read(ReadError::NotFound { .. })) => {}
            opened => all.push(opened?),
        }
    }
    Ok(all)
}

fn open(store: &Store, one: &Attestation) -> Result<PushAttestation, PushImageError> {
    let manifest = store.content.read(&one.manifest.digest, DOCUMENT_MAX)?;
    let blobs = one.blobs.iter().map(|blob| open_kept(store, blob.clone())).collect::<Result<_, _>>()?;
    Ok(PushAttestation { descriptor: one.manifest.clone(), manifest, blobs })
}

impl PushAttestation {
    /// Its blobs' addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &Blob> {
        self.blobs.iter().map(|kept| &kept.blob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u64) -> Digest {
        format!("sha256:{number:064x}").parse().unwrap()
    }

    fn entry(number: u64, kind: &str, about: u64) -> serde_json::Value {
        serde_json::json!({
            "mediaType": "m", "digest": digest(number), "size": 2,
            "platform": {"architecture": "unknown", "os": "unknown"},
            "annotations": {"vnd.docker.reference.type": kind, "vnd.docker.reference.digest": digest(about)},
        })
    }

    #[test]
    fn an_index_names_few_documents_about_an_image() {
        let mut entries = vec![entry(5, "attestation-manifest", 2), entry(6, "other", 1)];
        entries.extend((100..200).map(|number| entry(number, "attestation-manifest", 1)));
        entries.insert(0, entry(100, "attestation-manifest", 1));
        let index = serde_json::json!({"schemaVersion": 2, "manifests": entries});
        let index: Index = serde_json::from_value(index).unwrap();
        let found = attestations_of(&index, &digest(1));
        let digests: Vec<Digest> = found.into_iter().map(|one| one.digest).collect();
        assert_eq!(digests, (100..116).map(digest).collect::<Vec<_>>());
        assert_eq!(attestations_of(&index, &digest(2)).len(), 1);
        assert_eq!(attestations_of(&index, &digest(3)), []);
    }

    #[test]
    fn what_is_too_much_is_not_kept() {
        let blob =
            |number: u64, size: u64| serde_json::json!({"mediaType": "m", "digest": digest(number), "size": size});
        let manifest = |layers: Vec<serde_json::Value>| {
            serde_json::json!({"schemaVersion": 2, "config": blob(0, 2), "layers": layers}).to_string().into_bytes()
        };
        let left = |layers, room| attestation_blobs(&manifest(layers), room).map(|(blobs, left)| (blobs.len(), left));
        assert_eq!(left(vec![blob(1, 5), blob(1, 5), blob(0, 2)], 10), Some((2, 3)));
        assert_eq!(left(vec![blob(1, 9)], 10), None);
        assert_eq!(left(vec![blob(1, u64::MAX), blob(2, u64::MAX)], u64::MAX), None);
        assert_eq!(left((1..64).map(|number| blob(number, 1)).collect(), 1000), Some((64, 935)));
        assert_eq!(left((1..65).map(|number| blob(number, 1)).collect(), 1000), None);
        assert_eq!(attestation_blobs(b"{}", 10), None);
    }
}
