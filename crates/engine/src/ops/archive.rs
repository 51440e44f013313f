//! `/containers/{id}/archive`: files of containers, out and in.
//!
//! Each of these has leave to look at the container's files from its first look to its last byte ([`crate::view`] says what
//! waits meanwhile), and whoever reads or sends nothing for some minutes is given up.

mod resolve;

use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use archive::{Overwrite, Owner, Pack, PackError, Resolution, TarReader, TarWriter, Unpack, UnpackError};
use engine_api::path_stat::{PathStat, go_mode};
use errdefs::ErrorKind;
use rustix::fs::{AtFlags, FileType, StatVfsMountFlags, StatxFlags};
use rustix::io::Errno;
use tokio::sync::oneshot;
use tracing::debug;

use crate::Engine;
use crate::container::Container;
use crate::registry::LookupError;
use crate::view::{self, Leave, Mounts, View, ViewError};
use resolve::{ResolveUserError, absolute, base, evaluate, user_of};

/// How much of the archive is handed on at once.
const PIECE_BYTES: usize = 128 * 1024;

/// Why files were not copied. The texts are dockerd's where it has one.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// There is no such path.
    #[error("Could not find the file {path} in container {container}")]
    NotFound {
        /// As the client gave it.
        path: String,
        /// As the client named it.
        container: String,
    },
    /// The path cannot be looked at.
    #[error("lstat {path}")]
    Stat {
        /// From the root.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// What is at the path holds no files.
    #[error("extraction point is not a directory")]
    NoDirectory,
    /// The container may not write to its root.
    #[error("container rootfs is marked read-only")]
    ReadOnlyRoot,
    /// The container may not write to the mount.
    #[error("mounted volume is marked read-only")]
    ReadOnlyMount,
    /// The files cannot be looked at.
    #[error(transparent)]
    View(#[from] ViewError),
    /// They cannot be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The archive is compressed in an unknown way, or does not come.
    #[error("read the archive")]
    Decompress(#[source] io::Error),
    /// It cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The container's user is not known in it.
    #[error(transparent)]
    User(#[from] ResolveUserError),
    /// Whoever worked on it is gone.
    #[error("the daemon ends")]
    Ending,
}

impl ArchiveError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ArchiveError::Lookup(err) => err.kind(),
            ArchiveError::NotFound { .. } => ErrorKind::NotFound,
            ArchiveError::NoDirectory | ArchiveError::ReadOnlyRoot | ArchiveError::ReadOnlyMount => {
                ErrorKind::InvalidArgument
            }
            _ => ErrorKind::Internal,
        }
    }
}

/// How an archive is put into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// An existing directory, which the archive is unpacked in.
    pub path: String,
    /// Whether directories and other things may not replace each other.
    pub keep_kinds: bool,
    /// Whether everything is given to the container's user.
    pub to_user: bool,
}

/// What is at a path in a container.
pub async fn stat(engine: &Engine, name: &str, path: &str) -> Result<PathStat, ArchiveError> {
    let container = engine.containers.find(name)?;
    let (task, named) = (engine.clone(), Named { container: name.to_owned(), path: path.to_owned() });
    let run = async move {
        let leave = view::enter(&task, &container).await?;
        let container = container.clone();
        bridge::blocking(move || {
            let view = view::open(&task, &container, Mounts::Own, &leave)?;
            look(&view, &named, &named.path).map(|(stat, _)| stat)
        })
        .await
    };
    engine.detached(run).await
}

/// The archive of what is at a path. Answers when its first byte is about to be written to `out`, which a thread then does
/// that may block; `out` is told by [`Finish::finish`] that the archive is whole.
pub async fn get(
    engine: &Engine,
    name: &str,
    path: &str,
    out: impl Finish + Send + 'static,
) -> Result<PathStat, ArchiveError> {
    let container = engine.containers.find(name)?;
    let (task, named) = (engine.clone(), Named { container: name.to_owned(), path: path.to_owned() });
    let (found, told) = oneshot::channel();
    tokio::spawn(async move {
        let leave = match view::enter(&task, &container).await {
            Ok(leave) => leave,
            Err(err) => {
                // Who asked has gone.
                let _ = found.send(Err(err.into()));
                return;
            }
        };
        let container = container.clone();
        bridge::blocking(move || send(&task, &container, &leave, &named, found, out)).await;
    });
    told.await.unwrap_or(Err(ArchiveError::Ending))
}

/// Where an archive goes.
pub trait Finish: Write {
    /// All of it was written; one that is dropped before is cut off.
    fn finish(self) -> io::Result<()>;
}

/// A path as the client gave it, for sentences.
struct Named {
    container: String,
    path: String,
}

impl Named {
    fn refused(&self, err: Errno, path: &str) -> ArchiveError {
        match err {
            Errno::NOENT => ArchiveError::NotFound { path: self.path.clone(), container: self.container.clone() },
            err => ArchiveError::Stat { path: path.to_owned(), source: err.into() },
        }
    }
}

/// What is at a path, without following it, and where that is.
fn look(view: &View, named: &Named, path: &str) -> Result<(PathStat, OwnedFd), ArchiveError> {
    let place = view.open(path, false).map_err(|err| named.refused(err, path))?;
    let stat = rustix::fs::fstat(&place).map_err(|err| named.refused(err, path))?;
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let link_target = match is_link {
        true => evaluate(view, path).map_err(|err| named.refused(err, path))?,
        false => String::new(),
    };
    let since_1970 = Duration::new(u64::try_from(stat.st_mtime).unwrap_or(0), stat.st_mtime_nsec as u32);
    let found = PathStat {
        name: base(path).to_owned(),
        size: stat.st_size,
        mode: go_mode(stat.st_mode),
        mtime: stdx::time::Rfc3339(UNIX_EPOCH + since_1970).to_string(),
        link_target,
    };
    Ok((found, place))
}

/// Looks, tells what there is, and packs it. Blocks.
fn send(
    engine: &Engine,
    container: &Arc<Container>,
    leave: &Leave,
    named: &Named,
    found: oneshot::Sender<Result<PathStat, ArchiveError>>,
    out: impl Finish,
) {
    let path = absolute(&named.path);
    let looked = view::open(engine, container, Mounts::Own, leave)
        .map_err(ArchiveError::from)
        .and_then(|view| look(&view, named, &path).map(|(stat, place)| (view, stat, place)));
    let (_view, stat, place) = match looked {
        Ok(looked) => looked,
        Err(err) => {
            // Who asked has gone.
            let _ = found.send(Err(err));
            return;
        }
    };
    let name = base(&path).to_owned();
    if found.send(Ok(stat)).is_err() {
        return;
    }
    engine.events.container(container, "archive-path", []);
    if let Err(err) =
        pack(place, name.as_bytes(), out, is_carried).and_then(|out| out.finish().map_err(PackError::Write))
    {
        // The head is sent: the end of the connection is all that can be told.
        debug!(container = %container.id(), err = errdefs::chain(&err), "cannot send files");
    }
}

/// Packs a tree to its end; what it was written to is given back, to be finished.
pub(super) fn pack<W: Write>(place: OwnedFd, name: &[u8], out: W, xattr: fn(&[u8]) -> bool) -> Result<W, PackError> {
    let mut tar = TarWriter::new(io::BufWriter::with_capacity(PIECE_BYTES, out));
    // Programs that get such an archive give it on to others that know no holes.
    let options = Pack { name, xattr, holes: false, still: false, entry: &mut |_, _, _| Ok(true) };
    archive::pack(&mut tar, place, options)?;
    let buffered = tar.finish().map_err(PackError::Write)?;
    buffered.into_inner().map_err(|err| PackError::Write(err.into_error()))
}

/// What `cp` carries from one root to another.
fn is_carried(xattr: &[u8]) -> bool {
    xattr == b"security.capability" || (xattr.starts_with(b"user.") && !xattr.starts_with(b"user.overlay."))
}

/// Puts the files of an archive, compressed or not, into a container. Reads on a thread that may block.
pub async fn put(
    engine: &Engine,
    name: &str,
    options: PutOptions,
    archive: impl Read + Send + 'static,
) -> Result<(), ArchiveError> {
    let container = engine.containers.find(name)?;
    let (task, named) = (engine.clone(), Named { container: name.to_owned(), path: options.path.clone() });
    let run = async move {
        let leave = view::enter(&task, &container).await?;
        let (engine, inside) = (task.clone(), container.clone());
        bridge::blocking(move || receive(&engine, &inside, &leave, &named, &options, archive)).await?;
        task.events.container(&container, "extract-to-dir", []);
        Ok(())
    };
    engine.detached(run).await
}

fn receive(
    engine: &Engine,
    container: &Container,
    leave: &Leave,
    named: &Named,
    options: &PutOptions,
    archive: impl Read + Send,
) -> Result<(), ArchiveError> {
    let view = view::open(engine, container, Mounts::Own, leave)?;
    let path = absolute(&options.path);
    let directory = view.open(&path, true).map_err(|err| named.refused(err, &path))?;
    let stat = rustix::fs::fstat(&directory).map_err(|err| named.refused(err, &path))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(ArchiveError::NoDirectory);
    }
    check_writable(&view, container, &directory)?;
    let owner = match options.to_user {
        true => user_of(&view, &container.definition.config.user)?,
        false => None,
    };
    let shown = evaluate(&view, &path).map_err(|err| named.refused(err, &path))?;
    let unpack = Unpack {
        root: view.root(),
        directory: shown.as_bytes(),
        resolution: Resolution::InRoot,
        overwrite: if options.keep_kinds { Overwrite::Refuse } else { Overwrite::Allow },
        owner: owner.map_or(Owner::Archive, |(uid, gid)| Owner::Fixed(uid, gid)),
        rename: None,
        top: false,
    };
    let (_, plain) = layer::decompress(archive).map_err(ArchiveError::Decompress)?;
    let mut tar = TarReader::new(BufReader::with_capacity(PIECE_BYTES, plain));
    Ok(archive::unpack(&mut tar, &unpack)?)
}

/// Whether the container itself may write there.
fn check_writable(view: &View, container: &Container, directory: &OwnedFd) -> Result<(), ArchiveError> {
    let mount_of = |fd: std::os::fd::BorrowedFd<'_>| {
        rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map(|found| found.stx_mnt_id).ok()
    };
    if mount_of(directory.as_fd()) == mount_of(view.root()) {
        return match container.definition.host_config.readonly_rootfs {
            true => Err(ArchiveError::ReadOnlyRoot),
            false => Ok(()),
        };
    }
    let flags = rustix::fs::fstatvfs(directory).map(|found| found.f_flag).unwrap_or(StatVfsMountFlags::empty());
    match flags.contains(StatVfsMountFlags::RDONLY) {
        true => Err(ArchiveError::ReadOnlyMount),
        false => Ok(()),
    }
}
