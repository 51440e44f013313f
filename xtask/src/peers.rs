//! podman, containerd and dockerd on `longshore-runtime`: every step is compared with the same step on runc. And images that go
//! round among longshored, dockerd, podman, skopeo and a registry: with the same steps a second dockerd stands where longshored
//! does, which shows that they are right.
//!
//! ```text
//! chroot    Debian sid with the peers, made once: target/peers/sid
//! steps     podman.steps ... -> scripts            with runc, and at the same time with longshore-runtime:
//! lab         supervise.sh  cgroups and namespaces of their own
//!               furnish.sh  a root, mounts
//!                 run.sh    podman.sh's `up`, the steps, its `down` -> target/peers/podman/RUNTIME/said/STEP.{out,err,code}
//! compare   what they said, without ids and times; differences.toml has those that are known, with reasons
//! ```
//!
//! Both labs have equal paths, names and addresses, so that little has to be replaced before a comparison. Nothing of this
//! machine changes: what is written is in memory, and goes with the lab, also after Ctrl-C.

mod chroot;
mod compare;
mod lab;
mod steps;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use testkit::paths;

use crate::{dist, images, tools};
use compare::{Known, Said, Verdict};
use lab::{Lab, Progress};

/// The peers: each has a script with its `up` and `down`, and a file of steps.
const PEERS: [&str; 4] = ["podman", "containerd", "docker", IMAGES];

/// All of them together, about images alone.
const IMAGES: &str = "images";

/// What is compared with a peer's steps, the one that is right first.
fn compared(peer: &str) -> [&'static str; 2] {
    if peer == IMAGES { ["dockerd", "longshored"] } else { ["runc", "longshore-runtime"] }
}

/// `peers [PEER]...`
pub(crate) fn run(names: &[&str]) -> Result<()> {
    if let Some(name) = names.iter().find(|name| !PEERS.contains(name)) {
        bail!("no peer is called {name}: there are {}", PEERS.join(", "));
    }
    ensure!(rustix::process::geteuid().is_root(), "namespaces, mounts and cgroups need root");
    tools::install_for_peers()?;
    let programs = dist::build(dist::Kind::Dev)?;
    images::run()?;
    let chroot = chroot::get()?;
    println!("{}", chroot::versions(&chroot)?);
    let known = compare::known(&PEERS)?;
    let begin = Instant::now();
    let mut totals = Totals::default();
    for peer in PEERS.iter().filter(|peer| names.is_empty() || names.contains(peer)) {
        let ours = if *peer == IMAGES { programs.clone() } else { programs.join("longshore-runtime") };
        side_by_side(peer, &chroot, &[chroot.join("usr/sbin/runc"), ours], &known, &mut totals)?;
    }
    println!("{}; {:.0} s", totals.summary(), begin.elapsed().as_secs_f64());
    totals.known.iter().for_each(|line| println!("  known: {line}"));
    ensure!(totals.different.is_empty(), "not as they should be: {}", totals.different.join(", "));
    Ok(())
}

/// What became of all steps.
#[derive(Debug, Default)]
struct Totals {
    same: usize,
    known: Vec<String>,
    different: Vec<String>,
}

impl Totals {
    fn summary(&self) -> String {
        let Totals { same, known, different } = self;
        format!("{same} steps the same, {} differ as known, {} differ", known.len(), different.len())
    }

    fn take(&mut self, peer: &str, step: &str, verdict: Verdict) {
        let name = format!("{peer} {step}");
        match verdict {
            Verdict::Same => {
                println!("{name}: same");
                self.same += 1;
            }
            Verdict::Known { reason } => {
                println!("{name}: differs, as known");
                self.known.push(format!("{name}: {reason}"));
            }
            Verdict::Different { lines } => {
                println!("{name}: DIFFERS");
                lines.iter().for_each(|line| println!("    {line}"));
                self.different.push(name);
            }
        }
    }
}

/// One peer in two labs; tells of each step when both have done it.
fn side_by_side(
    peer: &str,
    chroot: &Path,
    programs: &[PathBuf; 2],
    known: &[Known],
    totals: &mut Totals,
) -> Result<()> {
    let steps = steps::load(peer)?;
    let images = paths::target().join("images");
    let mut labs = Vec::new();
    for (name, program) in compared(peer).iter().zip(programs) {
        labs.push(Lab::prepare(peer, name, chroot, program, &images, &steps)?);
    }
    let (sender, progress) = mpsc::channel();
    let mut done: BTreeMap<String, usize> = BTreeMap::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = labs
            .iter()
            .map(|lab| {
                let sender = sender.clone();
                scope.spawn(move || lab.run(&sender))
            })
            .collect();
        drop(sender);
        for Progress { step } in progress {
            let count = done.entry(step.clone()).or_default();
            *count += 1;
            if *count == labs.len() {
                let said = labs.iter().map(|lab| lab.said(&step)).collect::<Result<Vec<Said>>>()?;
                let step = steps::bare(&step);
                let verdict = compare::verdict(peer, step, &said[0], &said[1], known);
                let verdict = if peer == IMAGES { compare::of_success(verdict, &said[1]) } else { verdict };
                totals.take(peer, step, verdict);
            }
        }
        workers.into_iter().try_for_each(|worker| worker.join().expect("a lab's thread does not panic"))
    })?;
    let wanted = steps.len() + 1;
    let missing = wanted - done.values().filter(|count| **count == labs.len()).count();
    ensure!(missing == 0, "{missing} steps of {peer} were not done");
    Ok(())
}

/// A file of this module, as it is in the work tree.
fn source(name: &str) -> PathBuf {
    paths::workspace().join("xtask/src/peers").join(name)
}

/// Reads one.
fn read(name: &str) -> Result<String> {
    let path = source(name);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests;
