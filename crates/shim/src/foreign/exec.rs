//! A process that a foreign runtime adds: the loop goes on while the runtime works.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Instant;

use oci::runtime::{Process, User};
use oci_runtime::{Container, ExecProcess};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use shim_api::{Answer, Attach, ExecState, ExecTask};

use super::{Console, Foreign, ForeignError, read_pid, set_stdio, take_console};
use crate::calls::CallError;
use crate::container::Task;
use crate::join::{Arrival, Asker, finish};
use crate::streams::Ends;

/// An exec whose runtime has not ended yet.
pub(crate) struct ForeignExec {
    asker: Asker,
    exec_id: String,
    note: String,
    ends: Ends,
    client: Option<(OwnedFd, Attach)>,
    /// The runtime, and its status once it has ended.
    runtime: (i32, Option<i32>),
    /// Of the runtime: it stands for a process that has ended and was reaped.
    ended: OwnedFd,
    files: Files,
    console: Option<Console>,
}

/// What an exec has in the bundle until it has arrived. Each has a log of its own: others begin while it is at work.
struct Files {
    process: PathBuf,
    pid: PathBuf,
    log: PathBuf,
    socket: PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in [&self.process, &self.pid, &self.log, &self.socket] {
            // Not all of them are made.
            let _ = fs::remove_file(file);
        }
    }
}

impl Foreign {
    /// Has a process added.
    pub(crate) fn exec(
        &mut self,
        container: &Container,
        exec: ExecTask,
        client: Option<(OwnedFd, Attach)>,
        asker: Asker,
    ) -> Result<(), CallError> {
        let ExecTask { exec_id, process, user, groups, note, .. } = exec;
        let open_stdin = client.as_ref().is_some_and(|(_, wants)| wants.stdin);
        let ends = Ends::open(process.terminal, open_stdin, client.is_some());
        let mut ends = ends.map_err(CallError::Streams)?;
        let process = match user {
            Some(user) => {
                let resolved = container.resolve_user(&user, &groups)?;
                Process { user: User { umask: process.user.umask, ..resolved }, ..process }
            }
            None => process,
        };
        let file = |suffix: &str| self.runtime.bundle.join(format!("{exec_id}.{suffix}"));
        let files = Files { process: file("json"), pid: file("pid"), log: file("log"), socket: file("sock") };
        let written = serde_json::to_vec(&process).map_err(io::Error::from);
        written.and_then(|text| fs::write(&files.process, text)).map_err(CallError::Record)?;
        let mut command = self.command_logging("exec", &files.log);
        command.arg("--detach").arg("--process").arg(&files.process).arg("--pid-file").arg(&files.pid);
        let stdio = ends.take_stdio();
        let console = self.console(&mut command, &stdio, &format!("{exec_id}.sock"))?;
        command.arg(&self.id);
        set_stdio(&mut command, stdio);
        let runtime =
            command.spawn().map_err(|source| ForeignError::Run { path: self.runtime.path.clone(), source })?;
        // Reaped by the loop, like everybody.
        let runtime = (runtime.id().cast_signed(), None);
        let ended = open(Pid::from_raw(runtime.0))?;
        self.execs.push(ForeignExec { asker, exec_id, note, ends, client, runtime, ended, files, console });
        Ok(())
    }

    /// A child that nobody knows has ended.
    pub(crate) fn reaped(&mut self, pid: i32, exit_code: i32) {
        if self.execs.is_empty() {
            return self.strays.clear();
        }
        match self.execs.iter_mut().find(|exec| exec.runtime == (pid, None)) {
            Some(exec) => exec.runtime.1 = Some(exit_code),
            None => self.strays.push((pid, exit_code)),
        }
    }

    /// How a process ended that was reaped before its runtime had told of it.
    fn take_stray(&mut self, pid: Pid) -> Option<i32> {
        let place = self.strays.iter().position(|(stray, _)| *stray == pid.as_raw_nonzero().get())?;
        Some(self.strays.swap_remove(place).1)
    }
}

impl ForeignExec {
    /// As a daemon is told that comes meanwhile.
    pub(crate) fn state(&self) -> ExecState {
        ExecState { exec_id: self.exec_id.clone(), pid: 0, exit_code: None, note: self.note.clone() }
    }

    /// The runtime has ended: with its streams and its client the process is an exec.
    fn arrive(self, task: &mut Task) -> Result<Answer, CallError> {
        if self.runtime.1 != Some(0) {
            // An exec into a container that ends meanwhile fails in many ways: the end is what matters.
            if task.container.as_ref().is_none_or(Container::has_ended) {
                return Err(CallError::NotRunning);
            }
            let failure = task.foreign.as_ref().map(|foreign| foreign.failure(&self.files.log));
            return Err(failure.map_or(CallError::NotRunning, CallError::Foreign));
        }
        let console = self.console.map(take_console).transpose()?;
        let pid = read_pid(&self.files.pid)?;
        let ended = task.foreign.as_mut().and_then(|foreign| foreign.take_stray(pid));
        let pidfd = if ended.is_some() { self.ended } else { open(Some(pid))? };
        let exec_id = self.exec_id.clone();
        let process = ExecProcess { pid, pidfd, console };
        let answer = finish(self.exec_id, self.note, self.ends, self.client, process, task)?;
        if let (Some(exit_code), Some(exec)) = (ended, task.execs.iter_mut().find(|exec| exec.id == exec_id)) {
            exec.exit_code = Some(exit_code);
            exec.streams.end(Instant::now());
        }
        Ok(answer)
    }
}

fn open(pid: Option<Pid>) -> Result<OwnedFd, ForeignError> {
    let opened = pid.ok_or(Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    opened.map_err(|err| ForeignError::Pid(err.into()))
}

impl Task {
    /// The answers to execs whose runtime has ended.
    pub(crate) fn advance_foreign(&mut self) -> Vec<Arrival> {
        let Some(foreign) = &mut self.foreign else { return Vec::new() };
        let arrived: Vec<ForeignExec> = foreign.execs.extract_if(.., |exec| exec.runtime.1.is_some()).collect();
        let arrivals = arrived.into_iter().map(|exec| {
            let (asker, state) = (exec.asker, exec.state());
            Arrival { asker, exec: state, result: exec.arrive(self) }
        });
        arrivals.collect()
    }
}
