//! What two runtimes or engines said.

use std::sync::LazyLock;

use anyhow::{Result, ensure};
use regex_lite::Regex;
use serde::Deserialize;

use super::steps;

/// What a step said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) out: String,
    pub(super) err: String,
    pub(super) code: String,
}

/// A difference that is right, or not the runtime's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    peer: String,
    step: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    difference: Vec<Known>,
}

/// What is to be said of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Same,
    Known { reason: String },
    Different { lines: Vec<String> },
}

/// The step that `run.sh` adds: what is there after the others and was not before.
pub(super) const LEFT: &str = "left";

/// The table of differences, each about a step that there is.
pub(super) fn known(peers: &[&str]) -> Result<Vec<Known>> {
    let table: Table = toml::from_str(&super::read("differences.toml")?)?;
    for Known { peer, step, reason } in &table.difference {
        ensure!(peers.contains(&peer.as_str()), "differences.toml: no peer is called {peer}");
        let exists = step == LEFT || steps::load(peer)?.iter().any(|known| known.name == *step);
        ensure!(exists, "differences.toml: {peer} has no step {step}");
        ensure!(!reason.is_empty(), "differences.toml: {peer} {step} has no reason");
    }
    Ok(table.difference)
}

/// Compares what a step said with the runtime that is right, and with ours.
pub(super) fn verdict(peer: &str, step: &str, right: &Said, ours: &Said, known: &[Known]) -> Verdict {
    let lines = if step == LEFT { more(&right.out, &ours.out) } else { different(right, ours) };
    if lines.is_empty() {
        return Verdict::Same;
    }
    match known.iter().find(|known| known.peer == peer && known.step == step) {
        Some(known) => Verdict::Known { reason: known.reason.clone() },
        None => Verdict::Different { lines },
    }
}

/// The same of a step that fails by itself when something is wrong: two that fail alike are not right.
pub(super) fn of_success(verdict: Verdict, ours: &Said) -> Verdict {
    let said = |text: &str| text.lines().map(|line| format!("+ {line}")).collect::<Vec<_>>();
    match ours.code.as_str() {
        "0" => verdict,
        code => Verdict::Different {
            lines: [vec![format!("exit code {code}:")], said(&ours.out), said(&ours.err)].concat(),
        },
    }
}

/// Leaving less than runc does is no fault.
fn more(right: &str, ours: &str) -> Vec<String> {
    let right = normalized(right);
    let is_new = |line: &&str| !right.lines().any(|other| other == *line);
    normalized(ours).lines().filter(is_new).map(|line| format!("+ {line}")).collect()
}

fn different(right: &Said, ours: &Said) -> Vec<String> {
    let parts = [
        ("exit code", &right.code, &ours.code),
        ("standard output", &right.out, &ours.out),
        ("standard error", &right.err, &ours.err),
    ];
    let mut lines = Vec::new();
    for (part, right, ours) in parts {
        let (right, ours) = (normalized(right), normalized(ours));
        if right != ours {
            lines.push(format!("{part}:"));
            lines.extend(right.lines().map(|line| format!("- {line}")));
            lines.extend(ours.lines().map(|line| format!("+ {line}")));
        }
    }
    lines
}

/// What is another one each time, and the word for it.
const VARYING: [(&str, &str); 9] = [
    // Terminals, and what `script` writes to one.
    (r"[\x00\r]", ""),
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b[0-9a-f]{12}\b", "SHORT-ID"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?(Z|UTC|[+-]\d\d:?\d\d))*", "TIME"),
    // Names of the programs, with which their errors begin.
    (r"\b(runc|longshore-runtime) (create|restore) failed", "RUNTIME $2 failed"),
    // Ours names the field, and says the same as runc behind that.
    (r"\bprocess\.(args\[0\]|cwd): ", ""),
    (r"/var/tmp/podman\d+", "/var/tmp/podmanN"),
    (r"(current|peak) usage: \d+", "$1 usage: N"),
    (r"\bpid \d+", "pid N"),
];

static REPLACED: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    VARYING.iter().map(|(pattern, word)| (Regex::new(pattern).expect("our own pattern"), *word)).collect()
});

/// Without what is another one each time.
pub(super) fn normalized(text: &str) -> String {
    REPLACED.iter().fold(text.to_owned(), |text, (pattern, word)| pattern.replace_all(&text, *word).into_owned())
}
