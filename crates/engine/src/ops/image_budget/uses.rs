//! When images were last used, and which are in use without a container.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use image::ImageRecord;
use oci::Digest;
use tracing::warn;

use crate::Engine;
use crate::clock::now_nanos;
use crate::ops::images::created_nanos;
use crate::sync::lock;

/// In memory; [`keep`] writes down the times.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    last_nanos: Mutex<HashMap<Digest, i64>>,
    /// How many builds and pushes need an image.
    held: Mutex<HashMap<Digest, usize>>,
    /// Steps of builds that are being recorded: the image below each, and since when, in nanoseconds since 1970.
    expected: Mutex<Vec<Expected>>,
}

/// What a build is about to record and hold.
type Expected = (Option<Digest>, i64);

impl Uses {
    /// What was kept; what cannot be read is forgotten.
    pub(crate) fn load(data_root: &Path) -> Uses {
        let text = fs::read(data_root.join(FILE)).unwrap_or_default();
        let kept: HashMap<String, i64> = serde_json::from_slice(&text).unwrap_or_default();
        let kept = kept.into_iter().filter_map(|(id, nanos)| Some((id.parse().ok()?, nanos)));
        Uses { last_nanos: Mutex::new(kept.collect()), held: Mutex::default(), expected: Mutex::default() }
    }

    /// Nanoseconds since 1970, as far as is known.
    pub(super) fn last_nanos(&self) -> HashMap<Digest, i64> {
        lock(&self.last_nanos).clone()
    }

    /// Whether somebody used it after that time.
    pub(crate) fn is_used_since(&self, id: &Digest, nanos: i64) -> bool {
        lock(&self.last_nanos).get(id).is_some_and(|last| *last > nanos)
    }

    /// Whether a build or a push needs it.
    pub(super) fn is_held(&self, id: &Digest) -> bool {
        lock(&self.held).contains_key(id)
    }

    /// Whether a build or a push needs an image, or a build is about to.
    pub(crate) fn is_needed(&self, image: &ImageRecord) -> bool {
        let is = |(below, since): &Expected| *below == image.parent && created_nanos(image) >= *since;
        self.is_held(&image.id) || lock(&self.expected).iter().any(is)
    }
}

/// Below the data root.
const FILE: &str = "image-uses.json";

/// Somebody makes a container of that image, or takes one away, or asks for it. In memory alone: every `run` comes by here.
pub(crate) fn note(engine: &Engine, image_id: &str) {
    if engine.config.image_budget.is_some()
        && let Ok(id) = image_id.parse()
    {
        lock(&engine.image_uses.last_nanos).insert(id, now_nanos());
    }
}

/// Keeps what is known of images that are still here. Blocks.
pub(crate) fn keep(engine: &Engine) {
    if engine.config.image_budget.is_none() {
        return;
    }
    let uses: BTreeMap<String, i64> = {
        let mut uses = lock(&engine.image_uses.last_nanos);
        uses.retain(|id, _| engine.images.get(id).is_some());
        uses.iter().map(|(id, nanos)| (id.to_string(), *nanos)).collect()
    };
    let text = serde_json::to_vec(&uses).expect("texts and numbers are always JSON");
    let path = engine.config.data_root.join(FILE);
    if let Err(err) = stdx::fs::write_atomic(&path, &text, stdx::fs::Durability::ProcessDeath) {
        warn!(%err, "when images were used is not kept");
    }
}

/// As long as it is there, a prune leaves the step of a build that comes above an image.
pub(crate) struct Expecting {
    engine: Engine,
    expected: Expected,
}

/// Announces a step, until who records it holds it: what is recorded and not held would be a prune's.
pub(crate) fn expect(engine: &Engine, below: Option<&Digest>) -> Expecting {
    let expected = (below.cloned(), now_nanos());
    lock(&engine.image_uses.expected).push(expected.clone());
    Expecting { engine: engine.clone(), expected }
}

impl Drop for Expecting {
    fn drop(&mut self) {
        let mut all = lock(&self.engine.image_uses.expected);
        if let Some(own) = all.iter().position(|expected| *expected == self.expected) {
            all.swap_remove(own);
        }
    }
}

/// Images that the budget and prunes leave alone until this is dropped.
pub(crate) struct Holding {
    engine: Engine,
    ids: Vec<Digest>,
}

/// Holds images for a build or a push; `None` if one of them is gone.
pub(crate) async fn hold(engine: &Engine, ids: Vec<Digest>) -> Option<Holding> {
    // Whoever removes by itself looks at what is held with this lock to itself.
    let _users = engine.image_users.read().await;
    let holding = Holding { engine: engine.clone(), ids };
    for id in &holding.ids {
        *lock(&engine.image_uses.held).entry(id.clone()).or_default() += 1;
        note(engine, id.as_str());
    }
    holding.ids.iter().all(|id| engine.images.get(id).is_some()).then_some(holding)
}

impl Drop for Holding {
    fn drop(&mut self) {
        for id in &self.ids {
            note(&self.engine, id.as_str());
            let mut held = lock(&self.engine.image_uses.held);
            match held.get_mut(id) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(held.remove(id)),
            }
        }
    }
}
