//! A process added to the container.

use std::os::fd::OwnedFd;

use oci_runtime::ExecProcess;
use shim_api::ExecState;

use crate::streams::Streams;

/// Ended execs that no daemon has heard of are kept up to this number.
pub(crate) const UNTOLD_MAX: usize = 1024;

/// An exec that runs, or whose last output is on its way.
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) streams: Streams,
    pub(crate) exit_code: Option<i32>,
    /// The end was posted, or is kept for the next daemon.
    pub(crate) told: bool,
}

impl Exec {
    pub(crate) fn new(id: String, process: ExecProcess, streams: Streams) -> Exec {
        let pid = process.pid.as_raw_nonzero().get();
        Exec { id, pid, pidfd: process.pidfd, streams, exit_code: None, told: false }
    }

    /// As a daemon is told.
    pub(crate) fn state(&self) -> ExecState {
        ExecState { exec_id: self.id.clone(), pid: self.pid, exit_code: self.exit_code }
    }

    /// The container has ended: so must this. It is reaped like any other end.
    pub(crate) fn kill(&self) {
        // It may have ended already.
        let _ = sys::signal::send(std::os::fd::AsFd::as_fd(&self.pidfd), 9);
    }
}
