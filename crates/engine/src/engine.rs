//! The engine: everything that operations share.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use container_spec::HostFacts;
use oci::{ContainerId, Digest};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, error, warn};

use crate::changeable::Current;
use crate::config::EngineConfig;
use crate::container::Container;
use crate::events::Events;
use crate::farewells::Farewells;
use crate::names::Names;
use crate::networking::Networking;
use crate::recorder::Recorder;
use crate::registry::Registry;
use crate::restart::Policy;
use crate::shim::{Observation, Spawner};

/// How long the removal of a dead container's cgroup may wait for its processes to die.
const CGROUP_END_TIMEOUT: Duration = Duration::from_secs(10);

/// Likewise at the start of the daemon, whose clients wait for it; what stays is tried again by the next one.
const CGROUP_SWEEP_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// What is counted.
    pub metrics: crate::metrics::Metrics,
    /// How containers ended that removed themselves.
    pub farewells: Farewells,
    /// Images, layers, and the directories of containers.
    pub images: image::Store,
    /// What may change: defaults, and registries as this daemon reaches them.
    pub current: Current,
    pub(crate) pulls: crate::pulls::Pulls,
    /// Directories that builds keep for their commands.
    pub(crate) caches: crate::ops::build::Caches,
    /// Images that are steps of builds alone.
    pub(crate) steps: crate::ops::build::StepImages,
    /// Steps of builds that are being done.
    pub(crate) flights: Arc<crate::ops::build::Flights>,
    /// What builds have read of images.
    pub(crate) seen_sources: Arc<crate::ops::build::SeenSources>,
    /// What containers keep beside themselves.
    pub volumes: volume::Volumes,
    /// How much containers and volumes may hold.
    pub limits: crate::limits::Limits,
    /// Held for reading while a container is made of an image, for writing while an image is removed: over our own disk's
    /// work only.
    pub image_users: tokio::sync::RwLock<()>,
    /// Who is on which network.
    pub networking: Networking,
    /// What containers are called there, and who answers them.
    pub names: Names,
    /// Writes records.
    pub recorder: Recorder,
    /// Compiled system-call filters.
    pub filters: seccomp::Programs,
    /// Starts shims.
    pub spawner: Arc<Spawner>,
    /// The supervisor's ear.
    pub observations: mpsc::UnboundedSender<Observation>,
    /// Whether containers are being pruned.
    pub pruning: std::sync::atomic::AtomicBool,
    pub(crate) upkeep: crate::upkeep::Upkeep,
    /// When images were last used, for their budget.
    pub(crate) image_uses: crate::ops::image_budget::Uses,
    /// Wakes the sweeper.
    pub swept: Notify,
    pub(crate) idle: Notify,
    /// How many removed containers still have something to clean up.
    pub(crate) departing: watch::Sender<usize>,
    /// How many have been since memory was given back for it.
    pub(crate) departed: AtomicU32,
}

/// One removed container's cleaning up, counted while it lives.
pub(crate) struct Departure(Engine);

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

    /// The cgroup above a container's: its own choice, or the daemon's.
    pub fn cgroup_parent_of(&self, container: &Container) -> String {
        let own = container.definition.host_config.cgroup_parent.as_str();
        if own.is_empty() { self.cgroup_parent() } else { container_spec::namespaces::cgroup_parent(own) }
    }

    /// A container's cgroup, in whichever hierarchies have it. Blocks shortly.
    pub fn cgroup_of(&self, container: &Container) -> Result<cgroup::Cgroup, cgroup::CgroupError> {
        let path = Path::new(&self.cgroup_parent_of(container)).join(container.id().as_str());
        cgroup::Cgroup::open(&self.hierarchies, &path)
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
        let departed = *self.departing.borrow() == 0;
        departed
            && self.containers.all().iter().all(|container| {
                let live = container.live();
                !live.state.is_running() && live.shim.is_none() && live.rules.policy == Policy::No
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

    /// Kills what is left in a container's cgroup, and removes it, on another thread. Its next start waits for that.
    pub fn end_cgroup(&self, container: &Arc<Container>) {
        let path = Path::new(&self.cgroup_parent_of(container)).join(container.id().as_str());
        let (hierarchies, sweeper) = (self.hierarchies.clone(), container.sweep_cgroup());
        tokio::spawn(bridge::blocking(move || {
            end_cgroup(&hierarchies, &path, CGROUP_END_TIMEOUT);
            drop(sweeper);
        }));
    }

    /// Ends what is left in the cgroups below ours that belong to no container that `lives`. Blocks.
    ///
    /// Only below the parent that bears our key: one that the configuration names may hold others' cgroups, too.
    pub fn sweep_cgroups(&self, lives: impl Fn(&ContainerId) -> bool) {
        if self.config.cgroup_parent.is_some() {
            return;
        }
        let parent = PathBuf::from(self.cgroup_parent());
        let ids = self.hierarchies.children(&parent).into_iter().filter_map(|name| name.parse::<ContainerId>().ok());
        for id in ids.filter(|id| !lives(id)) {
            warn!(container = %id, "a cgroup that no living container owns is removed");
            end_cgroup(&self.hierarchies, &parent.join(id.as_str()), CGROUP_SWEEP_TIMEOUT);
        }
    }
}

fn end_cgroup(hierarchies: &cgroup::Hierarchies, path: &Path, timeout: Duration) {
    let group = cgroup::Cgroup::open(hierarchies, path);
    let ended = group.and_then(|group| group.kill().and_then(|()| group.destroy(timeout)));
    if let Err(err) = ended {
        error!(cgroup = %path.display(), err = errdefs::chain(&err), "cannot end what is left of the container");
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

    /// Makes in the background what the first start would wait for otherwise. For a daemon that is ready.
    pub fn warm_up(&self) {
        let engine = self.clone();
        tokio::spawn(bridge::blocking(move || {
            // The start that needs it tries again, and tells the user why it cannot.
            if engine.facts.seccomp
                && let Err(err) = crate::launch::warm(&engine)
            {
                debug!(err = errdefs::chain(&err), "prepare the default system-call filter");
            }
            // Compiling takes megabytes, and so does starting, once.
            sys::memory::release_free_heap();
            sys::memory::release_program_pages();
        }));
    }

    /// Writes what is not written yet. Containers keep running.
    pub async fn shutdown(&self) {
        self.recorder.flush().await;
        self.await_departures().await;
        let engine = self.clone();
        bridge::blocking(move || {
            engine.networking.close();
            crate::ops::image_budget::keep(&engine);
        })
        .await;
        // The next container makes it again; left empty it would stay on the machine for ever.
        let (hierarchies, parent) = (self.hierarchies.clone(), PathBuf::from(self.cgroup_parent()));
        if let Err(err) = bridge::blocking(move || hierarchies.remove_unused(&parent)).await {
            warn!(%err, "cannot remove the cgroup above the containers'");
        }
    }

    /// Waits for the shims of containers that ended or were removed, which take their cgroups away.
    async fn await_departures(&self) {
        let ended = self.containers.all().into_iter().filter(|container| !container.state().is_running());
        let shims: Vec<_> = ended.filter_map(|container| container.shim()).collect();
        let mut departing = self.departing.subscribe();
        let all_gone = async {
            for shim in shims {
                shim.wait_gone(DEPARTURE_TIMEOUT).await;
            }
            // The sender is ours.
            let _ = departing.wait_for(|count| *count == 0).await;
        };
        if tokio::time::timeout(DEPARTURE_TIMEOUT, all_gone).await.is_err() {
            debug!("the shims of containers that ended are left to themselves");
        }
    }

    /// Counts a removed container until what this answers is dropped.
    pub(crate) fn departure(&self) -> Departure {
        self.departing.send_modify(|count| *count += 1);
        Departure(self.clone())
    }

    /// Images that were held are not any more: of those that were removed meanwhile the layers go.
    pub(crate) fn let_go<'a>(&self, images: impl IntoIterator<Item = &'a Digest>) {
        if images.into_iter().any(|id| self.images.get(id).is_none()) {
            self.upkeep.layers_left.store(true, Ordering::Relaxed);
            self.sweep_soon();
        }
    }

    /// Deletes removed directories whenever there are some, and gives memory back when that is over; a task.
    pub(crate) async fn sweep(self) {
        loop {
            self.swept.notified().await;
            self.sweep_once().await;
            while tokio::time::timeout(QUIET, self.swept.notified()).await.is_ok() {
                self.sweep_once().await;
            }
            bridge::blocking(sys::memory::release_free_heap).await;
        }
    }

    async fn sweep_once(&self) {
        // Removals come in groups.
        tokio::time::sleep(SWEEP_DELAY).await;
        let engine = self.clone();
        bridge::blocking(move || {
            if engine.upkeep.layers_left.swap(false, Ordering::Relaxed)
                && let Err(err) = engine.images.collect()
            {
                warn!(err = errdefs::chain(&err), "layers that nothing needs stay");
            }
            let pause = engine.pause_of_sweep();
            if let Err(err) = image::sweep_between(&engine.images, &pause) {
                warn!(err = errdefs::chain(&err), "cannot delete all removed snapshots");
            }
            if let Err(err) = engine.volumes.sweep() {
                warn!(err = errdefs::chain(&err), "cannot delete all removed volumes");
            }
            engine.limits.reclaim();
            if let Err(left) = stdx::tree::sweep_between(&engine.trash(), "", &pause) {
                let (path, more) = (left.path.display(), left.more);
                warn!(err = %left.source, %path, more, "cannot delete all directories of removed containers");
            }
        })
        .await;
    }

    /// What a sweep asks before each directory. Builds write at the same time as it would, and go first for a while; on a disk that
    /// is nearly full its space is what they need.
    fn pause_of_sweep(&self) -> impl Fn() + use<> {
        let has_space =
            rustix::fs::statvfs(&self.config.data_root).is_ok_and(|disk| disk.f_bavail / 10 >= disk.f_blocks / 100);
        let until = Instant::now() + if has_space { SWEEP_PAUSE } else { Duration::ZERO };
        let builds = self.upkeep.builds.clone();
        move || builds.wait(until)
    }
}

/// Gives back what only the last work needed: memory that is free, and the pages of the program, which come back by
/// themselves, those that are needed again.
pub async fn give_memory_back() {
    bridge::blocking(|| {
        sys::memory::release_free_heap();
        sys::memory::release_program_pages();
    })
    .await;
}

impl Drop for Departure {
    fn drop(&mut self) {
        let mut last = false;
        self.0.departing.send_modify(|count| {
            *count -= 1;
            last = *count == 0;
        });
        self.0.tell_idle_changed();
        // One by one the sweep gives memory back when all is quiet, for the next container needs it again.
        let many = self.0.departed.fetch_add(1, Ordering::Relaxed) >= MANY;
        if last
            && many
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            self.0.departed.store(0, Ordering::Relaxed);
            runtime.spawn_blocking(sys::memory::release_free_heap);
        }
    }
}

/// How long the end of the daemon waits for shims that are about to end: they need milliseconds, unless a client of theirs
/// is slow.
const DEPARTURE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the sweep waits for more to sweep; well below the second after which nothing of a container is left.
const SWEEP_DELAY: Duration = Duration::from_millis(100);

/// How long a sweep gives way to builds in all.
const SWEEP_PAUSE: Duration = Duration::from_secs(3);

/// After so many removals memory is given back as soon as none is left to do.
const MANY: u32 = 64;

/// After so long without removals what they took is given back; not in between, when the next one needs it again.
const QUIET: Duration = Duration::from_secs(1);
