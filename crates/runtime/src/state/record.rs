//! What is recorded of one container.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use oci::runtime::Spec;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::scope::Scope;

/// One container, as it is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Version of this form; readers refuse others.
    pub(crate) format: u32,
    /// Its id.
    pub(crate) id: String,
    /// The bundle's directory; absolute.
    pub(crate) bundle: PathBuf,
    /// When it was created, RFC 3339.
    pub(crate) created: String,
    /// The first process; absent until it is there. A file of its own, as the rest is long and does not change with it.
    #[serde(skip)]
    pub(crate) process: Option<FirstProcess>,
    /// What its standard streams are, for a checkpoint; empty with a terminal, or where it is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) descriptors: Vec<String>,
    /// The scope of systemd that its cgroup is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<Scope>,
    /// The whole contract: config.json may change or go.
    pub(crate) spec: Spec,
}

/// What a record has in every format.
#[derive(Deserialize)]
pub(super) struct Head {
    pub(super) format: u32,
}

/// The [`Record::format`] that is written.
pub(crate) const FORMAT: u32 = 2;

/// A process, told from later ones of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FirstProcess {
    /// In the runtime's PID namespace.
    pub(crate) pid: i32,
    /// When it began, in clock ticks since boot (proc_pid_stat(5), field 22).
    pub(crate) start_ticks: u64,
}

/// The five states of the specification, and runc's sixth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// `create` is at work.
    Creating,
    /// It waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its first process has ended, or never was.
    Stopped,
}

impl Status {
    /// The specification's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

impl FirstProcess {
    /// Of a process that is ours to wait for, or else known to live.
    pub(crate) fn new(pid: Pid) -> Option<FirstProcess> {
        let pid = pid.as_raw_nonzero().get();
        Some(FirstProcess { pid, start_ticks: Stat::of(pid)?.start_ticks })
    }

    /// The process, as long as it lives. This is the one rule for all commands: who is ending does nothing more and takes
    /// nobody in, though the first process of a PID namespace ends only after all others in it.
    pub(crate) fn open(self) -> Option<OwnedFd> {
        let (pidfd, stat) = self.find()?;
        (!stat.is_ending).then_some(pidfd)
    }

    /// The process, until it has ended altogether: for those who wait for that.
    pub(crate) fn open_ending(self) -> Option<OwnedFd> {
        Some(self.find()?.0)
    }

    fn find(self) -> Option<(OwnedFd, Stat)> {
        // First the descriptor, then the look: from there on the number cannot become another process's unseen.
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        let stat = Stat::of(self.pid)?;
        let ended = sys::wait::readable(pidfd.as_fd(), std::time::Instant::now()).unwrap_or(true);
        (stat.start_ticks == self.start_ticks && !ended).then_some((pidfd, stat))
    }
}

/// What the kernel says of a process (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    start_ticks: u64,
    is_ending: bool,
}

/// Set once a thread has begun to end (linux/sched.h, PF_EXITING).
const EXITING: u64 = 0x4;

impl Stat {
    fn of(pid: i32) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Stat> {
        // The name, in parentheses, may hold anything; field 3 follows it.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        // The first thread may end alone: then the process is all the others.
        let is_ending = field(9)? & EXITING != 0 && field(20)? <= 1;
        Some(Stat { start_ticks: field(22)?, is_ending })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_when_its_last_thread_does() {
        let line = |flags: u32, threads: u32| {
            format!("7 (a) b) S 1 7 7 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 {threads} 0 1234567 0 0")
        };
        for (flags, threads, is_ending) in
            [(0x40_0100, 1, false), (0x40_0104, 1, true), (0x40_0104, 0, true), (0x40_0104, 3, false)]
        {
            let stat = Stat::parse(&line(flags, threads)).unwrap();
            assert_eq!(stat, Stat { start_ticks: 1_234_567, is_ending }, "{flags:x} {threads}");
        }
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }
}
