//! One container: what never changes, what does, and who waits for it.
//!
//! Two locks. [`Container::operation`] is held by an operation from its first look at the state to its last effect, over
//! await points, so that operations on one container come one after the other. The live part is behind a mutex that is
//! held over field access only: lists and inspections never wait for an operation. Besides, whoever reads the files of a
//! running container shares [`Container::views`], for which its next start and its removal wait.

pub mod name;
pub mod record;
pub mod state;
pub mod status;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use engine_api::container::Config;
use engine_api::host_config::HostConfig;
use oci::ContainerId;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::container::record::{Definition, Record};
use crate::container::state::{Effect, Input, Rules, State};
use crate::exec::Exec;
use crate::networking::Attachments;
use crate::registry::LookupError;
use crate::shim::Shim;
use crate::sync::lock;

/// One container.
pub struct Container {
    /// What never changes.
    pub definition: Definition,
    /// Held by whoever operates on it.
    pub operation: Arc<tokio::sync::Mutex<()>>,
    /// Shared by those who look at the files of its present run; for a moment alone had, with the operation lock, by who is
    /// about to mount its layers anew or to take them away.
    pub views: Arc<tokio::sync::RwLock<()>>,
    /// Held by whoever writes its record.
    pub recording: tokio::sync::Mutex<()>,
    live: Mutex<Live>,
    endings: watch::Sender<Ending>,
    /// How many times what is left in its cgroup is being ended just now.
    sweepers: watch::Sender<usize>,
}

/// Somebody ends what is left in a container's cgroup, until this is dropped.
pub struct CgroupSweeper(Arc<Container>);

impl Drop for CgroupSweeper {
    fn drop(&mut self) {
        self.0.sweepers.send_modify(|count| *count -= 1);
    }
}

/// `80/tcp`, for each port that a container serves.
pub type ExposedPorts = std::collections::BTreeMap<String, oci::image::Empty>;

/// What a start adds that is on no record: files and variables of a command of a build.
#[derive(Default)]
pub struct Unrecorded {
    /// Mounts, above all others, in this order.
    pub mounts: Vec<oci::runtime::Mount>,
    /// Variables: `NAME=VALUE`.
    pub env: Vec<String>,
}

/// What changes.
pub struct Live {
    /// The name, without a slash.
    pub name: String,
    /// The machine's state.
    pub state: State,
    /// What of the configuration the machine must know.
    pub rules: Rules,
    /// How the host runs it, if that was changed since this daemon has known it: what counts instead of the definition's.
    pub updated: Option<Arc<HostConfig>>,
    /// The ports that it exposes, likewise.
    pub exposed: Option<Arc<ExposedPorts>>,
    /// The networks that it is to be on, by name; where nobody said anything, that of its network mode.
    pub networks: Option<Arc<Attachments>>,
    /// The shim, from its start until its process is gone.
    pub shim: Option<Arc<Shim>>,
    /// Where it is on its network; who takes this takes it off there.
    pub place: Option<Arc<network::Place>>,
    /// It has ended and is being taken off its network, after which its end is told.
    pub leaving: bool,
    /// A start is in progress.
    pub starting: bool,
    /// It is being written to files: whoever wants to operate on it is refused.
    pub being_written: bool,
    /// Clients that attached before the start.
    pub held_clients: Vec<HeldClient>,
    /// What this daemon alone knows of its next start.
    pub unrecorded: Arc<Unrecorded>,
    /// Processes added to it, by id.
    pub execs: BTreeMap<String, Arc<Exec>>,
    /// Dropped, it stops the asking how well it is.
    pub health_watch: Option<tokio::sync::oneshot::Sender<()>>,
    /// The wait for the start that its policy asks.
    pub restart_timer: Option<AbortHandle>,
}

/// A client that attached before the start.
pub struct HeldClient {
    /// What it wants.
    pub attach: shim_api::Attach,
    /// Its stream.
    pub stream: OwnedFd,
}

/// What waiters wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// How often it ended.
    pub count: u64,
    /// Whether it was removed.
    pub removed: bool,
    /// How its last run ended.
    pub exit_code: i32,
    /// Why its last start failed.
    pub error: String,
}

impl Container {
    /// A container as its record says.
    pub fn new(record: Record) -> Container {
        let rules = Rules::of(&record.definition.host_config);
        let networks = record.definition.networks.clone().map(Arc::new);
        Container {
            definition: record.definition,
            operation: Arc::default(),
            views: Arc::default(),
            recording: tokio::sync::Mutex::new(()),
            live: Mutex::new(Live {
                name: record.name,
                state: record.state,
                rules,
                updated: None,
                exposed: None,
                networks,
                shim: None,
                place: None,
                leaving: false,
                starting: false,
                being_written: false,
                held_clients: Vec::new(),
                unrecorded: Arc::default(),
                execs: BTreeMap::new(),
                health_watch: None,
                restart_timer: None,
            }),
            endings: watch::Sender::default(),
            sweepers: watch::Sender::default(),
        }
    }

    /// Its identifier.
    pub fn id(&self) -> &ContainerId {
        &self.definition.id
    }

    /// Its name, without a slash.
    pub fn name(&self) -> String {
        self.live().name.clone()
    }

    /// A copy of its state.
    pub fn state(&self) -> State {
        self.live().state.clone()
    }

    /// What changes. Never held over an await point, a lock or a system call.
    pub fn live(&self) -> MutexGuard<'_, Live> {
        lock(&self.live)
    }

    /// What the machine must know of its configuration.
    pub fn rules(&self) -> Rules {
        self.live().rules
    }

    /// How the host runs it, as of now.
    pub fn host_config(&self) -> Cow<'_, HostConfig> {
        match self.live().updated.clone() {
            Some(updated) => Cow::Owned(HostConfig::clone(&updated)),
            None => Cow::Borrowed(&self.definition.host_config),
        }
    }

    /// What runs in it, as of now.
    pub fn config(&self) -> Cow<'_, Config> {
        match self.live().exposed.clone() {
            Some(exposed) => Cow::Owned(Config {
                exposed_ports: Some(ExposedPorts::clone(&exposed)),
                ..self.definition.config.clone()
            }),
            None => Cow::Borrowed(&self.definition.config),
        }
    }

    /// What is known of it, as of now, for its record.
    pub fn definition_now(&self) -> Cow<'_, Definition> {
        let networks = self.live().networks.clone();
        match (self.host_config(), self.config()) {
            (Cow::Borrowed(_), Cow::Borrowed(_)) if networks.as_deref() == self.definition.networks.as_ref() => {
                Cow::Borrowed(&self.definition)
            }
            (host_config, config) => Cow::Owned(Definition {
                host_config: host_config.into_owned(),
                config: config.into_owned(),
                networks: networks.as_deref().cloned(),
                ..self.definition.clone()
            }),
        }
    }

    /// Has it run like this from now on.
    pub fn update(&self, host: HostConfig) {
        let mut live = self.live();
        live.rules = Rules::of(&host);
        live.updated = Some(Arc::new(host));
    }

    /// Has it publish ports like this from its next start on.
    pub fn republish(&self, host: HostConfig, exposed: Option<ExposedPorts>) {
        self.update(host);
        self.live().exposed = Some(Arc::new(exposed.unwrap_or_default()));
    }

    /// Whether it has a terminal.
    pub fn tty(&self) -> bool {
        self.definition.config.tty
    }

    /// Feeds the state machine and wakes waiters; the caller performs the other effects.
    #[must_use]
    pub fn step(&self, input: Input) -> Vec<Effect> {
        let mut live = self.live();
        let (state, mut effects) = std::mem::take(&mut live.state).step(input, live.rules);
        live.state = state;
        // Under the same lock as the state, so that nobody sees an end and waits for it, too.
        if effects.contains(&Effect::WakeWaiters) {
            self.endings.send_modify(|ending| {
                ending.count += 1;
                ending.exit_code = live.state.exit_code;
                ending.error.clone_from(&live.state.error);
            });
            effects.retain(|effect| *effect != Effect::WakeWaiters);
        }
        effects
    }

    /// Wakes whoever waits for its removal, or for an end that cannot come any more.
    ///
    /// Why its last start failed is not told: what they waited for has happened, as with dockerd.
    pub fn tell_removed(&self) {
        let exit_code = self.live().state.exit_code;
        self.endings.send_modify(|ending| {
            ending.exit_code = exit_code;
            ending.error.clear();
            ending.removed = true;
        });
    }

    /// Whether it was removed.
    pub fn is_removed(&self) -> bool {
        self.endings.borrow().removed
    }

    /// Counts somebody who ends what is left in its cgroup.
    pub fn sweep_cgroup(self: &Arc<Self>) -> CgroupSweeper {
        self.sweepers.send_modify(|count| *count += 1);
        CgroupSweeper(self.clone())
    }

    /// Waits until nobody does: whoever made the cgroup anew meanwhile would lose it.
    pub async fn cgroup_swept(&self) {
        // The sender is ours.
        let _ = self.sweepers.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Its ends from now on, and its state now: no end lies between the two.
    pub fn watch(&self) -> (watch::Receiver<Ending>, State) {
        let live = self.live();
        (self.endings.subscribe(), live.state.clone())
    }

    /// Waits for the end of a start in progress: its client may see the first output before we know that it runs, and
    /// whatever it asks then is about a container that runs.
    pub async fn settle_start(&self) {
        let starting = self.live().starting;
        if starting {
            drop(self.operation.lock().await);
        }
    }

    /// The operation lock, for a client's operation: it is not kept waiting for a checkpoint, which may take an hour. For the
    /// end of one whose container has ended it waits: that takes moments, and is what `restart` finds.
    pub async fn operate(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, LookupError> {
        let being_written = {
            let live = self.live();
            live.being_written && live.state.is_running()
        };
        if being_written {
            return Err(LookupError::BeingWritten(self.name()));
        }
        Ok(self.operation.lock().await)
    }

    /// Its shim, if it has one.
    pub fn shim(&self) -> Option<Arc<Shim>> {
        self.live().shim.clone()
    }
}
