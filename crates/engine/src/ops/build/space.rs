//! What builds keep that takes space: directories of commands and contexts of clients. What goes of it, and when.

use std::time::Duration;

use super::{cache, caches, kept_context};
use crate::Engine;
use crate::clock::now_nanos;

/// How long stays what nobody uses, and how many bytes of it stay in any case: BuildKit's first rule of what it collects
/// (cmd/buildkitd/config, DefaultGCPolicy).
const KEPT: Duration = Duration::from_secs(48 * 3600);
const KEPT_BYTES: u64 = 512_000_000;

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpaceKind {
    /// A directory of commands (`RUN --mount=type=cache`).
    CacheMount,
    /// A context of a client's.
    Context,
}

/// Something that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) kind: SpaceKind,
    /// Its name: 64 hex digits.
    pub(crate) name: String,
    /// What it is, in BuildKit's words.
    pub(crate) about: String,
    pub(crate) bytes: u64,
    /// Nanoseconds since 1970.
    pub(crate) created_at_nanos: i64,
    /// When it was used last: nanoseconds since 1970.
    pub(crate) used_at_nanos: i64,
    /// How often it was used.
    pub(crate) usage_count: i64,
    /// Whether it is used now; then it stays.
    pub(crate) in_use: bool,
}

/// How much may stay, in bytes; of what is 0 nothing is said (moby, api/types/build, CachePruneOptions).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// So much stays in any case.
    pub reserved: u64,
    /// No more than that stays.
    pub max_used: u64,
    /// So much shall be free on the disk.
    pub min_free: u64,
}

impl Limits {
    /// How many bytes may stay of `total`; nothing where that is no question. `free` is what is free on the disk. The rule is
    /// BuildKit's (cache, calculateKeepBytes).
    pub(crate) fn keep(&self, total: u64, free: impl FnOnce() -> u64) -> Option<u64> {
        if *self == Limits::default() {
            return None;
        }
        let mut keep = (self.max_used > 0).then_some(self.max_used);
        if self.min_free > 0 {
            let excess = self.min_free.saturating_sub(free());
            let left = total.saturating_sub(excess);
            keep = Some(keep.map_or(left, |keep| if excess > 0 { keep.min(left) } else { keep }));
        }
        Some(keep.unwrap_or_default().max(self.reserved))
    }
}

/// All that is kept, that first which was unused for the longest time. Blocks: walks all files of caches of commands.
pub(crate) fn all(engine: &Engine) -> Vec<Space> {
    let mount = |cache: caches::Cache| Space {
        kind: SpaceKind::CacheMount,
        bytes: caches::bytes(engine, &cache.name),
        name: cache.name,
        about: cache.about,
        created_at_nanos: cache.created_at_nanos,
        used_at_nanos: cache.used_at_nanos,
        usage_count: cache.usage_count,
        in_use: cache.in_use,
    };
    let context = |context: kept_context::KeptContext| Space {
        kind: SpaceKind::Context,
        name: context.name,
        about: context.about,
        bytes: context.bytes,
        created_at_nanos: context.created_at_nanos,
        used_at_nanos: context.used_at_nanos,
        usage_count: context.usage_count,
        // Those that a build has are with the build.
        in_use: false,
    };
    let contexts = kept_context::all(&engine.config.data_root).into_iter().map(context);
    let mut all: Vec<Space> = caches::all(engine).into_iter().map(mount).chain(contexts).collect();
    all.sort_by(|a, b| (a.used_at_nanos, &a.name).cmp(&(b.used_at_nanos, &b.name)));
    all
}

/// What goes of what `may` go, the oldest first, until no more than `keep` bytes stay of all; all of it without that.
pub(crate) fn goes(all: &[Space], keep: Option<u64>, may: impl Fn(&Space) -> bool) -> Vec<&Space> {
    let mut total: u64 = all.iter().map(|space| space.bytes).sum();
    let mut gone = Vec::new();
    for space in all.iter().filter(|space| !space.in_use && may(space)) {
        if keep.is_some_and(|keep| total <= keep) {
            break;
        }
        total -= space.bytes;
        gone.push(space);
    }
    gone
}

/// Removes something that nobody uses; answers whether it is gone. Blocks shortly.
pub(crate) fn remove(engine: &Engine, space: &Space) -> bool {
    match space.kind {
        SpaceKind::CacheMount => caches::remove(engine, &space.name),
        SpaceKind::Context => kept_context::remove_kept(engine, &space.name),
    }
}

/// Removes what nobody has used for two days, as long as all takes more than it may, and forgets of steps what is too much. Blocks.
pub(super) fn collect(engine: &Engine) {
    cache::bound(engine);
    let last = now_nanos() - i64::try_from(KEPT.as_nanos()).unwrap_or(i64::MAX);
    let caches = caches::all(engine).into_iter().map(|cache| cache.used_at_nanos);
    let contexts = kept_context::all(&engine.config.data_root).into_iter().map(|context| context.used_at_nanos);
    // How much it is takes longer.
    if caches.chain(contexts).any(|used| used < last) {
        let all = all(engine);
        goes(&all, Some(KEPT_BYTES), |space| space.used_at_nanos < last).into_iter().for_each(|space| {
            remove(engine, space);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(name: &str, used_hours_ago: i64, bytes: u64, in_use: bool) -> Space {
        let kind = if name.starts_with('c') { SpaceKind::Context } else { SpaceKind::CacheMount };
        let used_at_nanos = -used_hours_ago * 3_600_000_000_000;
        let (name, about) = (name.to_owned(), String::new());
        Space { kind, name, about, bytes, created_at_nanos: 0, used_at_nanos, usage_count: 1, in_use }
    }

    #[test]
    fn what_is_old_goes_until_the_rest_is_no_more_than_it_may_be() {
        const MB: u64 = 1_000_000;
        let names = |all: &[Space]| {
            let last = -i64::try_from(KEPT.as_nanos()).unwrap();
            let gone = goes(all, Some(KEPT_BYTES), |space| space.used_at_nanos < last);
            gone.iter().map(|space| space.name.clone()).collect::<Vec<_>>().join(" ")
        };
        let all = |first: u64, second: u64, young: u64| {
            [
                space("mount", 60, first * MB, false),
                space("context", 50, second * MB, false),
                space("young", 47, young * MB, false),
            ]
        };
        for (sizes, wanted) in [
            ((100, 100, 100), ""),
            ((300, 200, 12), ""),
            ((300, 200, 13), "mount"),
            ((100, 300, 400), "mount context"),
            ((1, 1, 5000), "mount context"),
        ] {
            assert_eq!(names(&all(sizes.0, sizes.1, sizes.2)), wanted, "{sizes:?}");
        }
        let mut used = all(300, 300, 300);
        used[0].in_use = true;
        assert_eq!(names(&used), "context");
    }

    #[test]
    fn limits_say_how_much_stays() {
        let keep = |reserved, max_used, min_free, free| Limits { reserved, max_used, min_free }.keep(100, || free);
        for (limits, wanted) in [
            ((0, 0, 0, 5), None),
            ((40, 0, 0, 5), Some(40)),
            ((0, 60, 0, 5), Some(60)),
            ((70, 60, 0, 5), Some(70)),
            ((0, 0, 25, 5), Some(80)),
            ((0, 60, 25, 5), Some(60)),
            ((0, 90, 25, 5), Some(80)),
            ((90, 0, 25, 5), Some(90)),
            ((0, 0, 25, 30), Some(100)),
            ((0, 60, 25, 30), Some(60)),
            ((0, 0, 500, 5), Some(0)),
        ] {
            assert_eq!(keep(limits.0, limits.1, limits.2, limits.3), wanted, "{limits:?}");
        }
    }
}
