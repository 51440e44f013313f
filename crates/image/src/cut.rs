//! Layers that were unpacked by pulls which did not end: for the next pull, as their blobs are.
//!
//! ```text
//! pull, cut ---- keep ----> by the blob's digest ---- take ----> the next pull that wants the layer
//!                                   |
//!                            discard_cut: after a day, by a prune, with the last image
//! ```
//! Of a kept layer no record tells: it is gone with the process, and the next one sets its directory aside like any that is
//! half-made. Its blob is not believed for its sake: whoever takes it reads the blob to its verified end all the same.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use layer::Applied;
use oci::Digest;
use oci::image::Descriptor;

use crate::store::Store;
use crate::unpacked::Unpacked;

/// How long a layer is kept that nobody takes: as long as partial blobs.
pub const CUT_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How many times longer than its blob a layer may be that is kept. Those of real images are three to ten times as long; one
/// that is made to fill the disk shall not do so for a day.
const INFLATION_KEPT: u64 = 20;

/// What every layer may be long that is kept: a tar is blocks of 512 bytes, and an empty file's compresses to a few.
const KEPT_ALWAYS: u64 = 4 * 1024 * 1024;

/// What a directory takes on a disk, which a tar may imply with a few letters.
const DIRECTORY_BYTES: u64 = 4096;

/// What all that wait may take in memory: lists of directories and of what is deleted, which are long in no real image.
const LISTS_KEPT: usize = 16 * 1024 * 1024;

/// How many may wait: the layers of some images.
const LAYERS_KEPT: usize = 512;

/// A layer that waits.
#[derive(Debug)]
pub(crate) struct Kept {
    since: Instant,
    unpacked: Box<Unpacked>,
}

/// All of them, by the digests of their blobs.
pub(crate) type CutLayers = HashMap<Digest, Kept>;

/// Keeps what a pull has unpacked that did not end.
pub(crate) fn keep(store: &Store, layers: impl IntoIterator<Item = Box<Unpacked>>) {
    for unpacked in layers.into_iter().filter(|unpacked| is_kept(&unpacked.applied)) {
        let kept = Kept { since: Instant::now(), unpacked };
        let mut waiting = cut(store);
        let lists = waiting.values().map(Kept::lists).sum::<usize>() + kept.lists();
        let fits = waiting.len() < LAYERS_KEPT && lists <= LISTS_KEPT;
        let gone = match fits {
            true => waiting.insert(kept.unpacked.applied.digest.clone(), kept),
            false => Some(kept),
        };
        drop(waiting);
        // Outside of the lock: its directory is renamed.
        drop(gone);
    }
}

/// Whether a layer may wait: not one that is made to fill the disk.
fn is_kept(applied: &Applied) -> bool {
    let disk = applied.directories.saturating_mul(DIRECTORY_BYTES).saturating_add(applied.tar_bytes);
    disk <= applied.size.saturating_mul(INFLATION_KEPT).max(KEPT_ALWAYS)
}

impl Kept {
    /// Bytes of its files, and of the recipe of its tar.
    fn bytes(&self) -> u64 {
        self.unpacked.applied.content_bytes.saturating_add(self.unpacked.recipe.size())
    }

    /// Bytes of memory of its lists.
    fn lists(&self) -> usize {
        let Applied { implied, whiteouts, .. } = &self.unpacked.applied;
        implied.iter().chain(whiteouts).map(|path| path.len() + size_of::<Vec<u8>>()).sum()
    }
}

/// The layer of that blob, if one waits.
pub(crate) fn take(store: &Store, blob: &Descriptor) -> Option<Box<Unpacked>> {
    let taken = cut(store).remove(&blob.digest);
    taken.map(|kept| kept.unpacked).filter(|unpacked| unpacked.applied.size == blob.size)
}

/// Sets aside the layers of which `is_unwanted` says so, by their blobs' digests and how long they wait; how many bytes of files
/// they have. [`Store::sweep`] frees the room.
pub fn discard_cut(store: &Store, mut is_unwanted: impl FnMut(&Digest, Duration) -> bool) -> u64 {
    let unwanted: Vec<Kept> =
        cut(store).extract_if(|blob, kept| is_unwanted(blob, kept.since.elapsed())).map(|(_, kept)| kept).collect();
    unwanted.iter().map(Kept::bytes).fold(0, u64::saturating_add)
}

/// Bytes of all layers that wait: of their files, and of the recipes of their tars.
pub fn cut_bytes(store: &Store) -> u64 {
    cut(store).values().map(Kept::bytes).fold(0, u64::saturating_add)
}

fn cut(store: &Store) -> MutexGuard<'_, CutLayers> {
    store.cut.lock().unwrap_or_else(PoisonError::into_inner)
}
