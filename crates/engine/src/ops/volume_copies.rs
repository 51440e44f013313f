//! What no other engine has: volumes exported, imported, cloned, and brought back to what they were.
//!
//! A copy shows a volume's files at one moment: the containers that run with it stand still while it is made, and go on
//! whatever happens, for a daemon that dies leaves a mark with each of them. They do not wait for anybody who reads slowly:
//! an archive is packed from a copy.

use std::collections::BTreeSet;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use archive::{Overwrite, Owner, Pack, PackError, Resolution, TarReader, TarWriter, Unpack, UnpackError};
use engine_api::volume::{Volume as WireVolume, VolumeSnapshot};
use errdefs::ErrorKind;
use oci::ContainerId;
use rustix::fs::{CWD, Mode, OFlags, openat};
use tokio::sync::{OwnedMutexGuard, oneshot};
use tracing::debug;
use volume::{DuplicateError, Wanted};

use crate::Engine;
use crate::container::Container;
use crate::ops::archive::Finish;
use crate::ops::commit::{CommitError, Still};
use crate::ops::export::is_exported;
use crate::ops::volumes::wire;

/// How much is read and written at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Why a copy of a volume was not made, or not used.
#[derive(Debug, thiserror::Error)]
pub enum VolumeCopyError {
    /// The store says so.
    #[error(transparent)]
    Store(#[from] DuplicateError),
    /// Containers that have it run.
    #[error("volume {name} is used by running containers - [{}]: stop them first", users.join(", "))]
    Running {
        /// The volume.
        name: String,
        /// Their ids.
        users: Vec<String>,
    },
    /// A container does not stand still.
    #[error("hold the volume's containers still")]
    Still(#[source] CommitError),
    /// The archive cannot be unpacked.
    #[error("import volume {name}")]
    Unpack {
        /// The volume.
        name: String,
        /// Why.
        source: UnpackError,
    },
    /// The archive is compressed in a way that is not known.
    #[error("import volume {name}")]
    Decompress {
        /// The volume.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// The copy cannot be opened.
    #[error("open the copy of volume {name}")]
    Open {
        /// The volume.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// The daemon is about to end.
    #[error("the daemon is ending")]
    Ending,
}

impl VolumeCopyError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            VolumeCopyError::Store(err) => err.kind(),
            VolumeCopyError::Running { .. } => ErrorKind::Conflict,
            VolumeCopyError::Unpack { source: UnpackError::Create { .. }, .. } => ErrorKind::Internal,
            VolumeCopyError::Unpack { .. } | VolumeCopyError::Decompress { .. } => ErrorKind::InvalidArgument,
            VolumeCopyError::Still(_) | VolumeCopyError::Open { .. } => ErrorKind::Internal,
            VolumeCopyError::Ending => ErrorKind::Unavailable,
        }
    }
}

/// The containers that have a volume, none of which starts or is removed as long as this lives.
struct Users(Vec<(Arc<Container>, OwnedMutexGuard<()>)>);

impl Users {
    async fn of(engine: &Engine, name: &str) -> Result<Users, VolumeCopyError> {
        let listed = engine.volumes.get(name).map_err(DuplicateError::from)?;
        let mut users = Vec::new();
        // Sorted by id: two who want several at once do not wait for each other.
        for container in listed.users.iter().filter_map(|id| engine.containers.get(id)) {
            let operation = container.operation.clone().lock_owned().await;
            users.push((container, operation));
        }
        Ok(Users(users))
    }

    fn running(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.0.iter().map(|(container, _)| container).filter(|container| container.state().is_running())
    }

    /// Makes those that run stand still. Blocks.
    fn hold(&self, engine: &Engine) -> Result<Vec<Still>, VolumeCopyError> {
        let still = self.running().map(|container| Still::freeze(engine, container));
        Ok(still.collect::<Result<Vec<_>, _>>().map_err(VolumeCopyError::Still)?.into_iter().flatten().collect())
    }

    fn ids(&self) -> BTreeSet<ContainerId> {
        self.0.iter().map(|(container, _)| container.id().clone()).collect()
    }
}

/// Copies a volume's files as they are at one moment.
fn copy<'a>(
    engine: &'a Engine,
    users: &Users,
    name: &str,
    copy: fn(&'a volume::Volumes, &str) -> Result<volume::Staged<'a>, DuplicateError>,
) -> Result<volume::Staged<'a>, VolumeCopyError> {
    let still = users.hold(engine)?;
    let copied = copy(&engine.volumes, name);
    drop(still);
    Ok(copied?)
}

/// Runs `work` with the volume's users, to its end whoever goes away; what it leaves is swept.
async fn with_users<T: Send + 'static>(
    engine: &Engine,
    name: &str,
    work: impl FnOnce(&Engine, &Users) -> Result<T, VolumeCopyError> + Send + 'static,
) -> Result<T, VolumeCopyError> {
    let (task, name) = (engine.clone(), name.to_owned());
    let run = async move {
        let users = Users::of(&task, &name).await?;
        let inside = task.clone();
        let done = bridge::blocking(move || work(&inside, &users)).await;
        task.sweep_soon();
        done
    };
    engine.detached(run).await
}

/// Writes the archive of a volume to `out`, on a thread that may block; answers when it begins.
pub async fn export(engine: &Engine, name: &str, out: impl Finish + Send + 'static) -> Result<(), VolumeCopyError> {
    let (told, begun) = oneshot::channel();
    let (task, named) = (engine.clone(), name.to_owned());
    tokio::spawn(async move {
        let users = match Users::of(&task, &named).await {
            Ok(users) => users,
            // Who asked has gone, or is told.
            Err(err) => {
                _ = told.send(Err(err));
                return;
            }
        };
        let engine = task.clone();
        bridge::blocking(move || write(&engine, users, &named, told, out)).await;
        task.sweep_soon();
    });
    begun.await.unwrap_or(Err(VolumeCopyError::Ending))
}

fn write(
    engine: &Engine,
    users: Users,
    name: &str,
    told: oneshot::Sender<Result<(), VolumeCopyError>>,
    out: impl Finish,
) {
    let staged = copy(engine, &users, name, volume::copy);
    // From here on nobody waits for the client.
    drop(users);
    let opened = staged.and_then(|staged| Ok((open(&staged, name)?, staged)));
    let (place, _staged) = match opened {
        Ok(opened) => opened,
        Err(err) => {
            _ = told.send(Err(err));
            return;
        }
    };
    if told.send(Ok(())).is_err() {
        return;
    }
    let written = pack(place, out).and_then(|out| {
        // Told before the client has all of it, and does what is told after that.
        engine.events.volume(name, "export", []);
        out.finish().map_err(PackError::Write)
    });
    // The head is sent: the end of the connection is all that can be told.
    let _ = written.inspect_err(|err| debug!("export of a volume: {}", errdefs::chain(err)));
}

fn open(staged: &volume::Staged<'_>, name: &str) -> Result<OwnedFd, VolumeCopyError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(CWD, staged.data(), flags, Mode::empty());
    opened.map_err(|err| VolumeCopyError::Open { name: name.to_owned(), source: err.into() })
}

fn pack<W: Write>(place: OwnedFd, out: W) -> Result<W, PackError> {
    let mut tar = TarWriter::new(BufWriter::with_capacity(PIECE_BYTES, out));
    // The volume's own directory is the archive's first entry, so that its owner and mode are not lost.
    let options = Pack { name: b".", xattr: is_exported, holes: true, still: false, entry: &mut |_, _, _| Ok(true) };
    archive::pack(&mut tar, place, options)?;
    let buffered = tar.finish().map_err(PackError::Write)?;
    buffered.into_inner().map_err(|err| PackError::Write(err.into_error()))
}

/// Makes a volume of an archive, compressed or not: all of it, or nothing.
pub async fn import(
    engine: &Engine,
    name: &str,
    tar: impl Read + Send + 'static,
) -> Result<WireVolume, VolumeCopyError> {
    let (task, named) = (engine.clone(), name.to_owned());
    let made = engine.detached(async move {
        let made = bridge::blocking(move || {
            let volumes = &task.volumes;
            let wanted = Wanted { name: named.clone(), ..Wanted::default() };
            volume::check_new(volumes, &wanted)?;
            let staged = volume::stage(volumes)?;
            unpack(open(&staged, &named)?, &named, tar)?;
            Ok::<_, VolumeCopyError>(staged.publish(&wanted)?)
        });
        made.await
    });
    publish(engine, made.await)
}

fn unpack(root: OwnedFd, name: &str, tar: impl Read + Send) -> Result<(), VolumeCopyError> {
    let unpack = Unpack {
        root: root.as_fd(),
        directory: b"",
        resolution: Resolution::InRoot,
        overwrite: Overwrite::Allow,
        owner: Owner::Archive,
        rename: None,
        top: true,
    };
    let plain = layer::decompress(tar);
    let (_, plain) = plain.map_err(|source| VolumeCopyError::Decompress { name: name.to_owned(), source })?;
    let mut tar = TarReader::new(BufReader::with_capacity(PIECE_BYTES, plain));
    archive::unpack(&mut tar, &unpack).map_err(|source| VolumeCopyError::Unpack { name: name.to_owned(), source })
}

/// Makes a new volume that holds what `name` holds at this moment.
pub async fn clone(engine: &Engine, name: &str, new_name: &str) -> Result<WireVolume, VolumeCopyError> {
    let (source, wanted) = (name.to_owned(), Wanted { name: new_name.to_owned(), ..Wanted::default() });
    let made = with_users(engine, name, move |engine, users| {
        volume::check_new(&engine.volumes, &wanted)?;
        let source_volume = engine.volumes.get(&source).map_err(DuplicateError::from)?.volume;
        let labels = source_volume.labels.clone().map(|mut labels| {
            labels.remove(volume::ANONYMOUS_LABEL);
            labels
        });
        // A copy of a mount is a directory; that of a limited directory has the same limit.
        let options = source_volume.options.clone().filter(|_| source_volume.limit().is_some());
        let copied = copy(engine, users, &source, volume::copy_limited)?;
        Ok(copied.publish(&Wanted { labels, options, ..wanted })?)
    });
    publish(engine, made.await)
}

fn publish(engine: &Engine, made: Result<Arc<volume::Volume>, VolumeCopyError>) -> Result<WireVolume, VolumeCopyError> {
    // What came to nothing lies aside.
    let made = made.inspect_err(|_| engine.sweep_soon())?;
    engine.events.volume(made.name.as_str(), "create", []);
    Ok(wire(&made))
}

/// Keeps what a volume holds at this moment; without a name, under the time.
pub async fn snapshot(engine: &Engine, name: &str, snapshot: &str) -> Result<VolumeSnapshot, VolumeCopyError> {
    let (volume, snapshot) = (name.to_owned(), snapshot.to_owned());
    with_users(engine, name, move |engine, users| {
        let listed = engine.volumes.get(&volume).map_err(DuplicateError::from)?;
        volume::refuse_mount(&listed.volume)?;
        let snapshot = if snapshot.is_empty() { now_as_name() } else { snapshot };
        volume::check_snapshot(&engine.volumes, &volume, &snapshot)?;
        let kept = copy(engine, users, &volume, volume::copy)?.keep(&volume, &snapshot)?;
        engine.events.volume(&volume, "snapshot", [("snapshot", kept.name.clone())]);
        Ok(wire_snapshot(&kept))
    })
    .await
}

/// `20260101T000000Z`
fn now_as_name() -> String {
    let text = crate::clock::rfc3339(crate::clock::now_nanos());
    let seconds = text.split(['.', 'Z']).next().unwrap_or_default();
    format!("{}Z", seconds.replace(['-', ':'], ""))
}

/// The snapshots of a volume, by name, measured.
pub async fn snapshots(engine: &Engine, name: &str) -> Result<Vec<VolumeSnapshot>, VolumeCopyError> {
    let (engine, name) = (engine.clone(), name.to_owned());
    let found = bridge::blocking(move || {
        volume::snapshots(&engine.volumes, &name).map(|found| found.iter().map(wire_snapshot).collect())
    });
    Ok(found.await?)
}

fn wire_snapshot(snapshot: &volume::Snapshot) -> VolumeSnapshot {
    let usage = stdx::tree::usage(&snapshot.data).ok().flatten();
    VolumeSnapshot {
        name: snapshot.name.clone(),
        created_at: snapshot.created.clone(),
        size: usage.map_or(-1, |usage| i64::try_from(usage.bytes).unwrap_or(i64::MAX)),
    }
}

/// Makes a volume's files what they were. No container that runs may have it.
pub async fn restore(engine: &Engine, name: &str, snapshot: &str) -> Result<(), VolumeCopyError> {
    let (volume, snapshot) = (name.to_owned(), snapshot.to_owned());
    with_users(engine, name, move |engine, users| {
        let running: Vec<String> = users.running().map(|container| container.id().to_string()).collect();
        if !running.is_empty() {
            return Err(VolumeCopyError::Running { name: volume, users: running });
        }
        volume::restore(&engine.volumes, &volume, &snapshot, &users.ids())?;
        engine.events.volume(&volume, "restore", [("snapshot", snapshot)]);
        Ok(())
    })
    .await
}

/// Removes a snapshot.
pub async fn remove_snapshot(engine: &Engine, name: &str, snapshot: &str) -> Result<(), VolumeCopyError> {
    let (task, name, snapshot) = (engine.clone(), name.to_owned(), snapshot.to_owned());
    bridge::blocking(move || volume::remove_snapshot(&task.volumes, &name, &snapshot)).await?;
    engine.sweep_soon();
    Ok(())
}
