//! A container that another OCI runtime makes: runc, crun, or whatever daemon.json names.
//!
//! ```text
//!   Create   private mount namespace; [bundle] with the root mounted; RUNTIME create; its first process becomes our child
//!   Start    RUNTIME start
//!   Signal   RUNTIME kill
//!   Exec     RUNTIME exec --detach, awaited by the loop; the process becomes our child
//!   the end  RUNTIME delete --force
//! ```
//! We are the subreaper, so what the runtime leaves behind is ours to reap, as what we make ourselves. Streams, log, exit
//! status and everything that daemons ask for are the same. Nothing here is on the road of our own containers.

pub(crate) mod bundle;
mod exec;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as Standard};

use oci::runtime::Spec;
use oci_runtime::{CgroupNeed, Container, Living, OpenError, Stdio};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use shim_api::{CreateTask, ForeignRuntime};

pub(crate) use bundle::BundleError;
pub(crate) use exec::ForeignExec;

/// Why a runtime did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForeignError {
    #[error("run {}", path.display())]
    Run { path: PathBuf, source: io::Error },
    /// Its own words.
    #[error("{message}")]
    Failed { message: String },
    #[error("read the process id that the runtime wrote")]
    Pid(#[source] io::Error),
    #[error("take the terminal that the runtime made")]
    Console(#[source] io::Error),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl ForeignError {
    /// Docker's codes: 127 for a program that is not there, 126 for one that cannot be run. Of a runtime there are only
    /// its words, and these are what dockerd looks for in them (moby daemon/errors.go, `translateContainerdStartErr`).
    pub(crate) fn exit_code(&self) -> i32 {
        let ForeignError::Failed { message } = self else { return 128 };
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        if says(&["executable file not found", "no such file or directory", "No such file or directory"]) {
            127
        } else if says(&["permission denied", "Permission denied", "is a directory", "not a directory"]) {
            126
        } else {
            128
        }
    }
}

/// A container of another runtime, once it was created.
pub(crate) struct Foreign {
    runtime: ForeignRuntime,
    id: String,
    pub(crate) execs: Vec<ForeignExec>,
    /// Children that ended while runtimes were at work, and their status: one may be an exec that was quick.
    strays: Vec<(i32, i32)>,
}

impl Foreign {
    /// Makes the container; answers what is known of it, and its terminal. Blocks for as long as the runtime works.
    pub(crate) fn create(
        id: &str,
        task: &CreateTask,
        runtime: ForeignRuntime,
        stdio: Stdio,
        hierarchies: &cgroup::Hierarchies,
    ) -> Result<(Foreign, Container), ForeignError> {
        let spec = bundle::make(&runtime.bundle, task)?;
        let foreign = Foreign { runtime, id: id.to_owned(), execs: Vec::new(), strays: Vec::new() };
        let made = foreign.run_create(stdio).and_then(|(pid, console)| {
            let mut container = foreign.open(&spec, pid, hierarchies)?;
            container.console = console;
            Ok(container)
        });
        match made {
            Ok(container) => Ok((foreign, container)),
            Err(err) => {
                foreign.delete();
                Err(err)
            }
        }
    }

    fn run_create(&self, stdio: Stdio) -> Result<(Pid, Option<OwnedFd>), ForeignError> {
        let (pid_file, bundle) = (self.runtime.bundle.join("pid"), self.runtime.bundle.clone());
        let mut command = self.command("create");
        command.arg("--bundle").arg(&bundle).arg("--pid-file").arg(&pid_file);
        let console = self.console(&mut command, &stdio, "console.sock")?;
        command.arg(&self.id);
        set_stdio(&mut command, stdio);
        self.finish(&mut command)?;
        let console = console.map(take_console).transpose()?;
        Ok((read_pid(&pid_file)?, console))
    }

    /// Where the runtime sends a terminal's master, if there is to be one.
    fn console(&self, command: &mut Command, stdio: &Stdio, name: &str) -> Result<Option<Console>, ForeignError> {
        if !matches!(stdio, Stdio::Terminal) {
            return Ok(None);
        }
        // The directory may be deeper than a socket's path may be long: named through our descriptor, by the runtime, too.
        let opened = File::open(&self.runtime.bundle).map_err(ForeignError::Console)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()));
        let listener = listener.map_err(ForeignError::Console)?;
        command.arg("--console-socket");
        command.arg(format!("/proc/{}/fd/{}/{name}", std::process::id(), opened.as_raw_fd()));
        Ok(Some((listener, opened)))
    }

    /// What we know of a container that we have made ourselves.
    fn open(&self, spec: &Spec, pid: Pid, hierarchies: &cgroup::Hierarchies) -> Result<Container, ForeignError> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|err| ForeignError::Pid(err.into()))?;
        let cgroup = CgroupNeed::Always;
        Ok(Container::open(Living { id: &self.id, spec, pid, pidfd, hierarchies, cgroup })?)
    }

    /// Lets the program run.
    pub(crate) fn start(&self) -> Result<(), ForeignError> {
        self.finish(self.command("start").arg(&self.id))
    }

    /// Sends a signal to the first process.
    pub(crate) fn kill(&self, signal: i32) -> Result<(), ForeignError> {
        self.finish(self.command("kill").arg(&self.id).arg(signal.to_string()))
    }

    /// Forgets the container, which has ended or is to end.
    pub(crate) fn delete(&self) {
        if let Err(err) = self.finish(self.command("delete").arg("--force").arg(&self.id)) {
            eprintln!("longshore-shim: {}", errdefs::chain(&err));
        }
    }

    fn command(&self, verb: &str) -> Command {
        self.command_logging(verb, &self.log())
    }

    /// A command whose last words are found in this file.
    fn command_logging(&self, verb: &str, log: &Path) -> Command {
        let ForeignRuntime { path, args, root, .. } = &self.runtime;
        let mut command = Command::new(path);
        command.args(args).arg("--root").arg(root).arg("--log").arg(log).args(["--log-format", "json"]).arg(verb);
        command.stdin(Standard::null()).stdout(Standard::null()).stderr(Standard::null());
        command
    }

    fn log(&self) -> PathBuf {
        self.runtime.bundle.join("log.json")
    }

    /// Runs it to its end.
    fn finish(&self, command: &mut Command) -> Result<(), ForeignError> {
        let path = || self.runtime.path.clone();
        // Of the commands before it there is nothing more to know.
        let ran = File::create(self.log()).and_then(|_| command.status());
        match ran.map_err(|source| ForeignError::Run { path: path(), source })?.success() {
            true => Ok(()),
            false => Err(self.failure(&self.log())),
        }
    }

    /// The last words of a log.
    fn failure(&self, log: &Path) -> ForeignError {
        let text = fs::read_to_string(log).unwrap_or_default();
        let said = text.lines().rev().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            line["msg"].as_str().map(str::to_owned)
        });
        let silent = || format!("{} failed without a word", self.runtime.path.display());
        ForeignError::Failed { message: said.unwrap_or_else(silent) }
    }
}

/// Where a terminal's master comes, and the directory through which the runtime finds it.
type Console = (UnixListener, File);

/// The process's own streams; nothing for a terminal, which the runtime makes.
fn set_stdio(command: &mut Command, stdio: Stdio) {
    if let Stdio::Fds([stdin, stdout, stderr]) = stdio {
        command.stdin(stdin).stdout(stdout).stderr(stderr);
    }
}

fn read_pid(path: &Path) -> Result<Pid, ForeignError> {
    let text = fs::read_to_string(path).map_err(ForeignError::Pid)?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| ForeignError::Pid(io::ErrorKind::InvalidData.into()))
}

/// The terminal's master, which the runtime has sent by now.
fn take_console((listener, _directory): Console) -> Result<OwnedFd, ForeignError> {
    let taken = || -> io::Result<OwnedFd> {
        // A runtime that has ended without sending one would be waited for, for ever.
        listener.set_nonblocking(true)?;
        let (socket, _) = listener.accept()?;
        let (mut name, mut descriptors) = ([0; 4096], Vec::new());
        sys::socket::receive(socket.as_fd(), &mut name, &mut descriptors)?;
        descriptors.into_iter().next().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    };
    taken().map_err(ForeignError::Console)
}
