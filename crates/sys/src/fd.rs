//! Descriptors: closing many, and putting them at given numbers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

/// Marks every descriptor from `first` on close-on-exec, so that nothing opened by a library or inherited reaches the
/// program that is executed next. Callers do it right before execve.
pub fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC no descriptor is closed: none becomes invalid under its owner.
    match crate::check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }) {
        Err(err) if matches!(err.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
            for number in first as i32..FILTERED_MAX {
                // SAFETY: no descriptor is closed. Most numbers are none, which is EBADF.
                unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
            }
            Ok(())
        }
        other => other.map(drop),
    }
}

/// How many descriptors are marked one by one where a system-call filter does not know close_range(2): more than a process
/// has that got under the filter after [`keep_only`].
const FILTERED_MAX: i32 = 1024;

/// Keeps only the first descriptors, `first` of them (standard input, output and error, and what more the program is to
/// have), and `keep`, which become the next ones; runs `then`, which must not return.
///
/// For a forked child that is about to wait: held copies of its parent's sockets would keep their peers waiting, too.
/// Every other `OwnedFd` of the process is dead then, which is why control never comes back.
pub fn keep_only<const N: usize>(
    first: u32,
    keep: [BorrowedFd<'_>; N],
    then: impl FnOnce([OwnedFd; N]) -> u8,
) -> io::Result<std::convert::Infallible> {
    let next = first as i32 + N as i32;
    let places: [i32; N] = std::array::from_fn(|index| first as i32 + index as i32);
    let mut sources = keep.map(|fd| fd.as_raw_fd());
    // One that stands where another one goes would be overwritten before it is copied.
    let stands_there = |(source, place): (&i32, &i32)| source != place && places.contains(source);
    if sources.iter().zip(&places).any(stands_there) {
        for (source, fd) in sources.iter_mut().zip(keep) {
            *source = std::os::fd::IntoRawFd::into_raw_fd(fcntl_dupfd_cloexec(fd, next)?);
        }
    }
    for (source, place) in sources.into_iter().zip(places) {
        if source != place {
            // SAFETY: whatever owns that descriptor is never used again, see below.
            crate::check(unsafe { libc::dup3(source, place, libc::O_CLOEXEC) }.into())?;
        }
    }
    // SAFETY: the owners of the closed descriptors are never used again: this function does not return from here on.
    crate::check(unsafe { libc::syscall(libc::SYS_close_range, next, u32::MAX, 0) })?;
    // SAFETY: the descriptors were made above, or their owners are never used again either.
    let status = then(places.map(|place| unsafe { std::os::fd::FromRawFd::from_raw_fd(place) }));
    crate::end::end(status)
}

/// Makes `fds` standard input, output and error, for whoever is executed next.
pub fn set_standard(fds: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    // First out of the way of 0, 1 and 2, or a later one could be overwritten before it is copied.
    let away = fds.map(|fd| fcntl_dupfd_cloexec(fd, 3));
    let [input, output, error]: [Result<OwnedFd, _>; 3] = away;
    rustix::stdio::dup2_stdin(input?)?;
    rustix::stdio::dup2_stdout(output?)?;
    rustix::stdio::dup2_stderr(error?)?;
    Ok(())
}

/// Lets a descriptor survive execve.
pub fn inherit(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fcntl_setfd(fd, FdFlags::empty())?)
}

/// Takes ownership of descriptor `number`, which whoever started this program opened for it. Once per number.
///
/// `None` if it is not open, or a standard descriptor, which belongs to std.
pub fn inherited(number: i32) -> Option<OwnedFd> {
    use std::os::fd::FromRawFd;
    use std::sync::atomic::{AtomicU64, Ordering};
    /// Numbers handed out already: two owners of one number would close each other's descriptors.
    static TAKEN: AtomicU64 = AtomicU64::new(0b111);
    let bit = 1_u64.checked_shl(u32::try_from(number).ok()?)?;
    // SAFETY: F_GETFD only asks.
    let open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
    if !open || TAKEN.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        return None;
    }
    // SAFETY: the number is open, was not opened by this program if called before it opens anything, and nobody took it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&fd, FdFlags::CLOEXEC).ok()?;
    Some(fd)
}
