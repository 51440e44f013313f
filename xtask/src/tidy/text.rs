//! Rules about lines: unfinished work, what pure and portable crates may not name.

use super::layers::Layer;
use super::tree::Source;
use super::{Finding, source};

/// Built from halves, so that this file does not break its own rule.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
/// What a crate without I/O, clock and threads does not name.
const IMPURE: [&str; 7] = [
    "std::fs::",
    "std::process::",
    "std::thread::",
    "std::env::var",
    "SystemTime::now",
    "Instant::now",
    "std::net::TcpStream",
];
/// The one place of a portable crate that may know of unix.
const UNIX_PLACE: &str = "src/transport/unix.rs";

pub(super) fn check(file: &Source, layer: Option<&Layer>, portable: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let pure = layer.is_some_and(|layer| layer.flavour == "pure");
    let unix_file = file.within.ends_with(UNIX_PLACE) || file.text.contains("#![cfg(unix)]");
    let mut in_tests = source::is_test_file(&file.within);
    let mut previous = "";
    for (index, line) in file.text.lines().enumerate() {
        // Tests are the last thing in a file; what they use is their own business.
        in_tests |= line == "#[cfg(test)]";
        let mut report = |message: String| findings.push(Finding::new(&file.path, index + 1, message));
        if let Some(word) = UNFINISHED.iter().find(|word| is_unfinished(line, word)) {
            report(format!("{word} without an issue number: write {word}(#123), or do it"));
        }
        let code = if in_tests { "" } else { line.split("//").next().unwrap_or_default() };
        if pure && let Some(what) = IMPURE.iter().find(|what| code.contains(*what)) {
            report(format!("{} is pure in layers.toml: {what} does not belong here", file.krate));
        }
        let guarded = unix_file || previous.trim() == "#[cfg(unix)]";
        if portable && !guarded && code.contains("std::os::unix") {
            report(format!("{} is portable: put std::os::unix under #[cfg(unix)]", file.krate));
        }
        previous = line;
    }
    findings
}

fn is_unfinished(line: &str, word: &str) -> bool {
    let Some(at) = line.find(word) else { return false };
    let whole = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '-');
    let (before, after) = (&line[..at], &line[at + word.len()..]);
    let numbered = after.trim_start_matches(['(', ' ']).strip_prefix('#');
    whole(before.chars().last())
        && whole(after.chars().next())
        && !numbered.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}
