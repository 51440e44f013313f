//! Fields of config.json, as the container's own processes see them.

use std::path::Path;

use serde_json::{Value, json};

use super::fixture::Bundle;

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
fn set(config: &mut Value, path: &str, value: &Value) {
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
fn privileged_real_time_is_had_where_the_cgroup_has_some() {
    let mut bundle = Bundle::new(&["sh", "-c", SCHEDULING]);
    bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_FIFO", "priority": 9});
    let done = bundle.run(&["run", &bundle.id]);
    // With CONFIG_RT_GROUP_SCHED a new cgroup of version 1 has none (sched-rt-group.rst); runc fails there, too.
    if Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        let text = "longshore-runtime run failed: unable to start container process: error during container init: \
                    set process.scheduler SCHED_FIFO: operation not permitted\n";
        assert_eq!((done.code, done.stderr.as_str()), (Some(1), text));
    } else {
        assert_eq!(done.stdout, "0 9 1 none: prio 0\n");
    }
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
        std::fs::write(bundle.path("process.json"), process.to_string()).unwrap();
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
            "exec failed: unable to start container process: plan process: process.cwd: \"etc\" is not an absolute path",
        ),
        (
            json!({"scheduler": {"policy": "SCHED_NONE"}}),
            "exec failed: process.scheduler.policy: unknown variant `SCHED_NONE`, expected one of `SCHED_OTHER`, \
             `SCHED_FIFO`, `SCHED_RR`, `SCHED_BATCH`, `SCHED_ISO`, `SCHED_IDLE`, `SCHED_DEADLINE`",
        ),
    ] {
        let mut whole = json!({"args": ["true"], "cwd": "/"});
        process.as_object().unwrap().iter().for_each(|(name, value)| whole[name] = value.clone());
        std::fs::write(bundle.path("process.json"), whole.to_string()).unwrap();
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
    let text = "exec failed: unable to start container process: set process.execCPUAffinity final: invalid argument";
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
