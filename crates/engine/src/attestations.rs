//! What an index names about an image that is pulled, brought beside its layers: nobody waits for it but the record. What
//! cannot be had is left out, and a pull of the same name asks for it again: the image is as good without.

use std::io;
use std::sync::Arc;

use content::Content;
use image::{PulledAttestation, PulledImage};
use oci::image::{Descriptor, Index};
use registry_client::{RegistryError, Session, Transfer};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::debug;

/// Why one did not come.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    /// Its manifest.
    #[error("get the manifest")]
    Manifest(#[from] RegistryError),
    /// It is none, or names too much.
    #[error("the manifest is none, or what it names is too much")]
    Blobs,
    /// A blob.
    #[error("get a blob")]
    Blob(#[source] io::Error),
}

/// All of one image, on their way; dropped, they are given up.
pub(crate) struct Fetching {
    task: JoinHandle<()>,
    /// Holds what came until it is recorded.
    transfer: Arc<Transfer>,
}

/// What came of them, for a thread that may block.
pub(crate) struct Coming(oneshot::Receiver<Vec<PulledAttestation>>);

impl Coming {
    /// Blocks until all have come or failed.
    pub(crate) fn wait(self) -> Vec<PulledAttestation> {
        self.0.blocking_recv().unwrap_or_default()
    }
}

impl Fetching {
    /// Gives up; nothing more comes.
    pub(crate) fn cancel(&self) {
        self.transfer.cancel();
        self.task.abort();
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Begins.
pub(crate) fn fetch(session: &Arc<Session>, content: &Content, image: &PulledImage) -> (Fetching, Coming) {
    // Nobody is told of them, as by dockerd.
    let (reports, _) = mpsc::channel(1);
    let transfer = Arc::new(Transfer::new(session.clone(), content, reports));
    let index = image.index.as_ref().and_then(|(_, bytes)| serde_json::from_slice::<Index>(bytes).ok());
    let wanted = index.map(|index| image::attestations_of(&index, &image.descriptor.digest)).unwrap_or_default();
    let (sender, coming) = oneshot::channel();
    let (session, content, by) = (session.clone(), content.clone(), transfer.clone());
    let task = tokio::spawn(async move {
        let (mut room, mut all) = (image::attestations_room(), Vec::new());
        for descriptor in wanted {
            match one(&session, &content, &by, &descriptor, &mut room).await {
                Ok(one) => all.push(one),
                Err(err) => {
                    debug!(digest = %descriptor.digest, "not kept beside an image: {}", errdefs::chain(&err));
                }
            }
        }
        // Who waited has gone.
        let _ = sender.send(all);
    });
    (Fetching { task, transfer }, Coming(coming))
}

async fn one(
    session: &Session,
    content: &Content,
    transfer: &Transfer,
    descriptor: &Descriptor,
    room: &mut u64,
) -> Result<PulledAttestation, FetchError> {
    let manifest = registry_client::named_manifest(session, descriptor).await?;
    let (blobs, left) = image::attestation_blobs(&manifest, *room).ok_or(FetchError::Blobs)?;
    *room = left;
    let readers: Vec<_> = blobs.into_iter().map(|blob| (transfer.open(&blob), blob.digest)).collect();
    let content = content.clone();
    let read = move || {
        let mut whole = Vec::new();
        for (mut reader, digest) in readers {
            // Its end is verified. Another pull may have recorded it by then: the store looks for it.
            io::copy(&mut reader, &mut io::sink())?;
            whole.extend(content.verified(&digest));
        }
        Ok(whole)
    };
    let blobs = bridge::blocking(read).await.map_err(FetchError::Blob)?;
    Ok(PulledAttestation { descriptor: descriptor.clone(), manifest, blobs })
}
