//! An instance whose daemon nobody starts: the command line does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::Scratch;
use crate::process::{self, DEADLINE, Output};
use crate::{leaks, paths};

/// Directories of a default instance, in scratch; dropping it ends its daemon and panics when anything is left.
#[derive(Debug)]
pub struct OnDemand {
    scratch: Scratch,
    dist: PathBuf,
}

impl OnDemand {
    /// An instance without a daemon; None where our programs are not built.
    pub fn new() -> Result<Option<OnDemand>> {
        let dist = paths::dist();
        if !dist.join("longshored").exists() {
            return Ok(None);
        }
        Ok(Some(OnDemand { scratch: Scratch::new()?, dist }))
    }

    /// The directory of the instance.
    pub fn root(&self) -> &Path {
        self.scratch.path()
    }

    /// Where a started daemon listens.
    pub fn socket(&self) -> PathBuf {
        self.root().join("d.sock")
    }

    /// `longshore` for this instance as the default one: no host is named.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.dist.join("longshore"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DOCKER_") {
                command.env_remove(name);
            }
        }
        command.env("LONGSHORE_SOCKET", self.socket()).env("LONGSHORE_DATA_ROOT", self.scratch.data_root());
        command.env("LONGSHORE_EXEC_ROOT", self.scratch.exec_root()).env("HOME", self.scratch.home());
        command.args(arguments);
        command
    }

    /// Runs `longshore` with these arguments.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        process::run(&mut self.command(arguments), b"")
    }

    /// The daemons of this instance that run now.
    pub fn daemons(&self) -> Result<Vec<i32>> {
        let found = leaks::find(self.root(), self.scratch.key().as_deref())?.processes;
        let is_daemon =
            |command: &str| command.split(' ').next().is_some_and(|program| program.ends_with("/longshored"));
        Ok(found.into_iter().filter(|(_, command)| is_daemon(command)).map(|(pid, _)| pid).collect())
    }

    /// The one daemon of this instance.
    pub fn daemon(&self) -> Result<i32> {
        match self.daemons()?[..] {
            [pid] => Ok(pid),
            ref others => bail!("not one daemon but {others:?}\n{}", self.log()),
        }
    }

    /// Whether the daemon `pid` ends within `deadline`.
    pub fn ends(&self, pid: i32, deadline: Duration) -> Result<bool> {
        let pid = Pid::from_raw(pid).context("a process id")?;
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => process::readable(std::os::fd::AsFd::as_fd(&pidfd), deadline),
            Err(rustix::io::Errno::SRCH) => Ok(true),
            Err(err) => Err(err.into()),
        }
    }

    /// Ends the daemon with SIGTERM and waits for it.
    pub fn stop(&self) -> Result<()> {
        for pid in self.daemons()? {
            let target = Pid::from_raw(pid).context("a process id")?;
            rustix::process::kill_process(target, Signal::TERM)?;
            if !self.ends(pid, DEADLINE)? {
                bail!("the daemon {pid} does not end\n{}", self.log());
            }
        }
        Ok(())
    }

    /// What its daemons have printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.exec_root().join("longshored.log")).unwrap_or_default()
    }

    fn tear_down(&self) -> Result<()> {
        let stopped = self.stop();
        let leaks = leaks::wait_until_gone(self.root(), self.scratch.key().as_deref())?;
        leaks.clean();
        if !leaks.is_empty() {
            bail!("left behind:\n{leaks}longshored printed:\n{}", self.log());
        }
        stopped
    }
}

impl Drop for OnDemand {
    fn drop(&mut self) {
        match (self.tear_down(), std::thread::panicking()) {
            (Err(err), true) => eprintln!("{err:?}"),
            (Err(err), false) => panic!("{err:?}"),
            (Ok(()), _) => {}
        }
    }
}
