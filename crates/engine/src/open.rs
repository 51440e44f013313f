//! Opening an engine: what is on disk, what lives, and what ended while no daemon was there.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use errdefs::ErrorKind;
use oci::ContainerId;
use sha2::{Digest, Sha256};
use shim_api::{Answer, ExitRecord, RunState};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};

use crate::Engine;
use crate::changeable::Current;
use crate::config::EngineConfig;
use crate::container::Container;
use crate::container::record::{ContainerDir, Record};
use crate::container::state::{Effect, Phase};
use crate::engine::Core;
use crate::events::Events;
use crate::farewells::Farewells;
use crate::limits::Limits;
use crate::networking::{Networking, egress, resolver};
use crate::recorder::Recorder;
use crate::registry::Registry;
use crate::shim::{self, CallError, Observation, Shim, SpawnError, Spawner};
use crate::supervise;

/// Why [`Engine::open`] failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory cannot be made or listed.
    #[error("open {}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no storage driver.
    #[error(transparent)]
    Driver(#[from] snapshot::DriverError),
    /// A container runs on files that another driver keeps.
    #[error("container {container} runs on the storage driver {theirs}: stop it before the daemon starts with {ours}")]
    DriverInUse {
        /// Which one.
        container: String,
        /// Its driver.
        theirs: String,
        /// The one that was chosen.
        ours: &'static str,
    },
    /// The image store does not open.
    #[error("open the image store")]
    Images(#[source] image::OpenError),
    /// The volumes cannot be found.
    #[error("open the volumes")]
    Volumes(#[source] volume::OpenError),
    /// What is recorded of networks cannot be read.
    #[error("open the records of networks")]
    Network(#[source] network::NetworkError),
    /// Shims cannot be started.
    #[error(transparent)]
    Shim(#[from] SpawnError),
    /// Containers are to be limited, and cannot be. The text is dockerd's.
    #[error("Storage option overlay2.size not supported. Filesystem does not support Project Quota")]
    NoQuotas(#[source] quota::Unlimited),
    /// The cgroup hierarchies cannot be found.
    #[error("find the cgroup hierarchies")]
    Cgroups(#[source] io::Error),
}

impl OpenError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            OpenError::Images(err) => err.kind(),
            OpenError::Volumes(err) => err.kind(),
            OpenError::Driver(err) => err.kind(),
            OpenError::DriverInUse { .. } => ErrorKind::Conflict,
            _ => ErrorKind::Internal,
        }
    }
}

/// What lies on the disks.
struct Found {
    core: Core,
    records: Vec<Record>,
    /// Containers that have a shim's directory.
    with_shim: BTreeSet<ContainerId>,
    /// What builds of an earlier daemon ran.
    of_builds: Vec<ContainerId>,
    observations: mpsc::UnboundedReceiver<Observation>,
}

impl Engine {
    /// Opens the stores, finds the containers that live, and supervises them from then on.
    ///
    /// Answers when every container's state is right; restarts that policies ask for have begun then.
    pub async fn open(config: EngineConfig) -> Result<Engine, OpenError> {
        // Before the first thread for what blocks begins.
        sys::memory::share_heap();
        let found = bridge::blocking(move || find(config)).await?;
        let Found { core, records, with_shim, of_builds, observations } = found;
        let engine = Engine(Arc::new(core));
        for record in records {
            register(&engine, record);
        }
        for container in engine.containers.all() {
            engine.containers.links().add(&container, |id| engine.containers.get(id));
        }
        crate::volumes::recall(&engine, |id| with_shim.contains(id));
        crate::limits::tell_unkept(&engine);
        tokio::spawn(supervise::run(engine.clone(), observations));
        let (recorder, sweeper) = (engine.clone(), engine.clone());
        tokio::spawn(outlive_panics("recorder", move || {
            let engine = recorder.clone();
            async move { engine.recorder.run().await }
        }));
        tokio::spawn(outlive_panics("sweeper", move || sweeper.clone().sweep()));
        let healer = engine.clone();
        tokio::spawn(outlive_panics("healer", move || {
            let engine = healer.clone();
            async move { engine.networking.heal(&engine).await }
        }));
        egress::appoint_warden(&engine);
        let teller = engine.clone();
        tokio::spawn(outlive_panics("teller of denials", move || {
            let engine = teller.clone();
            async move { egress::tell_denials(&engine).await }
        }));
        let keeper = engine.clone();
        tokio::spawn(outlive_panics("relay keeper", move || {
            let engine = keeper.clone();
            async move { engine.networking.keep_relay(&engine).await }
        }));
        resume_all(&engine, &with_shim).await;
        let networking = engine.clone();
        bridge::blocking(move || {
            let containers = networking.containers.all();
            networking.networking.reconcile(&containers);
            containers.iter().for_each(|container| resolver::announce(&networking, container));
            crate::volumes::settle_mounts(&networking);
            if crate::pulls::something_waits(&networking) {
                crate::pulls::expire_later(&networking);
            }
        })
        .await;
        // All names are known: nobody is told that there is no such container.
        resolver::resume(&engine).await;
        collect(&engine, with_shim).await;
        tokio::spawn(crate::ops::build::remove_left_over(engine.clone(), of_builds));
        Ok(engine)
    }
}

/// Runs a task that never ends, again after each panic in it.
async fn outlive_panics<F>(name: &str, task: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    while let Err(err) = tokio::spawn(task()).await {
        if err.is_cancelled() {
            return;
        }
        error!(task = name, "begun anew after a panic");
    }
}

/// Reads everything. Blocks.
fn find(config: EngineConfig) -> Result<Found, OpenError> {
    let containers = config.data_root.join("containers");
    let shims = config.exec_root.join("containers");
    let seccomp = config.data_root.join("seccomp");
    for dir in [&config.data_root, &config.exec_root, &containers, &shims, &seccomp, &config.data_root.join("trash")] {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| OpenError::Directory { path: dir.clone(), source })?;
    }
    crate::ops::build::discard_secrets(&config);
    crate::ops::build::discard_left_over(&config.data_root, &config.data_root.join("trash"));
    let of_builds = crate::ops::build::left_over(&config.data_root);
    let choice = choose_driver(&config)?;
    let images = image::open_on(&choice.root, choice.driver).map_err(OpenError::Images)?;
    for torn in images.torn() {
        error!(record = %torn, "a record of the image store cannot be read");
    }
    let volumes = volume::Volumes::open(&config.data_root.join("volumes")).map_err(OpenError::Volumes)?;
    let limits = limits(&config, &choice.root.join("snapshots"))?;
    let volumes = volume::limited_by(volumes, limits.volumes.clone());
    let hierarchies = cgroup::Hierarchies::detect().map_err(OpenError::Cgroups)?;
    let (sender, observations) = mpsc::unbounded_channel();
    let records: Vec<Record> = ids_in(&containers)?.iter().filter_map(|id| read(&containers, id)).collect();
    let mut with_shim: BTreeSet<ContainerId> = ids_in(&shims)?.into_iter().collect();
    let records = of_driver(records, choice.driver, &shims, &mut with_shim)?;
    let facts = crate::facts::gather(&config, &hierarchies, limits.containers.is_ok());
    let id = engine_id(&config.data_root);
    let network = config.network.clone().map(|network| network::Config { site: site(&id), ..network });
    let spawner = Arc::new(Spawner::open(&config.shim_path)?);
    let core = Core {
        filters: seccomp::Programs::new(seccomp, (facts.kernel.major, facts.kernel.minor)),
        facts,
        hierarchies,
        id,
        containers: Registry::default(),
        events: Events::default(),
        metrics: Default::default(),
        farewells: Farewells::default(),
        steps: crate::ops::build::StepImages::open(&config.data_root, &images),
        images,
        volumes,
        limits,
        current: Current::new(config.changeable.clone()),
        pulls: crate::pulls::Pulls::default(),
        caches: Default::default(),
        flights: Default::default(),
        seen_sources: Default::default(),
        image_users: tokio::sync::RwLock::default(),
        networking: Networking::open(network, &spawner).map_err(OpenError::Network)?,
        names: Default::default(),
        recorder: Recorder::new(containers, config.exec_root.clone()),
        spawner,
        observations: sender,
        pruning: Default::default(),
        upkeep: Default::default(),
        image_uses: crate::ops::image_budget::Uses::load(&config.data_root),
        swept: Notify::new(),
        idle: Notify::new(),
        departing: watch::Sender::new(0),
        departed: std::sync::atomic::AtomicU32::new(0),
        config,
    };
    Ok(Found { core, records, with_shim, of_builds, observations })
}

/// What puts layers together; the log says why it is not a better one, and of which ones the images are not seen.
fn choose_driver(config: &EngineConfig) -> Result<snapshot::Choice, OpenError> {
    let choice = snapshot::choose(&config.data_root, config.storage_driver.as_deref())?;
    for (driver, reason) in &choice.passed_over {
        let reason = errdefs::chain(reason);
        warn!(%driver, reason, "the storage driver cannot be used here: the next one is tried");
    }
    for driver in &choice.unseen {
        info!(%driver, "images and containers of this storage driver are not seen, and back when it is chosen again");
    }
    info!(driver = %choice.driver, "storage driver");
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&choice.root);
    made.map_err(|source| OpenError::Directory { path: choice.root.clone(), source })?;
    Ok(choice)
}

/// The records of containers that were made with this driver. The others, and what their shims have left, are not looked
/// at, as dockerd does; they cannot be while one runs.
fn of_driver(
    records: Vec<Record>,
    driver: snapshot::Driver,
    shims: &Path,
    with_shim: &mut BTreeSet<ContainerId>,
) -> Result<Vec<Record>, OpenError> {
    let is_ours = |record: &Record| record.definition.storage_driver() == driver.name();
    let (ours, others): (Vec<Record>, Vec<Record>) = records.into_iter().partition(is_ours);
    for other in others {
        let (id, theirs) = (&other.definition.id, other.definition.storage_driver().to_owned());
        if with_shim.remove(id) && shim::connect(&shims.join(id.as_str())).is_ok() {
            return Err(OpenError::DriverInUse { container: other.name, theirs, ours: driver.name() });
        }
        debug!(container = %id, driver = theirs, "not seen: it was made with another storage driver");
    }
    Ok(ours)
}

/// Who limits what; refused where all containers are to be limited and nobody can.
fn limits(config: &EngineConfig, snapshots: &Path) -> Result<Limits, OpenError> {
    let limits = Limits::open(config, snapshots);
    match limits.containers {
        Err(reason) if config.container_size_bytes.is_some() => Err(OpenError::NoQuotas(reason)),
        containers => Ok(Limits { containers, ..limits }),
    }
}

/// The directories whose names are ids.
fn ids_in(dir: &Path) -> Result<Vec<ContainerId>, OpenError> {
    let failed = |source| OpenError::Directory { path: dir.to_owned(), source };
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        ids.extend(entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse().ok()));
    }
    Ok(ids)
}

/// A record; one that cannot be read is reported, and set aside if it is torn.
fn read(containers: &Path, id: &ContainerId) -> Option<Record> {
    let dir = ContainerDir::new(containers, id);
    let err = match dir.read(id) {
        Ok(record) => return Some(record),
        Err(err) => err,
    };
    // One that was never written is told when what was made before it is removed.
    if is_half_made(&dir, id) {
        return None;
    }
    error!(container = %id, err = errdefs::chain(&err), "the container's record cannot be read");
    if matches!(err, crate::container::record::ReadError::Decode { .. }) {
        match dir.set_aside() {
            Ok(aside) => error!(container = %id, aside = %aside.display(), "the torn record was set aside"),
            Err(err) => error!(container = %id, %err, "the torn record cannot be set aside"),
        }
    }
    None
}

/// Whether a container's creation was cut. A directory that cannot be looked into stays as it is, and is reported.
fn is_half_made(dir: &ContainerDir, id: &ContainerId) -> bool {
    dir.is_half_made().unwrap_or_else(|err| {
        warn!(container = %id, %err, "cannot tell whether the container's creation was cut: it is left alone");
        false
    })
}

/// The engine's random id, made when the data root was.
fn engine_id(data_root: &Path) -> String {
    let path = data_root.join("engine-id");
    if let Ok(id) = fs::read_to_string(&path) {
        return id.trim().to_owned();
    }
    // The shape of a UUID, as dockerd's.
    let hex = stdx::id::random_hex::<16>();
    let id = format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..]);
    if let Err(err) = fs::write(&path, format!("{id}\n")) {
        warn!(%err, "the engine's id cannot be kept");
    }
    id
}

/// The bits of this engine's own addresses of IPv6 (RFC 4193): the same as long as it has its id.
fn site(engine_id: &str) -> [u8; 5] {
    let digest: [u8; 32] = Sha256::digest(engine_id).into();
    let [a, b, c, d, e, ..] = digest;
    [a, b, c, d, e]
}

fn register(engine: &Engine, mut record: Record) {
    let id = record.definition.id.clone();
    if let Err(owner) = engine.containers.reserve(&record.name, &id) {
        // Cannot be but by somebody's hand: both stay reachable by id.
        error!(container = %id, name = record.name, %owner, "two containers have one name");
        id.short().clone_into(&mut record.name);
    }
    if record.state.phase == Phase::Removing {
        record.state.phase = Phase::Stopped;
    }
    engine.containers.insert(Arc::new(Container::new(record)));
}

/// Finds out about every container that may live, all at once.
async fn resume_all(engine: &Engine, with_shim: &BTreeSet<ContainerId>) {
    let mut tasks = tokio::task::JoinSet::new();
    for container in engine.containers.all() {
        let engine = engine.clone();
        if with_shim.contains(container.id()) {
            tasks.spawn(async move { resume(&engine, &container).await });
        } else {
            without_shim(&engine, &container, None);
        }
    }
    while let Some(resumed) = tasks.join_next().await {
        if let Err(err) = resumed {
            error!(%err, "a container could not be resumed");
        }
    }
}

/// A container with a shim's directory: the shim lives, or has left word.
async fn resume(engine: &Engine, container: &Arc<Container>) {
    let dir = engine.recorder.shim_dir(container.id());
    match connect(engine, container, &dir).await {
        Ok(()) => info!(container = %container.id(), "the container lived on"),
        Err(err) => {
            info!(container = %container.id(), %err, "no shim answers");
            // The supervisor may have seen the shim's end, too: it decides, and once.
            let (asker, decided) = oneshot::channel();
            let unsupervised = Observation::Unsupervised { container: container.id().clone(), asker };
            if engine.observations.send(unsupervised).is_ok() {
                // An error says that it panicked over this container; the others go on.
                _ = decided.await;
            }
            // Whatever the directory told is in the record from now on.
            engine.recorder.mark(container);
        }
    }
}

async fn connect(engine: &Engine, container: &Arc<Container>, dir: &Path) -> io::Result<()> {
    crate::ops::commit::resume(engine, container);
    let shim = Shim::find(dir, container.id().clone(), engine.observations.clone()).await?;
    container.live().shim = Some(shim.clone());
    let run = match shim.hello().await {
        Ok(run) => run,
        // It lives, and so does its container, but it is stopped or stuck: it has written down how the container is, and
        // tells the rest when it comes to answer.
        Err(CallError::Timeout) => recorded(engine, container, dir).await,
        Err(err) => return Err(io::Error::other(err)),
    };
    match run {
        Some(run) if run.started => {
            crate::ops::pause::recall(engine, container);
            crate::health::recall(engine, container);
            Ok(())
        }
        // Made but never started by the daemon that died: nobody will start it any more.
        _ => {
            shim.kill();
            engine.end_cgroup(container);
            Err(io::Error::other("the container was never started"))
        }
    }
}

/// What a shim that does not answer wrote about its container; the supervisor takes note of it as of an answer.
async fn recorded(engine: &Engine, container: &Arc<Container>, dir: &Path) -> Option<RunState> {
    let run: RunState = serde_json::from_slice(&fs::read(shim_api::paths::state(dir)).ok()?).ok()?;
    warn!(container = %container.id(), "the container's shim lives and does not answer");
    let (asker, noted) = oneshot::channel();
    let hello = Answer::Hello { version: shim_api::VERSION, state: Some(run.clone()), execs: vec![] };
    let observation = Observation::Answered { container: container.id().clone(), outcome: Ok(hello), asker };
    engine.observations.send(observation).ok()?;
    noted.await.ok()?.ok()?;
    Some(run)
}

/// What becomes of a container that has no shim: `exit` is what its last one told, if there was one.
pub(crate) fn without_shim(engine: &Engine, container: &Arc<Container>, exit: Option<ExitRecord>) {
    let state = container.state();
    // The record may be older than the run that the shim tells of.
    let news = exit.filter(|exit| exit.exited_at_nanos != state.finished_at_nanos);
    match (news, state.phase) {
        (Some(exit), _) => {
            let mut live = container.live();
            live.state.phase = Phase::Running { pid: 0 };
            live.state.started_at_nanos = exit.started_at_nanos;
            drop(live);
            supervise::exited(engine, container, &exit);
        }
        // It ran when the machine went down, or lost its shim.
        (None, Phase::Running { .. }) => supervise::lost(engine, container),
        (None, Phase::Restarting) => restart(engine, container),
        (None, Phase::Stopped) if state.pending.is_some() => {
            supervise::perform(engine, container, vec![Effect::SettleCheckpoint]);
        }
        (None, Phase::Stopped) if wants_start(container) => restart(engine, container),
        // Not one that somebody has just made, and is about to start.
        (None, Phase::Stopped)
            if container.rules().auto_remove && (state.started_at_nanos != 0 || !state.error.is_empty()) =>
        {
            supervise::perform(engine, container, vec![Effect::Remove]);
        }
        (None, Phase::Stopped | Phase::Removing) => {}
    }
}

/// Whether a container that does not run is one that its policy starts with the daemon (moby container `ShouldRestart`). One
/// that has ended with its checkpoint is to go on from there.
fn wants_start(container: &Container) -> bool {
    let state = container.state();
    let may = state.started_at_nanos != 0 && state.checkpoint.is_none();
    may && container.rules().policy.restarts_after(&state.run())
}

fn restart(engine: &Engine, container: &Arc<Container>) {
    container.live().state.phase = Phase::Restarting;
    let (engine, container) = (engine.clone(), container.clone());
    tokio::spawn(async move {
        if let Err(err) = crate::ops::start::again(&engine, &container).await {
            error!(container = %container.id(), err = errdefs::chain(&err), "cannot restart the container");
        }
    });
}

/// Sets aside what no record owns: snapshots of containers whose creation or removal a crash cut, and shims' directories.
async fn collect(engine: &Engine, with_shim: BTreeSet<ContainerId>) {
    let task = engine.clone();
    bridge::blocking(move || {
        if let Err(err) = discard_half_made(&task) {
            warn!(err = errdefs::chain(&err), "cannot look for containers whose creation was cut");
        }
        crate::volumes::remove_orphans(&task, |id| exists(&task, id));
        match task.images.snapshots().containers() {
            Ok(keys) => keys.iter().filter(|key| !owned(&task, key.as_str())).for_each(|key| {
                if let Err(err) = task.images.snapshots().remove(key) {
                    warn!(%key, err = errdefs::chain(&err), "a snapshot without a container stays behind");
                }
            }),
            Err(err) => warn!(err = errdefs::chain(&err), "cannot list the snapshots of containers"),
        }
        let mut unknown = BTreeSet::new();
        for id in with_shim.iter().filter(|id| task.containers.get(id).is_none()) {
            let dir = task.recorder.shim_dir(id);
            if shim::connect(&dir).is_ok() {
                error!(container = %id, "a shim lives whose container has no record: it is left alone");
                unknown.insert(id);
                continue;
            }
            // The daemon died in the middle of a removal, perhaps before it had told who waited for that.
            if let Some(exit) = supervise::read_exit(&shim_api::paths::exit(&dir)) {
                task.farewells.keep(id, exit.exit_code);
            }
            if let Err(err) = stdx::fs::remove_if_exists(&dir) {
                warn!(container = %id, %err, "a shim's directory stays behind");
            }
        }
        task.sweep_cgroups(|id| unknown.contains(id) || lives(&task, id));
    })
    .await;
    engine.sweep_soon();
}

/// Takes away the directories of containers whose creation the death of a daemon cut. Blocks.
fn discard_half_made(engine: &Engine) -> Result<(), OpenError> {
    for id in ids_in(&engine.config.data_root.join("containers"))? {
        let dir = engine.recorder.dir(&id);
        if engine.containers.get(&id).is_some() || !is_half_made(&dir, &id) {
            continue;
        }
        warn!(container = %id, "the container's creation was cut: what was made of it is removed");
        if let Err(err) = fs::rename(dir.path(), engine.trash().join(stdx::id::random_hex::<8>())) {
            warn!(container = %id, %err, "the directory of a half-made container stays behind");
        }
    }
    Ok(())
}

/// Whether a container's cgroup is somebody's: one that runs, is about to, or whose shim has not ended yet.
fn lives(engine: &Engine, id: &ContainerId) -> bool {
    engine.containers.get(id).is_some_and(|container| {
        let live = container.live();
        live.state.is_running() || live.shim.is_some()
    })
}

/// A container whose record is torn keeps its files, for whoever repairs it.
fn owned(engine: &Engine, key: &str) -> bool {
    key.parse().map_or(true, |id| exists(engine, &id))
}

/// Likewise.
fn exists(engine: &Engine, id: &ContainerId) -> bool {
    engine.containers.get(id).is_some() || engine.recorder.dir(id).path().exists()
}

#[cfg(test)]
mod tests;
