//! Signals: masks, dispositions, signalfd.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A set of signals.
#[derive(Clone, Copy)]
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// No signal.
    pub fn empty() -> SignalSet {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the whole set and cannot fail for a valid pointer.
        SignalSet(unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        })
    }

    /// Every signal.
    pub fn all() -> SignalSet {
        let mut set = SignalSet::empty();
        // SAFETY: the set is initialised.
        unsafe { libc::sigfillset(&raw mut set.0) };
        set
    }

    /// The set with `signal` added. A number that is no signal changes nothing.
    #[must_use]
    pub fn with(mut self, signal: i32) -> SignalSet {
        // SAFETY: the set is initialised; an invalid number is answered with EINVAL.
        unsafe { libc::sigaddset(&raw mut self.0, signal) };
        self
    }

    /// The set with `signal` taken out. A number that is no signal changes nothing.
    #[must_use]
    pub fn without(mut self, signal: i32) -> SignalSet {
        // SAFETY: the set is initialised; an invalid number is answered with EINVAL.
        unsafe { libc::sigdelset(&raw mut self.0, signal) };
        self
    }
}

/// Makes `set` the mask of blocked signals of the calling thread; answers the one before.
pub fn set_mask(set: SignalSet) -> io::Result<SignalSet> {
    let mut old = SignalSet::empty();
    // SAFETY: both sets are initialised and live over the call.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set.0, &raw mut old.0) } {
        0 => Ok(old),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Adds `set` to the mask of blocked signals of the calling thread; answers the one before.
pub fn block(set: SignalSet) -> io::Result<SignalSet> {
    let mut old = SignalSet::empty();
    // SAFETY: both sets are initialised and live over the call.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set.0, &raw mut old.0) } {
        0 => Ok(old),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Gives every signal its default effect and empties the mask, as a fresh program expects it.
///
/// Rust's runtime ignores SIGPIPE, and what is ignored stays so over execve.
pub fn reset() -> io::Result<()> {
    for signal in 1..=SIGNAL_MAX {
        // Not the C library's function, which refuses the two signals that it uses itself.
        // SAFETY: all zeroes is a kernel_sigaction (at most 32 bytes) with SIG_DFL, which runs no code of ours. SIGKILL and
        // SIGSTOP answer EINVAL.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, [0_u64; 4].as_ptr(), std::ptr::null::<u64>(), 8) };
    }
    set_mask(SignalSet::empty())?;
    Ok(())
}

/// The greatest signal number (_NSIG).
pub const SIGNAL_MAX: i32 = 64;

/// A descriptor from which signals are read, one by one. They must be blocked. Non-blocking, close-on-exec.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Opens one for `set`.
    pub fn open(set: SignalSet) -> io::Result<SignalFd> {
        // SAFETY: the set is initialised and lives over the call.
        let fd = crate::check(
            unsafe { libc::signalfd(-1, &raw const set.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) }.into(),
        )?;
        // SAFETY: a new descriptor that nothing else owns.
        Ok(SignalFd(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// The number of the next pending signal, `None` if there is none.
    pub fn read(&self) -> io::Result<Option<i32>> {
        let mut info = [0_u8; std::mem::size_of::<libc::signalfd_siginfo>()];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut info)) {
            Ok(_) => Ok(Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(err) => Err(err.into()),
        }
    }
}

impl std::os::fd::AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// Sends any signal number, realtime ones too, to the process that `pidfd` refers to.
pub fn send(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo is allowed; the kernel fills in one as for kill(2).
    crate::check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_blocked_signal_is_read_from_the_descriptor() {
        // In a child, so that the mask and the signal of the test's own process are untouched.
        let child = crate::fork::fork(crate::fork::NewNamespaces::default(), None, || {
            let set = SignalSet::empty().with(libc::SIGUSR1);
            let read = || -> io::Result<Option<i32>> {
                set_mask(set)?;
                let fd = SignalFd::open(set)?;
                if fd.read()?.is_some() {
                    return Ok(None);
                }
                let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
                send(own.as_fd(), libc::SIGUSR1)?;
                fd.read()
            };
            u8::from(matches!(read(), Ok(Some(libc::SIGUSR1))))
        })
        .unwrap();
        assert_eq!(crate::wait::wait(child.pidfd.as_fd()).unwrap().code(), 1);
    }
}
