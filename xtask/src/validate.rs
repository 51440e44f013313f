//! `validate`: the validation suite of opencontainers/runtime-tools, with several OCI runtimes side by side.
//!
//! ```text
//! checkout of runtime-tools --- go build ---> target/validation/{runtimetest,bin/*,rootfs-*.tar.gz}
//!                                               each program, with each runtime: RUNTIME=..., its TAP lines counted
//!                                               a table; failure if the first runtime passes what another one does not
//! ```
//!
//! Not part of `test`: it needs Go and a checkout, neither of which Debian 12 has. docs/runtime-validation.md has its last
//! table, with reasons. Run it in a mount namespace of its own (`unshare --mount`): runc leaves mounts behind.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use testkit::paths;

use crate::step::{quiet, step};

/// How long one program may take, in seconds: it waits for its containers for 10 at most.
const PROGRAM_SECONDS: &str = "60";

/// A runtime: its name in the table, and its program.
#[derive(Debug, PartialEq, Eq)]
struct Runtime {
    name: String,
    program: PathBuf,
}

/// What one program said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Its exit status was 0.
    succeeded: bool,
    ok: usize,
    not_ok: usize,
}

impl Outcome {
    fn passed(self) -> bool {
        self.succeeded && self.not_ok == 0
    }

    fn shown(self) -> String {
        let Outcome { succeeded, ok, not_ok } = self;
        match (self.passed(), succeeded) {
            (true, _) => format!("pass ({ok})"),
            (_, true) => format!("{not_ok} of {} not ok", ok + not_ok),
            (_, false) => "fails".into(),
        }
    }
}

/// `validate CHECKOUT NAME=PROGRAM NAME=PROGRAM... [WORD]...`
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let Some((checkout, rest)) = arguments.split_first() else { bail!("a checkout of runtime-tools is wanted") };
    let (runtimes, words): (Vec<&str>, Vec<&str>) = rest.iter().partition(|word| word.contains('='));
    let runtimes: Vec<Runtime> = runtimes.into_iter().map(runtime).collect::<Result<_>>()?;
    if runtimes.is_empty() {
        bail!("a runtime is wanted: NAME=PROGRAM");
    }
    let place = paths::target().join("validation");
    step("build the validation suite", || build(Path::new(checkout), &place))?;
    let mut behind = Vec::new();
    println!("| program | {} |", runtimes.iter().map(|runtime| runtime.name.as_str()).collect::<Vec<_>>().join(" | "));
    println!("|---|{}", "---|".repeat(runtimes.len()));
    for (name, program) in programs(&place, &words)? {
        let outcomes: Vec<Outcome> =
            runtimes.iter().map(|runtime| outcome(&place, &name, &program, runtime)).collect::<Result<_>>()?;
        println!("| {name} | {} |", outcomes.iter().map(|it| it.shown()).collect::<Vec<_>>().join(" | "));
        if outcomes[0].passed() && !outcomes.iter().all(|outcome| outcome.passed()) {
            behind.push(name);
        }
    }
    if behind.is_empty() {
        Ok(())
    } else {
        bail!("{} passes where others do not: {}", runtimes[0].name, behind.join(", "))
    }
}

fn runtime(text: &str) -> Result<Runtime> {
    let (name, program) = text.split_once('=').context("NAME=PROGRAM")?;
    Ok(Runtime { name: name.to_owned(), program: program.into() })
}

fn build(checkout: &Path, place: &Path) -> Result<()> {
    let bin = place.join("bin");
    fs::create_dir_all(&bin)?;
    let go = |output: &Path, package: &str| {
        let mut command = Command::new("go");
        // Static: one of the two runs inside of containers.
        command.current_dir(checkout).env("CGO_ENABLED", "0").args(["build", "-mod=vendor", "-o"]);
        quiet(command.arg(output).arg(package))
    };
    go(&place.join("runtimetest"), "./cmd/runtimetest")?;
    go(&bin, "./validation/...")?;
    for entry in fs::read_dir(checkout)? {
        let name = entry?.file_name();
        // The programs look for it where they run.
        if name.to_string_lossy().starts_with("rootfs-") {
            fs::copy(checkout.join(&name), place.join(&name))?;
        }
    }
    Ok(())
}

/// Names and paths of those with one of the words in their name; of all without words.
fn programs(place: &Path, words: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let mut programs = BTreeMap::new();
    for entry in fs::read_dir(place.join("bin"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if words.is_empty() || words.iter().any(|word| name.contains(word)) {
            programs.insert(name, entry.path());
        }
    }
    Ok(programs)
}

/// Runs one program; what it says stays in a file.
fn outcome(place: &Path, name: &str, program: &Path, runtime: &Runtime) -> Result<Outcome> {
    let said = place.join(&runtime.name);
    fs::create_dir_all(&said)?;
    let path = said.join(name);
    let scratch = tempfile::tempdir()?;
    let status = Command::new("timeout")
        .args(["--kill-after=5", PROGRAM_SECONDS])
        .arg(program)
        .current_dir(place)
        .env("RUNTIME", &runtime.program)
        .env("TMPDIR", scratch.path())
        .stdin(Stdio::null())
        .stdout(File::create(&path)?)
        .stderr(File::create(path.with_extension("stderr"))?)
        .status()?;
    let outcome = counted(&fs::read_to_string(&path)?, status.success());
    // What runc has mounted below stays there, and would be emptied with the directory.
    if let Err(err) = fs::remove_dir(scratch.path()) {
        eprintln!("{name} with {} leaves {}: {err}", runtime.name, scratch.keep().display());
    }
    Ok(outcome)
}

/// The lines of the Test Anything Protocol.
fn counted(said: &str, succeeded: bool) -> Outcome {
    let lines = |start: &str| said.lines().filter(|line| line.starts_with(start)).count();
    Outcome { succeeded, ok: lines("ok "), not_ok: lines("not ok ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_passes_if_it_succeeds_and_every_line_is_ok() {
        let said = "TAP version 13\nok 1 - a\n  ---\n  not ok in a diagnostic\n  ...\nok 2 # SKIP b\n1..2\n";
        assert_eq!(counted(said, true).shown(), "pass (2)");
        assert_eq!(counted(said, false).shown(), "fails");
        assert_eq!(counted("ok 1 - a\nnot ok 2 - b\n", true).shown(), "1 of 2 not ok");
        assert!(runtime("runc").is_err());
        assert_eq!(runtime("a=/b").unwrap(), Runtime { name: "a".into(), program: "/b".into() });
    }
}
