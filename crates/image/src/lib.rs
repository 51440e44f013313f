//! The image store: which images there are, what they are called, and which layers and blobs they need.
//!
//! ```text
//! <root>/images.redb              tables: images (id -> record), references (name -> id), layers (ChainId -> record)
//! <root>/images.redb.new          being created
//! <root>/images.redb.torn-<hex>   a database that could not be opened, set aside
//! <root>/content/                 crate `content`: configurations, manifests, compressed layers
//! <root>/snapshots/               crate `snapshot`: one directory per layer, one per container
//! ```
//! An image's **id** is the digest of its configuration's bytes, kept as a blob exactly as they came. The database is
//! the truth, and everything else is reachable from it or garbage. [`open_on`] reads it whole into memory, where
//! parsed [`ImageRecord`]s are shared: [`Store::resolve`], [`Store::list`] and [`Store::get`] do no I/O.
//!
//! **Writing.** One writer at a time (`metadata`, held across its commit); then the new state replaces the old one under
//! `state`, which is held for map access only and never while waiting for anything. Lock order: `metadata`, `state`,
//! `pins`. A load extracts with no lock at all; layers that it found present are pinned with their blobs, so that a
//! removal meanwhile leaves them.
//!
//! **Order on disk.** Adding: write, sync the file system once, rename into place, sync the directories, commit to the
//! database. Removing: commit first, then rename away. A kill between any two steps leaves only things that no record
//! names, which [`Store::open`] sets aside and [`Store::sweep`] removes; nothing half-made is ever visible. A database
//! that is torn is set aside, and then nothing is collected, because what nobody names may still be wanted. A full disk
//! is no reason to set it aside; after a failed commit the database is opened anew by the next one.
//!
//! **Pulling** ([`Store::pull`]) is a load whose layers come from outside, one reader each, and whose compressed layers are
//! partial blobs of the content store already; layers that are there, at any place, are not asked for.
//!
//! What a pull unpacks that is cut waits for the next one ([`discard_cut`]).
//!
//! **Saving** ([`save`]) writes images as an archive, from what is held.
//!
//! **Giving away** ([`layout()`]) writes an image as a registry would have it.
//!
//! **Building** ([`Store::build`]) is a load of one layer above those of an image that is here; [`build_from`] takes one whose
//! directory is there.
//!
//! **Reproducing** ([`clamp`]) makes an image of another one without times that are later than a given one.
//!
//! **Layers come back.** With every layer the recipe of its tar is kept (crate `layer`), as a blob that the layer's record
//! names. [`hold`] gives an image whose layers can be had as they were, whatever is removed meanwhile.
//!
//! **One name, several images** (`platforms`): images of one index for several platforms are kept side by side. What the
//! index names about an image (`attestation`) is kept with it, as blobs.
//!
//! **Removing** by a user's word takes names away (`remove`); what removes by itself ([`evict`]) takes whole images or nothing.
//!
//! **Which blobs are kept.** Recipes. Configurations, manifests, and indexes through which images came; compressed layers that a kept manifest names, so that a push
//! gives the digests of the pull. Plain tars of a docker-archive are not kept beside their extracted snapshot (they
//! would double the disk use), and a manifest that names such layers is not kept either.
//!
//! Deliberately not here: transfers (`registry-client`), containers (the engine says who uses an image), what clients
//! print (each error's text is Docker's sentence, and no more).

mod attestation;
mod build;
mod clamp;
mod cut;
mod derive;
mod evict;
mod held;
mod layout;
mod load;
mod metadata;
mod outcome;
mod pins;
mod platforms;
mod pull;
mod push;
mod record;
mod remove;
mod save;
mod settle;
mod store;
mod unpacked;
mod usage;

pub use attestation::{
    Attestation, PulledAttestation, PushAttestation, attestation_blobs, attestations_of, attestations_room,
    is_attestation, push_attestations,
};
pub use build::build_from;
pub use clamp::{ClampError, clamp};
pub use cut::{CUT_KEPT, cut_bytes, discard_cut};
pub use derive::{compose, derive};
pub use evict::evict;
pub use held::{Held, LayerTarError, hold};
pub use layer::{COMPRESSOR, Compression, Compressor, Gzip};
pub use layout::{LayerForm, Layout, LayoutError, LayoutImage, LayoutOptions, Say, layout};
pub use load::plan::host_architecture;
pub use load::{LoadError, LoadEvent, Loaded, WantedPlatform, load_for};
pub use outcome::{Document, Statement, attestation, image_manifest, outcome_index};
pub use platforms::resolve_all;
pub use pull::{PullError, PullEvent, PulledImage, inflated_max, pull_with};
pub use push::{
    CameBy, KeptBlob, PushImage, PushImageError, PushLayer, came_by, index_of, name_pushed, name_several, push_image,
    remember_compressed, repositories_with,
};
pub use record::ImageRecord;
pub use remove::{ImageUser, RemoveError, RemoveOptions, Removed, remove_platform};
pub use save::{SaveError, Saving, save};
pub use settle::{Lasting, SettleError, settle};
pub use store::{OpenError, ResolveError, Store, SweepError, TagError, open_on, sweep_between};
pub use usage::{Beside, ImageParts, LayerUsage, Part, beside_layers, blob_bytes, image_parts};
