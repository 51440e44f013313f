//! What a storage driver is, and which one a daemon takes.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use errdefs::ErrorKind;
use oci::runtime::Mount;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use stdx::tree::Usage;

use crate::chain::ChainId;
use crate::changes::{Changes, Stubs};
use crate::fuse;
use crate::store::{Limit, Place, SnapshotError, Stage};

/// How the directories of layers become the root of a container.
///
/// One is chosen when the store opens; an operation calls it once or twice, and nothing in a loop does. `container` is the
/// directory of a container with its files in `fs`; `stack` is what [`Snapshotter::stack`] answered for its layers.
pub(crate) trait Snapshotter: fmt::Debug + Send + Sync {
    /// Directories that show these layers (lowest first, all of which exist), uppermost first. Made where they are missing.
    fn stack(&self, place: &Place, chain: &[ChainId]) -> Result<Vec<PathBuf>, SnapshotError>;

    /// Whether [`Snapshotter::stack`] and [`Snapshotter::fill`] are so quick that a collection may wait for them.
    fn is_quick(&self) -> bool;

    /// Makes a container's own files in its new directory.
    fn fill(&self, container: &Path, stack: &[PathBuf], limit: Option<Limit<'_>>) -> Result<(), SnapshotError>;

    /// How a container's root is mounted.
    fn mount(&self, container: &Path, stack: &[PathBuf]) -> Mount;

    /// How directories, uppermost first, are mounted on top of each other and read-only; or a single file.
    fn view(&self, stack: &[PathBuf]) -> Vec<Mount>;

    /// What a container changed; `stop` ends it soon.
    fn changes(
        &self,
        container: &Path,
        stack: &[PathBuf],
        stubs: Stubs<'_>,
        stop: &AtomicBool,
    ) -> Result<Changes, SnapshotError>;

    /// What a container's own files take, beside what its `chain` has, which is read where it is needed; `stop` ends it soon.
    fn usage(
        &self,
        place: &Place,
        container: &Path,
        chain: &dyn Fn() -> Result<Vec<ChainId>, SnapshotError>,
        stubs: Stubs<'_>,
        stop: &AtomicBool,
    ) -> Result<Usage, SnapshotError>;

    /// A directory of a container's own files, where overlayfs would have it.
    fn own_files(&self, place: &Place, container: &Path, changes: &Changes) -> Result<OwnFiles, SnapshotError>;

    /// Removes at once what it can of the trees in this directory; the rest goes file by file.
    fn discard(&self, trash: &Path);
}

/// What a container changed, as overlayfs keeps it: files, whiteouts and opaque directories.
#[derive(Debug)]
pub struct OwnFiles {
    pub(crate) path: PathBuf,
    /// Where it had to be made for this; gone with it.
    pub(crate) _made: Option<Stage>,
}

impl OwnFiles {
    /// The directory; as long as this lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A storage driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// Overlayfs puts layers and the container's own files on top of each other.
    #[default]
    Overlay2,
    /// The same by a program, where the kernel cannot.
    FuseOverlayfs,
    /// Each container has a copy of its image's files.
    Vfs,
    /// The same in subvolumes, which share what nobody changed.
    Btrfs,
}

/// All of them, the best first: dockerd's order (moby daemon/graphdriver/driver_linux.go, `priority`).
const DRIVERS: [Driver; 4] = [Driver::Overlay2, Driver::FuseOverlayfs, Driver::Btrfs, Driver::Vfs];

/// The driver that was chosen, and where its images and containers are.
#[derive(Debug)]
pub struct Choice {
    /// Which one.
    pub driver: Driver,
    /// The root of its store.
    pub root: PathBuf,
    /// Better ones that cannot be used here, and why.
    pub passed_over: Vec<(Driver, Unusable)>,
    /// Others that have images or containers here.
    pub unseen: Vec<Driver>,
}

/// Why a driver cannot be used. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Docker had it once.
    #[error(
        "[graphdriver] ERROR: the {0} storage-driver has been deprecated and removed; visit \
         https://docs.docker.com/go/storage-driver/ for more information"
    )]
    Removed(String),
    /// Nobody knows it.
    #[error("driver not supported")]
    Unknown,
    /// The program that it needs is missing.
    #[error("driver not supported (there is no program {0} in PATH)")]
    Program(&'static str),
    /// A device that it needs cannot be used.
    #[error("driver not supported (cannot use {path})")]
    Device {
        /// Which one.
        path: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file system is another one.
    #[error("prerequisites for driver not satisfied (wrong filesystem?)")]
    FileSystem,
    /// The kernel does not mount overlays here.
    #[error("driver not supported")]
    Overlay(#[source] io::Error),
}

/// Why no driver was chosen. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The one that is wanted cannot be used.
    #[error("error initializing graphdriver: {reason}: {name}")]
    Wanted {
        /// Which one.
        name: String,
        /// Why not.
        #[source]
        reason: Unusable,
    },
    /// The one whose images are here cannot be used.
    #[error("error initializing graphdriver: {reason}: {name}, whose images are here")]
    Prior {
        /// Which one.
        name: &'static str,
        /// Why not.
        #[source]
        reason: Unusable,
    },
    /// There are images of several.
    #[error(
        "error initializing graphdriver: {} contains several valid graphdrivers: {names}; cleanup or explicitly choose \
         storage driver (-s <DRIVER>)",
        root.display()
    )]
    Several {
        /// Where.
        root: PathBuf,
        /// Of which ones.
        names: String,
    },
}

impl DriverError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

impl Driver {
    /// What Docker calls it.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Overlay2 => "overlay2",
            Driver::FuseOverlayfs => "fuse-overlayfs",
            Driver::Vfs => "vfs",
            Driver::Btrfs => "btrfs",
        }
    }

    /// Where the store of this driver lies below a data root: drivers do not see each other's images.
    pub fn root(self, data_root: &Path) -> PathBuf {
        match self {
            Driver::Overlay2 => data_root.to_owned(),
            _ => data_root.join("drivers").join(self.name()),
        }
    }

    fn parse(name: &str) -> Result<Driver, Unusable> {
        match name {
            // zfs has no programs here: dockerd says the same where they are missing.
            "zfs" => Err(Unusable::FileSystem),
            "aufs" | "devicemapper" | "overlay" => Err(Unusable::Removed(name.to_owned())),
            name => DRIVERS.into_iter().find(|driver| driver.name() == name).ok_or(Unusable::Unknown),
        }
    }

    /// Whether it works below a directory, which exists.
    fn check(self, data_root: &Path) -> Result<(), Unusable> {
        match self {
            Driver::Overlay2 => mounts_overlays(data_root).map_err(Unusable::Overlay),
            Driver::FuseOverlayfs => fuse::check(data_root),
            Driver::Vfs => Ok(()),
            Driver::Btrfs if is_btrfs(&self.root(data_root)) || is_btrfs(data_root) => Ok(()),
            Driver::Btrfs => Err(Unusable::FileSystem),
        }
    }

    /// Whether it mounts layers on top of each other, and does not put all of a chain into one tree.
    pub fn stacks(self) -> bool {
        matches!(self, Driver::Overlay2 | Driver::FuseOverlayfs)
    }

    /// Whether it has images or containers below a data root.
    fn is_prior(self, data_root: &Path) -> bool {
        let snapshots = self.root(data_root).join("snapshots");
        let is_used = |name| fs::read_dir(snapshots.join(name)).is_ok_and(|mut entries| entries.next().is_some());
        is_used("l") || is_used("c")
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Refuses a name that no machine has a driver for; [`choose`] then sees what this machine can do.
pub fn check_name(wanted: Option<&str>) -> Result<(), DriverError> {
    let Some(name) = wanted else { return Ok(()) };
    Driver::parse(name).map(drop).map_err(|reason| DriverError::Wanted { name: name.to_owned(), reason })
}

/// Chooses: what is wanted, else the one whose images are here, else the best that works. As dockerd does, vfs is never
/// found: whoever uses it says so.
pub fn choose(data_root: &Path, wanted: Option<&str>) -> Result<Choice, DriverError> {
    let chosen = |driver: Driver, passed_over| {
        let unseen = DRIVERS.into_iter().filter(|other| *other != driver && other.is_prior(data_root)).collect();
        Choice { driver, root: driver.root(data_root), passed_over, unseen }
    };
    if let Some(name) = wanted {
        let failed = |reason| DriverError::Wanted { name: name.to_owned(), reason };
        let driver = Driver::parse(name).map_err(failed)?;
        // What has images here has worked; but a program may have been removed.
        if driver == Driver::FuseOverlayfs || !driver.is_prior(data_root) {
            driver.check(data_root).map_err(failed)?;
        }
        return Ok(chosen(driver, Vec::new()));
    }
    let prior = |driver: &Driver| *driver != Driver::Vfs && driver.is_prior(data_root);
    match DRIVERS.into_iter().filter(prior).collect::<Vec<_>>()[..] {
        [] => {}
        [Driver::Overlay2] => return Ok(chosen(Driver::Overlay2, Vec::new())),
        [driver] => {
            let checked = driver.check(data_root);
            checked.map_err(|reason| DriverError::Prior { name: driver.name(), reason })?;
            return Ok(chosen(driver, Vec::new()));
        }
        ref several => {
            let names = several.iter().map(|driver| driver.name()).collect::<Vec<_>>().join(", ");
            return Err(DriverError::Several { root: data_root.to_owned(), names });
        }
    }
    let mut passed_over = Vec::new();
    for driver in DRIVERS {
        match driver.check(data_root) {
            Ok(()) => return Ok(chosen(driver, passed_over)),
            Err(reason) => passed_over.push((driver, reason)),
        }
    }
    Ok(chosen(Driver::Vfs, passed_over))
}

fn is_btrfs(path: &Path) -> bool {
    // BTRFS_SUPER_MAGIC of linux/magic.h.
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u32 == 0x9123_683E)
}

/// Tries it: an overlay with its own files below `directory`, attached nowhere, and the marks that layers need.
fn mounts_overlays(directory: &Path) -> io::Result<()> {
    let probe = directory.join(format!(".overlay-{}", stdx::id::random_hex::<8>()));
    let tried = try_overlay(&probe);
    // What a death leaves behind is a few directories and a marked node.
    let removed = fs::remove_dir_all(&probe);
    tried.and(removed)
}

fn try_overlay(probe: &Path) -> io::Result<()> {
    for name in ["", "lower", "work"] {
        DirBuilder::new().mode(0o700).create(probe.join(name))?;
    }
    fuse::try_marks(&probe.join("upper"))?;
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // By descriptor: these options end at 255 bytes.
    let opened = fs::File::open(probe)?;
    let at = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    for (option, name) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
        rustix::mount::fsconfig_set_string(&context, option, at.join(name).as_path())?;
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    Ok(())
}

#[cfg(test)]
mod tests;
