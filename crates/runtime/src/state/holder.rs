//! Who has a container's lock, for those who find it taken: nothing is recorded of it where nobody asks.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, getppid, pidfd_open};

/// A process that holds a lock.
#[derive(Debug)]
pub(crate) struct Holder {
    /// Its number.
    pub(crate) pid: i32,
    /// The hook that it waits for.
    pub(crate) hook: Option<String>,
    pidfd: OwnedFd,
}

impl Holder {
    /// Of the lock of this directory (proc_locks(5)); none that has ended, or that is in a PID namespace which we do not see.
    pub(super) fn of(directory: &Path) -> Option<Holder> {
        let inode = fs::symlink_metadata(directory).ok()?.ino();
        let pid = holder_in(&fs::read_to_string("/proc/locks").ok()?, inode)?;
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        // First the descriptor, then the look: the number may have become another process's, and the inode be another file
        // system's.
        let hook = look(pid, directory)?;
        Some(Holder { pid, hook, pidfd })
    }

    /// Whether it is among those whom the calling process descends from: then it may be waiting for us.
    pub(crate) fn waits_for_us(&self) -> bool {
        let mut next = getppid().map(|pid| pid.as_raw_nonzero().get());
        while let Some(pid) = next.filter(|pid| *pid > 1) {
            if pid == self.pid {
                return true;
            }
            next = parent(pid);
        }
        false
    }

    /// Sends it a signal.
    pub(crate) fn send(&self, signal: Signal) {
        // It may end by itself meanwhile.
        let _ = sys::signal::send(self.pidfd.as_fd(), signal.as_raw());
    }
}

/// How errors name it.
pub(crate) fn described(holder: Option<&Holder>) -> String {
    match holder {
        None => "another process".to_owned(),
        Some(Holder { pid, hook: None, .. }) => format!("process {pid}"),
        Some(Holder { pid, hook: Some(hook), .. }) => format!("process {pid}, which waits for {hook}"),
    }
}

/// Ever longer waits for a lock, each of which ends with the holder: flock(2) knows no time limit.
#[derive(Debug)]
pub(crate) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Pause {
        Pause(Duration::from_millis(1))
    }
}

impl Pause {
    const MAX: Duration = Duration::from_millis(30);

    /// Waits once.
    pub(crate) fn wait(&mut self, holder: Option<&Holder>) {
        match holder {
            // Why it came back early shows when the lock is tried again.
            Some(holder) => drop(sys::wait::readable(holder.pidfd.as_fd(), Instant::now() + self.0)),
            None => std::thread::sleep(self.0),
        }
        self.0 = (self.0 * 2).min(Pause::MAX);
    }
}

/// The process that has flocked the file.
fn holder_in(locks: &str, inode: u64) -> Option<i32> {
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        // Those who wait for it have `->` before the second word.
        let [_, "FLOCK", _, _, pid, place, ..] = words.as_slice() else { return None };
        let same = place.rsplit(':').next()?.parse() == Ok(inode);
        if same { pid.parse().ok().filter(|pid| *pid > 0) } else { None }
    })
}

/// The hook that a process waits for, if it has the directory open: the memory that the hook reads has its name.
fn look(pid: i32, directory: &Path) -> Option<Option<String>> {
    let ours = fs::symlink_metadata(directory).ok()?;
    let (mut has, mut hook) = (false, None);
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if target.file_name() == directory.file_name() {
            has |= fs::metadata(entry.path()).is_ok_and(|meta| (meta.dev(), meta.ino()) == (ours.dev(), ours.ino()));
        }
        let name = target.to_str().and_then(|target| target.strip_prefix("/memfd:"));
        if let Some(name) = name.filter(|name| name.starts_with("hooks.")) {
            hook = name.strip_suffix(" (deleted)").map(str::to_owned);
        }
    }
    has.then_some(hook)
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; field 3 follows it.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_whoever_has_the_lock_not_who_waits_for_it() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:1a:55 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 00:1a:56 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 00:1a:56 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 0 00:1a:57 0 EOF\n";
        for (inode, pid) in [(55, None), (56, Some(8)), (57, None), (58, None)] {
            assert_eq!(holder_in(locks, inode), pid, "{inode}");
        }
    }
}
