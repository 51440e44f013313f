//! `load`: images out of an archive.
//!
//! ```text
//! spool     the archive is read once, as it comes: documents into memory, every layer straight into a staged directory
//! plan      which images those documents describe (pure)
//! assemble  each layer gets its place in its image's chain, and what it inherits there
//! record    one sync, renames, one commit
//! ```
//! The stream can be a pipe, and its `manifest.json` comes last: layers are unpacked before anyone knows whose they are.
//! That works because a layer is applied alone (crate `layer`); one that no image wants is dropped again. Until `record`
//! nothing is visible, so a broken archive leaves nothing.

use std::io::{self, Read};

use errdefs::ErrorKind;
use oci::image::Platform;
use oci::{Digest, Reference, ReferenceError};

use crate::settle::Lasting;
use crate::store::Store;

pub(crate) mod assemble;
mod layout;
pub(crate) mod plan;
pub(crate) mod spool;

/// What happens during a load, as it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadEvent {
    /// A layer that was not there before was unpacked and verified.
    Layer {
        /// Digest of the uncompressed layer.
        diff_id: Digest,
        /// Length of the layer as it lies in the archive.
        bytes: u64,
    },
    /// A name is taken from another image: `The image busybox:latest already exists, renaming the old one with ID ...`.
    Renamed {
        /// The name.
        reference: Reference,
        /// The image that had it.
        old: Digest,
    },
    /// An image is there: `Loaded image: busybox:latest`, or `Loaded image ID: sha256:...` without a name.
    Loaded(Loaded),
}

/// One image of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: Digest,
    /// The names it was given.
    pub references: Vec<Reference>,
}

/// The platform that is wanted of an archive, and no other.
pub struct WantedPlatform<'a> {
    /// As users read it.
    pub text: String,
    /// Whether an image is for it.
    pub is_wanted: &'a dyn Fn(&Platform) -> bool,
}

/// Why an archive was not loaded. Where dockerd has a sentence that names no directory of its own, it is that.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive cannot be read, or is none.
    #[error(transparent)]
    Archive(#[from] layer::TarError),
    /// It cannot be inflated.
    #[error("inflate the archive")]
    Inflate {
        /// Why.
        source: io::Error,
    },
    /// It is neither a docker-archive nor an OCI layout.
    #[error("invalid archive: does not contain a manifest.json")]
    NoManifest,
    /// There is more in it than in any image.
    #[error("invalid archive: {what} exceeds {limit}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// It has more layers than can be mounted.
    #[error("max depth exceeded")]
    Depth,
    /// What is said of an image is longer than registries take.
    #[error("the image's configuration exceeds {limit_bytes} bytes")]
    ConfigTooLong {
        /// The longest.
        limit_bytes: u64,
    },
    /// A document is not what it should be.
    #[error("invalid archive: failed to decode {path}")]
    Document {
        /// Which one.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
    /// `manifest.json` is `null`.
    #[error("invalid manifest, manifest cannot be null (but can be [])")]
    NullManifest,
    /// Something that a manifest names is not there.
    #[error("open {path}: no such file or directory")]
    Missing {
        /// Its path in the archive.
        path: String,
    },
    /// The configuration is for another operating system.
    #[error("cannot load {os} image on linux")]
    OperatingSystem {
        /// Which one.
        os: String,
    },
    /// The configuration names no layers at all.
    #[error("invalid image JSON, no RootFS key")]
    NoRootFs,
    /// Manifest and configuration disagree.
    #[error("invalid manifest, layers length mismatch: expected {expected}, got {actual}")]
    LayerCount {
        /// In the manifest.
        expected: usize,
        /// In the configuration.
        actual: usize,
    },
    /// A layer is not the one that the configuration names.
    #[error("invalid diffID for layer {index}: expected \"{expected}\", got \"{actual}\"")]
    DiffId {
        /// Which one, from the lowest.
        index: usize,
        /// In the configuration.
        expected: Digest,
        /// What was computed.
        actual: Digest,
    },
    /// Something of an OCI layout is not what its descriptor says.
    #[error("wrong digest or size of {path}: expected {expected}")]
    Digest {
        /// Its path in the archive.
        path: String,
        /// In the descriptor.
        expected: Digest,
    },
    /// An index has no image for this machine.
    #[error("no match for platform {platform} in index")]
    Platform {
        /// What is wanted.
        platform: String,
    },
    /// Indexes name each other without end.
    #[error("indexes nest too deep")]
    Nesting,
    /// An image that it is said to be built from is not that.
    #[error("image {parent} is not a valid parent for {image}")]
    Parent {
        /// Which one.
        image: Digest,
        /// What it is said to be built from.
        parent: Digest,
    },
    /// A name in the archive is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A name in the archive has no tag.
    #[error("invalid tag \"{0}\"")]
    Untagged(String),
    /// A layer is broken or cannot be unpacked.
    #[error(transparent)]
    Layer(#[from] layer::ApplyError),
    /// A layer's directories cannot be described.
    #[error(transparent)]
    Inherit(#[from] layer::InheritError),
    /// A snapshot cannot be made.
    #[error(transparent)]
    Snapshot(#[from] snapshot::SnapshotError),
    /// A blob cannot be stored.
    #[error(transparent)]
    Ingest(#[from] content::IngestError),
    /// The disk does not take it.
    #[error("sync the image store")]
    Sync {
        /// Why.
        source: io::Error,
    },
    /// The database does not take it.
    #[error("record the images")]
    Record {
        /// Why.
        source: redb::Error,
    },
}

impl LoadError {
    /// What a caller can do about it. A broken archive is 500 in dockerd, which its API description says, too.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LoadError::Reference(_) => ErrorKind::InvalidArgument,
            _ => ErrorKind::Internal,
        }
    }
}

impl Store {
    /// Loads all images of an archive, or none: docker-archive or OCI layout, itself compressed or not.
    ///
    /// Blocks until everything is on disk. Needs a few MiB of memory per layer in flight, of which there are at most
    /// three. `events` is called on this thread.
    pub fn load(&self, source: impl Read + Send, events: &mut dyn FnMut(LoadEvent)) -> Result<Vec<Loaded>, LoadError> {
        load_for(self, None, source, events)
    }
}

/// [`Store::load`], but only images of that platform: others of a docker-archive are left out, as dockerd does; a layout
/// that has none is refused.
pub fn load_for(
    store: &Store,
    platform: Option<&WantedPlatform<'_>>,
    source: impl Read + Send,
    events: &mut dyn FnMut(LoadEvent),
) -> Result<Vec<Loaded>, LoadError> {
    let spool = spool::read(store, source)?;
    let images = plan::plan(&spool.documents, platform)?;
    let assembly = assemble::assemble(store, spool, images, events)?;
    assembly.record(store, Lasting::Now, events)
}
