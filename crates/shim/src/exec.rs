//! A process added to the container.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use oci_runtime::ExecProcess;
use shim_api::ExecState;

use crate::container::Task;
use crate::event_loop::SIGKILL;
use crate::streams::Streams;

/// Ended execs that no daemon has heard of are kept up to this number.
const UNTOLD_MAX: usize = 1024;

/// So many are kept that were told: the daemon that heard of them may die before it has told anybody. Health checks are
/// told for as long as the container lives, so this is memory that many shims have.
const TOLD_MAX: usize = 32;

/// Bytes of notes that are kept with them.
const NOTES_MAX_BYTES: usize = 32 << 10;

/// An exec that runs, or whose last output is on its way.
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) streams: Streams,
    pub(crate) exit_code: Option<i32>,
    /// The end was posted, and is kept for the next daemon.
    pub(crate) told: bool,
    note: String,
}

/// The last execs that ended.
#[derive(Default)]
pub(crate) struct Ended(VecDeque<ExecState>);

impl Ended {
    /// Keeps one more; `heard` if a daemon was told.
    pub(crate) fn keep(&mut self, state: ExecState, heard: bool) {
        self.0.push_back(state);
        let max = if heard { TOLD_MAX } else { UNTOLD_MAX };
        let mut notes: usize = self.0.iter().map(|state| state.note.len()).sum();
        while self.0.len() > max || (notes > NOTES_MAX_BYTES && self.0.len() > 1) {
            notes -= self.0.pop_front().map_or(0, |oldest| oldest.note.len());
        }
    }

    /// All of them, the oldest first.
    pub(crate) fn states(&self) -> impl Iterator<Item = ExecState> {
        self.0.iter().cloned()
    }
}

impl Exec {
    pub(crate) fn new(id: String, note: String, process: ExecProcess, streams: Streams) -> Exec {
        let pid = process.pid.as_raw_nonzero().get();
        Exec { id, pid, pidfd: process.pidfd, streams, exit_code: None, told: false, note }
    }

    /// As a daemon is told.
    pub(crate) fn state(&self) -> ExecState {
        let (exec_id, note) = (self.id.clone(), self.note.clone());
        ExecState { exec_id, pid: self.pid, exit_code: self.exit_code, note }
    }

    /// The container has ended: so must this. It is reaped like any other end.
    pub(crate) fn kill(&self) {
        // It may have ended already.
        let _ = sys::signal::send(self.pidfd.as_fd(), SIGKILL);
    }
}

impl Task {
    /// Sends a signal to an exec. One that is not there has ended, and needs none.
    pub(crate) fn signal_exec(&self, exec_id: &str, signal: i32) -> io::Result<()> {
        let exec = self.execs.iter().find(|exec| exec.id == exec_id && exec.exit_code.is_none());
        exec.map_or(Ok(()), |exec| sys::signal::send(exec.pidfd.as_fd(), signal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(number: usize, note_bytes: usize) -> ExecState {
        ExecState { exec_id: number.to_string(), pid: 1, exit_code: Some(0), note: "n".repeat(note_bytes) }
    }

    fn ids(ended: &Ended) -> Vec<String> {
        ended.states().map(|state| state.exec_id).collect()
    }

    #[test]
    fn the_oldest_ends_make_room() {
        let mut last = Ended::default();
        (0..=UNTOLD_MAX).for_each(|number| last.keep(ended(number, 0), false));
        assert_eq!((ids(&last).len(), ids(&last)[0].as_str()), (UNTOLD_MAX, "1"));
        last.keep(ended(7, 0), true);
        assert_eq!((ids(&last).len(), ids(&last)[TOLD_MAX - 1].as_str()), (TOLD_MAX, "7"));
        last.keep(ended(8, NOTES_MAX_BYTES), true);
        last.keep(ended(9, NOTES_MAX_BYTES + 1), true);
        assert_eq!(ids(&last), ["9"]);
    }
}
