//! `GET /containers/{id}/export`: the root of a container, without what is mounted in it.

use ::archive::PackError;
use errdefs::ErrorKind;
use tokio::sync::oneshot;
use tracing::debug;

use crate::Engine;
use crate::container::state::Phase;
use crate::ops::archive::{self, ArchiveError, Finish};
use crate::registry::LookupError;
use crate::view::{self, Mounts};

/// Why a container was not exported. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It is being removed.
    #[error("You cannot export container {0} which is being removed")]
    Removing(String),
    /// Its files cannot be looked at.
    #[error("Error exporting container {container}")]
    Files {
        /// As the client named it.
        container: String,
        /// Why.
        source: ArchiveError,
    },
}

impl ExportError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ExportError::Lookup(err) => err.kind(),
            ExportError::Removing(_) => ErrorKind::Conflict,
            ExportError::Files { .. } => ErrorKind::Internal,
        }
    }
}

/// Writes the archive of a container's root to `out`, on a thread that may block; answers when it begins.
pub async fn export(engine: &Engine, name: &str, out: impl Finish + Send + 'static) -> Result<(), ExportError> {
    let container = engine.containers.find(name)?;
    if container.state().phase == Phase::Removing {
        return Err(ExportError::Removing(container.id().to_string()));
    }
    let (engine, (opened, told)) = (engine.clone(), oneshot::channel());
    tokio::spawn(async move {
        let leave = match view::enter(&engine, &container).await {
            Ok(leave) => leave,
            Err(err) => {
                // Who asked has gone.
                let _ = opened.send(Err(err.into()));
                return;
            }
        };
        let (task, inside) = (engine.clone(), container.clone());
        bridge::blocking(move || {
            let place = view::open(&task, &inside, Mounts::None, &leave)
                .map_err(ArchiveError::from)
                .and_then(|view| view.open(".", false).map(|place| (view, place)).map_err(no_root));
            let (_view, place) = match place {
                Ok(opened_root) => opened_root,
                Err(err) => {
                    let _ = opened.send(Err(err));
                    return;
                }
            };
            if opened.send(Ok(())).is_err() {
                return;
            }
            let written = archive::pack(place, b"", out, is_exported).and_then(|out| {
                // Told before the client has all of it, and does what is told after that.
                task.events.container(&inside, "export", []);
                out.finish().map_err(PackError::Write)
            });
            // The head is sent: the end of the connection is all that can be told.
            let _ = written.inspect_err(|err| debug!("export: {}", errdefs::chain(err)));
        })
        .await;
    });
    let opened = told.await.unwrap_or(Err(ArchiveError::Ending));
    opened.map_err(|source| ExportError::Files { container: name.to_owned(), source })
}

fn no_root(err: rustix::io::Errno) -> ArchiveError {
    ArchiveError::Stat { path: "/".to_owned(), source: err.into() }
}

/// Everything but what belongs to a place in overlayfs, or to this machine.
pub(crate) fn is_exported(xattr: &[u8]) -> bool {
    let of_overlays: [&[u8]; 3] = [b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs."];
    !of_overlays.iter().any(|mark| xattr.starts_with(mark)) && xattr != b"security.selinux"
}
