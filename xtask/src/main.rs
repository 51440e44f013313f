//! The project's own commands: `cargo xtask COMMAND`.
//!
//! | command | module | what it does |
//! |---|---|---|
//! | `quickstart` | [`quickstart`] | installs what is missing, builds, runs a first container, cleans up |
//! | `test`, `ci`, `soak` | [`check`] | the tests; everything that a change has to pass; random load as long as is said |
//! | `tidy` | [`tidy`] | the rules of docs/STYLE.md that a program can check |
//! | `dist` | [`dist`] | the programs as users get them, or for tests |
//! | `images` | [`images`] | the archives that tests load |
//! | `vm`, `vm-test` | [`vm`] | tests in a virtual machine, with version 2 of cgroups and with systemd: all that see it, or the runtime's |
//! | `validate` | [`validate`] | OCI runtimes side by side under the validation suite of runtime-tools |
//! | `peers` | [`peers`] | podman, containerd and dockerd on our OCI runtime, side by side with runc; images that go round |
//! | `compare-builds` | [`builds`] | Dockerfiles built by us and by a real daemon, their images compared |
//! | `sdk` | [`sdk`] | the integration tests of Docker's SDKs, against ours and beside Docker's |
//! | `bench` | [`bench`] | the promised figures, side by side with other engines |
//!
//! [`tools`] installs what a command needs, [`debian`] unpacks what tests talk to, [`step`] prints one line per step with
//! its time.

mod bench;
mod builds;
mod check;
mod debian;
mod dist;
mod images;
mod peers;
mod quickstart;
mod sdk;
mod step;
mod tidy;
mod tools;
mod validate;
mod vm;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask COMMAND

  quickstart           install what is missing, build, run a first container, clean up
  test [--all]         build what tests need and run them; all: with minutes of load and of hostile input, and
                       with those of `vm`, `peers` and `sdk`
  ci                   fmt, clippy, tidy, test
  tidy                 check the rules of docs/STYLE.md
  dist [--dev]         build the programs into target/dist (target/dist-dev)
  images               make the archives of target/images
  vm [--boot BOOT] [WORD]...
                       run tests in a virtual machine that has version 2 of cgroups alone (bare), or systemd with that
                       (systemd) or with version 1 (hybrid): those that see it, or those with a word in their name
  vm-test [--boot BOOT] [WORD]...
                       the same for the tests of the runtime alone, which is all that it builds
  validate CHECKOUT NAME=PROGRAM... [WORD]...
                       run the validation suite of opencontainers/runtime-tools, or the programs with a word in
                       their name, with OCI runtimes side by side; fails if the first passes and another does not
  soak [SECONDS]       random verbs by eight clients, the daemon killed again and again: half an hour if not said
  peers [PEER]...      run podman, containerd and docker on the OCI runtime, each step side by side with runc; and images that go
                       round among longshored, dockerd, podman, skopeo and a registry (`peers images`)
  compare-builds --docker unix:///SOCKET [--dockerfiles DIRECTORY] [WORD]...
                       build a corpus of Dockerfiles (those with a word in their name) with ours and with this daemon, by the
                       classic API and by BuildKit's, and compare images down to the bytes, exit codes and errors; or what both
                       say of the Dockerfiles of well-known projects in a directory
  sdk [--docker unix:///SOCKET[@NETNS]] [SUITE]...
                       run the integration tests of docker-py, dockerode and bollard; fails if one fails that is not in
                       xtask/src/sdk/expected.toml; docker: run them against this daemon, too, from that network namespace
  bench [--peer NAME=COMMAND@CGROUP]... [--runtime NAME=COMMAND]... [--runs N] [--only ROW]... [--dist DIR] [--list]
                       measure the promised figures, of the programs in DIR or newly built ones";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let Some((command, options)) = arguments.split_first() else { bail!("{USAGE}") };
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    match (command.as_str(), options.as_slice()) {
        ("quickstart", []) => quickstart::run(),
        ("test", []) => check::test(check::Scope::Default),
        ("test", ["--all"]) => check::test(check::Scope::All),
        ("ci", []) => check::ci(),
        ("tidy", []) => tidy::run(),
        ("dist", []) => dist::build(dist::Kind::Release).map(drop),
        ("dist", ["--dev"]) => dist::build(dist::Kind::Dev).map(drop),
        ("images", []) => images::run(),
        ("validate", options) => validate::run(options),
        ("soak", []) => check::soak("1800"),
        ("soak", [seconds]) => check::soak(seconds),
        ("peers", names) => peers::run(names),
        ("compare-builds", options) => builds::run(options),
        ("sdk", options) => sdk::run(options),
        ("bench", options) => bench::run(options),
        ("vm", words) => vm::command(words),
        ("vm-test", words) => vm::runtime_test(words),
        // What `vm` starts in the machine.
        ("vm-guest", [plan]) => vm::guest(std::path::Path::new(plan)),
        _ => bail!("{USAGE}"),
    }
}
