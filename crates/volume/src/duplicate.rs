//! Copies of whole volumes: new ones made of a copy, and snapshots.
//!
//! ```text
//!   volume ----copy----+
//!                      +--> <root>/.new-*/_data ---publish--> <root>/<name>/            a new volume
//!   anybody's files ---+                        ---keep-----> <root>/<name>/snapshots/<snapshot>/
//!                                               ---restore--> exchanged with <root>/<name>/_data
//! ```
//! Everything is made aside and synced, and one rename shows it: a kill at any point leaves the whole of it or nothing, and
//! what it leaves aside goes with the next sweep. Blocks are shared with the original where the file system can.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use errdefs::ErrorKind;
use oci::ContainerId;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use stdx::fs::Durability;

use crate::copy::{Copier, CopyError};
use crate::create::{self, DATA_MODE, DIRECTORY_MODE, NEW, Wanted, make_directory, to_seconds};
use crate::fill::open_directory;
use crate::mount::MountError;
use crate::name::{NameError, VolumeName};
use crate::record::{self, DATA, Volume};
use crate::store::{Entry, NotFound, Slot, Volumes};

/// Where a volume keeps its snapshots, beside its data.
const SNAPSHOTS: &str = "snapshots";

/// The record of a snapshot, beside its data.
const RECORD: &str = "snapshot.json";

/// Why a copy of a volume was not made, or not used.
#[derive(Debug, thiserror::Error)]
pub enum DuplicateError {
    /// There is no such volume.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// There is one of that name.
    #[error("volume {0} already exists")]
    Exists(VolumeName),
    /// It cannot be made: its name, or its driver.
    #[error(transparent)]
    Create(#[from] create::CreateError),
    /// The name of a snapshot is none.
    #[error("snapshot {name}")]
    SnapshotName {
        /// The text.
        name: String,
        /// Why not.
        source: NameError,
    },
    /// There is a snapshot of that name.
    #[error("volume {volume} already has a snapshot {snapshot}")]
    SnapshotExists {
        /// The volume.
        volume: VolumeName,
        /// The snapshot.
        snapshot: String,
    },
    /// There is no snapshot of that name.
    #[error("volume {volume} has no snapshot {snapshot}")]
    NoSnapshot {
        /// The volume.
        volume: VolumeName,
        /// The snapshot.
        snapshot: String,
    },
    /// What lies on somebody else's file system has no snapshots here.
    #[error("volume {0} is a mount of {1:?}: it has no snapshots, but it can be cloned")]
    Mount(VolumeName, String),
    /// It cannot be mounted.
    #[error(transparent)]
    Mounting(#[from] MountError),
    /// Somebody began to use it.
    #[error("volume {name} is in use - [{}]", users.join(", "))]
    InUse {
        /// The volume.
        name: VolumeName,
        /// By which containers.
        users: Vec<String>,
    },
    /// A file cannot be copied.
    #[error("copy volume {name}")]
    Copy {
        /// The volume.
        name: VolumeName,
        /// Which, and why.
        source: CopyError,
    },
    /// The system says no.
    #[error("{what}")]
    Io {
        /// What we were doing.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl DuplicateError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            DuplicateError::NotFound(err) => err.kind(),
            DuplicateError::Create(err) => err.kind(),
            DuplicateError::SnapshotName { source, .. } => source.kind(),
            DuplicateError::Mounting(err) => err.kind(),
            DuplicateError::NoSnapshot { .. } => ErrorKind::NotFound,
            DuplicateError::Exists(_) | DuplicateError::SnapshotExists { .. } | DuplicateError::InUse { .. } => {
                ErrorKind::Conflict
            }
            DuplicateError::Mount(..) => ErrorKind::InvalidArgument,
            DuplicateError::Copy { .. } | DuplicateError::Io { .. } => ErrorKind::Internal,
        }
    }

    fn io(what: &'static str) -> impl FnOnce(io::Error) -> DuplicateError {
        move |source| DuplicateError::Io { what, source }
    }
}

/// A copy in the making; dropped, it is gone.
#[derive(Debug)]
pub struct Staged<'a> {
    volumes: &'a Volumes,
    path: PathBuf,
}

/// A snapshot of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name, unique to the volume.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Its files.
    pub data: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct SnapshotRecord {
    created: String,
}

/// An empty directory that is to become a volume or a snapshot.
pub fn stage(volumes: &Volumes) -> Result<Staged<'_>, DuplicateError> {
    let path = volumes.root.join(format!("{NEW}{}", stdx::id::random_hex::<8>()));
    make_directory(&path, DIRECTORY_MODE).map_err(DuplicateError::io("make a directory for the copy"))?;
    let staged = Staged { volumes, path };
    make_directory(&staged.data(), DATA_MODE).map_err(DuplicateError::io("make a directory for the copy"))?;
    Ok(staged)
}

/// Copies all files of a volume, which is neither removed nor filled meanwhile. Others may be changing them: who wants them
/// at one moment holds the others still.
pub fn copy<'a>(volumes: &'a Volumes, name: &str) -> Result<Staged<'a>, DuplicateError> {
    let held = volumes.hold(name)?;
    let _mounted = held.mount_for_now()?;
    copy_directory(volumes, &held.volume.name, &held.volume.mountpoint, None)
}

/// The same, with the volume's limit on the copy, which is to become a volume of that size.
pub fn copy_limited<'a>(volumes: &'a Volumes, name: &str) -> Result<Staged<'a>, DuplicateError> {
    let held = volumes.hold(name)?;
    let _mounted = held.mount_for_now()?;
    copy_directory(volumes, &held.volume.name, &held.volume.mountpoint, held.volume.limit())
}

fn copy_directory<'a>(
    volumes: &'a Volumes,
    name: &VolumeName,
    from: &Path,
    limit: Option<u64>,
) -> Result<Staged<'a>, DuplicateError> {
    let staged = stage(volumes)?;
    create::limit(volumes, &staged.data(), limit).map_err(DuplicateError::io("limit the copy"))?;
    let source = open_directory(from).map_err(DuplicateError::io("open the volume"))?;
    let target = open_directory(&staged.data()).map_err(DuplicateError::io("open the copy"))?;
    let mut copier = Copier::new(target.as_fd()).map_err(DuplicateError::io("open the copy"))?;
    let copied = quota::obeying(|| copier.copy(source));
    copied.map_err(|source| DuplicateError::Copy { name: name.clone(), source })?;
    Ok(staged)
}

impl Staged<'_> {
    /// Its files.
    pub fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }

    /// Makes it a volume, durably, if there is none of that name.
    pub fn publish(self, wanted: &Wanted) -> Result<Arc<Volume>, DuplicateError> {
        let plan = create::plan(wanted, None, SystemTime::now(), &self.volumes.root)?;
        self.sync()?;
        record::save(&self.path, &plan).map_err(DuplicateError::io("write the volume's record"))?;
        let table = self.volumes.settled(plan.name.as_str());
        if table.contains_key(&plan.name) {
            return Err(DuplicateError::Exists(plan.name));
        }
        let (changing, _) = self.volumes.change(table, &plan.name);
        let path = self.volumes.directory(&plan.name);
        renameat_with(CWD, &self.path, CWD, &path, RenameFlags::NOREPLACE)
            .map_err(|err| DuplicateError::io("show the volume's directory")(err.into()))?;
        stdx::fs::sync_dir(&self.volumes.root).map_err(DuplicateError::io("sync the volume's directory"))?;
        let volume = Arc::new(plan);
        changing.becomes(Entry::new(volume.clone()));
        Ok(volume)
    }

    /// Keeps it as a snapshot of that volume, durably.
    pub fn keep(self, volume: &str, snapshot: &str) -> Result<Snapshot, DuplicateError> {
        check_name(snapshot)?;
        let created = to_seconds(SystemTime::now());
        let bytes = serde_json::to_vec(&SnapshotRecord { created }).expect("a record has no failing serializers");
        let written = stdx::fs::write_atomic(&self.path.join(RECORD), &bytes, Durability::PowerCut);
        written.map_err(DuplicateError::io("write the snapshot's record"))?;
        self.sync()?;
        let held = self.volumes.hold(volume)?;
        let directory = self.volumes.directory(&held.volume.name).join(SNAPSHOTS);
        match make_directory(&directory, 0o700) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(DuplicateError::io("make a directory for snapshots"))?,
        }
        match renameat_with(CWD, &self.path, CWD, directory.join(snapshot), RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => {
                let (volume, snapshot) = (held.volume.name.clone(), snapshot.to_owned());
                return Err(DuplicateError::SnapshotExists { volume, snapshot });
            }
            renamed => renamed.map_err(|err| DuplicateError::io("show the snapshot")(err.into()))?,
        }
        stdx::fs::sync_dir(&directory).map_err(DuplicateError::io("sync the snapshots"))?;
        load(&directory, snapshot).map_err(DuplicateError::io("read the snapshot"))
    }

    /// The files' bytes must not come later than their names. One sync for all: they may be many.
    fn sync(&self) -> Result<(), DuplicateError> {
        let opened = open_directory(&self.path).map_err(DuplicateError::io("sync the copy"))?;
        rustix::fs::syncfs(opened).map_err(|err| DuplicateError::io("sync the copy")(err.into()))
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        // Where it was shown, there is nothing of that name any more; what stays goes when the store opens.
        let _ = fs::rename(&self.path, self.volumes.gone());
    }
}

/// The snapshots of a volume, by name.
pub fn snapshots(volumes: &Volumes, name: &str) -> Result<Vec<Snapshot>, DuplicateError> {
    let volume = volumes.get(name)?.volume;
    let directory = volumes.directory(&volume.name).join(SNAPSHOTS);
    let entries = match fs::read_dir(&directory) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(DuplicateError::io("list the snapshots"))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(DuplicateError::io("list the snapshots"))?.file_name();
        // One that is being removed, or somebody else's file.
        found.extend(name.to_str().and_then(|name| load(&directory, name).ok()));
    }
    found.sort_by(|one: &Snapshot, other| one.name.cmp(&other.name));
    Ok(found)
}

/// Removes a snapshot; [`Volumes::sweep`] takes the time to delete it.
pub fn remove_snapshot(volumes: &Volumes, name: &str, snapshot: &str) -> Result<(), DuplicateError> {
    let held = volumes.hold(name)?;
    let found = find(volumes, &held.volume, snapshot)?;
    let directory = found.data.parent().unwrap_or(&found.data).to_owned();
    fs::rename(directory, volumes.gone()).map_err(DuplicateError::io("set the snapshot aside"))
}

/// Makes a volume's files what they were. Nobody but `idle` may have it, none of whom runs: what runs goes on with the
/// directory that it has.
pub fn restore(
    volumes: &Volumes,
    name: &str,
    snapshot: &str,
    idle: &BTreeSet<ContainerId>,
) -> Result<(), DuplicateError> {
    let staged = {
        let held = volumes.hold(name)?;
        refuse_mount(&held.volume)?;
        let found = find(volumes, &held.volume, snapshot)?;
        copy_directory(volumes, &held.volume.name, &found.data, held.volume.limit())?
    };
    staged.sync()?;
    let table = volumes.idle(name);
    let volume = match table.get(name) {
        Some(Slot::Here(entry)) if entry.users.is_subset(idle) => entry.volume.clone(),
        Some(Slot::Here(entry)) => {
            let users = entry.users.difference(idle).map(ToString::to_string).collect();
            return Err(DuplicateError::InUse { name: entry.volume.name.clone(), users });
        }
        _ => return Err(NotFound { name: name.to_owned() }.into()),
    };
    let (changing, before) = volumes.change(table, &volume.name);
    let exchanged = renameat_with(CWD, staged.data(), CWD, &volume.mountpoint, RenameFlags::EXCHANGE)
        .map_err(|err| DuplicateError::io("exchange the volume's data")(err.into()))
        .and_then(|()| {
            let synced = stdx::fs::sync_dir(&volumes.directory(&volume.name));
            synced.map_err(DuplicateError::io("sync the volume's directory"))
        });
    if let Some(before) = before {
        changing.becomes(before);
    }
    exchanged
}

/// Refuses snapshots of what is somebody else's file system.
pub fn refuse_mount(volume: &Volume) -> Result<(), DuplicateError> {
    if !volume.is_mount() {
        return Ok(());
    }
    let device = volume.options.as_ref().and_then(|options| options.get("device")).cloned().unwrap_or_default();
    Err(DuplicateError::Mount(volume.name.clone(), device))
}

fn find(volumes: &Volumes, volume: &Volume, snapshot: &str) -> Result<Snapshot, DuplicateError> {
    check_name(snapshot)?;
    let directory = volumes.directory(&volume.name).join(SNAPSHOTS);
    load(&directory, snapshot).map_err(|err| match err.kind() {
        io::ErrorKind::NotFound => {
            DuplicateError::NoSnapshot { volume: volume.name.clone(), snapshot: snapshot.to_owned() }
        }
        _ => DuplicateError::io("read the snapshot")(err),
    })
}

/// Names of snapshots are those that volumes may have: none of them is a path.
fn check_name(name: &str) -> Result<(), DuplicateError> {
    let checked = name.parse::<VolumeName>();
    checked.map(drop).map_err(|source| DuplicateError::SnapshotName { name: name.to_owned(), source })
}

fn load(directory: &Path, name: &str) -> io::Result<Snapshot> {
    let path = directory.join(name);
    let record: SnapshotRecord = serde_json::from_slice(&fs::read(path.join(RECORD))?)?;
    Ok(Snapshot { name: name.to_owned(), created: record.created, data: path.join(DATA) })
}

/// Refuses what could not be published, before anything is copied.
pub fn check_new(volumes: &Volumes, wanted: &Wanted) -> Result<(), DuplicateError> {
    let plan = create::plan(wanted, None, SystemTime::now(), &volumes.root)?;
    match volumes.get(plan.name.as_str()) {
        Ok(_) => Err(DuplicateError::Exists(plan.name)),
        Err(_) => Ok(()),
    }
}

/// Refuses a snapshot that could not be kept, before anything is copied.
pub fn check_snapshot(volumes: &Volumes, name: &str, snapshot: &str) -> Result<(), DuplicateError> {
    let volume = volumes.get(name)?.volume;
    match find(volumes, &volume, snapshot) {
        Ok(_) => Err(DuplicateError::SnapshotExists { volume: volume.name.clone(), snapshot: snapshot.to_owned() }),
        Err(DuplicateError::NoSnapshot { .. }) => Ok(()),
        Err(err) => Err(err),
    }
}
