//! clone3(2) as fork: a copy of the calling process, in new namespaces, with a pidfd.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

/// Which namespaces [`fork`] makes new; the kernel's CLONE_NEW* bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewNamespaces(pub u64);

/// A child process, as its parent sees it.
#[derive(Debug)]
pub struct Child {
    /// Its number in the caller's PID namespace.
    pub pid: Pid,
    /// Refers to the child for ever, unlike the number; close-on-exec.
    pub pidfd: OwnedFd,
}

/// Runs `child` in a copy of this process, in new `namespaces` and, where given, in the cgroup v2 directory `cgroup`.
///
/// The child ends when `child` returns: at once, with the returned status, so that no destructor and no buffer of the
/// parent runs twice. Signal handlers are reset to default (CLONE_CLEAR_SIGHAND), except where only clone(2) is allowed;
/// ignored signals stay ignored.
///
/// Only the calling thread exists in the child. If another thread holds the allocator's lock at that moment the child
/// hangs at its first allocation: callers are single-threaded, or their other threads never allocate.
pub fn fork(
    namespaces: NewNamespaces,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> u8,
) -> io::Result<Child> {
    copy(namespaces.0, libc::SIGCHLD, cgroup, child)
}

/// Runs `child` in a copy of this process that becomes a child of this process's parent, who reaps it and is told of its
/// end as of this process's. Otherwise as [`fork`] without a cgroup.
pub fn fork_sibling(namespaces: NewNamespaces, child: impl FnOnce() -> u8) -> io::Result<Child> {
    // clone3 takes no signal here: the kernel uses this process's (clone3_args_valid).
    copy(namespaces.0 | libc::CLONE_PARENT as u64, 0, None, child)
}

fn copy(
    flags: u64,
    exit_signal: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> u8,
) -> io::Result<Child> {
    let mut pidfd: libc::c_int = -1;
    let into_cgroup = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    // SAFETY: clone_args is a plain structure of integers for which all zeroes is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND | into_cgroup;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = exit_signal as u64;
    args.cgroup = cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    // SAFETY: args lives over the call and has the size given. Without CLONE_VM the child gets its own copy of the memory,
    // so it shares no Rust object with the parent; it runs on a copy of this stack, which `stack` = 0 asks for.
    let cloned =
        crate::check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) });
    let new_namespaces = flags & !(libc::CLONE_PARENT as u64);
    let pid = match cloned {
        Err(err)
            if matches!(err.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) && new_namespaces | into_cgroup == 0 =>
        {
            clone(flags as libc::c_int | exit_signal, &raw mut pidfd)?
        }
        answer => answer?,
    };
    if pid == 0 {
        // What keeps this copy from running the parent's destructors.
        crate::end::end(child())
    }
    let pid = Pid::from_raw(pid as i32).expect("clone3 answers a positive number in the parent");
    // SAFETY: CLONE_PIDFD stored a new descriptor that nothing else owns; the kernel made it close-on-exec.
    Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// clone(2) as fork, for inside of a container: Docker's system-call filter answers ENOSYS to clone3, whose flags it cannot
/// look at, and profiles that do not know it EPERM. Handlers are not reset.
fn clone(flags: libc::c_int, pidfd: *mut libc::c_int) -> io::Result<i64> {
    let flags = libc::c_long::from(flags | libc::CLONE_PIDFD);
    // The order of flags, stack and the place of the pidfd is the same on x86_64 and aarch64 (clone(2)).
    // SAFETY: as for clone3 above: no CLONE_VM, and a stack of 0 is a copy of this one. The kernel writes one int to pidfd,
    // which the caller owns.
    crate::check(unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, pidfd, 0_usize, 0_usize) })
}

/// linux/sched.h (5.7); the libc crate's constant overflows its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// linux/sched.h (5.5); the libc crate has it as a signed int on some targets only.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;
    use std::os::fd::AsFd;

    #[test]
    fn the_status_of_the_closure_is_the_childs() {
        let child = fork(NewNamespaces::default(), None, || 7).unwrap();
        assert_eq!(wait::wait(child.pidfd.as_fd()).unwrap(), wait::Exit::Code(7));
    }

    #[test]
    fn a_sibling_is_its_makers_parents_child() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let maker = fork(NewNamespaces::default(), None, || {
            let sibling = fork_sibling(NewNamespaces::default(), || 9).unwrap();
            let sent = rustix::io::write(&writer, &sibling.pid.as_raw_nonzero().get().to_ne_bytes());
            u8::from(sent.is_err())
        });
        let mut pid = [0; 4];
        io::Read::read_exact(&mut reader, &mut pid).unwrap();
        let pid = Pid::from_raw(i32::from_ne_bytes(pid)).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        assert_eq!(wait::wait(pidfd.as_fd()).unwrap(), wait::Exit::Code(9));
        assert_eq!(wait::wait(maker.unwrap().pidfd.as_fd()).unwrap(), wait::Exit::Code(0));
    }

    #[test]
    fn privileged_a_new_pid_namespace_begins_with_one() {
        let new_pid = NewNamespaces(libc::CLONE_NEWPID as u64);
        let child = fork(new_pid, None, || rustix::process::getpid().as_raw_nonzero().get() as u8).unwrap();
        assert_eq!(wait::wait(child.pidfd.as_fd()).unwrap(), wait::Exit::Code(1));
    }
}
