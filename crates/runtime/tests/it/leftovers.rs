//! What a runtime must not leave: processes, mounts, cgroups, directories.

use std::fs;
use std::process::{Child, ExitStatus};

use rustix::process::{Pid, WaitOptions, set_child_subreaper, waitpid};

use super::fixture::{Bundle, wait_until};

/// Lets orphans become ours, so that none is overlooked. For tests in a process of their own, as nextest runs them.
pub(crate) fn adopt_orphans() {
    set_child_subreaper(Some(rustix::process::getpid())).unwrap();
}

/// Reaps those that have ended; whether that were all.
fn are_all_reaped() -> bool {
    loop {
        match waitpid(None, WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

/// Waits for a child, and reaps the others meanwhile, as init does: the first process of a PID namespace ends only when all
/// in it are reaped, also those whose parent is outside (pid_namespaces(7)).
pub(crate) fn wait_and_reap(child: &mut Child) -> ExitStatus {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        let lists = fs::read_dir("/proc/self/task").unwrap().flatten().map(|task| task.path().join("children"));
        let children = lists.filter_map(|path| fs::read_to_string(path).ok()).collect::<String>();
        let numbers = children.split_whitespace().filter_map(|number| number.parse().ok());
        for other in numbers.filter_map(Pid::from_raw).filter(|other| *other != Pid::from_child(child)) {
            let _ = waitpid(Some(other), WaitOptions::NOHANG);
        }
        std::thread::yield_now();
    }
}

/// After a command that ended by itself.
pub(crate) fn assert_nothing_left(bundle: &Bundle) {
    bundle.assert_gone();
    assert_no_mounts(bundle);
    // Those that were killed are reaped here; a living one is a leak.
    assert!(are_all_reaped(), "a process is left");
}

/// After one that was killed: its children see that, and end.
pub(crate) fn wait_for_nothing_left(bundle: &Bundle) {
    wait_until("no process is left", are_all_reaped);
    bundle.assert_gone();
    assert_no_mounts(bundle);
}

fn assert_no_mounts(bundle: &Bundle) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(bundle.dir.path().to_str().unwrap()), "{table}");
}
