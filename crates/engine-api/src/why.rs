//! Answer to `GET /containers/{id}/why`, which Docker does not have: why a container is as it is.

use serde::{Deserialize, Serialize};

/// Why a container is as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Why {
    /// 64 hex digits.
    pub id: String,
    /// With a leading slash.
    pub name: String,
    /// As `inspect` shows it: `running`, `exited` and so on.
    pub status: String,
    /// The answer in a sentence.
    pub summary: String,
    /// What it rests on, the weightiest first.
    pub facts: Vec<Reason>,
}

/// One recorded fact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Reason {
    /// What it is about, for programs: `start`, `exit`, `signal`, `memory`, `filter`, `health`, `policy`, `port`, `program`,
    /// `capability`, `checkpoint`.
    pub kind: String,
    /// In words.
    pub text: String,
}
