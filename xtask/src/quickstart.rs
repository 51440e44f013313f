//! A first container, from an empty machine to what it printed.
//!
//! The daemon runs on directories of its own below a temporary one, so that nothing of an installed Longshore or
//! Docker is touched; in the end everything is gone again. The command lines are those that a user types.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use testkit::images::Archive;
use testkit::{Cli, Daemon, paths};

use crate::step::step;
use crate::{dist, tools};

const GREETING: &str = "Hello from a container!";

/// Builds, loads the image, runs a container, shows it, cleans up.
pub(crate) fn run() -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "containers need root: try `sudo -E cargo xtask quickstart`");
    let begin = Instant::now();
    tools::install()?;
    println!("Building the programs takes minutes the first time, and seconds later.");
    let dist = dist::build(dist::Kind::Release)?;
    let image = paths::target().join("images").join(Archive::Busybox.file_name());
    step("make the busybox image", || Archive::Busybox.make(&image))?;
    let daemon = step("start longshored in a scratch directory", || Daemon::start_from(&dist, &[]))?;
    let ran = first_container(&daemon, &image);
    let ended = step("clean up", || daemon.finish());
    ran.and(ended)?;
    println!("\nDone in {:.1} s. The programs are in {};", begin.elapsed().as_secs_f64(), dist.display());
    println!("\"First steps\" in README.md goes on from here.");
    Ok(())
}

fn first_container(daemon: &Daemon, image: &Path) -> Result<()> {
    let image = image.display().to_string();
    step("longshore load -i busybox.tar", || daemon.cli(Cli::Longshore, &["load", "-i", &image])?.success().map(drop))?;
    println!("longshore run --rm --network none busybox echo '{GREETING}'");
    let begin = Instant::now();
    let output = daemon.cli(Cli::Longshore, &["run", "--rm", "--network", "none", "busybox", "echo", GREETING])?;
    let took = begin.elapsed();
    let printed = output.success()?;
    println!("  {printed}");
    println!("  took {:.1} ms", took.as_secs_f64() * 1000.0);
    ensure!(printed == GREETING, "the container printed something else");
    Ok(())
}
