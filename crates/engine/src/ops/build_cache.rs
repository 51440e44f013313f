//! `POST /build/prune`: nothing builds yet, so there is nothing to free.

use engine_api::disk_usage::CachesPruned;
use errdefs::ErrorKind;

use crate::Engine;
use crate::clock::now_nanos;
use crate::filters::{FilterError, Filters};
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

/// Checks the filters, and removes nothing.
pub fn prune(engine: &Engine, filters: &Filters) -> Result<CachesPruned, CachePruneError> {
    filters.check(&FILTERS)?;
    if filters.has("until") && filters.has("unused-for") {
        return Err(CachePruneError::Conflicting);
    }
    for text in filters.get("until") {
        time_query::parse_any(text, now_nanos()).map_err(|_| CachePruneError::Time(text.to_owned()))?;
    }
    engine.events.caches_pruned(0);
    Ok(CachesPruned::default())
}
