use std::sync::Arc;

use engine_api::container::{Health, HealthResult};

use super::*;

fn ended_with(exit_code: i32) -> State {
    State { exit_code, started_at_nanos: 1, finished_at_nanos: 2, ..State::default() }
}

fn sent(signal: i32, by: Sender) -> Option<SentSignal> {
    Some(SentSignal { signal, by, at_nanos: 1 })
}

fn summary(state: &State) -> String {
    explain(state, Policy::No, 64 << 20).0
}

#[test]
fn the_weightiest_fact_makes_the_sentence() {
    let stopped = |exit_code, signal| State {
        last_signal: sent(signal, Sender::Client),
        manually_stopped: true,
        ..ended_with(exit_code)
    };
    let failed = |cause| State { cause: Some(cause), error: "no".to_owned(), exit_code: 127, ..State::default() };
    let running = State { phase: Phase::Running { pid: 1 }, started_at_nanos: 1, ..State::default() };
    for (state, sentence) in [
        (State::default(), "It was created, and nobody has started it."),
        (running.clone(), "It runs."),
        (State { paused: true, ..running }, "It runs and stands still: somebody has paused it."),
        (failed(Cause::ProgramMissing), "It could not be started."),
        (ended_with(0), "Its program has done its work."),
        (ended_with(3), "Its program failed."),
        (ended_with(139), "A signal that did not come from the engine killed it: SIGSEGV."),
        (ended_with(159), "It made a system call that its filter forbids, and the kernel killed it."),
        (State { oom_killed: true, ..ended_with(137) }, "It ran out of memory, and the kernel killed it."),
        (stopped(137, 9), "A client ended it: with stop, kill or rm."),
        (stopped(143, 15), "A client ended it: with stop, kill or rm."),
        (stopped(0, 15), "It ended after it was asked to."),
        (State { last_signal: sent(15, Sender::Restart), ..ended_with(143) }, "It was restarted by a client."),
        (State { unexecuted: Some("no".to_owned()), ..ended_with(255) }, "Its program could not be executed."),
        (
            State { checkpoint: Some("one".to_owned()), ..ended_with(137) },
            "It was written to the checkpoint one, and ended with that.",
        ),
        (
            State { lost: Some(Lost::Shim), ..ended_with(255) },
            "The program beside it was killed, and the engine ended it.",
        ),
        (State { lost: Some(Lost::Machine), ..ended_with(255) }, "It ended with the machine, which went down."),
        (State { found_unhealthy: true, ..ended_with(0) }, "It was ended because its health check failed."),
    ] {
        assert_eq!(summary(&state), sentence, "{state:?}");
    }
}

#[test]
fn facts_say_what_was_recorded() {
    let texts = |state: &State, policy| {
        let facts = explain(state, policy, 64 << 20).1;
        facts.into_iter().map(|fact| format!("{}: {}", fact.kind, fact.text)).collect::<Vec<_>>()
    };
    let state = State { oom_killed: true, restart_count: 3, ..ended_with(137) };
    assert_eq!(
        texts(&state, Policy::OnFailure { max: 3 }),
        [
            "exit: ended at 1970-01-01T00:00:00.000000002Z with exit code 137 (ended by SIGKILL)",
            "memory: the kernel killed a process of it for lack of memory; its limit is 64MiB",
            "policy: its restart policy gave up after 3 restarts",
        ]
    );
    let failed = State { cause: Some(Cause::ProgramMissing), error: "no such".to_owned(), ..State::default() };
    assert_eq!(texts(&failed, Policy::No)[0], "start: no such");
    let taken = vec!["0.0.0.0:80/tcp is held by the process 7, nginx".to_owned()];
    let failed = State { cause: Some(Cause::Port), cause_facts: taken, ..State::default() };
    assert_eq!(texts(&failed, Policy::No)[2], "port: 0.0.0.0:80/tcp is held by the process 7, nginx");
    let log = vec![HealthResult { exit_code: 1, output: "down\n".to_owned(), ..HealthResult::default() }];
    let health = Health { status: "unhealthy".to_owned(), failing_streak: 4, log };
    let state = State { phase: Phase::Running { pid: 1 }, health: Some(Arc::new(health)), ..ended_with(0) };
    let told = texts(&state, Policy::No);
    assert_eq!(told[1], "health: its health check failed 4 times in a row, last with exit code 1 and printed: down");
}

#[test]
fn what_was_taken_from_it_is_told_where_it_failed() {
    let host = HostConfig {
        cap_drop: Some(vec!["CHOWN".to_owned(), "NET_RAW".to_owned()]),
        security_opt: Some(vec!["seccomp={}".to_owned()]),
        ..HostConfig::default()
    };
    let kinds = |state: &State, host: &HostConfig| {
        restrictions(state, host).into_iter().map(|fact| fact.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&ended_with(1), &host), ["capability", "filter"]);
    assert!(restrictions(&ended_with(1), &host)[0].text.contains(": CHOWN, NET_RAW; "));
    let none: [String; 0] = [];
    assert_eq!(kinds(&ended_with(0), &host), none);
    assert_eq!(kinds(&ended_with(137), &host), none);
    assert_eq!(kinds(&ended_with(1), &HostConfig::default()), none);
}
