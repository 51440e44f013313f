//! Applies layers: a tar changeset becomes the directory of one layer snapshot.
//!
//! ```text
//! reader --> inflate (thread) --> hash of the tar (thread) = DiffId
//!            hash of the bytes        |
//!            as read = digest         +--> parse headers --> make files below one directory descriptor (caller's thread)
//! ```
//! [`apply`] runs that pipeline with bounded memory (a few chunks, one header, one record per directory). A layer is
//! applied **alone**, without those below it, in any order and in parallel: deletions become overlayfs' whiteouts
//! (character device 0/0) and opaque directories (`trusted.overlay.opaque`). What a layer cannot know alone is the
//! metadata of a directory that it only *implies* (`usr/bin/x` without `usr`): [`Applied::implied`] lists those, and
//! [`inherit`] gives them mode, owner, times and xattrs of the nearest lower layer, once the lower layers are there.
//!
//! **The archive is hostile.** Names are cleaned and may not climb out (refused, as dockerd does). Every step down is one
//! openat2 of one component that follows nothing; symlinks of the archive itself are resolved here, against the layer's
//! own root. Headers, names and sparse maps are bounded. Xattrs of overlayfs itself are dropped. The directory must be
//! reachable by root alone until it is complete, since set-uid bits are real.
//!
//! Compression is told by magic number, never by media type. [`TarReader`] and [`TarWriter`] (crate `archive`) are also what
//! `image` reads and writes archives with.
//!
//! **The tar comes back exactly.** [`apply_recorded`] writes a recipe beside the directory: what the tar was besides the
//! contents of files, compressed; [`record`](apply::record) does it of a directory that is a layer already. [`recreate`] makes the same bytes of both again, and proves it by their DiffId.
//!
//! [`Gzip`] compresses such a tar for registries, the same bytes every time.
//!
//! No state, no locks. Deliberately not here: where directories lie (`snapshot`), which layers make an image (`image`),
//! tar itself (`archive`).

mod apply;
mod compress;
mod inherit;
mod pipeline;
mod recipe;
mod record;
mod recreate;
mod tree;

pub use apply::{Applied, ApplyError, apply, apply_limited, apply_recorded, record};
pub use archive::{Entry, Kind, Segment, TarError, TarReader, TarWriter, Time, clean_path};
pub use compress::{COMPRESSOR, Compressor, Gzip};
pub use inherit::{InheritError, clone_tree, inherit};
pub use pipeline::{Compression, decompress, looks_like_layer};
pub use recreate::{RecreateError, recreate};
