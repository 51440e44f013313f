//! The programs, side by side in one directory as they are installed.
//!
//! ```text
//! target/dist/        release             target/dist-dev/    for tests
//!   longshored          profile release, host's target; finds the last two beside itself
//!   longshore           profile release, musl (for tests the host's target, too)
//!   docker-credential-longshore -> longshore
//!   longshore-shim      profile static, musl
//!   longshore-init
//!   longshore-runtime
//! ```
//!
//! Where musl's library cannot be installed, the static programs are made with glibc and crt-static: heavier, equal.
//! Programs that compile system-call filters hold Debian's libseccomp.a, which musl's linker takes as well (`sys`, "fortified").

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use testkit::paths;

use crate::step::{cargo_build, step, watched};
use crate::tools::{self, STATIC_TARGET};

/// For whom the programs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Users: optimized, stripped.
    Release,
    /// Tests: quick to build.
    Dev,
}

/// One call of cargo.
#[derive(Debug, PartialEq, Eq)]
struct Build {
    packages: Vec<&'static str>,
    binaries: Vec<&'static str>,
    profile: &'static str,
    target: Option<&'static str>,
    crt_static: bool,
}

/// Builds everything; answers the directory.
pub(crate) fn build(kind: Kind) -> Result<PathBuf> {
    tools::install()?;
    let dir = match kind {
        Kind::Release => paths::target().join("dist"),
        Kind::Dev => paths::target().join("dist-dev"),
    };
    fs::create_dir_all(&dir)?;
    for build in plan(kind, tools::has_static_target()) {
        let what = format!("build {} ({})", build.binaries.join(", "), build.profile);
        step(&what, || watched(&mut build.command()))?;
        for binary in &build.binaries {
            install(&build.output().join(binary), &dir.join(binary))?;
        }
    }
    let helper = dir.join("docker-credential-longshore");
    if fs::symlink_metadata(&helper).is_err() {
        symlink("longshore", helper)?;
    }
    Ok(dir)
}

fn plan(kind: Kind, musl: bool) -> Vec<Build> {
    // Naming the target, even the host's own, keeps the flags off build scripts and proc macros.
    let target = Some(if musl { STATIC_TARGET } else { GNU_TARGET });
    let build = |programs: &[(&'static str, &'static str)], profile, target: Option<_>| Build {
        packages: programs.iter().map(|(package, _)| *package).collect(),
        binaries: programs.iter().map(|(_, binary)| *binary).collect(),
        profile,
        target,
        crt_static: target.is_some() && !musl,
    };
    let (cli, daemon) = (("cli", "longshore"), ("daemon", "longshored"));
    let beside = [("shim", "longshore-shim"), ("init", "longshore-init"), ("runtime", "longshore-runtime")];
    match kind {
        // A static command line starts in 0.4 ms instead of 1.2.
        Kind::Release => {
            vec![build(&[daemon], "release", None), build(&[cli], "release", target), build(&beside, "static", target)]
        }
        // In one call, which builds the libraries that both use once.
        Kind::Dev => vec![build(&[cli, daemon], "dev", None), build(&beside, "dev", target)],
    }
}

const GNU_TARGET: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

impl Build {
    fn command(&self) -> Command {
        let mut command = cargo_build(&["build", "--profile", self.profile]);
        for package in &self.packages {
            command.args(["--package", package]);
        }
        for binary in &self.binaries {
            command.args(["--bin", binary]);
        }
        if let Some(target) = self.target {
            command.args(["--target", target]);
        }
        if self.crt_static {
            command.env("RUSTFLAGS", "-C target-feature=+crt-static");
        }
        if self.holds_seccomp()
            && let Some(dir) = seccomp_archive_dir()
        {
            command.env("LIBSECCOMP_LINK_TYPE", "static").env("LIBSECCOMP_LIB_PATH", dir);
        }
        if self.profile == "release" {
            release_env(&mut command);
        }
        command
    }

    /// Static programs cannot do without the archive; with it in the daemon, nothing has to be installed where that runs.
    fn holds_seccomp(&self) -> bool {
        self.target.is_some() || self.profile == "release"
    }

    /// Where cargo puts the programs: the profile `dev` goes to `debug`.
    fn output(&self) -> PathBuf {
        let profile = if self.profile == "dev" { "debug" } else { self.profile };
        match self.target {
            Some(target) => paths::target().join(target).join(profile),
            None => paths::target().join(profile),
        }
    }
}

/// What a released program knows of its making.
fn release_env(command: &mut Command) {
    // The commit's time, not the clock's: the same commit makes the same program. A tree without git says nothing.
    for (variable, format) in [("LONGSHORE_COMMIT", "%h"), ("LONGSHORE_BUILD_TIME", "%cI")] {
        let pretty = format!("--format={format}");
        let output = Command::new("git").args(["log", "-1", &pretty]).current_dir(paths::workspace()).output();
        if let Some(text) = output.ok().filter(|output| output.status.success()) {
            command.env(variable, String::from_utf8_lossy(&text.stdout).trim());
        }
    }
}

/// A directory with libseccomp's archive alone: among the machine's libraries, where the C compiler finds it, musl's linker
/// would take glibc's for its own.
fn seccomp_archive_dir() -> Option<PathBuf> {
    let output = Command::new("cc").arg("-print-file-name=libseccomp.a").output().ok()?;
    let archive = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let dir = paths::target().join("libseccomp");
    // A file that it does not find is printed as it was asked for.
    let copied = archive.is_absolute() && fs::create_dir_all(&dir).is_ok();
    (copied && install(&archive, &dir.join("libseccomp.a")).is_ok()).then_some(dir)
}

/// Copies beside and renames: a running program keeps its file, and nobody sees half of the new one.
fn install(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    let temporary = to.with_extension("new");
    fs::copy(from, &temporary).with_context(|| format!("copy {}", from.display()))?;
    fs::rename(&temporary, to).with_context(|| format!("install {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_starts_often_is_static_with_or_without_musl() {
        let release = plan(Kind::Release, true);
        assert_eq!(release[0].binaries, ["longshored"]);
        assert_eq!((release[0].profile, release[0].target, release[0].crt_static), ("release", None, false));
        assert_eq!((release[1].profile, release[1].target), ("release", Some(STATIC_TARGET)));
        assert_eq!((release[2].profile, release[2].target), ("static", Some(STATIC_TARGET)));
        assert!(plan(Kind::Release, false)[1..].iter().all(|b| b.crt_static && b.target == Some(GNU_TARGET)));
        let dev = plan(Kind::Dev, true);
        assert!(dev[0].output().ends_with("debug") && dev[0].target.is_none() && !dev[1].crt_static);
        assert!(dev[1].binaries.contains(&"longshore-runtime") && dev[1].holds_seccomp() && !dev[0].holds_seccomp());
    }
}
