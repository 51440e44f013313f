//! Filling a new volume with what the image holds at its place.
//!
//! ```text
//!                    copy              sync, rename            rename, entry by entry
//! image's directory ------> filling/ ---------------> filled/ ------------------------> _data/
//!      a kill leaves: an empty volume; `filling`       | a kill leaves: the rest in `filled`, and `open` goes on
//!      is deleted when the store opens
//! ```

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use errdefs::ErrorKind;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, ResolveFlags, openat, renameat_with};
use rustix::io::Errno;
use sys::open::openat2;

use crate::copy::{Copier, CopyError};
use crate::create::make_directory;
use crate::mount::MountError;
use crate::name::VolumeName;
use crate::record::{DATA, Volume};
use crate::store::{Held, NotFound, Volumes};

/// A copy that is being made.
pub(crate) const FILLING: &str = "filling";

/// A complete copy.
pub(crate) const FILLED: &str = "filled";

/// What [`Volumes::fill`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// The volume holds what the image holds, and looks like its directory.
    Copied,
    /// The volume is not empty: it stays as it is.
    NotEmpty,
    /// The image has nothing at that path.
    NothingThere,
}

/// Why [`Volumes::fill`] failed. The volume is as it was.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// There is no such volume.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The volume is a mount of its own, and cannot be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The image has a file at that path. The text is dockerd's, whose path is the host's.
    #[error("source {} is not directory", path.display())]
    NotDirectory {
        /// The path in the image.
        path: PathBuf,
    },
    /// The image's path cannot be opened.
    #[error("fill volume {name}: open {} of the image", path.display())]
    Source {
        /// The volume.
        name: VolumeName,
        /// The path in the image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be copied.
    #[error("fill volume {name}")]
    Copy {
        /// The volume.
        name: VolumeName,
        /// Which, and why.
        source: CopyError,
    },
    /// The system says no.
    #[error("fill volume {name}: {what}")]
    Io {
        /// The volume.
        name: VolumeName,
        /// What we were doing.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl FillError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            FillError::NotFound(err) => err.kind(),
            FillError::Mount(err) => err.kind(),
            // dockerd answers a file in the place of a directory with 500.
            FillError::NotDirectory { .. }
            | FillError::Source { .. }
            | FillError::Copy { .. }
            | FillError::Io { .. } => ErrorKind::Internal,
        }
    }
}

impl Volumes {
    /// Copies what the image below `image_root` holds at `path` into an empty volume: files with their holes, hard links,
    /// symlinks, devices, owners, modes, xattrs and times, and how the directory itself looks. Docker's copy-up.
    ///
    /// The container for which this is done has acquired the volume before. Takes as long as the directory is large.
    pub fn fill(&self, name: &str, image_root: BorrowedFd<'_>, path: &Path) -> Result<Filled, FillError> {
        let held = self.hold(name)?;
        if held.volume.is_mount() {
            return fill_mount(&held, image_root, path);
        }
        let name = &held.volume.name;
        let directory = self.directory(name);
        let failed = |what| move |source: io::Error| FillError::Io { name: name.clone(), what, source };
        if fs::exists(directory.join(FILLED)).map_err(failed("look for a complete copy"))? {
            settle(&directory, &self.gone()).map_err(failed("finish the copy"))?;
        }
        if fs::read_dir(directory.join(DATA)).map_err(failed("list the volume"))?.next().is_some() {
            return Ok(Filled::NotEmpty);
        }
        let Some(source) = open_source(name, image_root, path)? else { return Ok(Filled::NothingThere) };
        quota::obeying(|| self.copy(&held.volume, &directory, source)).inspect_err(|_| self.drop_copy(&directory))?;
        settle(&directory, &self.gone()).map_err(failed("finish the copy"))?;
        Ok(Filled::Copied)
    }

    /// Makes the complete copy.
    fn copy(&self, volume: &Volume, directory: &Path, source: OwnedFd) -> Result<(), FillError> {
        let name = &volume.name;
        let failed = |what| move |source: io::Error| FillError::Io { name: name.clone(), what, source };
        let staged = directory.join(FILLING);
        // One that an earlier failure left.
        self.drop_copy(directory);
        make_directory(&staged, 0o700).map_err(failed("make a directory for the copy"))?;
        if volume.limit().is_some() {
            // Or its files could not be moved into the volume.
            quota::share(&volume.mountpoint, &staged).map_err(failed("limit the copy"))?;
        }
        let target = open_directory(&staged).map_err(failed("open the copy"))?;
        let mut copier = Copier::new(target.as_fd()).map_err(failed("open the copy"))?;
        copier.copy(source).map_err(|source| FillError::Copy { name: name.clone(), source })?;
        if copier.copied_any() {
            // The names must not last longer than what they name. One sync for all: the files may be many.
            rustix::fs::syncfs(&target).map_err(|err| failed("sync the copy")(err.into()))?;
        }
        fs::rename(&staged, directory.join(FILLED)).map_err(failed("complete the copy"))?;
        stdx::fs::sync_dir(directory).map_err(failed("complete the copy"))
    }

    fn drop_copy(&self, directory: &Path) {
        // None there is the rule. One that stays is set aside when the store opens, and is in the way of nothing but the
        // next copy, which says so.
        let _ = fs::rename(directory.join(FILLING), self.gone());
    }
}

/// The same for a volume that is a mount of its own, where nothing can be made aside. It is mounted as long as that takes,
/// as with dockerd; what was copied to memory is gone then.
fn fill_mount(held: &Held<'_>, image_root: BorrowedFd<'_>, path: &Path) -> Result<Filled, FillError> {
    let (name, data) = (&held.volume.name, &held.volume.mountpoint);
    let failed = |what| move |source: io::Error| FillError::Io { name: name.clone(), what, source };
    let Some(source) = open_source(name, image_root, path)? else { return Ok(Filled::NothingThere) };
    let _mounted = held.mount_for_now()?;
    if fs::read_dir(data).map_err(failed("list the volume"))?.next().is_some() {
        return Ok(Filled::NotEmpty);
    }
    let target = open_directory(data).map_err(failed("open the volume"))?;
    let mut copier = Copier::new(target.as_fd()).map_err(failed("open the volume"))?;
    let copied = copier.copy(source).map_err(|source| FillError::Copy { name: name.clone(), source });
    copied.inspect_err(|_| empty(data))?;
    rustix::fs::syncfs(&target).map_err(|err| failed("sync the copy")(err.into()))?;
    Ok(Filled::Copied)
}

/// Takes away what was copied to a directory that was empty.
fn empty(data: &Path) {
    let Ok(entries) = fs::read_dir(data) else { return };
    for entry in entries.flatten() {
        // The copy has failed already, and that is what is told.
        let _ = stdx::fs::remove_if_exists(&entry.path());
    }
}

fn open_source(name: &VolumeName, image_root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>, FillError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Symlinks on the way, and the last one, mean what they mean to the container: nothing outside of its root.
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    match openat2(image_root, relative, flags, Mode::empty(), resolve) {
        Ok(source) => Ok(Some(source)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTDIR) => Err(FillError::NotDirectory { path: path.to_owned() }),
        Err(err) => Err(FillError::Source { name: name.clone(), path: path.to_owned(), source: err.into() }),
    }
}

/// Moves a complete copy in `directory` into the volume. Can be repeated until it succeeds.
///
/// What is in the way stays: a container that has the volume already wrote it. Its twin goes with the copy to `gone`.
pub(crate) fn settle(directory: &Path, gone: &Path) -> io::Result<()> {
    let (filled, data) = (open_directory(&directory.join(FILLED))?, open_directory(&directory.join(DATA))?);
    // Every move changes the times of both.
    let stat = rustix::fs::fstat(&filled)?;
    // Listed first: a directory that changes while it is read may show an entry twice or never.
    let names = fs::read_dir(directory.join(FILLED))?.map(|entry| Ok(entry?.file_name()));
    for name in names.collect::<io::Result<Vec<_>>>()? {
        match renameat_with(&filled, &name, &data, &name, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Copier::new(data.as_fd())?.describe(filled.as_fd(), data.as_fd(), b".", &stat)?;
    rustix::fs::fsync(&data)?;
    fs::rename(directory.join(FILLED), gone)?;
    Ok(())
}

pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}
