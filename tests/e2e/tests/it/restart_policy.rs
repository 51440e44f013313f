//! Restart policies: who starts again, how often, how fast, and who not.

use testkit::Events;

use crate::support::on_both;

#[test]
fn privileged_on_failure_restarts_up_to_its_count() {
    on_both(|at| {
        let name = at.name("failing");
        let mut events = at.events(&name);
        at.start(&name, "--restart on-failure:2 busybox sh -c 'exit 7'");
        for _ in 0..3 {
            assert_eq!(events.until("die").unwrap()["Actor"]["Attributes"]["exitCode"], "7");
        }
        assert_eq!(at.ok(&format!("wait {name}")), "7");
        assert_eq!(at.inspect(&name, "{{.RestartCount}} {{.State.Status}}"), "2 exited");
        at.remove(&name);
        let mut events = at.events(&name);
        at.start(&name, "--restart on-failure busybox true");
        events.until("die").unwrap();
        assert_eq!(at.ok(&format!("wait {name}")), "0");
        assert_eq!(at.inspect(&name, "{{.RestartCount}} {{.State.Status}}"), "0 exited", "success is no failure");
        at.remove(&name);
    });
}

#[test]
fn privileged_the_wait_between_restarts_doubles() {
    on_both(|at| {
        let name = at.name("backing-off");
        let mut events = at.events(&name);
        at.start(&name, "--restart always busybox false");
        events.until("start").unwrap();
        let gaps: Vec<u64> = (0..4).map(|_| gap(&mut events)).collect();
        at.remove(&name);
        // 100 ms, then twice as long each time; a machine under load adds to each.
        for (round, gap) in gaps.iter().enumerate() {
            let least = 100 << round;
            assert!((least..least + 1500).contains(gap), "{gaps:?} ms");
        }
    });
}

/// Milliseconds from the next end to the start after it.
fn gap(events: &mut Events) -> u64 {
    let die = events.until("die").unwrap()["timeNano"].as_u64().unwrap();
    let start = events.until("start").unwrap()["timeNano"].as_u64().unwrap();
    (start - die) / 1_000_000
}

#[test]
fn privileged_always_and_unless_stopped_restart_what_ends_but_not_what_is_stopped() {
    on_both(|at| {
        for policy in ["always", "unless-stopped"] {
            let name = at.name(policy);
            let mut events = at.events(&name);
            at.start(
                &name,
                &format!("--restart {policy} busybox sh -c 'test -e /again && exec sleep 1000; touch /again'"),
            );
            events.until("start").unwrap();
            events.until("start").unwrap();
            assert_eq!(at.inspect(&name, "{{.RestartCount}} {{.State.Running}}"), "1 true", "{policy}");
            at.ok(&format!("stop -t 0 {name}"));
            assert_eq!(at.inspect(&name, "{{.State.Status}}"), "exited", "{policy}");
            // The next life begins with a fresh count.
            at.ok(&format!("start {name}"));
            assert_eq!(at.inspect(&name, "{{.RestartCount}} {{.State.Running}}"), "0 true", "{policy}");
            at.ok(&format!("kill {name}"));
            assert_eq!(at.ok(&format!("wait {name}")), "137");
            assert_eq!(at.inspect(&name, "{{.State.Running}}"), "false", "{policy}: killed by hand stays down");
            at.remove(&name);
        }
    });
}

#[test]
fn privileged_a_program_that_kills_itself_is_restarted() {
    on_both(|at| {
        let name = at.name("suicidal");
        let mut events = at.events(&name);
        at.start(
            &name,
            "--init --restart always busybox sh -c 'test -e /again && exec sleep 1000; touch /again; kill -9 $$'",
        );
        assert_eq!(events.until("die").unwrap()["Actor"]["Attributes"]["exitCode"], "137");
        events.until("start").unwrap();
        at.remove(&name);
    });
}

#[test]
fn privileged_stop_during_the_wait_ends_it() {
    on_both(|at| {
        let name = at.name("waiting");
        let mut events = at.events(&name);
        at.start(&name, "--restart always busybox false");
        for _ in 0..4 {
            events.until("die").unwrap();
        }
        // The next start is 800 ms away.
        at.ok(&format!("stop {name}"));
        assert_eq!(at.inspect(&name, "{{.State.Status}} {{.State.Restarting}}"), "exited false");
        at.remove(&name);
    });
}

#[test]
fn privileged_wrong_policies_are_refused() {
    on_both(|at| {
        at.fails(
            "run --rm --restart always busybox true",
            125,
            "conflicting options: cannot specify both --restart and --rm",
        );
        let sentence = "invalid restart policy: unknown policy 'nope'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'";
        at.fails("create --restart nope busybox true", 1, sentence);
        let sentence = "invalid restart policy: maximum retry count can only be used with 'on-failure'";
        at.fails("create --restart always:3 busybox true", 1, sentence);
        let body = r#"{"Image":"busybox","HostConfig":{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}}"#;
        let answer = at.daemon.post("/v1.50/containers/create", body).unwrap();
        let sentence = "can't create 'AutoRemove' container with restart policy";
        assert_eq!((answer.status, answer.message().as_str()), (400, sentence));
    });
}
