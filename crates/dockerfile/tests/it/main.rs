//! Dockerfiles, words and patterns that nobody planned, for a bounded time (`testkit::mutate`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fuzz;
mod reference;
