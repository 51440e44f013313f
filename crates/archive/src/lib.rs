//! tar: read, written, packed from directories and unpacked into them.
//!
//! ```text
//! bytes --TarReader--> Entry, data --+--> unpack: files beneath a directory descriptor
//!                                    +--> whoever else wants them (crate `layer`)
//! files beneath a descriptor --pack--> Entry, data --TarWriter--> bytes
//! ```
//! - [`TarReader`] reads v7, ustar, PAX, GNU and star, hostile ones in bounded memory; [`Segment`] is a run of data of a
//!   sparse file. [`TarWriter`] writes ustar, and PAX where ustar cannot say it.
//! - [`pack`] walks a tree in the order of its names, so that the same tree gives the same bytes; hard links are told once.
//! - [`unpack`] makes the files of an archive in a tree that others may be changing, as Docker's `cp` does.
//!
//! **Trees are hostile, and so are archives.** A container may replace anything at any time: nothing is opened by more
//! than one name, what a name means is looked at through the descriptor that was opened for it, and only what is a regular
//! file then is opened for its data. Symlinks on the way to a new file are followed below the root and no further.
//!
//! Used on both sides of `cp`; therefore no `sys`, and nothing of unix but what rustix gives.
//!
//! Deliberately not here: compression, deletions that overlayfs or a layer records (`layer`), which path is meant (`engine`,
//! `cli`).

mod pack;
mod sparse;
mod tar;
mod tree;
mod unpack;
mod write;

pub use pack::{Change, Pack, PackError, Seen, pack};
pub use sparse::Segment;
pub use tar::{Entry, Kind, TarError, TarReader, Time, clean_path, looks_like_tar};
pub use tree::{Resolution, reopen};
pub use unpack::{Overwrite, Owner, Unpack, UnpackError, unpack};
pub use write::TarWriter;
