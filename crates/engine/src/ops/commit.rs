//! `POST /commit`: an image of what a container changed.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use archive::{Entry, Kind, Pack, PackError, TarWriter};
use engine_api::container::Config;
use errdefs::ErrorKind;
use image::{ImageRecord, Lasting};
use oci::image::{ExecConfig, History, ImageConfig, Platform};
use oci::{Digest, Reference, ReferenceError};
use rustix::fs::{CWD, Mode, OFlags, openat};
use snapshot::{Changes, SnapshotKey, Stage, Stubs};
use stdx::pipe::{Reader, Writer, pipe};
use tracing::warn;

use crate::Engine;
use crate::clock::{now_nanos, rfc3339};
use crate::container::Container;
use crate::container::state::Phase;
use crate::instructions::{self, InstructionError};
use crate::ops::changes::STUBS;
use crate::ops::create::snapshot_key;
use crate::ops::export::is_exported;
use crate::ops::images;
use crate::registry::LookupError;

/// How long the processes of a container may take to stand still; dockerd has no limit, and hangs where they do not.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of the layer is handed on at once.
const PIECE_BYTES: usize = 128 * 1024;

/// What is committed, and how.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// The new image's name; empty for none.
    pub repository: String,
    /// Its tag.
    pub tag: String,
    /// Why it was made.
    pub comment: String,
    /// By whom.
    pub author: String,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// Whether the container stands still meanwhile.
    pub pause: bool,
    /// What the image says, where the container's own is not wanted.
    pub config: Option<Config>,
}

/// Why a container was not committed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It is being removed.
    #[error("You cannot commit container {0} which is being removed")]
    Removing(String),
    /// The name is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The name is one that no image can be given.
    #[error("cannot import digest reference")]
    Digest,
    /// The instructions are wrong.
    #[error(transparent)]
    Instruction(#[from] InstructionError),
    /// Its image is gone.
    #[error(transparent)]
    Parent(image::ResolveError),
    /// It does not stand still.
    #[error("cannot pause container {container}")]
    Pause {
        /// Which one.
        container: String,
        /// Why.
        source: cgroup::CgroupError,
    },
    /// Its files cannot be compared.
    #[error("compare the container's files with its image's")]
    Compare(#[source] snapshot::SnapshotError),
    /// Its files cannot be opened.
    #[error("open the container's files")]
    Open(#[source] io::Error),
    /// The image cannot be made.
    #[error(transparent)]
    Build(#[from] image::LoadError),
}

impl CommitError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CommitError::Lookup(err) => err.kind(),
            CommitError::Removing(_) => ErrorKind::Conflict,
            CommitError::Reference(_) | CommitError::Digest | CommitError::Instruction(_) => ErrorKind::InvalidArgument,
            CommitError::Parent(err) => err.kind(),
            _ => ErrorKind::Internal,
        }
    }
}

/// Makes an image of a container; answers its id.
pub async fn commit(engine: &Engine, name: &str, options: CommitOptions) -> Result<String, CommitError> {
    let reference = new_name(&options.repository, &options.tag)?;
    let container = engine.containers.find(name)?;
    if container.state().phase == Phase::Removing {
        return Err(CommitError::Removing(container.id().to_string()));
    }
    let own = &container.config();
    let mut config = options.config.clone().unwrap_or_else(|| own.clone().into_owned());
    instructions::apply(&options.changes, &mut config)?;
    // That there is nothing to run is no matter here, nor is what warnings say of a start.
    let _ = container_spec::merge_image(&mut config, &exec_config(own));
    let parent = match container.definition.image_id.as_str() {
        "" => None,
        id => Some(engine.images.resolve(id).map_err(CommitError::Parent)?),
    };
    let run = run(engine.clone(), container, parent, reference, exec_config(&config), options);
    engine.detached(run).await
}

/// The name of a new image; `None` for an empty one.
pub(super) fn new_name(repository: &str, tag: &str) -> Result<Option<Reference>, CommitError> {
    if repository.is_empty() {
        return Ok(None);
    }
    let text = if tag.is_empty() { repository.to_owned() } else { format!("{repository}:{tag}") };
    let reference: Reference = text.parse()?;
    if reference.digest().is_some() {
        return Err(CommitError::Digest);
    }
    Ok(Some(reference.with_default_tag()))
}

/// What an image says of its containers.
pub(super) fn exec_config(config: &Config) -> ExecConfig {
    ExecConfig {
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.clone(),
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        volumes: config.volumes.clone(),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone().filter(|labels| !labels.is_empty()),
        stop_signal: config.stop_signal.clone(),
        args_escaped: config.args_escaped,
        healthcheck: config.healthcheck.clone(),
        on_build: config.on_build.clone(),
        shell: config.shell.clone(),
    }
}

async fn run(
    engine: Engine,
    container: Arc<Container>,
    parent: Option<Arc<ImageRecord>>,
    reference: Option<Reference>,
    config: ExecConfig,
    options: CommitOptions,
) -> Result<String, CommitError> {
    // Its directory stays: it is neither removed nor started anew meanwhile.
    let _operation = container.operate().await?;
    if container.is_removed() {
        return Err(LookupError::NotFound(container.id().to_string()).into());
    }
    let (task, inside, named) = (engine.clone(), container.clone(), reference.clone());
    let (comment, author, pause) = (options.comment.clone(), options.author, options.pause);
    let step = History {
        created: Some(rfc3339(now_nanos())),
        created_by: container.definition.config.cmd.clone().unwrap_or_default().join(" "),
        author,
        comment: options.comment,
        empty_layer: false,
    };
    let still = if pause { hold(&engine, &container).await? } else { None };
    let paused = still.is_some();
    if paused {
        engine.events.container(&container, "pause", []);
    }
    let built = bridge::blocking(move || {
        let _still = still;
        build(&task, &inside, parent.as_deref(), named, config, step)
    });
    let built = built.await;
    if let Ok(image) = &built {
        tell(&engine, &container, &image.id, comment, reference.map(|reference| reference.familiar()));
        super::image_budget::look_soon(&engine, [image.id.clone()]);
    }
    if paused {
        engine.events.container(&container, "unpause", []);
    }
    built.map(|image| image.id.to_string()).inspect_err(|_| engine.sweep_soon())
}

/// Tells of the image, by its name if it has one, and of the commit.
fn tell(engine: &Engine, container: &Container, image: &Digest, comment: String, name: Option<String>) {
    let id = image.to_string();
    images::tell_made(engine, image, "create", &id);
    if let Some(name) = &name {
        images::tell_made(engine, image, "tag", name);
    }
    let attributes = [("comment", comment), ("imageID", id), ("imageRef", name.unwrap_or_default())];
    engine.events.container(container, "commit", attributes);
}

/// Makes a container stand still that runs.
async fn hold(engine: &Engine, container: &Arc<Container>) -> Result<Option<Still>, CommitError> {
    let (task, inside) = (engine.clone(), container.clone());
    let err = match bridge::blocking(move || Still::freeze(&task, &inside)).await {
        Err(err) => err,
        held => return held,
    };
    // Its end, which we may not have been told of yet, may be why its cgroup could not be held.
    super::exec::catch_up(engine, container).await;
    let exists = engine.cgroup_of(container).map_or(true, |group| group.exists());
    if container.state().pid() == 0 || !exists { Ok(None) } else { Err(err) }
}

/// A container whose processes stand still as long as this lives.
pub(crate) struct Still {
    group: cgroup::Cgroup,
    /// Says so to the next daemon, should this one die: in the shim's directory, which goes with the container.
    mark: PathBuf,
}

impl Still {
    /// `None` if nothing of it runs, or it stands still already.
    pub(crate) fn freeze(engine: &Engine, container: &Container) -> Result<Option<Still>, CommitError> {
        let state = container.state();
        if state.pid() == 0 || state.paused {
            return Ok(None);
        }
        let failed = |source| CommitError::Pause { container: container.id().to_string(), source };
        let group = engine.cgroup_of(container).map_err(failed)?;
        if !group.exists() {
            // It has ended, and its shim with it, before anybody told us.
            return Ok(None);
        }
        let mark = mark(engine, container);
        std::fs::write(&mark, b"").map_err(CommitError::Open)?;
        // Dropped, it lets go of those that stand still already.
        let still = Still { group, mark };
        still.group.freeze(FREEZE_TIMEOUT).map_err(failed)?;
        Ok(Some(still))
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        match self.group.thaw(FREEZE_TIMEOUT) {
            // Without a mark nobody lets go of it again, which would be wrong only if this one had not.
            Ok(()) => drop(std::fs::remove_file(&self.mark)),
            Err(err) => warn!(err = errdefs::chain(&err), "a container stands still after its commit"),
        }
    }
}

fn mark(engine: &Engine, container: &Container) -> PathBuf {
    engine.recorder.shim_dir(container.id()).join("committing")
}

/// Lets a container go on whose commit a daemon did not live to finish. Blocks where there is one.
pub(crate) fn resume(engine: &Engine, container: &Container) {
    let mark = mark(engine, container);
    if !mark.exists() {
        return;
    }
    warn!(container = %container.id(), "a commit was cut: the container goes on");
    match engine.cgroup_of(container) {
        Ok(group) => drop(Still { group, mark }),
        Err(err) => warn!(container = %container.id(), err = errdefs::chain(&err), "cannot let the container go on"),
    }
}

fn build(
    engine: &Engine,
    container: &Container,
    parent: Option<&ImageRecord>,
    reference: Option<Reference>,
    config: ExecConfig,
    step: History,
) -> Result<image::Loaded, CommitError> {
    let key = snapshot_key(container.id());
    let changes = engine.images.snapshots().changes(&key, STUBS).map_err(CommitError::Compare)?;
    build_of(engine, (&key, false), &changes, parent, (reference, Lasting::Now), |image| {
        describe(image, super::import::host_platform(), config, step)
    })
}

/// An image of what a snapshot changed above its parent's layers. One that nobody needs any more gives its files away, if it can.
fn build_of(
    engine: &Engine,
    (key, is_given): (&SnapshotKey, bool),
    changes: &Changes,
    parent: Option<&ImageRecord>,
    named: (Option<Reference>, Lasting),
    configure: impl FnOnce(&mut ImageConfig),
) -> Result<image::Loaded, CommitError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // There as long as it is packed.
    let own = engine.images.snapshots().own_files(key, changes).map_err(CommitError::Compare)?;
    let taken = match is_given {
        true => own.take(engine.images.snapshots(), changes).map_err(CommitError::Compare)?,
        false => None,
    };
    let upper = openat(CWD, taken.as_ref().map_or(own.path(), Stage::path), flags, Mode::empty());
    let upper = upper.map_err(|err| CommitError::Open(err.into()))?;
    let (reader, writer) = pipe(PIECE_BYTES);
    let (done, outcome) = mpsc::channel();
    let built = thread::scope(|scope| {
        scope.spawn(move || {
            let packed = pack((upper, is_given), writer, changes);
            // Whoever reads has given up.
            let _ = done.send(packed);
        });
        let layer = Layer { reader, outcome };
        image::build_from(&engine.images, parent, (taken, layer), named, configure)
    });
    Ok(built?)
}

/// What a step of a build has written.
#[derive(Clone, Copy)]
pub(super) struct StepFiles<'a> {
    pub(super) key: &'a SnapshotKey,
    /// What is none of it.
    pub(super) stubs: Stubs<'a>,
    /// Whether nobody writes or reads there any more, nor will: the files may become the layer as they are.
    pub(super) are_given: bool,
}

/// A step of a build: an image of what a snapshot changed, if there is one, or that only says something else. The
/// platform is that of one without a parent. It is settled with its build.
pub(super) fn build_step(
    engine: &Engine,
    files: Option<StepFiles<'_>>,
    parent: Option<&ImageRecord>,
    (config, platform): (&Config, Platform),
    mut step: History,
) -> Result<Digest, CommitError> {
    let config = exec_config(config);
    let changed = match files {
        Some(StepFiles { key, stubs, are_given }) => {
            let changes = engine.images.snapshots().changes(key, stubs).map_err(CommitError::Compare)?;
            (!changes.paths.is_empty()).then_some(((key, are_given), changes))
        }
        None => None,
    };
    step.empty_layer = changed.is_none();
    let configure = |image: &mut ImageConfig| describe(image, platform, config, step);
    let built = match &changed {
        Some((key, changes)) => build_of(engine, *key, changes, parent, (None, Lasting::Later), configure)?,
        None => image::derive(&engine.images, parent, (None, Lasting::Later), configure)?,
    };
    Ok(built.id)
}

/// Makes the image of a build that came to nothing but a configuration.
pub(super) fn build_nothing(engine: &Engine, config: &Config, platform: Platform) -> Result<Digest, CommitError> {
    let configure = |image: &mut ImageConfig| {
        image.platform = platform;
        image.created = Some(rfc3339(now_nanos()));
        image.config = exec_config(config);
    };
    Ok(image::derive(&engine.images, None, (None, Lasting::Later), configure)?.id)
}

/// What [`build_step`] makes the configuration of an image, above `parent`'s, of a step that is known to have come to `layer`.
pub(super) fn step_config(
    parent: Option<&ImageConfig>,
    layer: Option<&Digest>,
    (config, platform): (&Config, Platform),
    step: History,
) -> ImageConfig {
    let mut image = parent.cloned().unwrap_or_default();
    image.rootfs.kind = "layers".to_owned();
    image.rootfs.diff_ids.extend(layer.cloned());
    describe(&mut image, platform, exec_config(config), step);
    image
}

/// `platform` is that of an image that has no parent to say so.
fn describe(image: &mut ImageConfig, platform: Platform, config: ExecConfig, step: History) {
    if image.platform.os.is_empty() {
        image.platform = platform;
    }
    image.created.clone_from(&step.created);
    image.author.clone_from(&step.author);
    image.config = config;
    image.history.push(step);
    image.docker_version.clear();
}

/// A layer that is packed meanwhile. Its end is one only if the packing came to its own.
struct Layer {
    reader: Reader,
    outcome: mpsc::Receiver<Result<(), PackError>>,
}

impl Read for Layer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count == 0
            && let Ok(Err(err)) = self.outcome.recv()
        {
            return Err(io::Error::other(err));
        }
        Ok(count)
    }
}

/// Packs a container's own files as a layer: what overlayfs says of deletions as image-spec says it (layer.md, "Whiteouts").
fn pack((upper, still): (OwnedFd, bool), writer: Writer, changes: &Changes) -> Result<(), PackError> {
    let mut tar = TarWriter::new(writer);
    let mut entry = |seen: &archive::Seen<'_>, entry: &mut Entry, more: &mut Vec<Entry>| {
        if changes.hidden.contains(seen.path) {
            return Ok(false);
        }
        if snapshot::is_whiteout(seen.stat) {
            *entry = whiteout(&entry.path, entry);
        } else if entry.kind == Kind::Directory
            && snapshot::is_opaque(archive::reopen(seen.place, OFlags::RDONLY | OFlags::DIRECTORY)?)
        {
            more.push(Entry { path: [&entry.path[..], b"/.wh..wh..opq"].concat(), ..whiteout(b"", entry) });
        }
        Ok(true)
    };
    let options = Pack { name: b"", xattr: is_exported, holes: true, still, entry: &mut entry };
    archive::pack(&mut tar, upper, options)?;
    tar.finish().map(drop).map_err(PackError::Write)
}

fn whiteout(path: &[u8], of: &Entry) -> Entry {
    let slash = path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
    let path = [&path[..slash], b".wh.", &path[slash..]].concat();
    Entry {
        path,
        kind: Kind::File,
        mode: 0o600,
        size: 0,
        link: Vec::new(),
        xattrs: Vec::new(),
        segments: None,
        device: (0, 0),
        ..of.clone()
    }
}
