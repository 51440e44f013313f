//! Each of Docker's commands, from the list of its command line.

use std::collections::BTreeMap;
use std::process::Command;

use testkit::{Cli, paths};

use crate::support::{each, ours};

/// Docker's commands with their usage and flags.
const LIST: &str = include_str!("../../../../crates/cli/src/args/docker-28.2.2.json");

#[derive(serde::Deserialize)]
struct Listed {
    /// Letter, name, and what stands for a value.
    flags: Vec<(Option<String>, String, Option<String>)>,
}

#[test]
fn each_has_help_that_shows_its_flags_or_says_what_it_waits_for() {
    let program = paths::dist().join("longshore");
    if !program.exists() {
        testkit::skip::report("our programs are not built");
        return;
    }
    let list: BTreeMap<String, Listed> = serde_json::from_str(LIST).unwrap();
    assert_eq!(list.len(), 168);
    for (path, listed) in list {
        let mut command = Command::new(&program);
        command
            .args(path.split(' '))
            .arg("--help")
            .env("DOCKER_HOST", "unix:///nowhere/d.sock")
            .env("HOME", "/nowhere");
        let help = testkit::process::run(&mut command, b"").unwrap();
        assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{path}");
        // `trust key generate` is one of `trust key COMMAND`.
        let shown =
            path.rsplit_once(' ').filter(|_| path.matches(' ').count() > 1).map_or(&path[..], |(group, _)| group);
        assert!(help.stdout.starts_with(&format!("Usage:  longshore {shown}")), "{path}: {}", help.stdout);
        if help.stdout.contains("Not supported yet: it waits for ") {
            continue;
        }
        // What Docker has for other systems alone is not shown, nor is what it calls deprecated.
        let hidden = |name: &str| {
            ["--help", "--isolation", "--kernel-memory", "--cpu-count", "--cpu-percent"].contains(&name)
                || name.starts_with("--io-max")
        };
        for (_, name, _) in listed.flags.iter().filter(|(_, name, _)| !hidden(name)) {
            assert!(help.stdout.contains(name), "{path}: {name} is not in {}", help.stdout);
        }
    }
}

/// What waits for a later part, as it is typed; marked where the real client does not ask the daemon for it (-), and where it
/// names a plugin, which dockerd without any does not find (?).
const LATER: &str = include_str!("every_command/later.txt");

const MARKS: [&str; 2] = ["- ", "? "];

#[test]
fn privileged_what_is_not_there_yet_says_so() {
    ours(|daemon| {
        let work = tempfile::tempdir().unwrap();
        std::fs::write(work.path().join("Dockerfile"), "FROM busybox\n").unwrap();
        std::fs::write(work.path().join("stack.yml"), "services:\n  a:\n    image: busybox\n").unwrap();
        each(daemon, |at| {
            for line in LATER.lines() {
                let marked = line.split_at_checked(2).filter(|(mark, _)| MARKS.contains(mark));
                let (mark, line) = marked.unwrap_or(("", line));
                if mark == "- " && at.cli == Cli::Docker {
                    continue;
                }
                let output = testkit::process::run(at.command(line).current_dir(work.path()), b"").unwrap();
                // The real client asks the daemon, which says of clusters what Docker's does.
                let foreign = match mark {
                    "? " => output.stderr.contains("plugin \"mine") && output.stderr.contains("\" not found"),
                    _ => output.stderr.contains("This node is not a swarm manager."),
                };
                let said = output.stderr.contains("not supported yet") || at.cli == Cli::Docker && foreign;
                assert!(output.code == 1 && said, "{line}: {output:?}");
            }
        });
    });
}
