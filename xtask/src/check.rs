//! `test` and `ci`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use testkit::{paths, process};

use crate::step::{cargo, cargo_build, show, step};
use crate::{debian, dist, images, peers, sdk, tidy, tools, vm};

/// Which tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything that needs neither network nor other engines.
    Default,
    /// Those marked as slow, too: minutes of everything at once, and of hostile input (nextest's profile `all`); and those
    /// of the virtual machine, other engines on the OCI runtime, and the SDKs' own tests.
    All,
}

/// How long all tests may take together. A suite beyond that is not run before every change any more.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Everything that a change has to pass.
pub(crate) fn ci() -> Result<()> {
    tools::install()?;
    show(&mut cargo(&["fmt", "--all", "--check"])).context("not formatted: run `cargo fmt --all`")?;
    show(&mut cargo_build(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    step("tidy", tidy::run)?;
    test(Scope::Default)
}

/// Builds what tests need and runs them; the skipped ones are counted apart from the passed ones.
pub(crate) fn test(scope: Scope) -> Result<()> {
    tools::install()?;
    dist::build(dist::Kind::Dev)?;
    images::run()?;
    debian::for_tests()?;
    let skips = paths::target().join("skipped-tests");
    // Absent before the first run.
    let _ = fs::remove_file(&skips);
    let mut command = runner(scope);
    command.env("LONGSHORE_SKIP_LOG", &skips).stdin(std::process::Stdio::null());
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let status = process::wait(&mut child, DEADLINE).context("the tests")?;
    report_skips(&skips)?;
    // Also after a failure: they find different things.
    let apart = if scope == Scope::All { vec![vm::test(), peers::run(&[]), sdk::run_if_possible()] } else { vec![] };
    anyhow::ensure!(status.success(), "tests failed");
    apart.into_iter().collect()
}

/// Random verbs by many clients at once, the daemon killed again and again, for so many seconds.
pub(crate) fn soak(seconds: &str) -> Result<()> {
    let seconds: u64 = seconds.parse().with_context(|| format!("soak {seconds}: not a number of seconds"))?;
    tools::install()?;
    dist::build(dist::Kind::Dev)?;
    images::run()?;
    let mut command = cargo(&["nextest", "run", "--profile", "soak", "-p", "e2e", "--success-output", "final", SOAK]);
    show(command.env("LONGSHORE_SOAK_SECONDS", seconds.to_string())).context("the soak")
}

/// The test that [`soak`] is.
const SOAK: &str = "privileged_slow_soak_nothing_breaks_is_lost_or_piles_up";

/// cargo-nextest where it is installed (a process per test, parallel); else cargo's own runner, which says less.
fn runner(scope: Scope) -> Command {
    if paths::program("cargo-nextest").is_none() {
        println!("cargo-nextest is not installed: running the tests with `cargo test`");
        let mut command = cargo_build(&["test", "--workspace", "--no-fail-fast"]);
        // As .config/nextest.toml has it.
        command.args(["--", "--skip", "vm_"]);
        if scope == Scope::Default {
            command.args(["--skip", "slow_"]);
        }
        return command;
    }
    let mut command = cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]);
    if scope == Scope::All {
        command.args(["--profile", "all"]);
    }
    command
}

fn report_skips(log: &Path) -> Result<()> {
    let text = match fs::read_to_string(log) {
        Ok(text) => text,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(err) => return Err(err).context(format!("read {}", PathBuf::from(log).display())),
    };
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    println!("skipped on this machine: {}", lines.len());
    lines.iter().for_each(|line| println!("  {line}"));
    Ok(())
}
