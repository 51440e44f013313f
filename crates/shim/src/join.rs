//! Processes on their way into the container: an exec is answered when its process is ready, and meanwhile the loop goes on.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use oci_runtime::{Container, ExecError, ExecOptions, ExecProcess, Joining, Kept, UserRequest};
use shim_api::{Answer, Attach, ExecState, ExecTask};

use crate::calls::CallError;
use crate::container::Task;
use crate::event_loop::SIGKILL;
use crate::exec::Exec;
use crate::streams::{Ends, Streams};

/// To whom an answer goes that is not there yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    /// The number of its connection.
    pub(crate) connection: u64,
    /// The number of its request.
    pub(crate) seq: u64,
}

/// What an exec on its way has come to.
pub(crate) struct Arrival {
    pub(crate) asker: Asker,
    /// As it was on its way.
    pub(crate) exec: ExecState,
    pub(crate) result: Result<Answer, CallError>,
}

/// An exec that was asked for and not yet answered.
pub(crate) struct Join {
    asker: Asker,
    exec_id: String,
    note: String,
    ends: Ends,
    client: Option<(OwnedFd, Attach)>,
    pub(crate) joining: Joining,
}

impl Join {
    /// Sends a process on its way.
    pub(crate) fn begin(
        container: &Container,
        exec: ExecTask,
        client: Option<(OwnedFd, Attach)>,
        asker: Asker,
    ) -> Result<Join, CallError> {
        let open_stdin = client.as_ref().is_some_and(|(_, wants)| wants.stdin);
        let ends = Ends::open(exec.process.terminal, open_stdin, client.is_some());
        let mut ends = ends.map_err(CallError::Streams)?;
        let joining = container.join(ExecOptions {
            process: &exec.process,
            user: exec.user.as_deref().map(|user| UserRequest { user, groups: &exec.groups }),
            stdio: ends.take_stdio(),
            kept: Kept::default(),
        });
        let joining = joining.map_err(|err| failed(container, err))?;
        Ok(Join { asker, exec_id: exec.exec_id, note: exec.note, ends, client, joining })
    }

    /// As a daemon is told that comes meanwhile.
    pub(crate) fn state(&self) -> ExecState {
        ExecState { exec_id: self.exec_id.clone(), pid: 0, exit_code: None, note: self.note.clone() }
    }
}

/// The process is ready: with its streams and its client it is an exec.
pub(crate) fn finish(
    exec_id: String,
    note: String,
    ends: Ends,
    client: Option<(OwnedFd, Attach)>,
    mut process: ExecProcess,
    task: &mut Task,
) -> Result<Answer, CallError> {
    let console = process.console.take();
    // Docker's exec always ends its input with its client's.
    let streams = Streams::new(ends, console, true, task.streams.spool_dir.to_owned());
    let mut streams = streams.map_err(CallError::Streams).inspect_err(|_| {
        // Nobody would know of it. The error above is the one that explains.
        let _ = sys::signal::send(process.pidfd.as_fd(), SIGKILL);
    })?;
    if let Some((socket, wants)) = client {
        streams.attach(socket, wants);
    }
    let exec = Exec::new(exec_id, note, process, streams);
    let pid = exec.pid;
    task.execs.push(exec);
    Ok(Answer::ExecStarted { pid })
}

impl Task {
    /// Goes on with those on their way; the answers to those that have arrived, or never will.
    pub(crate) fn advance_joins(&mut self, now: Instant) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        for mut join in std::mem::take(&mut self.joins) {
            let (asker, exec) = (join.asker, join.state());
            let container = self.container.as_ref().filter(|_| self.is_alive());
            let Some(container) = container else {
                arrivals.push(Arrival { asker, exec, result: Err(CallError::NotRunning) });
                continue;
            };
            let result = match join.joining.advance(now) {
                None => {
                    self.joins.push(join);
                    continue;
                }
                Some(Ok(process)) => {
                    let Join { exec_id, note, ends, client, .. } = join;
                    finish(exec_id, note, ends, client, process, self)
                }
                Some(Err(err)) => Err(failed(container, err)),
            };
            arrivals.push(Arrival { asker, exec, result });
        }
        arrivals.extend(self.advance_foreign());
        arrivals
    }
}

/// An exec into a container that ends meanwhile fails in many ways: the end is what matters.
fn failed(container: &Container, err: ExecError) -> CallError {
    if container.has_ended() { CallError::NotRunning } else { CallError::Exec(err) }
}
