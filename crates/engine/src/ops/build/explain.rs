//! Why a step was done again. Pure.
//!
//! Beside what a step came to stands what its key was made of ([`Ingredients`], within bounds). Of a step that is not known
//! the nearest one of the same Dockerfile that is remembered is compared with it: one of the same words, or one at the same
//! place above the same image.

use std::collections::{BTreeMap, BTreeSet};

use oci::{Digest, Reference};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How many files are named that have changed.
const NAMED_MAX: usize = 10;

/// How many files are remembered of a step, and how many bytes their names have together at most.
pub(super) const FILES_MAX: usize = 1000;
const FILE_BYTES_MAX: usize = 64 * 1024;

/// How many variables are remembered of a step.
const VARIABLES_MAX: usize = 100;

/// The longest text that is remembered, in bytes.
const TEXT_MAX: usize = 400;

/// How many names and instructions of a Dockerfile are remembered.
const NAMES_MAX: usize = 10;
const INSTRUCTIONS_MAX: usize = 100;

/// Digits of sums and ids that are compared or told.
const DIGITS: usize = 16;
const SHORT: usize = 12;

/// What a step's key was made of, as far as people are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Ingredients {
    /// Its stage, and its number there: `build 3`.
    pub(super) place: String,
    /// What it does, to read.
    pub(super) step: String,
    /// A sum of what it does.
    pub(super) step_sum: String,
    /// The image below; empty for none.
    pub(super) parent: String,
    /// Arguments that it sees, by name.
    pub(super) variables: BTreeMap<String, String>,
    /// Sums of what is copied or mounted, by path.
    pub(super) files: BTreeMap<String, String>,
    /// A sum of all of them.
    pub(super) files_sum: String,
    /// What else was asked for: networks, modes, mounts.
    pub(super) options: Vec<String>,
    /// Which Dockerfile it is of.
    pub(super) of: Origin,
}

/// By what a Dockerfile is known again, whose context's place nobody tells us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Origin {
    /// The names that its image was to get, without tags.
    names: Vec<String>,
    /// Sums of its instructions, of which changes leave most.
    instructions: BTreeSet<String>,
}

impl Origin {
    /// Of a build of these names whose Dockerfile has these instructions.
    pub(super) fn new<'a>(names: &[String], instructions: impl Iterator<Item = &'a str>) -> Origin {
        let names = names.iter().filter_map(|name| Some(name.parse::<Reference>().ok()?.familiar_name()));
        let instructions = instructions.take(INSTRUCTIONS_MAX).map(|text| sum_of(text)[..SHORT].to_owned());
        Origin { names: names.take(NAMES_MAX).collect(), instructions: instructions.collect() }
    }

    /// Whether it is the same, if maybe changed since: names say it where both have some, else half of the instructions.
    fn is_of(&self, other: &Origin) -> bool {
        if !self.names.is_empty() && !other.names.is_empty() {
            return self.names.iter().any(|name| other.names.contains(name));
        }
        let same = self.instructions.intersection(&other.instructions).count();
        same > 0 && same * 2 >= self.instructions.len().max(other.instructions.len())
    }
}

/// What became of a step, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Explanation {
    /// Its stage, and its number there.
    pub place: String,
    /// What it does.
    pub step: String,
    /// Whether it was known.
    pub known: bool,
    /// Why it was done, if it was.
    pub reasons: Vec<Reason>,
}

/// Why a step was not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all_fields = "PascalCase")]
pub enum Reason {
    /// The user wants everything done again.
    NoCache,
    /// One before it was done.
    StepBefore,
    /// The image below is another one.
    Base {
        /// Before, shortened.
        from: String,
        /// Now.
        to: String,
    },
    /// It does something else.
    Words {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// Arguments have changed: `NAME: from -> to`.
    Arguments {
        /// Each.
        changed: Vec<String>,
    },
    /// Files have changed.
    Files {
        /// Paths of some of them.
        changed: Vec<String>,
        /// Of some that were not there.
        added: Vec<String>,
        /// Of some that are there no more.
        removed: Vec<String>,
        /// How many more there are.
        more: usize,
    },
    /// Another network, other modes or other mounts are asked for.
    Options,
    /// `builder prune` has made us forget it.
    Forgotten,
    /// The image that it came to is gone.
    ImageGone,
    /// Nothing like it is remembered.
    Never,
}

/// What is told of variables, shortened.
pub(super) fn variables(entries: &[String]) -> BTreeMap<String, String> {
    let pair = |entry: &String| entry.split_once('=').map(|(name, value)| (cut(name), cut(value)));
    entries.iter().filter_map(pair).take(VARIABLES_MAX).collect()
}

/// Files within bounds.
pub(super) fn files(all: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let (mut kept, mut bytes) = (BTreeMap::new(), 0);
    for (path, sum) in all {
        bytes += path.len();
        if kept.len() == FILES_MAX || bytes > FILE_BYTES_MAX {
            break;
        }
        kept.insert(path, sum_of(&sum));
    }
    kept
}

/// A short sum.
pub(super) fn sum_of(text: &str) -> String {
    Digest::from_sha256(&Sha256::digest(text).into()).hex()[..DIGITS].to_owned()
}

/// A text within bounds.
pub(super) fn cut(text: &str) -> String {
    if text.len() <= TEXT_MAX {
        return text.to_owned();
    }
    let end = (0..=TEXT_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", &text[..end])
}

/// Why a step is not known, of all that is remembered with the times when it was done.
pub(super) fn why(step: &Ingredients, remembered: &[(i64, Ingredients)]) -> Vec<Reason> {
    let near = remembered.iter().filter_map(|(time, other)| Some((nearness(step, other)?, *time, other)));
    let Some((_, _, nearest)) = near.max_by_key(|(nearness, time, _)| (*nearness, *time)) else {
        return vec![Reason::Never];
    };
    let reasons = differences(nearest, step);
    if reasons.is_empty() { vec![Reason::Never] } else { reasons }
}

/// How near a remembered step is; `None` for one that has nothing to do with it.
fn nearness(step: &Ingredients, other: &Ingredients) -> Option<usize> {
    if !step.of.is_of(&other.of) {
        return None;
    }
    let name = |step: &Ingredients| step.step.split_whitespace().next().map(str::to_uppercase);
    let same_step = step.step_sum == other.step_sum;
    let same_parent = step.parent == other.parent;
    let same_place = step.place == other.place;
    let is_near = same_step || same_parent && same_place && name(step) == name(other);
    is_near.then_some(usize::from(same_step) * 4 + usize::from(same_parent) * 2 + usize::from(same_place))
}

fn differences(before: &Ingredients, now: &Ingredients) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if before.parent != now.parent {
        reasons.push(Reason::Base { from: short(&before.parent), to: short(&now.parent) });
    }
    if before.step_sum != now.step_sum {
        reasons.push(Reason::Words { from: before.step.clone(), to: now.step.clone() });
    }
    let arguments = changed_arguments(&before.variables, &now.variables);
    if !arguments.is_empty() {
        reasons.push(Reason::Arguments { changed: arguments });
    }
    if before.files_sum != now.files_sum {
        reasons.push(changed_files(&before.files, &now.files));
    }
    if before.options != now.options {
        reasons.push(Reason::Options);
    }
    reasons
}

fn short(image: &str) -> String {
    let hex = image.rsplit(':').next().unwrap_or_default();
    if hex.is_empty() { "nothing".to_owned() } else { hex.chars().take(SHORT).collect() }
}

fn changed_arguments(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let shown = |value: Option<&String>| value.map_or("nothing".to_owned(), |value| builder::go::quote(value));
    let mut names: Vec<&String> = before.keys().chain(now.keys()).collect();
    names.sort();
    names.dedup();
    let changed = names.into_iter().filter(|name| before.get(*name) != now.get(*name));
    changed.map(|name| format!("{name}: {} -> {}", shown(before.get(name)), shown(now.get(name)))).collect()
}

fn changed_files(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Reason {
    let mut all: Vec<(&String, usize)> = Vec::new();
    for (path, sum) in now {
        match before.get(path) {
            Some(old) if old == sum => {}
            Some(_) => all.push((path, 0)),
            None => all.push((path, 1)),
        }
    }
    all.extend(before.keys().filter(|path| !now.contains_key(*path)).map(|path| (path, 2)));
    let more = all.len().saturating_sub(NAMED_MAX);
    all.truncate(NAMED_MAX);
    let of = |kind: usize| all.iter().filter(|(_, own)| *own == kind).map(|(path, _)| (*path).clone()).collect();
    Reason::Files { changed: of(0), added: of(1), removed: of(2), more }
}

impl Explanation {
    /// A line to read; nothing for a step that was known, of which is told already.
    pub(super) fn line(&self) -> Option<String> {
        if self.known {
            return None;
        }
        let reasons: Vec<String> = self.reasons.iter().map(Reason::sentence).collect();
        Some(format!(" ---> Not known: {}\n", reasons.join("; ")))
    }
}

impl Reason {
    fn sentence(&self) -> String {
        match self {
            Reason::NoCache => "everything is done again (--no-cache)".to_owned(),
            Reason::StepBefore => "a step before it was done".to_owned(),
            Reason::Base { from, to } => format!("the image below changed from {from} to {to}"),
            Reason::Words { from, to } if from == to => "its words changed".to_owned(),
            Reason::Words { from, to } => {
                format!("its words changed from {} to {}", builder::go::quote(from), builder::go::quote(to))
            }
            Reason::Arguments { changed } => format!("arguments changed: {}", changed.join(", ")),
            Reason::Files { changed, added, removed, more } => files_sentence([changed, added, removed], *more),
            Reason::Options => "its network, modes or mounts changed".to_owned(),
            Reason::Forgotten => "it was forgotten (builder prune)".to_owned(),
            Reason::ImageGone => "the image that it came to was removed".to_owned(),
            Reason::Never => "nothing like it was built here".to_owned(),
        }
    }
}

fn files_sentence(kinds: [&Vec<String>; 3], more: usize) -> String {
    let named = ["changed", "new", "gone"].iter().zip(kinds).filter(|(_, paths)| !paths.is_empty());
    let mut told: Vec<String> = named.map(|(kind, paths)| format!("{kind}: {}", paths.join(", "))).collect();
    match (told.is_empty(), more) {
        // They are among those that there was no place for.
        (true, _) => return "files changed".to_owned(),
        (false, 0) => {}
        (false, more) => told.push(format!("and {more} more")),
    }
    format!("files {}", told.join("; "))
}

#[cfg(test)]
mod tests;
