//! The commands that keep images from filling the disk.

use super::{Command, FORCE, FORMAT, Flag, PRUNE_FILTER, Verb, command};

/// `image budget`, which Docker does not have.
pub(super) const BUDGET: Command = command(
    &["image budget"],
    "[OPTIONS]",
    "Show which images the budget would remove, and why; removes nothing",
    Verb::ExplainBudget,
)
.flags(&[&[FORMAT]]);

/// `image prune`.
pub(super) const PRUNE: Command =
    command(&["image prune"], "[OPTIONS]", "Remove images that nothing needs", Verb::PruneImages).flags(&[&[
        Flag::bool("all", "All that no container has, not only those without a tag").short('a'),
        PRUNE_FILTER,
        FORCE,
    ]]);
