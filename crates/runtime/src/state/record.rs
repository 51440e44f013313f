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
        Some(FirstProcess { pid, start_ticks: start_ticks(pid)? })
    }

    /// The process, unless it has ended.
    pub(crate) fn open(self) -> Option<OwnedFd> {
        // First the descriptor, then the look: from there on the number cannot become another process's unseen.
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        let same = start_ticks(self.pid)? == self.start_ticks;
        let ended = sys::wait::readable(pidfd.as_fd(), std::time::Instant::now()).unwrap_or(true);
        (same && !ended).then_some(pidfd)
    }
}

fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; field 3 follows it.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(22 - 3)?.parse().ok()
}
