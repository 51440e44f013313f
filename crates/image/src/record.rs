//! What is known of an image and of a layer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use oci::image::{Descriptor, ImageConfig};
use oci::{Digest, Reference};
use serde::{Deserialize, Serialize};
use snapshot::ChainId;

use crate::attestation::Attestation;

/// Everything about one image, shared; a change makes a new one.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRecord {
    /// The digest of its configuration's bytes.
    pub id: Digest,
    /// The configuration: platform, defaults of a container, history, layers.
    pub config: Arc<ImageConfig>,
    /// Length of the configuration's bytes.
    pub config_bytes: u64,
    /// Snapshots of its layers, lowest first: what `snapshot::Snapshots::prepare` takes. The last one is the image's tree.
    pub chain: Vec<ChainId>,
    /// Lengths of all files of all layers: what `docker images` shows.
    pub size_bytes: u64,
    /// Its names, tags and digests, sorted.
    pub references: Vec<Reference>,
    /// The manifest it came with, if that and its layers are kept.
    pub manifest: Option<Descriptor>,
    /// The compressed layers that this manifest names; kept with it.
    pub layer_blobs: Vec<Digest>,
    /// The index through which it came last, if it came through one.
    pub index: Option<Descriptor>,
    /// The index through which it came by each of its names, for those that it has from one.
    pub came_by: BTreeMap<String, Descriptor>,
    /// What is kept about it; [`ImageRecord::attestations`] says what of that counts.
    pub attested: Vec<Attestation>,
    /// Names that mean another image here, and this one where its platform is asked for. Sorted.
    pub platform_of: Vec<Reference>,
    /// The image it was built from, if that is known and here.
    pub parent: Option<Digest>,
    /// When a name was last given to it, RFC 3339; inspect's `Metadata.LastTagTime`.
    pub last_tagged: Option<String>,
}

impl ImageRecord {
    /// The first 12 digits of the id.
    pub fn short_id(&self) -> &str {
        short(&self.id)
    }

    /// `busybox:latest` and so on.
    pub fn repo_tags(&self) -> Vec<String> {
        let tagged = self.references.iter().filter(|reference| reference.tag().is_some());
        tagged.map(Reference::familiar).collect()
    }

    /// `busybox@sha256:...` and so on.
    pub fn repo_digests(&self) -> Vec<String> {
        let digested = self.references.iter().filter(|reference| reference.digest().is_some());
        digested.map(Reference::familiar).collect()
    }

    /// Whether it is here for the sake of another image alone, whose names it has for its platform.
    pub fn is_beside(&self) -> bool {
        self.references.is_empty() && !self.platform_of.is_empty()
    }

    /// The index through which it has that name.
    pub fn index_of(&self, name: &Reference) -> Option<&Descriptor> {
        // Earlier versions recorded one index for all names.
        let only = self.index.as_ref().filter(|_| self.came_by.is_empty());
        self.came_by.get(&name.to_string()).or(only)
    }

    /// When it was made, RFC 3339, as its configuration says.
    pub fn created(&self) -> Option<&str> {
        self.config.created.as_deref()
    }
}

pub(crate) fn short(id: &Digest) -> &str {
    &id.hex()[..12]
}

/// An image as the database holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredImage {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) manifest: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) layer_blobs: Vec<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) came_by: BTreeMap<String, Descriptor>,
    /// Versions that do not know it collect the blobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) attested: Vec<Attestation>,
    /// Versions that do not know it keep one image a name, and see this one without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) platform_of: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_tagged: Option<String>,
}

/// A layer snapshot as the database holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredLayer {
    pub(crate) diff_id: Digest,
    /// Lengths of its files.
    pub(crate) size_bytes: u64,
    /// Directories that it only implies; a second copy at another place must inherit them anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) implied: Vec<Vec<u8>>,
    /// What it deletes; another place may have less to delete, or more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) whiteouts: Vec<Vec<u8>>,
    /// A compressed form of it that is kept. A manifest may name another one: the image knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) blob: Option<Digest>,
    /// What its tar was besides this directory. Layers that were stored by a version without recipes have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) recipe: Option<StoredRecipe>,
    /// What it was when it was compressed for a registry. No copy is kept: it can be made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) compressed: Option<StoredCompressed>,
}

/// A compressed form of a layer that is not kept, and how it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredCompressed {
    pub(crate) digest: Digest,
    /// Its length.
    pub(crate) bytes: u64,
    /// Of the compressor.
    pub(crate) version: u32,
    /// Deflate's.
    pub(crate) level: u32,
    pub(crate) block_bytes: u32,
}

/// The blob that makes a layer's tar of its directory again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredRecipe {
    pub(crate) digest: Digest,
    /// Its length.
    pub(crate) bytes: u64,
    /// The tar's.
    pub(crate) tar_bytes: u64,
}

impl StoredLayer {
    /// The blobs that it needs.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Digest> {
        self.blob.iter().chain(self.recipe.iter().map(|recipe| &recipe.digest))
    }
}

/// Everything in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) images: BTreeMap<Digest, Arc<ImageRecord>>,
    pub(crate) references: BTreeMap<String, (Reference, Digest)>,
    pub(crate) layers: HashMap<ChainId, StoredLayer>,
}

impl State {
    /// The ids that begin with these hex digits; at most two, which is enough to know whether it is one.
    pub(crate) fn by_prefix(&self, hex: &str) -> Vec<&Arc<ImageRecord>> {
        let all = self.images.iter().skip_while(|(id, _)| id.hex() < hex);
        all.take_while(|(id, _)| id.hex().starts_with(hex)).take(2).map(|(_, record)| record).collect()
    }

    pub(crate) fn children(&self, id: &Digest) -> bool {
        self.images.values().any(|record| record.parent.as_ref() == Some(id))
    }

    /// Sets which image a name means, or that it means none. What was kept beside another image loses the name, too.
    pub(crate) fn point(&mut self, reference: &Reference, target: Option<&Digest>, now: Option<&str>) {
        let name = reference.to_string();
        if self.references.get(&name).map(|(_, old)| old) != target {
            self.disperse(reference);
        }
        if let Some((_, old)) = self.references.remove(&name) {
            self.change(&old, |record| {
                record.references.retain(|other| other != reference);
                if target != Some(&old) {
                    record.came_by.remove(&name);
                }
            });
        }
        if let Some(id) = target {
            self.references.insert(name, (reference.clone(), id.clone()));
            self.change(id, |record| {
                record.references.push(reference.clone());
                record.references.sort_by_key(Reference::to_string);
                record.last_tagged = now.map(str::to_owned).or(record.last_tagged.take());
            });
        }
    }

    pub(crate) fn change(&mut self, id: &Digest, change: impl FnOnce(&mut ImageRecord)) {
        if let Some(record) = self.images.get_mut(id) {
            change(Arc::make_mut(record));
        }
    }
}

pub(crate) fn stored(record: &ImageRecord) -> StoredImage {
    StoredImage {
        manifest: record.manifest.clone(),
        layer_blobs: record.layer_blobs.clone(),
        index: record.index.clone(),
        came_by: record.came_by.clone(),
        attested: record.attestations().cloned().collect(),
        platform_of: record.platform_of.iter().map(Reference::to_string).collect(),
        parent: record.parent.clone(),
        last_tagged: record.last_tagged.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_other_versions_are_read() {
        let old = r#"{"last_tagged":"2026-01-01T00:00:00Z"}"#;
        let read: StoredImage = serde_json::from_str(old).unwrap();
        assert_eq!((&read.index, read.platform_of.len(), read.came_by.len()), (&None, 0, 0));
        // What is new is not written where it says nothing, and whatever a later version adds is passed by.
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
        let later = r#"{"last_tagged":"2026-01-01T00:00:00Z","platform_of":["a:1"],"later":1}"#;
        assert_eq!(serde_json::from_str::<StoredImage>(later).unwrap().platform_of, ["a:1"]);
    }
}
