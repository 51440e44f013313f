//! The container: its process, its execs, and what state it is in.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cgroup::{Controller, Version};
use oci::runtime::NamespaceKind;
use oci_runtime::Container;
use oci_runtime::checkpoint::Restoring;
use shim_api::{ExitRecord, RunState};

use crate::checkpoint::Writing;
use crate::exec::Exec;
use crate::exit::now_nanos;
use crate::foreign::Foreign;
use crate::join::Join;
use crate::oom::OomWatch;
use crate::streams::{Scratch, Streams};

/// How long killed execs may take to end before the container's exit is told without theirs.
const EXECS_END_WITHIN: Duration = Duration::from_secs(2);

/// The exit code of a process whose program could not be executed (oci-runtime); of some programs, too.
const EXIT_CODE_UNEXECUTED: i32 = 255;

/// A container that was created.
pub(crate) struct Task {
    /// Gone once it was destroyed.
    pub(crate) container: Option<Container>,
    pub(crate) run_state: RunState,
    pub(crate) streams: Streams,
    pub(crate) execs: Vec<Exec>,
    /// Execs that were not answered yet.
    pub(crate) joins: Vec<Join>,
    pub(crate) oom: OomWatch,
    pub(crate) exit: Option<(ExitRecord, Instant)>,
    pub(crate) kept: Descriptors,
    /// The exit was posted.
    pub(crate) told: bool,
    /// The runtime, if it is another one.
    pub(crate) foreign: Option<Foreign>,
    /// It was made from files, and stands still until it is started.
    pub(crate) restoring: Option<Restoring>,
    /// It is being written to files.
    pub(crate) writing: Option<Writing>,
    /// Namespaces that it was born into.
    pub(crate) joined: Vec<NamespaceKind>,
}

/// What is kept open as long as its first process lives.
#[derive(Default)]
pub(crate) struct Descriptors {
    /// For its own sake.
    pub(crate) _held: Vec<OwnedFd>,
    /// Every daemon that asks gets copies.
    pub(crate) lent: Vec<OwnedFd>,
}

/// A container as it comes from its runtime.
pub(crate) struct Made {
    pub(crate) container: Container,
    /// The runtime, if it is another one.
    pub(crate) foreign: Option<Foreign>,
    /// It was made from files.
    pub(crate) restoring: Option<Restoring>,
}

impl Task {
    pub(crate) fn new(made: Made, streams: Streams, kept: Descriptors, joined: Vec<NamespaceKind>) -> Task {
        let Made { container, foreign, restoring } = made;
        let pid = container.pid.as_raw_nonzero().get();
        let run_state = RunState {
            pid,
            pid_start_ticks: crate::exit::start_ticks(pid),
            shim_pid: rustix::process::getpid().as_raw_nonzero().get(),
            started: false,
            started_at_nanos: 0,
        };
        Task {
            container: Some(container),
            run_state,
            streams,
            execs: Vec::new(),
            joins: Vec::new(),
            oom: OomWatch::default(),
            exit: None,
            kept,
            told: false,
            foreign,
            restoring,
            writing: None,
            joined,
        }
    }

    /// Whether its first process lives.
    pub(crate) fn is_alive(&self) -> bool {
        self.exit.is_none()
    }

    /// Some child of ours ended.
    pub(crate) fn reaped(&mut self, pid: i32, exit_code: i32, now: Instant) {
        if pid == self.run_state.pid && self.exit.is_none() {
            self.ended(exit_code, now);
        } else if let Some(exec) = self.execs.iter_mut().find(|exec| exec.pid == pid && exec.exit_code.is_none()) {
            exec.exit_code = Some(exit_code);
            exec.streams.end(now);
        } else if let Some(foreign) = &mut self.foreign {
            foreign.reaped(pid, exit_code);
        }
    }

    /// The first process is gone: nothing of the container may go on.
    fn ended(&mut self, exit_code: i32, now: Instant) {
        let oom_killed = self.container.as_ref().is_some_and(out_of_memory);
        let started_at_nanos = self.run_state.started_at_nanos;
        let unexecuted = self.container.as_mut().filter(|_| exit_code == EXIT_CODE_UNEXECUTED);
        let unexecuted = unexecuted.and_then(Container::unexecuted).map(|err| errdefs::chain(&err));
        let record = ExitRecord { exit_code, exited_at_nanos: now_nanos(), started_at_nanos, oom_killed, unexecuted };
        self.exit = Some((record, now));
        // Before anybody hears of the end.
        self.kept = Descriptors::default();
        self.streams.end(now);
        self.execs.iter().filter(|exec| exec.exit_code.is_none()).for_each(Exec::kill);
    }

    /// Work without a descriptor, at the end of every turn.
    pub(crate) fn settle(&mut self, now: Instant, scratch: &mut Scratch) {
        self.streams.settle(now, scratch);
        if let Some(container) = self.container.as_mut().filter(|_| self.exit.is_none())
            && self.oom.settle(now, &container.cgroup)
        {
            container.is_executed();
        }
        let overdue = self.exit.as_ref().is_some_and(|(_, at)| now >= *at + EXECS_END_WITHIN);
        for exec in &mut self.execs {
            if overdue && exec.exit_code.is_none() {
                exec.exit_code = Some(137);
                exec.streams.end(now);
            }
            exec.streams.settle(now, scratch);
        }
    }

    /// Execs that have ended and given their clients everything. Their slow clients stay with the container.
    pub(crate) fn take_ended_execs(&mut self, now: Instant) -> Vec<Exec> {
        let done = |exec: &mut Exec| exec.told && exec.streams.is_settled(now);
        self.execs.extract_if(.., done).collect()
    }

    /// Whether the exit can be told.
    pub(crate) fn is_settled(&mut self, now: Instant) -> bool {
        self.exit.is_some() && self.execs.is_empty() && self.writing.is_none() && self.streams.is_settled(now)
    }

    /// When [`Task::settle`] has something to do.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let execs = self.execs.iter().filter_map(|exec| exec.streams.deadline(now));
        let overdue = self.exit.as_ref().filter(|_| !self.execs.is_empty()).map(|(_, at)| *at + EXECS_END_WITHIN);
        let joins = self.joins.iter().map(|join| join.joining.deadline());
        let oom = self.oom.deadline().filter(|_| self.exit.is_none());
        let joins = joins.chain(self.writing_deadline());
        execs.chain(joins).chain(oom).chain(self.streams.deadline(now)).chain(overdue.filter(|at| *at > now)).min()
    }
}

/// Whether the kernel ever killed one of its processes for want of memory. Reads one file, before the cgroup goes.
fn out_of_memory(container: &Container) -> bool {
    let has_memory = |controllers: &[Controller]| controllers.contains(&Controller::Memory);
    let Some((_, dir)) = container.cgroup.directories.iter().find(|(controllers, _)| has_memory(controllers)) else {
        return false;
    };
    let file = match container.cgroup.version {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    };
    let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
}
