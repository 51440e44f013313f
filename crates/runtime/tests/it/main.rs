//! The program itself, with real bundles in scratch directories.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

mod bad;
mod compat;
mod counting;
mod crash;
mod criu;
mod criu_killed;
mod delegation;
mod ending;
mod errors;
mod escapes;
mod every_limit;
mod exec;
mod fields;
mod fixture;
mod foreground;
mod hooks;
mod labels;
mod leaks;
mod leftovers;
mod lifecycle;
mod limits;
mod mounts;
mod namespaces;
mod net_devices;
mod rootless;
mod scope;
mod seccomp;
mod silent;
mod streams;
mod systemd;
mod terminal;
mod user_namespace;
mod words;
