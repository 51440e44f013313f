//! `GET /containers/{id}/changes`

use engine_api::changes::Change;
use errdefs::ErrorKind;
use snapshot::{ChangeKind, Stubs};

use crate::Engine;
use crate::ops::create::snapshot_key;
use crate::registry::LookupError;

/// What a start makes in a root for its mounts, and `create` to mark it. dockerd has these in a layer of their own.
pub(crate) const STUBS: Stubs<'static> = Stubs {
    files: &[".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf", "dev/console"],
    links: &[("etc/mtab", "/proc/mounts")],
    directories: &["dev", "dev/pts", "dev/shm", "dev/mqueue", "etc", "proc", "sys"],
};

/// Why changes cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Its files cannot be compared.
    #[error("compare the container's files with its image's")]
    Compare(#[source] snapshot::SnapshotError),
}

impl ChangesError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ChangesError::Lookup(err) => err.kind(),
            ChangesError::Compare(err) => err.kind(),
        }
    }
}

/// What a container changed, by path. Looks at its own files alone.
pub async fn changes(engine: &Engine, name: &str) -> Result<Vec<Change>, ChangesError> {
    let key = snapshot_key(engine.containers.find(name)?.id());
    let engine = engine.clone();
    let found = bridge::blocking(move || engine.images.snapshots().changes(&key, STUBS)).await;
    let change = |(path, kind): (Vec<u8>, ChangeKind)| Change {
        path: format!("/{}", String::from_utf8_lossy(&path)),
        kind: match kind {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        },
    };
    Ok(found.map_err(ChangesError::Compare)?.paths.into_iter().map(change).collect())
}
