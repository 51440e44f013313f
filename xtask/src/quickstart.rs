//! A first container, from an empty machine to what it printed, and a second one that serves a page.
//!
//! The daemon runs on directories of its own below a temporary one, so that nothing of an installed Longshore or
//! Docker is touched; in the end everything is gone again. The command lines are those that a user types.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use testkit::images::Archive;
use testkit::{Cli, Daemon, http, paths, process};

use crate::step::step;
use crate::{dist, tools};

const GREETING: &str = "Hello from a container!";

/// What the page says.
const PAGE: &str = "Hello from a published port!";

/// Builds, loads the image, runs a container, fetches a page from another one, shows both, cleans up.
pub(crate) fn run() -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "containers need root: try `sudo -E cargo xtask quickstart`");
    let begin = Instant::now();
    tools::install()?;
    println!("Building the programs takes minutes the first time, and seconds later.");
    let dist = dist::build(dist::Kind::Release)?;
    let image = paths::target().join("images").join(Archive::Busybox.file_name());
    step("make the busybox image", || Archive::Busybox.make(&image))?;
    let daemon = step("start longshored in a scratch directory", || Daemon::start_from(&dist, &[]))?;
    let ran = first_container(&daemon, &image).and_then(|()| first_page(&daemon));
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

/// Publishes a port and fetches from it.
fn first_page(daemon: &Daemon) -> Result<()> {
    let serve = format!("echo '{PAGE}' >/index.html; exec httpd -f");
    println!("longshore run -d --name web -p 127.0.0.1::80 busybox sh -c \"{serve}\"");
    let run = ["run", "-d", "--name", "web", "-p", "127.0.0.1::80", "busybox", "sh", "-c", &serve];
    daemon.cli(Cli::Longshore, &run)?.success()?;
    let port = daemon.cli(Cli::Longshore, &["port", "web", "80"])?;
    let address = port.success()?;
    println!("  http://{address}/");
    // The program listens a moment after its container runs.
    let page = process::until("a page", process::DEADLINE, || fetch(address).ok())?;
    println!("  {page}");
    ensure!(page == PAGE, "the container served something else");
    Ok(())
}

fn fetch(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(process::DEADLINE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let answer = http::read_response(&mut BufReader::new(stream))?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(answer.text().trim().to_owned())
}
