//! Adding a process to a running container.
//!
//! ```text
//! caller                         usher                                      the process
//! plan; clone  ----------------> enter the cgroup
//!                                join all namespaces
//!                                close what is the caller's
//!                                clone, as a child of the caller ---------> session, terminal, limits, ids,
//!   <--------------------- BORN  end                                        capabilities, seccomp
//!   <--------------------------------------------------------------- READY  wait
//! START  -----------------------------------------------------------------> execve
//! ```
//!
//! Why two: a process is a member of a PID namespace from its birth on, and those inside that hold CAP_SYS_PTRACE can look
//! into it from that moment, dumpable or not. So whoever is born inside has the container's root and none of the host's
//! descriptors from the beginning (CVE-2016-9962, and what made CVE-2024-21626 possible). The usher is never inside.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use cgroup::{Cgroup, Entrance};
use oci::runtime::State;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, set_dumpable_behavior};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use sys::fork::{Child, NewNamespaces, fork, fork_sibling};
use sys::scheduling::Mask;

use crate::Stdio;
use crate::birth::{REAP_WITHIN, end, report};
use crate::channel::{At, Channel, Failure, Message, Offer};
use crate::child::enter_root;
use crate::error::{ExecError, ProcessError, Step, SystemError};
use crate::filter::{Delivery, Filter, Listener};
use crate::process::{ProcessPlan, Streams, open_proc, write_proc};
use crate::scheduling::on_processors;
use crate::user_namespace::become_root;

/// A process added to a container. The caller is its parent and reaps it through `pidfd`.
#[derive(Debug)]
pub struct ExecProcess {
    /// As its parent sees it.
    pub pid: Pid,
    /// For ever.
    pub pidfd: OwnedFd,
    /// The terminal's master, if there is a terminal; blocking.
    pub console: Option<OwnedFd>,
}

/// A process on its way into a container. Dropping it ends it.
///
/// Besides the process itself the caller has another child until then, which ends by itself: whoever gets SIGCHLD reaps
/// children that it does not know.
#[derive(Debug)]
pub struct Joining {
    channel: Channel,
    usher: Option<Child>,
    born: Option<Child>,
    console: Option<OwnedFd>,
    ready: bool,
    failure: Option<ProcessError>,
    deadline: Instant,
    /// Who decides calls, and what it is told.
    listener: Option<(Listener, State)>,
    /// Where the listener's descriptor is, until it was taken.
    offer: Option<Offer>,
    /// The descriptor's way to the listener.
    delivery: Option<Delivery>,
    /// The field of a filter that could end it.
    filtered: Option<&'static str>,
}

/// What the usher needs.
pub(crate) struct Usher<'a> {
    pub(crate) container: BorrowedFd<'a>,
    pub(crate) namespaces: ThreadNameSpaceType,
    pub(crate) root: BorrowedFd<'a>,
    pub(crate) cgroup: &'a Cgroup,
    /// The container's first process.
    pub(crate) first: Pid,
    pub(crate) entrance: Entrance,
    pub(crate) process: ProcessPlan,
    pub(crate) stdio: Stdio,
    /// What its filter's listener is told of the container.
    pub(crate) state: &'a State,
}

impl Joining {
    /// Readable when [`Joining::advance`] has something to do. Another one after an answer of that's.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.delivery.as_ref().map_or(self.channel.0.as_fd(), Delivery::fd)
    }

    /// When [`Joining::advance`] gives up. The container's own processes can see the new one and stop it, its cgroup can
    /// be frozen, and its working directory can be on a file system that does not answer.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Goes on as far as there is news, and lets the process execute its program when it is ready. Never blocks, but for
    /// the end of processes that have closed everything. To be dropped after an answer.
    pub fn advance(&mut self, now: Instant) -> Option<Result<ExecProcess, ExecError>> {
        let failed = |action| move |source| Some(Err(ExecError::Clone { action, source }));
        loop {
            match sys::wait::readable(self.fd(), now) {
                Ok(true) => {}
                Ok(false) if now < self.deadline => return None,
                Ok(false) => match self.failure.take() {
                    Some(err) => return Some(Err(err.into())),
                    None => return failed("hear from the new process")(std::io::ErrorKind::TimedOut.into()),
                },
                Err(err) => return failed("wait for the new process")(err),
            }
            if let Some(delivery) = self.delivery.take() {
                match delivery.end().map(|()| self.channel.send_go()) {
                    // If the process is gone, the channel tells.
                    Ok(_) => continue,
                    Err(err) => return Some(Err(err.into())),
                }
            }
            match self.channel.receive() {
                Ok(Message::Born(pid, pidfd)) => self.born = Some(Child { pid, pidfd }),
                Ok(Message::Console(master)) => self.console = Some(master),
                // Only first processes have hooks.
                Ok(Message::Made) => {}
                Ok(Message::Listener(offer)) => self.offer = Some(offer),
                Ok(Message::Ready) => self.ready = true,
                // Both end now.
                Ok(Message::Failed(err)) => self.failure = Some(err),
                Ok(Message::Gone) => {
                    let status = self.end(REAP_WITHIN);
                    let died = || ProcessError::died(status, self.filtered);
                    return Some(Err(self.failure.take().unwrap_or_else(died).into()));
                }
                Err(err) => return failed("hear from the new process")(err),
            }
            // In whichever order: two processes tell.
            if let Err(err) = self.deliver() {
                return Some(Err(err));
            }
            if let Some(child) = self.born.take_if(|_| self.ready) {
                return Some(self.let_go(child));
            }
        }
    }

    fn deliver(&mut self) -> Result<(), ExecError> {
        let (Some((listener, state)), Some(child)) = (&self.listener, &self.born) else { return Ok(()) };
        let Some(offer) = self.offer.take() else { return Ok(()) };
        self.delivery = listener.begin(child, offer, state, &self.channel)?;
        Ok(())
    }

    fn let_go(&mut self, child: Child) -> Result<ExecProcess, ExecError> {
        if let Some(usher) = self.usher.take() {
            // It has said its last word; if it has not quite ended, whoever gets SIGCHLD reaps it.
            let _ = sys::wait::try_wait(usher.pidfd.as_fd());
        }
        // If the process is gone its status tells.
        let _ = self.channel.send_start();
        Ok(ExecProcess { pid: child.pid, pidfd: child.pidfd, console: self.console.take() })
    }

    /// Kills both; the status of the later one.
    fn end(&mut self, within: Duration) -> u8 {
        let statuses = [self.usher.take(), self.born.take()].map(|child| child.map(|child| end(&child, within)));
        statuses.into_iter().flatten().last().unwrap_or(0)
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

impl Usher<'_> {
    /// Lets it go its way.
    pub(crate) fn send(self, deadline: Instant) -> Result<Joining, ExecError> {
        let failed = |action| move |source| ExecError::Clone { action, source };
        let (ours, theirs) = Channel::pair().map_err(failed("make a socket pair"))?;
        let listener = self.process.seccomp.as_ref().and_then(|filter| filter.listener.clone());
        let listener = listener.map(|listener| (listener, self.state.clone()));
        let run = || report(&theirs, self.run(&theirs));
        let processors = self.process.scheduling.first_processors.as_ref();
        let send = |entrance: &Entrance| {
            let usher = on_processors(processors, || fork(NewNamespaces::default(), entrance.directory(), run));
            usher.map_err(|source| {
                let processors = processors.map(Mask::to_string).unwrap_or_default();
                let text = format!("process.execCPUAffinity.initial: set the processors {processors}");
                ExecError::from(ProcessError::Refused { text, source: SystemError(source) })
            })
        };
        let mut usher = send(&self.entrance)?;
        if usher.as_ref().is_err_and(|err| err.raw_os_error() == Some(Errno::BUSY.raw_os_error())) {
            // The container has divided its cgroup: new processes come where its first one is, as with runc.
            let beside = self.cgroup.entrance_beside(self.first)?;
            usher = send(&beside)?;
        }
        let usher = usher.map_err(failed("clone a process for the container"))?;
        // Our copy of the child's end would hide its death.
        drop(theirs);
        Ok(Joining {
            filtered: self.process.seccomp.as_ref().map(Filter::field),
            channel: ours,
            usher: Some(usher),
            born: None,
            console: None,
            ready: false,
            failure: None,
            deadline,
            listener,
            offer: None,
            delivery: None,
        })
    }

    fn run(&self, channel: &Channel) -> Result<Infallible, Failure> {
        self.entrance.enter().at(Step::EnterCgroup, "")?;
        self.process.scheduling.settle_processors(false)?;
        let (adjustment, labels) = (self.process.oom_score_adj, &self.process.labels);
        if adjustment.is_some() || !labels.is_empty() {
            let proc = open_proc().at(Step::WriteProc, "/proc")?;
            if let Some(value) = adjustment {
                // While the file is still the caller's, which may be an ordinary user.
                let written = write_proc(proc.as_fd(), "self/oom_score_adj", &value.to_string());
                written.asked("process.oomScoreAdj", format_args!("write {value} to /proc/self/oom_score_adj"))?;
            }
            labels.apply(proc.as_fd())?;
        }
        // Inherited by the process inside: without CAP_SYS_PTRACE nobody may look into it.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Clean, "")?;
        // All at once: the kernel takes every privilege check before the first change (setns(2), since 5.8). With the
        // mount namespace comes its root; the PID namespace is the children's alone.
        if !self.namespaces.is_empty() {
            move_into_thread_name_spaces(self.container, self.namespaces)
                .at(Step::JoinNamespace, "of the container")?;
        }
        if !self.namespaces.contains(ThreadNameSpaceType::MOUNT) {
            enter_root(self.root).at(Step::ChangeRoot, "")?;
        }
        if self.namespaces.contains(ThreadNameSpaceType::USER) {
            become_root()?;
        }
        let streams = match &self.stdio {
            Stdio::Fds(fds) => {
                self.process.set_stdio(fds)?;
                Streams::Placed
            }
            Stdio::Terminal => {
                // Instead of the caller's, until there is the terminal.
                sys::fd::set_standard([channel.0.as_fd(); 3]).at(Step::Stdio, "")?;
                Streams::Terminal
            }
        };
        let kept = sys::fd::keep_only(self.process.first_closed(), [channel.0.as_fd()], |[channel]| {
            let channel = Channel(channel);
            let born =
                fork_sibling(NewNamespaces::default(), || report(&channel, self.process.run(streams, &channel, None)));
            match born.and_then(|child| channel.send_born(&child)) {
                Ok(()) => 0,
                Err(err) => report(&channel, Err(err).at(Step::Clone, "")),
            }
        });
        kept.at(Step::Clean, "")
    }
}
