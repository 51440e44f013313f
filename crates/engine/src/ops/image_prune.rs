//! `POST /images/prune`

use std::sync::Arc;

use engine_api::disk_usage::ImagesPruned;
use engine_api::image::Deleted;
use errdefs::ErrorKind;
use image::{ImageRecord, RemoveOptions, Removed};
use tracing::{debug, warn};

use crate::Engine;
use crate::filters::{FilterError, Filters};
use crate::ops::images::{self, ImageError, created_nanos};
use crate::time_query;
use crate::upkeep::Turn;

/// Why images were not pruned. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum ImagePruneError {
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

impl ImagePruneError {
    /// What a caller can do about it; times are not marked as the caller's mistake, here alone.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ImagePruneError::Running => ErrorKind::Conflict,
            ImagePruneError::Filter(err) => err.kind(),
            ImagePruneError::ManyTimes | ImagePruneError::Time(_) => ErrorKind::Internal,
        }
    }
}

/// What may go.
struct Wanted {
    filters: Filters,
    /// Only what has no tag.
    dangling: bool,
    until: Option<i64>,
}

/// Removes images that no container has and that `filters` let through: without `dangling=false`, only those without a tag.
pub async fn prune(engine: &Engine, filters: Filters) -> Result<ImagesPruned, ImagePruneError> {
    let wanted = check(filters, crate::clock::now_nanos())?;
    let engine = engine.clone();
    engine.clone().detached(async move { remove_all(&engine, &wanted).await }).await
}

fn check(filters: Filters, now_nanos: i64) -> Result<Wanted, ImagePruneError> {
    filters.check(&["dangling", "label", "label!", "until"])?;
    let given: Vec<&str> = filters.get("until").collect();
    let until = match given[..] {
        [] => None,
        [text] => time_query::parse_any(text, now_nanos).map_err(|_| ImagePruneError::Time(text.to_owned()))?,
        _ => return Err(ImagePruneError::ManyTimes),
    };
    let dangling = filters.boolean("dangling")?.unwrap_or(true);
    Ok(Wanted { filters, dangling, until })
}

impl Wanted {
    fn matches(&self, image: &ImageRecord, parents: &[oci::Digest]) -> bool {
        let is_parent = parents.contains(&image.id);
        let no_labels = Default::default();
        let labels = image.config.config.labels.as_ref().unwrap_or(&no_labels);
        // What is kept beside another image goes with that one's names.
        !image.is_beside()
            && !(is_parent && (self.dangling || image.references.is_empty()))
            && self.until.is_none_or(|until| image.created().is_some() && created_nanos(image) <= until)
            && self.filters.labels("label", labels)
            && !(self.filters.has("label!") && self.filters.labels("label!", labels))
    }

    /// What to remove of an image: its names, or itself where it has none.
    fn names(&self, image: &ImageRecord) -> Vec<String> {
        if image.references.is_empty() {
            return vec![image.id.to_string()];
        }
        let tagged = image.references.iter().any(|reference| reference.tag().is_some());
        let keep = self.dangling && tagged;
        image.references.iter().filter(|_| !keep).map(oci::Reference::familiar).collect()
    }

    /// What cut pulls have left has neither labels nor an age that the user could mean.
    fn takes_partials(&self) -> bool {
        !["label", "label!", "until"].iter().any(|key| self.filters.has(key))
    }
}

async fn remove_all(engine: &Engine, wanted: &Wanted) -> Result<ImagesPruned, ImagePruneError> {
    let _turn = Turn::take(&engine.upkeep.images).ok_or(ImagePruneError::Running)?;
    let usage = engine.images.layer_usage();
    // What builds know of goes by a prune of theirs.
    let mut all = engine.images.list();
    all.retain(|image| !engine.steps.has(image));
    let parents: Vec<oci::Digest> = all.iter().filter_map(|image| image.parent.clone()).collect();
    let (mut deleted, mut reclaimed_bytes) = (Vec::new(), 0_u64);
    for image in all.iter().filter(|image| wanted.matches(image, &parents)) {
        for removed in remove_names(engine, image, wanted).await {
            if let Removed::Layer(chain_id) = &removed {
                reclaimed_bytes = reclaimed_bytes.saturating_add(usage.bytes(chain_id).unwrap_or(0));
            }
            deleted.push(images::deleted(removed));
        }
    }
    if wanted.takes_partials() {
        for (digest, bytes) in drop_partials(engine).await {
            reclaimed_bytes = reclaimed_bytes.saturating_add(bytes);
            deleted.push(Deleted::Deleted(digest.to_string()));
        }
        // Of the same pulls: their blobs are told already.
        let task = engine.clone();
        let unpacked = bridge::blocking(move || crate::pulls::discard_cut_layers(&task, |_, _| true)).await;
        reclaimed_bytes = reclaimed_bytes.saturating_add(unpacked);
    }
    engine.events.images_pruned(reclaimed_bytes);
    Ok(ImagesPruned {
        images_deleted: Some(deleted).filter(|deleted| !deleted.is_empty()),
        space_reclaimed: reclaimed_bytes,
    })
}

async fn remove_names(engine: &Engine, image: &Arc<ImageRecord>, wanted: &Wanted) -> Vec<Removed> {
    let mut removed = Vec::new();
    for name in wanted.names(image) {
        let parent = image.parent.as_ref().and_then(|parent| engine.images.get(parent));
        let prune_parents = !parent.is_some_and(|parent| engine.steps.has(&parent));
        match images::prune(engine, &name, RemoveOptions { force: false, prune_parents }).await {
            Ok(gone) => removed.extend(gone),
            // A container has it.
            Err(err) if err.kind() == ErrorKind::Conflict => debug!(name, "an image in use stays"),
            // Its digest went with its tag.
            Err(ImageError::Remove(image::RemoveError::Resolve(_))) => {}
            Err(err) => warn!(name, err = errdefs::chain(&err), "failed to prune image"),
        }
    }
    removed
}

/// Removes what cut pulls have left, but for what is being pulled: what went, and its bytes.
async fn drop_partials(engine: &Engine) -> Vec<(oci::Digest, u64)> {
    let engine = engine.clone();
    bridge::blocking(move || {
        let content = engine.images.content();
        let dropped = content.partial_sizes().and_then(|before| {
            engine.current.registries().discard_cut(content)?;
            let left = content.partials()?;
            Ok(before.into_iter().filter(|(digest, _)| !left.contains(digest)).collect())
        });
        dropped.unwrap_or_else(|err| {
            warn!(err = errdefs::chain(&err), "parts of old pulls stay");
            Vec::new()
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked_with_dockerds_words() {
        let checked = |pairs: &[(&str, &[&str])]| {
            let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
            let filters = pairs.iter().map(|(key, wanted)| ((*key).to_owned(), values(wanted))).collect();
            check(Filters(filters), 0).map(|wanted| wanted.dangling).map_err(|err| (err.kind(), err.to_string()))
        };
        let (bad, internal) = (ErrorKind::InvalidArgument, ErrorKind::Internal);
        assert_eq!(checked(&[]), Ok(true));
        assert_eq!(checked(&[("dangling", &["0"]), ("until", &["24h"])]), Ok(false));
        for (key, values, kind, text) in [
            ("foo", &["x"][..], bad, "invalid filter 'foo'"),
            ("dangling", &["x"], bad, "invalid filter 'dangling=[x]'"),
            ("until", &["x"], internal, "failed to parse value as time or duration: \"x\""),
            ("until", &["1", "2"], internal, "more than one until filter specified"),
        ] {
            assert_eq!(checked(&[(key, values)]), Err((kind, text.to_owned())), "{key}");
        }
    }
}
