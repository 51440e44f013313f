//! One probe: an exec whose output we read ourselves.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use container_spec::Probe;
use engine_api::exec::ExecCreate;
use shim_api::{Answer, Attach, Call, ExecState, ExecTask};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tracing::debug;

use crate::Engine;
use crate::container::Container;
use crate::exec::Exec;
use crate::ops::exec::{ExecError, ExecStartError, catch_up};
use crate::ops::kill::SIGKILL;
use crate::shim::CallError;

/// What the shim keeps of a probe for the next daemon: only that it is one.
pub(crate) const NOTE: &str = "health check";

/// How much of the output is kept: dockerd's number (`maxOutputLen`).
const OUTPUT_MAX_BYTES: usize = 4096;

/// The code of a check that did not come to one: dockerd's.
const EXIT_CODE_NONE: i32 = -1;

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) exit_code: i32,
    pub(super) output: String,
}

/// A probe under way, or one that could not be started.
pub(super) struct Running {
    engine: Engine,
    container: Arc<Container>,
    exec: Arc<Exec>,
    started: Result<Frames, String>,
}

/// Starts a probe.
pub(super) async fn begin(engine: &Engine, container: &Arc<Container>, probe: &Probe) -> Running {
    let request = ExecCreate {
        attach_stdout: true,
        attach_stderr: true,
        cmd: Some(probe.command.clone()),
        ..ExecCreate::default()
    };
    let exec = Arc::new(Exec::new(request));
    let tell = |verb| engine.events.container(container, &exec.action(verb), [("execID", exec.id.clone())]);
    tell("exec_create");
    exec.progress().running = true;
    container.live().execs.insert(exec.id.clone(), exec.clone());
    tell("exec_start");
    let started = start(engine, container, &exec).await.map_err(|err| errdefs::chain(&err));
    if started.is_err() {
        container.live().execs.remove(&exec.id);
    }
    Running { engine: engine.clone(), container: container.clone(), exec, started }
}

async fn start(engine: &Engine, container: &Container, exec: &Exec) -> Result<Frames, ExecStartError> {
    let definition = &container.definition;
    let (config, host) = (&definition.config, &definition.host_config);
    let process = container_spec::plan_exec(config, host, &exec.request, &engine.facts).map_err(ExecError::Invalid)?;
    let attach = Attach { stdout: true, stderr: true, ..Attach::default() };
    let task = ExecTask {
        exec_id: exec.id.clone(),
        process,
        user: Some(container_spec::exec_user(config, &exec.request).unwrap_or_default()),
        groups: host.group_add.clone().unwrap_or_default(),
        attach: Some(attach),
        note: NOTE.to_owned(),
    };
    let shim = container.shim().ok_or_else(|| ExecError::NotRunning(container.id().clone()))?;
    let failed = |err| ExecStartError::Shim(CallError::Send(err));
    let (ours, theirs) = StdStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    let stream = UnixStream::from_std(ours).map_err(failed)?;
    match shim.link.call(Call::Exec(Box::new(task)), vec![OwnedFd::from(theirs)]).await {
        Ok(Answer::ExecStarted { pid }) => {
            exec.progress().pid = pid;
            Ok(Frames { stream, kept: Vec::new(), cut: false, ended: false })
        }
        Ok(_) => Err(ExecStartError::Shim(CallError::Closed)),
        Err(CallError::Refused(failure)) => Err(ExecStartError::Runtime(failure)),
        Err(err) => Err(ExecStartError::Shim(err)),
    }
}

impl Running {
    /// Whether its process could be made.
    pub(super) fn is_started(&self) -> bool {
        self.started.is_ok()
    }

    /// What it comes to within `timeout`, after which it is killed.
    pub(super) async fn outcome(&mut self, timeout: Duration) -> Outcome {
        let frames = match &mut self.started {
            Ok(frames) => frames,
            Err(sentence) => return Outcome { exit_code: EXIT_CODE_NONE, output: sentence.clone() },
        };
        if tokio::time::timeout(timeout, frames.read_to_end()).await.is_err() {
            let output = frames.text();
            self.kill().await;
            return Outcome { exit_code: EXIT_CODE_NONE, output: overdue(timeout, &output) };
        }
        let output = frames.text();
        // The shim posts the end before it closes the stream.
        catch_up(&self.engine, &self.container).await;
        let exit_code = self.exec.progress().exit_code.unwrap_or(EXIT_CODE_NONE);
        Outcome { exit_code, output }
    }

    /// Answers when its process is gone.
    pub(super) async fn gone(&mut self) {
        if let Ok(frames) = &mut self.started {
            frames.drain().await;
        }
        self.forget();
    }

    /// Nobody wants to know any more.
    pub(super) async fn abandon(self) {
        if self.exec.progress().running {
            self.kill().await;
        }
        self.forget();
    }

    fn forget(&self) {
        self.container.live().execs.remove(&self.exec.id);
    }

    async fn kill(&self) {
        // One of an older shim ends with its container.
        if self.container.shim().is_some_and(|shim| shim.speaks() >= SIGNALS_EXECS_SINCE) {
            kill(&self.container, &self.exec.id).await;
        }
    }
}

async fn kill(container: &Container, exec_id: &str) {
    let Some(shim) = container.shim() else { return };
    let call = Call::SignalExec { exec_id: exec_id.to_owned(), signal: SIGKILL };
    if let Err(err) = shim.link.call(call, vec![]).await {
        debug!(container = %container.id(), err = errdefs::chain(&err), "kill a probe");
    }
}

/// The first version of a shim that knows [`Call::SignalExec`].
const SIGNALS_EXECS_SINCE: u32 = 3;

/// Kills the probes that an earlier daemon began, of which a shim of this version tells.
pub(crate) fn kill_left_over(container: &Arc<Container>, version: u32, told: &[ExecState]) {
    if version < SIGNALS_EXECS_SINCE {
        return;
    }
    let left = told.iter().filter(|state| state.note == NOTE && state.exit_code.is_none());
    for state in left {
        let (container, exec_id) = (container.clone(), state.exec_id.clone());
        tokio::spawn(async move { kill(&container, &exec_id).await });
    }
}

/// The output of an exec, as the shim frames it.
struct Frames {
    stream: UnixStream,
    kept: Vec<u8>,
    /// There was more than is kept.
    cut: bool,
    ended: bool,
}

impl Frames {
    /// Reads on to the end. Dropping the future loses no more than a piece of the output.
    async fn read_to_end(&mut self) {
        let mut head = [0; 8];
        let mut piece = [0; 1024];
        while !self.ended {
            if self.stream.read_exact(&mut head).await.is_err() {
                self.ended = true;
                return;
            }
            let mut left = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            while left > 0 {
                let wanted = left.min(piece.len());
                match self.stream.read(&mut piece[..wanted]).await {
                    Ok(0) | Err(_) => {
                        self.ended = true;
                        return;
                    }
                    Ok(count) => {
                        left -= count;
                        self.keep(&piece[..count]);
                    }
                }
            }
        }
    }

    /// Awaits the end, whatever comes before it.
    async fn drain(&mut self) {
        let mut piece = [0; 1024];
        while !self.ended {
            self.ended = matches!(self.stream.read(&mut piece).await, Ok(0) | Err(_));
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = OUTPUT_MAX_BYTES - self.kept.len();
        self.cut |= bytes.len() > room;
        self.kept.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        if self.cut { format!("{text}...") } else { text.into_owned() }
    }
}

/// The output of a check that took too long, in dockerd's words.
fn overdue(timeout: Duration, output: &str) -> String {
    let sentence = format!("Health check exceeded timeout ({})", crate::clock::go_duration(timeout));
    if output.is_empty() { sentence } else { format!("{sentence}: {output}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn output_is_taken_out_of_its_frames_and_cut() {
        let long = "a".repeat(3000);
        for (pieces, expected) in
            [(["ab", "cd"], "abcd".to_owned()), ([&long, &long], format!("{}...", "a".repeat(OUTPUT_MAX_BYTES)))]
        {
            let (ours, mut theirs) = StdStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            for (piece, stream) in pieces.iter().zip([1, 2]) {
                let mut bytes = Vec::new();
                crate::stream::frame(stream, piece.as_bytes(), &mut bytes);
                theirs.write_all(&bytes).unwrap();
            }
            drop(theirs);
            let stream = UnixStream::from_std(ours).unwrap();
            let mut frames = Frames { stream, kept: Vec::new(), cut: false, ended: false };
            frames.read_to_end().await;
            assert_eq!(frames.text(), expected);
        }
    }

    #[test]
    fn a_check_that_takes_too_long_says_so() {
        let second = Duration::from_secs(1);
        assert_eq!(overdue(second, ""), "Health check exceeded timeout (1s)");
        assert_eq!(overdue(second * 90, "a"), "Health check exceeded timeout (1m30s): a");
    }
}
