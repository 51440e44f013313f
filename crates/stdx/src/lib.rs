//! Small additions to the standard library that more than one crate needs.
//!
//! - `boot` (on Unix): which start of the machine this is.
//! - [`fs`]: files that are either whole or absent after a crash.
//! - [`id`]: random identifiers.
//! - [`pipe`]: bytes from one thread to another.
//! - [`sealed`]: bytes that tell whether they are whole.
//! - [`time`]: RFC 3339 text of a point in time.
//! - `tree` (on Unix): what a tree of files takes, and its removal.
//!
//! A thing belongs here when it knows no noun of the platform.

#[cfg(unix)]
pub mod boot;
pub mod fs;
pub mod id;
pub mod pipe;
pub mod sealed;
pub mod time;
#[cfg(unix)]
pub mod tree;
