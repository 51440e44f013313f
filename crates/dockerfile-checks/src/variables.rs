//! Variables in the order in which they were set last, and what a word does with them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use dockerfile::{Escape, Fault, expand, meant};

/// How many names are compared with others to find out what may have been meant, in all of a Dockerfile.
const COMPARISONS_MAX: usize = 200_000;

/// Variables.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables {
    values: BTreeMap<String, (usize, String)>,
    last: usize,
    /// What all of it comes to, in bytes.
    pub(crate) bytes: usize,
}

impl Variables {
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.values.get(name).map(|(_, value)| value.clone())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.last += 1;
        self.bytes += name.len() + value.len();
        if let Some((_, old)) = self.values.insert(name.to_owned(), (self.last, value.to_owned())) {
            self.bytes -= name.len() + old.len();
        }
    }

    /// The names, the last one set at the end.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<(usize, &str)> = self.values.iter().map(|(name, (at, _))| (*at, name.as_str())).collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name).collect()
    }

    /// A word's value, with the names that it uses.
    pub(crate) fn expand(&self, word: &str, escape: Escape) -> (Result<String, Fault>, Used) {
        let used = RefCell::new(Used::default());
        let expanded = expand(word, escape, &|name| {
            let value = self.get(name);
            used.borrow_mut().add(name, value.is_some());
            value
        });
        (expanded, used.into_inner())
    }
}

/// The names that a word uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used {
    pub(crate) known: BTreeSet<String>,
    /// In the order of the alphabet: BuildKit has none.
    pub(crate) unknown: BTreeSet<String>,
}

impl Used {
    pub(crate) fn add(&mut self, name: &str, is_known: bool) {
        let names = if is_known { &mut self.known } else { &mut self.unknown };
        names.insert(name.to_owned());
    }
}

/// Finds out what may have been meant, as long as that takes no time.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    compared: usize,
}

impl Guesses {
    pub(crate) fn meant(&mut self, name: &str, options: &[&str]) -> Option<String> {
        self.compared += options.len();
        if self.compared > COMPARISONS_MAX { None } else { meant(name, options, true) }
    }
}
