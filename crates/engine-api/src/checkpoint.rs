//! Checkpoints of containers: `/containers/{id}/checkpoints`.

use serde::{Deserialize, Serialize};

/// The body that asks for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointCreate {
    /// Its name.
    #[serde(rename = "CheckpointID")]
    pub checkpoint_id: String,
    /// The directory in which its own is made; empty for the container's.
    pub checkpoint_dir: String,
    /// Whether the container ends with it.
    pub exit: bool,
}

/// One of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointSummary {
    /// Its name.
    pub name: String,
}
