//! How a process ended.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions, WaitStatus};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called exit with this status.
    Code(u8),
    /// This signal killed it.
    Signal(u8),
}

impl Exit {
    /// One number as shells and Docker show it: the status, or 128 plus the signal.
    pub fn code(self) -> u8 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128_u8.wrapping_add(signal),
        }
    }

    fn from_status(status: WaitStatus) -> Option<Exit> {
        let signal = status.terminating_signal().map(|signal| Exit::Signal(signal as u8));
        status.exit_status().map(|code| Exit::Code(code as u8)).or(signal)
    }

    fn from_id_status(status: &WaitIdStatus) -> Option<Exit> {
        let signal = status.terminating_signal().map(|signal| Exit::Signal(signal as u8));
        status.exit_status().map(|code| Exit::Code(code as u8)).or(signal)
    }
}

/// Waits for a child of ours to end and reaps it. Blocks.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Exit> {
    reap(pidfd, WaitIdOptions::EXITED)?.ok_or_else(|| io::Error::from_raw_os_error(libc::ECHILD))
}

/// Waits for a child of ours to end, and leaves it to be reaped: its number stays its own. Blocks.
pub fn look(pidfd: BorrowedFd<'_>) -> io::Result<Exit> {
    reap(pidfd, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ECHILD))
}

/// Reaps a child of ours if it has ended. Never blocks.
pub fn try_wait(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    reap(pidfd, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
}

/// Reaps any child that has ended: `None` when children are left and all of them run, ECHILD when there is no child.
pub fn try_wait_any() -> io::Result<Option<(Pid, Exit)>> {
    let ended = rustix::io::retry_on_intr(|| rustix::process::wait(WaitOptions::NOHANG))?;
    Ok(ended.and_then(|(pid, status)| Exit::from_status(status).map(|exit| (pid, exit))))
}

/// Waits until `fd` is readable or at its end (a pidfd: until the process has ended); false if `deadline` comes first.
pub fn readable(fd: BorrowedFd<'_>, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
}

fn reap(pidfd: BorrowedFd<'_>, options: WaitIdOptions) -> io::Result<Option<Exit>> {
    let status = rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd), options))?;
    Ok(status.as_ref().and_then(Exit::from_id_status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fork::{NewNamespaces, fork};
    use std::os::fd::AsFd;

    #[test]
    fn a_signal_is_told_from_a_status() {
        let child = fork(NewNamespaces::default(), None, || {
            std::thread::park();
            0
        })
        .unwrap();
        assert!(!readable(child.pidfd.as_fd(), Instant::now()).unwrap());
        assert_eq!(try_wait(child.pidfd.as_fd()).unwrap(), None);
        rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL).unwrap();
        assert!(readable(child.pidfd.as_fd(), Instant::now() + std::time::Duration::from_secs(20)).unwrap());
        let exit = wait(child.pidfd.as_fd()).unwrap();
        assert_eq!((exit, exit.code()), (Exit::Signal(9), 137));
    }
}
