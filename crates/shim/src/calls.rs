//! What daemons ask for, one function a call.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use cgroup::Hierarchies;
use errdefs::ErrorKind;
use logging::OpenError;
use oci::runtime::{Mount, Namespace, NamespaceKind};
use oci_runtime::user::UserError;
use oci_runtime::{CreateError, CreateOptions, ExecError, Kept, ProcessError, StartError, Stdio, UserRequest};
use shim_api::{Answer, Attach, Call, CreateTask, ExecTask, Failure, Reason, Request, VERSION};

use crate::checkpoint::{self, CheckpointError};
use crate::container::{Descriptors, Made, Task};
use crate::event_loop::{SIGKILL, Shim};
use crate::exec::Exec;
use crate::exit;
use crate::foreign::{BundleError, Foreign, ForeignError, ForeignExec};
use crate::join::{Asker, Join};
use crate::streams::{Ends, Streams, hold};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("container {0} is not this shim's")]
    OtherContainer(String),
    #[error("container is not created")]
    NotCreated,
    #[error("container is created already")]
    Created,
    #[error("container is not running")]
    NotRunning,
    #[error("client is not held")]
    NotHeld,
    #[error("exec {0} does not exist")]
    NoExec(String),
    #[error("request needs {wanted} descriptors and has {found}")]
    Descriptors { wanted: usize, found: usize },
    #[error("connection has no room for descriptors")]
    Busy,
    #[error("open streams")]
    Streams(#[source] io::Error),
    #[error("find cgroup hierarchies")]
    Hierarchies(#[source] io::Error),
    #[error("record state")]
    Record(#[source] io::Error),
    #[error("send signal")]
    Signal(#[source] io::Error),
    #[error("resize terminal")]
    Resize(#[source] io::Error),
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The working directory. The text is dockerd's.
    #[error("Cannot mkdir: {0} is not a directory")]
    NotADirectory(String),
    #[error(transparent)]
    Create(CreateError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl CallError {
    fn kind(&self) -> ErrorKind {
        match self {
            CallError::OtherContainer(_) | CallError::NotCreated => ErrorKind::NotFound,
            CallError::NoExec(_) | CallError::NotHeld => ErrorKind::NotFound,
            CallError::Created => ErrorKind::AlreadyExists,
            CallError::NotRunning => ErrorKind::Conflict,
            CallError::Descriptors { .. } => ErrorKind::InvalidArgument,
            CallError::Busy => ErrorKind::Unavailable,
            CallError::Streams(_) | CallError::Hierarchies(_) | CallError::Record(_) => ErrorKind::Internal,
            CallError::NotADirectory(_) | CallError::Foreign(_) => ErrorKind::Internal,
            CallError::Signal(err) if err.raw_os_error() == Some(NO_PROCESS) => ErrorKind::Conflict,
            CallError::Signal(err) | CallError::Resize(err) => errdefs::io_kind(err),
            CallError::Log(err) => err.kind(),
            CallError::Create(err) => err.kind(),
            CallError::Start(err) => err.kind(),
            CallError::Exec(err) => err.kind(),
            CallError::User(err) => err.kind(),
            CallError::Checkpoint(err) => err.kind(),
        }
    }

    fn exit_code(&self) -> i32 {
        if let CallError::Foreign(err) = self {
            return err.exit_code();
        }
        let code = match self {
            CallError::Create(err) => err.exit_code(),
            CallError::Exec(err) => err.exit_code(),
            _ => 128,
        };
        // 126 and 127 say what is wrong with the program; everything else is 128 for Docker's clients.
        if matches!(code, 126 | 127) { i32::from(code) } else { 128 }
    }

    fn reason(&self) -> Reason {
        match self {
            CallError::Create(CreateError::User(_)) | CallError::Exec(ExecError::User(_)) | CallError::User(_) => {
                Reason::User
            }
            CallError::NotADirectory(_) => Reason::WorkingDir,
            CallError::Log(_) => Reason::Log,
            CallError::Foreign(ForeignError::Bundle(BundleError::User(_))) => Reason::User,
            CallError::Foreign(ForeignError::Bundle(BundleError::NotADirectory(_))) => Reason::WorkingDir,
            CallError::Foreign(_) => Reason::Foreign,
            CallError::Checkpoint(_) => Reason::Restore,
            _ => Reason::Runtime,
        }
    }
}

impl From<CreateError> for CallError {
    fn from(err: CreateError) -> CallError {
        match err {
            CreateError::Process(ProcessError::Cwd { path, source })
                if source.0.kind() == io::ErrorKind::NotADirectory =>
            {
                CallError::NotADirectory(path)
            }
            err => CallError::Create(err),
        }
    }
}

impl From<CallError> for Failure {
    fn from(err: CallError) -> Failure {
        let message = match &err {
            // Whoever wrote `-v` knows no field of config.json, and Docker's clients take words about a directory for a
            // program that is one.
            CallError::Create(CreateError::Process(ProcessError::Sides { mounted, place, source, .. })) => {
                shim_api::mount_refusal(mounted, place, source)
            }
            err => errdefs::chain(err),
        };
        Failure { kind: err.kind(), message, exit_code: err.exit_code(), reason: err.reason() }
    }
}

const NO_PROCESS: i32 = rustix::io::Errno::SRCH.raw_os_error();
impl Shim {
    /// Does what a request asks for, and answers; `None` if the answer comes later.
    pub(crate) fn call(
        &mut self,
        request: Request,
        mut descriptors: Vec<OwnedFd>,
        connection: u64,
    ) -> Result<Option<Answer>, CallError> {
        if request.container != self.id {
            return Err(CallError::OtherContainer(request.container.to_string()));
        }
        let asker = Asker { connection, seq: request.seq };
        let answer = match request.call {
            Call::Exec(exec) => {
                self.exec(*exec, descriptors, asker)?;
                return Ok(None);
            }
            Call::Hello { version: _ } => Ok(self.hello()),
            Call::Create(task) => self.create(*task, descriptors).inspect_err(|_| self.doomed |= self.task.is_none()),
            Call::Attach(wants) if wants.hold.is_some() => {
                return hold::attach(self, wants, one(&mut descriptors)?, asker);
            }
            Call::Attach(wants) => self.attach(wants, one(&mut descriptors)?),
            Call::Release { hold, already_read } => hold::release(self, hold, &already_read),
            Call::Start => self.start(),
            Call::Checkpoint(request) => {
                let task = self.task.as_mut().filter(|task| task.run_state.started && task.is_alive());
                task.ok_or(CallError::NotRunning)?.write(*request, asker)?;
                return Ok(None);
            }
            Call::Resize { exec_id, height, width } => self.resize(exec_id, height, width),
            Call::Signal { signal } => self.signal(signal),
            Call::SignalExec { exec_id, signal } => {
                let task = self.task.as_ref().ok_or(CallError::NotCreated)?;
                task.signal_exec(&exec_id, signal).map_err(CallError::Signal).map(|()| Answer::Done)
            }
            Call::Keep => {
                let task = self.task.as_mut().filter(|task| task.is_alive()).ok_or(CallError::NotRunning)?;
                task.kept.lent = descriptors;
                Ok(Answer::Done)
            }
            // They go with the answer where that is sent.
            Call::Lend => {
                let task = self.task.as_ref().ok_or(CallError::NotCreated)?;
                Ok(Answer::Lent { descriptors: task.kept.lent.len() as u32 })
            }
            Call::State => Ok(Answer::State(self.task.as_ref().map(|task| task.run_state.clone()))),
            Call::CheckUser { user } => self.check_user(&user),
        };
        answer.map(Some)
    }

    fn hello(&mut self) -> Answer {
        let state = self.task.as_ref().map(|task| task.run_state.clone());
        // Those that were told are among the ended ones.
        let execs = self.task.iter().flat_map(|task| &task.execs).filter(|exec| !exec.told).map(Exec::state);
        let joins = self.task.iter().flat_map(|task| &task.joins).map(Join::state);
        let foreign = self.task.iter().flat_map(|task| &task.foreign).flat_map(|foreign| &foreign.execs);
        let execs =
            self.ended_execs.states().chain(execs).chain(joins).chain(foreign.map(ForeignExec::state)).collect();
        Answer::Hello { version: VERSION, state, execs }
    }

    fn create(&mut self, mut task: CreateTask, mut descriptors: Vec<OwnedFd>) -> Result<Answer, CallError> {
        if self.task.is_some() {
            return Err(CallError::Created);
        }
        let lends = task.lends as usize;
        let own = descriptors.len().checked_sub(lends);
        let lent =
            descriptors.split_off(own.ok_or(CallError::Descriptors { wanted: lends, found: descriptors.len() })?);
        // Open until the container is made: from then on its processes keep what they are for.
        let (_borrowed, joined) = borrow(&mut task, &mut descriptors)?;
        let log = crate::log::open(&task)?;
        let terminal = task.spec.process.terminal;
        let mut ends = Ends::open(terminal, task.open_stdin, true).map_err(CallError::Streams)?;
        let hierarchies = cgroup::Hierarchies::detect().map_err(CallError::Hierarchies)?;
        let mut made = make(self.id.as_str(), &mut task, ends.take_stdio(), &hierarchies)?;
        let console = made.container.console.take();
        let streams = Streams::new(ends, console, task.stdin_once, task.spool_dir);
        let mut streams = streams.map_err(CallError::Streams).inspect_err(|_| {
            made.foreign.iter().for_each(Foreign::delete);
            // The error above is the one that explains.
            let _ = made.container.destroy();
        })?;
        if let Some(log) = log {
            streams.set_log(log);
        }
        let pid = made.container.pid.as_raw_nonzero().get();
        self.task = Some(Task::new(made, streams, Descriptors { _held: descriptors, lent }, joined));
        Ok(Answer::Created { pid })
    }

    fn attach(&mut self, wants: Attach, socket: OwnedFd) -> Result<Answer, CallError> {
        let task = self.task.as_mut().ok_or(CallError::NotCreated)?;
        task.streams.attach(socket, wants);
        Ok(Answer::Done)
    }

    fn start(&mut self) -> Result<Answer, CallError> {
        let task = self.task.as_mut().ok_or(CallError::NotCreated)?;
        let container = task.container.as_mut().ok_or(CallError::NotRunning)?;
        match (&task.foreign, task.restoring.take()) {
            (_, Some(restoring)) => drop(restoring.release().map_err(CheckpointError::Criu)?),
            (Some(foreign), None) => foreign.start()?,
            (None, None) => container.start()?,
        }
        task.oom.started(Instant::now());
        task.run_state.started = true;
        task.run_state.started_at_nanos = exit::now_nanos();
        exit::write_state(&self.dir, &task.run_state).map_err(CallError::Record)?;
        Ok(Answer::Started(task.run_state.clone()))
    }

    fn exec(&mut self, mut exec: ExecTask, mut descriptors: Vec<OwnedFd>, asker: Asker) -> Result<(), CallError> {
        let task = self.task.as_mut().filter(|task| task.run_state.started).ok_or(CallError::NotRunning)?;
        let alive = task.is_alive();
        let container = task.container.as_ref().filter(|_| alive).ok_or(CallError::NotRunning)?;
        let client = exec.attach.take().map(|wants| Ok::<_, CallError>((one(&mut descriptors)?, wants))).transpose()?;
        match &mut task.foreign {
            Some(foreign) => foreign.exec(container, exec, client, asker),
            None => {
                task.joins.push(Join::begin(container, exec, client, asker)?);
                Ok(())
            }
        }
    }

    fn check_user(&self, user: &str) -> Result<Answer, CallError> {
        let task = self.task.as_ref().ok_or(CallError::NotCreated)?;
        let container = task.container.as_ref().ok_or(CallError::NotRunning)?;
        container.check_user(UserRequest { user, groups: &[] })?;
        Ok(Answer::Done)
    }

    fn resize(&mut self, exec_id: Option<String>, height: u16, width: u16) -> Result<Answer, CallError> {
        let task = self.task.as_ref().ok_or(CallError::NotCreated)?;
        let streams = match exec_id {
            None => &task.streams,
            Some(id) => match task.execs.iter().find(|exec| exec.id == id) {
                Some(exec) => &exec.streams,
                None => return Err(CallError::NoExec(id)),
            },
        };
        // Docker's answer for a process without a terminal, too.
        let Some(console) = streams.console() else { return Ok(Answer::Done) };
        sys::terminal::resize(console, height, width).map_err(CallError::Resize)?;
        Ok(Answer::Done)
    }

    fn signal(&mut self, signal: i32) -> Result<Answer, CallError> {
        let task = self.task.as_ref().ok_or(CallError::NotCreated)?;
        let alive = task.is_alive();
        let container = task.container.as_ref().filter(|_| alive).ok_or(CallError::NotRunning)?;
        match &task.foreign {
            // What it calls the first process may not be the program.
            Some(foreign) if signal != SIGKILL => foreign.kill(signal)?,
            _ => container.kill(signal).map_err(CallError::Signal)?,
        }
        if signal == SIGKILL {
            // A frozen task of cgroup version 1 dies only when it is thawed. Where nothing can be frozen this fails, rightly.
            let _ = container.resume();
        }
        Ok(Answer::Done)
    }
}

/// Makes the container, by the runtime that the task names.
fn make(id: &str, task: &mut CreateTask, stdio: Stdio, hierarchies: &Hierarchies) -> Result<Made, CallError> {
    if let Some(runtime) = task.runtime.take() {
        if task.restore.is_some() {
            return Err(CheckpointError::Foreign.into());
        }
        let (foreign, container) = Foreign::create(id, task, runtime, stdio, hierarchies)?;
        return Ok(Made { container, foreign: Some(foreign), restoring: None });
    }
    if let Some(from) = task.restore.take() {
        let (container, restoring) = checkpoint::restore(id, task, from, stdio, hierarchies)?;
        return Ok(Made { container, foreign: None, restoring: Some(restoring) });
    }
    let container = oci_runtime::create(CreateOptions {
        id,
        spec: &task.spec,
        user: task.user.as_deref().map(|user| UserRequest { user, groups: &task.groups }),
        stdio,
        hierarchies,
        kept: Kept::default(),
        handover: None,
    })?;
    Ok(Made { container, foreign: None, restoring: None })
}

/// Puts the namespaces and mounts that came as descriptors into the specification.
fn borrow(
    task: &mut CreateTask,
    descriptors: &mut Vec<OwnedFd>,
) -> Result<(Vec<OwnedFd>, Vec<NamespaceKind>), CallError> {
    let network = task.joins_network.then_some(NamespaceKind::Network);
    let kinds: Vec<NamespaceKind> = network.into_iter().chain(task.joins.iter().copied()).collect();
    let (wanted, found) = (kinds.len() + usize::from(task.shares_memory), descriptors.len());
    if found < wanted {
        return Err(CallError::Descriptors { wanted, found });
    }
    let borrowed: Vec<OwnedFd> = descriptors.drain(..wanted).collect();
    let path = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    for (kind, namespace) in kinds.iter().zip(&borrowed) {
        let namespaces = &mut task.spec.linux.namespaces;
        namespaces.retain(|namespace| namespace.kind != *kind);
        namespaces.push(Namespace { kind: *kind, path: Some(path(namespace)) });
    }
    if let Some(memory) = borrowed.get(kinds.len()) {
        let (destination, options) = ("/dev/shm".into(), vec!["bind".to_owned()]);
        let mount = Mount { destination, source: path(memory), options, prepared: true, ..Mount::default() };
        // With the kernel's own file systems: what users mount may lie below.
        let place = task.spec.mounts.iter().rposition(|mount| mount.destination.starts_with("/dev"));
        task.spec.mounts.insert(place.map_or(0, |place| place + 1), mount);
    }
    Ok((borrowed, kinds))
}

fn one(descriptors: &mut Vec<OwnedFd>) -> Result<OwnedFd, CallError> {
    let found = descriptors.len();
    descriptors.pop().filter(|_| found == 1).ok_or(CallError::Descriptors { wanted: 1, found })
}
