//! Registries to pull from: Debian's, and one that answers as a test likes.
//!
//! - [`Debian`]: the `docker-registry` program on a port of its own choice; [`Debian::push`] fills it.
//! - [`Server`]: gives any [`Answer`] to any [`Request`].
//! - [`Served`]: an image as a registry has it, good or made wrong by the test.

pub mod debian;
pub mod served;
pub mod server;

pub use debian::Debian;
pub use served::{Served, digest};
pub use server::{Answer, Request, Server};
