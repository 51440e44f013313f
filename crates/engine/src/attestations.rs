//! What an index names about an image that is pulled, brought beside its layers: nobody waits for it but the record. What
//! cannot be had is left out, and a pull of the same name asks for it again: the image is as good without.

use std::io;
use std::sync::Arc;

use content::Content;
use image::{PulledAttestation, PulledImage};
use oci::Digest;
use oci::image::{Descriptor, Index};
use registry_client::{LayerReader, RegistryError, Session, Transfer};
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

/// What came of them, for a thread that may block. No other one waits for their bytes.
pub(crate) struct Coming {
    opened: oneshot::Receiver<Vec<Opened>>,
    content: Content,
}

/// One whose manifest is here, and whose blobs come.
struct Opened {
    descriptor: Descriptor,
    manifest: Vec<u8>,
    blobs: Vec<(LayerReader, Descriptor)>,
}

impl Coming {
    /// Blocks until all have come or failed.
    pub(crate) fn wait(self) -> Vec<PulledAttestation> {
        let opened = self.opened.blocking_recv().unwrap_or_default();
        let mut all = Vec::new();
        for one in opened {
            let digest = one.descriptor.digest.clone();
            match one.read(&self.content) {
                Ok(one) => all.push(one),
                Err(err) => leave_out(&digest, &err),
            }
        }
        all
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
    let (sender, opened) = oneshot::channel();
    let (session, by) = (session.clone(), transfer.clone());
    let task = tokio::spawn(async move {
        let (mut room, mut all) = (image::attestations_room(), Vec::new());
        for descriptor in wanted {
            let digest = descriptor.digest.clone();
            match open(&session, &by, descriptor, &mut room).await {
                Ok(one) => all.push(one),
                Err(err) => leave_out(&digest, &err),
            }
        }
        // Who waited has gone.
        let _ = sender.send(all);
    });
    (Fetching { task, transfer }, Coming { opened, content: content.clone() })
}

fn leave_out(digest: &Digest, err: &FetchError) {
    debug!(%digest, "not kept beside an image: {}", errdefs::chain(err));
}

/// Gets the manifest of one, and has its blobs come.
async fn open(
    session: &Session,
    transfer: &Transfer,
    descriptor: Descriptor,
    room: &mut u64,
) -> Result<Opened, FetchError> {
    let manifest = registry_client::named_manifest(session, &descriptor).await?;
    let (blobs, left) = image::attestation_blobs(&manifest, *room).ok_or(FetchError::Blobs)?;
    *room = left;
    let blobs = blobs.into_iter().map(|blob| (transfer.open(&blob), blob)).collect();
    Ok(Opened { descriptor, manifest, blobs })
}

impl Opened {
    /// Blocks until it is whole.
    fn read(self, content: &Content) -> Result<PulledAttestation, FetchError> {
        let Opened { descriptor, manifest, blobs } = self;
        let mut whole = Vec::new();
        for (mut reader, blob) in blobs {
            // Its end is verified. Another pull may have recorded it by then: the store looks for it.
            io::copy(&mut reader, &mut io::sink()).map_err(FetchError::Blob)?;
            whole.extend(content.verified(&blob.digest, blob.size));
        }
        Ok(PulledAttestation { descriptor, manifest, blobs: whole })
    }
}
