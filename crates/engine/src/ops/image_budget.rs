//! A budget for images: `GET /images/budget` says what would go, and what grows the disk makes it go.
//!
//! Off unless `image-budget-high` is set. When the layers of all images take more than that, images go until they take no
//! more than `image-budget-low`, the least recently used first (docs/adr/0005). It is looked at after a pull, load, build,
//! commit or import, by a task of its own; never by a start, which only notes the time in memory.
//!
//! ```text
//! <data-root>/image-uses.json     image id -> nanoseconds since 1970 of its last use; written when it is looked at, and at
//!                                 the daemon's end. What a kill loses is made up for by the time of the last tag.
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::{Arc, Mutex};

use engine_api::disk_usage::{BudgetedImage, ImageBudget};
use image::{ImageRecord, RemoveOptions, Removed};
use oci::Digest;
use snapshot::ChainId;
use tracing::{info, warn};

use crate::Engine;
use crate::clock::{now_nanos, parse_rfc3339, rfc3339};
use crate::config::ImageBudgetConfig;
use crate::ops::images::{self, created_nanos};
use crate::sync::lock;
use crate::upkeep::Turn;

/// The label by which an image's maker pins it.
const PIN: &str = "longshore.pin";

/// When images were last used, in memory.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<HashMap<Digest, i64>>);

/// What is known of an image when the budget is looked at.
#[derive(Clone, Debug)]
struct Candidate {
    id: Digest,
    parent: Option<Digest>,
    name: String,
    /// Layers and their bytes.
    layers: Vec<(ChainId, u64)>,
    last_used_nanos: i64,
    /// Why it stays in any case.
    stays: Option<String>,
}

/// What becomes of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It goes, and so many bytes with it.
    Goes(u64),
    /// It stays.
    Stays(String),
}

impl Uses {
    /// What was kept; what cannot be read is forgotten.
    pub(crate) fn load(data_root: &std::path::Path) -> Uses {
        let text = fs::read(data_root.join("image-uses.json")).unwrap_or_default();
        let kept: HashMap<String, i64> = serde_json::from_slice(&text).unwrap_or_default();
        let kept = kept.into_iter().filter_map(|(id, nanos)| Some((id.parse().ok()?, nanos)));
        Uses(Mutex::new(kept.collect()))
    }
}

/// A container is made of that image. In memory alone: every start comes by here.
pub(crate) fn note_use(engine: &Engine, image_id: &str) {
    if engine.config.image_budget.is_some()
        && let Ok(id) = image_id.parse()
    {
        lock(&engine.image_uses.0).insert(id, now_nanos());
    }
}

/// Keeps what is known of images that are still here. Blocks.
pub(crate) fn keep_uses(engine: &Engine) {
    if engine.config.image_budget.is_none() {
        return;
    }
    let uses: BTreeMap<String, i64> = {
        let mut uses = lock(&engine.image_uses.0);
        uses.retain(|id, _| engine.images.get(id).is_some());
        uses.iter().map(|(id, nanos)| (id.to_string(), *nanos)).collect()
    };
    let text = serde_json::to_vec(&uses).unwrap_or_default();
    let path = engine.config.data_root.join("image-uses.json");
    if let Err(err) = stdx::fs::write_atomic(&path, &text, stdx::fs::Durability::ProcessDeath) {
        warn!(%err, "when images were used is not kept");
    }
}

/// What the budget would do now, and why. No I/O.
pub fn explain(engine: &Engine) -> ImageBudget {
    let total = engine.images.layer_usage().total_bytes();
    let Some(budget) = &engine.config.image_budget else {
        return ImageBudget { total_bytes: total, ..ImageBudget::default() };
    };
    let candidates = candidates(engine, budget, &[]);
    let fates = plan(&candidates, total, budget);
    let image = |(candidate, fate): (&Candidate, &Fate)| BudgetedImage {
        id: candidate.id.to_string(),
        name: candidate.name.clone(),
        last_used: rfc3339(candidate.last_used_nanos),
        goes: matches!(fate, Fate::Goes(_)),
        frees_bytes: if let Fate::Goes(bytes) = fate { *bytes } else { 0 },
        why: match fate {
            Fate::Goes(_) => "least recently used".to_owned(),
            Fate::Stays(why) => why.clone(),
        },
    };
    ImageBudget {
        total_bytes: total,
        high_bytes: budget.high_bytes,
        low_bytes: budget.low_bytes,
        images: candidates.iter().zip(&fates).map(image).collect(),
    }
}

/// Looks at the budget, in a task of its own, after these images were made or pulled: they stay, for whoever asked for them
/// is about to use them.
pub(crate) fn look_soon(engine: &Engine, made: Vec<Digest>) {
    if engine.config.image_budget.is_none() {
        return;
    }
    let engine = engine.clone();
    tokio::spawn(async move { look(&engine, &made).await });
}

async fn look(engine: &Engine, made: &[Digest]) {
    // Whoever prunes or looks already makes room, and looks again before it ends.
    let Some(_turn) = Turn::take(&engine.upkeep.images) else { return };
    let Some(budget) = &engine.config.image_budget else { return };
    while engine.images.layer_usage().total_bytes() > budget.high_bytes && make_room(engine, budget, made).await > 0 {}
    let left = engine.images.layer_usage().total_bytes();
    if left > budget.high_bytes {
        warn!(left, high = budget.high_bytes, "the budget for images is not kept: `longshore image budget` says why");
    }
    let task = engine.clone();
    bridge::blocking(move || keep_uses(&task)).await;
}

/// Removes what goes; answers how many bytes went.
async fn make_room(engine: &Engine, budget: &ImageBudgetConfig, made: &[Digest]) -> u64 {
    let candidates = candidates(engine, budget, made);
    let fates = plan(&candidates, engine.images.layer_usage().total_bytes(), budget);
    let mut reclaimed_bytes = 0_u64;
    let goes = |(_, fate): &(&Candidate, &Fate)| matches!(fate, Fate::Goes(_));
    for (candidate, _) in candidates.iter().zip(&fates).filter(goes) {
        reclaimed_bytes = reclaimed_bytes.saturating_add(remove(engine, candidate).await);
    }
    engine.events.images_pruned(reclaimed_bytes);
    reclaimed_bytes
}

/// Removes an image by all its names; answers the bytes of layers that went.
async fn remove(engine: &Engine, candidate: &Candidate) -> u64 {
    let Some(record) = engine.images.get(&candidate.id) else { return 0 };
    let names: Vec<String> = match record.references.is_empty() {
        true => vec![candidate.id.to_string()],
        false => record.references.iter().map(oci::Reference::familiar).collect(),
    };
    let mut bytes = 0_u64;
    for name in names {
        match images::take_away(engine, &name, RemoveOptions::default()).await {
            Ok(removed) => {
                let of = |chain_id: &ChainId| candidate.layers.iter().find(|(layer, _)| layer == chain_id);
                let layers = removed.iter().filter_map(|gone| match gone {
                    Removed::Layer(chain_id) => of(chain_id),
                    _ => None,
                });
                bytes = layers.fold(bytes, |bytes, (_, more)| bytes.saturating_add(*more));
            }
            // A container has it by now, or its digest went with its tag.
            Err(err) => tracing::debug!(name, err = errdefs::chain(&err), "an image stays"),
        }
    }
    if engine.images.get(&candidate.id).is_none() {
        info!(image = candidate.name, bytes, "removed for the budget: it was the least recently used one");
    }
    bytes
}

fn candidates(engine: &Engine, budget: &ImageBudgetConfig, made: &[Digest]) -> Vec<Candidate> {
    let usage = engine.images.layer_usage();
    let mut users: HashMap<Digest, String> = HashMap::new();
    for container in engine.containers.all() {
        let mounted = container.definition.mounts.iter().filter(|point| point.shown.kind == "image");
        let named =
            mounted.filter_map(|point| engine.images.resolve(&point.shown.name).ok()).map(|image| image.id.clone());
        for id in container.definition.image_id.parse().into_iter().chain(named) {
            users.entry(id).or_insert_with(|| container.name());
        }
    }
    let uses = lock(&engine.image_uses.0);
    let candidate = |image: Arc<ImageRecord>| {
        let last_used_nanos = uses.get(&image.id).copied().unwrap_or(0).max(known_nanos(&image));
        let name = image.repo_tags().first().or(image.repo_digests().first()).cloned();
        let layers =
            image.chain.iter().map(|chain_id| (chain_id.clone(), usage.bytes(chain_id).unwrap_or(0))).collect();
        let stays = match users.get(&image.id) {
            Some(container) => Some(format!("container {container} has it")),
            None if made.contains(&image.id) => Some("it was just made".to_owned()),
            None => pinned(&image, budget),
        };
        let name = name.unwrap_or_else(|| image.short_id().to_owned());
        Candidate { id: image.id.clone(), parent: image.parent.clone(), name, layers, last_used_nanos, stays }
    };
    let mut candidates: Vec<Candidate> = engine.images.list().into_iter().map(candidate).collect();
    candidates.sort_by(|a, b| (a.last_used_nanos, &a.id).cmp(&(b.last_used_nanos, &b.id)));
    candidates
}

/// When it got its last name, else when it was made.
fn known_nanos(image: &ImageRecord) -> i64 {
    let tagged = image.last_tagged.as_deref().and_then(parse_rfc3339);
    tagged.unwrap_or_else(|| created_nanos(image))
}

/// Why nobody may take it away, if there is a reason in the image itself.
fn pinned(image: &ImageRecord, budget: &ImageBudgetConfig) -> Option<String> {
    if image.config.config.labels.as_ref().and_then(|labels| labels.get(PIN)).is_some_and(|value| value == "true") {
        return Some(format!("pinned by its label {PIN}"));
    }
    let tags = image.repo_tags();
    if let Some(pin) = budget.pins.iter().find(|pin| tags.iter().any(|tag| matches(pin, tag))) {
        return Some(format!("pinned by image-pins {pin}"));
    }
    // One that was built, loaded or committed here under a name may be nowhere else.
    let only_here = !tags.is_empty() && image.repo_digests().is_empty();
    only_here.then(|| "it has a name and no registry's digest: it may be nowhere else".to_owned())
}

/// `*` stands for any letters; without a tag any tag is meant.
fn matches(pattern: &str, name: &str) -> bool {
    let last = pattern.rsplit('/').next().unwrap_or(pattern);
    let whole = if last.contains(':') { pattern.to_owned() } else { format!("{pattern}:*") };
    let mut parts = whole.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

/// Decides; `candidates` are the least recently used first.
fn plan(candidates: &[Candidate], total_bytes: u64, budget: &ImageBudgetConfig) -> Vec<Fate> {
    let enough = |why: &str| Fate::Stays(why.to_owned());
    let mut fates: Vec<Option<Fate>> = candidates.iter().map(|one| one.stays.clone().map(Fate::Stays)).collect();
    if total_bytes <= budget.high_bytes {
        return fates.into_iter().map(|fate| fate.unwrap_or_else(|| enough("there is room"))).collect();
    }
    let mut users: HashMap<&ChainId, usize> = HashMap::new();
    for (chain_id, _) in candidates.iter().flat_map(|one| &one.layers) {
        *users.entry(chain_id).or_default() += 1;
    }
    let mut left = total_bytes;
    while left > budget.low_bytes {
        // What others were built from waits for them.
        let is_parent = |id: &Digest| {
            let mut rest = candidates.iter().zip(&fates).filter(|(_, fate)| !matches!(fate, Some(Fate::Goes(_))));
            rest.any(|(other, _)| other.parent.as_ref() == Some(id))
        };
        let next = (0..candidates.len()).find(|at| fates[*at].is_none() && !is_parent(&candidates[*at].id));
        let Some(next) = next else { break };
        let mut frees = 0_u64;
        for (chain_id, bytes) in &candidates[next].layers {
            let count = users.entry(chain_id).or_default();
            *count = count.saturating_sub(1);
            frees += if *count == 0 { *bytes } else { 0 };
        }
        left = left.saturating_sub(frees);
        fates[next] = Some(Fate::Goes(frees));
    }
    let rest = if left > budget.low_bytes { "other images were built from it" } else { "there is room without it" };
    fates.into_iter().map(|fate| fate.unwrap_or_else(|| enough(rest))).collect()
}

#[cfg(test)]
mod tests;
