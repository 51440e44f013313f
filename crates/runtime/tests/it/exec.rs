//! Processes that are added.

use std::fs;
use std::process::Command;

use cgroup::{Hierarchies, Version};
use serde_json::json;

use super::fixture::{Bundle, wait_until};

fn running() -> Bundle {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "--detach"]);
    bundle
}

#[test]
fn privileged_an_exec_has_the_status_and_the_streams_of_its_process() {
    let bundle = running();
    let done = bundle.run(&["exec", &bundle.id, "sh", "-c", "hostname; echo err >&2; exit 7"]);
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (Some(7), "bundle\n", "err\n"));
    let words =
        ["exec", "-e", "A=1", "--cwd", "/tmp", "-u", "5:6", "-g", "9", &bundle.id, "sh", "-c", "echo $A; pwd; id"];
    assert_eq!(bundle.run(&words).stdout, "1\n/tmp\nuid=5 gid=6 groups=9\n");
    let caps = |flags: &[&str]| {
        let words: Vec<_> = ["exec"]
            .iter()
            .chain(flags)
            .chain(&[bundle.id.as_str(), "sh", "-c", "cat /proc/self/status"])
            .copied()
            .collect();
        let text = bundle.run(&words).stdout;
        text.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap().to_owned()
    };
    assert_eq!(caps(&[]), "0000000000000021");
    assert_eq!(caps(&["--cap", "CAP_NET_RAW"]), "0000000000002021");
    // In the container's filter and cgroup.
    let done = bundle.run(&["exec", &bundle.id, "hostname", "new"]);
    assert_eq!(done.stderr, "hostname: sethostname: Operation not supported\n");
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn privileged_a_detached_exec_from_a_file_leaves_its_number() {
    let bundle = running();
    let process =
        json!({"args": ["sh", "-c", "echo $A > /tmp/said; sleep 1000"], "env": ["A=said", "PATH=/bin"], "cwd": "/"});
    fs::write(bundle.path("process.json"), process.to_string()).unwrap();
    bundle.ok(&["exec", "--process", "process.json", "--detach", "--pid-file", "exec.pid"]);
    wait_until("said", || fs::read_to_string(bundle.path("rootfs/tmp/said")).is_ok_and(|text| text == "said\n"));
    let pid: i32 = fs::read_to_string(bundle.path("exec.pid")).unwrap().parse().unwrap();
    assert!(bundle.cgroup().procs_with_below().contains(&pid));
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
    assert!(!fs::exists(format!("/proc/{pid}/root/bin")).unwrap_or(false));
}

#[test]
fn privileged_what_cannot_be_executed_is_named() {
    let bundle = running();
    let failed = |words: &[&str], text: &str| {
        let done = bundle.run(words);
        assert_eq!((done.code, done.stderr.trim_end()), (Some(255), text));
        assert_eq!(bundle.logged(), text);
    };
    let id = bundle.id.as_str();
    let missing =
        "exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH";
    failed(&["exec", id, "nosuch"], missing);
    failed(&["exec", id], "exec failed: exec args cannot be empty");
    failed(
        &["exec", "--preserve-fds", "400", id, "true"],
        "exec failed: descriptor 3 of --preserve-fds or LISTEN_FDS is not open",
    );
    failed(&["exec", "--cwd", "rel", id, "true"], "exec failed: --cwd: \"rel\" is not an absolute path");
    let text = "exec failed: --env: \"bare\": invalid environment variable: missing '='";
    failed(&["exec", "-e", "bare", id, "true"], text);
    let text = match Hierarchies::detect().unwrap().version() {
        Version::V1 => {
            "--cgroup foo: the container has no such cgroup (with version 1 it is CONTROLLER:PATH, of a controller that the container is in)"
        }
        Version::V2 => {
            "--cgroup foo: the container has no such cgroup (with version 2 it is a path below the container's own)"
        }
    };
    failed(&["exec", "--cgroup", "foo", id, "true"], &format!("exec failed: {text}"));
    fs::write(bundle.path("process.json"), r#"{"args":["true"],"cwd":"/","user":{"uid":-1}}"#).unwrap();
    let text = "exec failed: process.user.uid: -1 is not between 0 and 4294967295";
    failed(&["exec", "-p", "process.json", id], text);
    bundle.run(&["kill", id, "9"]);
    bundle.wait_for_status("stopped");
    failed(&["exec", id, "true"], "exec failed: cannot exec in a stopped container");
    bundle.ok(&["delete"]);
}

#[test]
fn privileged_descriptors_are_passed_on_when_asked_for_and_only_then() {
    let bundle = running();
    let runtime = env!("CARGO_BIN_EXE_longshore-runtime");
    let through_shell = |flags: &str| {
        // The shell puts files at numbers, and leaves one more open than is asked for.
        let script = format!(
            "exec {runtime} --root root exec {flags} {} sh -c 'ls /proc/self/fd; echo through >&3' 3>given 4>&1",
            bundle.id
        );
        let output = Command::new("sh").args(["-c", &script]).current_dir(bundle.dir.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // The last number is the directory that ls reads.
    assert_eq!(through_shell("--preserve-fds 1"), "0\n1\n2\n3\n4\n");
    assert_eq!(fs::read_to_string(bundle.path("given")).unwrap(), "through\n");
    assert_eq!(through_shell("--no-new-privs"), "0\n1\n2\n3\n");
    assert_eq!(fs::read_to_string(bundle.path("given")).unwrap(), "");
    bundle.ok(&["delete", "-f"]);
}

#[test]
fn privileged_an_exec_in_a_paused_container_begins_when_that_goes_on() {
    let bundle = running();
    bundle.ok(&["pause"]);
    let before = bundle.cgroup().procs_with_below();
    let words = ["--debug", "exec", "--ignore-paused", &bundle.id, "touch", "/tmp/done"];
    let mut waiting = bundle.command(&words).spawn().unwrap();
    // It waits after the first look at the container.
    wait_until("the exec", || {
        fs::read_to_string(format!("/proc/{}/stat", waiting.id())).is_ok_and(|stat| stat.contains(") S "))
    });
    assert!(waiting.try_wait().unwrap().is_none());
    // Nobody is there who could be left behind.
    assert_eq!(bundle.cgroup().procs_with_below(), before);
    bundle.ok(&["resume"]);
    assert!(waiting.wait().unwrap().success());
    assert!(bundle.path("rootfs/tmp/done").exists());
    // One that waits for a container which ends instead.
    bundle.ok(&["pause"]);
    let mut waiting = bundle.command(&words).spawn().unwrap();
    bundle.ok(&["delete", "-f"]);
    assert_eq!(waiting.wait().unwrap().code(), Some(255));
    bundle.assert_gone();
}
