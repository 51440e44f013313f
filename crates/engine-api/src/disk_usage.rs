//! What everything takes on disk, and what prunes of images, networks and build caches free.

use serde::{Deserialize, Serialize};

use crate::container;
use crate::image::{self, Deleted};
use crate::volume::Volume;

/// Answer to `GET /system/df`. What was not asked for is `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DiskUsage {
    /// Bytes of all layers, each counted once, and of what cut pulls have left.
    pub layers_size: i64,
    /// Images, with what they share.
    pub images: Option<Vec<image::Summary>>,
    /// All containers, with their sizes.
    pub containers: Option<Vec<container::Summary>>,
    /// Volumes that lie in the engine's own directory.
    pub volumes: Option<Vec<Volume>>,
    /// Records of the build cache.
    pub build_cache: Option<Vec<CacheRecord>>,
}

/// A record of the build cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CacheRecord {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// The records that it was made of. The blank is dockerd's.
    #[serde(rename = " Parents", skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
    /// What it is of: `regular`, `source.local`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What made it.
    pub description: String,
    /// A build uses it.
    pub in_use: bool,
    /// Several records have its bytes.
    pub shared: bool,
    /// Bytes.
    pub size: i64,
    /// When it was made: RFC 3339.
    pub created_at: String,
    /// When it was used last, where that is known: RFC 3339.
    pub last_used_at: Option<String>,
    /// How often it was used, as far as that is counted.
    pub usage_count: i64,
}

/// Which parts of the disk usage are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageParts {
    /// Images and layers.
    pub images: bool,
    /// Containers.
    pub containers: bool,
    /// Volumes.
    pub volumes: bool,
    /// The build cache.
    pub build_cache: bool,
}

/// There is nothing of this kind to be measured. The text is dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown object type: {0}")]
pub struct UnknownPart(pub String);

impl UsageParts {
    /// All of it.
    pub const ALL: UsageParts = UsageParts { images: true, containers: true, volumes: true, build_cache: true };

    /// The parts of these names.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<UsageParts, UnknownPart> {
        let mut parts = UsageParts::default();
        for name in names {
            match name {
                "image" => parts.images = true,
                "container" => parts.containers = true,
                "volume" => parts.volumes = true,
                "build-cache" => parts.build_cache = true,
                other => return Err(UnknownPart(other.to_owned())),
            }
        }
        Ok(parts)
    }
}

/// Answer to `POST /images/prune`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImagesPruned {
    /// Names, images and layers that are gone; null where nothing is.
    pub images_deleted: Option<Vec<Deleted>>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// Answer to `GET /longshore/images/budget`, which Docker does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageBudget {
    /// Bytes of all images: layers, and blobs that are kept beside them, each counted once.
    pub total_bytes: u64,
    /// Above it images are removed; 0 for no budget.
    pub high_bytes: u64,
    /// Until it is kept.
    pub low_bytes: u64,
    /// The least recently used first; empty without a budget.
    pub images: Vec<BudgetedImage>,
}

/// What would become of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BudgetedImage {
    /// `sha256:...`.
    pub id: String,
    /// Its first name, or the beginning of its id.
    pub name: String,
    /// `os/architecture[/variant]`: several images may share a name.
    pub platform: String,
    /// RFC 3339; of images that share names that of the last one.
    pub last_used: String,
    /// Whether it would be removed now.
    pub goes: bool,
    /// What would be free then.
    pub frees_bytes: u64,
    /// Why.
    pub why: String,
}

/// Answer to `POST /build/prune`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CachesPruned {
    /// Ids of records that are gone; null where nothing is.
    pub caches_deleted: Option<Vec<String>>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// Answer to `POST /networks/prune`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworksPruned {
    /// Names of networks that are gone; null where nothing is.
    pub networks_deleted: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_is_null() {
        let text = serde_json::to_string(&DiskUsage { volumes: Some(vec![]), ..DiskUsage::default() }).unwrap();
        assert_eq!(text, r#"{"LayersSize":0,"Images":null,"Containers":null,"Volumes":[],"BuildCache":null}"#);
        let parts = UsageParts::named(["volume", "build-cache"]).unwrap();
        assert_eq!(parts, UsageParts { volumes: true, build_cache: true, ..UsageParts::default() });
        assert_eq!(UsageParts::named(["zz"]).unwrap_err().to_string(), "unknown object type: zz");
    }
}
