//! The stream of events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One line of `GET /events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Old name of `action` (containers and images only).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Old name of the actor's id (containers and images only).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Old name of the container's image (containers only).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// `container`, `image`, `network`, `volume`, `daemon`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What happened, such as `start` or `exec_create: sh`.
    #[serde(rename = "Action")]
    pub action: String,
    /// To what.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// Always `local`.
    pub scope: String,
    /// Seconds since 1970.
    pub time: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// What an event happened to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The object's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name, image, labels, exit code and so on.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}
