//! The real program over its socket pair, with real containers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

mod attach;
mod exec;
mod fixture;
mod life;
mod limits;
mod log;
mod memory;
mod orphans;
