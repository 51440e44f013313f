//! Waiting until a daemon answers.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags};

use crate::http;

/// Returns when `GET /_ping` on `socket`, a file in `dir`, answers; fails when `child` ends before, or at the deadline.
pub(super) fn wait(dir: &Path, socket: &Path, child: &Child, deadline: Duration) -> Result<()> {
    let end = Instant::now() + deadline;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, dir, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO)?;
    let ended = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        // The watch stands before the first try: a socket made in between wakes the poll below.
        // A daemon that was killed leaves its socket to a shim that it was about to start, for the moment until execve:
        // that connection is reset.
        let refused = match http::request(socket, "GET", "/_ping", None) {
            Ok(answer) => {
                ensure!(answer.status == 200, "_ping answers {} {}", answer.status, answer.text());
                return Ok(());
            }
            Err(_) => socket.exists(),
        };
        let left = end.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            bail!("no answer on {} within {deadline:?}", socket.display());
        }
        // bind(2) makes the file, listen(2) comes a moment later and wakes nobody: ask again soon.
        let timeout = Timespec::try_from(if refused { Duration::from_millis(1) } else { left })?;
        let mut fds = [
            PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout)))?;
        ensure!(!fds[1].revents().contains(PollFlags::IN), "the daemon ended before it answered");
        drain(&watch);
    }
}

/// Takes the events off the watch, so that the next poll waits for new ones.
fn drain(watch: impl AsFd) {
    let mut buffer = [0; 4096];
    while rustix::io::read(&watch, &mut buffer).is_ok_and(|count| count > 0) {}
}
