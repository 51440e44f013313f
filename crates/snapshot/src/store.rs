//! The directories of layers and containers, whatever puts them together.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{PoisonError, RwLock};

use errdefs::ErrorKind;
use oci::runtime::Mount;
use stdx::tree::Usage;

use crate::chain::{ChainId, SnapshotKey};
use crate::changes::{Changes, Stubs};
use crate::driver::{Driver, OwnFiles, Snapshotter, Unusable};
use crate::flat::Flat;
use crate::fuse::Fuse;
use crate::overlay::{self, Overlay};
use crate::taking;

/// The mode of a container's root if no layer says otherwise.
pub(crate) const ROOT_MODE: u32 = 0o755;

/// What stands for an image without layers.
const EMPTY: &str = "empty";

/// The snapshots below one root. All operations block, and only on local directories.
#[derive(Debug)]
pub struct Snapshots {
    pub(crate) place: Place,
    driver: Driver,
    /// Chosen once.
    pub(crate) snapshotter: Box<dyn Snapshotter>,
    /// Held for the few renames of a collection, so that no container appears on a layer that just went.
    collecting: RwLock<()>,
}

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) root: PathBuf,
}

/// Limits what is put into these directories, which are empty, together.
pub type Limit<'a> = &'a dyn Fn(&[&Path]) -> io::Result<()>;

/// A layer snapshot in the making; dropped without [`Snapshots::commit`], it goes to the trash.
#[derive(Debug)]
pub struct Stage {
    pub(crate) path: PathBuf,
    trash: PathBuf,
    pub(crate) committed: bool,
}

/// Why [`Snapshots::open`] failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory of the store cannot be made.
    #[error("create directory {}", path.display())]
    Create {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The driver has lost something that it needs.
    #[error(transparent)]
    Driver(#[from] Unusable),
    /// What a dead process left half-made cannot be set aside.
    #[error("set aside unfinished snapshots in {}", path.display())]
    SetAside {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether what is synced through a mount is on disk then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    /// It is.
    Made,
    /// It is not, where the driver can: nobody misses these files after a power cut before [`Snapshots::sync`]. Who syncs a file waits
    /// for nothing, and the end of the mount does not write the whole file system to disk, as it does else.
    LeftOut,
}

impl OpenError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// Why an operation on a snapshot failed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A container snapshot of that key exists already.
    #[error("snapshot {key} already exists")]
    Exists {
        /// Which one.
        key: SnapshotKey,
    },
    /// There is no container snapshot of that key.
    #[error("snapshot {key} does not exist")]
    NotFound {
        /// Which one.
        key: SnapshotKey,
    },
    /// A layer snapshot that is needed does not exist.
    #[error("layer snapshot {chain_id} does not exist")]
    MissingLayer {
        /// Which one.
        chain_id: ChainId,
    },
    /// The record of a container's layers is torn.
    #[error("read the layers of snapshot {key}")]
    Torn {
        /// Whose.
        key: SnapshotKey,
    },
    /// Stacked layers have nothing at a path. The text is dockerd's.
    #[error("cannot access path /{part}: lstat /{part}: no such file or directory", part = part.display())]
    NoSuchPart {
        /// Below their root.
        part: PathBuf,
    },
    /// Directories nest so deep that they cannot be counted.
    #[error("directories in {} nest too deep", path.display())]
    TooDeep {
        /// Where.
        path: PathBuf,
    },
    /// The system says no.
    #[error("{what} {}", path.display())]
    Io {
        /// What we were doing.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SnapshotError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SnapshotError::Exists { .. } => ErrorKind::AlreadyExists,
            SnapshotError::NotFound { .. } | SnapshotError::NoSuchPart { .. } => ErrorKind::NotFound,
            SnapshotError::MissingLayer { .. }
            | SnapshotError::Torn { .. }
            | SnapshotError::TooDeep { .. }
            | SnapshotError::Io { .. } => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError + use<> {
        let path = path.to_owned();
        move |source| SnapshotError::Io { what, path, source }
    }
}

impl Snapshots {
    /// Opens or creates the store below `root`. Cheap: what a dead process left is renamed, and removed by `sweep`.
    ///
    /// A store is one driver's for ever.
    pub fn open(root: &Path, driver: Driver) -> Result<Snapshots, OpenError> {
        let snapshotter: Box<dyn Snapshotter> = match driver {
            Driver::Overlay2 => Box::new(Overlay),
            Driver::FuseOverlayfs => Box::new(Fuse::new()?),
            Driver::Vfs => Box::new(Flat::copies()),
            Driver::Btrfs => Box::new(Flat::subvolumes()),
        };
        open_with(root, driver, snapshotter)
    }

    /// Which driver puts layers together.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// An empty directory to unpack a layer in, mode 0755.
    pub fn stage(&self) -> Result<Stage, SnapshotError> {
        let stage = self.place.stage();
        make_dir(&stage.path, ROOT_MODE).map_err(SnapshotError::io("create", &stage.path))?;
        Ok(stage)
    }

    /// Makes a staged directory the snapshot of `chain_id`; if that exists already the stage is dropped instead.
    ///
    /// Durable when the caller has synced the file system before, and calls [`Snapshots::sync_names`] after.
    pub fn commit(&self, mut stage: Stage, chain_id: &ChainId) -> Result<(), SnapshotError> {
        let path = self.place.layer(chain_id);
        match fs::rename(&stage.path, &path) {
            Ok(()) => stage.committed = true,
            Err(err) if matches!(err.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
            Err(source) => return Err(SnapshotError::Io { what: "commit", path, source }),
        }
        Ok(())
    }

    /// Writes everything of the file system that holds the store to disk: once for many staged layers.
    pub fn sync(&self) -> io::Result<()> {
        self.place.sync()
    }

    /// Makes the names of committed layers survive a power cut.
    pub fn sync_names(&self) -> io::Result<()> {
        stdx::fs::sync_dir(&self.place.root.join("l"))
    }

    /// The root directory of a layer snapshot, whether or not it exists.
    pub fn layer(&self, chain_id: &ChainId) -> PathBuf {
        self.place.layer(chain_id)
    }

    /// Moves the layer snapshots that are not among `keep` to the trash; returns how many. Containers' layers stay.
    pub fn retain_layers(&self, keep: impl IntoIterator<Item = ChainId>) -> Result<usize, SnapshotError> {
        let _collecting = self.collecting.write().unwrap_or_else(PoisonError::into_inner);
        let mut names: HashSet<String> = keep.into_iter().map(|chain| chain.name().to_owned()).collect();
        for key in self.containers()? {
            match self.chain(&key).and_then(|chain| Ok([chain, kept(&self.place.container(&key), &key)?].concat())) {
                Ok(chain) => names.extend(chain.iter().map(|chain| chain.name().to_owned())),
                // A container whose record a power cut tore cannot start again; it holds nothing.
                Err(SnapshotError::Torn { .. } | SnapshotError::NotFound { .. }) => {}
                Err(err) => return Err(err),
            }
        }
        if !self.driver.stacks() {
            self.set_aside("m", |name| names.contains(name) || name == EMPTY)?;
        }
        self.set_aside("l", |name| names.contains(name))
    }

    /// Makes the snapshot of a container above `chain` (lowest first), and says how to mount it read-write.
    ///
    /// Five system calls and two per layer, no sync. The snapshot's root has mode and owner of the uppermost layer's.
    pub fn prepare(&self, key: &SnapshotKey, chain: &[ChainId]) -> Result<Vec<Mount>, SnapshotError> {
        self.prepare_limited(key, chain, &[], None)
    }

    /// The same, and as long as it is there the layers `kept` stay, too; `limit` limits what the container's own files may
    /// take.
    pub fn prepare_limited(
        &self,
        key: &SnapshotKey,
        chain: &[ChainId],
        kept: &[ChainId],
        limit: Option<Limit<'_>>,
    ) -> Result<Vec<Mount>, SnapshotError> {
        // Shared among containers; excludes only `retain_layers`, which must not miss a container that is just appearing.
        let appear = || self.collecting.read().unwrap_or_else(PoisonError::into_inner);
        let quick = self.snapshotter.is_quick().then(appear);
        let stack = self.snapshotter.stack(&self.place, chain)?;
        let path = self.place.container(key);
        if path.exists() {
            return Err(SnapshotError::Exists { key: key.clone() });
        }
        let mut stage = self.place.stage();
        begin_container(&stage.path, chain).map_err(SnapshotError::io("create", &stage.path))?;
        self.snapshotter.fill(&stage.path, &stack, limit)?;
        if !kept.is_empty() {
            let file = stage.path.join("kept");
            fs::write(&file, listed(kept)).map_err(SnapshotError::io("write", &file))?;
        }
        let _appearing = match quick {
            Some(appearing) => appearing,
            None => {
                let appearing = appear();
                // Nobody waited for the copy.
                self.place.layers(chain)?;
                appearing
            }
        };
        self.place.layers(kept)?;
        fs::rename(&stage.path, &path).map_err(|source| match source.kind() {
            io::ErrorKind::DirectoryNotEmpty => SnapshotError::Exists { key: key.clone() },
            _ => SnapshotError::Io { what: "create", path: path.clone(), source },
        })?;
        stage.committed = true;
        Ok(vec![self.snapshotter.mount(&path, &stack)])
    }

    /// How to mount the snapshot of a container that was prepared before.
    pub fn mounts(&self, key: &SnapshotKey) -> Result<Vec<Mount>, SnapshotError> {
        let stack = self.snapshotter.stack(&self.place, &self.chain(key)?)?;
        Ok(vec![self.snapshotter.mount(&self.place.container(key), &stack)])
    }

    /// How to mount `chain` (lowest first) read-only, with nothing above it.
    pub fn view(&self, chain: &[ChainId]) -> Result<Vec<Mount>, SnapshotError> {
        Ok(self.snapshotter.view(&self.stack(chain)?))
    }

    /// The layers below a container, lowest first.
    pub fn chain(&self, key: &SnapshotKey) -> Result<Vec<ChainId>, SnapshotError> {
        listed_in(self.place.container(key).join("lower"), key)
    }

    /// Directories that together show `chain` (lowest first), uppermost first.
    pub(crate) fn stack(&self, chain: &[ChainId]) -> Result<Vec<PathBuf>, SnapshotError> {
        self.snapshotter.stack(&self.place, chain)
    }

    /// What the container of that key changed. Blocks; with overlay2 it looks at its own files alone, and up their names in
    /// the layers, else at all its files.
    ///
    /// It may be running: what vanishes meanwhile was never there.
    pub fn changes(&self, key: &SnapshotKey, stubs: Stubs<'_>) -> Result<Changes, SnapshotError> {
        let stack = self.stack(&self.chain(key)?)?;
        self.snapshotter.changes(&self.place.container(key), &stack, stubs, &AtomicBool::new(false))
    }

    /// A directory with what a container changed, of which `changes` tells: what `commit` packs.
    pub fn own_files(&self, key: &SnapshotKey, changes: &Changes) -> Result<OwnFiles, SnapshotError> {
        self.snapshotter.own_files(&self.place, &self.place.container(key), changes)
    }

    /// The directory of a container's files: with overlay2 its own, else all of them.
    pub fn upper(&self, key: &SnapshotKey) -> PathBuf {
        self.place.container(key).join("fs")
    }

    /// What a container's own files take, without stubs. Walks them all.
    pub fn usage(&self, key: &SnapshotKey, stubs: Stubs<'_>) -> Result<Usage, SnapshotError> {
        self.usage_unless(key, stubs, &AtomicBool::new(false))
    }

    /// The same; ends with an error soon after somebody sets `stop`.
    pub fn usage_unless(&self, key: &SnapshotKey, stubs: Stubs<'_>, stop: &AtomicBool) -> Result<Usage, SnapshotError> {
        let container = self.place.container(key);
        if !container.join("fs").exists() {
            return Err(SnapshotError::NotFound { key: key.clone() });
        }
        self.snapshotter.usage(&self.place, &container, &|| self.chain(key), stubs, stop)
    }

    /// What one layer takes. Walks all its files.
    pub fn layer_usage(&self, chain_id: &ChainId) -> Result<Usage, SnapshotError> {
        self.layer_usage_unless(chain_id, &AtomicBool::new(false))
    }

    /// The same; ends with an error soon after somebody sets `stop`.
    pub fn layer_usage_unless(&self, chain_id: &ChainId, stop: &AtomicBool) -> Result<Usage, SnapshotError> {
        of_tree(&self.layer(chain_id), stop)
    }

    /// Moves a container's snapshot to the trash, in one rename; that it is absent already is success.
    ///
    /// Nothing may have it mounted. `sweep` takes the time to remove it.
    pub fn remove(&self, key: &SnapshotKey) -> Result<(), SnapshotError> {
        let path = self.place.container(key);
        match fs::rename(&path, self.place.trash_path()) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(SnapshotError::io("remove", &path)),
        }
    }

    /// The keys of all containers' snapshots, in no order.
    pub fn containers(&self) -> Result<Vec<SnapshotKey>, SnapshotError> {
        Ok(list(&self.place.root.join("c"))?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Moves what is in the directory `name` of the root and not wanted to the trash; returns how many.
    fn set_aside(&self, name: &str, is_wanted: impl Fn(&str) -> bool) -> Result<usize, SnapshotError> {
        let directory = self.place.root.join(name);
        let mut moved = 0;
        for name in list(&directory)?.into_iter().filter(|name| !is_wanted(name)) {
            let path = directory.join(name);
            fs::rename(&path, self.place.trash_path()).map_err(SnapshotError::io("set aside", &path))?;
            moved += 1;
        }
        Ok(moved)
    }
}

/// What [`Snapshots::mounts`] says, for whoever mounts it now; nobody else has.
pub fn mounts_now(snapshots: &Snapshots, key: &SnapshotKey, syncs: Syncs) -> Result<Vec<Mount>, SnapshotError> {
    let mut mounts = snapshots.mounts(key)?;
    if snapshots.driver == Driver::Overlay2 {
        let container = snapshots.place.container(key);
        overlay::forget_unsynced(&container).map_err(SnapshotError::io("take a mark out of", &container))?;
        if syncs == Syncs::LeftOut {
            mounts.iter_mut().for_each(overlay::without_syncs);
        }
    }
    Ok(mounts)
}

/// Opens or creates a store with a driver that is at hand.
pub(crate) fn open_with(
    root: &Path,
    driver: Driver,
    snapshotter: Box<dyn Snapshotter>,
) -> Result<Snapshots, OpenError> {
    let merged = (!driver.stacks()).then_some("m");
    for name in ["", "l", "c", "new", "trash"].into_iter().chain(merged) {
        let path = root.join(name);
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&path);
        made.map_err(|source| OpenError::Create { path, source })?;
    }
    // Everything is made there. Where it cannot be spread it is only slower.
    let _ = sys::spread::spread(&root.join("new"));
    let empty = root.join("empty");
    // An image without layers shows this directory itself, so it must be as open as any root.
    let made = match fs::symlink_metadata(&empty) {
        Ok(_) => Ok(()),
        Err(_) => {
            fs::create_dir(&empty).and_then(|()| fs::set_permissions(&empty, PermissionsExt::from_mode(ROOT_MODE)))
        }
    };
    made.map_err(|source| OpenError::Create { path: empty, source })?;
    let place = Place { root: root.to_owned() };
    place.set_aside_unfinished().map_err(|source| OpenError::SetAside { path: root.join("new"), source })?;
    Ok(Snapshots { place, driver, snapshotter, collecting: RwLock::new(()) })
}

impl OwnFiles {
    /// Takes them away from their container, to be a layer as they are, without what no layer has: stubs and sockets. Nobody may write
    /// to them any more. `None` where the driver keeps them in another form than layers. Dropped, what was taken is gone.
    pub fn take(&self, snapshots: &Snapshots, changes: &Changes) -> Result<Option<Stage>, SnapshotError> {
        if snapshots.driver != Driver::Overlay2 {
            return Ok(None);
        }
        let stage = snapshots.place.stage();
        fs::rename(&self.path, &stage.path).map_err(SnapshotError::io("take", &self.path))?;
        let cleared = taking::clear(&stage.path, changes);
        cleared.map_err(SnapshotError::io("take stubs and sockets out of", &self.path))?;
        Ok(Some(stage))
    }
}

impl Place {
    fn set_aside_unfinished(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join("new"))? {
            fs::rename(entry?.path(), self.trash_path())?;
        }
        Ok(())
    }

    fn trash_path(&self) -> PathBuf {
        self.root.join("trash").join(stdx::id::random_hex::<8>())
    }

    /// A name for something in the making; nothing is there yet.
    pub(crate) fn stage(&self) -> Stage {
        let path = self.root.join("new").join(stdx::id::random_hex::<8>());
        Stage { path, trash: self.trash_path(), committed: false }
    }

    /// Writes everything of the file system to disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(fs::File::open(&self.root)?)?)
    }

    fn layer(&self, chain_id: &ChainId) -> PathBuf {
        self.root.join("l").join(chain_id.name())
    }

    fn container(&self, key: &SnapshotKey) -> PathBuf {
        self.root.join("c").join(key.as_str())
    }

    /// Where all layers of a chain are in one tree, for drivers that need that.
    pub(crate) fn merged(&self, chain: &[ChainId]) -> PathBuf {
        self.root.join("m").join(chain.last().map_or(EMPTY, ChainId::name))
    }

    /// The directories of layers, uppermost first, all of which exist.
    pub(crate) fn layers(&self, chain: &[ChainId]) -> Result<Vec<PathBuf>, SnapshotError> {
        if chain.is_empty() {
            return Ok(vec![self.root.join(EMPTY)]);
        }
        let existing = chain.iter().rev().map(|chain_id| match self.layer(chain_id) {
            path if path.exists() => Ok(path),
            _ => Err(SnapshotError::MissingLayer { chain_id: chain_id.clone() }),
        });
        existing.collect()
    }
}

impl Stage {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.committed {
            // Best effort: the next open sets it aside.
            let _ = fs::rename(&self.path, &self.trash);
        }
    }
}

pub(crate) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    // Not by mkdir(2), which the umask changes.
    fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

fn begin_container(path: &Path, chain: &[ChainId]) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    fs::write(path.join("lower"), listed(chain))
}

/// What else stays as long as a container is there.
fn kept(container: &Path, key: &SnapshotKey) -> Result<Vec<ChainId>, SnapshotError> {
    match listed_in(container.join("kept"), key) {
        Err(SnapshotError::NotFound { .. }) => Ok(Vec::new()),
        listed => listed,
    }
}

fn listed_in(path: PathBuf, key: &SnapshotKey) -> Result<Vec<ChainId>, SnapshotError> {
    let text = fs::read_to_string(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SnapshotError::NotFound { key: key.clone() },
        _ => SnapshotError::Io { what: "read", path, source },
    })?;
    // The last line says that the file is whole: without it an image without layers and a torn file are the same.
    let Some(lines) = text.strip_suffix("end\n") else { return Err(SnapshotError::Torn { key: key.clone() }) };
    let chain = lines.lines().map(str::parse).collect::<Result<_, _>>();
    chain.map_err(|_| SnapshotError::Torn { key: key.clone() })
}

/// ChainIds, one a line; the last line says that the file is whole.
fn listed(chain: &[ChainId]) -> String {
    let mut list = String::with_capacity(72 * chain.len() + 4);
    for chain_id in chain {
        list.push_str(chain_id.0.as_str());
        list.push('\n');
    }
    list.push_str("end\n");
    list
}

pub(crate) fn of_tree(path: &Path, stop: &AtomicBool) -> Result<Usage, SnapshotError> {
    let usage = stdx::tree::usage_unless(path, stop).map_err(SnapshotError::io("measure", path))?;
    usage.ok_or_else(|| SnapshotError::TooDeep { path: path.to_owned() })
}

fn list(path: &Path) -> Result<Vec<String>, SnapshotError> {
    let failed = |source| SnapshotError::Io { what: "list", path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
