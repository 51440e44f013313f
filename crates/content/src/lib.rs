//! Blobs by digest: the bytes of image configurations, manifests and compressed layers.
//!
//! ```text
//! <root>/blobs/sha256/<hex>   whole and verified, mode 0600; the name is the SHA-256 of the bytes
//! <root>/ingest/<random>      being written; nobody but the writer looks at it, removed when the store opens
//! <root>/partial/<hex>        being transferred: the first bytes of what shall be a blob of that digest; kept for a day
//! ```
//! A blob comes into being by [`Content::begin`], writes into the [`Ingest`], and [`Ingest::commit`], which checks digest
//! and length and renames. Whoever drops an ingest without committing removes it. [`Content::ingest`] does all of it for
//! a reader.
//!
//! A transfer that is cut goes on later, in another process if need be, where it ended: [`Content::partial`]. Its bytes
//! are nothing until they were hashed; [`Content::verified`] makes an [`Ingest`] of them then, and [`Ingest::commit`] a blob.
//! There is at most one writer of a partial blob at a time, which is the caller's business; readers open it as they like.
//!
//! Durability: [`Sync::Now`] syncs file and directory; with [`Sync::Later`] the caller syncs the file system itself before
//! it records that the blob exists, once for many blobs.
//!
//! There is no lock: names are unique while writing, and a rename over an equal blob changes nothing. One process owns a
//! root. Deliberately not here: which blobs are needed (`image` knows), media types, transfers.

mod ingest;
mod partial;
mod store;

pub use ingest::{Blob, Expected, Ingest, IngestError, Sync};
pub use partial::Partial;
pub use store::{Content, OpenError, ReadError, RemoveError};
