//! What goes of the build cache by itself, so that a machine that only builds does not fill its disk.
//!
//! BuildKit's rules (cmd/buildkitd/config, DefaultGCPolicy): where all takes more than it may, what nobody refers to goes, the least
//! recently used first. It is looked at behind a build, once a minute at most.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use image::ImageRecord;
use oci::Digest;

use super::{Referred, bytes_of_steps, free_bytes, own_bytes, remove_forgotten};
use crate::Engine;
use crate::ops::build::{self, Limits};

/// How often, at most.
const EVERY: Duration = Duration::from_secs(60);

/// BuildKit's sizes where nothing is said, of the disk: a tenth stays, but no more than 10 GB; six tenths are the most, but no more
/// than 100 GB; a fifth shall be free (cmd/buildkitd/config, gcpolicy_unix.go).
const RESERVED_PERCENT: u64 = 10;
const RESERVED_MAX: u64 = 10_000_000_000;
const USED_PERCENT: u64 = 60;
const USED_MAX: u64 = 100_000_000_000;
const FREE_PERCENT: u64 = 20;

/// A step that may go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    key: String,
    /// When it, or what was built from it, was used last.
    used_at: SystemTime,
    /// How many steps it stands on.
    height: usize,
    bytes: u64,
}

/// Forgets steps until the cache takes no more than it may, and removes what they came to.
pub(crate) async fn collect(engine: &Engine) {
    let config = engine.config.build_cache;
    let Ok(mut last) = engine.upkeep.build_cache.try_lock() else { return };
    if !config.is_collected || last.is_some_and(|last| last.elapsed() < EVERY) {
        return;
    }
    let task = engine.clone();
    let forgotten = bridge::blocking(move || forget(&task, config.limits)).await;
    if forgotten > 0 {
        let freed = remove_forgotten(engine).await;
        tracing::info!(forgotten, freed, "the build cache took more than it may");
    }
    *last = Some(Instant::now());
}

/// Answers how many steps are forgotten.
fn forget(engine: &Engine, limits: Limits) -> usize {
    let limits = if limits == Limits::default() { of_disk(size_of_disk(engine)) } else { limits };
    let steps = bytes_of_steps(engine, &engine.images.layer_usage());
    let total = build::all_space(engine).iter().map(|space| space.bytes).fold(steps, u64::saturating_add);
    let excess = limits.keep(total, || free_bytes(engine)).map_or(0, |keep| total.saturating_sub(keep));
    if excess == 0 {
        return 0;
    }
    let gone = going(candidates(engine), excess);
    gone.into_iter().filter(|key| build::forget(engine, key).is_ok()).count()
}

/// The steps that came to something which nobody refers to.
fn candidates(engine: &Engine) -> Vec<Step> {
    let referred = Referred::of(engine);
    let known: Vec<_> = build::remembered(engine).into_iter().filter(|step| !referred.has(step)).collect();
    let image = |step: &build::Remembered| step.image.as_ref().and_then(|image| engine.images.get(image));
    let mut used: HashMap<Digest, SystemTime> = HashMap::new();
    for step in &known {
        let mut next = image(step);
        while let Some(image) = next {
            let latest = used.entry(image.id.clone()).or_insert(step.used_at);
            *latest = step.used_at.max(*latest);
            next = image.parent.as_ref().and_then(|parent| engine.images.get(parent));
        }
    }
    let size = |image: &Arc<ImageRecord>| if engine.steps.has(image) { own_bytes(engine, image) } else { 0 };
    let candidate = |step: build::Remembered| {
        let image = image(&step);
        Step {
            used_at: image.as_ref().and_then(|image| used.get(&image.id).copied()).unwrap_or(step.used_at),
            height: image.as_ref().map_or(0, |image| image.config.history.len()),
            bytes: image.as_ref().map_or(0, size),
            key: step.key,
        }
    };
    known.into_iter().map(candidate).collect()
}

/// The keys of those that go until so many bytes are free: those that were not used for longest, and what was built from others before
/// these. Pure.
fn going(mut steps: Vec<Step>, excess: u64) -> Vec<String> {
    steps.sort_by(|a, b| a.used_at.cmp(&b.used_at).then(b.height.cmp(&a.height)).then_with(|| a.key.cmp(&b.key)));
    let mut freed = 0_u64;
    let goes = steps.into_iter().take_while(|step| {
        let is_missing = freed < excess;
        freed = freed.saturating_add(step.bytes);
        is_missing
    });
    goes.map(|step| step.key).collect()
}

/// BuildKit's sizes of a disk of so many bytes. Pure.
fn of_disk(size: u64) -> Limits {
    let percent = |percent: u64| size / 100 * percent;
    Limits {
        reserved: percent(RESERVED_PERCENT).min(RESERVED_MAX),
        max_used: percent(USED_PERCENT).min(USED_MAX),
        min_free: percent(FREE_PERCENT),
    }
}

fn size_of_disk(engine: &Engine) -> u64 {
    // Of one that says nothing nothing is too much.
    rustix::fs::statvfs(&engine.config.data_root).map_or(0, |found| found.f_blocks.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(key: &str, used: u64, height: usize, bytes: u64) -> Step {
        Step { key: key.to_owned(), used_at: SystemTime::UNIX_EPOCH + Duration::from_secs(used), height, bytes }
    }

    #[test]
    fn what_was_not_used_for_longest_goes_until_enough_is_free() {
        let steps =
            || vec![step("new", 9, 1, 100), step("old", 1, 1, 100), step("below", 5, 1, 50), step("above", 5, 2, 50)];
        for (excess, wanted) in [
            (0, ""),
            (1, "old"),
            (100, "old"),
            (101, "old above"),
            (151, "old above below"),
            (201, "old above below new"),
            (1000, "old above below new"),
        ] {
            assert_eq!(going(steps(), excess).join(" "), wanted, "{excess}");
        }
    }

    #[test]
    fn a_disk_keeps_a_fifth_free_and_no_more_than_is_sensible() {
        const GB: u64 = 1_000_000_000;
        let sizes = |size: u64| {
            let Limits { reserved, max_used, min_free } = of_disk(size);
            (reserved / GB, max_used / GB, min_free / GB)
        };
        assert_eq!(sizes(50 * GB), (5, 30, 10));
        assert_eq!(sizes(1000 * GB), (10, 100, 200));
        // Of one that says nothing no more is asked for than nothing: what limits nothing.
        assert_eq!(of_disk(0), Limits::default());
    }
}
