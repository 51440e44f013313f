//! Processes added to running containers: `POST /containers/{id}/exec`, `/exec/{id}/{start,resize,json}`.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use container_spec::InvalidRequest;
use engine_api::exec::{ExecCreate, ExecInspect, ExecProcessConfig, ExecStart};
use errdefs::ErrorKind;
use oci::ContainerId;
use shim_api::{Answer, Attach, Call, ExecTask, Failure, Reason};
use tokio::sync::oneshot;
use tracing::debug;

use crate::Engine;
use crate::connection::{Connection, HOLDS_SINCE, hold_number};
use crate::container::Container;
use crate::container::state::Phase;
use crate::detach_keys;
use crate::exec::{Exec, KEPT};
use crate::launch::in_dockerds_words;
use crate::links::{self, LinkError};
use crate::ops::ended;
use crate::registry::LookupError;
use crate::shim::{CallError, Observation, Shim};
use crate::stream::{self, STDOUT, Sink};

/// How long the inspection of an exec waits for its shim: answers take microseconds.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(1);

/// Docker's code for an exec that could not be started for a reason of its own.
const EXIT_CODE_DEFAULT: i32 = 126;
/// Docker's codes for a program that was found but cannot be executed, and for one that was not found.
const PROGRAM_CODES: [i32; 2] = [126, 127];

/// Why an exec cannot be had. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// There is no such exec.
    #[error("No such exec instance: {0}")]
    NotFound(String),
    /// The container does not run.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// The container waits for its next start.
    #[error("Container {0} is restarting, wait until the container is running")]
    Restarting(ContainerId),
    /// The container stands still.
    #[error("Container {0} is paused, unpause the container before exec")]
    Paused(String),
    /// The request is refused.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// A container that its own links to is not there.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The keys are none. dockerd does not say why.
    #[error("Invalid escape keys ({0}) provided")]
    DetachKeys(String),
    /// It was not started.
    #[error("exec process is not started")]
    NotStarted,
    /// It has ended.
    #[error("NotFound: process does not exist {0}: not found")]
    Ended(String),
    /// The user or the group is not in the container's files.
    #[error(transparent)]
    User(Failure),
    /// Its shim says no, or nothing.
    #[error(transparent)]
    Shim(CallError),
}

impl ExecError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ExecError::Lookup(err) => err.kind(),
            ExecError::NotFound(_) | ExecError::Ended(_) => ErrorKind::NotFound,
            ExecError::NotRunning(_) | ExecError::Restarting(_) | ExecError::Paused(_) => ErrorKind::Conflict,
            ExecError::Invalid(err) => err.kind(),
            ExecError::Link(err) => err.kind(),
            ExecError::NotStarted => ErrorKind::InvalidArgument,
            ExecError::User(failure) => failure.kind,
            ExecError::DetachKeys(_) => ErrorKind::Internal,
            ExecError::Shim(err) => err.kind(),
        }
    }
}

/// Why an exec was not started. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum ExecStartError {
    /// It cannot be had.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// It ran before.
    #[error("exec command {0} has already run")]
    HasRun(String),
    /// It runs.
    #[error("exec command {0} is already running")]
    Running(String),
    /// The runtime says so. The words before its own are dockerd's.
    #[error("OCI runtime exec failed: exec failed: unable to start container process: {0}")]
    Runtime(Failure),
    /// Another runtime than ours says so, in its own words.
    #[error("OCI runtime exec failed: {0}")]
    Foreign(Failure),
    /// Its shim does not answer.
    #[error("OCI runtime exec failed")]
    Shim(#[source] CallError),
    /// Its working directory is no absolute path. The words are runc's.
    #[error("OCI runtime exec failed: exec failed: Cwd must be an absolute path")]
    Cwd,
}

impl ExecStartError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ExecStartError::Exec(err) => err.kind(),
            ExecStartError::HasRun(_) | ExecStartError::Running(_) => ErrorKind::Conflict,
            ExecStartError::Runtime(failure) | ExecStartError::Foreign(failure)
                if PROGRAM_CODES.contains(&failure.exit_code) =>
            {
                ErrorKind::InvalidArgument
            }
            ExecStartError::Runtime(_) | ExecStartError::Foreign(_) | ExecStartError::Shim(_) | ExecStartError::Cwd => {
                ErrorKind::Internal
            }
        }
    }

    fn of_call(err: CallError) -> ExecStartError {
        match err {
            CallError::Refused(failure) if failure.reason == Reason::User => ExecError::User(failure).into(),
            CallError::Refused(failure) if failure.reason == Reason::Foreign => ExecStartError::Foreign(failure),
            CallError::Refused(failure) => ExecStartError::Runtime(in_dockerds_words(failure)),
            err => ExecStartError::Shim(err),
        }
    }

    fn exit_code(&self) -> i32 {
        match self {
            ExecStartError::Runtime(failure) | ExecStartError::Foreign(failure) => failure.exit_code,
            ExecStartError::Cwd => 128,
            _ => EXIT_CODE_DEFAULT,
        }
    }
}

/// An exec that may be started. It counts as running from here on; dropped, it can be started again.
#[must_use]
pub struct PreparedExec {
    engine: Engine,
    container: Arc<Container>,
    shim: Arc<Shim>,
    exec: Arc<Exec>,
    task: ExecTask,
    /// Whether its client gets output in pieces that say which output it is: that is for who starts it to say.
    framed: bool,
    started: bool,
}

/// Records an exec, and answers its id.
pub async fn create(engine: &Engine, name: &str, request: ExecCreate) -> Result<String, ExecError> {
    let container = engine.containers.find(name)?;
    container.settle_start().await;
    check_running(&container)?;
    if container.state().paused {
        return Err(ExecError::Paused(name.to_owned()));
    }
    let definition = &container.definition;
    // Planned now only to refuse now what cannot be.
    let config = links::config(engine, &container)?;
    container_spec::plan_exec(&config, &definition.host_config, &request, &engine.facts)?;
    parse_keys(&request)?;
    check_user(&container, &request.user).await?;
    let exec = Arc::new(Exec::new(request));
    exec.keep(&engine.recorder.shim_dir(container.id()));
    let mut live = container.live();
    live.execs.retain(|_, old| old.progress().ended_at.is_none_or(|at| at.elapsed() < KEPT));
    live.execs.insert(exec.id.clone(), exec.clone());
    drop(live);
    engine.events.container(&container, &exec.action("exec_create"), [("execID", exec.id.clone())]);
    Ok(exec.id.clone())
}

/// Checks that an exec may be started, and reserves the start.
pub async fn prepare_start(engine: &Engine, id: &str, start: ExecStart) -> Result<PreparedExec, ExecStartError> {
    let (container, exec) = find(engine, id)?;
    check_running(&container)?;
    if container.state().paused {
        return Err(ExecError::Paused(container.id().to_string()).into());
    }
    let shim = container.shim().ok_or_else(|| ExecError::NotRunning(container.id().clone()))?;
    let definition = &container.definition;
    let mut request = exec.request.clone();
    request.console_size = start.console_size.or(request.console_size);
    let config = links::config(engine, &container).map_err(ExecError::Link)?;
    let process = container_spec::plan_exec(&config, &definition.host_config, &request, &engine.facts)
        .map_err(ExecError::Invalid)?;
    let task = ExecTask {
        exec_id: exec.id.clone(),
        process,
        // Empty for root: the shim looks root's groups up, too.
        user: Some(container_spec::plan::exec_user(&definition.config, &request).unwrap_or_default()),
        groups: definition.host_config.group_add.clone().unwrap_or_default(),
        attach: None,
        note: exec.note(),
    };
    {
        let mut progress = exec.progress();
        if progress.exit_code.is_some() {
            return Err(ExecStartError::HasRun(exec.id.clone()));
        }
        if progress.running {
            return Err(ExecStartError::Running(exec.id.clone()));
        }
        progress.running = true;
    }
    engine.events.container(&container, &exec.action("exec_start"), [("execID", exec.id.clone())]);
    let framed = !start.tty;
    Ok(PreparedExec { engine: engine.clone(), container, shim, exec, task, framed, started: false })
}

impl PreparedExec {
    /// Whether the stream is multiplexed instead of raw.
    pub fn is_framed(&self) -> bool {
        self.framed
    }

    /// Starts it; answers when it runs.
    ///
    /// `client` is absent for a detached exec. Its head is written when the process is ready, so that whoever has read it can
    /// resize its terminal. When the start fails, it has been told in its stream already.
    pub async fn run(mut self, client: Option<Connection>) -> Result<(), ExecStartError> {
        self.started = true;
        let engine = self.engine.clone();
        engine.detached(async move { self.start(client).await }).await
    }

    async fn start(&mut self, client: Option<Connection>) -> Result<(), ExecStartError> {
        let mut task = self.task.clone();
        let (mut streams, mut copy, mut held) = (Vec::new(), None, None);
        if let Some(Connection { stream, head, mut already_read, mut gate }) = client {
            if self.shim.speaks() < HOLDS_SINCE
                && let Some(gate) = gate.take()
            {
                already_read.extend(gate.pass().await);
            }
            // Kept until the answer: the client is told of a failure in its stream.
            copy = stream.try_clone().ok().map(|copy| (copy, head.clone()));
            held = gate.map(|gate| (gate, hold_number()));
            task.attach = Some(self.attach(head, already_read, held.as_ref().map(|(_, number)| *number)));
            streams.push(stream);
        }
        let relative = !task.process.cwd.is_empty() && !task.process.cwd.starts_with('/');
        let answer = match relative {
            true => None,
            false => Some(self.shim.link.call(Call::Exec(Box::new(task)), streams).await),
        };
        self.exec.release(&self.engine.recorder.shim_dir(self.container.id()));
        if let Some(Ok(Answer::ExecStarted { pid })) = answer {
            self.exec.progress().pid = pid;
        }
        if let Some((gate, hold)) = held {
            let already_read = gate.pass().await;
            // It has ended and let go of everybody if this fails; or was not started, which is told below.
            let _ = self.shim.link.call(Call::Release { hold, already_read }, vec![]).await;
        }
        let err = match answer {
            None => ExecStartError::Cwd,
            Some(Ok(Answer::ExecStarted { .. })) => return Ok(()),
            Some(Ok(_)) => ExecStartError::Shim(CallError::Closed),
            Some(Err(err)) if ended::was_why(&self.engine, &self.container, &err).await => {
                ExecError::NotRunning(self.container.id().clone()).into()
            }
            Some(Err(err)) => ExecStartError::of_call(err),
        };
        self.exec.progress().end(err.exit_code());
        if let Some((client, head)) = copy {
            self.tell(client, head, &err).await;
        }
        Err(err)
    }

    fn attach(&self, head: Vec<u8>, already_read: Vec<u8>, hold: Option<u64>) -> Attach {
        let request = &self.exec.request;
        Attach {
            stdin: request.attach_stdin,
            stdout: request.attach_stdout,
            // Raw, it could not be told from standard output: Docker leaves it away.
            stderr: request.attach_stderr && self.framed,
            already_read,
            // Checked when the exec was made.
            detach_keys: parse_keys(request).unwrap_or_default(),
            preamble: head,
            framed: Some(self.framed),
            hold,
        }
    }

    /// The shim has written nothing: the answer begins here, and its status says that all is well, as dockerd's does.
    async fn tell(&self, client: OwnedFd, head: Vec<u8>, err: &ExecStartError) {
        let text = format!("{}\r\n", errdefs::chain(err)).into_bytes();
        let mut bytes = Vec::new();
        if self.framed {
            stream::frame(STDOUT, &text, &mut bytes)
        } else {
            bytes = text;
        }
        let told = async {
            let mut sink = Sink::new(client)?;
            sink.write(&head).await?;
            sink.until_read().await?;
            sink.write(&bytes).await
        };
        if let Err(err) = told.await {
            // A client that is gone needs no word.
            debug!(container = %self.container.id(), err = errdefs::chain(&err), "tell the client of an exec");
        }
    }
}

impl Drop for PreparedExec {
    fn drop(&mut self) {
        if !self.started {
            self.exec.progress().running = false;
        }
    }
}

/// Everything about an exec.
pub async fn inspect(engine: &Engine, id: &str) -> Result<ExecInspect, ExecError> {
    let (container, exec) = find(engine, id)?;
    if exec.progress().running {
        catch_up(engine, &container).await;
    }
    let (progress, request) = (*exec.progress(), &exec.request);
    let command = request.cmd.as_deref().unwrap_or_default();
    let user = container_spec::plan::exec_user(&container.definition.config, request);
    Ok(ExecInspect {
        id: exec.id.clone(),
        running: progress.running,
        exit_code: progress.exit_code,
        process_config: ExecProcessConfig {
            tty: request.tty,
            entrypoint: command.first().cloned().unwrap_or_default(),
            arguments: command.get(1..).unwrap_or_default().to_vec(),
            privileged: Some(request.privileged),
            user: user.unwrap_or_default(),
        },
        open_stdin: request.attach_stdin,
        open_stderr: request.attach_stderr,
        open_stdout: request.attach_stdout,
        can_remove: false,
        container_id: container.id().to_string(),
        detach_keys: shown_keys(request),
        pid: progress.pid,
    })
}

/// Sets the size of an exec's terminal.
pub async fn resize(engine: &Engine, id: &str, height: u16, width: u16) -> Result<(), ExecError> {
    let (container, exec) = find(engine, id)?;
    check_running(&container)?;
    let progress = *exec.progress();
    if progress.exit_code.is_some() {
        return Err(ExecError::Ended(exec.id.clone()));
    }
    if !progress.running {
        return Err(ExecError::NotStarted);
    }
    if !exec.request.tty {
        // There is nothing to be set, which dockerd takes for done.
        return Ok(());
    }
    let shim = container.shim().ok_or_else(|| ExecError::NotRunning(container.id().clone()))?;
    let call = Call::Resize { exec_id: Some(exec.id.clone()), height, width };
    match shim.link.call(call, vec![]).await {
        Ok(_) => Ok(()),
        Err(err) if ended::was_why(engine, &container, &err).await => {
            Err(ExecError::NotRunning(container.id().clone()))
        }
        Err(err) => Err(ExecError::Shim(err)),
    }
}

/// Waits until everything was handled that the shim had said before now.
///
/// A client that saw the end of an exec's stream asks for the exit code at once. The shim posted it before it closed the
/// stream, and answers in order: when its answer is here, the fact was observed. One that does not answer is not
/// waited for long.
pub(crate) async fn catch_up(engine: &Engine, container: &Container) {
    let Some(shim) = container.shim() else { return };
    // Whatever goes wrong here, what is known already is told.
    let _ = tokio::time::timeout(CATCH_UP_WITHIN, async {
        let _ = shim.link.call(Call::State, vec![]).await;
        let (asker, caught_up) = oneshot::channel();
        if engine.observations.send(Observation::CaughtUp(asker)).is_ok() {
            let _ = caught_up.await;
        }
    })
    .await;
}

fn find(engine: &Engine, id: &str) -> Result<(Arc<Container>, Arc<Exec>), ExecError> {
    let found = engine.containers.all().into_iter().find_map(|container| {
        let exec = container.live().execs.get(id).cloned()?;
        Some((container, exec))
    });
    found.ok_or_else(|| ExecError::NotFound(id.to_owned()))
}

fn check_running(container: &Container) -> Result<(), ExecError> {
    match container.state().phase {
        Phase::Running { .. } => Ok(()),
        Phase::Restarting => Err(ExecError::Restarting(container.id().clone())),
        Phase::Stopped | Phase::Removing => Err(ExecError::NotRunning(container.id().clone())),
    }
}

/// Docker refuses an unknown user when the exec is made, so that the client is told by a status instead of by its stream.
async fn check_user(container: &Container, user: &str) -> Result<(), ExecError> {
    // Numbers need not be in any file; without a shim the start says what there is to say.
    let is_id = |part: &str| part.is_empty() || part.parse::<i32>().is_ok_and(|id| id >= 0);
    let by_number = user.split(':').all(is_id);
    let Some(shim) = container.shim().filter(|_| !by_number) else { return Ok(()) };
    match shim.link.call(Call::CheckUser { user: user.to_owned() }, vec![]).await {
        Err(CallError::Refused(failure)) if failure.reason == Reason::User => Err(ExecError::User(failure)),
        _ => Ok(()),
    }
}

/// The keys that were asked for, as their bytes in base64.
fn shown_keys(request: &ExecCreate) -> String {
    let keys = if request.detach_keys.is_empty() { Vec::new() } else { parse_keys(request).unwrap_or_default() };
    engine_api::auth::encode_standard(&keys)
}

fn parse_keys(request: &ExecCreate) -> Result<Vec<u8>, ExecError> {
    let keys = &request.detach_keys;
    detach_keys::parse(keys).map_err(|_| ExecError::DetachKeys(keys.clone()))
}
