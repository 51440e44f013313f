//! What is known of a volume, in memory and on disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci::ContainerId;
use serde::{Deserialize, Serialize};
use stdx::fs::Durability;

use crate::name::VolumeName;

/// The record's file in a volume's directory.
pub(crate) const FILE: &str = "volume.json";

/// The directory that containers mount.
pub(crate) const DATA: &str = "_data";

/// Everything about one volume that does not change while it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: VolumeName,
    /// When it was made, RFC 3339.
    pub created: String,
    /// As the request gave them; `None` is `null` in the API, not `{}`.
    pub labels: Option<BTreeMap<String, String>>,
    /// Options of the driver, likewise. With `type` and `device` it is a mount of its own.
    pub options: Option<BTreeMap<String, String>>,
    /// It was made without a name, for one container or by a request.
    pub anonymous: bool,
    /// The container that it was made for and goes with; `None` once that container was removed without its volumes.
    pub owner: Option<ContainerId>,
    /// What containers mount.
    pub mountpoint: PathBuf,
}

/// A record as it lies on disk. Fields that a newer version adds are ignored.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    name: String,
    driver: String,
    created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<BTreeMap<String, String>>,
    #[serde(default)]
    anonymous: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<ContainerId>,
}

/// Reads the record in `directory`; `None` if it is torn, or another volume's.
pub(crate) fn load(directory: &Path, name: &VolumeName) -> io::Result<Option<Volume>> {
    let bytes = fs::read(directory.join(FILE))?;
    let record: Option<Record> = serde_json::from_slice(&bytes).ok();
    let own = record.filter(|record| record.name == name.as_str() && record.driver == crate::store::DRIVER);
    Ok(own.map(|record| Volume {
        name: name.clone(),
        created: record.created,
        labels: record.labels,
        options: record.options,
        anonymous: record.anonymous,
        owner: record.owner,
        mountpoint: directory.join(DATA),
    }))
}

/// Writes the record of `volume` in `directory`, durably.
pub(crate) fn save(directory: &Path, volume: &Volume) -> io::Result<()> {
    let record = Record {
        name: volume.name.to_string(),
        driver: crate::store::DRIVER.to_owned(),
        created: volume.created.clone(),
        labels: volume.labels.clone(),
        options: volume.options.clone(),
        anonymous: volume.anonymous,
        owner: volume.owner.clone(),
    };
    let bytes = serde_json::to_vec(&record).expect("a record has string keys and no failing serializers");
    stdx::fs::write_atomic(&directory.join(FILE), &bytes, Durability::PowerCut)
}
