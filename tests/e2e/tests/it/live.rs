//! `update`, `stats` and `top`: what a container may from now on, what it uses, and which processes it has.

use std::fs;

use serde_json::Value;
use testkit::process::{DEADLINE, until};

use crate::support::{At, cgroup, on_both, ours, unified};

/// A number from a file of the container's cgroup.
fn limit(at: &At<'_>, name: &str, controller: &str, v1: &str, v2: &str) -> String {
    let file = cgroup(at, name, controller).join(if unified() { v2 } else { v1 });
    fs::read_to_string(&file).unwrap().trim().to_owned()
}

#[test]
fn privileged_limits_change_while_a_container_runs_and_stay() {
    on_both(|at| {
        let name = at.name("limits");
        at.start(&name, "-m 64m busybox sleep 1000");
        let line = "update --memory 128m --memory-swap 256m --cpu-shares 512 --pids-limit 77";
        let mut events = at.events(&name);
        assert_eq!(at.ok(&format!("{line} {name}")), name);
        events.until("update").unwrap();
        let memory = |at: &At<'_>| limit(at, &name, "memory", "memory.limit_in_bytes", "memory.max");
        assert_eq!(memory(at), (128 << 20).to_string());
        assert_eq!(limit(at, &name, "pids", "pids.max", "pids.max"), "77");
        let shown =
            "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.CpuShares}} {{.HostConfig.PidsLimit}}";
        assert_eq!(at.inspect(&name, shown), "134217728 268435456 512 77");
        at.ok(&format!("update --cpus 0.5 {name}"));
        let quota = limit(at, &name, "cpu", "cpu.cfs_quota_us", "cpu.max");
        assert!(quota == "50000" || quota == "50000 100000", "{quota}");
        at.ok(&format!("update --pids-limit -1 {name}"));
        assert_eq!(limit(at, &name, "pids", "pids.max", "pids.max"), "max");
        at.ok(&format!("stop -t 0 {name}"));
        at.ok(&format!("update --memory 96m {name}"));
        at.ok(&format!("start {name}"));
        assert_eq!(memory(at), (96 << 20).to_string(), "also of one that was stopped");
        at.remove(&name);
    });
}

#[test]
fn privileged_other_processors_bind_later_processes_too_and_leave_nothing() {
    on_both(|at| {
        let name = at.name("processors");
        at.start(&name, "busybox sleep 1000");
        at.ok(&format!("update --cpuset-cpus 0 {name}"));
        let allowed = |process: &str| {
            let line = at.ok(&format!("exec {name} grep Cpus_allowed_list /proc/{process}/status"));
            line.split_whitespace().next_back().map(str::to_owned)
        };
        assert_eq!((allowed("1").as_deref(), allowed("self").as_deref()), (Some("0"), Some("0")));
        let directory = cgroup(at, &name, "cpuset");
        assert!(directory.exists(), "{directory:?}");
        at.remove(&name);
        until("the cgroup goes", DEADLINE, || (!directory.exists()).then_some(())).unwrap();
    });
}

#[test]
fn privileged_what_cannot_be_changed_is_told_as_docker_tells() {
    on_both(|at| {
        let name = at.name("refused");
        let id = at.ok(&format!("run -d --network none -m 64m --name {name} busybox sleep 1000"));
        at.fails(&format!("update {name}"), 1, "you must provide one or more flags when using this command");
        let sentence = format!(
            "Cannot update container {id}: Memory limit should be smaller than already set memoryswap limit, update \
             the memoryswap at the same time"
        );
        at.fails(&format!("update -m 256m {name}"), 1, &sentence);
        at.fails(&format!("update -m 1m {name}"), 1, "Minimum memory limit allowed is 6MB");
        let refused = format!("Cannot update container {id}: runc did not terminate successfully: exit status 1: ");
        for (shares, words) in
            [("1", "the minimum allowed cpu-shares is 2"), ("300000", "the maximum allowed cpu-shares is 262144")]
        {
            at.fails(&format!("update --cpu-shares {shares} {name}"), 1, &format!("{refused}{words}"));
        }
        at.ok(&format!("update --cpu-period 100000 --cpu-quota 50000 {name}"));
        let sentence = format!(
            "Cannot update container {id}: Conflicting options: Nano CPUs cannot be updated as CPU Period has already \
             been set"
        );
        at.fails(&format!("update --cpus 1 {name}"), 1, &sentence);
        at.fails(&format!("update --restart foo {name}"), 1, "invalid restart policy: unknown policy 'foo'");
        let answer = at.daemon.post(&format!("/v1.50/containers/{name}/update"), "{}").unwrap();
        assert_eq!((answer.status, answer.text().trim()), (200, "{\"Warnings\":null}"));
        at.remove(&name);
        at.fails(&format!("update -m 64m {name}"), 1, &format!("No such container: {name}"));
    });
}

#[test]
fn privileged_another_restart_policy_counts_at_once() {
    on_both(|at| {
        let name = at.name("policy");
        at.start(&name, "busybox sh -c 'test -e /again && exec sleep 1000; touch /again; read x </stop'");
        at.ok(&format!("update --restart on-failure:3 {name}"));
        assert_eq!(
            at.inspect(&name, "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"),
            "on-failure 3"
        );
        at.ok(&format!("update --restart always {name}"));
        at.remove(&name);
        let name = at.name("again");
        let mut events = at.events(&name);
        at.start(&name, "busybox sh -c 'test -e /again && exec sleep 1000; touch /again; sleep 2'");
        at.ok(&format!("update --restart always {name}"));
        events.until("die").unwrap();
        events.until("start").unwrap();
        assert_eq!(at.inspect(&name, "{{.RestartCount}}"), "1");
        at.ok(&format!("update --restart no {name}"));
        at.ok(&format!("stop -t 0 {name}"));
        at.remove(&name);
    });
}

#[test]
fn privileged_the_next_daemon_knows_what_was_changed() {
    ours(|daemon| {
        let cli = daemon.clis()[0];
        let name = daemon.name("kept");
        let at = At { daemon, cli };
        at.start(&name, "busybox sleep 1000");
        at.ok(&format!("update -m 64m --memory-swap -1 --restart always {name}"));
        daemon.kill9().unwrap();
        daemon.restart().unwrap();
        let at = At { daemon, cli };
        let shown = "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}} {{.State.Running}}";
        assert_eq!(at.inspect(&name, shown), "67108864 always true");
        at.remove(&name);
    });
}

#[test]
fn privileged_statistics_are_what_the_kernel_counts() {
    on_both(|at| {
        let name = at.name("counted");
        at.start(&name, "-m 64m busybox sh -c 'while :; do :; done'");
        let stats = |query: &str| -> Value {
            let answer = at.daemon.get(&format!("/v1.50/containers/{name}/stats?{query}")).unwrap();
            assert_eq!(answer.status, 200);
            serde_json::from_str(&answer.text()).unwrap()
        };
        let pair = stats("stream=0");
        assert_eq!(pair["name"], format!("/{name}").as_str());
        assert_eq!((&pair["pids_stats"]["current"], &pair["memory_stats"]["limit"]), (&1.into(), &(64 << 20).into()));
        let used = |which: &str| pair[which]["cpu_usage"]["total_usage"].as_u64().unwrap();
        assert!(used("cpu_stats") > used("precpu_stats") && used("precpu_stats") > 0, "{pair}");
        let file = if unified() { None } else { Some(limit(at, &name, "cpuacct", "cpuacct.usage", "")) };
        assert!(file.is_none_or(|total| total.parse::<u64>().unwrap() >= used("cpu_stats")));
        assert!(pair["networks"].is_null(), "none without a network");
        let single = stats("stream=0&one-shot=1");
        assert!(single["name"].is_null() && single["preread"] == "0001-01-01T00:00:00Z", "{single}");
        let line = at.ok(&format!(
            "stats --no-stream --format '{{{{.Name}}}} {{{{.CPUPerc}}}} {{{{.MemUsage}}}} {{{{.PIDs}}}}' {name}"
        ));
        let words: Vec<&str> = line.split(' ').collect();
        assert!(words[0] == name && words[4] == "64MiB" && words[5] == "1", "{line}");
        let share: f64 = words[1].trim_end_matches('%').parse().unwrap();
        assert!(share > 5.0 && share < 250.0, "{line}");
        at.ok(&format!("stop -t 0 {name}"));
        let table = at.ok(&format!("stats --no-stream {name}"));
        assert!(table.contains("MEM USAGE / LIMIT") && table.contains("0B / 0B"), "{table}");
        at.remove(&name);
        at.fails(&format!("stats --no-stream {name}"), 1, &format!("No such container: {name}"));
    });
}

#[test]
fn privileged_statistics_count_what_the_network_carries() {
    on_both(|at| {
        let name = at.name("carried");
        at.ok(&format!("run -d --name {name} busybox sleep 1000"));
        let answer = at.daemon.get(&format!("/v1.50/containers/{name}/stats?stream=0&one-shot=1")).unwrap();
        let stats: Value = serde_json::from_str(&answer.text()).unwrap();
        let interfaces: Vec<&String> = stats["networks"].as_object().unwrap().keys().collect();
        assert_eq!(interfaces, ["eth0"]);
        assert!(stats["networks"]["eth0"]["tx_dropped"].is_u64());
        at.remove(&name);
    });
}

#[test]
fn privileged_a_stream_of_statistics_goes_on_and_compares() {
    on_both(|at| {
        let name = at.name("watched");
        at.start(&name, "busybox sleep 1000");
        let mut piped = at.spawn(&format!("stats {name}"));
        // Two frames, each from the upper left corner.
        piped.read_until("\u{1b}[H").unwrap();
        piped.read_until("\u{1b}[J").unwrap();
        piped.read_until("\u{1b}[H").unwrap();
        assert!(piped.read_until("\u{1b}[J").unwrap().contains(&name));
        at.remove(&name);
        drop(piped);
    });
}

#[test]
fn privileged_processes_are_listed_as_the_hosts_ps_does() {
    on_both(|at| {
        let name = at.name("listed");
        at.start(&name, "busybox sh -c 'sleep 4711 & exec sleep 4712'");
        at.ok(&format!("exec {name} true"));
        let table = at.ok(&format!("top {name}"));
        let mut lines = table.lines();
        assert!(lines.next().unwrap().starts_with("UID                 PID                 PPID "), "{table}");
        let mut commands: Vec<&str> = lines.map(|line| line.rsplit("   ").next().unwrap().trim()).collect();
        commands.sort_unstable();
        assert_eq!(commands, ["sleep 4711", "sleep 4712"]);
        let table = at.ok(&format!("top {name} -o pid,args"));
        assert!(table.starts_with("PID                 COMMAND\n") && table.contains("sleep 4711"), "{table}");
        at.fails(&format!("top {name} -o args"), 1, "Couldn't find PID field in ps output");
        at.fails(&format!("top {name} --nonsense"), 1, "ps: error: unknown gnu long option");
        at.ok(&format!("stop -t 0 {name}"));
        at.fails(&format!("top {name}"), 1, " is not running");
        at.remove(&name);
    });
}

#[test]
fn privileged_why_says_from_recorded_facts_how_a_container_is() {
    ours(|daemon| {
        let cli = testkit::Cli::Longshore;
        let at = At { daemon, cli };
        let name = at.name("why");
        let ended = |line: &str, expected: &str, fact: &str| {
            at.line(&format!("run -d --network none --name {name} {line}"));
            at.ok(&format!("wait {name}"));
            let text = at.ok(&format!("why {name}"));
            assert!(text.starts_with(&format!("{name}: {expected}")), "{line}: {text}");
            assert!(text.contains(fact), "{line}: {text}");
            at.remove(&name);
        };
        ended("busybox true", "Its program has done its work.", "exit code 0 (success)");
        ended("busybox sh -c 'exit 3'", "Its program failed.", "exit code 3 (its program's own)");
        ended("busybox nosuch", "It could not be started.", "executable file not found");
        ended("--init busybox sh -c 'kill -SEGV $$'", "A signal that did not come", "SIGSEGV");
        let eater = "-m 8m --memory-swap 8m busybox sh -c 'tail /dev/zero; kill -9 $$'";
        ended(&format!("--init {eater}"), "It ran out of memory", "its limit is 8MiB");
        at.start(&name, "--init busybox sleep 1000");
        at.ok(&format!("stop {name}"));
        daemon.kill9().unwrap();
        daemon.restart().unwrap();
        let at = At { daemon, cli };
        let name = at.name("why");
        assert_eq!(
            at.ok(&format!("why -f '{{{{.Summary}}}}' {name}")),
            "A client ended it: with stop, kill or rm.",
            "the next daemon knows, too"
        );
        let text = at.ok(&format!("why --format json {name}"));
        let why: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((why["Status"].as_str(), why["Facts"][1]["Kind"].as_str()), (Some("exited"), Some("signal")));
        at.remove(&name);
        at.fails(&format!("why {name}"), 1, &format!("No such container: {name}"));
    });
}
