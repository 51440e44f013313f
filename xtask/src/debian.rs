//! Programs of Debian that tests and benches talk to, unpacked below the target directory and not installed: the
//! package's own service never starts, and the machine stays as it was.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use testkit::paths;

use crate::step::{quiet, step};
use crate::tools::apt;

/// What tests talk to: packages, and their programs.
const FOR_TESTS: [(&str, &str); 1] = [("docker-registry", "docker-registry")];

/// Has everything that tests talk to, installed or unpacked.
pub(crate) fn for_tests() -> Result<()> {
    let missing = FOR_TESTS.iter().filter(|(package, program)| paths::program_of(package, program).is_err());
    missing.map(|(package, _)| package).try_for_each(|package| unpack(package))
}

/// Has the files of `package` in [`paths::unpacked`].
pub(crate) fn unpack(package: &str) -> Result<()> {
    let place = paths::unpacked(package);
    if place.exists() {
        return Ok(());
    }
    if paths::program("apt-get").is_none() {
        bail!("missing: {package}. Its files belong into {}", place.display());
    }
    step(&format!("unpack {package}"), || download(package, &place))?;
    Ok(())
}

fn download(package: &str, place: &Path) -> Result<()> {
    let parent = place.parent().context("a place below the target directory")?;
    fs::create_dir_all(parent)?;
    let scratch = tempfile::tempdir_in(parent)?;
    let fetch = || quiet(apt().args(["download", package]).current_dir(scratch.path()));
    if fetch().is_err() {
        // The lists may be missing or old.
        quiet(apt().arg("update"))?;
        fetch()?;
    }
    let files = fs::read_dir(scratch.path())?.collect::<Result<Vec<_>, _>>()?;
    let archive = files.first().with_context(|| format!("apt-get brought nothing for {package}"))?.path();
    let files = scratch.path().join("files");
    quiet(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&files))?;
    // Whole or not at all, beside others that do the same.
    match fs::rename(&files, place) {
        Err(_) if place.exists() => Ok(()),
        outcome => outcome.with_context(|| format!("create {}", place.display())),
    }
}
