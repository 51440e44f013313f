//! What builds remember: `POST /build/prune`, and its part of `GET /system/df`.
//!
//! A record is a file of some hundred bytes; what takes space are the images of the steps, which go as images do. Without
//! its record a step is done again.

use engine_api::disk_usage::{CacheRecord, CachesPruned};
use errdefs::ErrorKind;

use crate::Engine;
use crate::clock::{self, now_nanos};
use crate::filters::{FilterError, Filters};
use crate::ops::build;
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

/// Digits of a record's id.
const ID_DIGITS: usize = 25;

fn id_of(key: &str) -> &str {
    key.get(..ID_DIGITS).unwrap_or(key)
}

/// All records.
pub async fn list(engine: &Engine) -> Vec<CacheRecord> {
    let task = engine.clone();
    let all = bridge::blocking(move || build::remembered(&task)).await;
    let record = |step: build::Remembered| CacheRecord {
        id: id_of(&step.key).to_owned(),
        kind: "regular".to_owned(),
        description: step.about,
        created_at: clock::rfc3339(step.created_at_nanos),
        ..CacheRecord::default()
    };
    all.into_iter().map(record).collect()
}

/// Forgets what the filters say, all without them.
pub async fn prune(engine: &Engine, filters: &Filters) -> Result<CachesPruned, CachePruneError> {
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
    let forgotten = bridge::blocking(move || {
        let wanted = |step: &build::Remembered| {
            step.created_at_nanos < before
                && (!filters.has("id") || filters.get("id").any(|id| id == id_of(&step.key)))
                && (!filters.has("type") || filters.get("type").any(|kind| kind == "regular"))
                // Nothing of ours is any of these.
                && ["parent", "description"].iter().all(|name| !filters.has(name))
        };
        // Who forgets all steps forgets these, too; what stays is asked about again.
        if before == i64::MAX
            && !["id", "type", "parent", "description"].iter().any(|name| filters.has(name))
            && let Err(err) = build::forget_web(&task)
        {
            tracing::debug!(%err, "what servers of the web said is not forgotten");
        }
        let steps = build::remembered(&task).into_iter().filter(wanted);
        let gone = steps.filter(|step| build::forget(&task, &step.key).is_ok());
        gone.map(|step| id_of(&step.key).to_owned()).collect::<Vec<_>>()
    })
    .await;
    engine.events.caches_pruned(0);
    Ok(CachesPruned { caches_deleted: Some(forgotten).filter(|ids| !ids.is_empty()), space_reclaimed: 0 })
}
