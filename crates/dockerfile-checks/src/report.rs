//! What was found.

use crate::documents::{Outline, ranges};
use crate::options::CheckOptions;
use crate::rules::Rule;

/// How many warnings are told: nobody reads more, and each one may name many lines.
const WARNINGS_MAX: usize = 1000;

/// The first and the last line concerned, from 1.
pub type Lines = (usize, usize);

/// Something that a check does not like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Which check.
    pub rule: &'static Rule,
    /// What it does not like.
    pub detail: String,
    /// Where.
    pub lines: Lines,
}

impl Warning {
    /// As builds tell it: `Rule: what (line 3)`.
    pub fn short(&self) -> String {
        format!("{}: {} (line {})", self.rule.name, self.detail, self.lines.0)
    }

    /// The ranges of lines that BuildKit's messages have: each line is one.
    pub fn ranges(&self) -> Vec<Lines> {
        ranges(self.lines)
    }
}

/// Why a text is no Dockerfile, or cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The sentence.
    pub message: String,
    /// Where, if it is anywhere.
    pub lines: Option<Lines>,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), lines: None }
    }

    pub(crate) fn at(lines: Lines, message: impl Into<String>) -> Failure {
        Failure { message: message.into(), lines: Some(lines) }
    }
}

/// Why checks fail a build. The sentences are BuildKit's.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Violation {
    /// They do not like it: the names of the rules, each once, in the order in which they were found.
    #[error("lint violation found for rules: {}", .0.join(", "))]
    Rules(Vec<&'static str>),
    /// It cannot be known what is checked.
    #[error("{}", .0.message)]
    Options(Failure),
}

/// All that was found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// What checks do not like, in BuildKit's order.
    pub warnings: Vec<Warning>,
    /// Why it cannot be built.
    pub failure: Option<Failure>,
    /// Why a build fails because of its checks: `error=true`, or options of theirs that are none.
    pub violation: Option<Violation>,
    /// What its target takes, unless it cannot be built.
    pub(crate) outline: Option<Outline>,
}

/// Collects warnings of the checks that count.
#[derive(Debug, Default)]
pub(crate) struct Warner {
    pub(crate) options: CheckOptions,
    pub(crate) warnings: Vec<Warning>,
    /// The rules, each once, in that order.
    violated: Vec<&'static str>,
}

impl Warner {
    pub(crate) fn warn(&mut self, rule: &'static Rule, lines: Lines, detail: impl Into<String>) {
        if !self.options.takes(rule) {
            return;
        }
        if !self.violated.contains(&rule.name) {
            self.violated.push(rule.name);
        }
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(Warning { rule, detail: detail.into(), lines });
        }
    }

    /// Why a build fails that has warnings, if it shall.
    pub(crate) fn violation(&self) -> Option<Violation> {
        let fails = self.options.is_error && !self.violated.is_empty();
        fails.then(|| Violation::Rules(self.violated.clone()))
    }
}
