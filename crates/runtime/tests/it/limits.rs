//! Limits: kept, impossible, and of hierarchies that are not there.

use std::fs;
use std::path::Path;

use cgroup::{Controller, Hierarchies, Version};
use serde_json::{Value, json};

use super::fixture::Bundle;

/// What is in a file of the container's cgroup, by its names in both versions.
pub(crate) fn limit(bundle: &Bundle, controller: Controller, v1: &str, v2: &str) -> String {
    let group = bundle.cgroup();
    let file = if group.version == Version::V1 { v1 } else { v2 };
    let directory = group.directories.iter().find(|(controllers, _)| controllers.contains(&controller));
    let (_, directory) = directory.unwrap_or_else(|| panic!("{controller} of {group:?}"));
    fs::read_to_string(directory.join(file)).unwrap().trim().to_owned()
}

#[test]
fn privileged_limits_of_the_specification_are_kept() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["linux"]["resources"] = json!({
        "memory": {"limit": 67108864, "reservation": 33554432, "kernel": 1048576, "useHierarchy": true},
        "cpu": {"shares": 512, "quota": 50000, "burst": 1000, "cpus": "0", "mems": "0", "idle": 0},
        "pids": {"limit": 33},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 2097152}],
    });
    bundle.ok(&["create"]);
    assert_eq!(limit(&bundle, Controller::Memory, "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(limit(&bundle, Controller::Cpuset, "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(limit(&bundle, Controller::Pids, "pids.max", "pids.max"), "33");
    let group = bundle.cgroup();
    assert!(group.directories.iter().any(|(controllers, _)| controllers.contains(&Controller::Hugetlb)), "{group:?}");
    let log = fs::read_to_string(bundle.path("log")).unwrap();
    assert!(log.contains("linux.resources.memory.kernel and kernelTCP are ignored"), "{log}");
    bundle.ok(&["start"]);
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn privileged_limits_that_cannot_be_kept_are_named_and_nothing_is_left() {
    let above = tempfile::tempdir().unwrap();
    let above = above.path().file_name().unwrap().to_str().unwrap().replace('.', "longshore-test-");
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["linux"]["cgroupsPath"] = json!(format!("{above}/a/b"));
    let hierarchies = Hierarchies::detect().unwrap();
    let other = match hierarchies.version() {
        Version::V1 => ("unified", json!({"memory.max": "1000000"})),
        Version::V2 => ("network", json!({"classID": 1})),
    };
    for (name, value) in [
        ("memory", json!({"limit": 1})),
        ("memory", json!({"limit": 16384})),
        ("memory", json!({"limit": -7})),
        ("cpu", json!({"cpus": "5000"})),
        ("cpu", json!({"mems": "99"})),
        ("cpu", json!({"quota": 5})),
        ("pids", json!({"limit": -5})),
        ("rdma", json!({"nosuch": {"hcaHandles": 3}})),
        ("network", json!({"priorities": [{"name": "nosuch", "priority": 1}]})),
        ("hugepageLimits", json!([{"pageSize": "3MB", "limit": 1}])),
        ("blockIO", json!({"weight": 1})),
        ("devices", json!([{"allow": true, "type": "c", "major": 1, "access": "rwmx"}])),
        other,
    ] {
        bundle.config["linux"]["resources"] = json!({ name: value });
        let text = bundle.err(&["create"]);
        assert!(text.contains(&format!("linux.resources.{name}")), "{text}");
        assert!(!bundle.state_dir().exists());
        assert!(!hierarchies.children(Path::new("/")).contains(&above), "{text}");
    }
}

#[test]
fn privileged_a_path_that_leads_out_is_named() {
    let mut bundle = Bundle::new(&["true"]);
    for path in ["/", "/../x", "../x", "/a/../../x"] {
        bundle.config["linux"]["cgroupsPath"] = json!(path);
        let text = bundle.err(&["create"]);
        assert!(text.contains("linux.cgroupsPath"), "{text}");
        assert!(!bundle.state_dir().exists());
    }
}

/// Every new cgroup has its control files: the directories above are made, and the last cannot be.
#[test]
fn privileged_a_path_that_is_a_control_file_is_named_and_what_was_made_above_is_gone() {
    let mut bundle = Bundle::new(&["true"]);
    let above = format!("longshore-test-{}", bundle.id);
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/{above}/a/cgroup.procs"));
    let text = bundle.err(&["create"]);
    assert!(text.contains("linux.cgroupsPath: create "), "{text}");
    assert!(text.ends_with(&format!("/{above}/a/cgroup.procs: file exists")), "{text}");
    assert!(!Hierarchies::detect().unwrap().children(Path::new("/")).contains(&above));
    assert!(!bundle.state_dir().exists());
}

#[test]
fn privileged_a_container_without_a_path_leaves_no_cgroup() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["cgroupsPath"] = Value::Null;
    let own = || -> Vec<String> {
        let all = Hierarchies::detect().unwrap().children(Path::new("/"));
        all.into_iter().filter(|name| name.contains(&bundle.id)).collect()
    };
    bundle.ok(&["create"]);
    assert_eq!(own(), [format!("longshore-runtime-{}", bundle.id)]);
    bundle.ok(&["delete"]);
    assert!(own().is_empty());
}

#[test]
fn privileged_a_failed_create_that_cannot_end_its_processes_is_deleted_later() {
    let mut bundle = Bundle::new(&["true"]);
    let hierarchies = Hierarchies::detect().unwrap();
    let Some(freezer) = hierarchies.v1_mount(Controller::Freezer) else {
        // Frozen processes of version 2 die: nothing keeps a container there.
        return;
    };
    let parent = freezer.join(format!("longshore-test-{}", bundle.id));
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/longshore-test-{}/c", bundle.id));
    let script = format!("echo FROZEN > {}/freezer.state; echo frozen; exit 1", parent.display());
    bundle.config["hooks"] =
        json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}]});
    let text = bundle.err(&["create"]);
    assert!(text.contains("hook"), "{text}");
    // The process that is left is known as one that is being made.
    assert_eq!(bundle.status(), "creating");
    let cgroup = bundle.config["linux"]["cgroupsPath"].as_str().unwrap();
    let frozen = format!("its cgroup {cgroup} is frozen from above, and has to be thawed first");
    assert_eq!(bundle.err(&["delete", "--force"]), format!("container {} does not end: {frozen}", bundle.id));
    fs::write(parent.join("freezer.state"), "THAWED").unwrap();
    bundle.wait_for_status("stopped");
    bundle.ok(&["delete", "--force"]);
    assert!(!bundle.state_dir().exists() && !parent.join("c").exists());
    bundle.cgroup().destroy(super::fixture::DEADLINE).unwrap();
}

#[test]
fn privileged_a_change_of_limits_that_fails_changes_none() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let all = |bundle: &Bundle| {
        [
            limit(bundle, Controller::Memory, "memory.limit_in_bytes", "memory.max"),
            limit(bundle, Controller::Cpu, "cpu.shares", "cpu.weight"),
            limit(bundle, Controller::Pids, "pids.max", "pids.max"),
        ]
    };
    let before = all(&bundle);
    // None of the first two was limited before, and the last one that is written is refused.
    let limits = ["--memory", "64m", "--cpu-share", "512", "--cpuset-cpus", "5000", "--pids-limit", "7"];
    let words: Vec<_> = ["update"].into_iter().chain(limits).collect();
    assert!(bundle.err(&words).starts_with("--cpuset-cpus: linux.resources.cpu.cpus: "), "{}", bundle.logged());
    assert_eq!(all(&bundle), before);
    // Go's zero, which asks for nothing.
    fs::write(bundle.path("zero.json"), r#"{"memory": {"kernel": 0, "kernelTCP": 0}}"#).unwrap();
    bundle.ok(&["update", "-r", "zero.json"]);
    let log = fs::read_to_string(bundle.path("log")).unwrap();
    assert!(!log.contains("kernel memory"), "{log}");
    bundle.ok(&["update", "--memory", "64m", "--pids-limit", "0"]);
    assert_eq!(limit(&bundle, Controller::Memory, "memory.limit_in_bytes", "memory.max"), "67108864");
    // As runc has it since 1.4: systemd does not know a limit of 0.
    assert_eq!(limit(&bundle, Controller::Pids, "pids.max", "pids.max"), "1");
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

/// Limits that somebody else has changed, and those that the record has not, are what they were, too.
#[test]
fn privileged_an_update_that_systemd_refuses_after_the_kernel_has_agreed_changes_nothing() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let limits = || {
        [
            limit(&bundle, Controller::Pids, "pids.max", "pids.max"),
            limit(&bundle, Controller::Memory, "memory.limit_in_bytes", "memory.max"),
            limit(&bundle, Controller::Cpu, "cpu.shares", "cpu.weight"),
            limit(&bundle, Controller::Cpu, "cpu.cfs_quota_us", "cpu.max"),
        ]
    };
    let group = bundle.cgroup();
    let (_, pids) = group.directories.iter().find(|(known, _)| known.contains(&Controller::Pids)).unwrap();
    fs::write(pids.join("pids.max"), "70").unwrap();
    let before = limits();
    assert_eq!(before[0], "70");
    // A scope that no systemd has, if there is one.
    let path = bundle.state_dir().join("state.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record["scope"] = json!({"unit": format!("longshore-test-{}.scope", bundle.id), "user": false});
    fs::write(&path, record.to_string()).unwrap();
    let said =
        bundle.err(&["update", "--pids-limit", "50", "--memory", "96m", "--cpu-share", "512", "--cpu-quota", "5000"]);
    assert!(said.contains("systemd"), "{said}");
    assert_eq!(limits(), before);
    let record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(record["spec"]["linux"]["resources"]["pids"], json!({"limit": 64}));
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}
