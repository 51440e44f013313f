//! Registries: Debian's, and one that answers as a test likes.
//!
//! - [`Debian`]: the `docker-registry` program on a port of its own choice; [`Debian::push`] fills it.
//! - [`Server`]: gives any [`Answer`] to any [`Request`].
//! - [`Received`]: a registry in memory that takes what is pushed to it; cut, slowed and made to lie by the test.
//! - [`Served`]: an image as a registry has it, good or made wrong by the test.

pub mod debian;
pub mod received;
pub mod served;
pub mod server;

pub use debian::Debian;
pub use received::{Received, Repository};
pub use served::{Served, digest};
pub use server::{Answer, Request, Server, Take};
