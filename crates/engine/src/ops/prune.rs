//! `POST /containers/prune`

use std::sync::atomic::{AtomicBool, Ordering};

use engine_api::changes::ContainersPruned;
use errdefs::ErrorKind;
use tracing::{debug, warn};

use crate::Engine;
use crate::container::Container;
use crate::filters::{FilterError, Filters};
use crate::ops::list::sizes;
use crate::ops::remove::{self, RemoveOptions};
use crate::time_query;

/// Why containers were not pruned. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// Somebody else is at it.
    #[error("a prune operation is already running")]
    Running,
    /// The filters are wrong.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// `until` names more than one time.
    #[error("more than one until filter specified")]
    ManyTimes,
    /// `until` is no time.
    #[error("failed to parse value as time or duration: {0:?}")]
    Time(String),
}

impl PruneError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PruneError::Running => ErrorKind::Conflict,
            PruneError::Filter(err) => err.kind(),
            PruneError::ManyTimes | PruneError::Time(_) => ErrorKind::InvalidArgument,
        }
    }
}

/// A prune in progress: there is one at a time.
struct Pruning<'a>(&'a AtomicBool);

impl Drop for Pruning<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Removes the containers that do not run and that `filters` let through.
pub async fn prune(engine: &Engine, filters: Filters) -> Result<ContainersPruned, PruneError> {
    filters.check(&["label", "label!", "until"])?;
    let until = until(&filters, crate::clock::now_nanos())?;
    let engine = engine.clone();
    engine.clone().detached(async move { remove_all(&engine, &filters, until).await }).await
}

async fn remove_all(engine: &Engine, filters: &Filters, until: Option<i64>) -> Result<ContainersPruned, PruneError> {
    if engine.pruning.swap(true, Ordering::Acquire) {
        return Err(PruneError::Running);
    }
    let _pruning = Pruning(&engine.pruning);
    let mut pruned = ContainersPruned::default();
    for container in engine.containers.all() {
        if container.state().is_running() || !wanted(&container, filters, until) {
            continue;
        }
        let bytes = match sizes(engine, &container).await {
            Ok((own, _)) => u64::try_from(own).unwrap_or(0),
            Err(err) => {
                debug!(container = %container.id(), err = errdefs::chain(&err), "measure a container's files");
                0
            }
        };
        match remove::remove(engine, container.id().as_str(), RemoveOptions::default()).await {
            Ok(()) => {
                pruned.space_reclaimed += bytes;
                pruned.containers_deleted.get_or_insert_default().push(container.id().to_string());
            }
            Err(err) => warn!(container = %container.id(), err = errdefs::chain(&err), "cannot prune a container"),
        }
    }
    engine.events.containers_pruned(pruned.space_reclaimed);
    Ok(pruned)
}

fn wanted(container: &Container, filters: &Filters, until: Option<i64>) -> bool {
    let labels = container.definition.config.labels.clone().unwrap_or_default();
    until.is_none_or(|until| container.definition.created_at_nanos <= until)
        && filters.labels("label", &labels)
        && !(filters.has("label!") && filters.labels("label!", &labels))
}

/// The filter `until`: seconds since 1970, RFC 3339, or how long ago.
fn until(filters: &Filters, now_nanos: i64) -> Result<Option<i64>, PruneError> {
    let given: Vec<&str> = filters.get("until").collect();
    match given[..] {
        [] => Ok(None),
        [text] => time_query::parse_any(text, now_nanos).map_err(|_| PruneError::Time(text.to_owned())),
        _ => Err(PruneError::ManyTimes),
    }
}
