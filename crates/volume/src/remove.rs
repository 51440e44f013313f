//! Removing volumes, and what they take.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use errdefs::ErrorKind;
use oci::ContainerId;
use stdx::tree::Usage;

use crate::mount;
use crate::name::VolumeName;
use crate::record::{self, Volume};
use crate::store::{NotFound, Slot, Volumes};

/// Begins the names of what is to be deleted.
pub(crate) const GONE: &str = ".gone-";

/// Why [`Volumes::remove`] failed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is no such volume.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// Containers have it.
    #[error("remove {name}: volume is in use - [{}]", join(users))]
    InUse {
        /// The volume.
        name: VolumeName,
        /// Which containers.
        users: Vec<ContainerId>,
    },
    /// What is mounted there cannot be unmounted, and must not be deleted.
    #[error("remove {name}: unmount the volume")]
    Unmount {
        /// The volume.
        name: VolumeName,
        /// Why.
        source: io::Error,
    },
    /// The system says no.
    #[error("remove {name}: set the volume's directory aside")]
    Io {
        /// The volume.
        name: VolumeName,
        /// Why.
        source: io::Error,
    },
}

/// Why [`Volumes::disown`] failed.
#[derive(Debug, thiserror::Error)]
pub enum DisownError {
    /// There is no such volume.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The record cannot be written.
    #[error("write the record of volume {name}")]
    Io {
        /// The volume.
        name: VolumeName,
        /// Why.
        source: io::Error,
    },
}

/// Removed volumes that could not be deleted; they are tried again at the next sweep.
#[derive(Debug, thiserror::Error)]
#[error("delete {}, and {more} more", path.display())]
pub struct SweepError {
    /// The first that failed.
    pub path: PathBuf,
    /// How many failed beside it.
    pub more: usize,
    /// Why the first one failed.
    pub source: io::Error,
}

/// Why [`Volumes::usage`] failed.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// There is no such volume.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// Directories nest so deep that they cannot be counted.
    #[error("directories in volume {name} nest too deep")]
    TooDeep {
        /// The volume.
        name: VolumeName,
    },
    /// The system says no.
    #[error("measure volume {name}")]
    Io {
        /// The volume.
        name: VolumeName,
        /// Why.
        source: io::Error,
    },
}

/// What [`Volumes::prune`] and [`Volumes::remove_orphans`] did.
#[derive(Debug, Default)]
pub struct Pruned {
    /// The volumes that are gone.
    pub removed: Vec<Arc<Volume>>,
    /// What they took, if that was asked for; one whose size cannot be told counts nothing.
    pub reclaimed_bytes: u64,
    /// Those that stayed though nobody has them.
    pub failed: Vec<RemoveError>,
}

impl RemoveError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RemoveError::NotFound(err) => err.kind(),
            RemoveError::InUse { .. } => ErrorKind::Conflict,
            RemoveError::Unmount { .. } | RemoveError::Io { .. } => ErrorKind::Internal,
        }
    }
}

impl DisownError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            DisownError::NotFound(err) => err.kind(),
            DisownError::Io { .. } => ErrorKind::Internal,
        }
    }
}

impl SweepError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

impl UsageError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            UsageError::NotFound(err) => err.kind(),
            UsageError::TooDeep { .. } | UsageError::Io { .. } => ErrorKind::Internal,
        }
    }
}

impl Volumes {
    /// Takes a volume that nobody uses out of sight, with everything in it: one rename. `sweep` deletes it.
    ///
    /// A power cut before that sweep can bring it back, whole.
    pub fn remove(&self, name: &str) -> Result<Arc<Volume>, RemoveError> {
        let table = self.idle(name);
        let volume = match table.get(name) {
            Some(Slot::Here(entry)) if entry.users.is_empty() => entry.volume.clone(),
            Some(Slot::Here(entry)) => {
                let users = entry.users.iter().cloned().collect();
                return Err(RemoveError::InUse { name: entry.volume.name.clone(), users });
            }
            _ => return Err(NotFound { name: name.to_owned() }.into()),
        };
        let (changing, before) = self.change(table, &volume.name);
        let removed = set_aside(self, &volume);
        if let (Err(_), Some(before)) = (&removed, before) {
            changing.becomes(before);
        }
        removed.map(|()| volume)
    }

    /// Lets an anonymous volume stay though its owner is about to be removed, durably.
    pub fn disown(&self, name: &str) -> Result<(), DisownError> {
        let held = self.hold(name)?;
        if held.volume.owner.is_some() {
            let volume = Volume { owner: None, ..Volume::clone(&held.volume) };
            let saved = record::save(&self.directory(&volume.name), &volume);
            saved.map_err(|source| DisownError::Io { name: volume.name.clone(), source })?;
            held.becomes(volume);
        }
        Ok(())
    }

    /// Removes the volumes whose owner does not exist and that nobody uses: their container was never finished, or its
    /// removal. For the start, when all uses are known.
    pub fn remove_orphans(&self, mut exists: impl FnMut(&ContainerId) -> bool) -> Pruned {
        self.remove_unused(|volume| volume.owner.as_ref().is_some_and(|owner| !exists(owner)), false)
    }

    /// Removes all volumes that nobody uses and that `select` wants gone, and counts their bytes.
    pub fn prune(&self, select: impl FnMut(&Volume) -> bool) -> Pruned {
        self.remove_unused(select, true)
    }

    fn remove_unused(&self, mut select: impl FnMut(&Volume) -> bool, measure: bool) -> Pruned {
        let mut pruned = Pruned::default();
        let unused = self.list().into_iter().filter(|listed| listed.users.is_empty()).map(|listed| listed.volume);
        for volume in unused.filter(|volume| select(volume)) {
            // One that cannot be measured can be removed; one that is a mount frees nothing here.
            let measured = (measure && !volume.is_mount()).then(|| self.usage(volume.name.as_str()));
            let bytes = measured.map_or(0, |usage| usage.map_or(0, |usage| usage.bytes));
            match self.remove(volume.name.as_str()) {
                Ok(volume) => {
                    pruned.reclaimed_bytes += bytes;
                    pruned.removed.push(volume);
                }
                // Somebody took it, or was faster.
                Err(RemoveError::InUse { .. } | RemoveError::NotFound(_)) => {}
                Err(err) => pruned.failed.push(err),
            }
        }
        pruned
    }

    /// What a volume's files take. Walks them all, while containers may change them.
    pub fn usage(&self, name: &str) -> Result<Usage, UsageError> {
        usage_unless(self, name, &AtomicBool::new(false))
    }

    /// Deletes what was removed; returns the number of trees.
    ///
    /// Takes as long as the volumes are large: call it in the background. Two sweeps at once do no harm.
    pub fn sweep(&self) -> Result<usize, SweepError> {
        let failed = |source| SweepError { path: self.root.clone(), more: 0, source };
        // Whoever removes a container asks for a sweep, mostly for nothing: that must not cost everybody a flush of the disk.
        if !has_set_aside(&self.root).map_err(failed)? {
            return Ok(0);
        }
        // A volume that a power cut brings back must not come back without half of its files.
        stdx::fs::sync_dir(&self.root).map_err(failed)?;
        let swept = stdx::tree::sweep(&self.root, GONE);
        swept.map_err(|left| SweepError { path: left.path, more: left.more, source: left.source })
    }
}

fn has_set_aside(root: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(root)? {
        if entry?.file_name().as_encoded_bytes().starts_with(GONE.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The same as [`Volumes::usage`]; ends with an error soon after somebody sets `stop`.
pub fn usage_unless(volumes: &Volumes, name: &str, stop: &AtomicBool) -> Result<Usage, UsageError> {
    let volume = volumes.get(name)?.volume;
    match stdx::tree::usage_unless(&volume.mountpoint, stop) {
        Ok(Some(usage)) => Ok(usage),
        Ok(None) => Err(UsageError::TooDeep { name: volume.name.clone() }),
        Err(source) => Err(UsageError::Io { name: volume.name.clone(), source }),
    }
}

fn set_aside(volumes: &Volumes, volume: &Volume) -> Result<(), RemoveError> {
    // Whatever the record says: what somebody mounted there is not ours to delete.
    let unmounted = mount::unmount(&volume.mountpoint);
    unmounted.map_err(|source| RemoveError::Unmount { name: volume.name.clone(), source })?;
    match fs::rename(volumes.directory(&volume.name), volumes.gone()) {
        // Somebody removed the directory by hand: then it is as wanted.
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed.map_err(|source| RemoveError::Io { name: volume.name.clone(), source }),
    }
}

fn join(users: &[ContainerId]) -> String {
    users.iter().map(ContainerId::as_str).collect::<Vec<_>>().join(", ")
}
