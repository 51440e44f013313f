//! Repositories at one commit. The id of a commit is the checksum of all that is in it, which git checks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::place;
use super::suites::Suite;
use crate::step::{quiet, step};

/// The suite's repository, fetched now if it is not there.
///
/// A machine that does not reach the repository uses a copy of it by git's `url.COPY.insteadOf`.
pub(super) fn get(suite: &Suite) -> Result<PathBuf> {
    let place = place(suite, "source");
    if head(&place).is_ok_and(|head| head == suite.commit) {
        return Ok(place);
    }
    step(&format!("fetch {}", suite.repository), || fetch(suite, &place))?;
    Ok(place)
}

fn fetch(suite: &Suite, place: &Path) -> Result<()> {
    if place.exists() {
        fs::remove_dir_all(place).with_context(|| format!("remove {}", place.display()))?;
    }
    fs::create_dir_all(place).with_context(|| format!("create {}", place.display()))?;
    quiet(git(place).args(["init", "-q"]))?;
    quiet(git(place).args(["fetch", "-q", "--depth", "1", suite.repository, suite.commit]))?;
    quiet(git(place).args(["checkout", "-q", "--detach", suite.commit]))?;
    let head = head(place)?;
    ensure!(head == suite.commit, "{} has {head} for {}", suite.repository, suite.commit);
    Ok(())
}

fn head(place: &Path) -> Result<String> {
    ensure!(place.join(".git").exists(), "{} is no repository", place.display());
    Ok(quiet(git(place).args(["rev-parse", "HEAD"]))?.trim().to_owned())
}

fn git(place: &Path) -> Command {
    let mut command = Command::new("git");
    // It asks nobody for a password.
    command.arg("-C").arg(place).env("GIT_TERMINAL_PROMPT", "0");
    command
}
