//! Why creating, starting and executing fail.

use std::fmt;
use std::io;
use std::path::PathBuf;

use errdefs::ErrorKind;
use rustix::process::Signal;

use crate::field::FieldError;

/// Why a specification cannot be carried out, known before anything is done.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A feature that this runtime does not have.
    #[error("{what} is not supported")]
    Unsupported {
        /// Which.
        what: String,
    },
    /// A container without its own mount namespace would change the host's: before Linux 6.15, and with a user namespace.
    #[error("linux.namespaces: a mount namespace of its own is required")]
    NoMountNamespace,
    /// A field whose value cannot be.
    #[error("{field}")]
    Field {
        /// Its full name: `process.rlimits[0].type`.
        field: String,
        /// What is wrong with it.
        source: FieldError,
    },
    /// There is no command.
    #[error("process.args: is empty")]
    NoArguments,
    /// A string holds a NUL byte.
    #[error("{field}: contains a NUL byte")]
    Nul {
        /// Where.
        field: &'static str,
    },
    /// Calls are left to a listener, and there is none.
    #[error("linux.seccomp.listenerPath is not set, and SCMP_ACT_NOTIFY needs it")]
    NoListener,
    /// `terminal` and the standard streams given do not fit.
    #[error("process.terminal and the given standard streams contradict each other")]
    Terminal,
}

impl PlanError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PlanError::Unsupported { .. } | PlanError::Field { source: FieldError::HostLacks { .. }, .. } => {
                ErrorKind::NotImplemented
            }
            _ => ErrorKind::InvalidArgument,
        }
    }
}

/// The kernel's answer, printed as Go and so runc and Docker print it: `no such file or directory`.
#[derive(Debug)]
pub struct SystemError(pub io::Error);

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&errdefs::system_words(&self.0))
    }
}

impl std::error::Error for SystemError {}

/// Why the container's process could not get as far as its program. The texts are runc's, which Docker's clients print.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// A name without slash that no directory of `PATH` has.
    #[error("exec: {name:?}: executable file not found in $PATH")]
    NotInPath {
        /// The name.
        name: String,
    },
    /// A path that does not lead to a file.
    #[error("exec: {path:?}: stat {path}")]
    Stat {
        /// The path.
        path: String,
        /// The kernel's answer.
        source: SystemError,
    },
    /// A file that this user may not execute.
    #[error("exec: {path:?}: permission denied")]
    NotExecutable {
        /// The path.
        path: String,
    },
    /// A directory.
    #[error("exec: {path:?}: is a directory")]
    IsDirectory {
        /// The path.
        path: String,
    },
    /// The program could not be executed after all.
    #[error("exec {path}")]
    Execute {
        /// The path.
        path: String,
        /// The kernel's answer.
        source: SystemError,
    },
    /// What the program's first line, or its header, says that runs it is not there.
    #[error("exec {path}: its interpreter {interpreter} is missing")]
    Interpreter {
        /// The program.
        path: String,
        /// Who should run it.
        interpreter: String,
        /// The kernel's answer.
        source: SystemError,
    },
    /// The working directory could not be entered.
    #[error("chdir to cwd ({path:?}) set in config.json failed")]
    Cwd {
        /// The directory.
        path: String,
        /// The kernel's answer.
        source: SystemError,
    },
    /// A limit was refused: usually a hard limit above our own without CAP_SYS_RESOURCE.
    #[error("error setting rlimits for ready process: error setting rlimit type {number}")]
    Rlimit {
        /// The kernel's number of it, which runc prints.
        number: u8,
        /// The field, its name and what was asked for: `process.rlimits[0].hard: RLIMIT_NOFILE 1048576`.
        field: String,
        /// The kernel's answer.
        source: SystemError,
    },
    /// A mount point could not be found or made.
    #[error("{place}: {step}")]
    Mount {
        /// The field with the mount point in the container: `mounts[3].destination: /place`.
        place: String,
        /// What was tried.
        step: Step,
        /// The kernel's answer.
        source: SystemError,
    },
    /// A hook failed in the container's namespaces.
    #[error("{text}")]
    Hook {
        /// The whole reason.
        text: String,
    },
    /// The kernel refuses what a field asks for.
    #[error("{text}")]
    Refused {
        /// The field's full name, and what was tried.
        text: String,
        /// The kernel's answer.
        source: SystemError,
    },
    /// A directory was to be mounted over something else, or the other way round.
    #[error("{text}")]
    Sides {
        /// Both fields, and what they are.
        text: String,
        /// What was to be mounted: a path of the host's, or a kind of file system.
        mounted: String,
        /// Where in the container.
        place: String,
        /// The kernel's answer.
        source: SystemError,
    },
    /// Any other step between clone and exec.
    #[error("{step}{}{subject}", if subject.is_empty() || step.is_silent() { "" } else { " " })]
    Step {
        /// Which.
        step: Step,
        /// To what; may be empty.
        subject: String,
        /// The kernel's answer.
        source: SystemError,
    },
    /// The process ended before it was ready, and has a filter that can end it: its own action, or an error for a call that
    /// nothing goes on without.
    #[error(
        "{field}: the filter has to allow what comes before the program: the container's process ended with status \
         {status} before it was ready"
    )]
    Filtered {
        /// The filter's field that is at fault.
        field: &'static str,
        /// 128 plus the signal.
        status: u8,
    },
    /// The process ended before it was ready: killed for memory, or by somebody else.
    #[error("the container's process ended with status {status} before it was ready")]
    Died {
        /// Exit status, or 128 plus the signal.
        status: u8,
    },
}

impl ProcessError {
    /// Of a process that ended before it said that it was ready, and may have had a filter by then.
    /// `filtered` is the filter's field.
    pub(crate) fn died(status: u8, filtered: Option<&'static str>) -> ProcessError {
        // What a filter does to a call is SIGSYS; a process whose every call fails ends in SIGSEGV.
        let by_filter = [Signal::SYS, Signal::SEGV].map(|signal| 128 + signal.as_raw());
        match filtered.filter(|_| by_filter.contains(&status.into())) {
            Some(field) => ProcessError::Filtered { field, status },
            None => ProcessError::Died { status },
        }
    }

    /// The exit code that Docker's command line ends with: 127 for "not found", 126 for "cannot be run", else 125.
    pub fn exit_code(&self) -> u8 {
        let missing = |source: &SystemError| source.0.kind() == io::ErrorKind::NotFound;
        match self {
            ProcessError::NotInPath { .. } => 127,
            ProcessError::Stat { source, .. } | ProcessError::Cwd { source, .. } if missing(source) => 127,
            ProcessError::NotExecutable { .. } | ProcessError::IsDirectory { .. } => 126,
            ProcessError::Stat { source, .. } | ProcessError::Cwd { source, .. }
                if source.0.kind() == io::ErrorKind::PermissionDenied =>
            {
                126
            }
            _ => 125,
        }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ProcessError::Died { .. }
            | ProcessError::Filtered { .. }
            | ProcessError::Step { .. }
            | ProcessError::Hook { .. } => ErrorKind::Internal,
            _ => ErrorKind::InvalidArgument,
        }
    }
}

/// Why [`crate::create`] failed. Nothing is left of the container.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The specification cannot be carried out.
    #[error("plan container")]
    Plan {
        /// Why.
        #[from]
        source: PlanError,
    },
    /// The process must be single-threaded: the child would inherit locks that nobody unlocks.
    #[error("creating a container needs a process of one thread, and this one has {threads}")]
    Threads {
        /// How many there are.
        threads: u64,
    },
    /// The user or a group is not in the container's files.
    #[error(transparent)]
    User(#[from] crate::user::UserError),
    /// The cgroup could not be made.
    #[error(transparent)]
    Cgroup(#[from] cgroup::CgroupError),
    /// Nor could a caller without privilege, and the specification asks for one.
    #[error("rootless needs no limits + no cgrouppath when no permission is granted for cgroups")]
    RootlessCgroup {
        /// The kernel's answer.
        source: cgroup::CgroupError,
    },
    /// What a field asks for could not be had.
    #[error("{field}: {what}")]
    Refused {
        /// The field's full name.
        field: String,
        /// The value, and what was tried with it.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A part of the host's tree could not be had.
    #[error("{action} {}", path.display())]
    Host {
        /// What was tried.
        action: &'static str,
        /// The path on the host.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A namespace to join could not be had.
    #[error("{field}: {action} {}", path.display())]
    Namespace {
        /// The field's full name.
        field: String,
        /// What was tried.
        action: &'static str,
        /// Its file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file that the specification names could not be used.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file is not a compiled system-call filter.
    #[error("{} is not a compiled seccomp filter, or a damaged one", path.display())]
    SeccompProgram {
        /// The file.
        path: PathBuf,
    },
    /// The process could not be cloned or talked to.
    #[error("{action}")]
    Clone {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The ids of a user namespace could not be set.
    #[error("{field}: map the ids by {program}")]
    WriteMap {
        /// The field's full name.
        field: String,
        /// The file that says them.
        program: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The program that maps ids for those without privilege refused.
    #[error("{field}: map the ids: {text}")]
    MapTool {
        /// The field's full name.
        field: String,
        /// Which program.
        tool: &'static str,
        /// What it said.
        text: String,
    },
    /// A network device of the host could not be moved.
    #[error("linux.netDevices.{name}: {action} {name}")]
    NetDevice {
        /// Its name on the host.
        name: String,
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A hook failed.
    #[error(transparent)]
    Hook(#[from] crate::hooks::HookError),
    /// The filter's listener could not be told.
    #[error(transparent)]
    Listener(#[from] crate::filter::ListenerError),
    /// The child could not prepare itself.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The kernel killed the child before it was ready.
    #[error("linux.resources.memory.limit: {limit} bytes are too few for the container's process, which was killed")]
    NoMemory {
        /// The limit.
        limit: i64,
    },
}

impl CreateError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CreateError::Plan { source } => source.kind(),
            CreateError::User(err) => err.kind(),
            CreateError::Cgroup(err) | CreateError::RootlessCgroup { source: err } => err.kind(),
            CreateError::Process(err) => err.kind(),
            CreateError::Hook(err) => err.kind(),
            CreateError::NetDevice { .. }
            | CreateError::Refused { .. }
            | CreateError::Host { .. }
            | CreateError::Namespace { .. }
            | CreateError::Listener(_)
            | CreateError::WriteMap { .. }
            | CreateError::MapTool { .. }
            | CreateError::NoMemory { .. } => ErrorKind::InvalidArgument,
            CreateError::Threads { .. }
            | CreateError::Read { .. }
            | CreateError::SeccompProgram { .. }
            | CreateError::Clone { .. } => ErrorKind::Internal,
        }
    }

    /// Whether the child was not allowed to make a device node.
    pub(crate) fn is_for_want_of_devices(&self) -> bool {
        let CreateError::Process(ProcessError::Step { step: Step::MakeNode | Step::MakeDevice, source, .. }) = self
        else {
            return false;
        };
        source.0.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error())
    }

    /// The exit code that Docker's command line ends with.
    pub fn exit_code(&self) -> u8 {
        if let CreateError::Process(err) = self { err.exit_code() } else { 125 }
    }
}

/// Why [`crate::Container::open`] failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The specification cannot be carried out.
    #[error("plan container")]
    Plan {
        /// Why.
        #[from]
        source: PlanError,
    },
    /// The cgroup could not be found.
    #[error(transparent)]
    Cgroup(#[from] cgroup::CgroupError),
    /// A file of the container's could not be opened.
    #[error("open {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The system-call filter cannot be used.
    #[error("read the container's seccomp filter")]
    Filter {
        /// Why.
        source: Box<CreateError>,
    },
}

impl OpenError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            OpenError::Plan { source } => source.kind(),
            OpenError::Cgroup(err) => err.kind(),
            OpenError::Read { .. } | OpenError::Filter { .. } => ErrorKind::Internal,
        }
    }
}

/// Why [`crate::Container::start`] failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It has been started before.
    #[error("container has been started already")]
    Started,
    /// The process at the gate is gone.
    #[error("open the gate of the container's process")]
    Gate {
        /// The kernel's answer.
        source: io::Error,
    },
}

impl StartError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Conflict
    }
}

/// Why [`crate::Container::exec`] failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The process cannot be carried out as asked.
    #[error("plan process")]
    Plan {
        /// Why.
        #[from]
        source: PlanError,
    },
    /// The user or a group is not in the container's files.
    #[error(transparent)]
    User(#[from] crate::user::UserError),
    /// The cgroup could not be entered.
    #[error(transparent)]
    Cgroup(#[from] cgroup::CgroupError),
    /// The container's cgroup takes no more tasks.
    #[error("linux.resources.pids.limit: the container has as many tasks as it may, {limit} (pids.max of its cgroup)")]
    NoTasks {
        /// The limit.
        limit: u64,
        /// The kernel's answer.
        source: SystemError,
    },
    /// The process could not be cloned or talked to.
    #[error("{action}")]
    Clone {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The filter's listener could not be told.
    #[error(transparent)]
    Listener(#[from] crate::filter::ListenerError),
    /// The child could not prepare itself.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

impl ExecError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ExecError::Plan { source } => source.kind(),
            ExecError::User(err) => err.kind(),
            ExecError::Cgroup(err) => err.kind(),
            ExecError::Process(err) => err.kind(),
            ExecError::Listener(_) => ErrorKind::InvalidArgument,
            ExecError::Clone { .. } | ExecError::NoTasks { .. } => ErrorKind::Internal,
        }
    }

    /// In the words of the limit, if it was that of tasks that kept a process from being cloned.
    pub(crate) fn with_limit(self, cgroup: &cgroup::Cgroup) -> ExecError {
        let is_full = |err: &io::Error| err.raw_os_error() == Some(rustix::io::Errno::AGAIN.raw_os_error());
        let source = match self {
            ExecError::Process(ProcessError::Step { step: Step::Clone, source, .. }) if is_full(&source.0) => source,
            ExecError::Clone { source, .. } if is_full(&source) => SystemError(source),
            other => return other,
        };
        match cgroup::full_of_tasks(cgroup) {
            Some(limit) => ExecError::NoTasks { limit, source },
            None => ProcessError::Step { step: Step::Clone, subject: String::new(), source }.into(),
        }
    }

    /// The exit code that Docker's command line ends with.
    pub fn exit_code(&self) -> u8 {
        if let ExecError::Process(err) = self { err.exit_code() } else { 125 }
    }
}

macro_rules! steps {
    ($($(#[$doc:meta])+ $name:ident = $text:literal,)+) => {
        /// What a container's process does between clone and exec.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Step {
            $($(#[$doc])+ $name,)+
        }

        impl Step {
            const ALL: &[Step] = &[$(Step::$name,)+];
        }

        impl fmt::Display for Step {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Step::$name => $text,)+ })
            }
        }
    };
}

steps! {
    /// The process itself.
    Clone = "clone",
    /// Into the cgroup.
    EnterCgroup = "enter cgroup",
    /// Into an existing namespace.
    JoinNamespace = "join namespace",
    /// A new cgroup namespace.
    NewCgroupNamespace = "make a cgroup namespace",
    /// The copied mounts of the host stop telling the host.
    DetachHostMounts = "detach from the host's mounts",
    /// The root becomes `/`.
    ChangeRoot = "change root",
    /// The loopback interface.
    Loopback = "bring up the loopback interface",
    /// A kernel parameter or another file of proc.
    WriteProc = "write",
    /// A file system for the container's own namespaces.
    BuildMount = "build mount",
    /// The place where something is mounted.
    MountPoint = "find or make the mount point",
    /// proc and sysfs through a link.
    OrdinaryDirectory = "must be an ordinary directory",
    /// Anything over /proc or into it through a link.
    CoverProc = "leads to /proc",
    /// Anything over the root through a link.
    CoverRoot = "is the container's root, which no mount covers",
    /// A finished mount to its place.
    AttachMount = "attach mount",
    /// What a tmpfs takes over.
    CopyUp = "take over what is covered",
    /// A mount that is there already.
    Remount = "remount",
    /// A device node or a link in /dev.
    MakeNode = "linux.devices: make the default",
    /// A device of the specification, which the subject names.
    MakeDevice = "",
    /// The keyring.
    Keyring = "join session keyring",
    /// The session and its terminal.
    Terminal = "set up the terminal",
    /// Standard streams.
    Stdio = "set up standard streams",
    /// The working directory.
    MakeCwd = "process.cwd: mkdir",
    /// The seccomp filter.
    Seccomp = "linux.seccomp: load the filter",
    /// Ids.
    Credentials = "set user and groups",
    /// Capabilities.
    Capabilities = "process.capabilities: set",
    /// Policy and priority.
    Scheduler = "process.scheduler.policy: set",
    /// I/O priority.
    IoPriority = "process.ioPriority.class: set",
    /// Processors.
    Affinity = "process.execCPUAffinity.final: set the processors",
    /// The execution domain.
    Personality = "linux.personality.domain: set",
    /// Memory nodes.
    MemoryPolicy = "linux.memoryPolicy: set",
    /// For the next execve.
    ApparmorProfile = "process.apparmorProfile: set",
    /// For the next execve.
    SelinuxLabel = "process.selinuxLabel: set",
    /// no_new_privs.
    NoNewPrivileges = "process.noNewPrivileges: set",
    /// Signals, descriptors.
    Clean = "clean up before exec",
    /// Talking to the parent.
    Report = "report to the parent",
}

impl Step {
    /// Whether the subject says it all.
    fn is_silent(self) -> bool {
        self == Step::MakeDevice
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Step> {
        Step::ALL.get(usize::from(byte)).copied()
    }
}
