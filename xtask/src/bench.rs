//! The promised figures, measured side by side with other engines in one run.
//!
//! [`rows`] is the table of what is measured and promised; [`runner`] makes the samples, interleaved (A B A B), so that
//! a slow minute of the machine hits everyone; [`report`] prints medians with their spread and compares.
//!
//! Wall time comes from the monotonic clock. CPU comes from the cgroup accounting of client, daemon, shims and
//! containers together ([`cpu`]), read after 30 ms of idle that follow the command: work done after the answer counts.
//! Rows of OCI runtimes ([`oci`]) have no daemon.
//! Our own daemon runs in scratch directories; peers are running engines named on the command line:
//!
//! ```text
//! cargo xtask bench --peer 'docker=docker -H unix:///run/docker.sock@system.slice/docker.service' --runs 20
//! ```
//!
//! **Peers in namespaces of their own** are entered by nsenter(1); its part of each of their figures is measured and shown:
//!
//! ```text
//! --peer 'podman=nsenter --target PID --mount --net --uts --ipc -- podman@libpod_parent'
//! ```
//!
//! **Pulls** are from `--registry DIR`, what a docker-registry has stored, with `big10:latest` in it (`skopeo copy` puts it
//! there). We start one on it, on a free port. Peers that do not see our loopback need one on the same directory in their
//! namespace, at `--peer-registry ADDRESS:PORT`: then everybody's bytes are the same, from the same page cache. Without a
//! directory the row is left out.
//!
//! **Archives** are loaded from `--archive FILE`, a docker-archive with `big10:latest` in it, and saved beside it: peers in
//! a file system of their own must see it under the same name. Without it those rows are left out. What is pushed is loaded from
//! it, too; each push has an empty registry, for peers in the network namespace `--peer-netns FILE`.
//!
//! **Builds** have their contexts made in `--contexts DIR`, which peers in a file system of their own must see under the same name;
//! without it those rows are left out. A peer called `buildah` is measured in these rows alone. Docker's client gets buildx as a plugin.
//!
//! **Requests** go to the web server of `--net-archive FILE`, a docker-archive of `netlab:latest` with nginx, wrk and their
//! libraries, `/etc/ng.conf` that says port 80, and a page `k1`; those of peers from `--peer-netns FILE`. Ask for 9 `--runs`.

mod archives;
mod building;
mod cpu;
mod engine;
mod first_run;
mod http;
mod names;
mod oci;
mod pull;
mod report;
mod rows;
mod runner;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use testkit::paths;

use crate::dist;
use engine::Peer;

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    peers: Vec<Peer>,
    runs: usize,
    only: Vec<String>,
    /// Programs that are built already.
    dist: Option<PathBuf>,
    list: bool,
    /// The directory of a registry that has the image to pull.
    registry: Option<PathBuf>,
    /// `address:port` of the registry of the peers, when they do not see ours.
    peer_registry: Option<String>,
    /// The network namespace of the peers, when they do not see our loopback.
    peer_netns: Option<PathBuf>,
    /// A docker-archive that has the image to load and save.
    archive: Option<PathBuf>,
    /// Where contexts of builds are made.
    contexts: Option<PathBuf>,
    /// A docker-archive of a web server.
    net_archive: Option<PathBuf>,
    /// OCI runtimes.
    runtimes: Vec<Peer>,
}

/// The names of all rows, for docs/acceptance.md.
pub(crate) fn row_names() -> impl Iterator<Item = &'static str> {
    rows::ROWS.iter().map(|row| row.name)
}

/// Measures; an error when a promise is not kept.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let options = parse(arguments)?;
    let rows = chosen(&options)?;
    if options.list {
        rows::ROWS.iter().for_each(|row| println!("{:12} {}", row.name, row.about));
        return Ok(());
    }
    ensure!(rustix::process::geteuid().is_root(), "containers need root");
    let dist = match &options.dist {
        Some(dist) => dist.clone(),
        None => dist::build(dist::Kind::Release)?,
    };
    let (of_runtimes, of_engines): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| is_of_runtimes(row));
    let (mut results, finished) = engines(&dist, &options, &of_engines)?;
    results.extend(runtimes(&dist, &options, &of_runtimes)?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    report::write(&results, &paths::target().join("bench").join(format!("{now}.jsonl")))?;
    print!("{}{}", report::table(&results), report::left_out(&results, &options));
    finished?;
    let broken = results.iter().filter(|result| report::verdict(result) == report::Verdict::Broken).count();
    ensure!(broken == 0, "{broken} promises are not kept");
    Ok(())
}

/// What was measured, and whether anything was left behind.
type Outcome = (Vec<runner::Measured>, Result<()>);

fn engines(dist: &Path, options: &Options, rows: &[&rows::Row]) -> Result<Outcome> {
    if rows.is_empty() {
        return Ok((Vec::new(), Ok(())));
    }
    let mut runner = runner::Runner::start(dist, options)?;
    let measured: Result<Vec<_>> = rows.iter().map(|row| announced(row, |row| runner.measure(row))).collect();
    let measured = measured.and_then(|results| Ok([runner.ways_in()?, results].concat()));
    let finished = runner.finish();
    // The failed measurement says more than what it left behind.
    Ok((measured?, finished))
}

fn runtimes(dist: &Path, options: &Options, rows: &[&rows::Row]) -> Result<Vec<runner::Measured>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut runtimes = oci::Runtimes::start(dist, &options.runtimes, options.runs)?;
    rows.iter().map(|row| announced(row, |row| runtimes.measure(row))).collect()
}

fn announced<T>(row: &rows::Row, measure: impl FnOnce(&rows::Row) -> Result<T>) -> Result<T> {
    println!("{}: {}", row.name, row.about);
    measure(row).with_context(|| row.name.to_owned())
}

fn is_of_runtimes(row: &rows::Row) -> bool {
    matches!(row.work, rows::Work::Oci(_))
}

/// The rows to measure. Without a runtime beside ours there is nothing to compare its rows with; they are measured if they
/// are named. Without a registry nothing is pulled, which is an error only when somebody named the row; likewise archives.
fn chosen(options: &Options) -> Result<Vec<&'static rows::Row>> {
    let named = |row: &rows::Row| options.only.iter().any(|only| only == row.name);
    let lacks = |row: &rows::Row| match row.work {
        rows::Work::Pull(_) if options.registry.is_none() => Some("--registry"),
        rows::Work::Load(_) | rows::Work::Save(_) | rows::Work::Push(_) | rows::Work::PeakMemory
            if options.archive.is_none() =>
        {
            Some("--archive")
        }
        rows::Work::Build { .. } | rows::Work::BuildMemory if options.contexts.is_none() => Some("--contexts"),
        rows::Work::Requests { .. } if options.net_archive.is_none() => Some("--net-archive"),
        _ => None,
    };
    if let Some((row, option)) = rows::ROWS.iter().filter(|row| named(row)).find_map(|row| Some((row, lacks(row)?))) {
        bail!("{} needs {option}", row.name);
    }
    let possible = |row: &rows::Row| lacks(row).is_none();
    let comparable = |row: &rows::Row| possible(row) && (!options.runtimes.is_empty() || !is_of_runtimes(row));
    Ok(rows::ROWS.iter().filter(|row| named(row) || options.only.is_empty() && comparable(row)).collect())
}

fn parse(arguments: &[&str]) -> Result<Options> {
    let mut options = Options { runs: 20, ..Options::default() };
    let mut rest = arguments.iter();
    while let Some(&flag) = rest.next() {
        if flag == "--list" {
            options.list = true;
            continue;
        }
        let value = *rest.next().with_context(|| format!("{flag} needs a value"))?;
        match flag {
            "--runtime" => options.runtimes.push(Peer::parse(value)?),
            "--peer" => options.peers.push(Peer::parse(value)?),
            "--runs" => options.runs = value.parse().with_context(|| format!("--runs {value}"))?,
            "--dist" => options.dist = Some(std::path::absolute(value)?),
            "--registry" => options.registry = Some(std::path::absolute(value)?),
            "--archive" => options.archive = Some(std::path::absolute(value)?),
            "--net-archive" => options.net_archive = Some(std::path::absolute(value)?),
            "--contexts" => options.contexts = Some(std::path::absolute(value)?),
            "--peer-netns" => options.peer_netns = Some(std::path::absolute(value)?),
            "--peer-registry" => options.peer_registry = Some(value.to_owned()),
            "--only" if row_names().any(|name| name == value) => options.only.push(value.to_owned()),
            "--only" => bail!("no row {value}: see --list"),
            _ => bail!("unknown option {flag}"),
        }
    }
    ensure!(options.runs > 0, "--runs 0 measures nothing");
    Ok(options)
}

#[cfg(test)]
mod tests;
