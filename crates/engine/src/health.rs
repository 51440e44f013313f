//! Health checks: a command that runs in the container now and then, and what its exit codes come to.
//!
//! ```text
//!   started, unpaused --- watch() ---> a task: sleep, probe, judge, sleep ... ---+--> State::health, health_status event
//!   ended, paused     --- halt() ----> stops it, and kills the probe under way   +--> Input::FoundUnhealthy
//! ```
//! A task that sleeps is all that a check costs between two probes. Each probe is an exec of the shim's; what it came to is
//! in `health.json` in the shim's directory, on a tmpfs, for the next daemon, and in the record with its next change. A
//! probe that an earlier daemon began is killed by the next one: nobody would read what it says.

pub mod judge;
mod probe;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use container_spec::Probe;
use engine_api::container::{Health, HealthResult};
use tokio::sync::oneshot;
use tracing::{debug, error, warn};

use crate::Engine;
use crate::clock::{now_nanos, rfc3339};
use crate::container::Container;
use crate::container::state::{Input, Phase};
use crate::ops::kill;
use crate::supervise;

pub(crate) use probe::kill_left_over;

/// How long a container that is ended for its health may take after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// The container's program runs: nothing is known yet of how well, and it is asked from now on.
pub(crate) fn started(engine: &Engine, container: &Arc<Container>) {
    let Some(probe) = container_spec::probe(&container.definition.config) else { return };
    {
        let mut live = container.live();
        let health = Arc::make_mut(live.state.health.get_or_insert_default());
        judge::starting(health);
    }
    watch(engine, container, probe);
}

/// The container goes on.
pub(crate) fn resumed(engine: &Engine, container: &Arc<Container>) {
    if let Some(probe) = container_spec::probe(&container.definition.config) {
        watch(engine, container, probe);
    }
}

/// The container stands still or has ended: it is not asked any more, and whoever wants to know hears that it is not well,
/// as from dockerd.
pub(crate) fn halt(container: &Container) {
    let mut live = container.live();
    // Dropped, it stops the task.
    live.health_watch = None;
    if let Some(health) = &mut live.state.health {
        judge::UNHEALTHY.clone_into(&mut Arc::make_mut(health).status);
    }
}

/// A container that lived on without a daemon.
pub(crate) fn recall(engine: &Engine, container: &Arc<Container>) {
    let Some(probe) = container_spec::probe(&container.definition.config) else { return };
    let left = std::fs::read(path(&engine.recorder.shim_dir(container.id())));
    let left = left.ok().and_then(|bytes| serde_json::from_slice::<Health>(&bytes).ok());
    let mut live = container.live();
    match left {
        Some(health) => live.state.health = Some(Arc::new(health)),
        None => judge::starting_if_unknown(Arc::make_mut(live.state.health.get_or_insert_default())),
    }
    let paused = live.state.paused;
    drop(live);
    if !paused {
        watch(engine, container, probe);
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("health.json")
}

/// Asks the container from now on; whoever did so before stops.
fn watch(engine: &Engine, container: &Arc<Container>, probe: Probe) {
    let (keep, stop) = oneshot::channel();
    container.live().health_watch = Some(keep);
    let started = container.state().started_at_nanos;
    let watch = Watch { engine: engine.clone(), container: container.clone(), probe, started };
    tokio::spawn(watch.run(stop));
}

/// One run of a container, being watched.
struct Watch {
    engine: Engine,
    container: Arc<Container>,
    probe: Probe,
    /// When the run began, in nanoseconds since 1970.
    started: i64,
}

impl Watch {
    async fn run(self, mut stop: oneshot::Receiver<()>) {
        loop {
            let pause = judge::pause(&self.probe, self.age(now_nanos()), &self.status());
            tokio::select! {
                _ = &mut stop => return,
                () = tokio::time::sleep(pause) => {}
            }
            let begin = now_nanos();
            let mut running = probe::begin(&self.engine, &self.container, &self.probe).await;
            self.engine.metrics.health_check(running.is_started());
            let outcome = tokio::select! {
                _ = &mut stop => return running.abandon().await,
                outcome = running.outcome(self.probe.timeout) => outcome,
            };
            let result = HealthResult {
                start: rfc3339(begin),
                end: rfc3339(now_nanos()),
                exit_code: outcome.exit_code,
                output: outcome.output,
            };
            self.note(result, begin);
            // One that cannot be killed is not followed by another one.
            tokio::select! {
                _ = &mut stop => return running.abandon().await,
                () = running.gone() => {}
            }
        }
    }

    /// How long the container had run at that moment.
    fn age(&self, nanos: i64) -> Duration {
        Duration::from_nanos(u64::try_from(nanos - self.started).unwrap_or(0))
    }

    fn status(&self) -> String {
        self.container.state().health.as_ref().map_or_else(String::new, |health| health.status.clone())
    }

    /// Takes note of a result: for whoever asks, and for the next daemon.
    fn note(&self, result: HealthResult, begin: i64) {
        let (before, after, health) = {
            let mut live = self.container.live();
            // The run that this is about may be over.
            if live.state.started_at_nanos != self.started || !matches!(live.state.phase, Phase::Running { .. }) {
                return;
            }
            let health = live.state.health.get_or_insert_default();
            let before = health.status.clone();
            judge::judge(Arc::make_mut(health), result, &self.probe, self.age(begin));
            (before, health.status.clone(), health.clone())
        };
        let path = path(&self.engine.recorder.shim_dir(self.container.id()));
        let written = serde_json::to_vec(&*health).map_err(std::io::Error::from);
        let written =
            written.and_then(|bytes| stdx::fs::write_atomic(&path, &bytes, stdx::fs::Durability::ProcessDeath));
        if let Err(err) = written {
            debug!(container = %self.container.id(), %err, "the next daemon will not know how well the container is");
        }
        if before == after {
            return;
        }
        self.engine.recorder.mark(&self.container);
        self.engine.events.container(&self.container, &format!("health_status: {after}"), []);
        if after == judge::UNHEALTHY {
            supervise::feed(&self.engine, &self.container, Input::FoundUnhealthy);
        }
    }
}

/// Ends a container that is not well, so that its policy starts it again: as `stop` does, but nobody has stopped it.
pub(crate) fn end(engine: &Engine, container: &Arc<Container>) {
    let (engine, container) = (engine.clone(), container.clone());
    tokio::spawn(async move {
        let config = &container.definition.config;
        let patience = config.stop_timeout.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        let patience = patience.unwrap_or(crate::ops::stop::STOP_TIMEOUT_DEFAULT);
        for (signal, patience) in
            [(container_spec::signal::stop_signal(config), patience), (kill::SIGKILL, KILL_TIMEOUT)]
        {
            let (mut ends, state) = container.watch();
            if !matches!(state.phase, Phase::Running { .. }) {
                return;
            }
            if let Err(err) = kill::deliver(&engine, &container, signal).await {
                warn!(container = %container.id(), err = errdefs::chain(&err), "cannot end an unhealthy container");
            }
            let ended =
                async { ends.changed().await.is_err() || !matches!(container.state().phase, Phase::Running { .. }) };
            if tokio::time::timeout(patience, ended).await.unwrap_or(false) {
                return;
            }
        }
        error!(container = %container.id(), "an unhealthy container does not end: its processes are killed one by one");
        engine.end_cgroup(&container);
    });
}

/// A value that copies share, in records.
pub(crate) mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the value.
    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<Arc<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_deref().serialize(serializer)
    }

    /// Reads it.
    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<T>>, D::Error> {
        Ok(Option::<T>::deserialize(deserializer)?.map(Arc::new))
    }
}
