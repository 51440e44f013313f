//! The parent's side of a first process: everything between the cgroup and the child's word that it is ready. The child's
//! side is [`crate::child`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use cgroup::{Cgroup, Hierarchies};
use oci::runtime::{Hooks, Spec, State};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::ThreadNameSpaceType;
use sys::fork::{Child, NewNamespaces, fork};

use crate::channel::{Channel, Failure, Message, Offer};
use crate::child::{Birth, MadeHooks, Node};
use crate::container::{CreateOptions, need, plain_state};
use crate::error::{CreateError, ProcessError};
use crate::field::FieldError;
use crate::filter::{Filter, ListenerError};
use crate::hooks::{HookError, Ran};
use crate::inside;
use crate::mounts::{Built, build};
use crate::plan::{Joined, Plan, word};
use crate::process::{ProcessPlan, open_proc};
use crate::supply::Order;
use crate::user_namespace::{attend, is_privileged};
use crate::{net_devices, sysctl, time};

/// How long a killed child has to end before it is left to whoever reaps the caller's children: one in a frozen cgroup of
/// version 1 ends only when that is thawed.
pub(crate) const REAP_WITHIN: Duration = Duration::from_secs(1);

/// Everything from the mounts to the child's word that it is ready.
pub(crate) fn birth(
    options: &CreateOptions<'_>,
    plan: &Plan,
    process: &ProcessPlan,
    root: BorrowedFd<'_>,
    cgroup: &Cgroup,
    hooks: Option<(&Hooks, &State)>,
    nodes: &[Node],
) -> Result<(Child, Option<OwnedFd>, Channel), CreateError> {
    let failed = |action| move |source| CreateError::Clone { action, source };
    let order = order(options, plan, root, cgroup, hooks.is_some())?;
    let mounts = if order.is_some() { Vec::new() } else { mounts(plan, cgroup, options.hierarchies)? };
    let entrance = need(options).entrance(cgroup)?;
    let joined_pid = plan.namespaces.joined_pid.as_ref().map(open_namespace).transpose()?;
    let joined = plan.namespaces.joined.iter().map(open_namespace).collect::<Result<Vec<_>, _>>()?;
    check_joined(options.spec, plan, &joined)?;
    let proc = open_proc().map_err(|source| CreateError::Read { path: "/proc".into(), source })?;
    let (ours, theirs) = Channel::pair().map_err(failed("make a socket pair"))?;
    let birth = Birth {
        plan,
        process,
        stdio: &options.stdio,
        entrance: &entrance,
        root,
        mounts: &mounts,
        nodes,
        place: None,
        order,
        joined: &joined,
        joined_pid: joined_pid.as_ref().map(|namespace| namespace.as_fd()),
        proc: proc.as_fd(),
        no_pivot: options.handover.is_some_and(|handover| handover.no_pivot),
        gate: options.handover.as_ref().map(|handover| handover.gate),
        hooks: hooks.map(|(hooks, state)| MadeHooks { hooks, state, place: &options.spec.root.path }),
    };
    let ours_fd = std::cell::Cell::new(Some(ours));
    // A copy of the parent's end would keep the gate from seeing the parent's death.
    let take = || drop(ours_fd.take());
    let alone = hooks.is_none() && options.handover.is_none();
    let outside = joined_pid.is_some() && alone && inside::can_leave_host(plan, process);
    let clone = || match birth.order {
        None if outside => Ok(fork(plan.namespaces.new, entrance.directory(), || {
            (take(), report(&theirs, birth.run_outside(&theirs))).1
        })),
        None => clone_at(plan.namespaces.joined_pid.as_ref().zip(joined_pid.as_ref()), || {
            fork(plan.namespaces.new, entrance.directory(), || (take(), report(&theirs, birth.run(&theirs))).1)
        }),
        Some(_) => Ok(fork(NewNamespaces::default(), entrance.directory(), || (take(), birth.usher(&theirs)).1)),
    };
    let child = in_time(&plan.namespaces.time_offsets, clone)?;
    let mut child = child.map_err(failed("clone the container's process"))?;
    let ours = ours_fd.take().expect("only the child takes it");
    drop(theirs);
    if let Some(order) = &birth.order {
        child = attend(&ours, &child, order)?;
    }
    let listen = |offer| listen(options, process, &child, offer, &ours);
    let supplied = net_devices::supply(plan, &joined, child.pid, &ours).map_err(Unready::Unsupplied);
    let (mut born, mut ran) = (None, Ran::default());
    let hooks = || run_hooks(hooks, child.pid, &mut ran);
    let heard = supplied.and_then(|()| hear(&ours, hooks, listen, &mut born, outside));
    let settled = settle(heard, child, born, process.seccomp.as_ref().map(Filter::field));
    // Of a container that is none nothing stays.
    let (child, console) = settled.inspect_err(|_| ran.kill())?;
    Ok((child, console, ours))
}

/// The first process, which is the child, or was born by it; none of both lives on where that failed.
fn settle(
    heard: Result<Option<OwnedFd>, Unready>,
    child: Child,
    born: Option<Child>,
    filtered: Option<&'static str>,
) -> Result<(Child, Option<OwnedFd>), CreateError> {
    match (heard, born) {
        (Ok(console), None) => Ok((child, console)),
        (Ok(console), Some(born)) => {
            // The usher has said its last word.
            let reaped = sys::wait::wait(child.pidfd.as_fd());
            reaped.map_err(|source| CreateError::Clone { action: "reap the container's usher", source })?;
            Ok((born, console))
        }
        (Err(failure), born) => {
            let status = end(&child, REAP_WITHIN);
            Err(failure.with_status(born.map_or(status, |born| end(&born, REAP_WITHIN)), filtered))
        }
    }
}

/// Why a first process is not ready.
enum Unready {
    Unsupplied(CreateError),
    Failed(ProcessError),
    Hook(HookError),
    Listener(ListenerError),
    Gone,
    Unheard(io::Error),
}

impl Unready {
    /// What the caller is told, once the process has ended with this status.
    fn with_status(self, status: u8, filtered: Option<&'static str>) -> CreateError {
        match self {
            Unready::Unsupplied(err) => err,
            Unready::Failed(err) => err.into(),
            Unready::Hook(err) => err.into(),
            Unready::Listener(err) => err.into(),
            Unready::Gone => ProcessError::died(status, filtered).into(),
            Unready::Unheard(source) => CreateError::Clone { action: "hear from the container's process", source },
        }
    }
}

/// The parent's hooks.
pub(crate) fn run_hooks(hooks: Option<(&Hooks, &State)>, pid: Pid, ran: &mut Ran) -> Result<(), HookError> {
    let Some((hooks, state)) = hooks else { return Ok(()) };
    let state = State { status: "creating".into(), pid: pid.as_raw_nonzero().get(), ..state.clone() };
    ran.run_all("prestart", &hooks.prestart, &state)?;
    ran.run_all("createRuntime", &hooks.create_runtime, &state)
}

/// Hands the filter's listener over.
fn listen(
    options: &CreateOptions<'_>,
    process: &ProcessPlan,
    child: &Child,
    offer: Offer,
    channel: &Channel,
) -> Result<(), ListenerError> {
    let listener = process.seccomp.as_ref().and_then(|filter| filter.listener.as_ref());
    let told = options.handover.as_ref().map(|handover| handover.state.clone());
    let pid = child.pid.as_raw_nonzero().get();
    let state = State { status: "creating".into(), pid, ..told.unwrap_or_else(|| plain_state(options.id, child.pid)) };
    listener.map_or(Ok(()), |listener| listener.accept(child, offer, &state, channel))
}

/// Reads until the first process is ready: its terminal's master, if it has one. Blocks for as long as it works.
fn hear(
    channel: &Channel,
    mut hooks: impl FnMut() -> Result<(), HookError>,
    listen: impl Fn(Offer) -> Result<(), ListenerError>,
    born: &mut Option<Child>,
    by_usher: bool,
) -> Result<Option<OwnedFd>, Unready> {
    let (mut console, mut ready) = (None, false);
    // In whichever order: two processes tell.
    while !ready || by_usher && born.is_none() {
        match channel.receive().map_err(Unready::Unheard)? {
            Message::Console(master) => console = Some(master),
            Message::Made => {
                hooks().map_err(Unready::Hook)?;
                channel.send_go().map_err(Unready::Unheard)?;
            }
            Message::Listener(offer) => listen(offer).map_err(Unready::Listener)?,
            Message::Ready => ready = true,
            Message::Failed(err) => return Err(Unready::Failed(err)),
            Message::Gone => return Err(Unready::Gone),
            Message::Born(pid, pidfd) => *born = Some(Child { pid, pidfd }),
        }
    }
    Ok(console)
}

/// The parent's half of all mounts.
fn mounts(plan: &Plan, cgroup: &Cgroup, hierarchies: &Hierarchies) -> Result<Vec<Built>, CreateError> {
    let own_cgroups = plan.namespaces.all.contains(ThreadNameSpaceType::CONTROL_GROUP);
    let build = |mount| build(mount, cgroup, hierarchies, own_cgroups, |wanted| wanted.open());
    plan.mounts.iter().map(build).collect()
}

/// What the first process of a container with a user namespace gets of the host.
fn order<'a>(
    options: &CreateOptions<'a>,
    plan: &'a Plan,
    root: BorrowedFd<'a>,
    cgroup: &'a Cgroup,
    place: bool,
) -> Result<Option<Order<'a>>, CreateError> {
    let Some(user) = &plan.user else { return Ok(None) };
    let (spec, hierarchies) = (options.spec, options.hierarchies);
    let root = (!spec.root.mounts.is_empty()).then_some(root);
    let by_parent = is_privileged()?;
    Ok(Some(Order { user, plan, spec, cgroup, hierarchies, root, place, by_parent }))
}

/// Clones into a time namespace with these offsets, if there are any.
fn in_time<T>(offsets: &str, clone: impl FnOnce() -> Result<T, CreateError>) -> Result<T, CreateError> {
    if offsets.is_empty() {
        return clone();
    }
    time::with_offsets(offsets, clone).map_err(|source| CreateError::Refused {
        field: "linux.timeOffsets".to_owned(),
        what: format!("write {:?} to /proc/self/timens_offsets", offsets.trim_end()),
        source,
    })?
}

fn clone_at<T>(namespace: Option<(&Joined, &OwnedFd)>, clone: impl FnOnce() -> T) -> Result<T, CreateError> {
    let Some((joined, namespace)) = namespace else { return Ok(clone()) };
    sys::namespace::in_pid_namespace(namespace.as_fd(), clone).map_err(joined.failed("join"))
}

/// Opens it, and sees that it is of the kind that is wanted.
fn open_namespace(joined: &Joined) -> Result<OwnedFd, CreateError> {
    // Whatever it is, it is not waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(rustix::fs::CWD, &joined.path, flags, Mode::empty());
    let opened = opened.map_err(|err| joined.failed("open")(err.into()))?;
    let found = match sys::namespace::kind(opened.as_fd()) {
        Ok(kind) if kind == joined.kind => return Ok(opened),
        Ok(kind) => format!("a namespace of kind {}, not of kind {}", word(kind), word(joined.kind)),
        Err(err) if err.raw_os_error() == Some(Errno::NOTTY.raw_os_error()) => "no namespace".to_owned(),
        // Some files answer requests that they do not know otherwise; none of them is a namespace.
        Err(err) if err.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => "no namespace".to_owned(),
        Err(err) => return Err(joined.failed("look at")(err)),
    };
    let path = joined.path.display().to_string();
    Err(FieldError::NamespaceKind { path, found }.at(&joined.field).into())
}

impl Joined {
    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> CreateError {
        let (field, path) = (self.field.clone(), self.path.clone());
        move |source| CreateError::Namespace { field, action, path, source }
    }
}

/// Refuses what would be done to the host: mounts in its mount namespace, parameters of its network.
fn check_joined(spec: &Spec, plan: &Plan, joined: &[OwnedFd]) -> Result<(), CreateError> {
    for (joined, fd) in plan.namespaces.joined.iter().zip(joined) {
        let is_own = |name| sys::namespace::is_own(fd.as_fd(), name).map_err(joined.failed("look at"));
        match joined.kind {
            ThreadNameSpaceType::MOUNT if is_own("mnt")? => {
                let found = "the mount namespace of the runtime itself, whose mounts would change".to_owned();
                let path = joined.path.display().to_string();
                return Err(FieldError::NamespaceKind { path, found }.at(&joined.field).into());
            }
            ThreadNameSpaceType::NETWORK => {
                let network = spec.linux.sysctl.keys().find(|name| sysctl::is_network(name));
                if let Some(name) = network.filter(|_| is_own("net").unwrap_or(true)) {
                    return Err(sysctl::not_separate(name, None).into());
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Tells the parent why the child gives up, and is its exit status.
pub(crate) fn report(channel: &Channel, result: Result<std::convert::Infallible, Failure>) -> u8 {
    let Err(failure) = result;
    channel.send_failure(&failure);
    1
}

/// Kills a child that is not ready, and reaps it if it ends within so long; its status, as far as it is known.
pub(crate) fn end(child: &Child, within: Duration) -> u8 {
    // Whether it ends by itself is not to be waited for; that it is gone already is no error.
    let _ = sys::signal::send(child.pidfd.as_fd(), rustix::process::Signal::KILL.as_raw());
    let ended = sys::wait::readable(child.pidfd.as_fd(), Instant::now() + within);
    let exit = ended.and_then(|_| sys::wait::try_wait(child.pidfd.as_fd()));
    exit.ok().flatten().map_or(0, sys::wait::Exit::code)
}
