//! `GET /containers/{id}/why`: why a container ended, restarts, is unhealthy or did not start.
//!
//! Only what was recorded when it happened is told ([`crate::container::state::State`]); nothing is looked for, and nothing is guessed from texts.

use engine_api::host_config::HostConfig;
use engine_api::why::{Reason, Why};
use errdefs::ErrorKind;

use crate::Engine;
use crate::clock::rfc3339;
use crate::container::state::{Cause, Lost, Phase, Sender, SentSignal, State};
use crate::registry::LookupError;
use crate::restart::Policy;

/// Exit codes above this stand for signals: 128 and their number.
const SIGNALS_FROM: i32 = 128;
/// What the kernel sends to who makes a forbidden system call.
const SIGSYS: i32 = 31;
/// So many failed checks in a row tell something of a container that has ended: Docker's default of retries.
const FAILURES_THAT_COUNT: i64 = 3;
/// See [`crate::ops::kill::SIGKILL`].
const SIGKILL: i32 = 9;

/// Why [`why`] failed.
#[derive(Debug, thiserror::Error)]
pub enum WhyError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

impl WhyError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            WhyError::Lookup(err) => err.kind(),
        }
    }
}

/// Explains how a container is.
pub fn why(engine: &Engine, name: &str) -> Result<Why, WhyError> {
    let container = engine.containers.find(name)?;
    let (state, name, policy) = {
        let live = container.live();
        (live.state.clone(), live.name.clone(), live.rules.policy)
    };
    let memory_bytes = container.host_config().memory;
    let (summary, mut facts) = explain(&state, policy, memory_bytes);
    facts.extend(restrictions(&state, &container.host_config()));
    Ok(Why {
        id: container.id().to_string(),
        name: format!("/{name}"),
        status: state.name().to_owned(),
        summary,
        facts,
    })
}

/// The answer, and what it rests on. Pure.
fn explain(state: &State, policy: Policy, memory_bytes: i64) -> (String, Vec<Reason>) {
    let mut facts = Vec::new();
    let summary = match state.phase {
        Phase::Running { .. } => running(state, &mut facts),
        Phase::Removing => "It is being removed.".to_owned(),
        _ if state.cause.is_some() => not_started(state, &mut facts),
        Phase::Stopped if state.started_at_nanos == 0 => "It was created, and nobody has started it.".to_owned(),
        Phase::Stopped | Phase::Restarting => ended(state, memory_bytes, &mut facts),
    };
    health(state, &mut facts);
    facts.extend(decision(state, policy).map(|text| reason("policy", text)));
    (summary, facts)
}

fn reason(kind: &str, text: impl Into<String>) -> Reason {
    Reason { kind: kind.to_owned(), text: text.into() }
}

fn running(state: &State, facts: &mut Vec<Reason>) -> String {
    facts.push(reason("start", format!("started at {}", rfc3339(state.started_at_nanos))));
    if state.oom_killed {
        facts.push(reason("memory", "the kernel has killed a process of it for lack of memory in this run"));
    }
    if state.paused {
        return "It runs and stands still: somebody has paused it.".to_owned();
    }
    match state.health.as_ref().map(|health| health.status.as_str()) {
        Some("unhealthy") => "It runs, and its health check fails.".to_owned(),
        Some("starting") => "It runs, and its health check has not succeeded yet.".to_owned(),
        _ => "It runs.".to_owned(),
    }
}

fn not_started(state: &State, facts: &mut Vec<Reason>) -> String {
    facts.push(reason("start", state.error.clone()));
    let hint = state.cause.map(|cause| match cause {
        Cause::ProgramMissing => "its program is not in the image, nor in the PATH that it is looked for in",
        Cause::ProgramRefused => "its program cannot be executed: it is a directory, has no permission, or names an interpreter that is not there",
        Cause::User => "its user or one of its groups is not in the image's files",
        Cause::WorkingDir => "its working directory is a file",
        Cause::Network => "it could not be connected: the container whose network it shares may not run",
        Cause::Port => "a port of the host that it publishes is somebody else's",
        Cause::Mount => "something that it mounts is not there, or cannot be mounted",
        Cause::Filter => "its system-call filter cannot be made",
        Cause::Runtime => "the kernel refused to make it as it was asked for",
        Cause::Engine => "the engine could not do its part: its log has more",
    });
    facts.extend(hint.map(|hint| reason("start", hint)));
    let kind = if state.cause == Some(Cause::Port) { "port" } else { "start" };
    facts.extend(state.cause_facts.iter().map(|fact| reason(kind, fact)));
    "It could not be started.".to_owned()
}

fn ended(state: &State, memory_bytes: i64, facts: &mut Vec<Reason>) -> String {
    let code = state.exit_code;
    facts.push(reason("exit", format!("ended at {} with {}", rfc3339(state.finished_at_nanos), meaning(code))));
    let sent = state.last_signal.as_ref();
    facts.extend(sent.map(|sent| reason("signal", told(sent))));
    if state.oom_killed {
        let limit = match memory_bytes {
            0 => "it has no limit of its own: the machine was short of memory".to_owned(),
            bytes => format!("its limit is {}", engine_api::size::binary(bytes as f64)),
        };
        facts.push(reason("memory", format!("the kernel killed a process of it for lack of memory; {limit}")));
    }
    let signal = code - SIGNALS_FROM;
    facts.extend(state.unexecuted.as_ref().map(|text| reason("program", text)));
    match () {
        () if state.checkpoint.is_some() => {
            let name = state.checkpoint.as_deref().unwrap_or_default();
            facts.push(reason("checkpoint", format!("start --checkpoint {name} lets it go on")));
            format!("It was written to the checkpoint {name}, and ended with that.")
        }
        () if state.lost == Some(Lost::Shim) => {
            facts.push(reason("shim", "longshore-shim, which is beside every container, ended without a word"));
            "The program beside it was killed, and the engine ended it.".to_owned()
        }
        () if state.lost == Some(Lost::Machine) => {
            facts.push(reason("machine", "nothing of its run was left when the engine looked for it"));
            "It ended with the machine, which went down.".to_owned()
        }
        () if state.unexecuted.is_some() => "Its program could not be executed.".to_owned(),
        () if state.found_unhealthy => "It was ended because its health check failed.".to_owned(),
        // Whoever gets SIGKILL from us was asked to end before.
        () if sent.is_some_and(|sent| sent.signal == signal) => by_whom(sent.map(|sent| sent.by)).to_owned(),
        () if state.oom_killed && signal == SIGKILL => "It ran out of memory, and the kernel killed it.".to_owned(),
        () if signal == SIGSYS => {
            facts.push(reason("filter", "its system-call filter forbids what it tried: see --security-opt seccomp"));
            "It made a system call that its filter forbids, and the kernel killed it.".to_owned()
        }
        () if sent.is_some() && state.manually_stopped => "It ended after it was asked to.".to_owned(),
        () if code == 0 => "Its program has done its work.".to_owned(),
        () if signal > 0 && signal <= 64 => {
            format!("A signal that did not come from the engine killed it: {}.", oci::signal::signal_name(signal))
        }
        () => "Its program failed.".to_owned(),
    }
}

/// What was taken from it and may be why it failed: nobody records which calls were refused with an error.
fn restrictions(state: &State, host: &HostConfig) -> Vec<Reason> {
    let failed = state.phase == Phase::Stopped && (1..SIGNALS_FROM).contains(&state.exit_code);
    if !failed || state.cause.is_some() || state.unexecuted.is_some() {
        return Vec::new();
    }
    let dropped = host.cap_drop.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", ");
    let profiles = host.security_opt.iter().flatten().filter_map(|option| option.split_once(['=', ':']));
    let own_filter = profiles
        .filter(|(name, _)| *name == "seccomp")
        .any(|(_, profile)| !matches!(profile, "unconfined" | "builtin"));
    let dropped = (!dropped.is_empty()).then(|| {
        let text = format!(
            "it ran without capabilities that it was refused: {dropped}; what needs them fails, and nobody records that"
        );
        reason("capability", text)
    });
    let filtered = own_filter.then(|| {
        reason(
            "filter",
            "it ran under a system-call filter of its own: calls that it refuses with an error are recorded nowhere",
        )
    });
    dropped.into_iter().chain(filtered).collect()
}

fn by_whom(by: Option<Sender>) -> &'static str {
    match by {
        Some(Sender::Restart) => "It was restarted by a client.",
        Some(Sender::Health) => "It was ended because its health check failed.",
        _ => "A client ended it: with stop, kill or rm.",
    }
}

fn told(sent: &SentSignal) -> String {
    let by = match sent.by {
        Sender::Client => "a client's request",
        Sender::Restart => "a client's restart",
        Sender::Health => "its policy, because it was unhealthy",
    };
    format!("the engine sent it {} at {}: {by}", oci::signal::signal_name(sent.signal), rfc3339(sent.at_nanos))
}

/// What an exit code means: to shells, to Docker, and where it stands for a signal.
fn meaning(code: i32) -> String {
    let words = match code {
        0 => "success".to_owned(),
        125 => "the command line of an engine failed".to_owned(),
        126 => "a command was found and cannot be executed".to_owned(),
        127 => "a command was not found".to_owned(),
        crate::supervise::EXIT_CODE_LOST => "unknown: nobody saw its end, or its program says so".to_owned(),
        code if (SIGNALS_FROM + 1..=SIGNALS_FROM + 64).contains(&code) => {
            format!("ended by {}", oci::signal::signal_name(code - SIGNALS_FROM))
        }
        _ => "its program's own".to_owned(),
    };
    format!("exit code {code} ({words})")
}

fn health(state: &State, facts: &mut Vec<Reason>) {
    let Some(health) = &state.health else { return };
    let Some(last) = health.log.last().filter(|last| last.exit_code != 0) else { return };
    // One or two that were cut by a pause or by the container's end say nothing.
    let running = matches!(state.phase, Phase::Running { .. });
    if !running && !state.found_unhealthy && health.failing_streak < FAILURES_THAT_COUNT {
        return;
    }
    let output = last.output.trim_end();
    let said = if output.is_empty() { "and printed nothing".to_owned() } else { format!("and printed: {output}") };
    let times = health.failing_streak;
    let text = format!("its health check failed {times} times in a row, last with exit code {} {said}", last.exit_code);
    facts.push(reason("health", text));
}

/// What its restart policy makes of that; nothing where it has no say.
fn decision(state: &State, policy: Policy) -> Option<String> {
    let count = state.restart_count;
    let max = match policy {
        Policy::OnFailure { max } | Policy::OnUnhealthy { max } => max,
        Policy::No | Policy::Always | Policy::UnlessStopped => 0,
    };
    match state.phase {
        Phase::Restarting => {
            let wait = crate::clock::go_duration(state.back_off.delay());
            Some(format!("its restart policy starts it again, {wait} after its end: restart {count}"))
        }
        Phase::Running { .. } if count > 0 => Some(format!("its restart policy has started it {count} times")),
        Phase::Stopped if state.started_at_nanos == 0 => None,
        Phase::Stopped if policy == Policy::No => Some("it has no restart policy".to_owned()),
        Phase::Stopped if state.end_requested => {
            Some("its restart policy leaves it alone: a client asked for its end".to_owned())
        }
        Phase::Stopped if max > 0 && count >= max => Some(format!("its restart policy gave up after {count} restarts")),
        Phase::Stopped if state.exit_code == 0 && max == 0 => {
            Some("its restart policy leaves alone what ends well".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
