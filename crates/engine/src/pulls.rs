//! Pulls that go on, each shared by everybody who wants the same image.
//!
//! ```text
//! store (threads) -- PullEvent ------+
//!                                    +--> Running: a log --> followers, each at its own pace
//! transfers ------- LayerProgress ---+
//! ```
//! A pull belongs to its followers: when the last one leaves, its transfers end, and what they brought so far is kept for
//! the next pull, as are the layers that were unpacked. Whoever reads slowly gets every stage of a layer, but not every number in it.

use std::collections::{BTreeMap, HashMap};
use std::mem::discriminant;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use image::{PullEvent, PulledImage};
use oci::Digest;
use registry_client::{LayerProgress, Progress, Session, Settings, Transfer};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, warn};

use crate::config::RegistriesConfig;
use crate::ops::pull::PullError;
use crate::sync::lock;
use crate::{Engine, attestations};

/// Where a layer is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is there already.
    Exists,
    /// It will come.
    Wanted,
    /// Others come first.
    Waiting,
    /// It comes.
    Downloading {
        /// Bytes that came.
        current: u64,
        /// Bytes that there are.
        total: u64,
    },
    /// It was cut, and goes on after a pause.
    Retrying {
        /// Seconds that are left.
        seconds: u64,
    },
    /// It came, and is compared with its digest.
    Verifying,
    /// It came.
    Downloaded,
    /// It is being unpacked.
    Extracting {
        /// Compressed bytes that were read.
        current: u64,
        /// Compressed bytes that there are.
        total: u64,
    },
    /// It is unpacked.
    Complete,
}

impl Stage {
    fn of(progress: Progress) -> Option<Stage> {
        Some(match progress {
            Progress::New | Progress::Failed => return None,
            Progress::Waiting => Stage::Waiting,
            Progress::Downloading { current, total } => Stage::Downloading { current, total },
            Progress::Retrying { seconds } => Stage::Retrying { seconds },
            Progress::Verifying => Stage::Verifying,
            Progress::Complete => Stage::Downloaded,
        })
    }
}

/// How the administrator wants registries to be reached.
pub(crate) fn settings(config: &RegistriesConfig) -> Settings {
    let (ranges, names): (Vec<&String>, Vec<&String>) = config.insecure.iter().partition(|name| name.contains('/'));
    Settings {
        insecure: names.into_iter().cloned().collect(),
        // What is no range was refused with the rest of the configuration.
        insecure_ranges: ranges.iter().filter_map(|range| range.parse().ok()).collect(),
        certificates: config.certificates.clone(),
        mirrors: config.mirrors.clone(),
        proxies: config.proxies.clone(),
        concurrent_downloads: config.concurrent_downloads,
        download_attempts: config.download_attempts,
        concurrent_uploads: config.concurrent_uploads,
        ..Settings::default()
    }
}

/// What a pull is known by: whom it comes from, since somebody else's bytes may be lies, and the image's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) origin: String,
    pub(crate) manifest: Digest,
}

/// All pulls that go on.
#[derive(Debug, Default)]
pub(crate) struct Pulls {
    running: Mutex<HashMap<Key, Entry>>,
    /// Somebody looks after what cut pulls have brought.
    expiring: AtomicBool,
}

#[derive(Debug)]
struct Entry {
    running: Arc<Running>,
    followers: usize,
}

/// A pull that goes on.
#[derive(Debug, Default)]
pub(crate) struct Running {
    log: Mutex<Log>,
    changed: watch::Sender<()>,
    abandoned: Notify,
}

/// Where no image is left and none is on its way, what cut pulls have brought goes, too: an empty store holds nothing.
/// Blocks.
pub(crate) fn forget_cut(engine: &Engine) {
    if !engine.images.list().is_empty() || !lock(&engine.pulls.running).is_empty() {
        return;
    }
    if let Err(err) = engine.current.registries().discard_cut(engine.images.content()) {
        warn!(err = errdefs::chain(&err), "parts of old pulls stay");
    }
    discard_cut_layers(engine, |_, _| true);
}

/// Removes layers that cut pulls have unpacked, and says how many bytes that frees soon. Blocks.
pub(crate) fn discard_cut_layers(engine: &Engine, is_unwanted: impl FnMut(&Digest, Duration) -> bool) -> u64 {
    let bytes = image::discard_cut(&engine.images, is_unwanted);
    engine.sweep_soon();
    bytes
}

/// How often what cut pulls have brought is looked at while something waits: it goes after a day, and this at most.
const EXPIRY_LOOKS: Duration = Duration::from_secs(60 * 60);

/// Removes what cut pulls have brought and nobody has taken for a day. Blocks.
fn discard_old(engine: &Engine) {
    if let Err(err) = engine.current.registries().discard_stale(engine.images.content()) {
        warn!(err = errdefs::chain(&err), "parts of old pulls stay");
    }
    discard_cut_layers(engine, |_, age| age > image::CUT_KEPT);
}

/// Has what cut pulls have brought go in time, as long as something waits.
pub(crate) fn expire_later(engine: &Engine) {
    if engine.pulls.expiring.swap(true, Ordering::Relaxed) {
        return;
    }
    let engine = engine.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(EXPIRY_LOOKS).await;
            // Before the look: what comes after it has somebody else look.
            engine.pulls.expiring.store(false, Ordering::Relaxed);
            let task = engine.clone();
            let waits = bridge::blocking(move || {
                discard_old(&task);
                something_waits(&task)
            });
            if !waits.await || engine.pulls.expiring.swap(true, Ordering::Relaxed) {
                return;
            }
        }
    });
}

/// Whether cut pulls have brought anything. Blocks.
pub(crate) fn something_waits(engine: &Engine) -> bool {
    image::cut_bytes(&engine.images) > 0 || engine.images.content().partials().is_ok_and(|found| !found.is_empty())
}

/// How a pull ended.
pub(crate) type Outcome = Result<(), Arc<PullError>>;

/// What happened so far.
#[derive(Debug, Default)]
struct Log {
    steps: BTreeMap<u64, (Digest, Stage)>,
    next: u64,
    layers: HashMap<Digest, Layer>,
    outcome: Option<Outcome>,
}

/// What the log must know of a layer.
#[derive(Debug, Default)]
struct Layer {
    last: Option<u64>,
    downloaded: bool,
    /// Unpacking runs beside the transfer; clients expect it behind.
    held: Vec<Stage>,
}

impl Log {
    fn tell(&mut self, digest: Digest, stage: Stage) {
        let layer = self.layers.entry(digest.clone()).or_default();
        if !layer.downloaded && matches!(stage, Stage::Extracting { .. } | Stage::Complete) {
            layer.held.retain(|held| discriminant(held) != discriminant(&stage));
            layer.held.push(stage);
            return;
        }
        self.put(&digest, stage);
        if stage == Stage::Downloaded {
            let layer = self.layers.entry(digest.clone()).or_default();
            layer.downloaded = true;
            let held = std::mem::take(&mut layer.held);
            held.into_iter().for_each(|stage| self.put(&digest, stage));
        }
    }

    /// Writes it down in the place of an earlier one that differs in a number only.
    fn put(&mut self, digest: &Digest, stage: Stage) {
        let layer = self.layers.entry(digest.clone()).or_default();
        let same =
            |last: &u64| self.steps.get(last).is_some_and(|(_, earlier)| discriminant(earlier) == discriminant(&stage));
        if let Some(last) = layer.last.filter(same) {
            self.steps.remove(&last);
        }
        layer.last = Some(self.next);
        self.steps.insert(self.next, (digest.clone(), stage));
        self.next += 1;
    }
}

impl Running {
    fn tell(&self, digest: Digest, stage: Stage) {
        lock(&self.log).tell(digest, stage);
        self.changed.send_replace(());
    }

    fn report(&self, report: LayerProgress) {
        if let Some(stage) = Stage::of(report.progress) {
            self.tell(report.layer, stage);
        }
    }

    fn see(&self, event: PullEvent) {
        match event {
            PullEvent::Exists(layer) => self.tell(layer, Stage::Exists),
            PullEvent::Wanted(layer) => self.tell(layer, Stage::Wanted),
            PullEvent::Extracting { layer, current, total } => self.tell(layer, Stage::Extracting { current, total }),
            PullEvent::Complete(layer) => self.tell(layer, Stage::Complete),
        }
    }
}

/// One of those who wait for a pull; dropped, it leaves.
pub(crate) struct Follower {
    engine: Engine,
    key: Key,
    running: Arc<Running>,
    changes: watch::Receiver<()>,
    /// The first step that it has not seen.
    next: u64,
}

/// What a follower learns.
pub(crate) enum News {
    Steps(Vec<(Digest, Stage)>),
    Over(Outcome),
}

impl Follower {
    /// Follows the pull that goes on; else `begin` makes the image, and the pull is ours: that is the second value.
    pub(crate) fn join(
        engine: &Engine,
        key: Key,
        begin: impl FnOnce() -> (PulledImage, Arc<Session>),
    ) -> (Follower, bool) {
        let mut pulls = lock(&engine.pulls.running);
        let is_new = !pulls.contains_key(&key);
        let entry = pulls.entry(key.clone()).or_insert_with(|| Entry { running: Arc::default(), followers: 0 });
        entry.followers += 1;
        let running = entry.running.clone();
        drop(pulls);
        let changes = running.changed.subscribe();
        let follower = Follower { engine: engine.clone(), key, running, changes, next: 0 };
        if is_new {
            let (image, session) = begin();
            tokio::spawn(lead(engine.clone(), follower.key.clone(), follower.running.clone(), image, session));
        }
        (follower, is_new)
    }

    /// What has happened since the last call, or how it ended.
    pub(crate) async fn news(&mut self) -> News {
        loop {
            self.changes.borrow_and_update();
            {
                let log = lock(&self.running.log);
                let steps: Vec<_> = log.steps.range(self.next..).map(|(_, step)| step.clone()).collect();
                self.next = log.next;
                if !steps.is_empty() {
                    return News::Steps(steps);
                }
                if let Some(outcome) = &log.outcome {
                    return News::Over(outcome.clone());
                }
            }
            // The sender is in what we hold.
            let _ = self.changes.changed().await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut pulls = lock(&self.engine.pulls.running);
        let Some(entry) = pulls.get_mut(&self.key).filter(|entry| Arc::ptr_eq(&entry.running, &self.running)) else {
            return;
        };
        entry.followers -= 1;
        if entry.followers == 0 {
            // Whoever comes now begins anew: this one is given up.
            pulls.remove(&self.key);
            self.running.abandoned.notify_one();
        }
    }
}

/// Brings an image, and tells everything to the log.
async fn lead(engine: Engine, key: Key, running: Arc<Running>, image: PulledImage, session: Arc<Session>) {
    let outcome = bring(&engine, &running, image, session).await;
    if let Err(err) = &outcome {
        debug!(manifest = %key.manifest, err = errdefs::chain(err), "an image was not pulled");
        expire_later(&engine);
    }
    // What was unpacked before an error is in the trash, and what another pull was quicker with.
    engine.sweep_soon();
    let mut pulls = lock(&engine.pulls.running);
    if pulls.get(&key).is_some_and(|entry| Arc::ptr_eq(&entry.running, &running)) {
        pulls.remove(&key);
    }
    drop(pulls);
    lock(&running.log).outcome = Some(outcome.map_err(Arc::new));
    running.changed.send_replace(());
}

/// How many reports of transfers may wait for the log.
const REPORTS: usize = 64;

async fn bring(
    engine: &Engine,
    running: &Arc<Running>,
    image: PulledImage,
    session: Arc<Session>,
) -> Result<(), PullError> {
    let (reports, mut reported) = mpsc::channel(REPORTS);
    let transfer = Arc::new(Transfer::new(session.clone(), engine.images.content(), reports));
    let layers: Vec<Digest> = image.manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
    let (beside, coming) = attestations::fetch(&session, engine.images.content(), &image);
    let (task, teller, source) = (engine.clone(), running.clone(), transfer.clone());
    // It waits for transfers, which need threads of the pool: as many pulls as that has would wait for each other.
    let storing = bridge::waiting(move || {
        discard_old(&task);
        let stored = image::pull_with(&task.images, image, |layer| source.open(layer), || coming.wait(), &|event| {
            teller.see(event)
        });
        stored.map(drop)
    });
    tokio::pin!(storing);
    let stored = loop {
        tokio::select! {
            stored = &mut storing => break stored,
            Some(report) = reported.recv() => running.report(report),
            () = running.abandoned.notified() => {
                transfer.cancel();
                beside.cancel();
            }
        }
    };
    // What they brought is recorded, or is nothing.
    drop(beside);
    if let Err(err) = stored {
        let failure = transfer.failure();
        if !failure.as_ref().is_some_and(|failure| failure.is_outage()) {
            transfer.discard().await;
            let task = engine.clone();
            let is_ours = move |blob: &Digest, _| layers.contains(blob);
            bridge::blocking(move || discard_cut_layers(&task, is_ours)).await;
        }
        // What the store saw of a transfer that failed is a reader that failed.
        return Err(failure.map_or(PullError::Store(err), PullError::Registry));
    }
    // Now whoever reports ends with its last words.
    drop(transfer);
    while let Some(report) = reported.recv().await {
        running.report(report);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_every_stage_and_the_newest_number() {
        let digest: Digest = format!("sha256:{:064x}", 1).parse().unwrap();
        let mut log = Log::default();
        let stages = [
            Stage::Wanted,
            Stage::Downloading { current: 1, total: 9 },
            Stage::Extracting { current: 1, total: 9 },
            Stage::Downloading { current: 5, total: 9 },
            Stage::Extracting { current: 9, total: 9 },
            Stage::Complete,
            Stage::Verifying,
            Stage::Downloaded,
        ];
        stages.into_iter().for_each(|stage| log.tell(digest.clone(), stage));
        let told: Vec<Stage> = log.steps.values().map(|(_, stage)| *stage).collect();
        assert_eq!(
            told,
            [
                Stage::Wanted,
                Stage::Downloading { current: 5, total: 9 },
                Stage::Verifying,
                Stage::Downloaded,
                Stage::Extracting { current: 9, total: 9 },
                Stage::Complete,
            ]
        );
    }
}
