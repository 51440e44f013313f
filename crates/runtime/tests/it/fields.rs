//! Fields of config.json, as the container's own processes see them.

use std::fs;
use std::path::Path;

use cgroup::Controller;
use serde_json::{Value, json};

use super::fixture::Bundle;
use super::limits::limit;

/// What a command of the container's shell prints.
fn printed(changes: &[(&str, Value)], script: &str) -> String {
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    for (pointer, value) in changes {
        set(&mut bundle.config, pointer, value);
    }
    let done = bundle.run(&["run", &bundle.id]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{changes:?}");
    bundle.assert_gone();
    done.stdout
}

/// Puts a value at `process.scheduler` and the like.
pub(crate) fn set(config: &mut Value, path: &str, value: &Value) {
    *path.split('.').fold(config, |at, name| &mut at[name]) = value.clone();
}

/// Nice value, real-time priority, policy (proc(5)) and I/O priority of whoever asks.
const SCHEDULING: &str = "set -- $(cat /proc/self/stat); echo ${19} ${40} ${41} $(busybox ionice)";

#[test]
fn privileged_processes_are_scheduled_as_asked() {
    let scheduler = |value: Value| [("process.scheduler", value)];
    for (changes, text) in [
        (scheduler(json!(null)), "0 0 0 none: prio 0\n"),
        (scheduler(json!({"policy": "SCHED_OTHER", "nice": -3})), "-3 0 0 none: prio 0\n"),
        (scheduler(json!({"policy": "SCHED_BATCH", "nice": 7})), "7 0 3 none: prio 0\n"),
        (scheduler(json!({"policy": "SCHED_IDLE"})), "0 0 5 none: prio 0\n"),
        (
            scheduler(json!({"policy": "SCHED_BATCH", "nice": -1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]})),
            "0 0 3 none: prio 0\n",
        ),
        ([("process.ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6}))], "0 0 0 best-effort: prio 6\n"),
        ([("process.ioPriority", json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}))], "0 0 0 idle\n"),
    ] {
        assert_eq!(printed(&changes, SCHEDULING), text, "{changes:?}");
    }
}

#[test]
fn privileged_the_root_may_be_among_the_paths_that_are_read_only() {
    let paths = [("linux.readonlyPaths", json!(["/proc/sys", "/"]))];
    let said = printed(&paths, "touch /x 2>&1; touch /dev/x && echo made");
    assert_eq!(said, "touch: /x: Read-only file system\nmade\n");
}

#[test]
fn privileged_real_time_is_had_where_the_cgroup_has_some() {
    let mut bundle = Bundle::new(&["sh", "-c", SCHEDULING]);
    bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_FIFO", "priority": 9});
    let done = bundle.run(&["run", &bundle.id]);
    // With CONFIG_RT_GROUP_SCHED a new cgroup of version 1 has none (sched-rt-group.rst); runc fails there, too.
    if Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        let text = "longshore-runtime run failed: unable to start container process: error during container init: \
                    process.scheduler.policy: set SCHED_FIFO: operation not permitted\n";
        assert_eq!((done.code, done.stderr.as_str()), (Some(1), text));
    } else {
        assert_eq!(done.stdout, "0 9 1 none: prio 0\n");
    }
    bundle.assert_gone();
}

#[test]
fn privileged_real_time_is_kept_and_changed_where_cgroups_have_some() {
    let kept = Path::new("/sys/fs/cgroup/cpu");
    if !kept.join("cpu.rt_runtime_us").exists() {
        return testkit::skip::report("needs a kernel with CONFIG_RT_GROUP_SCHED, and version 1 of cgroups");
    }
    let mut bundle = Bundle::new(&["sh", "-c", &format!("{SCHEDULING}; exec sleep 1000")]);
    bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_FIFO", "priority": 9});
    bundle.config["linux"]["resources"]["cpu"] = json!({"realtimeRuntime": 2000, "realtimePeriod": 500_000});
    bundle.ok(&["run", "-d"]);
    let limit = |file: &str| limit(&bundle, Controller::Cpu, file, "");
    assert_eq!((limit("cpu.rt_runtime_us"), limit("cpu.rt_period_us")), ("2000".to_owned(), "500000".to_owned()));
    let status = fs::read_to_string(format!("/proc/{}/sched", bundle.state()["pid"])).unwrap();
    let policy = status.lines().find(|line| line.starts_with("policy")).unwrap();
    assert!(policy.ends_with(" 1"), "{policy}");
    bundle.ok(&["update", "--cpu-rt-runtime=3000", "--cpu-rt-period=600000"]);
    assert_eq!((limit("cpu.rt_runtime_us"), limit("cpu.rt_period_us")), ("3000".to_owned(), "600000".to_owned()));
    // More than there is.
    let text = bundle.err(&["update", "--cpu-rt-runtime=700000"]);
    assert!(text.contains("linux.resources.cpu.realtimeRuntime"), "{text}");
    assert_eq!(limit("cpu.rt_runtime_us"), "3000");
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn privileged_a_deadline_is_set() {
    let scheduler = json!({
        "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000, "period": 10_000_000,
    });
    let mut bundle = Bundle::new(&["cat", "/proc/self/sched"]);
    bundle.config["process"]["scheduler"] = scheduler;
    // Its own processors must be all that there are, for the kernel to promise anything.
    let done = bundle.run(&["run", &bundle.id]);
    let policy = |line: &&str| line.starts_with("policy");
    assert_eq!(
        done.stdout.lines().find(policy).and_then(|line| line.split(": ").nth(1)).map(str::trim),
        Some("6"),
        "{done:?}"
    );
}

#[test]
fn privileged_machine_and_memory_are_as_asked() {
    let personality = json!({"domain": "LINUX32"});
    let machine =
        printed(&[("linux.personality", personality.clone())], "busybox uname -m; cat /proc/self/personality");
    assert!(machine.starts_with("i686") && machine.ends_with("\n00000008\n"), "{machine}");
    let policy = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    let maps = printed(&[("linux.memoryPolicy", policy.clone())], "cat /proc/self/numa_maps");
    assert!(maps.lines().all(|line| line.contains(" bind=static:0")), "{maps}");
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["linux"]["personality"] = personality;
    bundle.config["linux"]["memoryPolicy"] = policy;
    bundle.ok(&["run", "-d"]);
    let done = bundle.run(&["exec", &bundle.id, "sh", "-c", "cat /proc/self/personality /proc/self/numa_maps"]);
    assert!(done.stdout.starts_with("00000008\n") && done.stdout.contains(" bind=static:0"), "{done:?}");
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn privileged_added_processes_have_what_the_first_one_has_unless_they_say_otherwise() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 3});
    bundle.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 1});
    bundle.config["process"]["oomScoreAdj"] = json!(77);
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}]);
    bundle.ok(&["run", "-d"]);
    let script = format!("{SCHEDULING}; cat /proc/self/oom_score_adj; ulimit -n; grep -c 0001 /proc/self/status");
    let script = script.replace("grep", "busybox grep").replace("0001", "CapEff:.*0021");
    let own = |changes: Value| {
        let mut process =
            json!({"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
        changes.as_object().unwrap().iter().for_each(|(name, value)| process[name] = value.clone());
        fs::write(bundle.path("process.json"), process.to_string()).unwrap();
        let done = bundle.run(&["exec", "--process", "process.json", &bundle.id]);
        assert_eq!(done.stderr, "");
        done.stdout
    };
    assert_eq!(own(json!({})), "3 0 3 best-effort: prio 1\n77\n50\n1\n");
    let others = json!({
        "scheduler": {"policy": "SCHED_IDLE"},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
        "oomScoreAdj": 88,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 40, "hard": 45}],
        "capabilities": {"effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
    });
    assert_eq!(own(others), "0 0 5 idle\n88\n40\n0\n");
    for (process, text) in [
        (
            json!({"cwd": "etc"}),
            "exec failed: unable to start container process: process.cwd: \"etc\" is not an absolute path",
        ),
        (
            json!({"scheduler": {"policy": "SCHED_NONE"}}),
            "exec failed: process.scheduler.policy: unknown word \"SCHED_NONE\", must be one of SCHED_OTHER, \
             SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_ISO, SCHED_IDLE, SCHED_DEADLINE",
        ),
    ] {
        let mut whole = json!({"args": ["true"], "cwd": "/"});
        process.as_object().unwrap().iter().for_each(|(name, value)| whole[name] = value.clone());
        fs::write(bundle.path("process.json"), whole.to_string()).unwrap();
        assert_eq!(bundle.run(&["exec", "--process", "process.json", &bundle.id]).stderr.trim_end(), text);
    }
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn privileged_added_processes_run_where_they_are_asked_to() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
    bundle.ok(&["run", "-d"]);
    let allowed = "busybox grep Cpus_allowed_list /proc/self/status";
    let list = |done: &str| done.trim().rsplit('\t').next().unwrap().to_owned();
    let done = bundle.run(&["exec", &bundle.id, "sh", "-c", allowed]);
    assert_eq!((done.code, list(&done.stdout).as_str()), (Some(0), "0"), "{done:?}");
    bundle.ok(&["delete", "-f"]);
    bundle.config["process"]["execCPUAffinity"] = json!({"final": "60000"});
    bundle.ok(&["run", "-d"]);
    let done = bundle.run(&["exec", &bundle.id, "true"]);
    let text = "exec failed: unable to start container process: process.execCPUAffinity.final: set the processors 60000: \
                invalid argument";
    assert_eq!(done.stderr.trim_end(), text);
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn privileged_nothing_is_bound_to_the_callers_processors() {
    let bundle = Bundle::new(&["busybox", "grep", "Cpus_allowed_list", "/proc/self/status"]);
    let all = bundle.run(&["run", &bundle.id]).stdout;
    let mut bound = std::process::Command::new("taskset");
    let command = bundle.command(&["run", &bundle.id]);
    bound.args(["-c", "0"]).arg(command.get_program()).args(command.get_args()).current_dir(bundle.dir.path());
    assert_eq!(String::from_utf8(bound.output().unwrap().stdout).unwrap(), all);
    bundle.assert_gone();
}

#[test]
fn privileged_clocks_are_moved() {
    let clocks = json!({"monotonic": {"secs": 1_000_000, "nanosecs": 5}, "boottime": {"secs": 2_000_000}});
    let mut bundle = Bundle::new(&["sh", "-c", "cat /proc/self/timens_offsets; cat /proc/uptime"]);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    bundle.config["linux"]["timeOffsets"] = clocks;
    let own = || fs::read_link("/proc/self/ns/time_for_children").unwrap();
    let before = own();
    let done = bundle.run(&["run", &bundle.id]);
    let lines: Vec<Vec<&str>> = done.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["monotonic", "1000000", "5"], "{done:?}");
    assert_eq!(lines[1], ["boottime", "2000000", "0"]);
    assert!(lines[2][0].parse::<f64>().unwrap() > 2_000_000.0);
    assert_eq!(own(), before);
    bundle.config["linux"]["timeOffsets"] = json!({"realtime": {"secs": 1}});
    let text = "longshore-runtime create failed: linux.timeOffsets: unknown word \"realtime\", must be one of monotonic, boottime";
    assert_eq!(bundle.err(&["create"]), text);
    // No clock runs before the machine did.
    bundle.config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": -9_000_000_000_i64}});
    let text = "linux.timeOffsets: write \"monotonic -9000000000 0\" to /proc/self/timens_offsets: ";
    assert!(bundle.err(&["create"]).contains(text));
    bundle.assert_gone();
}

#[test]
fn privileged_devices_are_made_as_asked_or_found_the_same() {
    let stat = "cd /dev; busybox stat -c '%n %F %t:%T %a %u:%g' null x fifo sub/block; ls -l ptmx";
    let node = |kind: &str, path: &str, minor: u32| json!({"type": kind, "path": path, "major": 1, "minor": minor, "fileMode": 0o640, "uid": 3, "gid": 4});
    let devices = json!([
        node("c", "/dev/null", 3),
        node("u", "/dev/x", 5),
        node("c", "/dev/x", 5),
        node("p", "/dev/fifo", 0),
        node("b", "/dev/sub/block", 8),
        node("c", "/dev/ptmx", 9),
    ]);
    let text = printed(&[("linux.devices", devices)], stat);
    let expected = "\
null character special file 1:3 640 3:4
x character special file 1:5 640 3:4
fifo fifo 0:0 640 3:4
sub/block block special file 1:8 640 3:4
";
    assert!(text.starts_with(expected) && text.ends_with("ptmx -> pts/ptmx\n"), "{text}");
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["devices"] = json!([node("c", "/dev/x", 5), node("c", "/dev/x", 7)]);
    let text = "longshore-runtime create failed: unable to start container process: error during container init: \
                linux.devices[1].path: make /dev/x: file exists";
    assert_eq!(bundle.err(&["create"]), text);
    bundle.assert_gone();
}

#[test]
fn privileged_unknown_capabilities_are_left_out_and_warned_of() {
    let mut bundle = Bundle::new(&["sh", "-c", "busybox grep CapEff /proc/self/status"]);
    bundle.config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_B"], "effective": ["CAP_KILL", "CAP_A"], "permitted": ["CAP_KILL", "CAP_A"]});
    let done = bundle.run(&["run", &bundle.id]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "CapEff:\t0000000000000020\n"));
    let log = fs::read_to_string(bundle.path("log")).unwrap();
    assert!(
        log.contains("\"level\":\"warning\",\"msg\":\"ignoring unknown or unavailable capabilities: [CAP_A CAP_B]\""),
        "{log}"
    );
}

#[test]
fn privileged_capabilities_that_the_host_has_not_are_warned_of() {
    let mut bundle = Bundle::new(&["true"]);
    let names = json!(["CAP_KILL", "CAP_WAKE_ALARM"]);
    bundle.config["process"]["capabilities"] = json!({"bounding": names, "permitted": names});
    let ours = bundle.command(&["run", &bundle.id]);
    let mut command = std::process::Command::new("setpriv");
    command.arg("--bounding-set=-wake_alarm").arg(ours.get_program()).args(ours.get_args());
    assert!(command.current_dir(bundle.dir.path()).status().unwrap().success());
    let log = fs::read_to_string(bundle.path("log")).unwrap();
    assert!(log.contains("ignoring unknown or unavailable capabilities: [CAP_WAKE_ALARM]"), "{log}");
}

/// A process with a mount namespace of its own, which ends with the test.
struct Holder(std::process::Child);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn privileged_a_mount_namespace_is_joined_and_never_our_own() {
    let mut holder = std::process::Command::new("unshare");
    holder.args(["-m", "sh", "-c", "echo; exec sleep 1000"]).stdout(std::process::Stdio::piped());
    let mut holder = Holder(holder.spawn().unwrap());
    std::io::Read::read_exact(holder.0.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let path = format!("/proc/{}/ns/mnt", holder.0.id());
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    let joining = |bundle: &mut Bundle, path: &str| {
        let list = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != "mount");
        list.push(json!({"type": "mount", "path": path}));
    };
    joining(&mut bundle, "/proc/self/ns/mnt");
    let text = "longshore-runtime create failed: unable to start container process: plan container: \
                linux.namespaces[5].path: /proc/self/ns/mnt is the mount namespace of the runtime itself, whose mounts would \
                change";
    assert_eq!(bundle.err(&["create"]), text);
    joining(&mut bundle, &path);
    bundle.ok(&["run", "-d"]);
    let pid = bundle.state()["pid"].as_i64().unwrap();
    let namespace = |path: &str| fs::read_link(path).unwrap();
    assert_eq!(namespace(&format!("/proc/{pid}/ns/mnt")), namespace(&path));
    let done = bundle.run(&["exec", &bundle.id, "ls", "/bin/busybox", "/dev/null"]);
    assert_eq!(done.stdout, "/bin/busybox\n/dev/null\n", "{done:?}");
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}
