//! The user's files: packed and unpacked on a thread that may block.

use std::fs;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use archive::{Overwrite, Owner, Pack, PackError, Resolution, TarReader, TarWriter, Unpack, UnpackError};
use bytes::Bytes;
use engine_api::paths::clean;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, open, openat};
use rustix::io::Errno;
use tokio::sync::mpsc;

use crate::plan::copy::{self, Place};
use crate::report::{Exit, chain, go_error};

/// How much is handed on at once.
const PIECE_BYTES: usize = 128 << 10;

/// Links that are followed at the end of a destination (moby/go-archive).
const LINKS_MAX: u32 = 10;

/// Links after which Go takes a path for a loop.
const EVALUATED_LINKS_MAX: u32 = 255;

fn failed(what: &str, path: &str, err: &io::Error) -> Exit {
    Exit::new(1, format!("{what} {path}: {}", go_error(err)))
}

/// A path of the user's from the root.
pub(super) fn absolute(path: &str) -> Result<String, Exit> {
    let directory = std::env::current_dir().map_err(|err| Exit::error(&err))?;
    Ok(copy::absolute(&directory.to_string_lossy(), path))
}

/// Whether anything can be written there.
pub(super) fn check_output(path: &str) -> Result<(), Exit> {
    let above = copy::parent(&clean(path));
    if fs::metadata(&above).is_err_and(|err| err.kind() == io::ErrorKind::NotFound) {
        return Err(Exit::new(1, format!("invalid output path: directory {above:?} does not exist")));
    }
    let found = match rustix::fs::stat(path) {
        Ok(found) => found,
        Err(Errno::NOTDIR) => return Err(failed("stat", path, &Errno::NOTDIR.into())),
        Err(_) => return Ok(()),
    };
    let reason = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory | FileType::RegularFile => return Ok(()),
        FileType::CharacterDevice | FileType::BlockDevice => "got a device",
        _ => "got an irregular file",
    };
    Err(Exit::new(1, format!("invalid output path: {path:?} must be a directory or a regular file: {reason}")))
}

/// What there is to copy; the links before the last part are followed, that one only if `follow`.
pub(super) fn source(path: &str, follow: bool) -> Result<Place, Exit> {
    let resolve = |path: &str| fs::canonicalize(path).map_err(|err| dead_end(path, &err));
    let (resolved, asked_name) = match follow {
        true => copy::followed(path, &resolve(path)?.to_string_lossy()),
        false => {
            let (above, last) = path.rsplit_once('/').unwrap_or(("", path));
            let above = resolve(if above.is_empty() { "/" } else { above })?;
            let resolved = format!("{}/{last}", above.to_string_lossy().trim_end_matches('/'));
            let asked = if path.ends_with('/') && copy::base(path) != copy::base(&resolved) {
                copy::base(path).to_owned()
            } else {
                String::new()
            };
            (resolved, asked)
        }
    };
    let found = fs::symlink_metadata(&resolved).map_err(|err| match err.kind() {
        io::ErrorKind::NotADirectory if path.ends_with('/') || path.ends_with("/.") => Exit::new(1, "not a directory"),
        _ => failed("lstat", &resolved, &err),
    })?;
    Ok(Place { path: resolved, exists: true, is_directory: found.is_dir(), asked_name })
}

/// Names what a path of links leads to and is not there, as Go's `filepath.EvalSymlinks` does.
fn dead_end(path: &str, err: &io::Error) -> Exit {
    let parts = |path: &Path| path.components().rev().map(|part| part.as_os_str().to_owned()).collect::<Vec<_>>();
    let (mut at, mut rest, mut links) = (PathBuf::new(), parts(Path::new(path)), 0);
    while let Some(part) = rest.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(part);
        match fs::symlink_metadata(&next) {
            Err(err) => return failed("lstat", &next.to_string_lossy(), &err),
            Ok(found) if found.is_symlink() && links < EVALUATED_LINKS_MAX => {
                links += 1;
                rest.extend(fs::read_link(&next).iter().flat_map(|link| parts(link)));
            }
            Ok(_) => at = next,
        }
    }
    // It came back meanwhile.
    failed("lstat", path, err)
}

/// Packs what is at a place.
pub(super) fn pack(
    source: &Place,
    top: &str,
    pieces: mpsc::Sender<io::Result<Bytes>>,
    copied: Arc<AtomicU64>,
) -> Result<(), Exit> {
    let path = match source.path.trim_end_matches('/') {
        "" => "/",
        path => path,
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = open(path, flags, Mode::empty()).map_err(|err| failed("lstat", path, &err.into()))?;
    let mut tar = TarWriter::new(BufWriter::with_capacity(PIECE_BYTES, Pieces { pieces, copied }));
    let is_carried = |xattr: &[u8]| xattr == b"security.capability" || xattr.starts_with(b"user.");
    let options =
        Pack { name: top.as_bytes(), xattr: is_carried, holes: false, still: false, entry: &mut |_, _, _| Ok(true) };
    let packed = archive::pack(&mut tar, place, options);
    match packed.and_then(|()| tar.finish().map_err(PackError::Write)) {
        Ok(_) => Ok(()),
        // The daemon has enough, and says why.
        Err(PackError::Write(_)) => Err(Exit::silent(1)),
        Err(err) => Err(Exit::new(1, chain(&err))),
    }
}

/// Where an archive that is sent goes.
struct Pieces {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    copied: Arc<AtomicU64>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.pieces.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.copied.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An archive that comes.
pub(super) struct Archive {
    pub(super) pieces: mpsc::Receiver<Bytes>,
    pub(super) current: Bytes,
    pub(super) copied: Arc<AtomicU64>,
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        self.copied.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// Unpacks what a container sent. What it sends may be meant to leave the destination: it cannot.
pub(super) fn unpack(archive: Archive, source: &Place, destination: &str) -> Result<(), Exit> {
    let destination = followed(destination)?;
    let target = copy::target(source, &destination).map_err(|err| Exit::error(&err))?;
    let top = copy::top_name(source, &target);
    let own = copy::split(&source.path).1;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root: OwnedFd = openat(CWD, &*target.directory, flags, Mode::empty())
        .map_err(|err: Errno| failed("open", &target.directory, &err.into()))?;
    let unpack = Unpack {
        root: root.as_fd(),
        directory: b"",
        resolution: Resolution::Beneath,
        overwrite: Overwrite::Refuse,
        owner: Owner::Mine,
        rename: (top != own).then_some((own.as_bytes(), top.as_bytes())),
        top: false,
    };
    let mut tar = TarReader::new(BufReader::with_capacity(PIECE_BYTES, archive));
    archive::unpack(&mut tar, &unpack).map_err(|err| match err {
        UnpackError::IsDirectory { path, .. } => {
            let path = format!("{}/{path}", target.directory.trim_end_matches('/'));
            Exit::new(1, format!("cannot overwrite directory {path:?} with non-directory {:?}", target.directory))
        }
        UnpackError::IsNoDirectory { path, .. } => {
            let path = format!("{}/{path}", target.directory.trim_end_matches('/'));
            Exit::new(1, format!("cannot overwrite non-directory {path:?} with directory {:?}", target.directory))
        }
        err => Exit::new(1, chain(&err)),
    })
}

/// Unpacks files that are to be the user's into a directory; what is there and has their names is replaced, but no directory by
/// what is none.
pub(super) fn unpack_into(archive: Archive, directory: &str) -> Result<(), Exit> {
    fs::create_dir_all(directory).map_err(|err| failed("mkdir", directory, &err))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root: OwnedFd =
        openat(CWD, directory, flags, Mode::empty()).map_err(|err: Errno| failed("open", directory, &err.into()))?;
    let unpack = Unpack {
        root: root.as_fd(),
        directory: b"",
        resolution: Resolution::Beneath,
        overwrite: Overwrite::Refuse,
        owner: Owner::Mine,
        rename: None,
        top: false,
    };
    let mut tar = TarReader::new(BufReader::with_capacity(PIECE_BYTES, archive));
    archive::unpack(&mut tar, &unpack).map_err(|err| Exit::new(1, chain(&err)))
}

/// What is at a destination, through the links at its end; there must be a directory to make it in.
fn followed(path: &str) -> Result<Place, Exit> {
    let mut path = path.to_owned();
    for _ in 0..=LINKS_MAX {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                let link = fs::read_link(&path).map_err(|err| failed("readlink", &path, &err))?;
                let link = link.to_string_lossy().into_owned();
                path = if link.starts_with('/') { link } else { format!("{}/{link}", copy::split(&path).0) };
            }
            Ok(found) => {
                return Ok(Place { path, exists: true, is_directory: found.is_dir(), asked_name: String::new() });
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                let above = copy::split(&path).0;
                let found = fs::metadata(Path::new(&above)).map_err(|err| failed("stat", &above, &err))?;
                if !found.is_dir() {
                    return Err(Exit::new(1, "not a directory"));
                }
                return Ok(Place { path, ..Place::default() });
            }
            Err(err) => return Err(failed("lstat", &path, &err)),
        }
    }
    Err(Exit::new(1, format!("too many symlinks in {path}")))
}
