//! Real containers, made and taken away by the library.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

mod confinement;
mod errors;
mod fixture;
mod intruder;
mod lifecycle;
mod listener;
mod streams;
