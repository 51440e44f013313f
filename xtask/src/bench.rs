//! The promised figures, measured side by side with other engines in one run.
//!
//! [`rows`] is the table of what is measured and promised; [`runner`] makes the samples, interleaved (A B A B), so that
//! a slow minute of the machine hits everyone; [`report`] prints medians with their spread and compares.
//!
//! Wall time comes from the monotonic clock. CPU comes from the cgroup accounting of client, daemon, shims and
//! containers together ([`cpu`]), read after 30 ms of idle that follow the command: work done after the answer counts.
//! Our own daemon runs in scratch directories; peers are running engines named on the command line:
//!
//! ```text
//! cargo xtask bench --peer 'docker=docker -H unix:///run/docker.sock@system.slice/docker.service' --runs 20
//! ```

mod cpu;
mod engine;
mod first_run;
mod report;
mod rows;
mod runner;

use std::path::PathBuf;
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
}

/// The names of all rows, for docs/acceptance.md.
pub(crate) fn row_names() -> impl Iterator<Item = &'static str> {
    rows::ROWS.iter().map(|row| row.name)
}

/// Measures; an error when a promise is not kept.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let options = parse(arguments)?;
    let chosen = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let rows: Vec<&rows::Row> = rows::ROWS.iter().filter(|row| chosen(row.name)).collect();
    if options.list {
        rows.iter().for_each(|row| println!("{:12} {}", row.name, row.about));
        return Ok(());
    }
    ensure!(rustix::process::geteuid().is_root(), "containers need root");
    let dist = match options.dist {
        Some(dist) => dist,
        None => dist::build(dist::Kind::Release)?,
    };
    let mut runner = runner::Runner::start(&dist, &options.peers, options.runs)?;
    let measure = |row: &&rows::Row| {
        println!("{}: {}", row.name, row.about);
        runner.measure(row).with_context(|| row.name.to_owned())
    };
    let measured: Result<Vec<_>> = rows.iter().map(measure).collect();
    let finished = runner.finish();
    // The failed measurement says more than what it left behind.
    let results = measured?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    report::write(&results, &paths::target().join("bench").join(format!("{now}.jsonl")))?;
    print!("{}", report::table(&results));
    finished?;
    let broken = results.iter().filter(|result| report::verdict(result) == report::Verdict::Broken).count();
    ensure!(broken == 0, "{broken} promises are not kept");
    Ok(())
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
            "--peer" => options.peers.push(Peer::parse(value)?),
            "--runs" => options.runs = value.parse().with_context(|| format!("--runs {value}"))?,
            "--dist" => options.dist = Some(std::path::absolute(value)?),
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
