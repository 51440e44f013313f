//! The layers of one pull, as readers over bytes that are still arriving.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use content::Content;
use oci::Digest;
use oci::image::Descriptor;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::download::{self, Download, Hold, Progress, Reader};
use crate::error::RegistryError;
use crate::session::{Session, origin};

/// How far one layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerProgress {
    /// Which one.
    pub layer: Digest,
    /// How far.
    pub progress: Progress,
}

/// All transfers of one pull; dropped, it lets go of them and of what they brought: not before that is recorded.
#[derive(Debug)]
pub struct Transfer {
    session: Arc<Session>,
    content: Content,
    runtime: Handle,
    reports: mpsc::Sender<LayerProgress>,
    cancelled: Arc<AtomicBool>,
    opened: Mutex<Vec<(Arc<Download>, Hold)>>,
    failure: Arc<Mutex<Option<Arc<RegistryError>>>>,
}

/// One layer, from its begin. Blocks until bytes arrive; its end is verified. For one thread that may block.
#[derive(Debug)]
pub struct LayerReader {
    reader: Reader,
    failure: Arc<Mutex<Option<Arc<RegistryError>>>>,
}

/// What a reader's `io::Error` holds.
#[derive(Debug, thiserror::Error)]
#[error("transfer the layer")]
struct Failed {
    source: Arc<RegistryError>,
}

impl Transfer {
    /// Must be called within a tokio runtime, where the transfers run. How far they are goes to `reports`; who does not
    /// take them in time gets the newest, and nobody waits for him.
    pub fn new(session: Arc<Session>, content: &Content, reports: mpsc::Sender<LayerProgress>) -> Transfer {
        Transfer {
            session,
            content: content.clone(),
            runtime: Handle::current(),
            reports,
            cancelled: Arc::default(),
            opened: Mutex::default(),
            failure: Arc::default(),
        }
    }

    /// Starts the transfer of a layer, or joins the one that runs. Does not block.
    pub fn open(&self, layer: &Descriptor) -> LayerReader {
        let downloads = &self.session.registry().downloads;
        let hold = downloads.hold(&layer.digest);
        let (download, is_new) = downloads.join(layer, &origin(&self.session));
        if is_new {
            self.runtime.spawn(download::run(self.session.clone(), self.content.clone(), download.clone()));
        }
        self.runtime.spawn(report(
            self.session.clone(),
            download.clone(),
            self.reports.clone(),
            self.cancelled.clone(),
        ));
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).push((download.clone(), hold));
        let reader = Reader { download, cancelled: self.cancelled.clone(), position: 0 };
        LayerReader { reader, failure: self.failure.clone() }
    }

    /// Makes all readers fail, at once; for a client that left.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|(download, _)| download.wake());
    }

    /// Throws away what came, but for what others read or keep: when the bytes themselves are what was wrong. No reader of
    /// this transfer may be left.
    pub async fn discard(&self) {
        let opened = std::mem::take(&mut *self.opened.lock().unwrap_or_else(PoisonError::into_inner));
        for (download, hold) in opened.into_iter().filter(|(download, _)| !download.is_read()) {
            // The sender is in what we hold, so this cannot fail.
            let _ = download.progress.subscribe().wait_for(|progress| progress.is_over()).await;
            let (session, content) = (self.session.clone(), self.content.clone());
            let digest = download.descriptor.digest.clone();
            drop(hold);
            bridge::blocking(move || session.registry().downloads.discard(&digest, &content)).await;
        }
    }

    /// Why the first reader that failed did.
    pub fn failure(&self) -> Option<Arc<RegistryError>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Read for LayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).unwrap_or_else(|source| {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| source.clone());
            Err(io::Error::other(Failed { source }))
        })
    }
}

/// Tells how far a transfer is: every stage, and how many bytes not more often than anyone can see.
async fn report(
    session: Arc<Session>,
    download: Arc<Download>,
    reports: mpsc::Sender<LayerProgress>,
    cancelled: Arc<AtomicBool>,
) {
    let pause = session.registry().settings.timing.report;
    let mut progress = download.progress.subscribe();
    let mut verifying = false;
    loop {
        let now = *progress.borrow_and_update();
        let tell = |progress| reports.send(LayerProgress { layer: download.descriptor.digest.clone(), progress });
        // The stage between the last bytes and the end is short; clients expect it all the same.
        if now == Progress::Complete && !verifying && tell(Progress::Verifying).await.is_err() {
            return;
        }
        verifying |= now == Progress::Verifying;
        if now != Progress::New && tell(now).await.is_err() {
            return;
        }
        if now.is_over() || cancelled.load(Ordering::Acquire) {
            return;
        }
        if let Progress::Downloading { current, total } = now
            && current < total
        {
            tokio::time::sleep(pause).await;
        }
        if progress.changed().await.is_err() {
            return;
        }
    }
}
