use super::*;

const SECOND: i64 = 1_000_000_000;
const ALWAYS: Rules = Rules { policy: Policy::Always, auto_remove: false };
const NO: Rules = Rules { policy: Policy::No, auto_remove: false };
const RM: Rules = Rules { policy: Policy::No, auto_remove: true };

fn running() -> State {
    let started = Input::Started { pid: 7, at_nanos: SECOND };
    State::default().step(Input::StartRequested, NO).0.step(started, NO).0
}

fn exit(exit_code: i32, seconds: i64) -> Input {
    Input::Exited { exit_code, oom_killed: false, at_nanos: SECOND + seconds * SECOND }
}

fn died(exit_code: i32, seconds: u64) -> Effect {
    Effect::TellDie { exit_code, duration: Duration::from_secs(seconds) }
}

#[test]
fn a_run_from_start_to_end() {
    let state = running();
    assert_eq!((state.name(), state.pid(), state.is_running()), ("running", 7, true));
    let (state, effects) = state.step(exit(3, 2), NO);
    assert_eq!(effects, [Effect::WakeWaiters, died(3, 2), Effect::Record]);
    assert_eq!((state.name(), state.pid(), state.exit_code), ("exited", 0, 3));
    assert_eq!(state.finished_at_nanos, 3 * SECOND);
}

#[test]
fn the_end_of_a_container_that_is_to_be_removed_removes_it() {
    let (_, effects) = running().step(exit(0, 0), RM);
    assert_eq!(effects.last(), Some(&Effect::Remove));
    let failed = Input::StartFailed { exit_code: 127, error: "no".into() };
    let (state, effects) = State::default().step(failed, RM);
    assert_eq!(effects, [Effect::Record], "whoever wanted the start removes it");
    assert_eq!((state.name(), state.exit_code, state.error.as_str()), ("created", 127, "no"));
    // ... but not in the middle of `restart`.
    let (_, effects) = running().step(Input::RestartRequested, RM).0.step(exit(0, 0), RM);
    assert!(!effects.contains(&Effect::Remove));
}

#[test]
fn a_policy_restarts_with_growing_waits() {
    let mut state = running();
    for (count, wait) in [(1, 100), (2, 200), (3, 400)] {
        let (next, effects) = state.step(exit(0, 1), ALWAYS);
        assert_eq!(effects.last(), Some(&Effect::RestartAfter(Duration::from_millis(wait))));
        assert_eq!((next.name(), next.restart_count, next.is_running()), ("restarting", count, true));
        state = next.step(Input::Started { pid: 8, at_nanos: SECOND }, ALWAYS).0;
    }
    // A client's start forgets all that.
    let (state, _) = State { phase: Phase::Stopped, ..state }.step(Input::StartRequested, ALWAYS);
    assert_eq!((state.restart_count, state.back_off), (0, BackOff::default()));
}

#[test]
fn who_asks_for_the_end_overrules_the_policy_until_the_next_start() {
    let (state, effects) = running().step(Input::Signalled { ends: true }, ALWAYS);
    assert_eq!(effects, [Effect::Record]);
    let (state, effects) = state.step(exit(137, 1), ALWAYS);
    assert_eq!(effects, [Effect::WakeWaiters, died(137, 1), Effect::Record]);
    let (state, _) = state.step(Input::StartRequested, ALWAYS);
    assert!(!state.manually_stopped && !state.end_requested);
    // Another signal leaves `always` in force, but not `unless-stopped`.
    for (policy, name) in [(Policy::Always, "restarting"), (Policy::UnlessStopped, "exited")] {
        let rules = Rules { policy, auto_remove: false };
        let (state, _) = running().step(Input::Signalled { ends: false }, rules);
        assert_eq!(state.step(exit(0, 1), rules).0.name(), name);
    }
}

#[test]
fn a_wait_for_the_next_start_can_be_cancelled_or_fail() {
    let restarting = || running().step(exit(5, 1), ALWAYS).0;
    let (state, effects) = restarting().step(Input::RestartCancelled, ALWAYS);
    assert_eq!((state.name(), effects), ("exited", vec![Effect::WakeWaiters, Effect::Record]));
    let failed = Input::StartFailed { exit_code: 127, error: "gone".into() };
    let (state, effects) = restarting().step(failed, ALWAYS);
    assert_eq!((state.name(), state.exit_code, state.error.as_str()), ("exited", 5, "gone"));
    assert_eq!(effects, [Effect::WakeWaiters, Effect::Record]);
}

#[test]
fn what_makes_no_sense_changes_nothing() {
    for (state, input) in [
        (State::default(), exit(0, 0)),
        (State::default(), Input::Signalled { ends: true }),
        (State::default(), Input::RestartCancelled),
        (running(), Input::StartRequested),
        (running(), Input::RemovalBegun),
        (running(), Input::Started { pid: 9, at_nanos: 0 }),
    ] {
        assert_eq!(state.clone().step(input, ALWAYS), (state, vec![]));
    }
}

#[test]
fn a_removal_ends_or_is_taken_back() {
    let (state, _) = State::default().step(Input::RemovalBegun, NO);
    assert_eq!(state.name(), "removing");
    let (state, _) = state.step(Input::StartRequested, NO);
    assert_eq!(state.name(), "removing");
    assert_eq!(state.step(Input::RemovalFailed, NO).0.name(), "created");
}

#[test]
fn a_shortage_of_memory_is_told_and_kept() {
    let (state, effects) = running().step(Input::OomKilled, NO);
    assert_eq!(effects, [Effect::TellOom]);
    assert!(state.step(exit(137, 1), NO).0.oom_killed);
}

fn being_written(exit: bool) -> State {
    let pending = Pending { name: "one".into(), path: "/c/one".into(), begun: "/c/.x".into(), exit };
    State { pending: Some(Box::new(pending)), ..running() }
}

#[test]
fn the_policy_waits_until_it_is_known_what_came_of_a_checkpoint() {
    let (ended, effects) = being_written(true).step(exit(137, 1), ALWAYS);
    assert_eq!(effects, [Effect::WakeWaiters, died(137, 1), Effect::Record, Effect::SettleCheckpoint]);
    assert_eq!((ended.name(), ended.restart_count), ("exited", 0));
    let settled = |written, rules| ended.clone().step(Input::CheckpointSettled(written), rules);
    let (state, effects) = settled(Written::Named, ALWAYS);
    assert_eq!((state.name(), state.checkpoint.as_deref(), state.pending), ("exited", Some("one"), None));
    assert_eq!(effects, [Effect::Record]);
    assert_eq!(settled(Written::Named, RM).1, [Effect::Record, Effect::Remove]);
    let (state, effects) = settled(Written::Left, ALWAYS);
    assert_eq!((state.name(), state.checkpoint, state.pending), ("exited", None, None));
    assert_eq!(effects, [Effect::Record]);
    // It died by itself.
    let (state, effects) = settled(Written::Nothing, ALWAYS);
    assert_eq!((state.name(), state.restart_count, state.pending.is_none()), ("restarting", 1, true));
    assert_eq!(effects, [Effect::Record, Effect::RestartAfter(Duration::from_millis(100))]);
    assert_eq!(settled(Written::Nothing, RM).1, [Effect::Record, Effect::Remove]);
    // Once.
    assert_eq!(state.step(Input::CheckpointSettled(Written::Nothing), ALWAYS).1, []);
}

#[test]
fn the_policy_of_one_that_is_to_go_on_waits_for_nothing() {
    let (state, effects) = being_written(false).step(exit(1, 1), ALWAYS);
    assert_eq!(state.name(), "restarting");
    assert!(
        effects.contains(&Effect::SettleCheckpoint)
            && effects.contains(&Effect::RestartAfter(Duration::from_millis(100)))
    );
    let (state, effects) = state.step(Input::CheckpointSettled(Written::Nothing), ALWAYS);
    assert_eq!((state.name(), state.pending), ("restarting", None));
    assert_eq!(effects, [Effect::Record]);
    let (state, effects) = being_written(true).step(Input::CheckpointSettled(Written::Nothing), ALWAYS);
    assert_eq!((state.name(), state.pending, effects.as_slice()), ("running", None, [Effect::Record].as_slice()));
}
