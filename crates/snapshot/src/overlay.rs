//! The directories and the mounts that show them.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{PoisonError, RwLock};

use errdefs::ErrorKind;
use oci::runtime::Mount;
use stdx::tree::Usage;

use crate::chain::{ChainId, SnapshotKey};

/// Options of every overlay that we mount; the crate page says why they are explicit.
const OVERLAY_OPTIONS: [&str; 4] = ["index=off", "metacopy=off", "redirect_dir=off", "xino=off"];

/// The mode of a container's root if no layer says otherwise.
const ROOT_MODE: u32 = 0o755;

/// The snapshots below one root. All operations block, and only on local directories.
#[derive(Debug)]
pub struct Overlay {
    pub(crate) root: PathBuf,
    /// Held for the few renames of a collection, so that no container appears on a layer that just went.
    collecting: RwLock<()>,
}

/// Limits what is put into these directories, which are empty, together.
pub type Limit<'a> = &'a dyn Fn(&[&Path]) -> io::Result<()>;

/// A layer snapshot in the making; dropped without [`Overlay::commit`], it goes to the trash.
#[derive(Debug)]
pub struct Stage {
    path: PathBuf,
    trash: PathBuf,
    committed: bool,
}

/// Why [`Overlay::open`] failed.
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
    /// What a dead process left half-made cannot be set aside.
    #[error("set aside unfinished snapshots in {}", path.display())]
    SetAside {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
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

impl Overlay {
    /// Opens or creates the store below `root`. Cheap: what a dead process left is renamed, and removed by `sweep`.
    pub fn open(root: &Path) -> Result<Overlay, OpenError> {
        for name in ["", "l", "c", "new", "trash"] {
            let path = root.join(name);
            let mut builder = DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(&path);
            made.map_err(|source| OpenError::Create { path, source })?;
        }
        let empty = root.join("empty");
        // An image without layers shows this directory itself, so it must be as open as any root.
        let made = match fs::symlink_metadata(&empty) {
            Ok(_) => Ok(()),
            Err(_) => {
                fs::create_dir(&empty).and_then(|()| fs::set_permissions(&empty, PermissionsExt::from_mode(ROOT_MODE)))
            }
        };
        made.map_err(|source| OpenError::Create { path: empty, source })?;
        let overlay = Overlay { root: root.to_owned(), collecting: RwLock::new(()) };
        overlay.set_aside_unfinished().map_err(|source| OpenError::SetAside { path: root.join("new"), source })?;
        Ok(overlay)
    }

    fn set_aside_unfinished(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join("new"))? {
            fs::rename(entry?.path(), self.trash_path())?;
        }
        Ok(())
    }

    pub(crate) fn trash_path(&self) -> PathBuf {
        self.root.join("trash").join(stdx::id::random_hex::<8>())
    }

    /// An empty directory to unpack a layer in, mode 0755.
    pub fn stage(&self) -> Result<Stage, SnapshotError> {
        let path = self.root.join("new").join(stdx::id::random_hex::<8>());
        make_dir(&path, ROOT_MODE).map_err(SnapshotError::io("create", &path))?;
        Ok(Stage { path, trash: self.trash_path(), committed: false })
    }

    /// Makes a staged directory the snapshot of `chain_id`; if that exists already the stage is dropped instead.
    ///
    /// Durable when the caller has synced the file system before, and calls [`Overlay::sync_names`] after.
    pub fn commit(&self, mut stage: Stage, chain_id: &ChainId) -> Result<(), SnapshotError> {
        let path = self.layer(chain_id);
        match fs::rename(&stage.path, &path) {
            Ok(()) => stage.committed = true,
            Err(err) if matches!(err.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
            Err(source) => return Err(SnapshotError::Io { what: "commit", path, source }),
        }
        Ok(())
    }

    /// Writes everything of the file system that holds the store to disk: once for many staged layers.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(fs::File::open(&self.root)?)?)
    }

    /// Makes the names of committed layers survive a power cut.
    pub fn sync_names(&self) -> io::Result<()> {
        stdx::fs::sync_dir(&self.root.join("l"))
    }

    /// The root directory of a layer snapshot, whether or not it exists.
    pub fn layer(&self, chain_id: &ChainId) -> PathBuf {
        self.root.join("l").join(chain_id.name())
    }

    /// Moves the layer snapshots that are not among `keep` to the trash; returns how many. Containers' layers stay.
    pub fn retain_layers(&self, keep: impl IntoIterator<Item = ChainId>) -> Result<usize, SnapshotError> {
        let _collecting = self.collecting.write().unwrap_or_else(PoisonError::into_inner);
        let mut names: HashSet<String> = keep.into_iter().map(|chain| chain.name().to_owned()).collect();
        for key in self.containers()? {
            match self.chain(&key).and_then(|chain| Ok([chain, kept(&self.container(&key), &key)?].concat())) {
                Ok(chain) => names.extend(chain.iter().map(|chain| chain.name().to_owned())),
                // A container whose record a power cut tore cannot start again; it holds nothing.
                Err(SnapshotError::Torn { .. } | SnapshotError::NotFound { .. }) => {}
                Err(err) => return Err(err),
            }
        }
        let layers = self.root.join("l");
        let mut moved = 0;
        for name in list(&layers)?.into_iter().filter(|name| !names.contains(name)) {
            let path = layers.join(name);
            fs::rename(&path, self.trash_path()).map_err(SnapshotError::io("set aside", &path))?;
            moved += 1;
        }
        Ok(moved)
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
        let _appearing = self.collecting.read().unwrap_or_else(PoisonError::into_inner);
        let lowers = self.lowers(chain)?;
        self.lowers(kept)?;
        let path = self.container(key);
        if path.exists() {
            return Err(SnapshotError::Exists { key: key.clone() });
        }
        let new = self.root.join("new").join(stdx::id::random_hex::<8>());
        let mut stage = Stage { path: new, trash: self.trash_path(), committed: false };
        fill_container(&stage.path, &lowers[0], chain).map_err(SnapshotError::io("create", &stage.path))?;
        if let Some(limit) = limit {
            // Not the directory of both: that is renamed, which a project would not allow everywhere.
            let (upper, work) = (stage.path.join("fs"), stage.path.join("work"));
            limit(&[&upper, &work]).map_err(SnapshotError::io("limit", &upper))?;
        }
        if !kept.is_empty() {
            let file = stage.path.join("kept");
            fs::write(&file, listed(kept)).map_err(SnapshotError::io("write", &file))?;
        }
        fs::rename(&stage.path, &path).map_err(|source| match source.kind() {
            io::ErrorKind::DirectoryNotEmpty => SnapshotError::Exists { key: key.clone() },
            _ => SnapshotError::Io { what: "create", path: path.clone(), source },
        })?;
        stage.committed = true;
        Ok(vec![writable(&lowers, &path)])
    }

    /// How to mount the snapshot of a container that was prepared before.
    pub fn mounts(&self, key: &SnapshotKey) -> Result<Vec<Mount>, SnapshotError> {
        let lowers = self.lowers(&self.chain(key)?)?;
        Ok(vec![writable(&lowers, &self.container(key))])
    }

    /// How to mount `chain` (lowest first) read-only, with nothing above it.
    pub fn view(&self, chain: &[ChainId]) -> Result<Vec<Mount>, SnapshotError> {
        Ok(read_only(&self.lowers(chain)?))
    }

    /// The layers below a container, lowest first.
    pub fn chain(&self, key: &SnapshotKey) -> Result<Vec<ChainId>, SnapshotError> {
        listed_in(self.container(key).join("lower"), key)
    }

    /// The directory of a container's own files: what `diff` and `cp` of a stopped container read.
    pub fn upper(&self, key: &SnapshotKey) -> PathBuf {
        self.container(key).join("fs")
    }

    /// What a container's own files take. Walks them all.
    pub fn usage(&self, key: &SnapshotKey) -> Result<Usage, SnapshotError> {
        self.usage_unless(key, &AtomicBool::new(false))
    }

    /// The same; ends with an error soon after somebody sets `stop`.
    pub fn usage_unless(&self, key: &SnapshotKey, stop: &AtomicBool) -> Result<Usage, SnapshotError> {
        let upper = self.upper(key);
        if !upper.exists() {
            return Err(SnapshotError::NotFound { key: key.clone() });
        }
        of_tree(&upper, stop)
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
        let path = self.container(key);
        match fs::rename(&path, self.trash_path()) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(SnapshotError::io("remove", &path)),
        }
    }

    /// The keys of all containers' snapshots, in no order.
    pub fn containers(&self) -> Result<Vec<SnapshotKey>, SnapshotError> {
        Ok(list(&self.root.join("c"))?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn container(&self, key: &SnapshotKey) -> PathBuf {
        self.root.join("c").join(key.as_str())
    }

    /// Lower directories, uppermost first, all of which exist.
    pub(crate) fn lowers(&self, chain: &[ChainId]) -> Result<Vec<PathBuf>, SnapshotError> {
        if chain.is_empty() {
            return Ok(vec![self.root.join("empty")]);
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

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    // Not by mkdir(2), which the umask changes.
    fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

fn fill_container(path: &Path, top: &Path, chain: &[ChainId]) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    fs::write(path.join("lower"), listed(chain))?;
    DirBuilder::new().mode(0o700).create(path.join("work"))?;
    let (upper, root) = (path.join("fs"), fs::metadata(top)?);
    fs::create_dir(&upper)?;
    if (root.uid(), root.gid()) != (0, 0) {
        std::os::unix::fs::chown(&upper, Some(root.uid()), Some(root.gid()))?;
    }
    fs::set_permissions(&upper, PermissionsExt::from_mode(root.mode() & 0o7777))
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

fn of_tree(path: &Path, stop: &AtomicBool) -> Result<Usage, SnapshotError> {
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

fn writable(lowers: &[PathBuf], container: &Path) -> Mount {
    let option = |name, directory| format!("{name}={}", container.join(directory).display());
    overlay(lowers, vec![option("upperdir", "fs"), option("workdir", "work")])
}

/// Directories, uppermost first, on top of each other; or a single file.
pub(crate) fn read_only(lowers: &[PathBuf]) -> Vec<Mount> {
    // Overlayfs refuses a single lower directory without an upper one.
    let [only] = lowers else { return vec![overlay(lowers, vec!["ro".to_owned()])] };
    let options = vec!["bind".to_owned(), "ro".to_owned()];
    vec![Mount { kind: "bind".into(), source: only.clone(), options, ..Mount::default() }]
}

fn overlay(lowers: &[PathBuf], more: Vec<String>) -> Mount {
    let mut options: Vec<String> = lowers.iter().map(|lower| format!("lowerdir+={}", lower.display())).collect();
    options.extend(more);
    options.extend(OVERLAY_OPTIONS.map(str::to_owned));
    Mount { kind: "overlay".into(), source: "overlay".into(), options, ..Mount::default() }
}

#[cfg(test)]
mod tests;
