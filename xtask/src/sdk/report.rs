//! What the suites' runners say: one outcome for each test.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

/// What became of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// Also those whose failure the suite itself expects.
    Skipped,
}

/// What became of a suite's tests, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report(pub(super) BTreeMap<String, Outcome>);

impl Report {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn failed(&self) -> impl Iterator<Item = &str> {
        self.with(Outcome::Failed)
    }

    pub(super) fn passed(&self) -> impl Iterator<Item = &str> {
        self.with(Outcome::Passed)
    }

    pub(super) fn fails(&self, test: &str) -> bool {
        self.0.get(test) == Some(&Outcome::Failed)
    }

    /// `3 of 5 passed, 1 failed, 1 skipped`
    pub(super) fn summary(&self) -> String {
        let [passed, failed, skipped] =
            [Outcome::Passed, Outcome::Failed, Outcome::Skipped].map(|outcome| self.with(outcome).count());
        format!("{passed} of {} passed, {failed} failed, {skipped} skipped", self.0.len())
    }

    fn with(&self, wanted: Outcome) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(_, outcome)| **outcome == wanted).map(|(test, _)| test.as_str())
    }
}

/// `tests/integration/FILE::CLASS::TEST OUTCOME [ 3%]`, with what a test printed in between. A test that passes and whose end
/// fails is there twice.
pub(super) fn of_pytest(output: &str) -> Report {
    let mut report = Report::default();
    for line in output.lines() {
        let Some((test, rest)) = line
            .strip_prefix("tests/integration/")
            .and_then(|line| line.split_once(' '))
            .filter(|(test, _)| test.contains("::"))
        else {
            continue;
        };
        let outcome = match rest.split_whitespace().find(|word| word.chars().all(|c| c.is_ascii_uppercase())) {
            Some("PASSED" | "XPASS") => Outcome::Passed,
            Some("FAILED" | "ERROR") => Outcome::Failed,
            Some("SKIPPED" | "XFAIL") => Outcome::Skipped,
            _ => continue,
        };
        let known = report.0.entry(test.to_owned()).or_insert(outcome);
        if outcome == Outcome::Failed {
            *known = outcome;
        }
    }
    report
}

#[derive(Deserialize)]
struct Mocha {
    passes: Vec<MochaTest>,
    failures: Vec<MochaTest>,
    pending: Vec<MochaTest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MochaTest {
    full_title: String,
}

/// mocha's `json`. A hook that fails is a failure of its own, and its tests are not there.
pub(super) fn of_mocha(report: &str) -> Result<Report> {
    let Mocha { passes, failures, pending } = serde_json::from_str(report).context("mocha's report")?;
    let all = [(passes, Outcome::Passed), (pending, Outcome::Skipped), (failures, Outcome::Failed)];
    let outcomes =
        all.into_iter().flat_map(|(tests, outcome)| tests.into_iter().map(move |test| (test.full_title, outcome)));
    Ok(Report(outcomes.collect()))
}

/// `test NAME ... OUTCOME`, where output that is not captured may stand before the outcome, on lines of its own.
pub(super) fn of_libtest(output: &str) -> Report {
    let mut report = Report::default();
    let mut begun: Option<&str> = None;
    for line in output.lines() {
        let word = match line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
            Some((test, rest)) => {
                begun = Some(test);
                rest
            }
            None => line,
        };
        let outcome = match word.trim() {
            "ok" => Outcome::Passed,
            "FAILED" => Outcome::Failed,
            word if word == "ignored" || word.starts_with("ignored, ") => Outcome::Skipped,
            _ => continue,
        };
        if let Some(test) = begun.take() {
            report.0.insert(test.to_owned(), outcome);
        }
    }
    report
}
