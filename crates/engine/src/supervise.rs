//! The one loop that turns facts into states, events and restarts.
//!
//! ```text
//!   shims --Observation--> run() --Input--> State::step --Effect--> perform()
//!   operations ---------------------Input--^
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use shim_api::{Answer, ExecState, ExitFile, ExitRecord, Fact, RunState};
use tokio::sync::mpsc;
use tracing::{debug, error, warn};

use crate::Engine;
use crate::container::Container;
use crate::container::state::{Effect, Input, Lost, Phase};
use crate::exec::{self, Exec};
use crate::health;
use crate::networking;
use crate::shim::{Observation, Outcome, Shim};

/// The exit code of a container whose end nobody saw: dockerd's (moby daemon `restore`).
pub const EXIT_CODE_LOST: i32 = 255;
/// The exit code of an exec whose container ended before it: it was killed.
const EXIT_CODE_KILLED: i32 = 137;

/// Handles observations until the engine is gone.
pub async fn run(engine: Engine, mut observations: mpsc::UnboundedReceiver<Observation>) {
    while let Some(observation) = observations.recv().await {
        // All containers depend on this loop: a mistake about one of them must not be the end of it. Locks are held over
        // field access only, so nothing is left half-done but what the one observation was about.
        let observed = catch_unwind(AssertUnwindSafe(|| observe(&engine, observation)));
        if observed.is_err() {
            error!("an observation was lost to a panic");
        }
    }
}

fn observe(engine: &Engine, observation: Observation) {
    match observation {
        // Who asked may have given up.
        Observation::CaughtUp(asker) => _ = asker.send(()),
        Observation::Answered { container, outcome, asker } => {
            match (engine.containers.get(&container), &outcome) {
                (Some(container), Ok(Answer::Started(run))) => feed(engine, &container, started(run)),
                (Some(container), Ok(Answer::Hello { state: Some(run), execs, version })) if run.started => {
                    health::kill_left_over(&container, *version, execs);
                    take_over(engine, &container, run);
                    take_over_execs(engine, &container, execs);
                }
                _ => {}
            }
            answer(asker, outcome);
        }
        Observation::Unsupervised { container, asker } => {
            if let Some(container) = engine.containers.get(&container) {
                let path = shim_api::paths::exit(&engine.recorder.shim_dir(container.id()));
                let exit = read_exit(&path);
                // No daemon may have heard of their ends.
                take_over_execs(engine, &container, &read_ended_execs(&path));
                crate::open::without_shim(engine, &container, exit);
            }
            // Who asked may be gone with the daemon.
            _ = asker.send(());
        }
        Observation::Fact(fact) => fact_of(engine, fact),
        Observation::Left { container, exit } => {
            if let Some(container) = engine.containers.get(&container) {
                container.live().leaving = false;
                ended(engine, &container, &exit);
            }
        }
        Observation::Closed { container: id, shim } => {
            if let Some(container) = engine.containers.get(&id) {
                closed(engine, &container, shim);
            }
        }
        Observation::Gone { container: id, shim } => {
            if let Some(container) = engine.containers.get(&id) {
                gone(engine, &container, &shim);
            }
            engine.tell_idle_changed();
        }
    }
}

fn started(run: &RunState) -> Input {
    Input::Started { pid: run.pid, at_nanos: run.started_at_nanos }
}

/// A running container as its shim tells it. What we know of this same run stays.
fn take_over(engine: &Engine, container: &Arc<Container>, run: &RunState) {
    let mut live = container.live();
    if live.state.started_at_nanos == run.started_at_nanos && live.state.is_running() {
        live.state.phase = Phase::Running { pid: run.pid };
        return;
    }
    live.state.phase = Phase::Stopped;
    drop(live);
    feed(engine, container, started(run));
}

/// The execs that a shim tells of: those of an earlier daemon, and the ends that we have not heard of.
fn take_over_execs(engine: &Engine, container: &Container, told: &[ExecState]) {
    for state in told {
        let known = container.live().execs.get(&state.exec_id).cloned();
        match (known, state.exit_code) {
            (Some(known), Some(exit_code)) if known.progress().running => {
                exec_exited(engine, container, &known.id, exit_code);
            }
            (Some(_), _) => {}
            (None, _) => {
                let Some(exec) = Exec::taken_over(state.clone()) else { continue };
                container.live().execs.insert(exec.id.clone(), Arc::new(exec));
            }
        }
    }
    let dir = engine.recorder.shim_dir(container.id());
    for exec in exec::kept(&dir) {
        if told.iter().any(|state| state.exec_id == exec.id) {
            // The daemon died between the start and the end of the file.
            exec.release(&dir);
            continue;
        }
        container.live().execs.entry(exec.id.clone()).or_insert_with(|| Arc::new(exec));
    }
}

fn answer(asker: tokio::sync::oneshot::Sender<Outcome>, outcome: Outcome) {
    if asker.send(outcome).is_err() {
        debug!("nobody waits for the shim's answer any more");
    }
}

fn fact_of(engine: &Engine, fact: Fact) {
    let (Fact::Exited { container: id, .. }
    | Fact::ExecExited { container: id, .. }
    | Fact::Oom { container: id }
    | Fact::LogLost { container: id, .. }
    | Fact::Detached { container: id, .. }) = &fact;
    let Some(container) = engine.containers.get(id) else {
        debug!(container = %id, "a fact about a container that was removed");
        return;
    };
    match fact {
        Fact::Exited { exit, .. } => exited(engine, &container, &exit),
        Fact::ExecExited { exec_id, exit_code, .. } => exec_exited(engine, &container, &exec_id, exit_code),
        Fact::Oom { .. } => feed(engine, &container, Input::OomKilled),
        Fact::LogLost { lines, .. } => {
            warn!(container = %container.id(), lines, "lines of the log were lost");
            engine.events.container(&container, "log_lost", [("lines", lines.to_string())]);
        }
        Fact::Detached { exec_id: None, .. } => engine.events.container(&container, "detach", []),
        Fact::Detached { exec_id: Some(exec), .. } => {
            engine.events.container(&container, "exec_detach", [("execID", exec)]);
        }
    }
}

/// Records the end of a container. One that is on a network is taken off there first: whoever hears of its end finds its
/// ports and its address free.
pub fn exited(engine: &Engine, container: &Arc<Container>, exit: &ExitRecord) {
    end_execs(container);
    let mut live = container.live();
    if live.leaving {
        // This end was heard of before.
        return;
    }
    live.leaving = live.place.is_some();
    let leaves = live.leaving;
    drop(live);
    if !leaves {
        return ended(engine, container, exit);
    }
    let (engine, container, exit) = (engine.clone(), container.clone(), exit.clone());
    tokio::spawn(async move {
        networking::withdraw(&engine, &container).await;
        let left = Observation::Left { container: container.id().clone(), exit };
        // Nobody to tell: the daemon ends, and the next one reads of the end.
        _ = engine.observations.send(left);
    });
}

fn ended(engine: &Engine, container: &Arc<Container>, exit: &ExitRecord) {
    container.live().state.unexecuted.clone_from(&exit.unexecuted);
    let input =
        Input::Exited { exit_code: exit.exit_code, oom_killed: exit.oom_killed, at_nanos: exit.exited_at_nanos };
    feed(engine, container, input);
}

fn exec_exited(engine: &Engine, container: &Container, exec_id: &str, exit_code: i32) {
    let exec = container.live().execs.get(exec_id).cloned();
    if let Some(exec) = exec {
        exec.progress().end(exit_code);
    }
    let attributes = [("execID", exec_id.to_owned()), ("exitCode", exit_code.to_string())];
    engine.events.container(container, "exec_die", attributes);
}

fn end_execs(container: &Container) {
    let execs: Vec<_> = {
        let mut live = container.live();
        // Nobody can start any more what was not started.
        live.execs.retain(|_, exec| {
            let progress = exec.progress();
            progress.running || progress.exit_code.is_some()
        });
        live.execs.values().cloned().collect()
    };
    for exec in execs {
        let mut progress = exec.progress();
        if progress.running {
            progress.end(EXIT_CODE_KILLED);
        }
    }
}

/// The connection to a shim is closed: if its container still runs as far as we know, either the shim is gone without a
/// word, or only the connection is.
fn closed(engine: &Engine, container: &Arc<Container>, shim: Arc<Shim>) {
    let is_current = container.shim().is_none_or(|current| Arc::ptr_eq(&current, &shim));
    if !is_current || !matches!(container.state().phase, Phase::Running { .. }) || ended_meanwhile(engine, container) {
        return;
    }
    let (engine, container) = (engine.clone(), container.clone());
    tokio::spawn(async move {
        shim.want(true);
        let reconnected = reconnect(&engine, &container, &shim).await;
        shim.want(false);
        if let Err(err) = reconnected {
            debug!(container = %container.id(), err = errdefs::chain(&*err), "no second connection to the shim");
            let still_ours = container.shim().is_none_or(|current| Arc::ptr_eq(&current, &shim));
            if still_ours
                && matches!(container.state().phase, Phase::Running { .. })
                && !ended_meanwhile(&engine, &container)
            {
                lost(&engine, &container);
            }
        }
    });
}

/// Whoever waited for the end of the shim's process may have started the next one before this was heard of.
fn gone(engine: &Engine, container: &Arc<Container>, shim: &Arc<Shim>) {
    {
        let mut live = container.live();
        if live.shim.as_ref().is_some_and(|current| !Arc::ptr_eq(current, shim)) {
            return;
        }
        live.shim = None;
    }
    engine.recorder.mark(container);
}

/// Records the end that a shim has left word of; whether there was one.
fn ended_meanwhile(engine: &Engine, container: &Arc<Container>) -> bool {
    let exit = read_exit(&shim_api::paths::exit(&engine.recorder.shim_dir(container.id())));
    exit.inspect(|exit| exited(engine, container, exit)).is_some()
}

/// Speaks with a shim that lives over a second connection. What it posted in between it tells now.
async fn reconnect(
    engine: &Engine,
    container: &Arc<Container>,
    closed: &Shim,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let dir = engine.recorder.shim_dir(container.id());
    let shim = Shim::find(&dir, container.id().clone(), engine.observations.clone()).await?;
    // Of the run and its execs the supervisor hears before we do.
    let run = match shim.hello().await {
        Ok(run) => run,
        Err(err) => {
            shim.replace();
            return Err(err.into());
        }
    };
    if !run.is_some_and(|run| run.started) {
        shim.replace();
        return Err("the shim has no container".into());
    }
    closed.replace();
    container.live().shim = Some(shim);
    warn!(container = %container.id(), "the connection to the shim was lost and is there again");
    Ok(())
}

/// The record of an end, if a shim wrote one. It lies on a tmpfs: reading it does not block.
pub fn read_exit(path: &std::path::Path) -> Option<ExitRecord> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Nobody supervises the container any more: what is left of it is ended, and its end recorded, with what can be told of it.
pub fn lost(engine: &Engine, container: &Arc<Container>) {
    // Its directory lies where a reboot empties everything.
    let is_there = engine.recorder.shim_dir(container.id()).exists();
    container.live().state.lost = Some(if is_there { Lost::Shim } else { Lost::Machine });
    warn!(container = %container.id(), "the container's shim is gone: its processes are killed");
    engine.end_cgroup(container);
    let exit = ExitRecord {
        exit_code: EXIT_CODE_LOST,
        exited_at_nanos: crate::clock::now_nanos(),
        started_at_nanos: container.state().started_at_nanos,
        oom_killed: false,
        unexecuted: None,
    };
    exited(engine, container, &exit);
}

/// The execs of a run that ended, as far as its shim has left word of them.
pub fn read_ended_execs(path: &std::path::Path) -> Vec<ExecState> {
    let file = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<ExitFile>(&bytes).ok());
    file.map(|file| file.execs).unwrap_or_default()
}

/// Feeds an input to a container's machine and performs what follows.
pub fn feed(engine: &Engine, container: &Arc<Container>, input: Input) {
    let effects = container.step(input);
    perform(engine, container, effects);
}

/// Performs the effects of a transition. Does not block.
pub fn perform(engine: &Engine, container: &Arc<Container>, effects: Vec<Effect>) {
    for effect in effects {
        match effect {
            Effect::TellStart => {
                engine.events.container(container, "start", []);
                health::started(engine, container);
            }
            // Performed with the transition itself.
            Effect::WakeWaiters => {}
            Effect::TellDie { exit_code, duration } => {
                let attributes =
                    [("execDuration", duration.as_secs().to_string()), ("exitCode", exit_code.to_string())];
                health::halt(container);
                crate::ops::networks::tell(engine, container, "disconnect");
                crate::volumes::tell_unmounts(engine, container);
                engine.events.container(container, "die", attributes);
            }
            Effect::TellOom => engine.events.container(container, "oom", []),
            Effect::TellPause => {
                health::halt(container);
                engine.events.container(container, "pause", []);
            }
            Effect::TellUnpause => {
                engine.events.container(container, "unpause", []);
                health::resumed(engine, container);
            }
            Effect::End => health::end(engine, container),
            Effect::Record => engine.recorder.mark(container),
            Effect::SettleCheckpoint => crate::ops::checkpoint::settle_soon(engine, container),
            Effect::RestartAfter(delay) => restart_after(engine, container, delay),
            Effect::Remove => remove(engine, container),
        }
    }
    engine.tell_idle_changed();
}

fn restart_after(engine: &Engine, container: &Arc<Container>, delay: std::time::Duration) {
    let (engine, later) = (engine.clone(), container.clone());
    let timer = tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        // From here on it is a start, which cancelling the wait does not stop half-way.
        tokio::spawn(async move {
            if let Err(err) = crate::ops::start::again(&engine, &later).await {
                error!(container = %later.id(), err = errdefs::chain(&err), "cannot restart the container");
            }
        });
    });
    container.live().restart_timer = Some(timer.abort_handle());
}

fn remove(engine: &Engine, container: &Arc<Container>) {
    let (engine, container) = (engine.clone(), container.clone());
    tokio::spawn(async move {
        if let Err(err) = crate::ops::remove::ended(&engine, &container).await {
            error!(container = %container.id(), err = errdefs::chain(&err), "cannot remove the container");
        }
    });
}
