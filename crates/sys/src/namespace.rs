//! Namespaces: leaving one's own, and cloning into another PID namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces};

/// Moves the calling thread into new namespaces.
///
/// Not for CLONE_FILES and CLONE_FS-like flags: those are refused, because they change what other code of the process
/// believes about its descriptors.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    if flags.intersects(UnshareFlags::FILES | UnshareFlags::FS | UnshareFlags::SYSVSEM) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: without CLONE_FILES no descriptor changes its meaning for this or another thread.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Runs `clone` while children of this thread are born in the PID namespace of `target` (a pidfd, or a descriptor of a
/// /proc/PID/ns/pid), and switches back.
///
/// One cheap switch instead of a second fork: only the namespace of *children* changes, and only this thread's
/// (pid_namespaces(7)). Outer error: the switch failed. If switching back fails the process would give its next children
/// to a container, so it aborts; setns to one's own namespace fails only without memory.
pub fn in_pid_namespace<T>(target: BorrowedFd<'_>, clone: impl FnOnce() -> T) -> io::Result<T> {
    let own = File::open("/proc/thread-self/ns/pid")?;
    move_into_thread_name_spaces(target, ThreadNameSpaceType::PROCESS_ID)?;
    let result = clone();
    if move_into_thread_name_spaces(own.as_fd(), ThreadNameSpaceType::PROCESS_ID).is_err() {
        std::process::abort();
    }
    Ok(result)
}
