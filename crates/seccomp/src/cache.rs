//! Compiled filters as files.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use errdefs::ErrorKind;
use libseccomp::ScmpVersion;
use sha2::{Digest, Sha256};
use stdx::fs::{Durability, write_atomic};
use stdx::sealed;

use crate::compile::{CompileError, compile, unknown_calls};
use crate::conflicts::{self, PassedOver};
use crate::profile::{Profile, ProfileError};
use crate::resolve::{Arch, Filter, resolve};

/// Part of every key: grows with every change of what [`compile`] makes of the same filter.
const FORMAT: u32 = 5;

/// How many files are kept beside those that somebody needs: 8 MiB of the longest programs.
const FILES_MAX: usize = 256;

/// After so long a file that is still asked for is marked as such: the others are the first to go.
const MARK_AFTER: Duration = Duration::from_secs(3600);

/// Why a filter's file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The kernel's release is part of the key.
    #[error("read /proc/sys/kernel/osrelease")]
    Kernel {
        /// Why.
        source: io::Error,
    },
    /// The library's version is part of the key.
    #[error("ask libseccomp for its version")]
    Version {
        /// Why.
        source: libseccomp::error::SeccompError,
    },
    /// The profile is refused.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The filter could not be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Other writers could not be kept out.
    #[error("lock {}", path.display())]
    Lock {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file could not be written.
    #[error("write compiled seccomp filter {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CacheError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CacheError::Profile(err) => err.kind(),
            CacheError::Compile(err) => err.kind(),
            CacheError::Kernel { .. }
            | CacheError::Version { .. }
            | CacheError::Lock { .. }
            | CacheError::Write { .. } => ErrorKind::Internal,
        }
    }
}

/// What of a filter counts for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Names of calls that nobody knows.
    pub unknown: Vec<String>,
    /// Rules for calls that another one decides.
    pub passed_over: Vec<PassedOver>,
}

/// The file that holds `filter` compiled ([`stdx::sealed`]), below `directory`, which must exist; compiles it if there is none
/// yet, or if it is damaged.
///
/// Where too many files are there, the oldest go, but for those that `needed` names: it is asked then alone.
///
/// What of the filter counts for nothing is told to `told`, all at once, when the filter is compiled.
///
/// Blocks: microseconds if the file is there, milliseconds otherwise.
pub fn cached(
    directory: &Path,
    filter: &Filter,
    needed: impl FnOnce() -> HashSet<PathBuf>,
    told: impl FnOnce(&Findings),
) -> Result<PathBuf, CacheError> {
    let path = directory.join(format!("{}.bpf", key(filter)?));
    if is_whole(&path) {
        return Ok(path);
    }
    // Two writers of one file, threads or processes, would share its temporary name. A killed writer's lock goes with it, and
    // its temporary file is replaced by the next one's.
    let writing = File::open(directory);
    let _writing = writing
        .and_then(|lock| lock.lock().map(|()| lock))
        .map_err(|source| CacheError::Lock { path: directory.to_owned(), source })?;
    if !is_whole(&path) {
        let contradicted = |contradiction| CompileError::Contradiction { contradiction };
        let passed_over = conflicts::find(filter).map_err(contradicted)?;
        let program = sealed::seal(&compile(filter)?);
        let found = Findings { unknown: unknown_calls(filter), passed_over };
        if found != Findings::default() {
            told(&found);
        }
        write_atomic(&path, &program, Durability::PowerCut)
            .map_err(|source| CacheError::Write { path: path.clone(), source })?;
        prune(directory, &path, needed);
    }
    Ok(path)
}

/// Takes the oldest files away, if there are too many. One that stays harms nobody: the next writer tries again.
fn prune(directory: &Path, new: &Path, needed: impl FnOnce() -> HashSet<PathBuf>) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries.filter(|path| path.extension() == Some("bpf".as_ref()) && path != new).collect();
    let Some(many) = (files.len() + 1).checked_sub(FILES_MAX).filter(|many| *many > 0) else { return };
    let needed = needed();
    files.sort_by_cached_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok());
    for path in files.iter().filter(|path| !needed.contains(*path)).take(many) {
        let _ = fs::remove_file(path);
    }
}

/// How many answers are kept. Nobody has that many profiles: it keeps a client that makes them up from filling the memory.
const KNOWN_MAX: usize = 256;

/// The filters for the containers of one daemon: [`cached`] with a memory, for the road on which every container starts.
#[derive(Debug)]
pub struct Programs {
    directory: PathBuf,
    kernel: (u32, u32),
    known: Mutex<HashMap<Request, Option<Known>>>,
}

/// What a program is made of: the digest of the profile's text, absent for Docker's default, and the bounding set.
type Request = (Option<[u8; 32]>, Vec<String>);

/// A file that was found whole, and what the file system said of it then: as long as it says the same, it is.
#[derive(Clone, Debug)]
struct Known {
    path: PathBuf,
    stamp: Stamp,
}

/// Inode, length and times of a file.
type Stamp = (u64, u64, i64, i64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    mark(path, &meta);
    Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()))
}

/// Says that a file is still asked for, now and then.
fn mark(path: &Path, meta: &Metadata) {
    let age = meta.modified().ok().and_then(|changed| changed.elapsed().ok());
    if age.is_some_and(|age| age > MARK_AFTER) {
        // It is looked at once more for that, and made again one day if it could not be marked.
        let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
    }
}

impl Programs {
    /// Nothing is looked at yet. `directory` must exist when a program is asked for; `kernel` is its first two numbers.
    pub fn new(directory: PathBuf, kernel: (u32, u32)) -> Programs {
        Programs { directory, kernel, known: Mutex::default() }
    }

    /// The compiled default profile for containers with these `capabilities` (the bounding set).
    ///
    /// Blocks: one `stat` for a set that was asked for before, else as [`cached`].
    pub fn of_default(&self, capabilities: &[String]) -> Result<PathBuf, CacheError> {
        let found = self.find((None, capabilities.to_vec()), || Ok(Profile::docker_default()))?;
        Ok(found.expect("the default profile has rules"))
    }

    /// The compiled form of a profile as users write it; `None` if it has no rules. Blocks likewise.
    pub fn of_profile(&self, text: &str, capabilities: &[String]) -> Result<Option<PathBuf>, CacheError> {
        let digest = Sha256::digest(text.as_bytes()).into();
        self.find((Some(digest), capabilities.to_vec()), || Ok(Profile::parse(text)?))
    }

    /// The same profile as the runtime specification writes it, for runtimes that compile it themselves; `text` is absent
    /// for Docker's default. `None` if it has no rules.
    pub fn written(&self, text: Option<&str>, capabilities: &[String]) -> Result<Option<Filter>, CacheError> {
        let profile = text.map_or_else(|| Ok(Profile::docker_default()), Profile::parse)?;
        Ok(resolve(&profile, capabilities, Arch::native(), self.kernel)?)
    }

    fn find(
        &self,
        request: Request,
        profile: impl FnOnce() -> Result<Profile, CacheError>,
    ) -> Result<Option<PathBuf>, CacheError> {
        // What a panic left behind is a map of whole entries.
        let lock = || self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = lock().get(&request).cloned();
        let same = |known: &Option<Known>| known.as_ref().is_none_or(|known| stamp(&known.path) == Some(known.stamp));
        if let Some(found) = known.filter(same) {
            return Ok(found.map(|known| known.path));
        }
        let filter = resolve(&profile()?, &request.1, Arch::native(), self.kernel)?;
        if let Some(filter) = &filter {
            filter.require_program_only()?;
        }
        // A shim reads its program once.
        let found = filter.map(|filter| cached(&self.directory, &filter, HashSet::new, |_| {})).transpose()?;
        let entry = match &found {
            None => None,
            Some(path) => match stamp(path) {
                Some(stamp) => Some(Known { path: path.clone(), stamp }),
                // Gone again: whoever opens it says so.
                None => return Ok(found),
            },
        };
        let mut known = lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(request, entry);
        Ok(found)
    }
}

/// Whether there is a file as it was sealed. That it is ours follows from its name and its directory's mode.
fn is_whole(path: &Path) -> bool {
    let whole = fs::read(path).is_ok_and(|bytes| sealed::open(&bytes).is_some());
    if let (true, Ok(meta)) = (whole, fs::metadata(path)) {
        mark(path, &meta);
    }
    whole
}

/// Names everything that the program depends on.
fn key(filter: &Filter) -> Result<String, CacheError> {
    let kernel = fs::read("/proc/sys/kernel/osrelease").map_err(|source| CacheError::Kernel { source })?;
    let version = ScmpVersion::current().map_err(|source| CacheError::Version { source })?;
    // The rest is said to the kernel and to the listener, not by the program.
    let Filter { default_action, default_errno_ret, architectures, syscalls, .. } = filter;
    let mut bytes = Bytes(Vec::with_capacity(KEY_BYTES));
    (default_action, default_errno_ret, architectures, syscalls).hash(&mut bytes);
    let mut hasher = Sha256::new();
    hasher.update(format!("{FORMAT} {}.{}.{} ", version.major, version.minor, version.micro));
    hasher.update(&kernel);
    hasher.update(&bytes.0);
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Docker's default takes this much.
const KEY_BYTES: usize = 16 << 10;

/// All that a value hashes: two values differ in it (`Hash` of the standard library is free of prefixes). JSON would do as
/// well, and take ten times as long. Another compiler may write it otherwise; then the filter is compiled once more.
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("nobody asks for a number")
    }
}

#[cfg(test)]
mod tests;
