//! A daemon of the test's own, and both command lines pointed at it.
//!
//! ```text
//! <scratch>/            0700, removed at the end
//!   d.sock              the API
//!   data/               --data-root
//!   exec/               --exec-root; instance-key holds the 8 hex digits in the names of cgroups and bridges
//!   home/               HOME and DOCKER_CONFIG of the command lines
//!   daemon.json         --config-file
//!   daemon.log          stdout and stderr of every daemon of this instance
//!   d.pid
//! ```

mod cli;
mod on_demand;
mod ready;
mod remove;
mod scratch;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};

use crate::http::{self, Response};
use crate::images::Archive;
use crate::process::{self, DEADLINE};
use crate::{leaks, paths};
pub use cli::{CLI_VARIABLE, Cli};
pub use on_demand::OnDemand;
pub use scratch::Scratch;

/// A running instance. Dropping it removes its containers, ends it and panics when anything stays behind.
#[derive(Debug)]
pub struct Daemon {
    scratch: Scratch,
    socket: PathBuf,
    dist: PathBuf,
    options: Vec<String>,
    /// What its environment has beside ours.
    variable: Option<(&'static str, OsString)>,
    /// None while it is down, and for a daemon that somebody else runs.
    process: Option<Child>,
    foreign: bool,
    torn_down: bool,
}

/// Set to `unix:///path` of a running Docker daemon, every [`Daemon`] is a handle of that one.
pub const HOST_VARIABLE: &str = "LONGSHORE_TEST_HOST";

/// With a foreign daemon: a directory that it sees at the same path, for what containers bind.
pub const SHARED_VARIABLE: &str = "LONGSHORE_TEST_SHARED";

impl Daemon {
    /// Starts a daemon in a new scratch directory and waits until it answers.
    pub fn start() -> Result<Daemon> {
        Daemon::start_with(&[])
    }

    /// The same with more options for `longshored`.
    pub fn start_with(options: &[&str]) -> Result<Daemon> {
        let Some(host) = std::env::var_os(HOST_VARIABLE) else {
            return Daemon::start_from(&paths::dist(), options);
        };
        let host = host.into_string().ok().context("LONGSHORE_TEST_HOST is not UTF-8")?;
        let socket = host.strip_prefix("unix://").context("LONGSHORE_TEST_HOST is not unix:///path")?;
        Ok(Daemon {
            scratch: Scratch::new()?,
            socket: socket.into(),
            dist: paths::dist(),
            options: Vec::new(),
            variable: None,
            process: None,
            foreign: true,
            torn_down: false,
        })
    }

    /// The same with the programs in the directory `dist`; never a foreign daemon.
    pub fn start_from(dist: &Path, options: &[&str]) -> Result<Daemon> {
        start_here(dist, options, None)
    }

    /// Starts one that has the busybox image and looks for programs in this directory first, with more options for
    /// `longshored`; never a foreign daemon.
    pub fn start_finding(directory: &Path, options: &[&str]) -> Result<Daemon> {
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([directory.to_owned()].into_iter().chain(std::env::split_paths(&rest)))?;
        let daemon = start_here(&paths::dist(), options, Some(("PATH", path)))?;
        daemon.load(Archive::Busybox)?;
        Ok(daemon)
    }

    /// A daemon with the busybox image loaded.
    pub fn with_busybox() -> Result<Daemon> {
        let daemon = Daemon::start()?;
        // A shared daemon keeps its own busybox: loading ours would take the name from under other tests.
        if !daemon.foreign || daemon.get("/images/busybox:latest/json")?.status != 200 {
            daemon.load(Archive::Busybox)?;
        }
        Ok(daemon)
    }

    /// Whether this is a Docker daemon that the test did not start and must not kill.
    pub fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// The API's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The directory of the instance; the test may put files into it.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// A new directory that the daemon sees, too; None when a foreign one sees none of ours.
    pub fn shared_dir(&self) -> Result<Option<tempfile::TempDir>> {
        let parent = match (self.foreign, std::env::var_os(SHARED_VARIABLE)) {
            (false, _) => self.scratch.path().to_owned(),
            (true, Some(parent)) => PathBuf::from(parent),
            (true, None) => return Ok(None),
        };
        Ok(Some(tempfile::Builder::new().prefix("shared-").tempdir_in(parent)?))
    }

    /// Where the programs are.
    pub fn dist(&self) -> &Path {
        &self.dist
    }

    /// `name`, made unique: tests beside this one may use the same foreign daemon.
    pub fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.scratch.mark())
    }

    /// The daemon's process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The archive, loaded over the API.
    pub fn load(&self, archive: Archive) -> Result<()> {
        let path = archive.path()?;
        let body = fs::read(&path)?;
        let head = format!(
            "POST /images/load?quiet=1 HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\
             Content-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = http::raw(&self.socket, &[head.as_bytes(), &body].concat())?;
        let failed = answer.status != 200 || answer.text().contains("\"error\"");
        ensure!(!failed, "load {}: {} {}", path.display(), answer.status, answer.text());
        Ok(())
    }

    /// GET `path`.
    pub fn get(&self, path: &str) -> Result<Response> {
        http::request(&self.socket, "GET", path, None)
    }

    /// POST a JSON `body` to `path`.
    pub fn post(&self, path: &str, body: &str) -> Result<Response> {
        http::request(&self.socket, "POST", path, Some(body))
    }

    /// Ends the daemon with SIGKILL, as a crash would; containers go on.
    pub fn kill9(&mut self) -> Result<()> {
        self.end(Signal::KILL)
    }

    /// Ends the daemon with SIGTERM and waits for it; containers go on (live restore).
    pub fn stop(&mut self) -> Result<()> {
        self.end(Signal::TERM)
    }

    /// Starts the daemon again on the same directories, ending it before if it runs; returns when it answers.
    pub fn restart(&mut self) -> Result<()> {
        ensure!(!self.foreign, "a foreign daemon is not ours to restart");
        if self.process.is_some() {
            self.stop()?;
        }
        let mut command = self.scratch.longshored(&self.dist, &self.socket)?;
        let child = command.envs(self.variable.clone()).args(&self.options).spawn().context("start longshored")?;
        let child = self.process.insert(child);
        ready::wait(self.scratch.path(), &self.socket, child, DEADLINE)
            .with_context(|| format!("longshored printed:\n{}", self.scratch.log()))
    }

    /// Removes all containers and ends the daemon; what is then left on the machine is an error, and is removed.
    pub fn finish(mut self) -> Result<()> {
        self.tear_down()
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        ensure!(!self.foreign, "a foreign daemon is not ours to end");
        let mut child = self.process.take().context("the daemon is not running")?;
        rustix::process::kill_process(Pid::from_child(&child), signal)?;
        process::wait(&mut child, DEADLINE).context("longshored after a signal")?;
        Ok(())
    }

    fn tear_down(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.torn_down, true) {
            return Ok(());
        }
        if self.foreign {
            return remove::marked_containers(&self.socket, &self.name(""));
        }
        let key = self.scratch.key();
        let mut problem = None;
        if self.process.is_some() {
            problem = remove::all_containers(&self.socket).err();
            // The shims end a moment after the answer; only the daemon itself may stay longer.
            let alone =
                || leaks::find(self.scratch.path(), key.as_deref()).ok().filter(|left| left.processes.len() <= 1);
            problem = problem.or(process::until("no shim is left", leaks::GONE_WITHIN, alone).err());
            problem = problem.or(self.stop().err());
        }
        let leaks = leaks::wait_until_gone(self.scratch.path(), key.as_deref())?;
        leaks.clean();
        if !leaks.is_empty() {
            bail!("left behind:\n{leaks}longshored printed:\n{}", self.scratch.log());
        }
        match problem {
            Some(problem) => Err(problem.context(format!("longshored printed:\n{}", self.scratch.log()))),
            None => Ok(()),
        }
    }
}

/// Starts a daemon with this variable in its environment; never a foreign one.
pub fn start_under(variable: &'static str, value: impl Into<OsString>, options: &[&str]) -> Result<Daemon> {
    start_here(&paths::dist(), options, Some((variable, value.into())))
}

fn start_here(dist: &Path, options: &[&str], variable: Option<(&'static str, OsString)>) -> Result<Daemon> {
    let scratch = Scratch::new()?;
    let mut daemon = Daemon {
        socket: scratch.path().join("d.sock"),
        scratch,
        dist: dist.to_owned(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        variable,
        process: None,
        foreign: false,
        torn_down: false,
    };
    daemon.restart()?;
    Ok(daemon)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        match (self.tear_down(), std::thread::panicking()) {
            (Err(err), true) => eprintln!("{err:?}"),
            (Err(err), false) => panic!("{err:?}"),
            (Ok(()), true) => eprintln!("longshored printed:\n{}", self.scratch.log()),
            (Ok(()), false) => {}
        }
    }
}
