//! Creating, starting, executing in, and taking away a container.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cgroup::{Cgroup, CgroupError, Hierarchies};
use oci::runtime::{DeviceRule, Hooks, NamespaceKind, Process, Resources, Spec, State};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use rustix::thread::ThreadNameSpaceType;

use crate::birth::birth;
use crate::channel::{Channel, Message};
use crate::delegation;
use crate::error::{CreateError, ExecError, OpenError, PlanError, ProcessError, StartError};
use crate::field::FieldError;
use crate::filter::{self, Filter};
use crate::joining::{ExecProcess, Joining, Usher};
use crate::mounts::build_root;
use crate::plan::Plan;
use crate::process::ProcessPlan;
use crate::rootless::CgroupNeed;
use crate::scheduling::Machine;
use crate::supply::{clone_nodes, makes_nodes};
use crate::user_namespace::{bounding, is_privileged};
use crate::{labels, user};

/// Standard input, output and error of a process.
#[derive(Debug)]
pub enum Stdio {
    /// These three, in their order. They are closed in the caller's process.
    Fds([OwnedFd; 3]),
    /// A terminal of the container's own devpts, whose master the caller gets.
    Terminal,
}

/// Who runs, as a user of the command line says it; replaces the ids of the specification.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserRequest<'a> {
    /// `USER[:GROUP]`, names or numbers; empty for root.
    pub user: &'a str,
    /// Further groups, names or numbers.
    pub groups: &'a [String],
}

/// What [`create`] needs.
#[derive(Debug)]
pub struct CreateOptions<'a> {
    /// The container's id: names its keyring, and its cgroup where the specification does not.
    pub id: &'a str,
    /// The whole contract.
    pub spec: &'a Spec,
    /// Resolved in the container's own files; absent if the specification's ids are final.
    pub user: Option<UserRequest<'a>>,
    /// For the first process.
    pub stdio: Stdio,
    /// What [`Hierarchies::detect`] found.
    pub hierarchies: &'a Hierarchies,
    /// What the first process keeps of the caller's.
    pub kept: Kept,
    /// For a caller that ends before its container.
    pub handover: Option<Handover<'a>>,
}

/// What a process keeps of the caller's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The session keyring, instead of one of the container's own.
    pub keyring: bool,
    /// So many descriptors after standard error. They must be open, and nothing of ours among them.
    pub descriptors: u32,
}

/// For a caller that ends before its container: the container waits at its gate for whoever comes.
///
/// [`Container::start`] is not for it then, and hooks are run.
#[derive(Clone, Copy, Debug)]
pub struct Handover<'a> {
    /// A FIFO, open for reading and writing; [`open_gate`](crate::open_gate) on it starts the container. While it has a
    /// reader besides the caller, the container waits.
    pub gate: BorrowedFd<'a>,
    /// What hooks are told; status and number are filled in.
    pub state: &'a State,
    /// Whether there has to be a cgroup.
    pub cgroup: CgroupNeed,
    /// Moves the root over the host's instead of exchanging both, for hosts that run from an initramfs. Less safe.
    pub no_pivot: bool,
}

/// A container that another process of ours has created.
#[derive(Debug)]
pub struct Living<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The whole contract.
    pub spec: &'a Spec,
    /// Its first process.
    pub pid: Pid,
    /// The first process, opened and known to be that one.
    pub pidfd: OwnedFd,
    /// What [`Hierarchies::detect`] found.
    pub hierarchies: &'a Hierarchies,
    /// Whether it has to have a cgroup.
    pub cgroup: CgroupNeed,
}

/// What [`Container::exec`] needs.
#[derive(Debug)]
pub struct ExecOptions<'a> {
    /// The process.
    pub process: &'a Process,
    /// Resolved in the container's own files; absent if the process's ids are final.
    pub user: Option<UserRequest<'a>>,
    /// For the process.
    pub stdio: Stdio,
    /// What it keeps of the caller's.
    pub kept: Kept,
}

/// A container whose first process exists. The caller is its parent and reaps it through `pidfd`.
///
/// Dropping it before [`Container::start`] ends the process; afterwards dropping changes nothing.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// The first process, as its parent sees it.
    pub pid: Pid,
    /// The first process, for ever.
    pub pidfd: OwnedFd,
    /// The terminal's master, if there is a terminal; blocking.
    pub console: Option<OwnedFd>,
    /// The root directory (O_PATH): resolve paths of the container beneath it with openat2(RESOLVE_IN_ROOT).
    pub root: OwnedFd,
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// What listeners of SCMP_ACT_NOTIFY are told of it when a process is added; only its id and number at first.
    pub state: State,
    /// How long [`Container::exec`] waits for the new process to be ready; ten seconds at first.
    pub exec_within: Duration,
    /// Whether an added process that cannot execute its program names a missing interpreter on its standard error. dockerd's
    /// users know the sentence without it: not at first.
    pub names_interpreter: bool,
    gate: Option<Channel>,
    /// The gate, once it was opened: what becomes of the program is said here.
    opened: Option<Channel>,
    need: CgroupNeed,
    namespaces: ThreadNameSpaceType,
    machine: Machine,
    seccomp: Option<Filter>,
}

/// How long the processes of a failed or removed container have to go.
pub(crate) const DESTROY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a process has to come into a container. It takes a millisecond; but the container's own processes see it and
/// may stop it (SIGSTOP, or a frozen cgroup), and its working directory may be on a file system that does not answer.
const EXEC_WITHIN: Duration = Duration::from_secs(10);

/// How long a cgroup has to freeze or thaw.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// What every container may do with devices whatever its specification says, as with runc (libcontainer/specconv
/// `AllowedDevices`): make any node, use the default ones, which we make ourselves, and TUN, which VPNs in containers need.
pub fn default_device_rules() -> impl Iterator<Item = DeviceRule> {
    let make = ["c", "b"].map(|kind| (kind, None, None, "m"));
    let memory = [3, 5, 7, 8, 9].map(|minor| (1, Some(minor)));
    let terminals = [(5, Some(0)), (5, Some(2)), (136, None)];
    let nodes = memory.into_iter().chain(terminals).chain([(10, Some(200))]);
    let used = nodes.map(|(major, minor)| ("c", Some(major), minor, "rwm"));
    make.into_iter().chain(used).map(|(kind, major, minor, access)| DeviceRule {
        allow: true,
        kind: kind.to_owned(),
        major,
        minor,
        access: access.to_owned(),
    })
}

/// Makes the container and its first process, which waits right before execve for [`Container::start`].
///
/// Blocks for about 3 ms. The calling process has one thread. On failure nothing is left.
pub fn create(options: CreateOptions<'_>) -> Result<Container, CreateError> {
    require_one_thread()?;
    let spec = options.spec;
    let mut plan = Plan::new(spec)?;
    require_root_or_namespace(&plan)?;
    require_terminal(&spec.process, &options.stdio)?;
    labels::check_mounts(spec)?;
    let hooks = hooks(&options)?;
    let mut root = root(&plan, spec)?;
    let seccomp = Filter::read(spec)?;
    let mut process =
        plan_process(options.id, plan.namespaces.all, &spec.process, options.user, root.as_fd(), seccomp.clone())??;
    plan.devices.iter_mut().for_each(|(_, device)| device.give(process.uid, process.gid));
    process.kept = options.kept;
    process.machine = plan.machine.clone();
    process.labels.check_host()?;
    process.names_field = options.handover.is_some();
    process.names_interpreter = options.handover.is_some();
    process.start_hooks = hooks.map(|(hooks, state)| {
        let status = "created".into();
        (hooks.start_container.clone(), State { status, ..state.clone() })
    });
    let mut resources = spec.linux.resources.clone().unwrap_or_default();
    resources.devices.extend(default_device_rules());
    let cgroup = need(&options).create(options.hierarchies, &cgroup_path(options.id, spec), &resources)?;
    let given = delegation::delegate(&plan, process.uid, &cgroup).map_err(CreateError::from);
    // Devices of the host's network that have moved do not move again: then it is asked first.
    let nodes = match plan.net_devices.is_empty() || plan.user.is_some() || makes_nodes() {
        true => Ok(Vec::new()),
        false => clone_nodes(&plan),
    };
    let given = given.and(nodes);
    let mut born = given.and_then(|nodes| birth(&options, &plan, &process, root.as_fd(), &cgroup, hooks, &nodes));
    if plan.net_devices.is_empty() && born.as_ref().is_err_and(CreateError::is_for_want_of_devices) {
        // Root of a user namespace that somebody else has made: no hook was run yet. The root was attached, so once more.
        born = self::root(&plan, spec).and_then(|again| {
            root = again;
            birth(&options, &plan, &process, root.as_fd(), &cgroup, hooks, &clone_nodes(&plan)?)
        });
    }
    match born {
        Ok((child, console, gate)) => Ok(Container {
            // Of one that has ended already there is nothing more to see than its files.
            root: if plan.user.is_some() { open_root(child.pid).unwrap_or(root) } else { root },
            id: options.id.to_owned(),
            pid: child.pid,
            pidfd: child.pidfd,
            console,
            state: plain_state(options.id, child.pid),
            exec_within: EXEC_WITHIN,
            names_interpreter: false,
            // Closed where the container waits elsewhere.
            gate: Some(gate).filter(|_| options.handover.is_none()),
            opened: None,
            need: need(&options),
            namespaces: plan.namespaces.all,
            machine: plan.machine,
            seccomp,
            cgroup,
        }),
        Err(err) => {
            let err = explained(err, &spec.linux.masked_paths, &resources, &cgroup);
            // The first error is the one that explains; a directory that stays is taken over by the next try.
            let _ = cgroup.abandon(DESTROY_TIMEOUT);
            Err(err)
        }
    }
}

/// Mounts and namespaces are the host's root's to make, or those of a user namespace's.
fn require_root_or_namespace(plan: &Plan) -> Result<(), CreateError> {
    let uid = rustix::process::geteuid();
    if uid.is_root() || plan.namespaces.all.contains(ThreadNameSpaceType::USER) || is_privileged()? {
        return Ok(());
    }
    Err(FieldError::Rootless { uid: uid.as_raw() }.at("linux.namespaces").into())
}

/// A process that died says nothing; its cgroup may. And a file that is missing may be masked.
fn explained(err: CreateError, masked: &[String], resources: &Resources, cgroup: &Cgroup) -> CreateError {
    let limit = resources.memory.as_ref().and_then(|memory| memory.limit);
    match (err, limit) {
        (CreateError::Process(ProcessError::Died { .. }), Some(limit)) if cgroup::had_oom_kill(cgroup) => {
            CreateError::NoMemory { limit }
        }
        (CreateError::Process(ProcessError::Step { step, subject, source }), _) => {
            let hides = |mask: &String| Path::new(&subject).starts_with(mask);
            let hidden = source.0.kind() == io::ErrorKind::NotFound && !subject.is_empty();
            match masked.iter().position(hides).filter(|_| hidden) {
                Some(index) => CreateError::Refused {
                    field: format!("linux.maskedPaths[{index}]"),
                    what: format!("{} hides {subject}, which is needed to {step}", masked[index]),
                    source: source.0,
                },
                None => ProcessError::Step { step, subject, source }.into(),
            }
        }
        (err, _) => err,
    }
}

/// What [`create`] would refuse of the specification, without doing anything.
pub fn check(spec: &Spec) -> Result<(), PlanError> {
    Plan::new(spec)?;
    filter::check(&spec.linux)?;
    ProcessPlan::check(&spec.process)
}

/// Where the container's processes are in every hierarchy.
pub(crate) fn cgroup_path(id: &str, spec: &Spec) -> PathBuf {
    match spec.linux.cgroups_path.as_str() {
        "" => PathBuf::from("/longshore").join(id),
        path => PathBuf::from(path),
    }
}

/// The hooks, if there are any, with what they are told.
fn hooks<'a>(options: &CreateOptions<'a>) -> Result<Option<(&'a Hooks, &'a State)>, PlanError> {
    let unsupported = |what: &str| Err(PlanError::Unsupported { what: what.to_owned() });
    let own_mounts = options.spec.linux.namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::Mount);
    if !own_mounts && !mounts_into_detached_trees() {
        return Err(PlanError::NoMountNamespace);
    }
    match (options.spec.hooks.as_ref().filter(|hooks| **hooks != Hooks::default()), &options.handover) {
        (None, _) => Ok(None),
        (Some(_), None) => unsupported("running hooks for an engine"),
        (Some(_), _) if !own_mounts => {
            Err(FieldError::Needs { with: "a mount namespace of the container's own in linux.namespaces" }.at("hooks"))
        }
        (Some(_), _) if !options.spec.root.mounts.is_empty() => unsupported("running hooks with a root of our own"),
        (Some(hooks), Some(handover)) => Ok(Some((hooks, handover.state))),
    }
}

/// Whether the kernel is 6.15 or newer: before, whoever has mounts of its own has a mount namespace of its own.
fn mounts_into_detached_trees() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

impl Container {
    /// A container that another process has created. The caller is not its parent: it cannot start or reap it.
    pub fn open(living: Living<'_>) -> Result<Container, OpenError> {
        let Living { id, spec, pid, pidfd, hierarchies, cgroup } = living;
        let root = open_root(pid).map_err(|source| OpenError::Read { path: root_path(pid), source })?;
        let seccomp = Filter::read(spec).map_err(|err| OpenError::Filter { source: Box::new(err) })?;
        let plan = Plan::new(spec)?;
        Ok(Container {
            id: id.to_owned(),
            pid,
            pidfd,
            console: None,
            root,
            cgroup: Cgroup::open(hierarchies, &cgroup_path(id, spec))?,
            state: plain_state(id, pid),
            exec_within: EXEC_WITHIN,
            names_interpreter: false,
            gate: None,
            opened: None,
            need: cgroup,
            namespaces: plan.namespaces.all,
            machine: plan.machine,
            seccomp,
        })
    }

    /// Whether the first process has ended, reaped or not.
    pub fn has_ended(&self) -> bool {
        sys::wait::readable(self.pidfd.as_fd(), Instant::now()).unwrap_or(true)
    }

    /// Lets the first process execute its program. If that fails then, the container says so on its standard error and
    /// ends with status 255, as under runc.
    pub fn start(&mut self) -> Result<(), StartError> {
        let gate = self.gate.take().ok_or(StartError::Started)?;
        gate.send_start().map_err(|source| StartError::Gate { source })?;
        self.opened = Some(gate);
        Ok(())
    }

    /// Why the program was never executed, of a container that was started and has ended. Never blocks.
    pub fn unexecuted(&mut self) -> Option<ProcessError> {
        let opened = self.opened.take()?;
        // The end of the stream is there to be read, unless a descendant has it, who then was executed.
        rustix::io::ioctl_fionbio(&opened.0, true).ok()?;
        match opened.receive() {
            Ok(Message::Failed(err)) => Some(err),
            _ => None,
        }
    }

    /// By now the program was executed, or it will never be asked.
    pub fn is_executed(&mut self) {
        self.opened = None;
    }

    /// Whether [`Container::start`] is still to be called.
    pub fn is_created(&self) -> bool {
        self.gate.is_some()
    }

    /// Begins to run another process inside. Never waits for anything of the container's: drive the answer to its end.
    ///
    /// Other threads of the calling process must never allocate (see [`sys::fork::fork`]).
    pub fn join(&self, options: ExecOptions<'_>) -> Result<Joining, ExecError> {
        require_terminal(options.process, &options.stdio)?;
        let (root, seccomp) = (self.root.as_fd(), self.seccomp.clone());
        let mut process = plan_process(&self.id, self.namespaces, options.process, options.user, root, seccomp)??;
        process.kept = options.kept;
        process.machine = self.machine.clone();
        process.names_interpreter = self.names_interpreter;
        process.labels.check_host()?;
        let entrance = self.need.entrance(&self.cgroup)?;
        let (container, namespaces) = (self.pidfd.as_fd(), self.namespaces);
        let (cgroup, first, stdio) = (&self.cgroup, self.pid, options.stdio);
        let state = &self.state;
        let usher = Usher { container, namespaces, root, cgroup, first, entrance, process, stdio, state };
        usher.send(Instant::now() + self.exec_within)
    }

    /// [`Container::join`] and [`Joining::advance`] in one: answers when the process is about to execute its program.
    ///
    /// Blocks for about 1 ms, and for [`Container::exec_within`] at most.
    pub fn exec(&self, options: ExecOptions<'_>) -> Result<ExecProcess, ExecError> {
        let mut joining = self.join(options).map_err(|err| err.with_limit(&self.cgroup))?;
        loop {
            let waited = sys::wait::readable(joining.fd(), joining.deadline());
            waited.map_err(|source| ExecError::Clone { action: "wait for the new process", source })?;
            if let Some(result) = joining.advance(Instant::now()) {
                return result.map_err(|err| err.with_limit(&self.cgroup));
            }
        }
    }

    /// Whether an exec would find this user in the container's files.
    pub fn check_user(&self, request: UserRequest<'_>) -> Result<(), user::UserError> {
        user::resolve(self.root.as_fd(), request.user, request.groups).map(drop)
    }

    /// Whom an exec would run as: this user as the container's files have it.
    pub fn resolve_user(&self, user: &str, groups: &[String]) -> Result<oci::runtime::User, user::UserError> {
        Ok(user::resolve(self.root.as_fd(), user, groups)?.user)
    }

    /// Sends a signal to the first process; any number that the kernel knows.
    pub fn kill(&self, signal: i32) -> io::Result<()> {
        sys::signal::send(self.pidfd.as_fd(), signal)
    }

    /// Freezes all processes.
    pub fn pause(&self) -> Result<(), CgroupError> {
        self.cgroup.freeze(FREEZE_TIMEOUT)
    }

    /// Lets all processes go on.
    pub fn resume(&self) -> Result<(), CgroupError> {
        self.cgroup.thaw(FREEZE_TIMEOUT)
    }

    /// Opens one of the first process's namespaces. Fails once the process was reaped, or has ended.
    pub fn namespace(&self, kind: NamespaceKind) -> io::Result<OwnedFd> {
        // The number is not another process's: we are the parent and have not reaped it, or the caller was told.
        File::open(format!("/proc/{}/ns/{}", self.pid.as_raw_nonzero(), kind.file_name())).map(OwnedFd::from)
    }

    /// Kills what is left and removes the cgroup. The first process must have been reaped, or be about to end.
    ///
    /// `root` stays open until the container is dropped: that unmounts it, and with an overlay writes back its upper
    /// directory, which takes a millisecond or more. Whoever is in a hurry tells others of the end first.
    pub fn destroy(&mut self) -> Result<(), CgroupError> {
        drop(self.gate.take());
        self.cgroup.destroy(DESTROY_TIMEOUT)
    }
}

pub(crate) fn need(options: &CreateOptions<'_>) -> CgroupNeed {
    options.handover.map_or(CgroupNeed::Always, |handover| handover.cgroup)
}

fn root_path(pid: Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root", pid.as_raw_nonzero()))
}

fn open_root(pid: Pid) -> io::Result<OwnedFd> {
    open_directory(&root_path(pid))
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(rustix::fs::CWD, path, flags, Mode::empty())?)
}

/// The root to look at and, without a user namespace, to mount.
fn root(plan: &Plan, spec: &Spec) -> Result<OwnedFd, CreateError> {
    let path = &spec.root.path;
    if plan.user.is_none() || !spec.root.mounts.is_empty() {
        return build_root(&spec.root, plan.root_propagation);
    }
    open_directory(path).map_err(|source| CreateError::Refused {
        field: "root.path".into(),
        what: path.display().to_string(),
        source,
    })
}

/// What is known of a container without those who made its bundle.
pub(crate) fn plain_state(id: &str, pid: Pid) -> State {
    let pid = pid.as_raw_nonzero().get();
    State {
        oci_version: oci::runtime::VERSION.into(),
        id: id.to_owned(),
        status: "running".into(),
        pid,
        ..State::default()
    }
}

fn plan_process(
    id: &str,
    namespaces: ThreadNameSpaceType,
    process: &Process,
    request: Option<UserRequest<'_>>,
    root: BorrowedFd<'_>,
    seccomp: Option<Filter>,
) -> Result<Result<ProcessPlan, user::UserError>, PlanError> {
    let held = bounding(namespaces);
    let Some(request) = request else {
        return ProcessPlan::new(id, process, || user::home(root, process.user.uid), seccomp, held);
    };
    let resolved = match user::resolve(root, request.user, request.groups) {
        Ok(resolved) => resolved,
        Err(err) => return Ok(Err(err)),
    };
    let umask = process.user.umask;
    let process = Process { user: oci::runtime::User { umask, ..resolved.user }, ..process.clone() };
    ProcessPlan::new(id, &process, || Ok(resolved.home), seccomp, held)
}

fn require_terminal(process: &Process, stdio: &Stdio) -> Result<(), PlanError> {
    if process.terminal == matches!(stdio, Stdio::Terminal) { Ok(()) } else { Err(PlanError::Terminal) }
}

/// A second thread could hold the allocator's lock at the clone, and the child would wait for it for ever.
pub(crate) fn require_one_thread() -> Result<(), CreateError> {
    let path = Path::new("/proc/self/task");
    let links = fs::metadata(path).map_err(|source| CreateError::Read { path: path.to_owned(), source })?.nlink();
    // A directory has two links of its own, and one for each directory inside.
    match links.saturating_sub(2) {
        1 => Ok(()),
        threads => Err(CreateError::Threads { threads }),
    }
}
