//! Who is measured.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cpu;

/// An engine named on the command line: `NAME=COMMAND PREFIX@CGROUP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) prefix: Vec<String>,
    /// Below the hierarchy's root; `None` for an engine without a daemon.
    pub(super) cgroup: Option<String>,
}

impl Peer {
    pub(super) fn parse(text: &str) -> Result<Peer> {
        let (name, rest) = text.split_once('=').with_context(|| format!("--peer {text}: not NAME=COMMAND@CGROUP"))?;
        let (command, cgroup) = match rest.rsplit_once('@') {
            Some((command, cgroup)) => (command, Some(cgroup.to_owned())),
            None => (rest, None),
        };
        let prefix: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        ensure!(!name.is_empty() && !prefix.is_empty(), "--peer {text}: not NAME=COMMAND@CGROUP");
        Ok(Peer { name: name.to_owned(), prefix, cgroup })
    }
}

/// A client that can be called, and where the CPU of all that it causes is counted.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    pub(super) name: String,
    pub(super) prefix: Vec<String>,
    /// Set for the client.
    pub(super) environment: Vec<(String, PathBuf)>,
    pub(super) cgroups: Vec<PathBuf>,
    /// `address:port` of the registry that it pulls from, if there is one.
    pub(super) registry: Option<String>,
}

/// One run of a command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
}

/// How long nothing happens after a run: back-to-back runs hide waits for RCU grace periods, and what an engine does
/// after it has answered belongs to its CPU time.
pub(super) const IDLE: Duration = Duration::from_millis(30);

impl Engine {
    pub(super) fn command(&self, line: &[String]) -> Result<Command> {
        let (program, first) = self.prefix.split_first().context("an engine without a command")?;
        let mut command = Command::new(program);
        command.args(first).args(line).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(command)
    }

    /// The same way to another program, for a client that nsenter(1) starts in the namespaces of its engine: what of each
    /// figure is not the engine's.
    pub(super) fn way_in(&self) -> Option<Engine> {
        let entered = Path::new(self.prefix.first()?).file_name()? == "nsenter";
        let client = self.prefix.iter().position(|word| word == "--")? + 1;
        entered.then(|| Engine { prefix: self.prefix[..client].to_vec(), ..self.clone() })
    }

    /// Runs and measures a line; a failing command is an error.
    pub(super) fn sample(&self, line: &[String]) -> Result<Sample> {
        let mut command = self.command(line)?;
        self.timed(|| {
            let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
            let mut complaint = String::new();
            child.stderr.take().context("stderr is piped")?.read_to_string(&mut complaint)?;
            let status = child.wait()?;
            ensure!(status.success(), "{}: {line:?}: {status}: {}", self.name, complaint.trim());
            Ok(())
        })
    }

    /// Runs and measures all lines together, `at_once` of them at a time.
    pub(super) fn burst(&self, lines: &[Vec<String>], at_once: usize) -> Result<Sample> {
        self.timed(|| self.run_all(lines, at_once))
    }

    /// Runs lines without measuring them, all of them even when some fail, `at_once` of them at a time.
    pub(super) fn run_all(&self, lines: &[Vec<String>], at_once: usize) -> Result<()> {
        let next = AtomicUsize::new(0);
        let turns = || -> Result<()> {
            let mut outcome = Ok(());
            while let Some(line) = lines.get(next.fetch_add(1, Ordering::Relaxed)) {
                outcome = outcome.and(self.run(line));
            }
            outcome
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(turns)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
        })
    }

    /// Measures what `work` causes in our cgroups.
    pub(super) fn timed(&self, work: impl FnOnce() -> Result<()>) -> Result<Sample> {
        let before = self.used();
        let begin = Instant::now();
        let worked = work();
        let wall = begin.elapsed();
        std::thread::sleep(IDLE);
        worked?;
        Ok(Sample { wall, cpu: self.used().saturating_sub(before) })
    }

    /// Runs a line without measuring it.
    pub(super) fn run(&self, line: &[String]) -> Result<()> {
        self.told(line).map(drop)
    }

    /// Likewise, and what it printed.
    pub(super) fn told(&self, line: &[String]) -> Result<String> {
        let output = self.command(line)?.stdout(Stdio::piped()).output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {line:?}: {}: {}", self.name, output.status, complaint.trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The same with something to read on standard input.
    pub(super) fn run_fed(&self, line: &[String], input: &[u8]) -> Result<()> {
        let mut child = self.command(line)?.stdin(Stdio::piped()).spawn()?;
        let mut pipe = child.stdin.take().context("stdin is piped")?;
        let (fed, output) = std::thread::scope(|scope| {
            // What it says fills its pipe while we write.
            let feeding = scope.spawn(move || pipe.write_all(input));
            let output = child.wait_with_output();
            (feeding.join().expect("writing has no invariant to break"), output)
        });
        let output = output?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {line:?}: {}: {}", self.name, output.status, complaint.trim());
        Ok(fed?)
    }

    fn used(&self) -> Duration {
        self.cgroups.iter().map(|cgroup| cpu::used(cgroup)).sum()
    }
}
