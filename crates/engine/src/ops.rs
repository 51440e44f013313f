//! The operations of the API: one file a verb, free functions that take the engine and plain values.

pub mod archive;
pub mod attach;
pub mod changes;
pub mod commit;
pub mod create;
pub mod events;
pub mod exec;
pub mod export;
pub mod images;
pub mod import;
pub mod inspect;
pub mod kill;
pub mod list;
pub mod logs;
pub mod pause;
pub mod prune;
pub mod pull;
pub mod remove;
pub mod rename;
pub mod resize;
pub mod restart;
pub mod start;
pub mod stop;
pub mod system;
pub mod volumes;
pub mod wait;
