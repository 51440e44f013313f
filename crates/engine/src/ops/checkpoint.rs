//! `/containers/{id}/checkpoints`: running containers are written to files, which a start can go on from.
//!
//! ```text
//! <data-root>/containers/<id>/checkpoints/<name>/   or <directory of the request>/<name>/: what CRIU wrote
//!                             checkpoints/.<id>-<random>/   one that is being written
//! <data-root>/containers/<id>/criu/                 CRIU's log of the last time
//! ```
//! The shim has it written, and gives it its name when everything is on the disk, whether or not a daemon is there. What is
//! being written is in the container's record ([`Pending`]): at the container's end the name tells whether it ended with
//! its checkpoint. Then its policy leaves it alone, as one that a client has stopped: it is to go on from there.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine_api::checkpoint::{CheckpointCreate, CheckpointSummary};
use errdefs::ErrorKind;
use oci::ContainerId;
use oci::runtime::Spec;
use shim_api::{Call, CheckpointTask, RestoreTask};
use tokio::sync::watch;

use crate::Engine;
use crate::container::name;
use crate::container::record::ContainerDir;
use crate::container::state::{Input, Pending, Phase, Written};
use crate::container::{Container, Ending};
use crate::launch::{self, LaunchError};
use crate::ops::wait::ended_within;
use crate::registry::LookupError;
use crate::runtimes;
use crate::shim::{CallError, Link, Shim};
use crate::supervise;

/// How long a container may take to be written: the memory of a large one on a slow disk.
const WRITTEN_WITHIN: Duration = Duration::from_secs(3600);

/// How long the news of its end may take then.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// The first version of the protocol whose shims name what they have written.
const SINCE_VERSION: u32 = 7;

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
    /// It would be removed, and its checkpoint with it. The text is ours: dockerd makes it, and removes both.
    #[error(
        "container {0} is removed when it ends, and its checkpoint with it: leave it running, or name a directory for \
         the checkpoint"
    )]
    AutoRemove(String),
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
    /// It was written and has no name.
    #[error("Cannot checkpoint container {container}: it has ended, and what was written is left in {}", path.display())]
    Left {
        /// As the client named it.
        container: String,
        /// Where it is.
        path: PathBuf,
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
            CheckpointError::NotRunning(_) | CheckpointError::AutoRemove(_) => ErrorKind::Conflict,
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
        let directories = entries.flatten().filter(|entry| is_checkpoint(&entry.path()));
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
    let (engine, container) = (engine.clone(), container.to_owned());
    bridge::blocking(move || {
        let path = existing(&engine, &found, &container, &checkpoint)?;
        fs::remove_dir_all(&path).map_err(|source| CheckpointError::Directory { action: "remove", path, source })
    })
    .await
}

/// What a start needs to go on from a checkpoint.
pub(crate) async fn find(
    engine: &Engine,
    container: &Arc<Container>,
    checkpoint: CheckpointName,
) -> Result<RestoreTask, CheckpointError> {
    let (engine, container) = (engine.clone(), container.clone());
    bridge::blocking(move || {
        if !is_possible() {
            return Err(CheckpointError::NoCriu);
        }
        let images = existing(&engine, &container, &format!("/{}", container.name()), &checkpoint)?;
        let work = engine.recorder.dir(container.id()).criu();
        let bundle = engine.recorder.shim_dir(container.id()).join("bundle");
        Ok(RestoreTask { images, work, bundle, search_path: search_path() })
    })
    .await
}

async fn create_in(
    engine: &Engine,
    container: &Arc<Container>,
    named: &str,
    request: CheckpointCreate,
) -> Result<(), CheckpointError> {
    // Nobody may start, remove or pause it meanwhile. Signals are nobody's to keep away.
    let _operation = container.operate().await?;
    let _being_written = BeingWritten::begin(container);
    let shim = running_shim(container)?;
    if shim.speaks() < SINCE_VERSION {
        return Err(CheckpointError::OldShim(named.to_owned()));
    }
    if !name::is_valid(&request.checkpoint_id) {
        return Err(CheckpointError::Name(request.checkpoint_id));
    }
    if request.exit && request.checkpoint_dir.is_empty() && container.rules().auto_remove {
        return Err(CheckpointError::AutoRemove(named.to_owned()));
    }
    let (pending, spec) = {
        let (engine, container, named) = (engine.clone(), container.clone(), named.to_owned());
        bridge::blocking(move || begin(&engine, &container, named, request)).await?
    };
    let task = CheckpointTask {
        spec,
        images: pending.begun.clone(),
        named: pending.path.clone(),
        work: engine.recorder.dir(container.id()).criu(),
        leave_running: !pending.exit,
        search_path: search_path(),
    };
    let (mut ends, _) = container.watch();
    let before = container.live().state.pending.replace(pending.clone());
    // Whoever finds the container ended, and no daemon that waits for it, has to know why.
    if let Err(source) = engine.recorder.write_now(container).await {
        container.live().state.pending = before;
        let path = pending.path.clone();
        bridge::blocking(move || pending.discard()).await;
        return Err(CheckpointError::Directory { action: "record", path, source });
    }
    let written = write(&shim, task).await;
    if !matches!(written, Err(CallError::Refused(_)) | Ok(())) {
        // Whether it is being written nobody can say: the files stay until the container's end tells.
        return written.map_err(|source| CheckpointError::Write { container: named.to_owned(), source });
    }
    if is_busy(&written) {
        // An earlier daemon, or a client that we have given up, had it begun; or it has ended: then who settles its end waits
        // for us.
        {
            let mut live = container.live();
            if before.is_some() || live.state.is_running() {
                live.state.pending = before;
            }
        }
        engine.recorder.mark(container);
        bridge::blocking(move || pending.discard()).await;
        return written.map_err(|source| CheckpointError::Write { container: named.to_owned(), source });
    }
    if let Some(before) = before {
        // The shim writes one at a time: of this one nobody writes any more.
        bridge::blocking(move || before.discard()).await;
    }
    conclude(engine, container, &pending, written, &mut ends).await.map_err(|(left, source)| match left {
        None => CheckpointError::Write { container: named.to_owned(), source },
        Some(path) => CheckpointError::Left { container: named.to_owned(), path, source },
    })?;
    engine.events.container(container, "checkpoint", []);
    Ok(())
}

/// Who comes meanwhile is refused.
struct BeingWritten<'a>(&'a Container);

impl BeingWritten<'_> {
    fn begin(container: &Container) -> BeingWritten<'_> {
        container.live().being_written = true;
        BeingWritten(container)
    }
}

impl Drop for BeingWritten<'_> {
    fn drop(&mut self) {
        self.0.live().being_written = false;
    }
}

/// The place of a new checkpoint, and what the container was made of. Blocks.
fn begin(
    engine: &Engine,
    container: &Container,
    named: String,
    request: CheckpointCreate,
) -> Result<(Box<Pending>, Spec), CheckpointError> {
    let CheckpointCreate { checkpoint_id: name, checkpoint_dir: dir, exit } = request;
    let root = root_of(engine, container, &dir);
    let path = root.join(&name);
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => return Err(CheckpointError::Exists { name, container: named }),
        Ok(_) => return Err(CheckpointError::NotADirectory(path)),
        Err(_) => {}
    }
    if !is_possible() {
        return Err(CheckpointError::NoCriu);
    }
    let planned = launch::plan_again(engine, container);
    let spec = planned.map_err(|source| CheckpointError::Plan { container: named, source: Box::new(source) })?;
    let begun = root.join(format!(".{}-{}", container.id(), stdx::id::random_hex::<4>()));
    let pending = Box::new(Pending { name, path, begun, exit });
    pending.make(&root)?;
    Ok((pending, spec))
}

/// Whether another one is being written.
fn is_busy(written: &Result<(), CallError>) -> bool {
    matches!(written, Err(CallError::Refused(failure)) if failure.kind == ErrorKind::Conflict)
}

/// The end of a checkpoint of which the shim has told: nobody writes any more. With an error comes what is left of it.
async fn conclude(
    engine: &Engine,
    container: &Arc<Container>,
    pending: &Pending,
    written: Result<(), CallError>,
    ends: &mut watch::Receiver<Ending>,
) -> Result<(), (Option<PathBuf>, CallError)> {
    let begun = pending.begun.clone();
    let ends_with_it = pending.exit && (written.is_ok() || bridge::blocking(move || is_checkpoint(&begun)).await);
    if ends_with_it {
        // Who starts it next must not be told that it runs.
        ended_within(ends, container, TOLD_WITHIN).await;
    }
    if written.is_ok() && pending.exit && container.state().is_running() {
        // The news of its end is late, and settles it when it comes.
        return Ok(());
    }
    let left = match settle(engine, container).await {
        Some(Written::Left) => Some(pending.begun.clone()),
        _ => None,
    };
    written.map_err(|source| (left, source))
}

/// Finds out what became of a checkpoint, once the container has ended and nobody operates on it.
pub(crate) fn settle_soon(engine: &Engine, container: &Arc<Container>) {
    let (engine, container) = (engine.clone(), container.clone());
    tokio::spawn(async move {
        let _operation = container.operation.lock().await;
        settle(&engine, &container).await;
    });
}

/// The same for who holds the operation lock, and knows that nobody writes any more.
async fn settle(engine: &Engine, container: &Arc<Container>) -> Option<Written> {
    let (pending, runs) = {
        let live = container.live();
        (live.state.pending.clone()?, live.state.is_running())
    };
    let written = bridge::blocking(move || pending.finish(runs)).await;
    supervise::feed(engine, container, Input::CheckpointSettled(written));
    Some(written)
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

/// Blocks.
fn existing(
    engine: &Engine,
    container: &Container,
    named: &str,
    checkpoint: &CheckpointName,
) -> Result<PathBuf, CheckpointError> {
    let CheckpointName { name, dir } = checkpoint;
    let missing = || CheckpointError::Missing { name: name.clone(), container: named.to_owned() };
    // No other name can be one, above all none that leads elsewhere.
    if !name::is_valid(name) {
        return Err(missing());
    }
    let path = root_of(engine, container, dir).join(name);
    match fs::metadata(&path) {
        Ok(found) if !found.is_dir() => Err(CheckpointError::NotADirectory(path)),
        // The client says where to look: any directory of the host's could be meant.
        Ok(_) if is_checkpoint(&path) => Ok(path),
        _ => Err(missing()),
    }
}

/// What CRIU writes last, before it ends what it has written. Without it a directory is no checkpoint, and nothing of ours.
const INVENTORY: &str = "inventory.img";

/// Whether that is a directory that CRIU has written, as a whole.
fn is_checkpoint(path: &Path) -> bool {
    path.join(INVENTORY).is_file()
}

impl Pending {
    /// Makes the directory in which it is written. The place may be one in which others make things, too: what is there is not
    /// taken.
    fn make(&self, root: &Path) -> Result<(), CheckpointError> {
        let failed = |source| CheckpointError::Directory { action: "create", path: self.begun.clone(), source };
        stdx::fs::create_private_dir(root).map_err(failed)?;
        DirBuilder::new().mode(0o700).create(&self.begun).map_err(failed)
    }

    /// What became of it, now that nobody writes any more. The files are removed if there is nothing in them that is lost with
    /// them: the container runs, or has ended by itself.
    fn finish(&self, runs: bool) -> Written {
        if is_checkpoint(&self.path) {
            return Written::Named;
        }
        if !runs && self.exit && is_checkpoint(&self.begun) {
            tracing::error!(path = %self.begun.display(), name = self.name, "a checkpoint could not be given its name");
            return Written::Left;
        }
        self.discard();
        Written::Nothing
    }

    fn discard(&self) {
        if let Err(err) = stdx::fs::remove_if_exists(&self.begun) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(root: &Path, exit: bool) -> Pending {
        Pending { name: "one".into(), path: root.join("one"), begun: root.join(".begun"), exit }
    }

    #[test]
    fn what_others_have_made_is_not_taken_for_ours() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("a/b");
        let made = pending(&root, true);
        made.make(&root).unwrap();
        // Once more: it is there.
        let err = made.make(&root).unwrap_err();
        assert_eq!(err.to_string(), format!("create {}", made.begun.display()));
        fs::remove_dir(&made.begun).unwrap();
        std::os::unix::fs::symlink(scratch.path(), &made.begun).unwrap();
        made.make(&root).unwrap_err();
        // Nor is what it leads to removed with it.
        made.discard();
        assert!(scratch.path().exists() && !made.begun.exists());
    }

    #[test]
    fn files_are_removed_only_if_nothing_is_lost_with_them() {
        // What is in the files, whether the container runs, whether it was to end: what came of it, and whether files stay.
        for (files, runs, exit, written, stays) in [
            (&["pages-1.img"][..], false, true, Written::Nothing, false),
            (&["inventory.img"], false, true, Written::Left, true),
            (&["inventory.img"], true, true, Written::Nothing, false),
            (&["inventory.img"], false, false, Written::Nothing, false),
        ] {
            let scratch = tempfile::tempdir().unwrap();
            let made = pending(scratch.path(), exit);
            made.make(scratch.path()).unwrap();
            files.iter().for_each(|file| fs::write(made.begun.join(file), "").unwrap());
            assert_eq!((made.finish(runs), made.begun.exists()), (written, stays), "{files:?} {runs} {exit}");
            // With its name it is one, whatever else there is.
            fs::create_dir_all(&made.path).unwrap();
            fs::write(made.path.join(INVENTORY), "").unwrap();
            assert_eq!(made.finish(runs), Written::Named);
        }
    }
}
