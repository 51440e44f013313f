//! The suites: where they are from, what they need, and how they are run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::process;

use super::report::{self, Report};
use super::{SOCKET, place};
use crate::step::quiet;

/// How long one suite may take. The longest takes five minutes with Docker.
const DEADLINE: Duration = Duration::from_secs(20 * 60);

/// The tests of one SDK.
#[derive(Debug)]
pub(super) struct Suite {
    pub(super) name: &'static str,
    pub(super) repository: &'static str,
    pub(super) commit: &'static str,
    /// Makes the repository ready to be run.
    pub(super) install: fn(&Path) -> Result<()>,
    /// The programs that are the suite, in the repository; the second path is for a report, where a program writes one.
    commands: fn(&Path, &Path) -> Result<Vec<Command>>,
    /// What the output or the report says.
    read: fn(&str, &Path) -> Result<Report>,
}

/// All of them. A newer commit is a change here, and in expected.toml.
pub(super) const SUITES: [Suite; 3] = [
    Suite {
        name: "docker-py",
        repository: "https://github.com/docker/docker-py",
        commit: "afc6d1ee308e78b908b96a94298c37fa8c465588",
        install: install_docker_py,
        commands: docker_py,
        read: |output, _| Ok(report::of_pytest(output)),
    },
    Suite {
        name: "dockerode",
        repository: "https://github.com/apocas/dockerode",
        commit: "3624bc02dfc60afdf9b59ade72d34a9b2f2edd5d",
        install: install_dockerode,
        commands: dockerode,
        read: |_, path| report::of_mocha(&fs::read_to_string(path).context("read mocha's report")?),
    },
    Suite {
        name: "bollard",
        repository: "https://github.com/fussybeaver/bollard",
        commit: "4a4a791329b840b9cf010438415a42f24db7ede1",
        install: install_bollard,
        commands: bollard,
        read: |output, _| Ok(report::of_libtest(output)),
    },
];

/// Runs a suite against the engine at [`SOCKET`]; `registry` is where it finds its images.
pub(super) fn run(suite: &Suite, name: &str, registry: &str) -> Result<Report> {
    let (log, told) = (place(suite, &format!("{name}.log")), place(suite, &format!("{name}.report")));
    // Of an earlier run.
    let _ = fs::remove_file(&told);
    let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let home = tempfile::tempdir()?;
    // Without it docker-py writes its contexts to the working directory.
    fs::create_dir(home.path().join(".docker"))?;
    fs::write(home.path().join(".docker/config.json"), "{}")?;
    // Containers bind what is in there.
    let scratch = match std::env::var_os(testkit::daemon::SHARED_VARIABLE).filter(|_| name == "docker") {
        Some(shared) => tempfile::tempdir_in(shared)?,
        None => tempfile::tempdir()?,
    };
    for mut command in (suite.commands)(&place(suite, "source"), &told)? {
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        command.env("HOME", home.path()).env("TMPDIR", scratch.path()).env("DOCKER_HOST", format!("unix://{SOCKET}"));
        // Any password will do where nobody asks.
        command.env("REGISTRY_HTTP_ADDR", registry).env("REGISTRY_PASSWORD", "none");
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        // That tests fail is in the report.
        process::wait(&mut child, DEADLINE).with_context(|| format!("{}: see {}", suite.name, log.display()))?;
    }
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let report = (suite.read)(&text, &told).with_context(|| format!("see {}", log.display()))?;
    ensure!(!report.is_empty(), "no test was run: see {}", log.display());
    Ok(report)
}

/// Debian's packages have all that it needs ([`crate::tools`]).
fn install_docker_py(source: &Path) -> Result<()> {
    // Made by its build; the tests use the sources as they are.
    Ok(fs::write(source.join("docker/_version.py"), "version = __version__ = '0'\n")?)
}

fn docker_py(source: &Path, _: &Path) -> Result<Vec<Command>> {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-m", "pytest", "-p", "no:cacheprovider", "-v", "--timeout=90", "tests/integration"]);
    command.current_dir(source).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(vec![command])
}

/// package-lock.json has the checksums. No package's own script is run.
fn install_dockerode(source: &Path) -> Result<()> {
    quiet(Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(source)).map(drop)
}

fn dockerode(source: &Path, report: &Path) -> Result<Vec<Command>> {
    let mut command = Command::new("node_modules/.bin/mocha");
    command.args(["--exit", "--reporter", "json", "--reporter-option"]);
    command.arg(format!("output={}", report.display())).current_dir(source);
    Ok(vec![command])
}

/// Cargo.lock has the checksums.
fn install_bollard(source: &Path) -> Result<()> {
    bollard_build(source).map(drop)
}

fn bollard(source: &Path, _: &Path) -> Result<Vec<Command>> {
    let commands = bollard_build(source)?.into_iter().map(|program| {
        let mut command = Command::new(program);
        // They use names of their own for all containers: one after the other.
        command.args(["--test-threads", "1"]).current_dir(source);
        command
    });
    Ok(commands.collect())
}

/// Builds the tests, or finds them built; answers the programs.
fn bollard_build(source: &Path) -> Result<Vec<PathBuf>> {
    let mut command = crate::step::cargo(&["test", "--locked", "--no-run", "--tests", "--message-format=json"]);
    let target = source.parent().context("a place below the target directory")?.join("target");
    command.current_dir(source).env("CARGO_TARGET_DIR", target).env("CARGO_PROFILE_DEV_DEBUG", "0");
    let messages = quiet(&mut command)?;
    let program = |line: &str| -> Option<PathBuf> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let of_suite = message["target"]["kind"][0] == "test";
        message["executable"].as_str().filter(|_| of_suite).map(PathBuf::from)
    };
    let mut programs: Vec<PathBuf> = messages.lines().filter_map(program).collect();
    programs.sort();
    ensure!(!programs.is_empty(), "bollard has no integration tests");
    Ok(programs)
}
