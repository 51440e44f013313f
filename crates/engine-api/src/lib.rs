//! The Docker Engine API's wire types, at the newest version that we serve.
//!
//! Field names, order, and which empty fields appear as `null`, `""`, `[]`, `{}` or not at all are Docker 28's: clients in
//! the wild notice each of them. A slice or map that Go may send as `null` is an `Option`; what the client sent is
//! what `inspect` shows again.
//!
//! - [`container`]: what is asked for (`Config`, `HostConfig`) and what is told (`Summary`, `Inspect`).
//! - [`image`], [`volume`], [`network`], [`system`], [`events`], [`exec`]: the other objects.
//! - [`disk_usage`]: what they take, and what prunes free.
//! - [`auth`]: what a client shows to a registry.
//! - [`json`]: the one way in which request bodies are decoded.
//! - [`manifest`]: documents of registries, as they are.
//! - [`paths`], [`platform`], [`ports`], [`size`]: what clients write for paths inside, platforms, ports and sizes.
//! - [`path_stat`], [`changes`]: files of containers; [`checkpoint`]: the whole of them.
//! - [`stats`], [`update`]: what containers use, and what they may from now on.
//! - [`why`]: why a container is as it is, which Docker does not tell.
//! - [`progress`]: how far a long piece of work is.
//! - [`versions`]: the API versions that we serve, and every difference between them.
//!
//! Only data: no HTTP, no I/O, no decisions of the engine.

pub mod auth;
pub mod changes;
pub mod checkpoint;
pub mod container;
pub mod disk_usage;
pub mod events;
pub mod exec;
pub mod exposure;
pub mod host_config;
pub mod image;
pub mod json;
pub mod manifest;
pub mod network;
pub mod path_stat;
pub mod paths;
pub mod platform;
pub mod ports;
pub mod progress;
pub mod published_ports;
pub mod size;
pub mod stats;
pub mod system;
pub mod update;
pub mod versions;
pub mod volume;
pub mod why;

/// The body of every error response.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ErrorBody {
    /// What went wrong, as the Docker client prints it.
    pub message: String,
}

/// The body that answers the creation of an exec or a commit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IdResponse {
    /// The new object's id.
    #[serde(rename = "Id")]
    pub id: String,
}
