//! What builds remember: `POST /build/prune`, and its part of `GET /system/df`.
//!
//! The record of a step is a file of some hundred bytes; what takes space are the images of the steps, which go as images
//! do. Without its record a step is done again. Directories that commands keep (`RUN --mount=type=cache`) take what is in
//! them, and so do contexts of clients that are kept so that only what changed is sent again. Limits are of these alone.

use engine_api::disk_usage::{CacheRecord, CachesPruned};
use errdefs::ErrorKind;

use crate::Engine;
use crate::clock::{self, now_nanos};
use crate::filters::{FilterError, Filters};
use crate::ops::build::{self, Kept, Limits, Space};
use crate::time_query;

/// `label` is taken and means nothing, as with dockerd: `system prune` sends it to all that it prunes.
const FILTERS: [&str; 11] =
    ["description", "id", "inuse", "label", "label!", "parent", "private", "shared", "type", "until", "unused-for"];

/// Why the cache was not pruned. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum CachePruneError {
    /// The filters are wrong.
    #[error("failed to prune build cache")]
    Filter(#[from] FilterError),
    /// Both say the same.
    #[error("failed to prune build cache: conflicting filters: \"until\" and \"unused-for\"")]
    Conflicting,
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
    let record = |step: build::Remembered| CacheRecord {
        id: id_of(&step.key).to_owned(),
        kind: STEP.to_owned(),
        description: step.about,
        created_at: clock::rfc3339(step.created_at_nanos),
        ..CacheRecord::default()
    };
    all.into_iter().map(record).chain(space.into_iter().map(record_of)).collect()
}

fn kind_of(space: &Space) -> &'static str {
    match space.kept {
        Kept::CacheMount => CACHE_MOUNT,
        Kept::Context => CONTEXT,
    }
}

fn record_of(space: Space) -> CacheRecord {
    CacheRecord {
        id: id_of(&space.name).to_owned(),
        kind: kind_of(&space).to_owned(),
        size: i64::try_from(space.bytes).unwrap_or(i64::MAX),
        description: space.about,
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

/// Forgets what the filters say, all without them; with limits only what takes space, the oldest first, until it is no more than
/// they say.
pub async fn prune(engine: &Engine, filters: &Filters, limits: Limits) -> Result<CachesPruned, CachePruneError> {
    filters.check(&FILTERS)?;
    if filters.has("until") && filters.has("unused-for") {
        return Err(CachePruneError::Conflicting);
    }
    let (now, mut before) = (now_nanos(), i64::MAX);
    for text in filters.get("until").chain(filters.get("unused-for")) {
        let time = time_query::parse_any(text, now).map_err(|_| CachePruneError::Time(text.to_owned()))?;
        before = before.min(time.unwrap_or(i64::MAX));
    }
    let (task, filters) = (engine.clone(), filters.clone());
    let (forgotten, freed) = bridge::blocking(move || {
        let wanted = |name: &str, kind: &str, time: i64| {
            time < before
                && (!filters.has("id") || filters.get("id").any(|id| id == id_of(name)))
                && (!filters.has("type") || filters.get("type").any(|wanted| wanted == kind))
                // Nothing of ours is any of these.
                && ["parent", "description"].iter().all(|name| !filters.has(name))
        };
        let all = build::all_space(&task);
        let keep = limits.keep(all.iter().map(|space| space.bytes).sum(), || free_bytes(&task));
        let mut forgotten = Vec::new();
        if keep.is_none() {
            // Who forgets all steps forgets these, too; what stays is asked about again.
            if before == i64::MAX
                && !["id", "type", "parent", "description"].iter().any(|name| filters.has(name))
                && let Err(err) = build::forget_web(&task)
            {
                tracing::debug!(%err, "what servers of the web said is not forgotten");
            }
            let steps = build::remembered(&task).into_iter();
            let steps = steps.filter(|step| wanted(&step.key, STEP, step.created_at_nanos));
            let gone = steps.filter(|step| build::forget(&task, &step.key).is_ok());
            forgotten.extend(gone.map(|step| id_of(&step.key).to_owned()));
        }
        let mut freed = 0;
        for space in build::goes(&all, keep, |space| wanted(&space.name, kind_of(space), space.used_at_nanos)) {
            if build::remove_space(&task, space) {
                forgotten.push(id_of(&space.name).to_owned());
                freed += space.bytes;
            }
        }
        (forgotten, freed)
    })
    .await;
    engine.events.caches_pruned(freed);
    Ok(CachesPruned { caches_deleted: Some(forgotten).filter(|ids| !ids.is_empty()), space_reclaimed: freed })
}
