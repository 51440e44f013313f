//! What a daemon on demand leaves behind: its caller's session, directory, umask and cgroup.
//!
//! The caller has already given it a clean environment, no descriptors, and the default signal mask (the standard
//! library of every `longshore` that starts us does that).

use std::fs;
use std::io;

use rustix::fs::Mode;
use rustix::io::Errno;
use tracing::debug;

/// Leaves. Must run before the process has a second thread, since on cgroup v1 only the calling thread moves.
pub(crate) fn detach() -> io::Result<()> {
    match rustix::process::setsid() {
        // The leader of a process group has a session of its own already, or was started by hand.
        Ok(_) | Err(Errno::PERM) => {}
        Err(err) => return Err(err.into()),
    }
    rustix::process::chdir("/")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    leave_cgroups();
    Ok(())
}

/// Moves to the root of each hierarchy, so that the end of the caller's session does not end the daemon, and its limits
/// do not limit it.
fn leave_cgroups() {
    for (mount, is_v2) in cgroup_mounts(&fs::read_to_string("/proc/self/mounts").unwrap_or_default()) {
        // `tasks` moves one thread in 25 us; `cgroup.procs` of v1 waits for an RCU grace period, milliseconds.
        let file = format!("{mount}/{}", if is_v2 { "cgroup.procs" } else { "tasks" });
        if let Err(err) = fs::write(&file, "0") {
            // A container may not write there; then the caller's cgroup is as good as any.
            debug!("leave cgroup through {file}: {err}");
        }
    }
}

/// Where cgroup hierarchies are mounted, and whether each is of version 2.
fn cgroup_mounts(mounts: &str) -> Vec<(&str, bool)> {
    let parsed = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        matches!(kind, "cgroup" | "cgroup2").then_some((path, kind == "cgroup2"))
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn hierarchies_are_found() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        let wanted = [("/sys/fs/cgroup/unified", true), ("/sys/fs/cgroup/memory", false)];
        assert_eq!(super::cgroup_mounts(mounts), wanted);
    }
}
