//! Removing images that nobody asked to remove: with all their names, if nothing needs them, or not at all.
//!
//! `rmi` takes names away one by one, and what is left of an image may well stay. Whoever removes by itself must not leave half
//! of what it found, nor take what was given since it looked: it says what it saw, and everything is compared once more
//! while nobody else writes.

use std::sync::Arc;

use crate::record::{ImageRecord, State};
use crate::remove::{Plan, RemoveError, Removed, remove_planned};
use crate::store::Store;

/// Removes these images with all their names. `None`, and nothing is changed: one of them is not what it was, `is_needed`
/// says so, another image was built from one, or one has a name together with an image that is not among them.
///
/// Layers and blobs that nothing needs any more are set aside, as by [`Store::remove`].
pub fn evict(
    store: &Store,
    images: &[Arc<ImageRecord>],
    is_needed: &dyn Fn(&ImageRecord) -> bool,
) -> Result<Option<Vec<Removed>>, RemoveError> {
    if images.iter().any(|image| is_needed(image)) {
        return Ok(None);
    }
    let mut is_same = true;
    let removed = remove_planned(store, "evicted images", |state| {
        is_same = stand_alone(state, images);
        Ok(if is_same { plan(state, images) } else { Vec::new() })
    })?;
    Ok(is_same.then_some(removed))
}

/// Whether these are as they were seen, and no other image has anything to do with them.
fn stand_alone(state: &State, images: &[Arc<ImageRecord>]) -> bool {
    let among = |other: &ImageRecord| images.iter().any(|image| image.id == other.id);
    let is_same = |image: &Arc<ImageRecord>| {
        let now = state.images.get(&image.id);
        now.is_some_and(|now| Arc::ptr_eq(now, image) || now == image)
    };
    let built_from = |other: &ImageRecord| images.iter().any(|image| other.parent.as_ref() == Some(&image.id));
    let mut names = images.iter().flat_map(|image| image.references.iter().chain(&image.platform_of));
    images.iter().all(is_same)
        && names.all(|name| state.group(name).iter().all(|other| among(other)))
        && !state.images.values().any(|other| built_from(other) && !among(other))
}

/// Pure: changes `state` to what it is without these images, and says what goes.
fn plan(state: &mut State, images: &[Arc<ImageRecord>]) -> Vec<Removed> {
    let mut plan = Plan::new(state, &[]);
    for (image, name) in images.iter().flat_map(|image| image.references.iter().map(move |name| (image, name))) {
        plan.untag(name, &image.id);
    }
    images.iter().for_each(|image| plan.take(&image.id));
    plan.removed
}
