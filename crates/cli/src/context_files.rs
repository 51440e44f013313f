//! The directory of a build, told entry by entry: the daemon has what it does not know sent.
//!
//! What is told is what [`crate::context_tar`] would pack, but that times have fractions of a second: a file that was written twice
//! within one is another one.

use std::collections::hash_map::Entry as Place;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use client::session::{Directory, Stat, followed, modes};
use dockerfile::Patterns;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use sha2::{Digest, Sha256};
use stdx::fs::Durability;

use crate::context_tar::{CAPABILITY, ContextError, SHOWN_BYTES, show_sent};

/// In the directory of the configuration: what tells this user's directories from those of others.
const IDENTITY: &str = ".longshore-builds";

/// The most entries and bytes of names that a daemon takes (crate `buildkit-api`, files).
const ENTRIES_MAX: usize = 1 << 20;
const NAMES_MAX: usize = 64 << 20;

/// Levels of directories, each of which holds a descriptor.
const DEPTH_MAX: usize = 512;

/// What a build's files are told as.
pub struct Files {
    directory: PathBuf,
    entries: Vec<Stat>,
    /// Where those are that were told.
    told: Vec<usize>,
    bytes: u64,
    shown: u64,
    shows: bool,
    is_terminal: bool,
}

/// All that is in a directory and not left out; `None` where some of it can only be sent as an archive: names that are no UTF-8, too
/// many of them or too deep. Blocks.
pub fn list(directory: &Path, patterns: &Patterns) -> Result<Option<Vec<Stat>>, ContextError> {
    let failed = |path: &str, err: Errno| ContextError::Open { path: directory.join(path), source: err.into() };
    let mut listing = Listing::default();
    let mut levels = vec![Level::open(CWD, directory, String::new()).map_err(|err| failed("", err))?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            levels.pop();
            continue;
        };
        let Ok(text) = name.to_str() else { return Ok(None) };
        let path = if level.path.is_empty() { text.to_owned() } else { format!("{}/{text}", level.path) };
        let found = match rustix::fs::statat(&level.directory, &*name, AtFlags::SYMLINK_NOFOLLOW) {
            // It went meanwhile.
            Err(Errno::NOENT) => continue,
            found => found.map_err(|err| failed(&path, err))?,
        };
        let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        let is_left_out = !patterns.is_empty() && patterns.exclude(&path);
        if !is_left_out && !listing.add((level, &name), directory, &path, &found).map_err(|err| failed(&path, err))? {
            return Ok(None);
        }
        if is_directory && (!is_left_out || patterns.may_hold_exceptions(&path)) {
            let below = Level::open(&level.directory, &*name, path.clone()).map_err(|err| failed(&path, err))?;
            levels.push(below);
            if levels.len() > DEPTH_MAX {
                return Ok(None);
            }
        }
    }
    Ok(Some(listing.entries))
}

/// A directory that is being listed.
struct Level {
    directory: OwnedFd,
    /// What is still to look at, the next one last.
    names: Vec<CString>,
    path: String,
}

impl Level {
    fn open(above: impl AsFd, name: impl Arg, path: String) -> Result<Level, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(above, name, flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Level { directory, names, path })
    }
}

#[derive(Default)]
struct Listing {
    entries: Vec<Stat>,
    /// How long their names and links are, in bytes.
    names: usize,
    /// Files of more than one name, by device and inode, and the first name.
    linked: HashMap<(u64, u64), String>,
}

impl Listing {
    /// Adds an entry; answers whether it can be told at all.
    fn add(
        &mut self,
        (level, name): (&Level, &CStr),
        top: &Path,
        path: &str,
        found: &rustix::fs::Stat,
    ) -> Result<bool, Errno> {
        let (mut kind, mut link, mut size, mut device) = (0, String::new(), 0, (0, 0));
        let file_type = FileType::from_raw_mode(found.st_mode);
        match file_type {
            FileType::RegularFile => size = found.st_size,
            FileType::Directory => kind = modes::DIRECTORY,
            FileType::Fifo => kind = modes::FIFO,
            FileType::BlockDevice | FileType::CharacterDevice => {
                let is_block = file_type == FileType::BlockDevice;
                kind = if is_block { modes::DEVICE } else { modes::DEVICE | modes::CHARACTERS };
                device = (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev));
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&level.directory, name, Vec::new())?;
                let Ok(target) = target.into_string() else { return Ok(false) };
                (kind, link) = (modes::SYMLINK, target);
            }
            // A socket is nothing without who listens.
            _ => return Ok(true),
        }
        if file_type != FileType::Directory && found.st_nlink > 1 {
            match self.linked.entry((found.st_dev, found.st_ino)) {
                Place::Vacant(place) => drop(place.insert(path.to_owned())),
                Place::Occupied(first) => (kind, link, size) = (0, first.get().clone(), 0),
            }
        }
        let nanos =
            found.st_mtime.checked_mul(1_000_000_000).and_then(|nanos| nanos.checked_add(found.st_mtime_nsec as i64));
        let Some(modified_nanos) = nanos else { return Ok(false) };
        let is_program = file_type == FileType::RegularFile && found.st_mode & 0o111 != 0;
        let xattrs = if is_program { capability(&top.join(path)) } else { BTreeMap::new() };
        self.names += path.len() + link.len();
        let mode = modes::with_permissions(kind, found.st_mode & 0o7777);
        let (major, minor) = (i64::from(device.0), i64::from(device.1));
        self.entries.push(Stat {
            path: path.to_owned(),
            mode,
            uid: 0,
            gid: 0,
            size,
            modified_nanos,
            link,
            major,
            minor,
            xattrs,
        });
        Ok(self.entries.len() <= ENTRIES_MAX && self.names <= NAMES_MAX)
    }
}

/// The capabilities of a program; only programs have any that count.
fn capability(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut value = [0; 64];
    let read = rustix::fs::lgetxattr(path, CAPABILITY, &mut value[..]);
    read.map(|count| (String::from_utf8_lossy(CAPABILITY).into_owned(), value[..count].to_vec())).into_iter().collect()
}

impl Files {
    /// What was listed of a directory. Tells how much was sent: on a terminal now and then, else at the end.
    pub fn new(directory: PathBuf, entries: Vec<Stat>, shows: bool, is_terminal: bool) -> Files {
        Files { directory, entries, told: Vec::new(), bytes: 0, shown: 0, shows, is_terminal }
    }
}

impl Directory for Files {
    fn entries(&mut self, follow: &[String]) -> io::Result<Vec<Stat>> {
        let kept = followed(&self.entries, follow);
        self.told = kept.iter().enumerate().filter(|(_, kept)| **kept).map(|(index, _)| index).collect();
        Ok(self.told.iter().map(|index| self.entries[*index].clone()).collect())
    }

    fn open(&mut self, index: usize) -> io::Result<Box<dyn Read>> {
        let stat = &self.entries[self.told[index]];
        let whole = self.directory.join(&stat.path);
        let failed = |err: io::Error| io::Error::new(err.kind(), format!("open {}: {err}", whole.display()));
        // What it has become meanwhile may wait for somebody.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&whole, flags, Mode::empty()).map_err(|err| failed(err.into()))?);
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::other("it is no file any more")));
        }
        Ok(Box::new(file.take(stat.size.unsigned_abs())))
    }

    fn has_sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.shows && self.is_terminal && self.bytes >= self.shown + SHOWN_BYTES {
            self.shown = self.bytes;
            show_sent(self.bytes, false);
        }
    }

    fn is_done(&mut self) {
        if self.shows {
            show_sent(self.bytes, true);
        }
    }
}

/// What a daemon keeps a directory's files by: the same for builds of it, and nobody else's. Empty if there is no place to note
/// who we are: then nothing is kept.
pub fn key(config: &Path, directory: &Path) -> String {
    let Some(identity) = identity(config) else { return String::new() };
    let text = format!("{identity}\0{}", directory.display());
    format!("longshore:{}", oci::Digest::from_sha256(&Sha256::digest(text).into()).hex())
}

fn identity(config: &Path) -> Option<String> {
    let path = config.join(IDENTITY);
    let known = || std::fs::read_to_string(&path).ok().filter(|text| !text.is_empty());
    known().or_else(|| {
        std::fs::create_dir_all(config).ok()?;
        // Of two that begin at once the later one counts, for both from now on.
        let text = stdx::id::random_hex::<32>();
        stdx::fs::write_atomic(&path, text.as_bytes(), Durability::ProcessDeath).ok()?;
        known()
    })
}

#[cfg(test)]
mod tests;
