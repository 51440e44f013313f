//! From create to delete, as engines drive it.

use std::fs;

use serde_json::{Value, json};

use super::fixture::Bundle;

#[test]
fn privileged_a_container_is_created_started_killed_and_deleted() {
    let bundle = Bundle::new(&["sh", "-c", "echo began > /tmp/began; sleep 1000"]);
    bundle.ok(&["create", "--pid-file", "pid"]);
    let state = bundle.state();
    let pid: i64 = fs::read_to_string(bundle.path("pid")).unwrap().parse().unwrap();
    let created = state["created"].as_str().unwrap().to_owned();
    let expected = json!({
        "ociVersion": "1.3.0",
        "id": bundle.id,
        "pid": pid,
        "status": "created",
        "bundle": bundle.dir.path(),
        "rootfs": bundle.path("rootfs"),
        "created": created,
        "annotations": {"org.example": "kept"},
        "owner": "",
    });
    assert_eq!(state, expected);
    assert!(created.ends_with('Z') && created.starts_with("20"));
    assert!(!bundle.path("rootfs/tmp/began").exists());
    bundle.ok(&["start"]);
    super::fixture::wait_until("begun", || bundle.path("rootfs/tmp/began").exists());
    assert_eq!(bundle.status(), "running");
    assert_eq!(bundle.err(&["start"]), "cannot start an already running container");
    let sentence = format!("cannot delete container {} that is not stopped: running", bundle.id);
    assert_eq!(bundle.err(&["delete"]), sentence);
    let processes: Vec<i64> = serde_json::from_str(&bundle.ok(&["ps", "--format", "json"])).unwrap();
    assert!(processes.contains(&pid), "{processes:?}");
    assert_eq!(bundle.run(&["kill", &bundle.id, "KILL"]).code, Some(0));
    bundle.wait_for_status("stopped");
    assert_eq!(bundle.state()["pid"], 0);
    assert_eq!(bundle.err(&["kill"]), "container not running");
    bundle.ok(&["kill", "--all"]);
    assert_eq!(bundle.err(&["start"]), "cannot start a container that has stopped");
    bundle.ok(&["delete"]);
    bundle.assert_gone();
    assert_eq!(bundle.err(&["delete"]), "container does not exist");
    bundle.ok(&["delete", "--force"]);
}

#[test]
fn privileged_a_created_container_is_deleted_without_force() {
    let bundle = Bundle::new(&["true"]);
    bundle.ok(&["create"]);
    assert_eq!(bundle.err(&["create"]), "longshore-runtime create failed: container with given ID already exists");
    bundle.ok(&["delete"]);
    bundle.assert_gone();
    // The name is free again.
    bundle.ok(&["create"]);
    assert_eq!(bundle.run(&["kill", &bundle.id, "9"]).code, Some(0));
    bundle.wait_for_status("stopped");
    bundle.ok(&["delete"]);
    bundle.assert_gone();
}

#[test]
fn privileged_run_has_the_status_of_its_container_and_leaves_nothing() {
    let mut bundle =
        Bundle::new(&["sh", "-c", "hostname; cat /proc/self/cgroup | grep -c longshore; kill -0 1; exit 7"]);
    bundle.config["process"]["args"] = json!(["sh", "-c", "hostname; pwd; hostname new; exit 7"]);
    let done = bundle.run(&["run", &bundle.id]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(7), "bundle\n/\n"));
    // The filter's own error number: nothing else answers so.
    assert_eq!(done.stderr, "hostname: sethostname: Operation not supported\n");
    bundle.assert_gone();
    bundle.config["process"]["args"] = json!(["sh", "-c", "kill -9 $$"]);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().remove(0);
    assert_eq!(bundle.run(&["run", "--keep", &bundle.id]).code, Some(137));
    assert_eq!(bundle.status(), "stopped");
    bundle.ok(&["delete"]);
    bundle.assert_gone();
}

#[test]
fn privileged_run_passes_signals_on() {
    let bundle =
        Bundle::new(&["sh", "-c", "trap 'exit 9' TERM; touch /tmp/ready; while true; do sleep 1000 & wait; done"]);
    let mut child = bundle.command(&["run", &bundle.id]).spawn().unwrap();
    super::fixture::wait_until("ready", || bundle.path("rootfs/tmp/ready").exists());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
    bundle.assert_gone();
}

#[test]
fn privileged_a_detached_run_goes_on() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "--detach", "--pid-file", "pid"]);
    bundle.wait_for_status("running");
    assert!(bundle.run(&["list", "-q"]).stdout.contains(&bundle.id));
    let list: Value = serde_json::from_str(&bundle.run(&["list", "--format=json"]).stdout).unwrap();
    assert_eq!((&list[0]["status"], &list[0]["owner"]), (&json!("running"), &json!("root")));
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
    assert_eq!(bundle.run(&["list", "-q"]).stdout, "");
}

#[test]
fn privileged_processes_stand_still_while_paused() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["create"]);
    assert_eq!(bundle.err(&["resume"]), "container not paused");
    bundle.ok(&["pause"]);
    assert_eq!(bundle.err(&["start"]), "cannot start a container in the paused state");
    bundle.ok(&["resume"]);
    bundle.ok(&["start"]);
    bundle.ok(&["pause"]);
    assert_eq!(bundle.status(), "paused");
    let done = bundle.run(&["exec", &bundle.id, "true"]);
    assert_eq!(done.code, Some(255));
    assert_eq!(bundle.logged(), "exec failed: cannot exec in a paused container (use --ignore-paused to override)");
    // A frozen container of version 1 does not even die by itself.
    bundle.ok(&["delete", "--force"]);
    bundle.assert_gone();
}

#[test]
fn privileged_what_stands_still_can_be_killed() {
    for all in [&["kill"] as &[&str], &["kill", "--all"]] {
        let bundle = Bundle::new(&["sleep", "1000"]);
        bundle.ok(&["create"]);
        bundle.ok(&["start"]);
        bundle.ok(&["pause"]);
        let done = bundle.run(&[all, &[bundle.id.as_str(), "KILL"]].concat());
        assert_eq!(done.code, Some(0), "{done:?}");
        bundle.wait_for_status("stopped");
        bundle.ok(&["delete"]);
        bundle.assert_gone();
    }
}

#[test]
fn privileged_a_running_container_without_a_readable_record_is_not_forgotten() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["create"]);
    bundle.ok(&["start"]);
    let path = bundle.state_dir().join("state.json");
    let record = std::fs::read(&path).unwrap();
    for damaged in [&b"xx"[..], b""] {
        std::fs::write(&path, damaged).unwrap();
        let told = bundle.err(&["delete", "--force"]);
        assert!(told.contains("kill that first"), "{told}");
    }
    std::fs::write(&path, record).unwrap();
    bundle.ok(&["delete", "--force"]);
    bundle.assert_gone();
}
