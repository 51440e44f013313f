//! docs/acceptance.md: every clause that is claimed names a test or a bench row that exists.
//!
//! ```text
//! | clause | test or command | figure |
//! |---|---|---|
//! | what was promised | `crate::module::test_name`, `cargo xtask bench --only ROW` | measured |
//!
//! ## Open
//! rows below this heading need no test
//! ```

use std::collections::BTreeSet;

use super::Finding;
use crate::bench;

const FILE: &str = "docs/acceptance.md";

pub(super) fn check(text: &str, tests: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            open = line.trim_start_matches('#').trim() == "Open";
        }
        let Some((clause, proof)) = row(line) else { continue };
        let named: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        if named.is_empty() && !open {
            let message = format!("clause {clause:?} names no test: add one, or move it below \"Open\"");
            findings.push(Finding::new(FILE, index + 1, message));
        }
        for name in named.into_iter().filter(|name| !exists(name, tests)) {
            findings.push(Finding::new(FILE, index + 1, format!("{name} does not exist: name a test, or a bench row")));
        }
    }
    findings
}

/// The first two cells of a table's row; not of its head.
fn row(line: &str) -> Option<(&str, &str)> {
    let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
    let (first, second) = (cells.next()?, cells.next()?);
    let head = first == "clause" || first.starts_with("---");
    (!head && !first.is_empty()).then_some((first, second))
}

fn exists(name: &str, tests: &BTreeSet<String>) -> bool {
    if let Some(row) = name.strip_prefix("cargo xtask bench --only ") {
        return bench::row_names().any(|known| known == row);
    }
    if let Some(command) = name.strip_prefix("cargo xtask ") {
        let commands = "ci test tidy quickstart dist images bench vm vm-test validate peers soak sdk compare-builds";
        return commands.split(' ').any(|known| known == command);
    }
    tests.contains(name)
}
