//! Volumes: directories that outlive the containers which mount them.
//!
//! ```text
//! <root>/                        0701: a user of the host may pass through, not look around
//! <root>/<name>/                 one volume, 0701
//! <root>/<name>/volume.json      its record: name, driver, creation, labels, options, whether it is anonymous
//! <root>/<name>/_data/           what containers mount; 0755 and root's until a container or a fill changes that
//! <root>/<name>/filling/         a copy of an image's files that is being made
//! <root>/<name>/filled/          a complete copy, whose entries move to `_data` one by one
//! <root>/<name>/snapshots/*      what the volume held at some moment: `_data` and `snapshot.json`; goes with the volume
//! <root>/.new-*                  volumes and copies being made
//! <root>/.gone-*                 removed, waiting for `sweep`
//! <root>/.torn-*                 what bore a volume's name and was none; for a person to look at
//! ```
//! **The existence of `<name>` is the record's commit.** A volume is made aside, synced and renamed into sight; it is
//! removed by one rename out of sight, and [`Volumes::sweep`] takes the time to delete it. So a kill or a power cut at
//! any point leaves whole volumes only, and leftovers whose names no volume can have. A torn record is set aside and
//! written anew from what the directory tells: people's data is never hidden because of a few bytes beside it.
//!
//! **A fill is all or nothing, and never takes what is a container's.** [`Volumes::fill`] copies into `filling`, syncs,
//! and renames that to `filled`: only what is complete is ever moved to `_data`, and what is in the way there stays.
//! A kill before the rename leaves an empty volume, which the next container fills; after it, the moves are finished when
//! the store opens. `_data` itself is never replaced, since a running container may have it mounted.
//!
//! **Use** is kept in memory: which containers have a volume. The engine tells ([`Volumes::acquire`]) from its own records
//! when it opens; a volume in use is not removed. **Ownership** is on disk: an anonymous volume names the container that it
//! was made for. When a kill keeps that container from ever existing, or its removal from being finished, the volume has an
//! owner that does not exist, and [`Volumes::remove_orphans`] takes it; a container that leaves its volumes behind disowns
//! them first.
//!
//! One lock guards the table and is never held across I/O: a name whose directory is being made, removed or filled is
//! marked so, and others who want to change it wait for that.
//!
//! What an image holds is hostile: the path to copy is resolved beneath the image's root (openat2), everything below one
//! component at a time without following.
//!
//! **Mounts.** With the options `type` and `device` a volume is a mount of its own, made on `_data` while a container has
//! it ([`mount()`]): memory, a share of the network, a directory or a device of the host. What is mounted there is
//! never deleted with the volume.
//!
//! **Sizes.** With the option `size` a volume's `_data` belongs to a project of its own (crate `quota`), and so does a copy of
//! an image that is being made beside it. A clone, and what is brought back from a snapshot, has another one with the same
//! limit; snapshots themselves have none, since nobody writes to them.
//!
//! One process owns a root. Blocks. Deliberately not here: mounting in containers (`container-spec` places, `oci-runtime`
//! mounts), filters and events (`engine`), drivers other than `local`.

mod copy;
mod create;
mod duplicate;
mod fill;
mod mount;
mod name;
mod open;
mod options;
mod record;
mod remove;
mod store;
mod subpath;

pub use copy::CopyError;
pub use create::{CreateError, Created, Wanted};
pub use duplicate::{
    DuplicateError, Snapshot, Staged, check_new, check_snapshot, copy, copy_limited, refuse_mount, remove_snapshot,
    restore, snapshots, stage,
};
pub use fill::{FillError, Filled};
pub use mount::{MountError, SystemReason, held_before, mount, put_down, settle_mount, settle_mounts};
pub use name::{NameError, VolumeName};
pub use open::{Fault, OpenError};
pub use options::OptionsError;
pub use record::Volume;
pub use remove::{DisownError, Pruned, RemoveError, SweepError, UsageError, usage_unless};
pub use store::{ANONYMOUS_LABEL, DRIVER, Listed, NotFound, Volumes, limited_by};
pub use subpath::{SubpathError, open_subpath};
