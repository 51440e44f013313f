//! A part of a volume, for `--mount type=volume,volume-subpath=PATH`.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use errdefs::ErrorKind;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat};
use rustix::io::Errno;
use sys::open::openat2;

use crate::record::Volume;

/// Why [`open_subpath`] failed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum SubpathError {
    /// It leads out of the volume.
    #[error("path concatenation escapes the base directory, base: {}, subpath: {}", base.display(), subpath.display())]
    Escapes {
        /// The volume's data.
        base: PathBuf,
        /// The path in it.
        subpath: PathBuf,
    },
    /// The volume has no such file.
    #[error("cannot access path {path}: lstat {path}: no such file or directory", path = path.display())]
    Missing {
        /// The whole path.
        path: PathBuf,
    },
    /// The system says no.
    #[error("cannot access path {}", path.display())]
    Io {
        /// The whole path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SubpathError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SubpathError::Escapes { .. } => ErrorKind::InvalidArgument,
            SubpathError::Missing { .. } => ErrorKind::NotFound,
            SubpathError::Io { .. } => ErrorKind::Internal,
        }
    }
}

/// Opens (O_PATH) what lies at `subpath` in a volume. Containers may have filled it with links and may be changing them:
/// what is opened is in the volume, whatever they do, and only the descriptor says what it is.
///
/// `..` of the path itself takes the part before it away, link or not: dockerd's meaning.
pub fn open_subpath(volume: &Volume, subpath: &Path) -> Result<OwnedFd, SubpathError> {
    let Some(clean) = clean(subpath) else {
        return Err(SubpathError::Escapes { base: volume.mountpoint.clone(), subpath: subpath.to_owned() });
    };
    let path = volume.mountpoint.join(&clean);
    let failed = |err: Errno| match err {
        // RESOLVE_BENEATH answers an absolute path or link and a climb out of the base with it.
        Errno::XDEV => SubpathError::Escapes { base: volume.mountpoint.clone(), subpath: subpath.to_owned() },
        Errno::NOENT => SubpathError::Missing { path: path.clone() },
        err => SubpathError::Io { path: path.clone(), source: err.into() },
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let base = openat(CWD, &volume.mountpoint, flags, Mode::empty()).map_err(failed)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(&base, &clean, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).map_err(failed)
}

/// `None` if it climbs out, or is absolute.
fn clean(subpath: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in subpath.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir if clean.pop() => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(if clean.as_os_str().is_empty() { PathBuf::from(".") } else { clean })
}
