//! Packs a tree: the same tree gives the same bytes.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::sparse::Segment;
use crate::tar::{Entry, Kind, Time};
use crate::tree::{child, proc_path, reopen};
use crate::write::TarWriter;

/// How much of a file is read at once.
const COPY_BYTES: usize = 256 * 1024;

/// Levels of directories, each of which holds a descriptor: deeper ones have no name that a program could use.
const DEPTH_MAX: usize = 1024;

/// What a file must save before its holes are told: not every program knows them.
const HOLES_MIN_BYTES: u64 = 1024 * 1024;

/// The kernel gives at most so many bytes of names, and of one value (xattr(7), "VFS limits").
const XATTR_BYTES: usize = 64 * 1024;

/// Something that was found.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Its path below the top, without a slash at either end; empty for the top itself.
    pub path: &'a [u8],
    /// What it is.
    pub stat: &'a Stat,
    /// Itself, as a place (`O_PATH`).
    pub place: BorrowedFd<'a>,
}

/// Changes an entry, and what follows it, or leaves it out by `false`.
pub type Change<'a> = dyn FnMut(&Seen<'_>, &mut Entry, &mut Vec<Entry>) -> io::Result<bool> + 'a;

/// What is packed, and how.
pub struct Pack<'a> {
    /// What the top is called in the archive; empty if it has no entry, and what is in it no prefix.
    pub name: &'a [u8],
    /// Which xattrs are kept.
    pub xattr: fn(&[u8]) -> bool,
    /// Whether sparse files are written as such.
    pub holes: bool,
    /// Whether nobody else changes the tree, so that what was a file is one still when it is opened by its name.
    pub still: bool,
    /// Has the last word about each entry.
    pub entry: &'a mut Change<'a>,
}

/// Why a tree was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Something cannot be read.
    #[error("read {path:?}")]
    Read {
        /// Its path below the top.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Directories nest deeper than any path is long.
    #[error("directories nest too deep: {path:?}")]
    TooDeep {
        /// The first one that is too deep.
        path: String,
    },
    /// Nobody takes the archive.
    #[error("write the archive")]
    Write(#[source] io::Error),
}

/// A directory that is being read.
struct Level {
    directory: OwnedFd,
    /// What is still to do, the next one last.
    names: Vec<CString>,
    path: Vec<u8>,
}

struct Packing<'a, 'b, W> {
    tar: &'a mut TarWriter<W>,
    options: Pack<'b>,
    /// Files of more than one name, by device and inode, and the first name.
    linked: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    levels: Vec<Level>,
}

/// Packs what `top` stands for (`O_PATH`, not followed) with all that is in it. Does not end the archive. Blocks.
///
/// Others may be changing the tree: what vanishes meanwhile is not there, a file that shrinks ends in zeros. Sockets have
/// no place in archives.
pub fn pack<W: Write>(tar: &mut TarWriter<W>, top: OwnedFd, options: Pack<'_>) -> Result<(), PackError> {
    let mut packing = Packing { tar, options, linked: HashMap::new(), buffer: vec![0; COPY_BYTES], levels: Vec::new() };
    let stat = rustix::fs::fstat(&top).map_err(|err| read_error(b"", err))?;
    packing.one(Vec::new(), Found { stat, place: top, is_open: false })?;
    while let Some(level) = packing.levels.last_mut() {
        let Some(name) = level.names.pop() else {
            packing.levels.pop();
            continue;
        };
        let path = join(&level.path, name.to_bytes());
        match Found::at(&level.directory, &name, packing.options.still) {
            Ok(found) => packing.one(path, found)?,
            Err(Errno::NOENT) => {}
            Err(err) => return Err(read_error(&path, err)),
        }
    }
    Ok(())
}

/// Something on its way into an archive.
struct Found {
    stat: Stat,
    place: OwnedFd,
    /// Whether `place` can be read; else it is `O_PATH`.
    is_open: bool,
}

impl Found {
    fn at(directory: &OwnedFd, name: &CStr, still: bool) -> Result<Found, Errno> {
        if still {
            let stat = stat_at(directory, name)?;
            let is_open = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            let access = if is_open { OFlags::RDONLY } else { OFlags::PATH };
            let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let place = rustix::fs::openat(directory, name, flags, Mode::empty())?;
            return Ok(Found { stat, place, is_open });
        }
        let place = child(directory, name)?;
        let stat = rustix::fs::fstat(&place)?;
        Ok(Found { stat, place, is_open: false })
    }

    /// Its bytes. Never by its name where that may be a device's by now, which does something when it is opened.
    fn file(self) -> Result<std::fs::File, Errno> {
        if self.is_open { Ok(self.place.into()) } else { Ok(reopen(&self.place, OFlags::RDONLY)?.into()) }
    }
}

pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        b"" => name.to_vec(),
        directory if directory.ends_with(b"/") => [directory, name].concat(),
        directory => [directory, name].join(&b'/'),
    }
}

fn read_error(path: &[u8], source: impl Into<io::Error>) -> PackError {
    PackError::Read { path: String::from_utf8_lossy(path).into_owned(), source: source.into() }
}

impl<W: Write> Packing<'_, '_, W> {
    /// Packs one thing; of a directory what is in it comes next.
    fn one(&mut self, path: Vec<u8>, found: Found) -> Result<(), PackError> {
        let Some(mut entry) = self.describe(&path, &found)? else { return Ok(()) };
        let mut more = Vec::new();
        let seen = Seen { path: &path, stat: &found.stat, place: found.place.as_fd() };
        let kept = (self.options.entry)(&seen, &mut entry, &mut more).map_err(|err| read_error(&path, err))?;
        if !kept {
            return Ok(());
        }
        if FileType::from_raw_mode(found.stat.st_mode) != FileType::Directory {
            if !entry.path.is_empty() {
                self.write(&path, found, entry)?;
            }
            return self.follow(&more);
        }
        if !entry.path.is_empty() {
            entry.device = (0, 0);
            self.tar.begin(&entry).map_err(PackError::Write)?;
        }
        self.follow(&more)?;
        self.enter(path, found.place)
    }

    /// Writes what follows an entry.
    fn follow(&mut self, more: &[Entry]) -> Result<(), PackError> {
        more.iter().try_for_each(|entry| self.tar.begin(entry).map_err(PackError::Write))
    }

    fn describe(&mut self, path: &[u8], found: &Found) -> Result<Option<Entry>, PackError> {
        let Found { stat, place, is_open } = found;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            _ => return Ok(None),
        };
        let link = match kind {
            Kind::Symlink => rustix::fs::readlinkat(place, "", Vec::new()).map_err(|err| read_error(path, err))?,
            _ => CString::default(),
        };
        let xattrs = xattrs(place, *is_open, self.options.xattr).map_err(|err| read_error(path, err))?;
        let name = self.options.name;
        Ok(Some(Entry {
            path: if path.is_empty() { name.to_vec() } else { join(name, path) },
            kind,
            link: link.into_bytes(),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            // Whole seconds, as everybody packs: a fraction costs each file two blocks.
            mtime: Time { secs: stat.st_mtime, nanos: 0 },
            size: if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
            device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            xattrs,
            segments: None,
        }))
    }

    /// Writes something that is no directory.
    fn write(&mut self, path: &[u8], found: Found, mut entry: Entry) -> Result<(), PackError> {
        let stat = found.stat;
        if !matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
            entry.device = (0, 0);
        }
        if stat.st_nlink > 1 {
            let identity = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.linked.get(&identity) {
                (entry.kind, entry.link, entry.size) = (Kind::HardLink, first.clone(), 0);
                entry.xattrs.clear();
                return self.tar.begin(&entry).map_err(PackError::Write);
            }
            self.linked.insert(identity, entry.path.clone());
        }
        if entry.kind != Kind::File || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return self.tar.begin(&entry).map_err(PackError::Write);
        }
        let file = found.file().map_err(|err| read_error(path, err))?;
        self.file(path, file, &stat, entry)
    }

    fn file(&mut self, path: &[u8], mut file: std::fs::File, stat: &Stat, mut entry: Entry) -> Result<(), PackError> {
        let failed = |err: io::Error| read_error(path, err);
        let stored = u64::try_from(stat.st_blocks).unwrap_or(u64::MAX).saturating_mul(512);
        if self.options.holes && stored.saturating_add(HOLES_MIN_BYTES) < entry.size {
            entry.segments = Some(segments(&file, entry.size).map_err(failed)?);
        }
        self.tar.begin(&entry).map_err(PackError::Write)?;
        let whole = [Segment { offset: 0, length: entry.size }];
        let segments = entry.segments.as_deref();
        for segment in segments.unwrap_or(&whole) {
            if segments.is_some() {
                file.seek(SeekFrom::Start(segment.offset)).map_err(failed)?;
            }
            self.copy(&mut file, segment.length).map_err(|err| match err {
                Copy::Read(err) => failed(err),
                Copy::Write(err) => PackError::Write(err),
            })?;
        }
        Ok(())
    }

    fn copy(&mut self, file: &mut std::fs::File, length: u64) -> Result<(), Copy> {
        let mut left = length;
        while left > 0 {
            let most = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match file.read(&mut self.buffer[..most]) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                count => count.map_err(Copy::Read)?,
            };
            if count == 0 {
                // It shrank.
                self.buffer[..most].fill(0);
                self.tar.data(&self.buffer[..most]).map_err(Copy::Write)?;
                left -= most as u64;
                continue;
            }
            self.tar.data(&self.buffer[..count]).map_err(Copy::Write)?;
            left -= count as u64;
        }
        Ok(())
    }

    fn enter(&mut self, path: Vec<u8>, place: OwnedFd) -> Result<(), PackError> {
        if self.levels.len() >= DEPTH_MAX {
            return Err(PackError::TooDeep { path: String::from_utf8_lossy(&path).into_owned() });
        }
        let failed = |err: Errno| read_error(&path, err);
        let directory = rustix::fs::openat(
            &place,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(failed)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name: &CStr = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.levels.push(Level { directory, names, path });
        Ok(())
    }
}

/// Which side of a copy failed.
enum Copy {
    Read(io::Error),
    Write(io::Error),
}

/// The runs of data of a file, as the file system knows them.
fn segments(file: &std::fs::File, size: u64) -> io::Result<Vec<Segment>> {
    let (mut segments, mut at) = (Vec::new(), 0);
    while at < size {
        let offset = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(offset) => offset,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            Err(err) => return Err(err.into()),
        };
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(offset))?.min(size);
        if offset >= end {
            break;
        }
        segments.push(Segment { offset, length: end - offset });
        at = end;
    }
    Ok(segments)
}

/// Names and values.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

fn xattrs(place: &OwnedFd, is_open: bool, keep: fn(&[u8]) -> bool) -> Result<Xattrs, Errno> {
    // Without a way to read it has attributes by its path alone.
    let path = if is_open { String::new() } else { proc_path(place) };
    let listed = |names: &mut [u8]| match is_open {
        true => rustix::fs::flistxattr(place, names),
        false => rustix::fs::listxattr(&*path, names),
    };
    let value_of = |name: &[u8], value: &mut [u8]| match is_open {
        true => rustix::fs::fgetxattr(place, name, value),
        false => rustix::fs::getxattr(&*path, name, value),
    };
    // A list of no room is answered with 0, whatever there is.
    let has = if is_open { rustix::fs::flistxattr_query(place) } else { rustix::fs::listxattr_query(&*path) };
    match has {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = vec![0; XATTR_BYTES];
    let length = listed(&mut names)?;
    let mut names: Vec<&[u8]> =
        names[..length].split(|b| *b == 0).filter(|name| !name.is_empty() && keep(name)).collect();
    names.sort_unstable();
    let mut xattrs = Vec::new();
    for name in names {
        let mut value = vec![0; XATTR_BYTES];
        match value_of(name, &mut value) {
            Ok(length) => {
                value.truncate(length);
                xattrs.push((name.to_vec(), value));
            }
            // It went meanwhile.
            Err(Errno::NODATA) => {}
            Err(err) => return Err(err),
        }
    }
    Ok(xattrs)
}

/// Whether something is there under that name.
pub(crate) fn stat_at(directory: impl AsFd, name: &CStr) -> Result<Stat, Errno> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}
