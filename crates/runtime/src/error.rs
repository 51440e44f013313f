//! Why a command failed. The sentences are runc's, which podman, containerd and dockerd look for in the log.

use std::path::PathBuf;

use oci_runtime::{CreateError, ExecError, FieldError, OpenError, ProcessError, SystemError};

use crate::arguments::UsageError;
use crate::bundle::BundleError;
use crate::given::GivenError;
use crate::seal::SealError;
use crate::state::StateError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The command line.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The container's record.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// What came with the process.
    #[error(transparent)]
    Given(#[from] GivenError),
    /// Our own program's file.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The system-call filter.
    #[error("linux.seccomp{}", rule_of(.0))]
    Filter(#[from] seccomp::CacheError),
    /// The directory that was named for the bundle holds none.
    #[error("--bundle")]
    NoBundle {
        /// Why.
        source: BundleError,
    },
    /// The file that a flag names is not what it takes.
    #[error("--{flag}")]
    FlagFile {
        /// Which flag.
        flag: &'static str,
        /// Why.
        source: Box<BundleError>,
    },
    /// The container's own process gave up.
    #[error("unable to start container process: error during container init")]
    Init {
        /// Why.
        source: oci_runtime::ProcessError,
    },
    /// A limit of resources was refused. Docker's clients print the rest, which has no name.
    #[error("unable to start container process: error during container init: {field}")]
    Rlimit {
        /// Which limit.
        field: String,
        /// Why.
        source: oci_runtime::ProcessError,
    },
    /// What one field of the process's asks for could not be done; in runc's words behind its name.
    #[error("unable to start container process: error during container init: {field}")]
    InitField {
        /// Its full name.
        field: &'static str,
        /// Why.
        source: oci_runtime::ProcessError,
    },
    /// The container could not be made.
    #[error("unable to start container process")]
    Create {
        /// Why.
        source: CreateError,
    },
    /// The process could not be added.
    #[error("unable to start container process")]
    Exec {
        /// Why.
        source: ExecError,
    },
    /// What a field of its asks for could not be done; in runc's words behind its name.
    #[error("unable to start container process: {place}")]
    ExecField {
        /// Its full name, or the flag that was given for it.
        place: String,
        /// Why.
        source: ProcessError,
    },
    /// A field of its cannot be carried out.
    #[error("unable to start container process: {place}")]
    ExecPlan {
        /// Its full name, or the flag that was given for it.
        place: String,
        /// Why.
        source: FieldError,
    },
    /// The working directory that a flag asks for. What runc says is about config.json, which has nothing to do with it.
    #[error("unable to start container process: --cwd {path}")]
    ExecDirectory {
        /// As given.
        path: String,
        /// The kernel's answer.
        source: SystemError,
    },
    /// The living container could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its cgroup.
    #[error(transparent)]
    Cgroup(#[from] cgroup::CgroupError),
    /// A hook.
    #[error(transparent)]
    Hook(#[from] oci_runtime::hooks::HookError),
    /// Two containers would limit and kill each other.
    #[error("container's cgroup is not empty: {processes} process(es) found")]
    CgroupInUse {
        /// How many are there.
        processes: usize,
    },
    /// Checkpoint or restore.
    #[error(transparent)]
    Criu(#[from] oci_runtime::checkpoint::CriuError),
    /// There is nothing to be written.
    #[error("container cannot be checkpointed in {status} state")]
    CheckpointState {
        /// Its state.
        status: &'static str,
    },
    /// Images could not be moved together.
    #[error("--parent-path must be relative")]
    AbsoluteParent,
    /// A hook of its has taken it away.
    #[error("container was deleted by a hook of its own")]
    Deleted,
    /// It runs.
    #[error("cannot start an already running container")]
    StartRunning,
    /// It is over.
    #[error("cannot start a container that has stopped")]
    StartStopped,
    /// Any other state.
    #[error("cannot start a container in the {status} state")]
    StartState {
        /// Which.
        status: &'static str,
    },
    /// There is no process.
    #[error("container not running")]
    NotRunning,
    /// There is no process yet. The first words are runc's.
    #[error("container not running: it is being made by {by}, and delete --force ends that")]
    NotMade {
        /// Who makes it.
        by: String,
    },
    /// All of them are frozen. The first words are runc's.
    #[error("container not running: it is paused already")]
    PausedAlready,
    /// Nothing is frozen.
    #[error("container not paused")]
    NotPaused,
    /// It runs.
    #[error("cannot delete container {id} that is not stopped: {status}")]
    DeleteState {
        /// Which container.
        id: String,
        /// Its state.
        status: &'static str,
    },
    /// Killed processes do not end while they stand still (version 1 of cgroups).
    #[error("container {id} does not end: its cgroup {} is frozen from above, and has to be thawed first", path.display())]
    Frozen {
        /// Which container.
        id: String,
        /// Its cgroup.
        path: PathBuf,
    },
    /// Without its record its cgroup is not known, and a process of it runs.
    #[error("container {id} cannot be read, and its process {pid} runs: kill that first")]
    Unreadable {
        /// Which container.
        id: String,
        /// Its first process.
        pid: i32,
        /// What is wrong with the record.
        source: StateError,
    },
    /// It is over.
    #[error("cannot exec in a stopped container")]
    ExecStopped,
    /// The process would not begin.
    #[error("cannot exec in a paused container (use --ignore-paused to override)")]
    ExecPaused,
    /// The file of a process says all of it.
    #[error("{what} and --process exclude each other: the file says all of the process, args included")]
    BesideFile {
        /// What was given, too.
        what: String,
    },
    /// There is no command.
    #[error("exec args cannot be empty")]
    NoArguments,
    /// No such signal.
    #[error("unknown signal {text:?}, must be a name as SIGTERM or a number from 0 to {}", sys::signal::SIGNAL_MAX)]
    Signal {
        /// As given.
        text: String,
    },
    /// Counters cannot be printed all the time.
    #[error("--interval: duration interval must be greater than 0")]
    Interval,
    /// It is over.
    #[error("container with id {id} is not running")]
    EventsStopped {
        /// Which.
        id: String,
    },
    /// This machine cannot share its caches out, or nobody has switched it on.
    #[error("Intel RDT: {what} schema is not enabled")]
    Schema {
        /// Of what.
        what: &'static str,
    },
    /// What is asked for goes by the cgroup.
    #[error("container {id} has no cgroup, by which {what}")]
    NoCgroup {
        /// Which container.
        id: String,
        /// What is known or done by a cgroup.
        what: &'static str,
    },
    /// The host's `ps` failed.
    #[error("ps ended with {status}{}{output}", if output.is_empty() { "" } else { ": " })]
    Ps {
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        output: String,
    },
    /// Its table has no column of process numbers.
    #[error("couldn't find PID field in ps output")]
    PsColumn,
    /// A cgroup below the container's, as it cannot be named.
    #[error("invalid --cgroup argument: {text} ({why})")]
    Subgroup {
        /// As given.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
    /// systemd.
    #[error(transparent)]
    Systemd(#[from] cgroup::systemd::SystemdError),
    /// A user's systemd has no controller of version 1 to give. As runc says it.
    #[error("cannot use rootless systemd cgroups manager on cgroup v1")]
    SystemdUserVersion1,
    /// A limit was refused that a flag asks for.
    #[error("--{flag}")]
    Limit {
        /// Which flag.
        flag: &'static str,
        /// Why.
        source: cgroup::CgroupError,
    },
    /// No such form. The first words are runc's.
    #[error("invalid format option: {format:?} of --format must be table or json")]
    Format {
        /// As given.
        format: String,
    },
    /// There is no such command. As runc says it.
    #[error("No help topic for '{command}'")]
    Unknown {
        /// As given.
        command: String,
    },
    /// Nobody could reach the process's terminal. The last words are runc's.
    #[error("process.terminal (or --tty) needs a terminal, and there is none here: open /dev/tty")]
    NoTerminal {
        /// The kernel's answer.
        source: SystemError,
    },
    /// A directory could not be entered.
    #[error("{flag}chdir {}", path.display())]
    Chdir {
        /// What it was named by, if it was.
        flag: &'static str,
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: SystemError,
    },
    /// Anything else of the system.
    #[error("{action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: SystemError,
    },
    /// A file could not be written.
    #[error("{action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With which.
        path: PathBuf,
        /// The kernel's answer.
        source: SystemError,
    },
}

impl CommandError {
    pub(crate) fn system<E: Into<std::io::Error>>(action: &'static str) -> impl FnOnce(E) -> CommandError {
        move |err| CommandError::System { action, source: SystemError(err.into()) }
    }
}

impl From<CreateError> for CommandError {
    fn from(err: CreateError) -> CommandError {
        match err {
            CreateError::Process(source) => match &source {
                ProcessError::Rlimit { field, .. } => CommandError::Rlimit { field: field.clone(), source },
                err => match field_of(err) {
                    Some(field) => CommandError::InitField { field, source },
                    None => CommandError::Init { source },
                },
            },
            source => CommandError::Create { source },
        }
    }
}

/// The rule that is at fault, as it is named behind `linux.seccomp`; empty if none is.
fn rule_of(err: &seccomp::CacheError) -> String {
    match err {
        seccomp::CacheError::Compile(seccomp::CompileError::Contradiction { contradiction }) => {
            format!(".syscalls[{}].action", contradiction.rule)
        }
        _ => String::new(),
    }
}

/// The field of what has no field in runc's words.
pub(crate) fn field_of(err: &ProcessError) -> Option<&'static str> {
    match err {
        ProcessError::NotInPath { .. }
        | ProcessError::Stat { .. }
        | ProcessError::NotExecutable { .. }
        | ProcessError::IsDirectory { .. } => Some("process.args[0]"),
        ProcessError::Cwd { .. } => Some("process.cwd"),
        _ => None,
    }
}
