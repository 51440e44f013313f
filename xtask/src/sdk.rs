//! The integration tests of Docker's SDKs, as their repositories have them, against our engine and beside Docker's.
//!
//! ```text
//! source    a repository at one commit, whose id is its checksum     target/sdk/SUITE/source
//! suites    what a suite needs, how it is run, what its report says  target/sdk/SUITE/{ours,docker}.log
//! images    stand-ins for the images that suites want, in the engine and in a registry on this machine
//! expected  expected.toml: tests that fail with ours, each with its reason
//! ```
//!
//! Suites use fixed names, paths and `/var/run/docker.sock`: everything runs in a mount namespace of its own, whose `/run` is
//! empty but for that socket and whose root is shared, as systemd has it (a test of volumes wants that). What suites ask of
//! Docker Hub fails where the Hub is not reached, with Docker as well.

mod expected;
mod images;
mod report;
mod source;
mod suites;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use testkit::{Daemon, paths};

use crate::step::{show, step};
use crate::{debian, dist, tools};
use expected::Expected;
use report::Report;
use suites::{SUITES, Suite};

/// Says that this process is the one in the mount namespace.
const INSIDE_VARIABLE: &str = "LONGSHORE_SDK_INSIDE";

/// Where suites look for an engine.
const SOCKET: &str = "/run/docker.sock";

/// `--docker`: a running Docker daemon, and the network namespace from which its containers are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Docker {
    socket: PathBuf,
    network: Option<PathBuf>,
}

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    docker: Option<Docker>,
    suites: Vec<String>,
}

/// `sdk [--docker unix:///SOCKET[@NETNS]] [SUITE]...`
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let options = parse(arguments)?;
    ensure!(rustix::process::geteuid().is_root(), "containers and mounts need root");
    if std::env::var_os(INSIDE_VARIABLE).is_some() {
        return run_inside(&options);
    }
    install(&options)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(std::env::current_exe()?);
    show(command.arg("sdk").args(arguments).env(INSIDE_VARIABLE, "1"))
}

/// The same where the repositories and packages can be had; a machine without a way to them skips it.
pub(crate) fn run_if_possible() -> Result<()> {
    if let Err(err) = install(&Options::default()) {
        println!("the SDKs' tests are skipped: {err:#}");
        return Ok(());
    }
    run(&[])
}

fn parse(arguments: &[&str]) -> Result<Options> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--docker" => options.docker = Some(docker(rest.next().context("--docker needs unix:///SOCKET[@NETNS]")?)?),
            name if SUITES.iter().any(|suite| suite.name == name) => options.suites.push(name.to_owned()),
            name => bail!("no suite is called {name}: there are {}", SUITES.map(|suite| suite.name).join(", ")),
        }
    }
    Ok(options)
}

fn docker(host: &str) -> Result<Docker> {
    let (host, network) = match host.split_once('@') {
        Some((host, network)) => (host, Some(network.into())),
        None => (host, None),
    };
    let socket = host.strip_prefix("unix://").with_context(|| format!("{host} is not unix:///SOCKET"))?;
    Ok(Docker { socket: socket.into(), network })
}

fn chosen(names: &[String]) -> impl Iterator<Item = &'static Suite> {
    SUITES.iter().filter(|suite| names.is_empty() || names.iter().any(|name| name == suite.name))
}

fn install(options: &Options) -> Result<()> {
    tools::install_for_sdks()?;
    dist::build(dist::Kind::Dev)?;
    debian::for_tests()?;
    for suite in chosen(&options.suites) {
        let source = source::get(suite)?;
        step(&format!("install {}", suite.name), || (suite.install)(&source))?;
    }
    Ok(())
}

fn run_inside(options: &Options) -> Result<()> {
    let (flags, none) = (MountFlags::NODEV | MountFlags::NOSUID, None::<&std::ffi::CStr>);
    mount("run", "/run", "tmpfs", flags, none).context("mount an empty /run")?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    mount_change("/", shared).context("share the mounts of the new namespace")?;
    let expected = expected::load()?;
    let mut wrong = Vec::new();
    for suite in chosen(&options.suites) {
        let ours = with_ours(suite)?;
        let docker = options.docker.as_ref().map(|docker| with_docker(suite, docker)).transpose()?;
        wrong.extend(tell(suite, &ours, docker.as_ref(), &expected));
    }
    ensure!(wrong.is_empty(), "failed, and not known to: {}", wrong.join(", "));
    Ok(())
}

/// Prints what there is to say of a suite; answers the failures that nobody expects.
fn tell(suite: &Suite, ours: &Report, docker: Option<&Report>, expected: &Expected) -> Vec<String> {
    println!("{}: {}", suite.name, ours.summary());
    if let Some(docker) = docker {
        println!("{} with Docker: {}", suite.name, docker.summary());
        for test in ours.failed().filter(|test| !docker.fails(test)) {
            println!("  only with ours: {test}: {}", expected.reason(suite.name, test).unwrap_or("NOT KNOWN"));
        }
        docker.failed().filter(|test| !ours.fails(test)).for_each(|test| println!("  only with Docker: {test}"));
    }
    for test in ours.passed().filter(|test| expected.reason(suite.name, test).is_some()) {
        println!("  passes, and expected.toml lists it: {test}");
    }
    let unknown = ours.failed().filter(|test| expected.reason(suite.name, test).is_none());
    unknown.map(|test| format!("{} {test}", suite.name)).inspect(|test| println!("  FAILS: {test}")).collect()
}

/// Runs a suite against a daemon of its own.
fn with_ours(suite: &Suite) -> Result<Report> {
    let daemon = Daemon::start_from(&paths::dist(), &[])?;
    let report = against(suite, "ours", daemon.socket(), None)?;
    daemon.finish()?;
    Ok(report)
}

/// Runs it against a daemon that somebody else runs.
fn with_docker(suite: &Suite, docker: &Docker) -> Result<Report> {
    let network = docker
        .network
        .as_ref()
        .map(|path| fs::File::open(path).map(OwnedFd::from).with_context(|| format!("open {}", path.display())));
    against(suite, "docker", &docker.socket, network.transpose()?)
}

/// Runs it against the engine behind `socket`, from this network namespace.
fn against(suite: &Suite, name: &str, socket: &Path, network: Option<OwnedFd>) -> Result<Report> {
    // Absent before the first.
    let _ = fs::remove_file(SOCKET);
    std::os::unix::fs::symlink(socket, SOCKET).context("place the engine's socket")?;
    let work = || {
        let registry = images::provide(suite, Path::new(SOCKET))?;
        step(&format!("{} against {name}", suite.name), || suites::run(suite, name, &registry))
    };
    // A network namespace is a thread's, and that of the processes which it starts.
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            if let Some(network) = &network {
                use std::os::fd::AsFd;
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            }
            work()
        });
        worker.join().expect("a suite's thread does not panic")
    })
}

/// A place below the target directory.
fn place(suite: &Suite, name: &str) -> PathBuf {
    paths::target().join("sdk").join(suite.name).join(name)
}

#[cfg(test)]
mod tests;
