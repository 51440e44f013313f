//! Makes the samples.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use testkit::images::Archive;
use testkit::registry::Debian;
use testkit::{Cli, Daemon, leaks};

use super::cpu::Accounts;
use super::engine::{Engine, Peer, Sample};
use super::rows::{Bound, KILLED, Row, Scene, Work};
use super::{Options, archives, building, first_run, http, names, pull};

/// Samples of one engine for one row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    pub(super) engine: String,
    pub(super) values: Values,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    /// Wall and CPU time.
    Time(Vec<Sample>),
    /// Memory in KiB.
    Kib(Vec<f64>),
}

/// A row with everyone's samples, ours first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) row: &'static str,
    pub(super) bound: Bound,
    pub(super) series: Vec<Series>,
}

/// Our daemon and the peers.
pub(super) struct Runner {
    daemon: Daemon,
    ours: Engine,
    peers: Vec<Engine>,
    pub(super) runs: usize,
    /// The beginning of the names of all containers that we make.
    mark: String,
    fresh: usize,
    /// Keeps our containers' cgroups, and with them their accounts, when the last container goes.
    kept: Vec<PathBuf>,
    /// Our data root.
    data: TempDir,
    archive: Option<PathBuf>,
    net_archive: Option<PathBuf>,
    peer_netns: Option<PathBuf>,
    contexts: Option<PathBuf>,
    /// Ends with us.
    _registry: Option<Debian>,
    // Last: dropped when nobody is in its cgroups any more.
    accounts: Accounts,
}

/// Runs before those that count.
pub(super) const WARM_UP: usize = 2;

/// How many containers of a scene are made or removed at once: nobody measures it.
const AT_ONCE: usize = 8;

/// After so long without a client the daemon has given back what it gives back.
const REST: Duration = Duration::from_secs(2);

impl Runner {
    pub(super) fn start(dist: &Path, options: &Options) -> Result<Runner> {
        // Before we enter an account: its CPU is nobody's.
        let registry = options.registry.as_deref().map(Debian::reading).transpose()?;
        let own_registry = registry.as_ref().map(|registry| registry.host().to_owned());
        let peer_registry = options.peer_registry.clone().or_else(|| own_registry.clone());
        let accounts = Accounts::new()?;
        let daemon_cgroup = accounts.enter("daemon")?;
        let (daemon, data) = start_as_installed(dist)?;
        daemon.load(Archive::Busybox)?;
        let client_cgroup = accounts.enter("client")?;
        let mut ours = Engine {
            name: "longshore".into(),
            prefix: vec![dist.join("longshore").display().to_string()],
            environment: environment(&daemon),
            cgroups: vec![client_cgroup.clone(), daemon_cgroup],
            registry: own_registry,
        };
        // The first container makes the instance's cgroups.
        ours.run(&["run", "--rm", "--network", "none", "busybox", "true"].map(str::to_owned))?;
        let mut kept = Vec::new();
        for cgroup in accounts.of_instance(&daemon.scratch().key().unwrap_or_default()) {
            let keep = cgroup.join("bench");
            fs::create_dir(&keep).with_context(|| format!("create {}", keep.display()))?;
            kept.push(keep);
            ours.cgroups.push(cgroup);
        }
        let engine = |peer: &Peer| Engine {
            name: peer.name.clone(),
            prefix: peer.prefix.clone(),
            environment: Vec::new(),
            cgroups: [vec![client_cgroup.clone()], peer.cgroup.iter().map(|name| accounts.named(name)).collect()]
                .concat(),
            registry: peer_registry.clone(),
        };
        let peers = options.peers.iter().map(engine).collect();
        let mark = format!("bench{}", std::process::id());
        let (runs, fresh) = (options.runs, 0);
        let (archive, net_archive) = (options.archive.clone(), options.net_archive.clone());
        let (peer_netns, contexts, _registry) = (options.peer_netns.clone(), options.contexts.clone(), registry);
        Ok(Runner {
            daemon,
            ours,
            peers,
            runs,
            mark,
            fresh,
            kept,
            data,
            archive,
            net_archive,
            peer_netns,
            contexts,
            _registry,
            accounts,
        })
    }

    /// What of the figures of peers is the way into their namespaces.
    pub(super) fn ways_in(&mut self) -> Result<Vec<Measured>> {
        let entered: Vec<Engine> = self.peers.iter().filter_map(Engine::way_in).collect();
        let sample = |_: &mut Runner, engine: &Engine| engine.sample(&["true".to_owned()]);
        let series = self.interleaved(&entered, self.runs, sample)?;
        Ok(series
            .into_iter()
            .map(|series| Measured { row: "nsenter", bound: Bound::Part, series: vec![series] })
            .collect())
    }

    /// Sets the row's scene in every engine that it measures, samples, and clears the scene again.
    pub(super) fn measure(&mut self, row: &Row) -> Result<Measured> {
        let engines = self.engines(row.work)?;
        let made = engines.iter().try_for_each(|engine| self.set(row.scene, engine));
        let series = made.and_then(|()| self.sample(row, &engines));
        let cleared = engines.iter().map(|engine| self.clear(row.scene, engine)).collect::<Vec<Result<()>>>();
        let series = series?;
        cleared.into_iter().collect::<Result<()>>()?;
        Ok(Measured { row: row.name, bound: row.bound, series })
    }

    /// Ends our daemon and looks for what it left.
    pub(super) fn finish(self) -> Result<()> {
        for keep in &self.kept {
            // The daemon may have removed it with the rest: then there is nothing to do.
            let _ = fs::remove_dir(keep);
        }
        let finished = self.daemon.finish();
        drop(self.accounts);
        finished
    }

    fn engines(&self, work: Work) -> Result<Vec<Engine>> {
        // Buildah builds and runs nothing.
        let runs = self.peers.iter().filter(|peer| peer.name != "buildah");
        let all = || std::iter::once(&self.ours).chain(runs).cloned().collect();
        Ok(match work {
            Work::Line { .. } | Work::Burst { .. } | Work::Once { .. } | Work::RemoveScene => all(),
            Work::Pull(_) | Work::Load(_) | Work::Save(_) | Work::Push(_) | Work::Requests { .. } => all(),
            Work::Build { .. } => std::iter::once(&self.ours).chain(&self.peers).cloned().collect(),
            Work::DockerLine(_) => {
                let docker = self.peers.iter().find(|peer| peer.name == "docker");
                let ours = Engine {
                    name: "longshore".into(),
                    prefix: vec![match docker {
                        Some(peer) => peer.prefix[0].clone(),
                        None => docker_client(&self.daemon)?,
                    }],
                    ..self.ours.clone()
                };
                std::iter::once(ours).chain(docker.cloned()).collect()
            }
            _ => vec![self.ours.clone()],
        })
    }

    fn sample(&mut self, row: &Row, engines: &[Engine]) -> Result<Vec<Series>> {
        let values = match row.work {
            Work::Line { line, cleanup } => {
                return self.interleaved(engines, self.runs, |runner, engine| runner.line(engine, line, cleanup));
            }
            Work::DockerLine(line) => {
                return self.interleaved(engines, self.runs, |runner, engine| runner.line(engine, line, &[]));
            }
            Work::Burst { line, cleanup, times, at_once } => {
                return self.interleaved(engines, self.runs, |runner, engine| {
                    runner.burst(engine, line, cleanup, times, at_once)
                });
            }
            Work::Once { line, cleanup, times } => {
                return self.rounds(engines, 0, 1, |runner, engine| runner.burst(engine, line, cleanup, times, 1));
            }
            Work::OurLine { line, cleanup } => {
                return self.interleaved(engines, self.runs, |runner, engine| runner.line(engine, line, cleanup));
            }
            Work::RemoveScene => {
                return self.interleaved(engines, self.runs, |runner, engine| runner.remove_scene(engine, row.scene));
            }
            Work::Pull(image) => {
                for engine in engines {
                    pull::forget(engine, &image_name(engine, image)?);
                }
                return self.interleaved(engines, self.runs, |runner, engine| runner.pull(engine, image));
            }
            Work::Load(image) => {
                engines.iter().for_each(|engine| pull::forget(engine, image));
                return self.interleaved(engines, self.runs, |runner, engine| runner.load(engine, image));
            }
            Work::Save(image) => return self.saves(engines, image),
            Work::Push(image) => {
                engines.iter().for_each(|engine| pull::forget(engine, image));
                return self.interleaved(engines, self.runs, |runner, engine| push(runner, engine, image));
            }
            Work::Requests { way, connections } => return requests(self, engines, way, connections),
            Work::Build { tree, cached } => {
                let contexts = self.contexts.clone().context("no --contexts")?;
                return building::samples(self, engines, &contexts, (tree, cached));
            }
            Work::BuildMemory => Values::Kib(vec![build_memory(self)?]),
            Work::Names { askers } => Values::Time(self.ask_names(row.scene, askers)?),
            Work::DaemonMemory => Values::Kib(vec![self.daemon_memory()?]),
            Work::PeakMemory => Values::Kib(vec![peak(self.daemon.pid().context("the daemon is down")?)?]),
            Work::RestMemory => {
                std::thread::sleep(REST);
                Values::Kib(vec![self.daemon_memory()?])
            }
            Work::ShimMemory => Values::Kib(vec![self.shim_memory()?]),
            Work::Ready => Values::Time(self.ready()?),
            Work::FirstRun(line) => Values::Time(first_run::samples(self.daemon.dist(), line, self.runs)?),
            Work::Oci(_) => bail!("{} has no daemon", row.name),
        };
        Ok(vec![Series { engine: self.ours.name.clone(), values }])
    }

    /// A B A B: each engine once per round.
    pub(super) fn interleaved(
        &mut self,
        engines: &[Engine],
        runs: usize,
        sample: impl FnMut(&mut Runner, &Engine) -> Result<Sample>,
    ) -> Result<Vec<Series>> {
        self.rounds(engines, WARM_UP, runs, sample)
    }

    /// The same with so many rounds that do not count before those that do.
    fn rounds(
        &mut self,
        engines: &[Engine],
        warm_up: usize,
        runs: usize,
        mut sample: impl FnMut(&mut Runner, &Engine) -> Result<Sample>,
    ) -> Result<Vec<Series>> {
        let mut samples = vec![Vec::with_capacity(runs); engines.len()];
        for round in 0..warm_up + runs {
            for (engine, samples) in engines.iter().zip(&mut samples) {
                let sample = sample(self, engine)?;
                if round >= warm_up {
                    samples.push(sample);
                }
            }
        }
        let series = |(engine, samples): (&Engine, Vec<Sample>)| Series {
            engine: engine.name.clone(),
            values: Values::Time(samples),
        };
        Ok(engines.iter().zip(samples).map(series).collect())
    }

    fn line(&mut self, engine: &Engine, line: &[&str], cleanup: &[&str]) -> Result<Sample> {
        self.fresh += 1;
        let sample = engine.sample(&self.names(engine, line))?;
        if !cleanup.is_empty() {
            engine.run(&self.names(engine, cleanup))?;
        }
        Ok(sample)
    }

    fn burst(
        &mut self,
        engine: &Engine,
        line: &[&str],
        cleanup: &[&str],
        times: usize,
        at_once: usize,
    ) -> Result<Sample> {
        let mut lines = Vec::with_capacity(times);
        let mut cleanups = Vec::with_capacity(times);
        for _ in 0..times {
            self.fresh += 1;
            lines.push(self.names(engine, line));
            cleanups.push(self.names(engine, cleanup));
        }
        let sample = engine.burst(&lines, at_once);
        // Also after a failure: a peer would keep the containers.
        let cleaned = engine.run_all(&cleanups, AT_ONCE);
        let sample = sample?;
        cleaned?;
        Ok(sample)
    }

    fn pull(&self, engine: &Engine, image: &str) -> Result<Sample> {
        let ours = engine.name == self.ours.name;
        pull::sample(engine, &image_name(engine, image)?, ours.then_some(self.data.path()))
    }

    fn load(&self, engine: &Engine, image: &str) -> Result<Sample> {
        let ours = engine.name == self.ours.name;
        archives::load(engine, self.archive()?, image, ours.then_some(self.data.path()))
    }

    /// Each engine has the image for so long.
    fn saves(&mut self, engines: &[Engine], image: &str) -> Result<Vec<Series>> {
        let archive = self.archive()?.to_owned();
        for engine in engines {
            engine.run(&["load".into(), "-q".into(), "-i".into(), archive.display().to_string()])?;
        }
        let saved = self.interleaved(engines, self.runs, |_, engine| archives::save(engine, &archive, image));
        engines.iter().for_each(|engine| pull::forget(engine, image));
        saved
    }

    fn archive(&self) -> Result<&Path> {
        self.archive.as_deref().context("no archive")
    }

    /// Leaves the scene as it found it.
    fn remove_scene(&mut self, engine: &Engine, scene: Scene) -> Result<Sample> {
        let sample = engine.sample(&self.removal(scene, engine))?;
        self.set(scene, engine)?;
        Ok(sample)
    }

    /// Fills in names. They are an engine's own: two of the clients may talk to one daemon.
    fn names(&self, engine: &Engine, line: &[&str]) -> Vec<String> {
        let scene = self.scene_name(engine);
        let fresh = format!("{scene}f{}", self.fresh);
        line.iter().map(|part| part.replace("{scene}", &scene).replace("{fresh}", &fresh)).collect()
    }

    /// The beginning of the names of a scene's containers.
    fn scene_name(&self, engine: &Engine) -> String {
        format!("{}-{}-", self.mark, engine.name)
    }

    fn set(&self, scene: Scene, engine: &Engine) -> Result<()> {
        let (count, verb, network): (usize, &[&str], &[&str]) = match scene {
            Scene::Empty => return Ok(()),
            Scene::Running(count) => (count, &["run", "-d"], &NO_NETWORK),
            Scene::Bridged(count) => (count, &["run", "-d"], &[]),
            Scene::Networked => {
                engine.run(&self.names(engine, &["network", "create", "{scene}net"]))?;
                (1, &["run", "-d"], &[])
            }
            Scene::Named(count) => {
                engine.run(&self.names(engine, &["network", "create", "{scene}net"]))?;
                (count, &["run", "-d"], &["--network", "{scene}net"])
            }
            Scene::Stopped(count) => (count, &["create"], &NO_NETWORK),
            Scene::Logged(lines) => {
                let name = format!("{}0", self.scene_name(engine));
                let lines = lines.to_string();
                let line = ["run", "-d", "--network", "none", "--name", &name, "busybox", "seq", &lines];
                engine.run(&self.names(engine, &line))?;
                return engine.run(&self.names(engine, &["wait", "{scene}0"]));
            }
            Scene::Served => return http::set(engine, net_archive(self)?, &self.scene_name(engine)),
            Scene::Images(count) => {
                return archives::load_many(engine, &image_names(&self.scene_name(engine), count).collect::<Vec<_>>());
            }
        };
        let line = |number: usize| {
            let name = format!("{}{number}", self.scene_name(engine));
            let line = [verb, &KILLED, network, &["--name", &name, "busybox", "sleep", "100000"]].concat();
            self.names(engine, &line)
        };
        engine.run_all(&(0..count).map(line).collect::<Vec<_>>(), AT_ONCE)?;
        if let Scene::Stopped(_) = scene {
            engine.run(&self.names(engine, &["start", "{scene}0"]))?;
            engine.run(&self.names(engine, &["kill", "{scene}0"]))?;
        }
        Ok(())
    }

    fn clear(&self, scene: Scene, engine: &Engine) -> Result<()> {
        match scene {
            Scene::Empty => return Ok(()),
            Scene::Served => return http::clear(engine, &self.scene_name(engine)),
            _ => {}
        }
        engine.run(&self.removal(scene, engine))?;
        match scene {
            Scene::Named(_) | Scene::Networked => engine.run(&self.names(engine, &["network", "rm", "{scene}net"])),
            _ => Ok(()),
        }
    }

    /// The line that removes a scene.
    fn removal(&self, scene: Scene, engine: &Engine) -> Vec<String> {
        let count = match scene {
            Scene::Images(count) => {
                return ["rmi", "-f"]
                    .map(str::to_owned)
                    .into_iter()
                    .chain(image_names(&self.scene_name(engine), count))
                    .collect();
            }
            Scene::Empty | Scene::Served => 0,
            Scene::Logged(_) | Scene::Networked => 1,
            Scene::Running(count) | Scene::Bridged(count) | Scene::Named(count) | Scene::Stopped(count) => count,
        };
        ["rm".to_owned(), "-f".to_owned()].into_iter().chain(self.numbered(engine, count)).collect()
    }

    fn numbered(&self, engine: &Engine, count: usize) -> impl Iterator<Item = String> {
        let scene = self.scene_name(engine);
        (0..count).map(move |number| format!("{scene}{number}"))
    }

    fn ask_names(&self, scene: Scene, askers: usize) -> Result<Vec<Sample>> {
        let Scene::Named(count) = scene else { bail!("nobody has a name") };
        let names: Vec<String> = self.numbered(&self.ours, count).collect();
        let pid = |name: &String| -> Result<i32> {
            let shown = self.daemon.cli(Cli::Longshore, &["inspect", "-f", "{{.State.Pid}}", name])?;
            Ok(shown.stdout.trim().parse()?)
        };
        let askers = names.iter().take(askers).map(pid).collect::<Result<Vec<_>>>()?;
        names::samples(&askers, &names, self.runs)
    }

    fn daemon_memory(&self) -> Result<f64> {
        pss(self.daemon.pid().context("the daemon is down")?)
    }

    fn shim_memory(&self) -> Result<f64> {
        let found = leaks::find(self.daemon.scratch().path(), self.daemon.scratch().key().as_deref())?;
        let shims: Vec<u32> = found
            .processes
            .iter()
            .filter_map(|(pid, _)| u32::try_from(*pid).ok())
            .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.contains("shim")))
            .collect();
        ensure!(!shims.is_empty(), "no shim runs");
        let sum = shims.iter().map(|pid| pss(*pid)).sum::<Result<f64>>()?;
        Ok(sum / shims.len() as f64)
    }

    fn ready(&mut self) -> Result<Vec<Sample>> {
        self.accounts.enter("daemon")?;
        let mut samples = Vec::new();
        for _ in 0..self.runs {
            self.daemon.stop()?;
            let begin = Instant::now();
            self.daemon.restart()?;
            samples.push(Sample { wall: begin.elapsed(), cpu: Duration::ZERO });
        }
        self.accounts.enter("client")?;
        Ok(samples)
    }
}

/// Where a directory on tmpfs is made.
pub(super) const ON_TMPFS: &str = "/dev/shm";

/// Our daemon as it is installed, and as dockerd's peers are: the data root on disk, the exec root on tmpfs, as `/run` is.
/// Where temporary directories are on disk, an inode of ext4 would count that no user pays for.
fn start_as_installed(dist: &Path) -> Result<(Daemon, TempDir)> {
    let data = tempfile::Builder::new().prefix("longshore-bench-").tempdir()?;
    let root = data.path().to_str().context("a temporary directory has a name in UTF-8")?;
    // Only the first call counts; there is one runner.
    let _ = tempfile::env::override_temp_dir(Path::new(ON_TMPFS));
    let daemon = Daemon::start_from(dist, &["--data-root", root])?;
    Ok((daemon, data))
}

/// They are an engine's own, as those of containers.
fn image_names(scene: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("{scene}image:{number}"))
}

const NO_NETWORK: [&str; 2] = ["--network", "none"];

fn push(runner: &Runner, engine: &Engine, image: &str) -> Result<Sample> {
    let ours = engine.name == runner.ours.name;
    let netns = runner.peer_netns.as_deref().filter(|_| !ours);
    archives::push(engine, runner.archive()?, image, netns, ours.then_some(runner.data.path()))
}

fn net_archive(runner: &Runner) -> Result<&Path> {
    runner.net_archive.as_deref().context("no --net-archive")
}

fn requests(runner: &Runner, engines: &[Engine], way: http::Way, connections: usize) -> Result<Vec<Series>> {
    let elsewhere = |engine: &Engine| runner.peer_netns.as_deref().filter(|_| engine.name != runner.ours.name);
    let servers: Vec<http::Server<'_>> =
        engines.iter().map(|engine| (engine, runner.scene_name(engine), elsewhere(engine))).collect();
    let samples = http::samples(net_archive(runner)?, &servers, way, connections, runner.runs)?;
    Ok(samples.into_iter().map(|(engine, samples)| Series { engine, values: Values::Time(samples) }).collect())
}

fn image_name(engine: &Engine, image: &str) -> Result<String> {
    let registry = engine.registry.as_deref().with_context(|| format!("{}: no registry", engine.name))?;
    Ok(format!("{registry}/{image}"))
}

fn environment(daemon: &Daemon) -> Vec<(String, PathBuf)> {
    let host = format!("unix://{}", daemon.socket().display());
    let home = daemon.scratch().home();
    vec![("DOCKER_HOST".into(), host.into()), ("DOCKER_CONFIG".into(), home.join(".docker")), ("HOME".into(), home)]
}

fn docker_client(daemon: &Daemon) -> Result<String> {
    let command = daemon.command(Cli::Docker)?;
    Ok(command.get_program().to_string_lossy().into_owned())
}

/// What it takes at most while it builds: its peak is counted anew (proc_pid_clear_refs(5)).
fn build_memory(runner: &Runner) -> Result<f64> {
    let pid = runner.daemon.pid().context("the daemon is down")?;
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("forget the daemon's peak")?;
    building::everything(&runner.ours, runner.contexts.as_deref().context("no --contexts")?)?;
    peak(pid)
}

/// The largest resident set so far in KiB, shared pages in whole (proc_pid_status(5), VmHWM).
fn peak(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("memory of {pid}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in status")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Proportional set size in KiB: shared pages are counted in parts. Read at once, with what the last work left behind.
pub(super) fn pss(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).with_context(|| format!("memory of {pid}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss in smaps_rollup")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
