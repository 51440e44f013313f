//! The engine: everything that operations share.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use container_spec::HostFacts;
use tokio::sync::{Notify, mpsc};
use tracing::{error, warn};

use crate::config::EngineConfig;
use crate::container::Container;
use crate::events::Events;
use crate::recorder::Recorder;
use crate::registry::Registry;
use crate::restart::Policy;
use crate::shim::{Observation, Spawner};

/// How long the removal of a dead container's cgroup may wait for its processes to die.
const CGROUP_END_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything; cheap to clone.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Core>);

/// What operations share.
pub struct Core {
    /// What the daemon said.
    pub config: EngineConfig,
    /// What is known of the machine.
    pub facts: HostFacts,
    /// The cgroup hierarchies.
    pub hierarchies: cgroup::Hierarchies,
    /// The engine's random id.
    pub id: String,
    /// All containers.
    pub containers: Registry,
    /// What happens.
    pub events: Events,
    /// Images, layers, and the directories of containers.
    pub images: image::Store,
    /// Writes records.
    pub recorder: Recorder,
    /// Compiled system-call filters.
    pub filters: seccomp::DefaultPrograms,
    /// Starts shims.
    pub spawner: Spawner,
    /// The supervisor's ear.
    pub observations: mpsc::UnboundedSender<Observation>,
    /// Wakes the sweeper.
    pub swept: Notify,
    pub(crate) idle: Notify,
}

impl Deref for Engine {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.0
    }
}

impl Core {
    /// The cgroup above all containers'.
    pub fn cgroup_parent(&self) -> String {
        match &self.config.cgroup_parent {
            Some(parent) => parent.clone(),
            None => format!("/longshore-{}", self.config.instance_key),
        }
    }

    /// Where removed directories wait for the sweep.
    pub fn trash(&self) -> PathBuf {
        self.config.data_root.join("trash")
    }

    /// Where compiled system-call filters are kept.
    pub fn seccomp_dir(&self) -> PathBuf {
        self.config.data_root.join("seccomp")
    }

    /// Whether the daemon may end without anybody missing it: nothing runs, awaits a restart or is being removed, and no
    /// container has a policy that a start of the daemon would serve.
    pub fn is_idle(&self) -> bool {
        self.containers.all().iter().all(|container| {
            let live = container.live();
            !live.state.is_running() && live.shim.is_none() && container.rules.policy == Policy::No
        })
    }

    /// Answers when [`Core::is_idle`] may have changed since the last answer. One caller.
    pub async fn idle_changed(&self) {
        self.idle.notified().await;
    }

    /// Whoever decides about the daemon's end should look again.
    pub fn tell_idle_changed(&self) {
        self.idle.notify_one();
    }

    /// Has removed directories deleted soon.
    pub fn sweep_soon(&self) {
        self.swept.notify_one();
    }

    /// Kills what is left in a container's cgroup, and removes it, on another thread.
    pub fn end_cgroup(&self, container: &Container) {
        let path = PathBuf::from(format!("{}/{}", self.cgroup_parent(), container.id()));
        let (hierarchies, id) = (self.hierarchies.clone(), container.id().clone());
        tokio::spawn(bridge::blocking(move || {
            let group = cgroup::Cgroup::open(&hierarchies, &path);
            let ended = group.and_then(|group| group.kill().and_then(|()| group.destroy(CGROUP_END_TIMEOUT)));
            if let Err(err) = ended {
                error!(container = %id, err = errdefs::chain(&err), "cannot end what is left of the container");
            }
        }));
    }
}

impl Engine {
    /// Runs `work` to its end, even if whoever waits for it goes away.
    pub async fn detached<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        match tokio::spawn(work).await {
            Ok(value) => value,
            Err(err) => match err.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down: whoever waits here is about to be dropped, too.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Writes what is not written yet. Containers keep running.
    pub async fn shutdown(&self) {
        self.recorder.flush().await;
        // The next container makes it again; left empty it would stay on the machine for ever.
        let (hierarchies, parent) = (self.hierarchies.clone(), PathBuf::from(self.cgroup_parent()));
        if let Err(err) = bridge::blocking(move || hierarchies.remove_unused(&parent)).await {
            warn!(%err, "cannot remove the cgroup above the containers'");
        }
    }

    /// Deletes removed directories whenever there are some; a task.
    pub(crate) async fn sweep(self) {
        loop {
            self.swept.notified().await;
            // Removals come in groups.
            tokio::time::sleep(SWEEP_DELAY).await;
            let engine = self.clone();
            bridge::blocking(move || {
                if let Err(err) = engine.images.sweep() {
                    warn!(err = errdefs::chain(&err), "cannot delete all removed snapshots");
                }
                if let Err(err) = empty(&engine.trash()) {
                    warn!(%err, "cannot delete all directories of removed containers");
                }
            })
            .await;
        }
    }
}

/// How long the sweep waits for more to sweep; well below the second after which nothing of a container is left.
const SWEEP_DELAY: Duration = Duration::from_millis(100);

fn empty(trash: &std::path::Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(trash)? {
        stdx::fs::remove_if_exists(&entry?.path())?;
    }
    Ok(())
}
