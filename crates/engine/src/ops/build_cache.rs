//! What builds remember: `POST /build/prune`, and its part of `GET /system/df`.
//!
//! The record of a step is a file of some hundred bytes, or up to some 100 KiB where it says of many files what the step was
//! made of; without it the step is done again. What it came to is an image, which goes as images do, or with the records where
//! it is nothing to users (`build::steps`). Directories that commands keep (`RUN --mount=type=cache`) take what is in
//! them, and so do contexts of clients that are kept so that only what changed is sent again. Limits of
//! `POST /build/prune` are of these alone; what goes by itself, `collect` says.

use std::collections::HashSet;

pub(crate) use collect::collect;
use engine_api::disk_usage::{CacheRecord, CachesPruned};
use errdefs::ErrorKind;
pub use filter::Wanted;
use image::{ImageRecord, LayerUsage, RemoveOptions, Removed};
use oci::Digest;
use snapshot::ChainId;

use crate::Engine;
use crate::clock::{self, now_nanos};
use crate::filters::{FilterError, Filters};
use crate::ops::build::{self, Limits, Space, SpaceKind};
use crate::ops::{image_budget, images};

mod collect;
mod filter;

/// Why the cache was not pruned. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum CachePruneError {
    /// The filters are wrong.
    #[error("failed to prune build cache")]
    Filter(#[from] FilterError),
    /// Both say the same.
    #[error("failed to prune build cache: conflicting filters: \"until\" and \"unused-for\"")]
    Conflicting,
    /// A filter has more than one value.
    #[error("failed to prune build cache: filters expect only one value")]
    SeveralValues,
    /// A filter's value is empty.
    #[error(
        "failed to prune build cache: failed to parse prune filters [{0}==]: filters: parse error: [{0}==]: expected value \
         or quoted: invalid argument"
    )]
    NoValue(String),
    /// `until` is no time.
    #[error(
        "failed to prune build cache: \"until\" filter expects a duration (e.g., '24h') or a timestamp: failed to parse \
         value as time or duration: {0:?}"
    )]
    Time(String),
}

impl CachePruneError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// What records are of.
pub const STEP: &str = "regular";
/// Likewise: a directory that commands keep.
pub const CACHE_MOUNT: &str = "exec.cachemount";
/// Likewise: a context of a client's.
pub const CONTEXT: &str = "source.local";

/// Digits of a record's id.
const ID_DIGITS: usize = 25;

fn id_of(key: &str) -> &str {
    key.get(..ID_DIGITS).unwrap_or(key)
}

/// All records.
pub async fn list(engine: &Engine) -> Vec<CacheRecord> {
    let task = engine.clone();
    let (all, space) = bridge::blocking(move || (build::remembered(&task), build::all_space(&task))).await;
    let referred = Referred::of(engine);
    all.iter().map(|step| record_of_step(engine, step, &referred)).chain(space.iter().map(record_of)).collect()
}

/// The images that are wanted for themselves, and those that they were built from: with BuildKit what they have in common
/// with records of its cache is shared.
struct Referred(HashSet<Digest>);

impl Referred {
    /// Those that have a name, or that somebody uses.
    fn of(engine: &Engine) -> Referred {
        let users = image_budget::users(engine);
        let mut referred = HashSet::new();
        for image in engine.images.list() {
            let has_name = !image.references.is_empty() || !image.platform_of.is_empty();
            let is_wanted = has_name || users.reason(engine, &image).is_some();
            let mut next = is_wanted.then_some(image);
            while let Some(image) = next.filter(|image| referred.insert(image.id.clone())) {
                next = image.parent.as_ref().and_then(|parent| engine.images.get(parent));
            }
        }
        Referred(referred)
    }

    fn has(&self, step: &build::Remembered) -> bool {
        step.image.as_ref().is_some_and(|image| self.0.contains(image))
    }
}

fn record_of_step(engine: &Engine, step: &build::Remembered, referred: &Referred) -> CacheRecord {
    let image = step.image.as_ref().and_then(|image| engine.images.get(image));
    let size = image.filter(|image| engine.steps.has(image)).map_or(0, |image| own_bytes(engine, &image));
    CacheRecord {
        size: i64::try_from(size).unwrap_or(i64::MAX),
        shared: referred.has(step),
        id: id_of(&step.key).to_owned(),
        kind: STEP.to_owned(),
        description: step.about.clone(),
        created_at: clock::rfc3339(step.created_at_nanos),
        ..CacheRecord::default()
    }
}

/// What a step has added to what it was built from, in bytes.
fn own_bytes(engine: &Engine, image: &ImageRecord) -> u64 {
    let below =
        image.parent.as_ref().and_then(|parent| engine.images.get(parent)).map_or(0, |parent| parent.size_bytes);
    image.size_bytes.saturating_sub(below)
}

/// Bytes of layers that only steps have, which is what the build cache takes and images do not.
pub(crate) fn bytes_of_steps(engine: &Engine, usage: &LayerUsage) -> u64 {
    let images = engine.images.list();
    let (steps, shown): (Vec<_>, Vec<_>) = images.iter().partition(|image| engine.steps.has(image));
    let shown: HashSet<&ChainId> = shown.iter().flat_map(|image| &image.chain).collect();
    let of_steps: HashSet<&ChainId> = steps.iter().flat_map(|image| &image.chain).collect();
    of_steps.difference(&shown).filter_map(|layer| usage.bytes(layer)).fold(0, u64::saturating_add)
}

/// Removes the images of steps that nobody remembers any more and nothing needs; answers the bytes of their layers.
async fn remove_forgotten(engine: &Engine) -> u64 {
    let task = engine.clone();
    let known = bridge::blocking(move || build::remembered(&task)).await;
    let known: HashSet<Digest> = known.into_iter().filter_map(|step| step.image).collect();
    let usage = engine.images.layer_usage();
    let mut left = engine.images.list();
    left.retain(|image| engine.steps.has(image) && !known.contains(&image.id));
    // What was built from others first.
    left.sort_by_cached_key(|image| std::cmp::Reverse(image.config.history.len()));
    let mut freed = 0_u64;
    for image in left {
        let options = RemoveOptions { force: false, prune_parents: false };
        match images::prune(engine, image.id.as_str(), options).await {
            Ok(removed) => {
                let layers = removed.iter().filter_map(|gone| match gone {
                    Removed::Layer(layer) => usage.bytes(layer),
                    Removed::Image(_) | Removed::Untagged { .. } => None,
                });
                freed = layers.fold(freed, u64::saturating_add);
            }
            // Another image was built from it, or a container has it.
            Err(err) => tracing::debug!(err = errdefs::chain(&err), "an image of a step stays"),
        }
    }
    freed
}

fn kind_of(space: &Space) -> &'static str {
    match space.kind {
        SpaceKind::CacheMount => CACHE_MOUNT,
        SpaceKind::Context => CONTEXT,
    }
}

fn record_of(space: &Space) -> CacheRecord {
    CacheRecord {
        id: id_of(&space.name).to_owned(),
        kind: kind_of(space).to_owned(),
        size: i64::try_from(space.bytes).unwrap_or(i64::MAX),
        description: space.about.clone(),
        in_use: space.in_use,
        created_at: clock::rfc3339(space.created_at_nanos),
        last_used_at: Some(clock::rfc3339(space.used_at_nanos)),
        usage_count: space.usage_count,
        ..CacheRecord::default()
    }
}

/// What is free on the disk, in bytes: as BuildKit sees it (util/disk).
fn free_bytes(engine: &Engine) -> u64 {
    // A disk that says nothing has enough.
    rustix::fs::statvfs(&engine.config.data_root).map_or(u64::MAX, |found| found.f_bfree.saturating_mul(found.f_frsize))
}

/// Reads what a prune by dockerd's filters takes.
pub fn wanted(filters: &Filters) -> Result<Wanted, CachePruneError> {
    Wanted::parse(filters, now_nanos())
}

/// Forgets what is wanted, of steps only those of images that nobody refers to unless `all_steps` are; with limits only what
/// takes space, the oldest first, until it is no more than they say.
pub async fn prune(engine: &Engine, wanted: Wanted, all_steps: bool, limits: Limits) -> CachesPruned {
    let task = engine.clone();
    let (forgotten, mut freed) = bridge::blocking(move || {
        let all = build::all_space(&task);
        let keep = limits.keep(all.iter().map(|space| space.bytes).sum(), || free_bytes(&task));
        let mut forgotten = Vec::new();
        if keep.is_none() {
            // Who forgets all steps forgets these, too; what stays is asked about again.
            if wanted.is_everything()
                && let Err(err) = build::forget_web(&task)
            {
                tracing::debug!(%err, "what servers of the web said is not forgotten");
            }
            let (steps, referred) = (build::remembered(&task).into_iter(), Referred::of(&task));
            let steps = steps.filter(|step| {
                (all_steps || !referred.has(step))
                    && wanted.is(&record_of_step(&task, step, &referred), step.created_at_nanos)
            });
            let gone = steps.filter(|step| build::forget(&task, &step.key).is_ok());
            forgotten.extend(gone.map(|step| id_of(&step.key).to_owned()));
        }
        let mut freed = 0;
        for space in build::goes(&all, keep, |space| wanted.is(&record_of(space), space.used_at_nanos)) {
            if build::remove_space(&task, space) {
                forgotten.push(id_of(&space.name).to_owned());
                freed += space.bytes;
            }
        }
        (forgotten, freed)
    })
    .await;
    if limits == Limits::default() {
        freed = freed.saturating_add(remove_forgotten(engine).await);
    }
    engine.events.caches_pruned(freed);
    CachesPruned { caches_deleted: Some(forgotten).filter(|ids| !ids.is_empty()), space_reclaimed: freed }
}
