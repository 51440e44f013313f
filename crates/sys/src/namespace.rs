//! Namespaces: leaving one's own, and cloning into another PID namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Pid, chroot, fchdir};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space, move_into_thread_name_spaces,
};

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

/// Runs `inside` in another network namespace, and switches this thread back. As [`in_pid_namespace`] otherwise.
pub fn in_network_namespace<T>(target: BorrowedFd<'_>, inside: impl FnOnce() -> T) -> io::Result<T> {
    let own = File::open("/proc/thread-self/ns/net")?;
    move_into_thread_name_spaces(target, ThreadNameSpaceType::NETWORK)?;
    let result = inside();
    if move_into_thread_name_spaces(own.as_fd(), ThreadNameSpaceType::NETWORK).is_err() {
        std::process::abort();
    }
    Ok(result)
}

/// Runs `inside` in the mount namespace of another process, with its root and working directory, and comes back.
///
/// The caller keeps its credentials, which is what it is for: a process of a user namespace sees its mounts, but may not
/// open what only the caller may. Outer error: the switch failed. If coming back fails, this process would go on with paths
/// of a container, so it aborts. Needs CAP_SYS_ADMIN and CAP_SYS_CHROOT, and a process of one thread.
pub fn in_mount_namespace<T>(process: Pid, inside: impl FnOnce() -> T) -> io::Result<T> {
    let open = |path: &str| rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let proc = |name: &str| format!("/proc/{}/{name}", process.as_raw_nonzero());
    let namespace = |path: &str| File::open(path).map(OwnedFd::from);
    let own = (namespace("/proc/thread-self/ns/mnt")?, open("/")?, open(".")?);
    let other = (namespace(&proc("ns/mnt"))?, open(&proc("root"))?, open(&proc("cwd"))?);
    let enter = |(namespace, root, directory): &(OwnedFd, OwnedFd, OwnedFd)| -> io::Result<()> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
        fchdir(root)?;
        chroot(".")?;
        Ok(fchdir(directory)?)
    };
    let result = enter(&other).map(|()| inside());
    if enter(&own).is_err() {
        std::process::abort();
    }
    result
}

/// A detached clone of the mount that is at `path` in another mount namespace. For a thread of its own, which ends
/// afterwards: it leaves what it shared with the others, and does not come back.
pub fn clone_in_mount_namespace(namespace: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    // setns(2) asks for a root and a directory of the thread's own.
    // SAFETY: only this thread's root and working directory change their meaning, and it ends.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))?;
    let root = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let place = crate::open::openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(&place, "", flags)?)
}

/// Runs `clone` while children of this process are born in a new time namespace, and switches back. `set_up` is called
/// before: clocks can be set only while nobody lives there (time_namespaces(7)), through our own /proc/self/timens_offsets.
///
/// The calling process has one thread, or the kernel refuses. Outer error: there is no such namespace, or it was not set up.
/// Aborts as [`in_pid_namespace`] does.
pub fn in_new_time_namespace<T>(set_up: impl FnOnce() -> io::Result<()>, clone: impl FnOnce() -> T) -> io::Result<T> {
    let own = File::open("/proc/self/ns/time")?;
    unshare(UnshareFlags::NEWTIME)?;
    let result = set_up().map(|()| clone());
    if move_into_thread_name_spaces(own.as_fd(), ThreadNameSpaceType::TIME).is_err() {
        std::process::abort();
    }
    result
}

/// Whether a descriptor of a namespace is of the calling thread's own, of the kind that `name` says as in /proc/self/ns.
pub fn is_own(namespace: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    let (other, own) = (rustix::fs::fstat(namespace)?, rustix::fs::stat(format!("/proc/thread-self/ns/{name}"))?);
    Ok((other.st_dev, other.st_ino) == (own.st_dev, own.st_ino))
}

/// Of which kind a descriptor's namespace is. ENOTTY: it is no namespace.
pub fn kind(namespace: BorrowedFd<'_>) -> io::Result<ThreadNameSpaceType> {
    // linux/nsfs.h: _IO(0xb7, 0x3), since Linux 4.11.
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: the descriptor is open for the duration of the call, and the request takes no argument.
    let flag = crate::check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE as _) }.into())?;
    Ok(ThreadNameSpaceType::from_bits_retain(flag as u32))
}
