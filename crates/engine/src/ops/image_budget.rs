//! A budget for images: `GET /longshore/images/budget` says what would go, and what grows the disk makes it go.
//!
//! Off unless `image-budget-high` is set. When all images together take more than that, images go until they take no more
//! than `image-budget-low`, the least recently used first (docs/adr/0006). It is looked at after a pull, load, build,
//! commit, import or push, by a task of its own; never by a start, which only notes the time in memory.
//!
//! ```text
//! survey    images with their layers and blobs, in groups that share names; who needs them; when they were used
//! plan      which groups go (pure)
//! apply     each group by itself, whole or not at all; what is needed or changed by then stays
//!
//! <data-root>/image-uses.json     image id -> nanoseconds since 1970 of its last use; written when it is looked at, and at
//!                                 the daemon's end. What a kill loses is made up for by the time of the last tag.
//! ```

mod plan;
mod uses;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use engine_api::disk_usage::{BudgetedImage, ImageBudget};
use errdefs::ErrorKind;
use image::{ImageParts, ImageRecord, Part, Removed};
use oci::Digest;
use snapshot::ChainId;
use tracing::{info, warn};

use self::plan::{Decision, Fate, Group, Member};
pub(crate) use self::uses::{Holding, Uses, expect, hold, keep, note};
use crate::Engine;
use crate::clock::{now_nanos, parse_rfc3339, rfc3339};
use crate::config::ImageBudgetConfig;
use crate::ops::create::snapshot_key;
use crate::ops::images;
use crate::platforms;

/// Why it is not known what would go.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// What is kept of images cannot be measured.
    #[error("measure what is kept of images")]
    Blobs(#[from] content::ReadError),
}

impl BudgetError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// What there is.
struct Survey {
    /// When it was looked at, in nanoseconds since 1970.
    seen_nanos: i64,
    /// The least recently used first.
    groups: Vec<Group>,
    images: HashMap<Digest, Arc<ImageRecord>>,
    /// What containers keep whose images are gone.
    held: HashSet<Part>,
}

/// What the budget would do now, and why.
pub async fn explain(engine: &Engine) -> Result<ImageBudget, BudgetError> {
    let task = engine.clone();
    let survey = bridge::blocking(move || survey(&task)).await?;
    let total_bytes = plan::total_bytes(&survey.groups);
    let Some(budget) = &engine.config.image_budget else {
        return Ok(ImageBudget { total_bytes, ..ImageBudget::default() });
    };
    let decision = plan::plan(&survey.groups, &survey.held, budget);
    let images = (0..survey.groups.len()).flat_map(|at| explained(&survey, &decision, at)).collect();
    Ok(ImageBudget { total_bytes, high_bytes: budget.high_bytes, low_bytes: budget.low_bytes, images })
}

fn explained(survey: &Survey, decision: &Decision, at: usize) -> Vec<BudgetedImage> {
    let group = &survey.groups[at];
    let staying = group.members.iter().find_map(|member| Some((&member.id, member.stays.as_ref()?)));
    let why = |member: &Member| match (&decision.fates[at], &member.stays, staying) {
        (Fate::Goes(_), ..) => "least recently used".to_owned(),
        (_, Some(own), _) => own.clone(),
        (_, None, Some((other, reason))) => format!("it goes with {} alone: {reason}", &other.hex()[..12]),
        (_, None, None) => decision.why[at].clone(),
    };
    let members = group.members.iter().enumerate().map(|(place, member)| {
        let frees_bytes = match &decision.fates[at] {
            Fate::Goes(bytes) => bytes[place],
            Fate::Stays => 0,
        };
        let image = &survey.images[&member.id];
        BudgetedImage {
            id: member.id.to_string(),
            name: shown_name(image),
            platform: platforms::shown(&image.config.platform),
            last_used: rfc3339(group.last_used_nanos),
            goes: decision.fates[at] != Fate::Stays,
            frees_bytes,
            why: why(member),
        }
    });
    members.collect()
}

/// Its first tag, or what else it is called.
fn shown_name(image: &ImageRecord) -> String {
    let names = || image.references.iter().chain(&image.platform_of);
    let first = names().find(|name| name.tag().is_some()).or_else(|| names().next());
    first.map_or_else(|| image.short_id().to_owned(), oci::Reference::familiar)
}

/// Looks at the budget, in a task of its own, after these images were made, pulled or pushed: that is a use of them.
pub(crate) fn look_soon(engine: &Engine, made: impl IntoIterator<Item = Digest>) {
    if engine.config.image_budget.is_none() {
        return;
    }
    made.into_iter().for_each(|id| note(engine, id.as_str()));
    let engine = engine.clone();
    tokio::spawn(async move {
        // One at a time, and each: whoever looks may have begun before we came.
        let _turn = engine.upkeep.budget.lock().await;
        if let Err(err) = look(&engine).await {
            warn!(err = errdefs::chain(&err), "the budget for images is not looked at");
        }
        let task = engine.clone();
        bridge::blocking(move || keep(&task)).await;
    });
}

async fn look(engine: &Engine) -> Result<(), BudgetError> {
    let Some(budget) = &engine.config.image_budget else { return Ok(()) };
    loop {
        let task = engine.clone();
        let survey = bridge::blocking(move || survey(&task)).await?;
        let left = plan::total_bytes(&survey.groups);
        if left <= budget.high_bytes {
            return Ok(());
        }
        if !make_room(engine, &survey, budget).await {
            warn!(
                left,
                high = budget.high_bytes,
                "the budget for images is not kept: `longshore image budget` says why"
            );
            return Ok(());
        }
    }
}

/// Removes what goes; whether something went.
async fn make_room(engine: &Engine, survey: &Survey, budget: &ImageBudgetConfig) -> bool {
    let decision = plan::plan(&survey.groups, &survey.held, budget);
    let (mut went, mut reclaimed_bytes) = (false, 0_u64);
    for (group, fate) in survey.groups.iter().zip(&decision.fates) {
        let Fate::Goes(frees) = fate else { continue };
        let images: Vec<_> = group.members.iter().map(|member| survey.images[&member.id].clone()).collect();
        let name = shown_name(&images[0]);
        match images::evict(engine, images, survey.seen_nanos).await {
            Ok(Some(removed)) => {
                let bytes = frees.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
                let images = removed.iter().filter(|gone| matches!(gone, Removed::Image(_))).count();
                info!(name, images, bytes, "removed for the budget: nothing was used less recently");
                went = true;
                reclaimed_bytes = reclaimed_bytes.saturating_add(bytes);
            }
            Ok(None) => tracing::debug!(name, "an image stays: it is needed by now, or not what it was"),
            Err(err) => warn!(name, err = errdefs::chain(&err), "an image is not removed for the budget"),
        }
    }
    if went {
        engine.events.images_pruned(reclaimed_bytes);
    }
    went
}

/// Blocks.
fn survey(engine: &Engine) -> Result<Survey, BudgetError> {
    let all = image::image_parts(&engine.images)?;
    let no_budget = ImageBudgetConfig::default();
    let budget = engine.config.image_budget.as_ref().unwrap_or(&no_budget);
    // The time first: what is used from then on counts as used since.
    let (now, users, uses) = (now_nanos(), users(engine), engine.image_uses.last_nanos());
    let recent = |last: i64| {
        let young = u128::from(now.abs_diff(last)) < budget.min_age.as_nanos() || last > now;
        young.then(|| format!("it was used less than {} seconds ago", budget.min_age.as_secs()))
    };
    let mut groups = Vec::new();
    for places in plan::sharing(&all.iter().map(|one| names(&one.image)).collect::<Vec<_>>()) {
        let mut of_group: Vec<&ImageParts> = places.into_iter().map(|place| &all[place]).collect();
        of_group.sort_by_key(|one| one.image.is_beside());
        let last_used = |one: &&ImageParts| uses.get(&one.image.id).copied().unwrap_or(0).max(known_nanos(&one.image));
        let last_used_nanos = of_group.iter().map(last_used).max().unwrap_or(0);
        let member = |ImageParts { image, parts }: &ImageParts| Member {
            id: image.id.clone(),
            parent: image.parent.clone(),
            parts: parts.clone(),
            stays: users
                .reason(engine, image)
                .or_else(|| plan::pinned(image, budget))
                .or_else(|| recent(last_used_nanos)),
        };
        groups.push(Group { members: of_group.into_iter().map(member).collect(), last_used_nanos });
    }
    groups.sort_by(|a, b| (a.last_used_nanos, &a.members[0].id).cmp(&(b.last_used_nanos, &b.members[0].id)));
    let images = all.into_iter().map(|one| (one.image.id.clone(), one.image)).collect();
    Ok(Survey { seen_nanos: now, groups, images, held: held_by_containers(engine) })
}

fn names(image: &ImageRecord) -> Vec<String> {
    image.references.iter().chain(&image.platform_of).map(ToString::to_string).collect()
}

/// When it got its last name. When it was made says nothing: whoever made it says that.
fn known_nanos(image: &ImageRecord) -> i64 {
    image.last_tagged.as_deref().and_then(parse_rfc3339).unwrap_or(0)
}

/// The containers of images, running or not.
pub(crate) struct Users {
    /// By the image that they were made of.
    made_of: HashMap<Digest, String>,
    /// By the layers that they mount, the uppermost last.
    mounting: HashMap<Vec<ChainId>, String>,
}

impl Users {
    /// Why the image is needed now, if it is.
    pub(crate) fn reason(&self, engine: &Engine, image: &ImageRecord) -> Option<String> {
        let container = self.made_of.get(&image.id).or_else(|| self.mounting.get(&image.chain));
        let has = container.map(|name| format!("container {name} has it"));
        has.or_else(|| engine.image_uses.is_held(&image.id).then(|| "a build or a push needs it".to_owned()))
    }
}

pub(crate) fn users(engine: &Engine) -> Users {
    let mut users = Users { made_of: HashMap::new(), mounting: HashMap::new() };
    for container in engine.containers.all() {
        if let Ok(id) = container.definition.image_id.parse() {
            users.made_of.entry(id).or_insert_with(|| container.name());
        }
        for point in container.definition.mounts.iter().filter(|point| !point.layers.is_empty()) {
            let chain = point.layers.iter().cloned().map(ChainId).collect();
            users.mounting.entry(chain).or_insert_with(|| container.name());
        }
    }
    users
}

/// Layers of containers whose images were removed by force, which no image's removal frees. Blocks.
fn held_by_containers(engine: &Engine) -> HashSet<Part> {
    let mut held = HashSet::new();
    for container in engine.containers.all() {
        // One that is being removed has none.
        let chain = engine.images.snapshots().chain(&snapshot_key(container.id())).unwrap_or_default();
        held.extend(chain.into_iter().map(Part::Layer));
        let mounted = container.definition.mounts.iter().flat_map(|point| &point.layers);
        held.extend(mounted.cloned().map(|digest| Part::Layer(ChainId(digest))));
    }
    held
}
