//! Documents of registries as they are, for whoever puts lists of images together. Docker's daemon has nothing of it: its
//! client asks registries itself.

use serde::{Deserialize, Deserializer, Serialize};

/// Answer to `GET /longshore/registry/manifest`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RegistryManifest {
    /// Of an image, or of an index.
    pub media_type: String,
    /// `sha256:...`.
    pub digest: String,
    /// The document, to the byte.
    pub raw: String,
    /// What an image's configuration says; absent for an index.
    pub platform: Option<ManifestPlatform>,
}

/// What an image of a list is for (image-spec v1.1 image-index.md). An index of Docker's has the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ManifestPlatform {
    /// Go's name of the processor.
    pub architecture: String,
    /// Go's name of the operating system.
    pub os: String,
    /// Of Windows.
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Of Windows.
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub os_features: Vec<String>,
    /// The processor's variant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Go writes `null` for an empty list, and takes it for one.
fn null_is_empty<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<String>, D::Error> {
    Option::deserialize(source).map(Option::unwrap_or_default)
}

/// Answer to `PUT /longshore/registry/manifest`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManifestStored {
    /// `sha256:...`.
    pub digest: String,
    /// What did not come of it although it is stored; empty if all did.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub warning: String,
}

/// Answer to `POST /longshore/registry/mount`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BlobMounted {
    /// Whether the registry took the blob from the other repository.
    pub mounted: bool,
}
