//! Removing trees that a container made.

use std::io;
use std::path::PathBuf;

use errdefs::ErrorKind;

use crate::store::Snapshots;

/// Trees of the trash that could not be removed; they are tried again at the next sweep.
#[derive(Debug, thiserror::Error)]
#[error("remove {}, and {more} more", path.display())]
pub struct SweepError {
    /// The first that failed.
    pub path: PathBuf,
    /// How many failed beside it.
    pub more: usize,
    /// Why the first one failed.
    pub source: io::Error,
}

impl SweepError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

impl Snapshots {
    /// Removes what `remove`, `retain_layers` and dropped stages put in the trash; returns the number of trees.
    ///
    /// Takes as long as the trees are large: call it in the background. Two sweeps at once do no harm.
    pub fn sweep(&self) -> Result<usize, SweepError> {
        sweep_between(self, &|| {})
    }
}

/// What [`Snapshots::sweep`] does; before each directory it asks `pause`, which takes as long as other work is to go first.
pub fn sweep_between(snapshots: &Snapshots, pause: &dyn Fn()) -> Result<usize, SweepError> {
    let trash = snapshots.place.root.join("trash");
    snapshots.snapshotter.discard(&trash);
    let swept = stdx::tree::sweep_between(&trash, "", pause);
    swept.map_err(|left| SweepError { path: left.path, more: left.more, source: left.source })
}
