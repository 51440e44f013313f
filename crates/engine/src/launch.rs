//! From a record to a running container: what a client's start and a policy's start have in common.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use container_spec::{InvalidRequest, Placement, Point, SeccompChoice};
use engine_api::container::Config;
use engine_api::host_config::HostConfig;
use errdefs::ErrorKind;
use oci::runtime::{Mount, Spec};
use shim_api::{Answer, Call, CreateTask, Failure, Reason, RestoreTask};
use snapshot::Syncs;
use tracing::warn;

use crate::Engine;
use crate::blame;
use crate::cdi::{self, CdiError};
use crate::container::Container;
use crate::container::state::{Cause, Input};
use crate::devices::{self, DeviceError};
use crate::links;
use crate::log_target;
use crate::networking::{self, ConnectError};
use crate::ops::networks;
use crate::own_files;
use crate::propagation::{self, PropagationError};
use crate::runtimes::{self, RuntimeError};
use crate::sharing::{self, Borrowed, ShareError};
use crate::shim::{CallError, Link, Shim, SpawnError};
use crate::supervise;
use crate::volumes::{self, LocateError};

/// How long the shim of the last run may take to end before a start gives up: it removes cgroups, which takes a
/// millisecond, and flushes streams, which its slow clients may draw out.
pub(crate) const LAST_SHIM_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the making of a container may take, before its shim is started and after. Longer than any healthy disk needs, so that a start on a dead FUSE
/// mount ends with an error.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// How long that may take of a container whose memory is read from files: as long as the writing of them.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Docker's codes for a program that was found but cannot be executed, and for one that was not found.
const PROGRAM_CODES: [i32; 2] = [126, 127];
/// The second of them.
const PROGRAM_MISSING: i32 = 127;
/// Docker's code for every other reason.
const EXIT_CODE_OTHER: i32 = 128;

/// Why a container could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The runtime says so. The words before its own are dockerd's.
    #[error(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: \
         runc create failed: unable to start container process: error during container init: {0}"
    )]
    Runtime(Failure),
    /// Its user or a group of it is not in the container's files, or its working directory is one of them.
    #[error(transparent)]
    Engine(Failure),
    /// Its log cannot be opened.
    #[error("failed to create task for container: failed to initialize logging driver: {0}")]
    Log(Failure),
    /// Its shim was started, but cannot be spoken with.
    #[error("failed to create task for container")]
    Call(#[source] CallError),
    /// Its shim speaks another version.
    #[error("failed to create task for container: the shim speaks version {0} of the protocol")]
    Version(u32),
    /// Its shim said something else than what it was asked for.
    #[error("failed to create task for container: the shim gave an answer to another question")]
    Answer,
    /// The shim of its last run does not end.
    #[error("failed to create task for container: its last run has not ended completely")]
    StillEnding,
    /// What the shim of its last run left cannot be removed.
    #[error("failed to create task for container: remove the files of its last run")]
    Leftovers(#[source] std::io::Error),
    /// Its shim cannot be started.
    #[error("failed to create task for container")]
    Spawn(#[source] SpawnError),
    /// The shim's connection cannot be watched.
    #[error("failed to create task for container: watch the shim")]
    Adopt(#[source] std::io::Error),
    /// The record of its last run cannot be written.
    #[error("write the record of the container's last run")]
    Record(#[source] std::io::Error),
    /// Its record asks for what cannot be.
    #[error(transparent)]
    Plan(InvalidRequest),
    /// A filesystem of the host does not answer.
    #[error("failed to create task for container: a filesystem that it uses does not answer")]
    Stuck,
    /// Its snapshot cannot be mounted.
    #[error("find the container's layers")]
    Snapshot(#[source] snapshot::SnapshotError),
    /// A volume of it cannot be mounted.
    #[error(transparent)]
    Volume(LocateError),
    /// A directory of the host that it binds cannot be made.
    #[error("error while creating mount source path '{}'", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A bind of it cannot pass mounts on.
    #[error(transparent)]
    Propagation(PropagationError),
    /// It does not get a device of the host.
    #[error(transparent)]
    Device(DeviceError),
    /// A device that was asked for by name.
    #[error(transparent)]
    Cdi(CdiError),
    /// It does not get into another container's namespace.
    #[error(transparent)]
    Share(ShareError),
    /// It cannot be connected.
    #[error(transparent)]
    Network(ConnectError),
    /// Another runtime than ours says so, in its own words. The words before them are dockerd's.
    #[error("failed to create task for container: failed to create shim task: OCI runtime create failed: {0}")]
    Foreign(Failure),
    /// It cannot go on from its checkpoint. The words before the runtime's are dockerd's.
    #[error("failed to create task for container: failed to create shim task: OCI runtime restore failed: {0}")]
    Restore(Failure),
    /// Its runtime cannot run it.
    #[error("failed to create task for container")]
    Runtimes(#[source] RuntimeError),
    /// Its system-call filter cannot be made.
    #[error(transparent)]
    Filter(seccomp::CacheError),
}

impl LaunchError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LaunchError::Runtime(failure) | LaunchError::Foreign(failure)
                if PROGRAM_CODES.contains(&failure.exit_code) =>
            {
                ErrorKind::InvalidArgument
            }
            LaunchError::Runtimes(err) => err.kind(),
            LaunchError::Volume(err) => err.kind(),
            LaunchError::Network(err) => err.kind(),
            LaunchError::Share(err) => err.kind(),
            LaunchError::Cdi(err) => err.kind(),
            _ => ErrorKind::Internal,
        }
    }

    /// The exit code that the container shows.
    pub fn exit_code(&self) -> i32 {
        match self {
            LaunchError::Runtime(failure) | LaunchError::Foreign(failure) => failure.exit_code,
            _ => EXIT_CODE_OTHER,
        }
    }

    /// What was at fault, as far as it can be told apart.
    fn cause(&self) -> Cause {
        match self {
            LaunchError::Runtime(failure) if failure.exit_code == PROGRAM_MISSING => Cause::ProgramMissing,
            LaunchError::Runtime(failure) if PROGRAM_CODES.contains(&failure.exit_code) => Cause::ProgramRefused,
            LaunchError::Runtime(_) => Cause::Runtime,
            LaunchError::Engine(failure) if failure.reason == Reason::WorkingDir => Cause::WorkingDir,
            LaunchError::Engine(_) => Cause::User,
            LaunchError::Network(err) if blame::port(err).is_some() => Cause::Port,
            LaunchError::Network(_) => Cause::Network,
            LaunchError::Volume(_) | LaunchError::Directory { .. } | LaunchError::Propagation(_) => Cause::Mount,
            LaunchError::Filter(_) => Cause::Filter,
            _ => Cause::Engine,
        }
    }

    fn of_call(err: CallError) -> LaunchError {
        match err {
            CallError::Refused(failure) => match failure.reason {
                Reason::User | Reason::WorkingDir => LaunchError::Engine(failure),
                Reason::Log => LaunchError::Log(failure),
                Reason::Runtime => LaunchError::Runtime(in_dockerds_words(failure)),
                Reason::Foreign => LaunchError::Foreign(failure),
                Reason::Restore => LaunchError::Restore(failure),
            },
            err => LaunchError::Call(err),
        }
    }
}

/// Where dockerd thinks of a mount.
const NOT_A_DIRECTORY: &str = ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified \
                               host path exists and is the expected type";

/// What dockerd adds to the runtime's words: clients take a directory for a program that may not be executed by the last two
/// (moby daemon/errors.go, setExitCodeFromError).
pub(crate) fn in_dockerds_words(mut failure: Failure) -> Failure {
    if failure.message.ends_with("is a directory") {
        failure.message.push_str(": permission denied");
    }
    if failure.message.ends_with(": not a directory") {
        failure.message.push_str(NOT_A_DIRECTORY);
        failure.exit_code = 127;
    }
    failure
}

/// Starts a container that does not run. The caller holds its operation lock, and has fed the machine if a client asked.
pub(crate) async fn launch(
    engine: &Engine,
    container: &Arc<Container>,
    from: Option<RestoreTask>,
) -> Result<(), LaunchError> {
    let _starting = Starting::begin(container);
    container.cgroup_swept().await;
    let launched = match prepare(engine, container).await {
        Ok(mut prepared) => {
            prepared.task.restore = from;
            volumes::tell_mounts(engine, container);
            networks::tell(engine, container, "connect");
            let started = start_shim(engine, container, prepared).await;
            if started.is_err() {
                networks::tell(engine, container, "disconnect");
            }
            started
        }
        Err(err) => Err(err),
    };
    if let Err(err) = &launched {
        networking::withdraw(engine, container).await;
        // Whoever attached learns by the end of the stream.
        container.live().held_clients.clear();
        let facts = blame::facts(engine, err).await;
        {
            let mut live = container.live();
            (live.state.cause, live.state.cause_facts) = (Some(err.cause()), facts);
        }
        let input = Input::StartFailed { exit_code: err.exit_code(), error: errdefs::chain(err) };
        supervise::feed(engine, container, input);
        volumes::tell_unmounts(engine, container);
    }
    launched
}

/// A start in progress, for whoever looks at the container meanwhile.
struct Starting<'a>(&'a Container);

impl Starting<'_> {
    fn begin(container: &Container) -> Starting<'_> {
        container.live().starting = true;
        Starting(container)
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.live().starting = false;
    }
}

/// What a shim is started for.
struct Prepared {
    task: CreateTask,
    /// The network namespace that the container is born into, if there is one, and what the shim keeps for it.
    descriptors: Vec<OwnedFd>,
}

/// Everything before the shim: waits for the end of the last run, plans this one, and connects the container.
async fn prepare(engine: &Engine, container: &Arc<Container>) -> Result<Prepared, LaunchError> {
    if let Some(last) = container.shim()
        && !last.wait_gone(LAST_SHIM_TIMEOUT).await
    {
        return Err(LaunchError::StillEnding);
    }
    // Nor does anybody look at the files of that run any more.
    drop(container.views.write().await);
    // The shim's directory is about to be used again: what the last run left there has to be on the disk first.
    if engine.recorder.shim_dir(container.id()).exists() {
        engine.recorder.write_now(container).await.map_err(LaunchError::Record)?;
    }
    engine.networking.settled().await;
    let (engine, container) = (engine.clone(), container.clone());
    // One crossing for a handful of small files: the container's layers, and its compiled filter. What it binds may lie on
    // a dead filesystem.
    let planned = bridge::blocking(move || {
        let joined = networking::join(&engine, &container).map_err(LaunchError::Network)?;
        let borrowed = sharing::join(&engine, &container.definition.host_config).map_err(LaunchError::Share)?;
        let task = plan(&engine, &container, joined.donor.as_deref(), true)?;
        Ok((task, joined, borrowed))
    });
    let (mut task, joined, borrowed) =
        tokio::time::timeout(START_TIMEOUT, planned).await.unwrap_or(Err(LaunchError::Stuck))?;
    let (namespace, holds, lends) = joined.keep();
    task.lends = lends.len() as u32;
    task.joins_network = namespace.is_some();
    let Borrowed { namespaces, memory } = borrowed;
    task.shares_memory = memory.is_some();
    let (joins, namespaces): (_, Vec<OwnedFd>) = namespaces.into_iter().unzip();
    task.joins = joins;
    let descriptors = namespace.into_iter().chain(namespaces).chain(memory).chain(holds).chain(lends).collect();
    Ok(Prepared { task, descriptors })
}

/// What a container that runs was made of, as far as that can be said again. Changes nothing. Blocks.
pub(crate) fn plan_again(engine: &Engine, container: &Container) -> Result<Spec, LaunchError> {
    Ok(plan(engine, container, None, false)?.spec)
}

/// How the container's root is mounted. What a command of a build writes is synced with the build.
fn root_mounts(engine: &Engine, container: &Container) -> Result<Vec<Mount>, snapshot::SnapshotError> {
    let key = crate::ops::create::snapshot_key(container.id());
    let syncs = if crate::ops::build::runs_in(engine, container.id()) { Syncs::LeftOut } else { Syncs::Made };
    snapshot::mounts_now(engine.images.snapshots(), &key, syncs)
}

/// `donor` is the container whose network this one shares, and with it the files that go with a network. For a start, what
/// `-v` names is made.
fn plan(
    engine: &Engine,
    container: &Container,
    donor: Option<&Container>,
    for_start: bool,
) -> Result<CreateTask, LaunchError> {
    let (definition, dir) = (&container.definition, engine.recorder.dir(container.id()));
    let host = &*container.host_config();
    let root_mounts = root_mounts(engine, container).map_err(LaunchError::Snapshot)?;
    let seccomp_program = filter(engine, container)?;
    let files = donor.map_or_else(|| dir.clone(), |donor| engine.recorder.dir(donor.id()));
    let (hostname, hosts, resolv_conf) = (files.hostname(), files.hosts(), files.resolv_conf());
    let mut points = volumes::located(engine, container).map_err(LaunchError::Volume)?;
    if for_start {
        make_bind_sources(&points)?;
    }
    propagation::settle(&mut points).map_err(LaunchError::Propagation)?;
    own_files::refuse_directories(&points, host).map_err(LaunchError::Runtime)?;
    let devices = devices::gather(host, &engine.facts).map_err(LaunchError::Device)?;
    let placement = Placement {
        id: container.id(),
        root_mounts: &root_mounts,
        points: &points,
        hostname_path: &hostname,
        hosts_path: &hosts,
        resolv_conf_path: &resolv_conf,
        init_path: Some(&engine.config.init_path).filter(|path| path.exists()).map(PathBuf::as_path),
        cgroup_parent: &engine.cgroup_parent_of(container),
        seccomp_program: seccomp_program.as_deref(),
        devices: &devices,
        flat_read_only: definition.flat_read_only,
    };
    let linked = links::config(engine, container).map_err(|err| LaunchError::Network(err.into()))?;
    let config = linked.as_ref();
    let config = match donor.map(|donor| &donor.definition.config) {
        Some(theirs) => {
            &Config { hostname: theirs.hostname.clone(), domainname: theirs.domainname.clone(), ..config.clone() }
        }
        None => config,
    };
    let mut planned = container_spec::plan(config, host, &engine.facts, &placement).map_err(LaunchError::Plan)?;
    let unrecorded = container.live().unrecorded.clone();
    planned.spec.mounts.extend(unrecorded.mounts.iter().cloned());
    planned.spec.process.env.extend(unrecorded.env.iter().cloned());
    cdi::inject(&engine.config.cdi_spec_dirs, host, &mut planned.spec).map_err(LaunchError::Cdi)?;
    let runtime = runtimes::of(engine, container).map_err(LaunchError::Runtimes)?;
    if runtime.is_some() {
        planned.spec.linux.seccomp = runtimes::filter(engine, host).map_err(LaunchError::Runtimes)?;
    }
    let mut task = CreateTask {
        spec: planned.spec,
        // Empty for root: the shim looks root's groups up, too.
        user: Some(planned.user.unwrap_or_default()),
        groups: planned.groups,
        open_stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        log: None,
        log_server: None,
        spool_dir: dir.spool().to_owned(),
        joins_network: false,
        joins: Vec::new(),
        shares_memory: false,
        runtime,
        lends: 0,
        restore: None,
    };
    log_target::add(engine, container, &mut task).map_err(LaunchError::Plan)?;
    Ok(task)
}

/// What `-v` names on the host and is not there becomes a directory, as with dockerd.
fn make_bind_sources(points: &[Point]) -> Result<(), LaunchError> {
    let binds = container_spec::bind_sources(points);
    for path in binds.into_iter().filter(|bind| bind.create).map(|bind| bind.path) {
        if std::fs::symlink_metadata(&path).is_err() {
            std::fs::create_dir_all(&path).map_err(|source| LaunchError::Directory { path, source })?;
        }
    }
    Ok(())
}

/// Makes what most containers need at their start before the first of them asks for it. Blocks.
pub(crate) fn warm(engine: &Engine) -> Result<(), LaunchError> {
    let capabilities = container_spec::capabilities(&HostConfig::default(), &engine.facts);
    let capabilities = capabilities.map_err(LaunchError::Plan)?.bounding;
    engine.filters.of_default(&capabilities).map(drop).map_err(LaunchError::Filter)
}

fn filter(engine: &Engine, container: &Container) -> Result<Option<PathBuf>, LaunchError> {
    let host = &container.definition.host_config;
    let choice = container_spec::seccomp_choice(host, &engine.facts).map_err(LaunchError::Plan)?;
    if choice == SeccompChoice::Unconfined {
        return Ok(None);
    }
    let capabilities = container_spec::capabilities(host, &engine.facts).map_err(LaunchError::Plan)?.bounding;
    let named = |name: &str| host.security_opt.iter().flatten().any(|option| option.starts_with(name));
    let chosen = engine.config.seccomp.as_ref().filter(|_| !named("seccomp=") && !named("seccomp:"));
    match (choice, chosen) {
        (SeccompChoice::Profile(text), _) => engine.filters.of_profile(text, &capabilities),
        (_, Some(chosen)) if chosen.profile == "unconfined" => Ok(None),
        (_, Some(chosen)) => engine.filters.of_profile(&chosen.profile, &capabilities),
        _ => engine.filters.of_default(&capabilities).map(Some),
    }
    .map_err(LaunchError::Filter)
}

async fn start_shim(engine: &Engine, container: &Arc<Container>, prepared: Prepared) -> Result<(), LaunchError> {
    let shim = new_shim(engine, container).await?;
    let started = speak(container, &shim, prepared).await;
    if started.is_err() {
        // A shim without a container ends by itself; one that does not answer is ended.
        if !shim.wait_gone(LAST_SHIM_TIMEOUT).await {
            shim.kill();
            engine.end_cgroup(container);
        }
    }
    started
}

/// Starts the shim, in a directory of its own.
async fn new_shim(engine: &Engine, container: &Arc<Container>) -> Result<Arc<Shim>, LaunchError> {
    let id = container.id();
    let dir = engine.recorder.shim_dir(id);
    // A writer of the record that still sees the last run as over would take the new shim's directory away.
    let _recording = container.recording.lock().await;
    // The last run is in the record (`prepare`). Its exit must not be taken for this one's.
    stdx::fs::remove_if_exists(&dir).map_err(LaunchError::Leftovers)?;
    let (socket, process) = engine.spawner.spawn(&dir, id).map_err(LaunchError::Spawn)?;
    let adopted = Shim::adopt(socket, process, id.clone(), engine.observations.clone());
    let shim = adopted.map_err(LaunchError::Adopt)?;
    container.live().shim = Some(shim.clone());
    Ok(shim)
}

async fn speak(container: &Container, shim: &Shim, prepared: Prepared) -> Result<(), LaunchError> {
    let held = std::mem::take(&mut container.live().held_clients);
    let clients = held.len();
    let within = if prepared.task.restore.is_some() { RESTORE_TIMEOUT } else { START_TIMEOUT };
    let mut calls: Vec<(Call, Vec<OwnedFd>)> = vec![
        (Call::Hello { version: shim_api::VERSION }, vec![]),
        (Call::Create(Box::new(prepared.task)), prepared.descriptors),
    ];
    calls.extend(held.into_iter().map(|client| (Call::Attach(client.attach), vec![client.stream])));
    calls.push((Call::Start, vec![]));
    let mut answers = shim.link.send(calls).await.map_err(LaunchError::of_call)?.into_iter();
    let mut next = async || {
        let answer = answers.next().expect("every call has its answer");
        Link::answer(answer, within).await.map_err(LaunchError::of_call)
    };
    match next().await? {
        Answer::Hello { version, .. } if version <= shim_api::VERSION => shim.greeted(version),
        Answer::Hello { version, .. } => return Err(LaunchError::Version(version)),
        _ => return Err(LaunchError::Answer),
    }
    next().await?;
    for _ in 0..clients {
        // One that is gone already does not stop the start.
        if let Err(err) = next().await {
            warn!(container = %container.id(), err = errdefs::chain(&err), "cannot attach a client");
        }
    }
    match next().await? {
        Answer::Started(_) => Ok(()),
        _ => Err(LaunchError::Answer),
    }
}
