//! Directory states of layers and containers, by one of several storage drivers.
//!
//! ```text
//! <root>/l/<32 hex>           one committed layer snapshot: its root directory. The name is the start of its ChainId
//! <root>/c/<key>/lower        ChainIds of a container's layers, lowest first, one a line
//! <root>/c/<key>/kept         further ChainIds, of images that it mounts; mostly there is none
//! <root>/c/<key>/fs           the container's own files (upperdir); vfs and btrfs: all its files
//! <root>/c/<key>/work         overlay2 and fuse-overlayfs: a scratch directory (workdir)
//! <root>/m/<32 hex>           vfs and btrfs: all layers of a chain in one tree
//! <root>/new/<random>         being made; nobody else looks at it
//! <root>/trash/<random>       removed, waiting for `sweep`
//! <root>/empty                the lower directory of an image without layers
//! ```
//! **The existence of a directory is the record.** Everything is made under `new`, and one rename makes it appear or
//! (towards `trash`) disappear, so that a kill at any point leaves no half thing; `new` and `trash` are swept when the
//! store opens. There is therefore no table of snapshots, and `create` of a container costs no fsync: the engine syncs
//! the container's own record, and a snapshot without one is found by [`Snapshots::containers`] and removed. Which layer
//! snapshots are needed is known by `image` (records of images) and by the `lower` files (containers whose image was
//! removed by force, or is only mounted).
//!
//! **Drivers.** A [`Driver`] is chosen once ([`choose`]) and is behind one trait, `driver::Snapshotter`: overlay2 mounts the
//! directories of layers on top of each other, and where the kernel cannot fuse-overlayfs does; vfs and btrfs (module `flat`)
//! copy. Layers themselves are the same for all, in overlayfs' own form, so that whatever makes and reads layers knows
//! nothing of drivers; what a container changed is given in that form, too ([`Snapshots::own_files`]), and overlay2 gives it away to
//! become a layer as it is ([`OwnFiles::take`]). Every driver passes the tests of `testsuite`.
//!
//! A ChainId ends in the name of a directory of 32 hex digits: 128 bits are beyond search, and the names must be short
//! because the lower directories of up to 128 layers must fit in one page where the kernel lacks `lowerdir+`.
//!
//! **Leases.** The kernel does not refuse a second overlay mount on one upperdir, and corrupts it silently. Whoever
//! mounts what [`Snapshots::prepare`] or [`Snapshots::mounts`] return holds the one lease of that snapshot until it is
//! unmounted: the shim of a container while that exists, else the engine. This crate mounts nothing.
//!
//! Overlay's `index`, `metacopy`, `redirect_dir` and `xino` are set explicitly, so that a kernel's defaults change no
//! format on disk. `off` for `redirect_dir` means: follow and make no redirects (Documentation/filesystems/overlayfs).
//!
//! Every operation is one rename, and the caller serialises operations on one key. The one lock keeps a container from
//! appearing while layers are collected. One process owns a root.

mod chain;
mod changes;
mod copy;
mod driver;
mod flat;
mod fuse;
mod overlay;
mod part;
mod remove;
mod store;
mod taking;
#[cfg(test)]
mod testsuite;

pub use chain::{ChainId, SnapshotKey, SnapshotKeyError};
pub use changes::{ChangeKind, Changes, Stubs, is_opaque, is_whiteout};
pub use driver::{Choice, Driver, DriverError, OwnFiles, Unusable, check_name, choose};
pub use part::view_part;
pub use remove::{SweepError, sweep_between};
pub use stdx::tree::Usage;
pub use store::{Limit, OpenError, SnapshotError, Snapshots, Stage, Syncs, mounts_now};
