//! Dockerfiles of well-known projects: what `docker buildx build --call` says of their stages, arguments and faults, by BuildKit
//! and by us.
//!
//! `dockerfiles.toml` lists them with what BuildKit said; the files are their projects' and not here. Who wants to compare puts
//! them below a directory, as `OWNER/NAME/PATH`. Nothing is pulled: busybox stands for every image that a stage begins with, so digests
//! and `# syntax=` are taken out before.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use regex_lite::Regex;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::BASE;
use super::engine::Engine;

/// A Dockerfile, and what BuildKit says of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fact {
    repository: String,
    commit: String,
    path: String,
    sha256: String,
    /// How many stages, arguments and warnings; nothing of a file that BuildKit refuses.
    counts: Option<[usize; 3]>,
    /// Why we say something else.
    known: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    dockerfile: Vec<Fact>,
}

/// What is asked, and where the answer has what is counted.
const CALLS: [(&str, &str); 3] = [("targets", "targets"), ("outline", "args"), ("check", "warnings")];

/// How often BuildKit is asked again for another of its answers: one of two comes once in eight times.
const AGAIN: usize = 40;

/// More images than this no Dockerfile begins with.
const BASES_MAX: usize = 50;

fn load() -> Result<Vec<Fact>> {
    let facts: Facts = toml::from_str(include_str!("dockerfiles.toml"))?;
    Ok(facts.dockerfile)
}

/// Compares all files of the list that are below `directory`.
pub(super) fn compare(directory: &Path, docker: &Engine, ours: &Engine) -> Result<()> {
    let (mut same, mut different, mut missing) = (0, Vec::new(), 0);
    let mut bases = BTreeSet::new();
    for fact in load()? {
        let name = format!("{} {}", fact.repository, fact.path);
        let Ok(bytes) = fs::read(directory.join(&fact.repository).join(&fact.path)) else {
            missing += 1;
            continue;
        };
        let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(sum == fact.sha256, "{name} is not that of commit {}", fact.commit);
        let context = tempfile::tempdir()?;
        fs::write(context.path().join("Dockerfile"), alone(&String::from_utf8_lossy(&bytes))?)?;
        let lines = differences(&fact, context.path(), docker, ours, &mut bases)?;
        match (lines.is_empty(), &fact.known) {
            (true, None) => {
                println!("{name}: same");
                same += 1;
            }
            (false, Some(reason)) => println!("{name}: differs, as known: {reason}"),
            (_, reason) => {
                println!("{name}: {}", if reason.is_some() { "differs no more" } else { "DIFFERS" });
                lines.iter().for_each(|line| println!("    {line}"));
                different.push(name);
            }
        }
    }
    for engine in [docker, ours] {
        let names: Vec<&str> = bases.iter().map(String::as_str).collect();
        // Of a name that only one of them was asked for the other one knows nothing.
        engine.docker(&[&["rmi", "-f"], &names[..]].concat()).map(drop)?;
    }
    println!("{same} Dockerfiles the same, {} not as they should be, {missing} not in the directory", different.len());
    ensure!(different.is_empty(), "not as they should be: {}", different.join(", "));
    Ok(())
}

/// The file without what has to come from a registry.
fn alone(text: &str) -> Result<String> {
    let text = Regex::new(r"(?im)^#\s*syntax\s*=.*\n")?.replace_all(text, "");
    Ok(Regex::new("@sha256:[0-9a-f]{64}")?.replace_all(&text, "").into_owned())
}

fn differences(
    fact: &Fact,
    context: &Path,
    docker: &Engine,
    ours: &Engine,
    bases: &mut BTreeSet<String>,
) -> Result<Vec<String>> {
    let (mut lines, mut counts) = (Vec::new(), Vec::new());
    for (call, counted) in CALLS {
        let (mut right, mine) = (ask(docker, context, call, bases)?, ask(ours, context, call, bases)?);
        // Of arguments that several stages declare BuildKit tells now one, now the other.
        for _ in 0..AGAIN {
            if right != mine {
                right = ask(docker, context, call, bases)?;
            }
        }
        if right != mine {
            lines.extend([format!("--call={call}"), format!("- {right}"), format!("+ {mine}")]);
        }
        counts.push(mine["told"][counted].as_array().map_or(0, Vec::len));
    }
    if fact.counts.is_some_and(|wanted| wanted[..] != counts[..]) {
        lines.push(format!("stages, arguments and warnings: {:?} are listed, {counts:?} found", fact.counts));
    }
    Ok(lines)
}

/// The answer to a call, without what differs from client to client; gives the engine the images that it lacks.
fn ask(engine: &Engine, context: &Path, call: &str, bases: &mut BTreeSet<String>) -> Result<Value> {
    let lacks = Regex::new(r"failed to resolve source metadata for (\S+): ")?;
    let place = context.display().to_string();
    for _ in 0..BASES_MAX {
        let words = ["buildx", "build", "--progress", "plain", &format!("--call={call},format=json"), &place];
        let output = engine.docker(&words)?;
        if output.code != 0
            && let Some(name) = lacks.captures(&output.stderr).map(|found| found[1].to_owned())
            && engine.docker(&["image", "inspect", &name])?.code != 0
        {
            engine.docker(&["tag", BASE, &name])?.success().with_context(|| format!("stand in for {name}"))?;
            bases.insert(name);
            continue;
        }
        let errors: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with("ERROR")).collect();
        let told = serde_json::from_str(&output.stdout).unwrap_or_else(|_| Value::from(output.stdout.as_str()));
        return Ok(json!({"code": output.code, "told": without_definitions(told), "errors": errors}));
    }
    bail!("a Dockerfile with more than {BASES_MAX} bases")
}

/// How BuildKit itself got at the text is nobody's business.
fn without_definitions(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(name, _)| name != "definition");
            kept.map(|(name, value)| (name, without_definitions(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_definitions).collect(),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_of_many_projects_and_readable() {
        let facts = load().unwrap();
        let projects: BTreeSet<&str> = facts.iter().map(|fact| fact.repository.as_str()).collect();
        assert!(projects.len() >= 30, "{}", projects.len());
        for fact in &facts {
            assert!(fact.sha256.len() == 64 && fact.commit.len() == 40 && !fact.path.starts_with('/'), "{fact:?}");
        }
    }

    #[test]
    fn what_a_registry_has_is_taken_out() {
        let digest = "a".repeat(64);
        let text = format!("#syntax=docker/dockerfile:1\n# Syntax = x\nFROM a:1@sha256:{digest} AS b\nRUN x\n");
        assert_eq!(alone(&text).unwrap(), "FROM a:1 AS b\nRUN x\n");
    }
}
