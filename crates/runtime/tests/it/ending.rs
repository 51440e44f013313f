//! Containers that are neither whole nor gone: what names their process is lost, or they are about to end.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::process::{Pid, WaitOptions, waitpid};

use super::fixture::{Bundle, wait_until};
use super::leftovers::adopt_orphans;

#[test]
fn privileged_a_living_container_whose_process_is_lost_is_not_said_to_have_stopped() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let process = bundle.state_dir().join("process");
    for damaged in [None, Some("xx"), Some("7:x")] {
        fs::remove_file(&process).unwrap_or_default();
        damaged.into_iter().for_each(|text| symlink(text, &process).unwrap());
        let lost = format!(
            "{} is missing or damaged, and 1 process(es) run in the container's cgroup: delete --force ends them",
            process.display()
        );
        for words in [
            &["state"][..],
            &["kill"],
            &["start"],
            &["pause"],
            &["resume"],
            &["delete"],
            &["update", "--pids-limit", "7"],
            &["events", "--stats"],
            &["checkpoint"],
        ] {
            assert_eq!(bundle.err(words), lost, "{words:?}");
        }
        bundle.assert_says(&["exec", "ID", "true"], 255, &format!("exec failed: {lost}"));
        assert_eq!(bundle.run(&["list"]).stdout.lines().count(), 1);
        let warning = format!("load container {}: {lost}", bundle.id);
        assert!(fs::read_to_string(bundle.path("log")).unwrap().contains(&warning));
        // What its cgroup knows is known.
        assert_eq!(bundle.ok(&["ps", "-f", "json"]).trim().split(',').count(), 1);
    }
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

/// The first process of a PID namespace ends only when all in it are reaped, also those whose parent is outside
/// (pid_namespaces(7)): this test is such a parent, and waits.
#[test]
fn privileged_a_container_that_is_ending_has_stopped_for_every_command() {
    adopt_orphans();
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d", "--pid-file", "first"]);
    let words = ["exec", "-d", "--pid-file", "added", &bundle.id, "sleep", "1000"];
    assert_eq!(bundle.run(&words).code, Some(0));
    let pid = |name: &str| fs::read_to_string(bundle.path(name)).unwrap();
    let added = Pid::from_raw(pid("added").parse().unwrap());
    assert_eq!(bundle.run(&["kill", &bundle.id, "KILL"]).code, Some(0));
    bundle.wait_for_status("stopped");
    // It is there, and no zombie, as long as the other one is not reaped.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid("first"))).unwrap();
    assert!(!stat.contains(") Z "), "{stat}");
    assert_eq!(bundle.state()["pid"], 0);
    for (words, said) in [
        (&["kill"][..], "container not running"),
        (&["start"], "cannot start a container that has stopped"),
        (&["pause"], "container not running"),
        (&["resume"], "container not paused"),
        (&["update", "--pids-limit", "7"], "container not running"),
        (&["checkpoint"], "container cannot be checkpointed in stopped state"),
    ] {
        assert_eq!(bundle.err(words), said, "{words:?}");
    }
    assert_eq!(bundle.err(&["events"]), format!("container with id {} is not running", bundle.id));
    bundle.assert_says(&["exec", "ID", "true"], 255, "exec failed: cannot exec in a stopped container");
    // Whoever takes it away waits for the rest.
    let mut deleting = bundle.command(&["delete", &bundle.id]).spawn().unwrap();
    wait_until("reaped", || !matches!(waitpid(added, WaitOptions::NOHANG), Ok(None)));
    assert_eq!(deleting.wait().unwrap().code(), Some(0));
    bundle.assert_gone();
}
