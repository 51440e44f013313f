//! OCI runtimes, side by side on one bundle: busybox, and the config.json that dockerd 28.5 gives to its runtime for
//! `docker run --network none busybox` (`docker.json`), with a network namespace of its own.
//!
//! ```text
//! --runtime 'crun=crun'      one that can be called here; ours is longshore-runtime of the programs measured
//! ```
//!
//! Everyone's state is on tmpfs, as `/run` is. Containers are accounted below our own cgroup, so that what they cost counts.
//! Everything before and after the command that is measured is not; 30 ms lie between. No daemon runs. To measure runtimes
//! of another root directory, run this program in there (it needs busybox and `--dist`).

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
#[cfg(test)]
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{paths, process};

use super::cpu::Accounts;
use super::engine::{Engine, IDLE, Peer, Sample};
use super::rows::{Oci, Row, Work};
use super::runner::{Measured, ON_TMPFS, Series, Values, WARM_UP};

/// What Docker's configuration is: everything but the command, the root and the cgroup.
const DOCKER: &str = include_str!("oci/docker.json");

/// Ours and the peers.
pub(super) struct Runtimes {
    engines: Vec<Engine>,
    scratch: TempDir,
    runs: usize,
    fresh: usize,
    // Last: dropped when nobody is in its cgroups any more.
    _accounts: Accounts,
}

impl Runtimes {
    pub(super) fn start(dist: &Path, peers: &[Peer], runs: usize) -> Result<Runtimes> {
        let scratch = tempfile::Builder::new().prefix("longshore-bench-").tempdir_in(ON_TMPFS)?;
        let accounts = Accounts::new()?;
        let (cgroup, containers) = accounts.containers()?;
        make_root(&scratch.path().join("rootfs"))?;
        for (name, args) in [("true", ["/bin/true"].as_slice()), ("sleep", &["/bin/sleep", "100000"])] {
            let directory = scratch.path().join(name);
            fs::create_dir(&directory)?;
            fs::write(directory.join("config.json"), config(args, &scratch.path().join("rootfs"), &cgroup)?)?;
        }
        let client = accounts.enter("client")?;
        let ours = dist.join("longshore-runtime").display().to_string();
        let ours = Peer { name: "longshore".into(), prefix: vec![ours], cgroup: None };
        let engine = |peer: &Peer| {
            let root = scratch.path().join(format!("root-{}", peer.name)).display().to_string();
            Engine {
                name: peer.name.clone(),
                prefix: [peer.prefix.as_slice(), &["--root".to_owned(), root]].concat(),
                environment: Vec::new(),
                cgroups: vec![client.clone(), containers.clone()],
                registry: None,
            }
        };
        let engines = std::iter::once(&ours).chain(peers).map(engine).collect();
        Ok(Runtimes { engines, scratch, runs, fresh: 0, _accounts: accounts })
    }

    /// Interleaved, as every row.
    pub(super) fn measure(&mut self, row: &Row) -> Result<Measured> {
        let Work::Oci(work) = row.work else { anyhow::bail!("{} is no row of runtimes", row.name) };
        let engines = self.engines.clone();
        let mut series: Vec<Series> = engines.iter().map(|engine| empty(engine, work)).collect();
        for round in 0..WARM_UP + self.runs {
            for (engine, series) in engines.iter().zip(&mut series) {
                let sampled = self.sample(engine, work).with_context(|| engine.name.clone())?;
                if round >= WARM_UP {
                    add(&mut series.values, sampled);
                }
            }
        }
        Ok(Measured { row: row.name, bound: row.bound, series })
    }

    fn sample(&mut self, engine: &Engine, work: Oci) -> Result<Sampled> {
        self.fresh += 1;
        let id = format!("bench{}", self.fresh);
        let sampled = match work {
            Oci::Run => self.timed(engine, &[self.line("run", "true", &id)]).map(Sampled::Time),
            Oci::BackToBack(times) => {
                let lines = vec![self.line("run", "true", &id); times];
                self.timed(engine, &lines).map(|sample| Sampled::Time(part(sample, times as u32)))
            }
            Oci::Verb { before, line } => {
                let words = |line: &[&str]| self.words(line, &id);
                let made = before.iter().try_for_each(|line| self.finish(engine, &words(line)));
                let sampled = made.and_then(|()| self.timed(engine, &[words(line)]));
                // Whatever there is; after `delete` there is nothing.
                let _ = self.finish(engine, &words(&["delete", "-f", "{id}"]));
                sampled.map(Sampled::Time)
            }
            Oci::Memory => self.memory(engine, &id).map(Sampled::Kib),
        };
        sampled.with_context(|| format!("{work:?}"))
    }

    fn line(&self, verb: &str, bundle: &str, id: &str) -> Vec<String> {
        self.words(&[verb, "--bundle", &format!("{{{bundle}}}"), "{id}"], id)
    }

    /// Fills in the container's name and the bundles.
    fn words(&self, line: &[&str], id: &str) -> Vec<String> {
        let bundle = |name: &str| self.scratch.path().join(name).display().to_string();
        let word = |word: &&str| match *word {
            "{id}" => id.to_owned(),
            "{true}" => bundle("true"),
            "{sleep}" => bundle("sleep"),
            other => other.to_owned(),
        };
        line.iter().map(word).collect()
    }

    /// Lines one right after the other, 30 ms after whatever was before.
    fn timed(&self, engine: &Engine, lines: &[Vec<String>]) -> Result<Sample> {
        std::thread::sleep(IDLE);
        engine.timed(|| lines.iter().try_for_each(|line| self.finish(engine, line)))
    }

    /// Runs a line. Containers keep its streams, so these are files.
    fn finish(&self, engine: &Engine, line: &[String]) -> Result<()> {
        let complaint = self.scratch.path().join("complaint");
        let status = self.begin(engine, line)?.wait()?;
        ensure!(status.success(), "{line:?}: {status}: {}", fs::read_to_string(complaint)?.trim());
        Ok(())
    }

    fn begin(&self, engine: &Engine, line: &[String]) -> Result<Child> {
        let complaint = File::create(self.scratch.path().join("complaint"))?;
        let mut command = engine.command(line)?;
        command.stderr(complaint).spawn().with_context(|| format!("start {command:?}"))
    }

    /// The most memory that `run` has had when its container runs: VmHWM of the process that waits for it.
    fn memory(&self, engine: &Engine, id: &str) -> Result<f64> {
        let mut running = self.begin(engine, &self.line("run", "sleep", id))?;
        let runs = || self.is_running(engine, id).then(|| peak(running.id()));
        let peak = process::until("the container runs", process::DEADLINE, runs).and_then(|peak| peak);
        let killed = self.finish(engine, &self.words(&["kill", "{id}", "KILL"], id));
        let waited = running.wait();
        killed?;
        waited?;
        peak
    }

    fn is_running(&self, engine: &Engine, id: &str) -> bool {
        let output = engine
            .command(&self.words(&["state", "{id}"], id))
            .and_then(|mut state: Command| Ok(state.stdout(Stdio::piped()).stderr(Stdio::null()).output()?.stdout));
        let state: Option<Value> = output.ok().and_then(|text| serde_json::from_slice(&text).ok());
        state.is_some_and(|state| state["status"] == "running")
    }
}

/// One measurement.
enum Sampled {
    Time(Sample),
    Kib(f64),
}

fn empty(engine: &Engine, work: Oci) -> Series {
    let values = if matches!(work, Oci::Memory) { Values::Kib(Vec::new()) } else { Values::Time(Vec::new()) };
    Series { engine: engine.name.clone(), values }
}

fn add(values: &mut Values, sampled: Sampled) {
    match (values, sampled) {
        (Values::Time(values), Sampled::Time(sample)) => values.push(sample),
        (Values::Kib(values), Sampled::Kib(kib)) => values.push(kib),
        _ => unreachable!("a row is of one kind"),
    }
}

/// Of so many runs, one.
fn part(sample: Sample, times: u32) -> Sample {
    Sample { wall: sample.wall / times, cpu: sample.cpu / times }
}

fn peak(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("memory of {pid}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in status")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

fn config(args: &[&str], root: &Path, cgroup: &str) -> Result<String> {
    let mut config: Value = serde_json::from_str(DOCKER)?;
    config["process"]["args"] = json!(args);
    config["root"]["path"] = json!(root);
    config["linux"]["cgroupsPath"] = json!(cgroup);
    Ok(config.to_string())
}

fn make_root(root: &Path) -> Result<()> {
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory))?;
    }
    let busybox: PathBuf = paths::busybox()?;
    fs::copy(&busybox, root.join("bin/busybox")).with_context(|| format!("copy {}", busybox.display()))?;
    for applet in ["sh", "sleep", "true"] {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::rows::ROWS;
    use super::*;

    #[test]
    fn a_bundle_is_dockers_but_for_what_is_run() {
        let config: Value = serde_json::from_str(&config(&["/bin/true"], Path::new("/r"), "/a/b").unwrap()).unwrap();
        assert_eq!(config["process"]["args"], json!(["/bin/true"]));
        assert_eq!((&config["root"]["path"], &config["linux"]["cgroupsPath"]), (&json!("/r"), &json!("/a/b")));
        for part in ["seccomp", "maskedPaths", "readonlyPaths", "namespaces"] {
            assert!(!config["linux"][part].is_null(), "{part}");
        }
    }

    #[test]
    fn privileged_every_row_is_measured_and_leaves_nothing() {
        if testkit::skip::without_root() {
            return;
        }
        let mut runtimes = Runtimes::start(&paths::dist(), &[], 1).unwrap();
        let scratch = runtimes.scratch.path().to_owned();
        for row in ROWS.iter().filter(|row| matches!(row.work, Work::Oci(_))) {
            let measured = runtimes.measure(row).unwrap();
            let samples = match &measured.series[0].values {
                Values::Time(samples) => samples.len(),
                Values::Kib(values) => values.iter().filter(|kib| **kib > 0.0).count(),
            };
            assert_eq!(samples, 1, "{}", row.name);
        }
        let containers = fs::read_dir(scratch.join("root-longshore")).unwrap().flatten();
        assert_eq!(containers.map(|entry| entry.file_name()).collect::<Vec<_>>(), [".seccomp"]);
        drop(runtimes);
        let name = format!("longshore-bench-{}", std::process::id());
        let mut hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        assert!(!hierarchies.any(|hierarchy| hierarchy.path().join(&name).exists()));
        assert!(!scratch.exists());
    }

    #[test]
    fn one_of_many_runs_is_a_part() {
        let many = Sample { wall: Duration::from_millis(50), cpu: Duration::from_millis(20) };
        assert_eq!(part(many, 10), Sample { wall: Duration::from_millis(5), cpu: Duration::from_millis(2) });
    }
}
