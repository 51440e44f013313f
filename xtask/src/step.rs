//! One line per step, with the time it took.

use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Does `work` under the name `what`: the name is printed at once, the time or the failure at the end.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    print!("{what} ... ");
    // Only the look of the output depends on it.
    let _ = std::io::stdout().flush();
    let begin = Instant::now();
    let result = work();
    let seconds = begin.elapsed().as_secs_f64();
    match &result {
        Ok(_) => println!("ok ({seconds:.1} s)"),
        Err(_) => println!("FAILED ({seconds:.1} s)"),
    }
    result.with_context(|| what.to_owned())
}

/// Runs a program, showing what it prints as it comes.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("start {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// Runs a program quietly; when it fails, what it printed is in the error.
pub(crate) fn quiet(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

/// Runs a program that takes minutes: on a terminal what it tells of its progress is seen.
pub(crate) fn watched(command: &mut Command) -> Result<()> {
    if !std::io::stderr().is_terminal() {
        return quiet(command).map(drop);
    }
    println!();
    show(command)
}

/// `cargo`, the one that runs us, in the work tree.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(testkit::paths::workspace());
    command
}

/// The same for a command that builds: in CI with the versions of Cargo.lock and no others.
pub(crate) fn cargo_build(arguments: &[&str]) -> Command {
    let (command, rest) = arguments.split_first().unwrap_or((&"build", &[]));
    let locked: &[&str] = if std::env::var_os("CI").is_some() { &["--locked"] } else { &[] };
    cargo(&[&[*command], locked, rest].concat())
}
