//! A runtime that is killed at any moment, and two at once.

use std::fs;
use std::process::Child;

use serde_json::json;

use super::fixture::{Bundle, wait_until};

#[test]
fn privileged_two_deletes_at_once_leave_nothing_and_one_may_find_nothing() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let delete = || bundle.command(&["delete", "--force", &bundle.id]).spawn().unwrap();
    let mut both = [delete(), delete()];
    let codes = both.each_mut().map(|child: &mut Child| child.wait().unwrap().code());
    assert_eq!(codes, [Some(0), Some(0)]);
    bundle.assert_gone();
}

#[test]
fn privileged_a_create_that_is_killed_leaves_nothing_that_delete_does_not_find() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    // A hook holds each moment as long as it is needed.
    let held = json!([{"path": "/bin/sh", "args": ["sh", "-c", "touch held; while [ -e held ]; do sleep 0.01; done"], "env": ["PATH=/bin:/usr/bin"]}]);
    bundle.config["hooks"] = json!({"createRuntime": held});
    let mut child = bundle.command(&["create", &bundle.id]).spawn().unwrap();
    wait_until("held", || bundle.path("held").exists());
    assert_eq!(bundle.status(), "creating");
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(bundle.path("held")).unwrap();
    wait_until("unlocked", || bundle.status() == "stopped");
    assert_eq!(bundle.err(&["start"]), "cannot start a container that has stopped");
    bundle.ok(&["delete", "--force"]);
    bundle.assert_gone();
}

#[test]
fn privileged_a_create_that_was_killed_before_its_record_is_deleted() {
    let bundle = Bundle::new(&["true"]);
    fs::create_dir_all(bundle.state_dir()).unwrap();
    assert_eq!(bundle.err(&["state"]), "container does not exist");
    assert_eq!(bundle.err(&["delete"]), "container does not exist");
    bundle.ok(&["delete", "--force"]);
    bundle.assert_gone();
    // A record that was torn by something else than us.
    fs::create_dir_all(bundle.state_dir()).unwrap();
    fs::write(bundle.state_dir().join("state.json"), "{").unwrap();
    assert!(bundle.err(&["state"]).starts_with("read "));
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn privileged_a_start_that_was_killed_half_way_has_started() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["create"]);
    // As if it had been killed between the two: the byte is written, the gate is still there.
    let gate = fs::File::options().write(true).open(bundle.state_dir().join("start.fifo")).unwrap();
    oci_runtime::open_gate(&gate).unwrap();
    bundle.wait_for_status("running");
    assert_eq!(bundle.err(&["start"]), "cannot start an already running container");
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn privileged_nothing_appears_in_the_hosts_mount_table() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(bundle.dir.path().to_str().unwrap()));
    bundle.ok(&["delete", "-f"]);
}
