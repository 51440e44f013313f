//! Descriptors that were passed to this process by number.
//!
//! They are duplicated through the process's own pidfd, because taking them over by number is unsafe code. The original
//! stays open until the process ends; shims do not inherit it (`sys::spawn` closes everything).

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// The first descriptor that systemd passes (sd_listen_fds(3)).
const FIRST_SYSTEMD_SOCKET: i32 = 3;

/// The descriptors that systemd has passed to this very process.
pub(crate) fn systemd_sockets() -> Range<i32> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    let count = match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == getpid().as_raw_pid() => count,
        _ => 0,
    };
    FIRST_SYSTEMD_SOCKET..FIRST_SYSTEMD_SOCKET.saturating_add(count)
}

/// A duplicate of the descriptor of this number, closed on exec.
pub(crate) fn take(number: i32) -> io::Result<OwnedFd> {
    let ourselves = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(ourselves, number, PidfdGetfdFlags::empty())?)
}

/// Writes one byte to the descriptor of this number: "I listen". If it is standard output, it is closed then.
pub(crate) fn signal_ready(number: i32) -> io::Result<()> {
    File::from(take(number)?).write_all(b"1")?;
    if number == 1 { close_stdout() } else { Ok(()) }
}

/// Points standard output at nothing, so that a pipe that is read to its end ends.
fn close_stdout() -> io::Result<()> {
    let nothing = File::options().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(&nothing)?)
}
