//! Transfers of blobs, shared by everybody who wants the same one.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use content::Content;
use oci::Digest;
use oci::image::Descriptor;
use tokio::sync::{Notify, watch};

use crate::error::RegistryError;
use crate::fetch;
use crate::session::Session;

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has not begun.
    New,
    /// Others are first.
    Waiting,
    /// Bytes come.
    Downloading {
        /// Bytes that are there.
        current: u64,
        /// Bytes that there will be.
        total: u64,
    },
    /// It was cut, and goes on in so many seconds.
    Retrying {
        /// How many.
        seconds: u64,
    },
    /// All bytes are there, and are compared with the digest.
    Verifying,
    /// It is whole and what it shall be.
    Complete,
    /// It ended otherwise.
    Failed,
}

impl Progress {
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Progress::Complete | Progress::Failed)
    }
}

/// All transfers of a daemon.
#[derive(Debug, Default)]
pub(crate) struct Downloads {
    running: Mutex<HashMap<Digest, Arc<Download>>>,
    held: Mutex<HashMap<Digest, Held>>,
}

/// A blob that pulls count on.
#[derive(Debug, Default)]
struct Held {
    pulls: usize,
    /// Its length, once it is there and verified.
    whole: Option<u64>,
}

/// Keeps what comes of a blob: from before its transfer until the pull is recorded or given up. A transfer that has ended is
/// in no list, but its bytes wait for those of other layers.
#[derive(Debug)]
pub(crate) struct Hold {
    downloads: Arc<Downloads>,
    digest: Digest,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.downloads.held();
        if let Entry::Occupied(mut entry) = held.entry(self.digest.clone()) {
            entry.get_mut().pulls -= 1;
            if entry.get().pulls == 0 {
                entry.remove();
            }
        }
    }
}

/// One transfer.
///
/// ```text
///               task (async)                      writer (waiting)              readers (waiting)
/// registry ---> body, resumed by Range ---> queue ---> partial blob ---> `readable` ---> file at any position
/// ```
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) descriptor: Descriptor,
    /// Whom it comes from.
    origin: String,
    state: Mutex<State>,
    /// `state` changed in a way that readers wait for.
    changed: Condvar,
    pub(crate) progress: watch::Sender<Progress>,
    /// Nobody waits any more.
    pub(crate) abandoned: Notify,
    /// The transfer of the same blob that was given up and still writes; this one begins after it.
    predecessor: Option<Arc<Download>>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    /// Bytes that readers may see.
    readable: u64,
    outcome: Option<Result<(), Arc<RegistryError>>>,
    readers: usize,
    /// The last reader left before the end: nobody can join any more.
    abandoned: bool,
}

impl Downloads {
    /// A reader of that blob, and the transfer if it must be started: by the caller, with [`run`].
    pub(crate) fn join(&self, descriptor: &Descriptor, origin: &str) -> (Arc<Download>, bool) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let predecessor = running.get(&descriptor.digest).cloned();
        if let Some(download) = &predecessor {
            let mut state = download.state();
            // Another length means that one of the two manifests is wrong: each shall hear of its own. What somebody
            // else gives may be a lie, for which this one shall not pay: it goes on with what is there then.
            let same = download.descriptor.size == descriptor.size && download.origin == origin;
            if same && !state.abandoned && state.outcome.is_none() {
                state.readers += 1;
                return (download.clone(), false);
            }
        }
        let state = State { readers: 1, ..State::default() };
        let download = Arc::new(Download::new(descriptor, origin, state, predecessor));
        running.insert(descriptor.digest.clone(), download.clone());
        (download, true)
    }

    /// Keeps a blob that is about to be transferred.
    pub(crate) fn hold(self: &Arc<Self>, digest: &Digest) -> Hold {
        self.held().entry(digest.clone()).or_default().pulls += 1;
        Hold { downloads: self.clone(), digest: digest.clone() }
    }

    /// How long a blob is that some pull has, whole and verified, and has not recorded yet.
    pub(crate) fn whole(&self, digest: &Digest) -> Option<u64> {
        self.held().get(digest)?.whole
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Digest, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what ended transfers of a blob have brought, unless another one goes on with it or a pull keeps it.
    pub(crate) fn discard(&self, digest: &Digest, content: &Content) {
        // Who begins to keep it from here on begins its transfer behind, too, and finds the removal below.
        if self.held().contains_key(digest) {
            return;
        }
        // In the list like a transfer that was given up: the next one waits until the file is gone.
        let nothing = Descriptor {
            media_type: String::new(),
            digest: digest.clone(),
            size: 0,
            annotations: BTreeMap::new(),
            platform: None,
        };
        let removal = Download::new(&nothing, "", State { abandoned: true, ..State::default() }, None);
        let removal = Arc::new(removal);
        match self.running.lock().unwrap_or_else(PoisonError::into_inner).entry(digest.clone()) {
            Entry::Occupied(_) => return,
            Entry::Vacant(place) => place.insert(removal.clone()),
        };
        if let Err(err) = content.discard(digest) {
            tracing::warn!(%digest, err = errdefs::chain(&err), "a part of a layer stays for a day");
        }
        self.end(&removal);
        removal.progress.send_replace(Progress::Failed);
    }

    /// Forgets a transfer that ended, unless another one took its place.
    fn end(&self, download: &Arc<Download>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(&download.descriptor.digest).is_some_and(|other| Arc::ptr_eq(other, download)) {
            running.remove(&download.descriptor.digest);
        }
    }
}

/// Runs a transfer to its end.
pub(crate) async fn run(session: Arc<Session>, content: Content, download: Arc<Download>) {
    if let Some(predecessor) = &download.predecessor {
        // Two must not write to one file. The sender lives as long as the predecessor, so this cannot fail.
        let _ = predecessor.progress.subscribe().wait_for(|progress| progress.is_over()).await;
    }
    let outcome = fetch::fetch(&session, &content, &download).await.map_err(Arc::new);
    let downloads = &session.registry().downloads;
    if outcome.is_ok()
        && let Some(held) = downloads.held().get_mut(&download.descriptor.digest)
    {
        held.whole = Some(download.descriptor.size);
    }
    // In this order: who sees the end of this one starts another one, which must not find this one running.
    downloads.end(&download);
    let progress = if outcome.is_ok() { Progress::Complete } else { Progress::Failed };
    download.state().outcome = Some(outcome);
    download.changed.notify_all();
    download.progress.send_replace(progress);
}

impl Download {
    fn new(descriptor: &Descriptor, origin: &str, state: State, predecessor: Option<Arc<Download>>) -> Download {
        Download {
            descriptor: descriptor.clone(),
            origin: origin.to_owned(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            progress: watch::Sender::new(Progress::New),
            abandoned: Notify::new(),
            predecessor,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody wants it.
    pub(crate) fn is_read(&self) -> bool {
        self.state().readers > 0
    }

    /// Where the bytes are.
    pub(crate) fn set_file(&self, file: Arc<File>) {
        self.state().file = Some(file);
    }

    /// So many bytes may be read.
    pub(crate) fn set_readable(&self, bytes: u64) {
        self.state().readable = bytes;
        self.changed.notify_all();
    }

    /// Wakes readers that must look at something else than the state.
    pub(crate) fn wake(&self) {
        // With the lock, or a reader that has just looked sleeps through it.
        drop(self.state());
        self.changed.notify_all();
    }

    /// Reads at `position`, waiting until there is something or the end. `Ok(0)` is the end of a verified blob.
    fn read(
        &self,
        buffer: &mut [u8],
        position: u64,
        cancelled: &AtomicBool,
    ) -> Result<io::Result<usize>, Arc<RegistryError>> {
        let mut state = self.state();
        let (file, available) = loop {
            if cancelled.load(Ordering::Acquire) {
                return Err(Arc::new(RegistryError::Cancelled));
            }
            match (&state.outcome, &state.file) {
                (Some(Err(err)), _) => return Err(err.clone()),
                (_, Some(file)) if state.readable > position => break (file.clone(), state.readable - position),
                (Some(Ok(())), _) => return Ok(Ok(0)),
                _ => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(state);
        let length = buffer.len().min(usize::try_from(available).unwrap_or(usize::MAX));
        Ok(file.read_at(&mut buffer[..length], position))
    }

    fn leave(&self) {
        let mut state = self.state();
        state.readers -= 1;
        if state.readers == 0 && state.outcome.is_none() {
            state.abandoned = true;
            self.abandoned.notify_one();
        }
    }
}

/// A blob from its begin, as it arrives.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) download: Arc<Download>,
    pub(crate) cancelled: Arc<AtomicBool>,
    pub(crate) position: u64,
}

impl Reader {
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<io::Result<usize>, Arc<RegistryError>> {
        if buffer.is_empty() {
            return Ok(Ok(0));
        }
        let read = self.download.read(buffer, self.position, &self.cancelled)?;
        if let Ok(count) = &read {
            self.position += *count as u64;
        }
        Ok(read)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.download.leave();
    }
}
