//! `/containers/{id}/checkpoints`: running containers are written to files, which a start can go on from.
//!
//! ```text
//! <data-root>/containers/<id>/checkpoints/<name>/   or <directory of the request>/<name>/: what CRIU wrote
//!                             checkpoints/.<id>-<name>   one that is being written
//! <data-root>/containers/<id>/criu/                 CRIU's log of the last time
//! ```
//! The shim has it written; a name is there when everything is. A container that ends with its checkpoint is left alone by
//! its policy, as one that a client has stopped: it is to go on from there.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine_api::checkpoint::{CheckpointCreate, CheckpointSummary};
use errdefs::ErrorKind;
use oci::ContainerId;
use shim_api::{Call, CheckpointTask, RestoreTask};

use crate::Engine;
use crate::container::Container;
use crate::container::name;
use crate::container::record::ContainerDir;
use crate::container::state::Phase;
use crate::launch::{self, LaunchError};
use crate::ops::wait::ended_within;
use crate::registry::LookupError;
use crate::runtimes;
use crate::shim::{CallError, Link, Shim};

/// How long a container may take to be written: the memory of a large one on a slow disk.
const WRITTEN_WITHIN: Duration = Duration::from_secs(3600);

/// How long the news of its end may take then.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// The first version of the protocol that knows of checkpoints.
const SINCE_VERSION: u32 = 6;

/// A checkpoint, as requests name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointName {
    /// Its name.
    pub name: String,
    /// The directory in which it lies; empty for the container's own.
    pub dir: String,
}

/// Why a checkpoint was not made, found or removed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It does not run.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// The name cannot be one.
    #[error("Invalid checkpoint ID ({0}), only {ALLOWED} are allowed", ALLOWED = name::ALLOWED)]
    Name(String),
    /// There is one of that name.
    #[error(
        "cannot checkpoint container {container}: checkpoint with name {name} already exists for container {container}"
    )]
    Exists {
        /// Which one.
        name: String,
        /// As the client named it.
        container: String,
    },
    /// There is none of that name.
    #[error("checkpoint {name} does not exist for container {container}")]
    Missing {
        /// Which one.
        name: String,
        /// As the client named it.
        container: String,
    },
    /// There is something else of that name.
    #[error("{} exists and is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// CRIU is not installed. The text is ours: dockerd looks for it much later.
    #[error("checkpoints need CRIU, which is not in the PATH of longshored")]
    NoCriu,
    /// The container's shim is of an older version.
    #[error("Cannot checkpoint container {0}: it was started by an older longshored")]
    OldShim(String),
    /// The specification cannot be made again.
    #[error("Cannot checkpoint container {container}")]
    Plan {
        /// As the client named it.
        container: String,
        /// Why.
        source: Box<LaunchError>,
    },
    /// It could not be written.
    #[error("Cannot checkpoint container {container}")]
    Write {
        /// As the client named it.
        container: String,
        /// Why.
        source: CallError,
    },
    /// A directory cannot be made, read or removed.
    #[error("{action} {}", path.display())]
    Directory {
        /// What was tried.
        action: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CheckpointError {
    /// What a caller can do about it. dockerd marks most of them as nobody's mistake.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CheckpointError::Lookup(err) => err.kind(),
            CheckpointError::NotRunning(_) => ErrorKind::Conflict,
            CheckpointError::NoCriu | CheckpointError::OldShim(_) => ErrorKind::NotImplemented,
            CheckpointError::Write { source: CallError::Refused(failure), .. }
                if failure.kind == ErrorKind::NotImplemented =>
            {
                ErrorKind::NotImplemented
            }
            _ => ErrorKind::Internal,
        }
    }
}

/// Whether this machine has what checkpoints need.
pub fn is_possible() -> bool {
    runtimes::find(Path::new("criu")).is_some()
}

/// Writes a running container to files.
pub async fn create(engine: &Engine, container: &str, request: CheckpointCreate) -> Result<(), CheckpointError> {
    let found = engine.containers.find(container)?;
    let (engine, named) = (engine.clone(), container.to_owned());
    engine.clone().detached(async move { create_in(&engine, &found, &named, request).await }).await
}

/// Lists the checkpoints of a container, or all of a directory; by name.
pub async fn list(engine: &Engine, container: &str, dir: &str) -> Result<Vec<CheckpointSummary>, CheckpointError> {
    let found = engine.containers.find(container)?;
    let (root, own, container) = (root_of(engine, &found, dir), dir.is_empty(), container.to_owned());
    bridge::blocking(move || {
        let entries = match fs::read_dir(&root) {
            Ok(entries) => entries,
            Err(err) if own && err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return Err(CheckpointError::Missing { name: String::new(), container });
            }
            Err(err) if err.kind() == io::ErrorKind::NotADirectory => {
                return Err(CheckpointError::NotADirectory(root));
            }
            Err(source) => return Err(CheckpointError::Directory { action: "read", path: root, source }),
        };
        let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names = directories.filter_map(|entry| entry.file_name().into_string().ok());
        // Those that are being written have names that are none.
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        Ok(names.into_iter().map(|name| CheckpointSummary { name }).collect())
    })
    .await
}

/// Removes a checkpoint.
pub async fn remove(engine: &Engine, container: &str, checkpoint: CheckpointName) -> Result<(), CheckpointError> {
    let found = engine.containers.find(container)?;
    let path = existing(engine, &found, container, &checkpoint)?;
    bridge::blocking(move || {
        fs::remove_dir_all(&path).map_err(|source| CheckpointError::Directory { action: "remove", path, source })
    })
    .await
}

/// What a start needs to go on from a checkpoint.
pub(crate) fn find(
    engine: &Engine,
    container: &Container,
    checkpoint: &CheckpointName,
) -> Result<RestoreTask, CheckpointError> {
    if !is_possible() {
        return Err(CheckpointError::NoCriu);
    }
    let images = existing(engine, container, &format!("/{}", container.name()), checkpoint)?;
    let work = engine.recorder.dir(container.id()).criu();
    let bundle = engine.recorder.shim_dir(container.id()).join("bundle");
    Ok(RestoreTask { images, work, bundle, search_path: search_path() })
}

async fn create_in(
    engine: &Engine,
    container: &Arc<Container>,
    named: &str,
    request: CheckpointCreate,
) -> Result<(), CheckpointError> {
    // Nobody may start, remove or pause it meanwhile. Signals are nobody's to keep away.
    let _operation = container.operation.lock().await;
    let shim = running_shim(container)?;
    if !name::is_valid(&request.checkpoint_id) {
        return Err(CheckpointError::Name(request.checkpoint_id));
    }
    let place = Place::new(&root_of(engine, container, &request.checkpoint_dir), container, &request.checkpoint_id);
    place.check(named, &request.checkpoint_id)?;
    if !is_possible() {
        return Err(CheckpointError::NoCriu);
    }
    if shim.speaks() < SINCE_VERSION {
        return Err(CheckpointError::OldShim(named.to_owned()));
    }
    let spec = {
        let (engine, container) = (engine.clone(), container.clone());
        let planned = bridge::blocking(move || launch::plan_again(&engine, &container)).await;
        planned.map_err(|source| CheckpointError::Plan { container: named.to_owned(), source: Box::new(source) })?
    };
    let task = CheckpointTask {
        spec,
        images: place.begun.clone(),
        work: engine.recorder.dir(container.id()).criu(),
        leave_running: !request.exit,
        search_path: search_path(),
    };
    let (place, name) = (bridge::blocking(move || place.begin()).await?, request.checkpoint_id);
    let (mut ends, _) = container.watch();
    container.live().state.checkpointing = request.exit;
    let written = write(&shim, task).await;
    if let Err(source) = written {
        container.live().state.checkpointing = false;
        bridge::blocking(move || place.abandon()).await;
        return Err(CheckpointError::Write { container: named.to_owned(), source });
    }
    let kept = bridge::blocking(move || place.keep()).await;
    if request.exit {
        // Who starts it next must not be told that it runs.
        ended_within(&mut ends, container, TOLD_WITHIN).await;
        let mut live = container.live();
        live.state.checkpointing = false;
        if kept.is_ok() && !live.state.is_running() {
            live.state.checkpoint = Some(name);
            drop(live);
            engine.recorder.mark(container);
        }
    }
    kept?;
    engine.events.container(container, "checkpoint", []);
    Ok(())
}

fn running_shim(container: &Container) -> Result<Arc<Shim>, CheckpointError> {
    let not_running = || CheckpointError::NotRunning(container.id().clone());
    match container.state().phase {
        Phase::Running { .. } => container.shim().ok_or_else(not_running),
        _ => Err(not_running()),
    }
}

async fn write(shim: &Shim, task: CheckpointTask) -> Result<(), CallError> {
    let mut answers = shim.link.send(vec![(Call::Checkpoint(Box::new(task)), vec![])]).await?;
    let answer = answers.pop().expect("one call gives one answer");
    Link::answer(answer, WRITTEN_WITHIN).await.map(drop)
}

fn search_path() -> String {
    std::env::var("PATH").unwrap_or_default()
}

/// The directory of a container's checkpoints. What a client names is relative to the root, where the daemon is.
fn root_of(engine: &Engine, container: &Container, dir: &str) -> PathBuf {
    match dir {
        "" => engine.recorder.dir(container.id()).checkpoints(),
        dir => Path::new("/").join(dir),
    }
}

fn existing(
    engine: &Engine,
    container: &Container,
    named: &str,
    checkpoint: &CheckpointName,
) -> Result<PathBuf, CheckpointError> {
    let CheckpointName { name, dir } = checkpoint;
    let path = root_of(engine, container, dir).join(name);
    // No other name can be one, above all none that leads elsewhere.
    match fs::metadata(&path).ok().filter(|_| name::is_valid(name)) {
        None => Err(CheckpointError::Missing { name: name.clone(), container: named.to_owned() }),
        Some(found) if found.is_dir() => Ok(path),
        Some(_) => Err(CheckpointError::NotADirectory(path)),
    }
}

/// Where a checkpoint will be, and where it is written.
struct Place {
    path: PathBuf,
    begun: PathBuf,
}

impl Place {
    fn new(root: &Path, container: &Container, name: &str) -> Place {
        Place { path: root.join(name), begun: root.join(format!(".{}-{name}", container.id())) }
    }

    fn check(&self, container: &str, name: &str) -> Result<(), CheckpointError> {
        match fs::metadata(&self.path) {
            Ok(found) if found.is_dir() => {
                Err(CheckpointError::Exists { name: name.to_owned(), container: container.to_owned() })
            }
            Ok(_) => Err(CheckpointError::NotADirectory(self.path.clone())),
            Err(_) => Ok(()),
        }
    }

    fn begin(self) -> Result<Place, CheckpointError> {
        let path = self.begun.clone();
        let failed = |action| move |source| CheckpointError::Directory { action, path, source };
        // One that a daemon before us has left unfinished.
        stdx::fs::remove_if_exists(&self.begun).map_err(failed.clone()("remove"))?;
        DirBuilder::new().mode(0o700).recursive(true).create(&self.begun).map_err(failed("create"))?;
        Ok(self)
    }

    /// Gives it its name, once it is on the disk.
    fn keep(self) -> Result<(), CheckpointError> {
        let synced = fs::File::open(&self.begun).and_then(|directory| Ok(rustix::fs::syncfs(directory)?));
        let kept = synced.and_then(|()| fs::rename(&self.begun, &self.path));
        kept.map_err(|source| CheckpointError::Directory { action: "keep", path: self.path, source })
    }

    fn abandon(self) {
        if let Err(err) = fs::remove_dir_all(&self.begun) {
            tracing::warn!(path = %self.begun.display(), %err, "cannot remove an unfinished checkpoint");
        }
    }
}

impl ContainerDir {
    /// The container's checkpoints.
    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.path().join("checkpoints")
    }

    /// Where CRIU writes its logs.
    pub(crate) fn criu(&self) -> PathBuf {
        self.path().join("criu")
    }
}
