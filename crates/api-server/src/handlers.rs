//! Handlers: decode, call one operation of the engine, encode.

pub(crate) mod archive;
pub(crate) mod build;
pub(crate) mod checkpoints;
pub(crate) mod commit;
pub(crate) mod containers;
pub(crate) mod disk;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod later;
pub(crate) mod live;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod networks;
pub(crate) mod progress;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod registry_manifest;
pub(crate) mod save;
pub(crate) mod swarm;
pub(crate) mod system;
pub(crate) mod volume_copies;
pub(crate) mod volumes;
