//! Volumes on a real file system, and after kills.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

mod crash;
mod fill;
mod store;

use oci::ContainerId;
use volume::Wanted;

fn wanted(name: &str) -> Wanted {
    Wanted { name: name.to_owned(), ..Wanted::default() }
}

fn container(digit: char) -> ContainerId {
    digit.to_string().repeat(64).parse().unwrap()
}
