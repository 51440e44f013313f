//! What changes and shows limits and counters: update, events, ps, and exec into a cgroup below.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use cgroup::{Controller, Version};
use serde_json::{Value, json};

use super::fixture::{Bundle, wait_until};
use super::limits::limit;

#[test]
fn privileged_limits_are_changed_by_flags_a_file_and_standard_input() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["linux"]["resources"] = json!({
        "devices": [{"allow": false, "access": "rwm"}],
        "memory": {"limit": 67108864, "swap": 67108864},
        "cpu": {"quota": 50000, "period": 100000},
    });
    bundle.ok(&["run", "-d"]);
    let memory = || limit(&bundle, Controller::Memory, "memory.limit_in_bytes", "memory.max");
    bundle.ok(&["update", "--memory", "96m", "--memory-swap", "128m", "--pids-limit=20", "--cpuset-cpus", "0"]);
    assert_eq!(memory(), "100663296");
    let swap = limit(&bundle, Controller::Memory, "memory.memsw.limit_in_bytes", "memory.swap.max");
    let v1 = bundle.cgroup().version == Version::V1;
    assert_eq!(swap, if v1 { "134217728" } else { "33554432" });
    assert_eq!(limit(&bundle, Controller::Pids, "pids.max", "pids.max"), "20");
    assert_eq!(limit(&bundle, Controller::Cpuset, "cpuset.cpus", "cpuset.cpus"), "0");
    // One of the two that belong together.
    bundle.ok(&["update", "--cpu-period", "50000"]);
    bundle.ok(&["update", "--cpu-quota", "20000", "--cpu-burst", "1000"]);
    let quota = limit(&bundle, Controller::Cpu, "cpu.cfs_quota_us", "cpu.max");
    assert_eq!(quota, if v1 { "20000" } else { "20000 50000" });
    fs::write(bundle.path("r.json"), r#"{"memory": {"limit": 50331648, "swap": null}, "devices": [], "new": 1}"#)
        .unwrap();
    bundle.ok(&["update", "-r", "r.json"]);
    assert_eq!(memory(), "50331648");
    let mut child = bundle.command(&["update", "-r", "-", &bundle.id]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(br#"{"memory": {"limit": -1}, "devices": [{"allow": true}]}"#).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(memory() == "max" || memory().parse::<u64>().unwrap() > 1 << 62, "{}", memory());
    let log = fs::read_to_string(bundle.path("log")).unwrap();
    assert!(log.contains("the rules of a living container stay as they are"), "{log}");
    let record: Value = serde_json::from_slice(&fs::read(bundle.state_dir().join("state.json")).unwrap()).unwrap();
    let resources = &record["spec"]["linux"]["resources"];
    assert_eq!(resources["memory"], json!({"limit": -1}));
    assert_eq!(resources["pids"], json!({"limit": 20}));
    assert_eq!(resources["cpu"]["quota"], 20000);
    assert_eq!(resources["devices"].as_array().unwrap().len(), 1);
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn privileged_changes_that_cannot_be_are_named_and_change_nothing() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    bundle.ok(&["update", "--memory", "64m", "--cpu-quota", "30000"]);
    let record = || fs::read(bundle.state_dir().join("state.json")).unwrap();
    let before = record();
    for (words, text) in [
        (
            &["--memory", "32m", "--cpu-quota", "5"][..],
            "linux.resources.cpu.quota: 5 is not -1, for no limit, or 1000 microseconds",
        ),
        (&["--cpuset-cpus", "4000"], ", which takes a list of the processors 0"),
        (&["--pids-limit", "-5"], "linux.resources.pids.limit: -5 is not -1"),
        (&["--blkio-weight", "5"], "linux.resources.blockIO.weight: 5 is not between 10 and 1000"),
        (&["--memory", "x"], "invalid value \"x\" for flag -memory"),
        (&["-r", "nosuch"], "open "),
    ] {
        let words: Vec<_> = ["update"].iter().chain(words).copied().collect();
        let err = bundle.err(&words);
        assert!(err.contains(text), "{err}");
    }
    fs::write(bundle.path("r.json"), r#"{"memory": {"limit": "much"}}"#).unwrap();
    let err = bundle.err(&["update", "-r", "r.json"]);
    assert!(err.contains("linux.resources.memory.limit"), "{err}");
    assert_eq!(record(), before);
    assert_eq!(limit(&bundle, Controller::Memory, "memory.limit_in_bytes", "memory.max"), "67108864");
    bundle.ok(&["pause"]);
    bundle.ok(&["update", "--memory", "80m"]);
    bundle.ok(&["resume"]);
    assert_eq!(bundle.run(&["kill", &bundle.id, "KILL"]).code, Some(0));
    bundle.wait_for_status("stopped");
    assert_eq!(bundle.err(&["update", "--memory", "80m"]), "container not running");
    bundle.ok(&["delete"]);
    bundle.assert_gone();
}

#[test]
fn privileged_counters_are_printed_once_or_until_the_end() {
    // The kernel takes a second victim where the first one's memory comes back late: not the container's init.
    let mut bundle = Bundle::new(&[
        "sh",
        "-c",
        "while [ ! -e /tmp/go ]; do sleep 0.01; done
         (echo 1000 >/proc/self/oom_score_adj; head -c 90m /dev/zero | tail); sleep 1000",
    ]);
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    std::os::unix::fs::symlink("busybox", bundle.path("rootfs/bin/head")).unwrap();
    std::os::unix::fs::symlink("busybox", bundle.path("rootfs/bin/tail")).unwrap();
    assert_eq!(bundle.err(&["events", "--stats"]), "container does not exist");
    bundle.ok(&["create"]);
    assert_eq!(bundle.err(&["events", "--interval", "0s"]), "--interval: duration interval must be greater than 0");
    let stats: Value = serde_json::from_str(&bundle.ok(&["events", "--stats"])).unwrap();
    assert_eq!((&stats["type"], &stats["id"]), (&json!("stats"), &json!(bundle.id)));
    let data = &stats["data"];
    assert_eq!(data["pids"], json!({"current": 1, "limit": 64}));
    assert_eq!(data["memory"]["usage"]["limit"], 16 << 20);
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{data}");
    assert!(data["memory"]["raw"].as_object().unwrap().len() > 10);
    let mut child = bundle.command(&["events", "--interval=50ms", &bundle.id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(|line| -> Value { serde_json::from_str(&line.unwrap()).unwrap() });
    bundle.ok(&["start"]);
    assert_eq!(lines.next().unwrap()["type"], "stats");
    fs::write(bundle.path("rootfs/tmp/go"), "").unwrap();
    let oom = lines.find(|line| line["type"] == "oom").unwrap();
    assert_eq!(oom, json!({"type": "oom", "id": bundle.id}));
    // Others may be killed after the first.
    assert!(lines.any(|line| line["type"] == "stats"));
    bundle.ok(&["delete", "-f"]);
    assert!(lines.all(|line| line["type"] == "stats" || line == oom));
    assert!(child.wait().unwrap().success());
    bundle.assert_gone();
}

#[test]
fn privileged_events_end_with_the_container() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let mut child = bundle.command(&["events", "--interval=50ms", &bundle.id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("stats"));
    bundle.run(&["kill", &bundle.id, "KILL"]);
    // Its cgroup is still there.
    lines.for_each(|line| drop(line.unwrap()));
    assert!(child.wait().unwrap().success());
    bundle.wait_for_status("stopped");
    bundle.ok(&["delete"]);
    bundle.assert_gone();
}

#[test]
fn privileged_ps_shows_what_its_own_flags_say() {
    let bundle = Bundle::new(&["sh", "-c", "sleep 1001 & exec sleep 1002"]);
    bundle.ok(&["run", "-d"]);
    wait_until("two sleepers", || bundle.ok(&["ps"]).matches("sleep 100").count() == 2);
    let table = bundle.run(&["ps", &bundle.id, "-o", "pid,args"]).stdout;
    assert_eq!(table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(), ["PID", "COMMAND"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    let pids: Vec<i32> = serde_json::from_str(&bundle.ok(&["ps", "-f", "json"])).unwrap();
    assert_eq!(pids.len(), 2);
    assert_eq!(bundle.run(&["ps", &bundle.id, "-o", "args"]).stderr, "couldn't find PID field in ps output\n");
    assert!(bundle.run(&["ps", &bundle.id, "--nosuch"]).stderr.starts_with("ps ended with exit status: 1: error"));
    assert_eq!(bundle.err(&["ps", "--format", "x"]), "invalid format option: \"x\" of --format must be table or json");
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn privileged_what_goes_by_a_cgroup_says_so_where_there_is_none() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let pid = bundle.state()["pid"].to_string();
    for (_, directory) in &bundle.cgroup().directories {
        fs::write(directory.with_file_name("cgroup.procs"), &pid).unwrap();
        fs::remove_dir(directory).unwrap();
    }
    for format in ["json", "table"] {
        let text = format!("container {} has no cgroup, by which its processes are known", bundle.id);
        assert_eq!(bundle.err(&["ps", "-f", format]), text);
    }
    let text = format!("container {} has no cgroup, by which its processes are frozen", bundle.id);
    assert_eq!(bundle.err(&["pause"]), text);
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn privileged_exec_enters_a_cgroup_below() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let group = bundle.cgroup();
    for (_, directory) in &group.directories {
        fs::create_dir(directory.join("below")).unwrap();
    }
    let below = |words: &[&str]| {
        let words: Vec<_> =
            ["exec"].iter().chain(words).copied().chain([&*bundle.id, "cat", "/proc/self/cgroup"]).collect();
        let done = bundle.run(&words);
        let lines = done.stdout.lines().filter(|line| line.ends_with("/below")).count();
        (done.code, lines, done.stderr)
    };
    match group.version {
        Version::V1 => {
            assert_eq!(below(&["--cgroup", "pids,freezer:/below"]), (Some(0), 2, String::new()));
            assert_eq!(below(&["--cgroup", "below"]).0, Some(255));
        }
        Version::V2 => {
            assert_eq!(below(&["--cgroup", "/below"]), (Some(0), 1, String::new()));
            assert_eq!(below(&["--cgroup", "pids:below"]).0, Some(255));
        }
    }
    assert_eq!(below(&[]), (Some(0), 0, String::new()));
    for bad in ["pids:nosuch", "nosuch:below", "pids:../..", ":below", "nosuch", ".."] {
        let (code, _, text) = below(&["--cgroup", bad]);
        assert!(code == Some(255) && text.contains("cgroup"), "{bad}: {text}");
    }
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}
