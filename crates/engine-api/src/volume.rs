//! Volumes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Volume {
    /// RFC 3339, to the second.
    pub created_at: String,
    /// `local`.
    pub driver: String,
    /// Free-form metadata, as the request gave it.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its data on the host.
    pub mountpoint: String,
    /// Its name.
    pub name: String,
    /// Options of the driver, as the request gave them.
    pub options: Option<BTreeMap<String, String>>,
    /// `local`.
    pub scope: String,
    /// What it takes; told only where disk usage is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_data: Option<UsageData>,
}

/// What a volume takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UsageData {
    /// How many containers have it; -1 if not counted.
    pub ref_count: i64,
    /// Bytes; -1 if not measured.
    pub size: i64,
}

/// Body of `POST /volumes/create`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeCreate {
    /// For a volume of a cluster only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_volume_spec: Option<serde_json::Value>,
    /// Empty for `local`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options of the driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_opts: Option<BTreeMap<String, String>>,
    /// Free-form metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Empty for a random one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// Answer to `GET /volumes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeList {
    /// The volumes.
    pub volumes: Vec<Volume>,
    /// What drivers complained of.
    pub warnings: Option<Vec<String>>,
}

/// What a volume held at some moment. Ours: no client of Docker's asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeSnapshot {
    /// Its name, unique to the volume.
    pub name: String,
    /// RFC 3339, to the second.
    pub created_at: String,
    /// Bytes; -1 if not measured.
    pub size: i64,
}

/// Answer to `POST /volumes/prune`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumesPruned {
    /// Names of what is gone.
    pub volumes_deleted: Vec<String>,
    /// Bytes.
    pub space_reclaimed: u64,
}
