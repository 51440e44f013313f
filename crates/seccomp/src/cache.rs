//! Compiled filters as files.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use errdefs::ErrorKind;
use libseccomp::ScmpVersion;
use sha2::{Digest, Sha256};
use stdx::fs::{Durability, write_atomic};

use crate::compile::{CompileError, compile};
use crate::profile::{Profile, ProfileError};
use crate::resolve::{Arch, Filter, resolve};

/// Part of every key: grows with every change of what [`compile`] makes of the same filter.
const FORMAT: u32 = 4;

/// Length of `struct sock_filter`.
const INSTRUCTION_BYTES: u64 = 8;

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

/// The file that holds `filter` compiled, below `directory`, which must exist; compiles it if there is none yet.
///
/// Blocks: microseconds if the file is there, milliseconds otherwise.
pub fn cached(directory: &Path, filter: &Filter) -> Result<PathBuf, CacheError> {
    let path = directory.join(format!("{}.bpf", key(filter)?));
    if is_program(&path) {
        return Ok(path);
    }
    // Two writers of one file, threads or processes, would share its temporary name. A killed writer's lock goes with it, and
    // its temporary file is replaced by the next one's.
    let writing = File::open(directory);
    let _writing = writing
        .and_then(|lock| lock.lock().map(|()| lock))
        .map_err(|source| CacheError::Lock { path: directory.to_owned(), source })?;
    if !is_program(&path) {
        let program = compile(filter)?;
        write_atomic(&path, &program, Durability::PowerCut)
            .map_err(|source| CacheError::Write { path: path.clone(), source })?;
    }
    Ok(path)
}

/// How many answers are kept. Nobody has that many profiles: it keeps a client that makes them up from filling the memory.
const KNOWN_MAX: usize = 256;

/// The filters for the containers of one daemon: [`cached`] with a memory, for the road on which every container starts.
#[derive(Debug)]
pub struct Programs {
    directory: PathBuf,
    kernel: (u32, u32),
    known: Mutex<HashMap<Request, Option<PathBuf>>>,
}

/// What a program is made of: the digest of the profile's text, absent for Docker's default, and the bounding set.
type Request = (Option<[u8; 32]>, Vec<String>);

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

    fn find(
        &self,
        request: Request,
        profile: impl FnOnce() -> Result<Profile, CacheError>,
    ) -> Result<Option<PathBuf>, CacheError> {
        // What a panic left behind is a map of whole entries.
        let lock = || self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = lock().get(&request).cloned();
        if let Some(found) = known.filter(|found| found.as_deref().is_none_or(is_program)) {
            return Ok(found);
        }
        let filter = resolve(&profile()?, &request.1, Arch::native(), self.kernel)?;
        if let Some(filter) = &filter {
            filter.require_program_only()?;
        }
        let found = filter.map(|filter| cached(&self.directory, &filter)).transpose()?;
        let mut known = lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(request, found.clone());
        Ok(found)
    }
}

/// Whether there is a file of whole instructions. That it is ours follows from its name and its directory's mode.
fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.len() > 0 && meta.len() % INSTRUCTION_BYTES == 0)
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
mod tests {
    use super::*;

    fn filter(capabilities: &[&str]) -> Filter {
        let capabilities: Vec<String> = capabilities.iter().map(|name| name.to_string()).collect();
        resolve(&Profile::docker_default(), &capabilities, Arch::native(), (6, 1)).unwrap().unwrap()
    }

    #[test]
    fn a_filter_is_compiled_once_and_another_one_has_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = cached(directory.path(), &filter(&[])).unwrap();
        assert_eq!(fs::read(&path).unwrap(), compile(&filter(&[])).unwrap());
        // What is there is taken as it is: nothing is compiled again.
        fs::write(&path, [0; 16]).unwrap();
        assert_eq!(cached(directory.path(), &filter(&[])).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), [0; 16]);
        // A torn file is replaced.
        fs::write(&path, [0; 15]).unwrap();
        cached(directory.path(), &filter(&[])).unwrap();
        assert!(fs::read(&path).unwrap().len() > 16);
        assert_ne!(cached(directory.path(), &filter(&["CAP_SYS_ADMIN"])).unwrap(), path);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn writers_wait_for_each_other_across_processes() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let other = File::open(directory.path()).unwrap();
        other.lock().unwrap();
        let inode = format!(":{} ", other.metadata().unwrap().ino());
        let path = directory.path().to_owned();
        let writer = std::thread::spawn(move || cached(&path, &filter(&[])).unwrap());
        // Lines with an arrow are of those who wait (proc_locks(5)).
        let waits = || {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            locks.lines().any(|line| line.contains("->") && line.contains(&inode))
        };
        while !waits() {
            assert!(!writer.is_finished(), "it has written beside another writer");
            std::thread::yield_now();
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        other.unlock().unwrap();
        assert!(is_program(&writer.join().unwrap()));
    }

    #[test]
    fn the_default_profile_is_found_again_and_made_again_when_it_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let programs = Programs::new(directory.path().to_owned(), (6, 1));
        let path = programs.of_default(&[]).unwrap();
        assert_eq!(path, cached(directory.path(), &filter(&[])).unwrap());
        fs::remove_file(&path).unwrap();
        assert_eq!(programs.of_default(&[]).unwrap(), path);
        assert!(path.exists());
        assert_ne!(programs.of_default(&["CAP_SYS_ADMIN".to_owned()]).unwrap(), path);
    }

    #[test]
    fn a_profile_is_read_once_and_others_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let programs = Programs::new(directory.path().to_owned(), (6, 1));
        let text = |call: &str| {
            let rule = format!(r#"{{"names":["{call}"],"action":"SCMP_ACT_ERRNO"}}"#);
            format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#)
        };
        let path = programs.of_profile(&text("chmod"), &[]).unwrap().unwrap();
        assert_ne!(programs.of_profile(&text("chown"), &[]).unwrap(), Some(path.clone()));
        // What is remembered is taken as it is: nothing is compiled again.
        fs::write(&path, [0; 16]).unwrap();
        assert_eq!(programs.of_profile(&text("chmod"), &[]).unwrap(), Some(path.clone()));
        assert_eq!(fs::read(&path).unwrap(), [0; 16]);
        fs::remove_file(&path).unwrap();
        programs.of_profile(&text("chmod"), &[]).unwrap();
        assert!(fs::read(&path).unwrap().len() > 16);
        assert!(matches!(programs.of_profile("{", &[]), Err(CacheError::Profile(_))));
        assert_eq!(programs.known.lock().unwrap().len(), 2);
    }

    #[test]
    fn the_memory_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let programs = Programs::new(directory.path().to_owned(), (6, 1));
        for n in 0..=KNOWN_MAX {
            // Not a rule among them: nothing is compiled, and that is remembered, too.
            let text = format!("{{}}{}", " ".repeat(n));
            assert_eq!(programs.of_profile(&text, &[]).unwrap(), None);
        }
        assert_eq!(programs.known.lock().unwrap().len(), 1);
    }
}
