//! The rules of docs/STYLE.md that a program can check, marked **[tidy]** there.
//!
//! parse -> check -> report: [`tree`] reads the work tree into values; [`layers`], [`source`], [`text`] and
//! [`acceptance`] are pure and answer [`Finding`]s; [`run`] prints them. `cargo test -p xtask` checks the tree, too.
//!
//! Files whose first line begins with `// @generated` are exempt. What counts as test code (modules under
//! `#[cfg(test)]`, files called tests.rs, everything below a directory `tests` or `benches` of a crate) is exempt from
//! sizes and documentation, not from the rules about what may not be written at all.

mod acceptance;
mod layers;
mod source;
mod text;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail};

/// A type with more methods is a god object in the making.
const METHODS_MAX: usize = 25;
/// Longer functions do several things.
const FUNCTION_LINES_MAX: usize = 70;
/// Longer files have several nouns.
const FILE_LINES_MAX: usize = 800;

/// One violation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Relative to the work tree.
    file: PathBuf,
    line: usize,
    /// What is wrong, and what to do.
    message: String,
}

impl Finding {
    fn new(file: impl Into<PathBuf>, line: usize, message: impl Into<String>) -> Finding {
        Finding { file: file.into(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

/// Checks the work tree; an error when something is not tidy.
pub(crate) fn run() -> Result<()> {
    let findings = check(&tree::read(&testkit::paths::workspace())?);
    findings.iter().for_each(|finding| println!("{finding}"));
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    Ok(())
}

/// Everything that is wrong in the tree, sorted by place.
fn check(tree: &tree::Tree) -> Vec<Finding> {
    let mut findings = layers::check(&tree.layers, &tree.manifests);
    let portable = layers::portable(&tree.layers);
    let mut tests = BTreeSet::new();
    let mut methods: BTreeMap<(String, String), usize> = BTreeMap::new();
    let documented: BTreeSet<PathBuf> =
        tree.sources.iter().filter(|file| source::has_page(&file.text)).map(|file| file.path.clone()).collect();
    for file in &tree.sources {
        findings.extend(text::check(file, tree.layers.get(&file.krate), portable.contains(&file.krate)));
        let facts = source::check(file, &documented);
        findings.extend(facts.findings);
        tests.extend(facts.tests);
        for (name, count) in facts.methods {
            *methods.entry((file.krate.clone(), name)).or_default() += count;
        }
    }
    for ((krate, name), count) in methods.into_iter().filter(|(_, count)| *count > METHODS_MAX) {
        let file = tree.manifests.iter().find(|manifest| manifest.name == krate).map(|manifest| manifest.path.clone());
        let message = format!("type {name} has {count} methods, the limit is {METHODS_MAX}: make verbs free functions");
        findings.push(Finding::new(file.unwrap_or_default(), 1, message));
    }
    findings.extend(acceptance::check(&tree.acceptance, &tests));
    findings.sort();
    findings
}

#[cfg(test)]
mod tests;
