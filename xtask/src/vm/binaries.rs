//! The workspace's test binaries: where cargo put them, and what tests they have.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::list::Binary;
use crate::step::{cargo_build, quiet};

/// Builds those of the packages, or all of them. All, so that dependencies have the features of every other build.
pub(super) fn build(packages: &[&str]) -> Result<Vec<Binary>> {
    let mut words = vec!["test", "--no-run", "--message-format", "json"];
    match packages {
        [] => words.push("--workspace"),
        packages => packages.iter().for_each(|package| words.extend(["--package", package])),
    }
    let messages = quiet(&mut cargo_build(&words))?;
    messages.lines().filter_map(parse).map(list).collect()
}

/// A message of cargo's about a test binary: its package, and its path.
fn parse(message: &str) -> Option<Binary> {
    let message: Value = serde_json::from_str(message).ok()?;
    let program = PathBuf::from(message["executable"].as_str()?);
    if message["profile"]["test"] != true {
        return None;
    }
    let directory = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_owned();
    let package = directory.file_name()?.to_str()?.to_owned();
    Some(Binary { package, program, directory, tests: Vec::new() })
}

fn list(binary: Binary) -> Result<Binary> {
    let mut command = Command::new(&binary.program);
    let listed = quiet(command.args(["--list", "--format", "terse"]).current_dir(&binary.directory))
        .with_context(|| format!("list the tests of {}", binary.package))?;
    let tests = listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
    Ok(Binary { tests, ..binary })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_binaries_are_found_among_what_cargo_says() {
        let text = r#"{"reason":"compiler-artifact","manifest_path":"/w/crates/cgroup/Cargo.toml","profile":{"test":true},"executable":"/w/target/debug/deps/cgroup-1"}"#;
        let binary = parse(text).unwrap();
        assert_eq!((binary.package.as_str(), binary.directory.to_str().unwrap()), ("cgroup", "/w/crates/cgroup"));
        for other in
            [text.replace("true", "false"), text.replace("\"/w/target/debug/deps/cgroup-1\"", "null"), "x".into()]
        {
            assert!(parse(&other).is_none(), "{other}");
        }
    }
}
