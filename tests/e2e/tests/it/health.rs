//! Health checks: what they come to, who hears of it, and what outlives whom.

use std::fs;

use serde_json::Value;

use crate::support::{At, on_both, ours};

/// A check that succeeds as long as `/well` is there, of a container that makes it at once.
const WELL: &str = "--health-interval 200ms --health-retries 2 --health-cmd 'echo checked; test -e /well'";

fn health(at: &At<'_>, name: &str) -> Value {
    serde_json::from_str(&at.inspect(name, "{{json .State.Health}}")).unwrap()
}

#[test]
fn privileged_a_container_becomes_healthy_and_unhealthy() {
    on_both(|at| {
        let name = at.name("well");
        let mut events = at.events(&name);
        at.start(&name, &format!("{WELL} busybox sh -c 'touch /well; exec sleep 1000'"));
        events.until("health_status: healthy").unwrap();
        let found = health(at, &name);
        assert_eq!((found["Status"].as_str(), found["FailingStreak"].as_i64()), (Some("healthy"), Some(0)));
        assert_eq!(found["Log"][0]["Output"], "checked\n");
        assert!(at.ok(&format!("ps -f name={name}")).contains(" (healthy)"));
        assert_eq!(at.ok(&format!("ps -q --no-trunc -f health=healthy -f name={name}")).len(), 64);
        at.ok(&format!("exec {name} rm /well"));
        let event = events.until("health_status: unhealthy").unwrap();
        assert_eq!(event["Actor"]["Attributes"]["name"], name.as_str());
        let found = health(at, &name);
        assert_eq!((found["Status"].as_str(), found["Log"][0]["ExitCode"].is_i64()), (Some("unhealthy"), true));
        assert!(found["FailingStreak"].as_i64() >= Some(2), "{found}");
        at.ok(&format!("kill {name}"));
        at.ok(&format!("wait {name}"));
        assert_eq!(health(at, &name)["Status"], "unhealthy");
        at.remove(&name);
    });
}

#[test]
fn privileged_checks_are_events_and_five_are_kept() {
    on_both(|at| {
        let name = at.name("kept");
        let mut events = at.events(&name);
        let check = "--health-interval 50ms --health-cmd 'i=$(cat /i); echo $((i + 1)) >/i; echo $i'";
        at.start(&name, &format!("{check} busybox sh -c 'echo 0 >/i; exec sleep 1000'"));
        let created = events.until("exec_create: /bin/sh -c i=$(cat /i); echo $((i + 1)) >/i; echo $i").unwrap();
        assert_eq!(created["Actor"]["Attributes"]["execID"].as_str().unwrap().len(), 64);
        for _ in 0..8 {
            assert_eq!(events.until("exec_die").unwrap()["Actor"]["Attributes"]["exitCode"], "0");
        }
        let found = health(at, &name);
        let outputs: Vec<i64> = found["Log"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["Output"].as_str().unwrap().trim().parse().unwrap())
            .collect();
        assert_eq!(outputs.len(), 5);
        assert!(outputs.windows(2).all(|two| two[0] + 1 == two[1]), "{outputs:?}");
        at.remove(&name);
    });
}

#[test]
fn privileged_a_check_that_hangs_is_killed_and_a_long_word_is_cut() {
    on_both(|at| {
        let name = at.name("hanging");
        let mut events = at.events(&name);
        let check = "--health-interval 100ms --health-timeout 300ms --health-retries 1 --health-cmd 'echo begun; exec sleep 1234'";
        at.start(&name, &format!("{check} busybox sleep 1000"));
        events.until("health_status: unhealthy").unwrap();
        let result = &health(at, &name)["Log"][0];
        assert_eq!(result["ExitCode"], -1);
        assert_eq!(result["Output"], "Health check exceeded timeout (300ms): begun\n");
        events.until("exec_die").unwrap();
        at.remove(&name);
        let check = "--health-interval 100ms --health-cmd 'head -c 9000 /dev/zero | tr \"\\0\" a'";
        let mut events = at.events(&name);
        at.start(&name, &format!("{check} busybox sleep 1000"));
        events.until("health_status: healthy").unwrap();
        assert_eq!(health(at, &name)["Log"][0]["Output"], format!("{}...", "a".repeat(4096)));
        at.remove(&name);
    });
}

#[test]
fn privileged_the_start_period_pause_and_no_check() {
    on_both(|at| {
        let name = at.name("starting");
        let check = "--health-interval 1h --health-start-period 1h --health-start-interval 100ms --health-retries 1";
        at.start(&name, &format!("{check} --health-cmd 'test -e /well' busybox sleep 1000"));
        let mut events = at.events(&name);
        for _ in 0..3 {
            events.until("exec_die").unwrap();
        }
        let found = health(at, &name);
        assert_eq!((found["Status"].as_str(), found["FailingStreak"].as_i64()), (Some("starting"), Some(0)));
        assert!(at.ok(&format!("ps -f name={name}")).contains(" (health: starting)"));
        at.ok(&format!("exec {name} touch /well"));
        events.until("health_status: healthy").unwrap();
        at.ok(&format!("pause {name}"));
        assert_eq!(health(at, &name)["Status"], "unhealthy");
        at.remove(&name);
        at.start(&name, "--no-healthcheck busybox sleep 1000");
        assert!(!at.inspect(&name, "{{json .State}}").contains("Health"));
        at.remove(&name);
        at.fails(
            "create --no-healthcheck --health-cmd x busybox",
            125,
            "--no-healthcheck conflicts with --health-* options",
        );
        at.fails("create --health-interval 1us busybox", 1, "Interval in Healthcheck cannot be less than 1ms");
    });
}

#[test]
fn privileged_an_unhealthy_container_is_restarted_by_its_policy() {
    ours(|daemon| {
        for cli in daemon.clis() {
            let at = At { daemon, cli };
            let name = at.name("restarted");
            let mut events = at.events(&name);
            let line = format!("{WELL} --restart on-unhealthy:2 --stop-timeout 1 busybox sleep 1000");
            at.start(&name, &line);
            for _ in 0..2 {
                events.until("health_status: unhealthy").unwrap();
                events.until("die").unwrap();
                events.until("start").unwrap();
            }
            events.until("health_status: unhealthy").unwrap();
            assert_eq!(at.inspect(&name, "{{.RestartCount}} {{.State.Running}}"), "2 true", "twice, and no more");
            at.ok(&format!("stop -t 0 {name}"));
            assert_eq!(at.inspect(&name, "{{.State.Status}}"), "exited");
            at.remove(&name);
        }
    });
}

#[test]
fn privileged_the_next_daemon_goes_on_asking_and_ends_what_hangs() {
    ours(|daemon| {
        let cli = daemon.clis()[0];
        let name = daemon.name("outliving");
        let at = At { daemon, cli };
        let mut events = at.events(&name);
        let check = "--health-interval 200ms --health-cmd 'test -e /hang && exec sleep 4321; true'";
        at.start(&name, &format!("{check} busybox sleep 1000"));
        events.until("health_status: healthy").unwrap();
        at.ok(&format!("exec {name} touch /hang"));
        let pid = at.inspect(&name, "{{.State.Pid}}");
        testkit::process::until("a check hangs", testkit::process::DEADLINE, || (probes(&pid) == 1).then_some(()))
            .unwrap();
        at.ok(&format!("exec {name} rm /hang"));
        daemon.kill9().unwrap();
        daemon.restart().unwrap();
        let at = At { daemon, cli };
        let found = health(&at, &name);
        assert_eq!(
            (found["Status"].as_str(), found["Log"].as_array().map(Vec::is_empty)),
            (Some("healthy"), Some(false))
        );
        testkit::process::until("the old check is gone", testkit::process::DEADLINE, || {
            (probes(&pid) == 0).then_some(())
        })
        .unwrap();
        let mut events = at.events(&name);
        events.until("exec_die").unwrap();
        at.remove(&name);
    });
}

/// How many checks hang beside the process.
fn probes(pid: &str) -> usize {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(pid);
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    all.filter(|other| other != pid && own.is_some() && namespace(other) == own)
        .filter(|other| fs::read(format!("/proc/{other}/cmdline")).is_ok_and(|line| line == b"sleep\x004321\0"))
        .count()
}
