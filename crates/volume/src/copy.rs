//! Copies a tree: everything that a file system keeps of it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use errdefs::ErrorKind;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    copy_file_range, ftruncate, ioctl_ficlone, linkat, mkdirat, mknodat, openat, readlinkat, seek, statat, symlinkat,
    utimensat,
};
use rustix::io::Errno;

/// Levels of directories; each has two open descriptors. `layer` unpacks none that is deeper.
const DEPTH_MAX: usize = 300;

/// Xattrs of one file: the kernel gives at most 64 KiB of names, and 64 KiB of one value (xattr(7), "VFS limits").
const XATTR_BYTES: usize = 64 * 1024;

/// How much is read and written at once where the kernel cannot copy: more does not get faster.
const BUFFER_BYTES: usize = 128 * 1024;

/// Overlayfs' own xattrs belong to a place in a chain, not to the file.
const OVERLAY: &[u8] = b"trusted.overlay.";

/// Why a tree was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Directories nest too deep.
    #[error("directories nest too deep at {}", path.display())]
    TooDeep {
        /// Below the directory that was to be copied.
        path: PathBuf,
    },
    /// The system says no.
    #[error("copy {}", path.display())]
    Io {
        /// Below the directory that was to be copied.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CopyError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// Copies one tree into one empty directory.
pub(crate) struct Copier {
    root: OwnedFd,
    /// The entry that is being copied, below the root.
    path: Vec<u8>,
    /// Where files with several names have their first copy.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    xattr: Vec<u8>,
    /// Whether the file systems can share blocks; known after the first try.
    clone: bool,
    /// Whether the kernel can copy between them, likewise.
    range: bool,
    copied: bool,
}

impl Copier {
    pub(crate) fn new(target: BorrowedFd<'_>) -> io::Result<Copier> {
        Ok(Copier {
            root: target.try_clone_to_owned()?,
            path: Vec::new(),
            links: HashMap::new(),
            buffer: Vec::new(),
            xattr: Vec::new(),
            clone: true,
            range: true,
            copied: false,
        })
    }

    /// Whether the tree had anything in it.
    pub(crate) fn copied_any(&self) -> bool {
        self.copied
    }

    /// Copies everything in `source`, and how that directory itself looks.
    pub(crate) fn copy(&mut self, source: OwnedFd) -> Result<(), CopyError> {
        let target = openat(&self.root, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let target = target.map_err(|err| self.failed(err))?;
        self.entries(&source, &target, 0)?;
        let stat = rustix::fs::fstat(&source).map_err(|err| self.failed(err))?;
        self.describe(source.as_fd(), target.as_fd(), b".", &stat).map_err(|err| self.failed(err))
    }

    fn entries(&mut self, from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<(), CopyError> {
        if depth == DEPTH_MAX {
            return Err(CopyError::TooDeep { path: self.shown() });
        }
        let mut dir = Dir::read_from(from).map_err(|err| self.failed(err))?;
        while let Some(entry) = dir.read() {
            let entry = entry.map_err(|err| self.failed(err))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            self.copied = true;
            let length = self.path.len();
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            self.entry(from, to, name, depth)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, from: &OwnedFd, to: &OwnedFd, name: &[u8], depth: usize) -> Result<(), CopyError> {
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|err| self.failed(err))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let opened = mkdirat(to, name, Mode::RWXU).and_then(|()| Ok((open_dir(from, name)?, open_dir(to, name)?)));
            let (below, copy) = opened.map_err(|err| self.failed(err))?;
            self.entries(&below, &copy, depth + 1)?;
        } else if self.linked(to, name, &stat).map_err(|err| self.failed(err))? {
            return Ok(());
        } else {
            self.content(from, to, name, &stat).map_err(|err| self.failed(err))?;
        }
        self.describe(from.as_fd(), to.as_fd(), name, &stat).map_err(|err| self.failed(err))
    }

    /// Links the file to its first copy, if it has one; else this will be the first.
    fn linked(&mut self, to: &OwnedFd, name: &[u8], stat: &Stat) -> Result<bool, Errno> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
            linkat(&self.root, &first[..], to, name, AtFlags::empty())?;
            return Ok(true);
        }
        self.links.insert((stat.st_dev, stat.st_ino), self.path.clone());
        Ok(false)
    }

    fn content(&mut self, from: &OwnedFd, to: &OwnedFd, name: &[u8], stat: &Stat) -> Result<(), Errno> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(from, to, name),
            FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, to, name),
            // Devices, FIFOs and sockets are names with a number.
            kind => mknodat(to, name, kind, Mode::RUSR, stat.st_rdev),
        }
    }

    fn file(&mut self, from: &OwnedFd, to: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        // Were it exchanged for a FIFO, O_NONBLOCK would keep us from waiting.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = openat(from, name, flags, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
        let size = u64::try_from(rustix::fs::fstat(&source)?.st_size).unwrap_or(0);
        if size == 0 {
            return Ok(());
        }
        if self.clone {
            match ioctl_ficlone(&target, &source) {
                Ok(()) => return Ok(()),
                // Another file system, or one that cannot: its answers differ.
                Err(_) => self.clone = false,
            }
        }
        ftruncate(&target, size)?;
        let mut at = 0;
        while at < size {
            let start = match seek(&source, SeekFrom::Data(at)) {
                Ok(start) => start,
                // Nothing but a hole from here on.
                Err(Errno::NXIO) => break,
                Err(err) => return Err(err),
            };
            let end = seek(&source, SeekFrom::Hole(start))?;
            self.range(&source, &target, start, end)?;
            at = end;
        }
        Ok(())
    }

    /// Copies the bytes from `start` to `end`.
    fn range(&mut self, source: &OwnedFd, target: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
        let mut at = start;
        while self.range && at < end {
            let (mut from, mut to) = (at, at);
            match copy_file_range(source, Some(&mut from), target, Some(&mut to), length(end - at, usize::MAX)) {
                // Some file systems say 0 and mean that they cannot.
                Ok(0) | Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => self.range = false,
                Ok(copied) => at += copied as u64,
                Err(err) => return Err(err),
            }
        }
        self.buffer.resize(BUFFER_BYTES, 0);
        while at < end {
            let wanted = length(end - at, BUFFER_BYTES);
            let read = rustix::io::pread(source, &mut self.buffer[..wanted], at)?;
            if read == 0 {
                return Ok(());
            }
            let mut written = 0;
            while written < read {
                written += rustix::io::pwrite(target, &self.buffer[written..read], at + written as u64)?;
            }
            at += read as u64;
        }
        Ok(())
    }

    /// Gives the copy of an entry that is described by `stat` its owner, xattrs, mode and times, in that order: a new owner
    /// takes set-uid bits and capabilities away, and everything changes the times.
    pub(crate) fn describe(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
    ) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        self.xattrs(&entry_path(from, name), &entry_path(to, name))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
        }
        utimensat(to, name, &times_of(stat), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn xattrs(&mut self, from: &[u8], to: &[u8]) -> Result<(), Errno> {
        self.xattr.resize(XATTR_BYTES, 0);
        let length = match rustix::fs::llistxattr(from, &mut self.xattr[..]) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
            listed => listed?,
        };
        let names = self.xattr[..length].to_vec();
        for name in names.split(|b| *b == 0).filter(|name| !name.is_empty() && !name.starts_with(OVERLAY)) {
            let length = match rustix::fs::lgetxattr(from, name, &mut self.xattr[..]) {
                Err(Errno::NODATA) => continue,
                read => read?,
            };
            match rustix::fs::lsetxattr(to, name, &self.xattr[..length], XattrFlags::empty()) {
                // The volume's file system has none of that kind; dockerd goes on without, too.
                Err(Errno::OPNOTSUPP) => {}
                set => set?,
            }
        }
        Ok(())
    }

    fn failed(&self, err: Errno) -> CopyError {
        CopyError::Io { path: self.shown(), source: err.into() }
    }

    fn shown(&self) -> PathBuf {
        String::from_utf8_lossy(&self.path).into_owned().into()
    }
}

fn open_dir(at: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// An entry by its directory's descriptor, for the calls that take nothing but a path. It follows no link of the entry's.
fn entry_path(directory: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

fn length(bytes: u64, at_most: usize) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX).min(at_most)
}

fn times_of(stat: &Stat) -> Timestamps {
    let time = |tv_sec, nanos: u64| Timespec { tv_sec, tv_nsec: nanos as i64 };
    let last_access = time(stat.st_atime, stat.st_atime_nsec);
    let last_modification = time(stat.st_mtime, stat.st_mtime_nsec);
    Timestamps { last_access, last_modification }
}
