//! Which tests run in the machine.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::event::Case;

/// Tests of one binary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) package: &'static str,
    /// Beginnings of their names.
    pub(super) tests: &'static [&'static str],
    /// Names, or beginnings, of those among them that do not run there.
    pub(super) except: &'static [&'static str],
}

/// A test binary and what it lists.
#[derive(Clone, Debug)]
pub(super) struct Binary {
    pub(super) package: String,
    pub(super) program: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) tests: Vec<String>,
}

/// The tests of the groups; one that names nothing is an error.
pub(super) fn select(groups: &[Group], binaries: &[Binary]) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for group in groups {
        let known = binaries.iter().filter(|binary| binary.package == group.package);
        let known: Vec<(&Binary, &String)> =
            known.flat_map(|one| one.tests.iter().map(move |test| (one, test))).collect();
        for beginning in group.tests.iter().chain(group.except) {
            if !known.iter().any(|(_, test)| test.starts_with(beginning)) {
                bail!(
                    "the tests of the virtual machine name {}::{beginning}, which no test begins with",
                    group.package
                );
            }
        }
        let begins = |test: &str, with: &[&str]| with.iter().any(|beginning| test.starts_with(beginning));
        let chosen = known.iter().filter(|(_, test)| begins(test, group.tests) && !begins(test, group.except));
        cases.extend(chosen.map(|(binary, test)| case(binary, test)));
    }
    Ok(cases)
}

/// The tests that have one of the words in their title.
pub(super) fn matching(words: &[&str], binaries: &[Binary]) -> Result<Vec<Case>> {
    let all = binaries.iter().flat_map(|binary| binary.tests.iter().map(move |test| case(binary, test)));
    let cases: Vec<Case> = all.filter(|case| words.iter().any(|word| case.title().contains(word))).collect();
    if cases.is_empty() {
        bail!("no test has {} in its name", words.join(" or "));
    }
    Ok(cases)
}

fn case(binary: &Binary, test: &str) -> Case {
    Case { program: binary.program.clone(), directory: binary.directory.clone(), name: test.to_owned() }
}
