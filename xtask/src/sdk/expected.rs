//! Tests that fail with our engine, and why.

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::suites::SUITES;

/// The table, as it was when this program was built.
const TABLE: &str = include_str!("expected.toml");

/// Some tests that fail for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    suite: String,
    reason: String,
    /// Names, or their beginnings with a star behind.
    tests: Vec<String>,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    exception: Vec<Exception>,
}

/// The table.
pub(super) fn load() -> Result<Expected> {
    parse(TABLE)
}

pub(super) fn parse(text: &str) -> Result<Expected> {
    let expected: Expected = toml::from_str(text)?;
    for Exception { suite, reason, tests } in &expected.exception {
        ensure!(SUITES.iter().any(|known| known.name == suite), "expected.toml: no suite is called {suite}");
        ensure!(!reason.is_empty() && !tests.is_empty(), "expected.toml: {suite}: a reason and its tests");
        for test in tests {
            let covering = expected.matching(suite, test.trim_end_matches('*')).len();
            ensure!(covering == 1, "expected.toml: {suite} {test} is there twice");
        }
    }
    Ok(expected)
}

impl Expected {
    /// Why a test fails; none if it should pass.
    pub(super) fn reason(&self, suite: &str, test: &str) -> Option<&str> {
        self.matching(suite, test).first().copied()
    }

    /// The reasons, one for every name and beginning that fits.
    fn matching(&self, suite: &str, test: &str) -> Vec<&str> {
        let fits = |pattern: &&String| match pattern.strip_suffix('*') {
            Some(beginning) => test.starts_with(beginning),
            None => *pattern == test,
        };
        let of_suite = self.exception.iter().filter(|exception| exception.suite == suite);
        of_suite.flat_map(|exception| exception.tests.iter().filter(fits).map(|_| exception.reason.as_str())).collect()
    }
}
