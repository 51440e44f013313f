//! What came of the tests: every one of them has to end well, in a machine that is as it should be.

use anyhow::{Result, bail};

use super::boot::Boot;
use super::event::{Case, Event, Outcome};
use super::parse;

/// Grows with every line of the guest.
#[derive(Debug)]
pub(super) struct Account {
    boot: Boot,
    cases: Vec<Case>,
    /// How each ended, once it has.
    outcomes: Vec<Option<Outcome>>,
    ready: bool,
    done: bool,
    problems: Vec<String>,
}

impl Account {
    pub(super) fn new(boot: Boot, cases: &[Case]) -> Account {
        let outcomes = vec![None; cases.len()];
        Account { boot, cases: cases.to_vec(), outcomes, ready: false, done: false, problems: Vec::new() }
    }

    /// Takes a line, and prints what it tells.
    pub(super) fn take(&mut self, line: &str) {
        match parse(line) {
            Some(event) => self.count(event),
            None => println!("  {line}"),
        }
    }

    fn count(&mut self, event: Event) {
        match event {
            Event::Ready { kernel, cgroups } => {
                println!("  Linux {kernel}, {}", cgroups.join(", "));
                self.ready = true;
                if !self.boot.expects(&cgroups) {
                    self.problems.push(format!("the machine's cgroups are not those of the boot {}", self.boot));
                }
            }
            Event::Ended { case, outcome, seconds, output } => {
                let Some(test) = self.cases.get(case) else { return };
                let word = match &outcome {
                    Outcome::Passed => "ok",
                    Outcome::Failed => "FAILED",
                    Outcome::Skipped { .. } => "SKIPPED",
                };
                println!("  {word:7} {seconds:5.1} s  {}", test.title());
                if outcome != Outcome::Passed {
                    println!("{}", output.trim_end());
                }
                self.outcomes[case] = Some(outcome);
            }
            Event::Failed { why } => self.problems.push(why),
            Event::Done => self.done = true,
        }
    }

    /// One line.
    pub(super) fn summary(&self) -> String {
        let count = |wanted: fn(&Option<Outcome>) -> bool| self.outcomes.iter().filter(|one| wanted(one)).count();
        let passed = count(|one| *one == Some(Outcome::Passed));
        let failed = count(|one| *one == Some(Outcome::Failed));
        let skipped = count(|one| matches!(one, Some(Outcome::Skipped { .. })));
        let absent = count(Option::is_none);
        format!("{passed} of {} passed, {failed} failed, {skipped} skipped, {absent} did not end", self.cases.len())
    }

    /// An error unless every test ran, there, and passed. Skipped is not passed: the machine has all that the list needs.
    pub(super) fn verdict(&self) -> Result<()> {
        if let Some(problem) = self.problems.first() {
            bail!("the virtual machine: {problem}");
        }
        if !self.ready {
            bail!("the virtual machine did not start");
        }
        let titled = self.cases.iter().zip(&self.outcomes);
        let bad: Vec<String> =
            titled.filter(|(_, one)| **one != Some(Outcome::Passed)).map(|(case, _)| case.title()).collect();
        if !bad.is_empty() {
            bail!("not passed in the virtual machine: {}", bad.join(", "));
        }
        if !self.done {
            bail!("the virtual machine did not come to its end");
        }
        Ok(())
    }
}
