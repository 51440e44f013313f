//! Waiting for a process in its stead: signals go on to it, and its status becomes ours.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use sys::signal::{SignalFd, SignalSet, set_mask};
use sys::wait::Exit;

/// Signals on their way to a process.
#[derive(Debug)]
pub(crate) struct Forwarding(SignalFd);

/// Not forwarded: the news of our own children; those that a program's own mistakes raise; and those of a terminal's
/// background, which concern this process alone (signal(7)).
const OWN: [i32; 7] = [17, 4, 7, 8, 11, 21, 22];

impl Forwarding {
    /// Holds signals back from now on, so that none is lost until there is a process.
    pub(crate) fn begin() -> io::Result<Forwarding> {
        let set = OWN.iter().fold(SignalSet::all(), |set, signal| set.without(*signal));
        set_mask(set)?;
        SignalFd::open(set).map(Forwarding)
    }

    /// Passes signals on until the process, a child of ours, has ended.
    pub(crate) fn wait(&self, process: BorrowedFd<'_>) -> io::Result<Exit> {
        loop {
            let mut fds = [PollFd::new(&process, PollFlags::IN), PollFd::new(&self.0, PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
            if let Some(exit) = sys::wait::try_wait(process.as_fd())? {
                return Ok(exit);
            }
            while let Some(signal) = self.0.read()? {
                // If it has ended, the next turn tells.
                let _ = sys::signal::send(process, signal);
            }
        }
    }
}
