//! What goes of the build cache by itself, so that a machine that only builds does not fill its disk.
//!
//! BuildKit's rules (cmd/buildkitd/config, DefaultGCPolicy): where all takes more than it may, what nobody refers to goes, the least
//! recently used first, steps and what else is kept alike. It is looked at behind a build, once a minute at most.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use image::ImageRecord;
use oci::Digest;

use super::{Referred, bytes_of_steps, free_bytes, own_bytes, remove_forgotten};
use crate::Engine;
use crate::ops::build::{self, Limits, Space};

/// How often, at most.
const EVERY: Duration = Duration::from_secs(60);

/// BuildKit's sizes where nothing is said, of the disk: a tenth stays, but no more than 10 GB; six tenths are the most, but no more
/// than 100 GB; a fifth shall be free (cmd/buildkitd/config, gcpolicy_unix.go).
const RESERVED_PERCENT: u64 = 10;
const RESERVED_MAX: u64 = 10_000_000_000;
const USED_PERCENT: u64 = 60;
const USED_MAX: u64 = 100_000_000_000;
const FREE_PERCENT: u64 = 20;

/// Something that may go: a step, by its key, or what takes space itself.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Step(String),
    Space(Space),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    what: What,
    /// When it, or what was built from it, was used last: nanoseconds since 1970.
    used_at_nanos: i64,
    /// How many steps it stands on.
    height: usize,
    bytes: u64,
}

/// Lets go until the cache takes no more than it may.
pub(crate) async fn collect(engine: &Engine) {
    let config = engine.config.build_cache;
    let Ok(mut last) = engine.upkeep.build_cache.try_lock() else { return };
    if !config.is_collected || last.is_some_and(|last| last.elapsed() < EVERY) {
        return;
    }
    let task = engine.clone();
    if let Some(gone) = bridge::blocking(move || let_go(&task, config.limits)).await {
        // Also of steps whose records have gone otherwise.
        let freed = remove_forgotten(engine).await;
        tracing::info!(gone, freed, "the build cache takes more than it may");
    }
    *last = Some(Instant::now());
}

/// Answers how much has gone, where it was too much.
fn let_go(engine: &Engine, limits: Limits) -> Option<usize> {
    let limits = if limits == Limits::default() { of_disk(size_of_disk(engine)) } else { limits };
    let space = build::all_space(engine);
    let steps = bytes_of_steps(engine, &engine.images.layer_usage());
    let total = space.iter().map(|space| space.bytes).fold(steps, u64::saturating_add);
    let excess = total.saturating_sub(limits.keep(total, || free_bytes(engine))?);
    if excess == 0 {
        return None;
    }
    let candidates = candidates(engine).chain(space.into_iter().filter(|space| !space.in_use).map(of_space)).collect();
    let has_gone = |what: &What| match what {
        What::Step(key) => build::forget(engine, key).is_ok(),
        What::Space(space) => build::remove_space(engine, space),
    };
    Some(going(candidates, excess).iter().filter(|what| has_gone(what)).count())
}

fn of_space(space: Space) -> Candidate {
    Candidate { used_at_nanos: space.used_at_nanos, height: 0, bytes: space.bytes, what: What::Space(space) }
}

/// The steps that came to something which nobody refers to.
fn candidates(engine: &Engine) -> impl Iterator<Item = Candidate> {
    let referred = Referred::of(engine);
    let known: Vec<_> = build::remembered(engine).into_iter().filter(|step| !referred.has(step)).collect();
    let image = |step: &build::Remembered| step.image.as_ref().and_then(|image| engine.images.get(image));
    let mut used: HashMap<Digest, i64> = HashMap::new();
    for step in &known {
        let mut next = image(step);
        while let Some(image) = next {
            let latest = used.entry(image.id.clone()).or_insert(step.used_at_nanos);
            *latest = step.used_at_nanos.max(*latest);
            next = image.parent.as_ref().and_then(|parent| engine.images.get(parent));
        }
    }
    let size = |image: &Arc<ImageRecord>| if engine.steps.has(image) { own_bytes(engine, image) } else { 0 };
    known.into_iter().map(move |step| {
        let image = image(&step);
        Candidate {
            used_at_nanos: image.as_ref().and_then(|image| used.get(&image.id).copied()).unwrap_or(step.used_at_nanos),
            height: image.as_ref().map_or(0, |image| image.config.history.len()),
            bytes: image.as_ref().map_or(0, size),
            what: What::Step(step.key),
        }
    })
}

/// What goes until so many bytes are free: what was not used for longest, and what was built from others before these. Pure.
fn going(mut candidates: Vec<Candidate>, excess: u64) -> Vec<What> {
    candidates.sort_by_key(|one| (one.used_at_nanos, Reverse(one.height)));
    let mut freed = 0_u64;
    let goes = candidates.into_iter().take_while(|one| {
        let is_missing = freed < excess;
        freed = freed.saturating_add(one.bytes);
        is_missing
    });
    goes.map(|one| one.what).collect()
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

    fn step(key: &str, used_at_nanos: i64, height: usize, bytes: u64) -> Candidate {
        Candidate { what: What::Step(key.to_owned()), used_at_nanos, height, bytes }
    }

    fn directory(name: &str, used_at_nanos: i64, bytes: u64) -> Candidate {
        let (name, about) = (name.to_owned(), String::new());
        let kind = crate::ops::build::SpaceKind::CacheMount;
        of_space(Space { kind, name, about, bytes, created_at_nanos: 0, used_at_nanos, usage_count: 1, in_use: false })
    }

    #[test]
    fn what_was_not_used_for_longest_goes_until_enough_is_free() {
        let all = || {
            vec![
                step("new", 9, 1, 100),
                step("old", 1, 1, 100),
                step("below", 5, 1, 50),
                step("above", 5, 2, 50),
                directory("mounted", 3, 1000),
            ]
        };
        for (excess, wanted) in [
            (0, ""),
            (1, "old"),
            (100, "old"),
            // No step goes for what a directory takes that is older.
            (101, "old mounted"),
            (1101, "old mounted above"),
            (1151, "old mounted above below"),
            (9999, "old mounted above below new"),
        ] {
            let gone = going(all(), excess);
            let names = gone.iter().map(|what| match what {
                What::Step(key) => key.as_str(),
                What::Space(space) => space.name.as_str(),
            });
            assert_eq!(names.collect::<Vec<_>>().join(" "), wanted, "{excess}");
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
