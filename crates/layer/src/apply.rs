//! Makes the files of a layer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::sync_channel;
use std::thread;

use errdefs::ErrorKind;
use oci::Digest;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::pipeline::{self, CHUNKS_AHEAD, ChunkReader, Compression, Fed};
use crate::recipe::Recorder;
use crate::tree::{Directory, Handle, Missing, Tree, is_directory, is_whiteout, join, open_below, stat};
use archive::{Entry, Kind, TarError, TarReader, Time, clean_path};

/// `.wh.NAME` deletes NAME of the layers below (image-spec v1.1 layer.md, "Whiteouts").
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// Deletes everything of the layers below in its directory (layer.md, "Opaque Whiteout").
pub(crate) const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";
/// Other names that begin so are AUFS' own and mean nothing to anyone else.
const AUFS: &[u8] = b".wh..wh.";

/// Memory for the paths of directories and whiteouts, roughly: some million of the usual length.
const PATHS_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Paths that are recorded with the layer, which usually has none or a few.
const LISTED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What applying a layer found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// SHA-256 of the uncompressed tar (image-spec v1.1 config.md, "Layer DiffID").
    pub diff_id: Digest,
    /// SHA-256 of the bytes as they were read.
    pub digest: Digest,
    /// Bytes as they were read.
    pub size: u64,
    /// How they were compressed.
    pub compression: Compression,
    /// Bytes of the uncompressed tar.
    pub tar_bytes: u64,
    /// Lengths of all regular files: what images show as their size.
    pub content_bytes: u64,
    /// How many directories it has, the root among them.
    pub directories: u64,
    /// Directories that no entry describes, parents first; the empty path is the root. For [`crate::inherit`].
    pub implied: Vec<Vec<u8>>,
    /// Paths that it deletes from the layers below. For [`crate::inherit`].
    pub whiteouts: Vec<Vec<u8>>,
}

/// Why a layer cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The archive itself is broken, or cannot be read.
    #[error("read layer")]
    Archive {
        /// Why.
        source: TarError,
    },
    /// A name climbs out of the root. The text is Docker's.
    #[error("invalid entry name {path:?}")]
    Escape {
        /// The name.
        path: String,
    },
    /// A name that no file can have, or a kind of entry that cannot stand there.
    #[error("invalid entry {path:?} in layer")]
    Invalid {
        /// The name.
        path: String,
    },
    /// It has more directories and deletions than any image.
    #[error("layer has too many {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
    },
    /// The system does not make the file.
    #[error("create {path:?} of layer")]
    Create {
        /// Its name.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// What is needed to re-create its tar cannot be written.
    #[error("record layer")]
    Record {
        /// Why.
        source: io::Error,
    },
    /// The directory to fill cannot be opened.
    #[error("open layer directory {}", path.display())]
    Open {
        /// Which one.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ApplyError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ApplyError::Archive { source } if source.is_invalid() => ErrorKind::InvalidArgument,
            ApplyError::Archive { .. } => ErrorKind::Internal,
            ApplyError::Escape { .. } | ApplyError::Invalid { .. } | ApplyError::TooMuch { .. } => {
                ErrorKind::InvalidArgument
            }
            ApplyError::Create { .. } | ApplyError::Record { .. } | ApplyError::Open { .. } => ErrorKind::Internal,
        }
    }
}

/// Applies a layer of any known compression to `directory`, which exists, is empty and private.
///
/// Blocks; runs two threads of its own. Nothing is synced. After an error the directory holds a part of the layer.
pub fn apply(source: impl Read + Send, directory: &Path) -> Result<Applied, ApplyError> {
    apply_limited(source, directory, u64::MAX)
}

/// [`apply`] for a layer that fails when its tar is longer than `limit_bytes`, before the disk is full of it.
pub fn apply_limited(source: impl Read + Send, directory: &Path, limit_bytes: u64) -> Result<Applied, ApplyError> {
    run(source, directory, limit_bytes, None)
}

/// [`apply_limited`], and writes to `recipe` what [`crate::recreate`] needs to make the same tar of the directory again.
pub fn apply_recorded(
    source: impl Read + Send,
    directory: &Path,
    limit_bytes: u64,
    recipe: &mut dyn Write,
) -> Result<Applied, ApplyError> {
    let recorder = Recorder::begin(recipe).map_err(|source| ApplyError::Record { source })?;
    run(source, directory, limit_bytes, Some(recorder))
}

/// Does what [`apply_recorded`] does of a layer that was packed from `directory` as it is, and whose files are all there: they stay
/// what they are. The layer is ours: each directory is described before what is in it.
pub fn record(source: impl Read + Send, directory: &Path, recipe: &mut dyn Write) -> Result<Applied, ApplyError> {
    let recorder = Recorder::begin(recipe).map_err(|source| ApplyError::Record { source })?;
    let root = open_root(directory)?;
    apply_with(source, u64::MAX, Some(recorder), |tar| crate::record::read(tar, &root))
}

fn run(
    source: impl Read + Send,
    directory: &Path,
    limit_bytes: u64,
    recorder: Option<Recorder<'_>>,
) -> Result<Applied, ApplyError> {
    let root = open_root(directory)?;
    apply_with(source, limit_bytes, recorder, |tar| unpack(tar, root))
}

fn open_root(directory: &Path) -> Result<OwnedFd, ApplyError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, directory, flags, Mode::empty());
    root.map_err(|err| ApplyError::Open { path: directory.to_owned(), source: err.into() })
}

/// Inflates and hashes a layer on threads of their own while `unpack` reads its tar on this one.
fn apply_with(
    source: impl Read + Send,
    limit_bytes: u64,
    recorder: Option<Recorder<'_>>,
    unpack: impl FnOnce(TarReader<ChunkReader<'_>>) -> Result<Unpacked, ApplyError>,
) -> Result<Applied, ApplyError> {
    let (chunks, received) = sync_channel(CHUNKS_AHEAD);
    let (to_hash, hashed) = sync_channel(CHUNKS_AHEAD);
    thread::scope(|scope| {
        let feeding = scope.spawn(move || pipeline::feed(source, limit_bytes, chunks, to_hash));
        let hashing = scope.spawn(move || pipeline::hash(hashed));
        let unpacked = unpack(TarReader::new(ChunkReader::new(received, recorder)));
        let fed = feeding.join().expect("feeding has no invariant to break");
        let (diff_id, tar_bytes) = hashing.join().expect("hashing has no invariant to break");
        let Unpacked { content_bytes, directories, implied, whiteouts } = unpacked?;
        let fed = fed.expect("who was fed to the end was fed");
        let digest = fed.digest.unwrap_or_else(|| diff_id.clone());
        let Fed { size, compression, .. } = fed;
        Ok(Applied { diff_id, digest, size, compression, tar_bytes, content_bytes, directories, implied, whiteouts })
    })
}

fn unpack(mut tar: TarReader<ChunkReader<'_>>, root: OwnedFd) -> Result<Unpacked, ApplyError> {
    let archive = |source| ApplyError::Archive { source };
    let tree = Tree::new(root, tar.source().recorder.is_some());
    let mut unpacking = Unpacking { tree, content_bytes: 0, whiteouts: Vec::new(), whiteouts_bytes: 0 };
    while let Some(entry) = tar.next_entry().map_err(archive)? {
        unpacking.entry(&entry, &mut tar)?;
    }
    tar.drain().map_err(archive)?;
    if let Some(recorder) = tar.source().recorder.take() {
        let recorded = recorder.finish(unpacking.tree.originals.take());
        recorded.map_err(|source| ApplyError::Record { source })?;
    }
    unpacking.finish()
}

/// Why one entry was not made: its own fault, the system's, or the stream's.
enum Failure {
    Invalid,
    System(Errno),
    Archive(TarError),
    Write(io::Error),
}

impl From<Errno> for Failure {
    fn from(err: Errno) -> Failure {
        Failure::System(err)
    }
}

impl From<TarError> for Failure {
    fn from(err: TarError) -> Failure {
        Failure::Archive(err)
    }
}

impl Failure {
    fn of(self, path: &[u8]) -> ApplyError {
        let path = String::from_utf8_lossy(path).into_owned();
        match self {
            Failure::Invalid => ApplyError::Invalid { path },
            Failure::System(err) => ApplyError::Create { path, source: err.into() },
            Failure::Write(source) => ApplyError::Create { path, source },
            Failure::Archive(source) => ApplyError::Archive { source },
        }
    }
}

struct Unpacking {
    tree: Tree,
    content_bytes: u64,
    whiteouts: Vec<Vec<u8>>,
    whiteouts_bytes: usize,
}

/// What is found out while the files of a layer are made.
pub(crate) struct Unpacked {
    pub(crate) content_bytes: u64,
    pub(crate) directories: u64,
    pub(crate) implied: Vec<Vec<u8>>,
    pub(crate) whiteouts: Vec<Vec<u8>>,
}

impl Unpacking {
    fn entry(&mut self, entry: &Entry, tar: &mut TarReader<ChunkReader<'_>>) -> Result<(), ApplyError> {
        let Some(path) = clean_path(&entry.path) else {
            return Err(ApplyError::Escape { path: String::from_utf8_lossy(&entry.path).into_owned() });
        };
        self.place(entry, &path, tar).map_err(|failure| failure.of(&path))?;
        match self.tree.bytes() + self.whiteouts_bytes {
            ..=PATHS_BYTES_MAX => Ok(()),
            _ => Err(ApplyError::TooMuch { what: "directories" }),
        }
    }

    fn place(&mut self, entry: &Entry, path: &[u8], tar: &mut TarReader<ChunkReader<'_>>) -> Result<(), Failure> {
        if path.is_empty() {
            return self.root(entry);
        }
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        let is_aufs = |name: &[u8]| name.starts_with(AUFS) && name != OPAQUE_WHITEOUT;
        if path.split(|b| *b == b'/').any(is_aufs) {
            return Ok(());
        }
        let parent = self.tree.directory(parent, Missing::Make)?;
        if name == OPAQUE_WHITEOUT {
            self.tree.set_opaque(&parent.fd)?;
            self.directory(&parent.path).opaque = true;
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(&parent, hidden);
        }
        match entry.kind {
            Kind::Directory => self.make_directory(&parent, name, entry),
            Kind::File => self.make_file(&parent, name, entry, tar),
            Kind::HardLink => self.make_link(&parent, name, entry),
            _ => self.make_node(&parent, name, entry),
        }
    }

    fn directory(&mut self, path: &[u8]) -> &mut Directory {
        self.tree.directories.entry(path.to_vec()).or_default()
    }

    fn root(&mut self, entry: &Entry) -> Result<(), Failure> {
        if entry.kind != Kind::Directory {
            return Err(Failure::Invalid);
        }
        let root = self.tree.root().fd.clone();
        describe(&root, entry)?;
        let directory = self.directory(b"");
        (directory.implied, directory.mtime) = (false, entry.mtime);
        Ok(())
    }

    /// Hides what the layers below have under that name, and nothing of this layer (layer.md, "Whiteouts").
    fn whiteout(&mut self, parent: &Handle, name: &[u8]) -> Result<(), Failure> {
        if matches!(name, b"" | b"." | b"..") {
            return Err(Failure::Invalid);
        }
        match rustix::fs::mknodat(&*parent.fd, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Err(Errno::EXIST) => {}
            other => {
                let path = join(&parent.path, name);
                self.whiteouts_bytes += size_of::<Vec<u8>>() + path.len();
                self.whiteouts.push(path);
                return Ok(other?);
            }
        }
        if is_directory(&stat(parent, name)?) {
            self.tree.set_opaque(&open_below(&*parent.fd, name)?)?;
            let directory = self.directory(&join(&parent.path, name));
            (directory.opaque, directory.replaced) = (true, true);
        }
        Ok(())
    }

    fn make_directory(&mut self, parent: &Handle, name: &[u8], entry: &Entry) -> Result<(), Failure> {
        match self.tree.make(parent, name, Directory::default()) {
            Err(Errno::EXIST) => {
                if is_directory(&stat(parent, name)?) {
                    // Described before, perhaps as someone else's.
                    rustix::fs::chownat(
                        &*parent.fd,
                        name,
                        Some(Uid::ROOT),
                        Some(Gid::ROOT),
                        AtFlags::SYMLINK_NOFOLLOW,
                    )?;
                } else {
                    // What stood here hid what is below, whether it was a whiteout or a file.
                    self.tree.remove(parent, name)?;
                    self.tree.make(parent, name, Directory { opaque: true, replaced: true, ..Directory::default() })?;
                }
            }
            other => other?,
        }
        describe_at(parent, name, entry)?;
        let directory = self.directory(&join(&parent.path, name));
        (directory.implied, directory.mtime) = (false, entry.mtime);
        Ok(())
    }

    fn make_file(
        &mut self,
        parent: &Handle,
        name: &[u8],
        entry: &Entry,
        tar: &mut TarReader<ChunkReader<'_>>,
    ) -> Result<(), Failure> {
        let fd = self.replacing(parent, name, |parent| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&*parent.fd, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        let mut file = File::from(fd);
        if entry.segments.is_none() && entry.size > 0 {
            self.record(parent, name, entry.size, tar);
        }
        match &entry.segments {
            None => loop {
                let chunk = tar.chunk()?;
                if chunk.is_empty() {
                    break;
                }
                file.write_all(chunk).map_err(Failure::Write)?;
                let length = chunk.len();
                tar.consume(length);
            },
            Some(segments) => write_segments(&file, entry, segments, tar)?,
        }
        // Sparse files need no data to be long.
        self.content_bytes = self.content_bytes.saturating_add(entry.size).min(i64::MAX as u64);
        let fd = OwnedFd::from(file);
        describe(&fd, entry)?;
        Ok(rustix::fs::futimens(&fd, &times(entry.mtime))?)
    }

    /// The data that comes is in a file. Of files with holes it stays in the recipe: how they lie in it need not be known.
    fn record(&mut self, parent: &Handle, name: &[u8], length: u64, tar: &mut TarReader<ChunkReader<'_>>) {
        if let (Some(recorder), Some(originals)) = (&mut tar.source().recorder, &mut self.tree.originals) {
            let path = join(&parent.path, name);
            originals.made(&path, recorder.file(&path, length));
        }
    }

    fn make_link(&mut self, parent: &Handle, name: &[u8], entry: &Entry) -> Result<(), Failure> {
        let target = clean_path(&entry.link).filter(|target| !target.is_empty()).ok_or(Failure::Invalid)?;
        let (at, target) = match target.iter().rposition(|b| *b == b'/') {
            Some(slash) => (self.tree.directory(&target[..slash], Missing::Fail)?, &target[slash + 1..]),
            None => (self.tree.root().clone(), &target[..]),
        };
        // To replace a file by a link to itself would remove it.
        if at.path == parent.path && target == name {
            return Err(Failure::Invalid);
        }
        self.replacing(parent, name, |parent| {
            rustix::fs::linkat(&*at.fd, target, &*parent.fd, name, AtFlags::empty())
        })?;
        Ok(())
    }

    fn make_node(&mut self, parent: &Handle, name: &[u8], entry: &Entry) -> Result<(), Failure> {
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        let node = |kind, device| {
            move |parent: &Handle| rustix::fs::mknodat(&*parent.fd, name, kind, Mode::RUSR | Mode::WUSR, device)
        };
        match entry.kind {
            Kind::Symlink if entry.link.is_empty() => return Err(Failure::Invalid),
            Kind::Symlink => {
                self.replacing(parent, name, |parent| rustix::fs::symlinkat(&entry.link[..], &*parent.fd, name))?
            }
            Kind::CharDevice => self.replacing(parent, name, node(FileType::CharacterDevice, device))?,
            Kind::BlockDevice => self.replacing(parent, name, node(FileType::BlockDevice, device))?,
            _ => self.replacing(parent, name, node(FileType::Fifo, 0))?,
        }
        describe_at(parent, name, entry)?;
        Ok(rustix::fs::utimensat(&*parent.fd, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Makes something that is no directory; a later entry of a name replaces an earlier one.
    fn replacing<T>(
        &mut self,
        parent: &Handle,
        name: &[u8],
        make: impl Fn(&Handle) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match make(parent) {
            Err(Errno::EXIST) => {
                self.tree.remove(parent, name)?;
                make(parent)
            }
            other => other,
        }
    }

    /// Times of directories, and the lists of what the layers below must complete.
    fn finish(mut self) -> Result<Unpacked, ApplyError> {
        let mut whiteouts = std::mem::take(&mut self.whiteouts);
        let mut failed = None;
        whiteouts.retain(|path| {
            let kept = self.settle_whiteout(path);
            failed = failed.take().or(kept.as_ref().err().map(|err| (path.clone(), *err)));
            kept.unwrap_or(false)
        });
        if let Some((path, err)) = failed {
            return Err(Failure::System(err).of(&path));
        }
        let root = self.tree.root().fd.clone();
        let mut implied = Vec::new();
        for (path, directory) in &self.tree.directories {
            let set = || -> Result<(), Errno> {
                let fd = open_below(&*root, if path.is_empty() { b"." } else { path })?;
                rustix::fs::futimens(&fd, &times(directory.mtime))
            };
            set().map_err(|err| Failure::System(err).of(path))?;
            if directory.implied && !directory.replaced && !self.hidden(path) {
                implied.push(path.clone());
            }
        }
        if implied.iter().chain(&whiteouts).map(Vec::len).sum::<usize>() > LISTED_BYTES_MAX {
            return Err(ApplyError::TooMuch { what: "directories without description, or whiteouts" });
        }
        let directories = self.tree.directories.len() as u64;
        Ok(Unpacked { content_bytes: self.content_bytes, directories, implied, whiteouts })
    }

    /// Whether a whiteout still stands and has something to hide; below an opaque directory it goes.
    fn settle_whiteout(&self, path: &[u8]) -> Result<bool, Errno> {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        let above = parent(path).filter(|above| !above.is_empty()).unwrap_or(b".");
        // Something else stands in its way now: it was replaced with all that was above it.
        let fd = match open_below(&*self.tree.root().fd, above) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            other => Rc::new(other?),
        };
        let at = Handle { path: above.to_vec(), fd };
        match stat(&at, name) {
            Ok(stat) if !is_whiteout(&stat) => return Ok(false),
            Err(Errno::NOENT) => return Ok(false),
            other => other?,
        };
        if self.hidden(path) {
            rustix::fs::unlinkat(&*at.fd, name, AtFlags::empty())?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Below an opaque directory nothing of the layers below exists.
    fn hidden(&self, path: &[u8]) -> bool {
        let mut above = std::iter::successors(parent(path), |path| parent(path));
        above.any(|path| self.tree.directories.get(path).is_some_and(|directory| directory.opaque))
    }
}

fn parent(path: &[u8]) -> Option<&[u8]> {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => Some(&path[..slash]),
        None if path.is_empty() => None,
        None => Some(b""),
    }
}

fn write_segments(
    file: &File,
    entry: &Entry,
    segments: &[crate::Segment],
    tar: &mut TarReader<ChunkReader<'_>>,
) -> Result<(), Failure> {
    for segment in segments {
        let (mut offset, mut left) = (segment.offset, segment.length);
        while left > 0 {
            let chunk = tar.chunk()?;
            let length = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            file.write_all_at(&chunk[..length], offset).map_err(Failure::Write)?;
            tar.consume(length);
            (offset, left) = (offset + length as u64, left - length as u64);
        }
    }
    file.set_len(entry.size).map_err(Failure::Write)
}

/// Owner, xattrs and mode of an open file, in this order: chown(2) clears set-id bits and file capabilities.
fn describe(fd: &OwnedFd, entry: &Entry) -> Result<(), Errno> {
    if (entry.uid, entry.gid) != (0, 0) {
        rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    }
    for (name, value) in xattrs(entry) {
        allow_unsupported(name, rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()))?;
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
}

/// The same for what cannot be opened, or must not be.
fn describe_at(parent: &Handle, name: &[u8], entry: &Entry) -> Result<(), Errno> {
    if (entry.uid, entry.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::chownat(&*parent.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    for (xattr, value) in xattrs(entry) {
        // There is no setxattrat before Linux 6.13. One component, and nobody else changes the directory.
        let mut path = format!("/proc/self/fd/{}/", parent.fd.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        allow_unsupported(xattr, rustix::fs::lsetxattr(&path[..], xattr, value, XattrFlags::empty()))?;
    }
    if entry.kind == Kind::Symlink {
        return Ok(());
    }
    rustix::fs::chmodat(&*parent.fd, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
}

/// Overlayfs' own xattrs in an archive would let a layer redirect the lookup of others.
fn xattrs(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    let foreign = |name: &[u8]| !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.");
    entry.xattrs.iter().map(|(name, value)| (&name[..], &value[..])).filter(move |(name, _)| foreign(name))
}

/// A file system without that kind of xattr, or `user.*` on what is no file: dockerd goes on, too.
fn allow_unsupported(name: &[u8], result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::PERM) if name.starts_with(b"user.") => Ok(()),
        other => other,
    }
}

pub(crate) fn times(mtime: Time) -> Timestamps {
    let time = Timespec { tv_sec: mtime.secs, tv_nsec: i64::from(mtime.nanos) };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests;
