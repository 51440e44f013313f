//! A first process in somebody else's PID namespace.
//!
//! ```text
//! parent                        usher                                      the process
//! clone, in new namespaces ---> enter the cgroup
//!                               mounts but /proc, devices, the root
//!                               close what is the parent's
//!                               clone, as a child of the parent ---------> /proc, what is hidden, session, terminal,
//!   <--------------------- BORN end                                        limits, ids, capabilities, seccomp
//!   <--------------------------------------------------------------- READY wait for START
//! ```
//!
//! Why two: whoever lives in that namespace and holds CAP_SYS_PTRACE can look into a process from its birth on, dumpable or
//! not (CVE-2016-9962). So it has the container's root and none of the host's descriptors then, as a process that exec adds
//! ([`crate::joining`]). /proc is made by the process itself: it shows the namespace of its maker.
//!
//! What needs the host's eyes while the process lives inside (hooks, listeners, network devices, mounts below /proc) is born
//! there at once, as under runc; only dumpability keeps others out then.

use std::convert::Infallible;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{DumpableBehavior, set_dumpable_behavior, umask};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use sys::fork::{NewNamespaces, fork_sibling};

use crate::Stdio;
use crate::birth::report;
use crate::channel::{At, Channel, Failure};
use crate::child::Birth;
use crate::error::Step;
use crate::mounts::{Built, attach};
use crate::plan::Plan;
use crate::process::{ProcessPlan, Streams};
use crate::target::PATH_FLAGS;

/// Whether everything of the host can be left behind before the process is born.
pub(crate) fn can_leave_host(plan: &Plan, process: &ProcessPlan) -> bool {
    let listens = process.seccomp.as_ref().is_some_and(|filter| filter.listener.is_some());
    let below = plan.mounts.iter().filter(|mount| mount.destination.starts_with("/proc"));
    let plain = below.into_iter().all(|mount| is_proc(&mount.destination) && mount.is_proc());
    let own_mounts = plan.namespaces.all.contains(ThreadNameSpaceType::MOUNT);
    plain && own_mounts && !listens && plan.user.is_none() && plan.net_devices.is_empty()
}

fn is_proc(destination: &Path) -> bool {
    destination == Path::new("/proc")
}

impl Birth<'_> {
    /// The usher's part. Never returns but with a failure.
    pub(crate) fn run_outside(&self, channel: &Channel) -> Result<Infallible, Failure> {
        self.entrance.enter().at(Step::EnterCgroup, "")?;
        self.process.scheduling.settle_processors(true)?;
        // Inherited by the process inside: without CAP_SYS_PTRACE nobody may look into it.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Clean, "")?;
        umask(Mode::empty());
        self.settle_namespaces()?;
        self.enter_own_root(|mount| !is_proc(&mount.destination))?;
        self.process.labels.apply(self.proc)?;
        match self.stdio {
            Stdio::Fds(fds) => self.process.set_stdio(fds)?,
            // Instead of the caller's, until there is the terminal.
            Stdio::Terminal => sys::fd::set_standard([channel.0.as_fd(); 3]).at(Step::Stdio, "")?,
        }
        if let Some(namespace) = self.joined_pid {
            // Of the children alone.
            move_into_thread_name_spaces(namespace, ThreadNameSpaceType::PROCESS_ID).at(Step::JoinNamespace, "pid")?;
        }
        let root = openat(CWD, "/", PATH_FLAGS | OFlags::DIRECTORY, Mode::empty()).at(Step::ChangeRoot, "/")?;
        let keep = [channel.0.as_fd(), root.as_fd()];
        let kept = sys::fd::keep_only(self.process.first_closed(), keep, |[channel, root]| {
            let (channel, inside) = (Channel(channel), Birth { root: root.as_fd(), proc: root.as_fd(), ..*self });
            let born = fork_sibling(NewNamespaces::default(), || report(&channel, inside.run_inside(&channel)));
            match born.and_then(|child| channel.send_born(&child)) {
                Ok(()) => 0,
                Err(err) => report(&channel, Err(err).at(Step::Clone, "")),
            }
        });
        kept.at(Step::Clean, "")
    }

    /// The process's own part.
    fn run_inside(&self, channel: &Channel) -> Result<Infallible, Failure> {
        for plan in self.plan.mounts.iter().filter(|mount| is_proc(&mount.destination)) {
            attach(self.root, plan, &Built::InChild("proc".to_owned()), true)?;
        }
        self.hide()?;
        self.finish_root()?;
        let streams = match self.stdio {
            Stdio::Terminal => Streams::First(self.stdio),
            Stdio::Fds(_) => Streams::Placed,
        };
        self.process.run(streams, channel, None)
    }
}
