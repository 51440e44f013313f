//! What is known of containers between two calls, and who may change it.
//!
//! ```text
//! <root>/                 0700
//!   .seccomp/             compiled filters, by their content
//!   <id>/                 locked (flock) by whoever changes the container
//!     state.json          the record: written before anything is made
//!     process             the first process when it is there: a link to `<pid>:<start ticks>`, so that it is whole or absent
//!     criu-root/          empty; where a restore shows the root to CRIU, in a mount namespace that ends with it
//!     deleted               empty; a hook has asked for `delete --force`, and whoever waits for the hook is to obey
//!     start.fifo          where the first process waits for `start`; gone, or without reader, when it has started
//! ```
//!
//! The record comes first and goes last, so that whatever a killed runtime has made is found from it: the cgroup by its path,
//! the processes in the cgroup. A directory without a readable record holds nothing else.

mod holder;
mod record;

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cgroup::{Cgroup, Hierarchies, is_frozen};
use oci_runtime::SystemError;
use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags, flock, mknodat, symlinkat};
use rustix::io::Errno;
use stdx::fs::{Durability, remove_if_exists, write_atomic};

pub(crate) use holder::{Holder, Pause, described};
use record::Head;
pub(crate) use record::{FORMAT, FirstProcess, Record, Status};

/// Why a container's state cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// A name that could lead elsewhere.
    #[error("invalid container ID format: {id:?} must be of letters, digits, _, +, - and .{}", reserved(id))]
    Id {
        /// As given.
        id: String,
    },
    /// The directory of all containers cannot be used.
    #[error("--root: {action} {}{hint}", path.display())]
    Root {
        /// What was tried.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// How another one is named; may be empty.
        hint: &'static str,
        /// The kernel's answer.
        source: SystemError,
    },
    /// There is one already.
    #[error("container with given ID already exists")]
    Exists,
    /// There is none.
    #[error("container does not exist")]
    Missing,
    /// Somebody else changes it, and goes on doing so.
    #[error("container is being made or changed by {}", holder::described(holder.as_deref()))]
    Busy {
        /// Who, if that is known.
        holder: Option<Box<Holder>>,
    },
    /// The record is not one of ours.
    #[error("read {}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// What names the first process is not there, and nobody is making one; yet something runs.
    #[error("{} is missing or damaged, and {processes} process(es) run in the container's cgroup: delete --force ends them", path.display())]
    Lost {
        /// What should name it.
        path: PathBuf,
        /// How many run.
        processes: usize,
    },
    /// A later version has written it.
    #[error("{} has format {format}, which this version does not know", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// A file or directory could not be used.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The kernel's answer.
        source: SystemError,
    },
}

impl StateError {
    fn io<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> StateError {
        let path = path.to_owned();
        move |err| StateError::Io { action, path, source: SystemError(err.into()) }
    }
}

/// All containers of one root directory.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// The directory.
    pub(crate) root: PathBuf,
    /// Whether the caller has named it: then it is a mistake that it is not there, and no want of containers.
    pub(crate) named: bool,
}

/// One container's directory.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
}

/// A container's directory that nobody else changes.
#[derive(Debug)]
pub(crate) struct Locked {
    /// The directory.
    pub(crate) place: Place,
    // Held until it is closed: by our end, too, however that comes.
    lock: OwnedFd,
}

impl Store {
    /// Makes the directory of a new container, locked.
    pub(crate) fn create(&self, id: &str) -> Result<Locked, StateError> {
        let path = self.path(id)?;
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder.recursive(true).create(&self.root).map_err(|err| self.unusable("create", err))?;
        match builder.recursive(false).create(&path) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => return Err(StateError::Exists),
            other => other.map_err(|err| self.unusable("create a directory in", err))?,
        }
        self.lock(id)
    }

    /// Waits until nobody else changes the container, but not for a hook that takes long, nor for one that waits for us.
    pub(crate) fn lock(&self, id: &str) -> Result<Locked, StateError> {
        let deadline = Instant::now() + BUSY_WITHIN;
        let mut pause = Pause::default();
        loop {
            if let Some(locked) = self.try_lock(id)? {
                return Ok(locked);
            }
            let holder = self.holder(id);
            if Instant::now() >= deadline || holder.as_ref().is_some_and(Holder::waits_for_us) {
                return Err(StateError::Busy { holder: holder.map(Box::new) });
            }
            pause.wait(holder.as_ref());
        }
    }

    /// Who has the lock of the container, as far as it can be seen.
    pub(crate) fn holder(&self, id: &str) -> Option<Holder> {
        Holder::of(&self.path(id).ok()?)
    }

    /// [`Store::lock`] without waiting: `None` if somebody else has it.
    pub(crate) fn try_lock(&self, id: &str) -> Result<Option<Locked>, StateError> {
        let path = self.path(id)?;
        let lock = open_directory(&path)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Locked { place: Place { path }, lock }.regain().map(Some),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(err) => Err(StateError::io("lock", &path)(err)),
        }
    }

    /// The container, to be looked at.
    pub(crate) fn open(&self, id: &str) -> Result<Place, StateError> {
        let path = self.path(id)?;
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => Ok(Place { path }),
            // Nobody may take one that he may not see for one that is gone.
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(StateError::io("look at", &path)(err)),
            _ => Err(StateError::Missing),
        }
    }

    /// The ids of all containers, sorted.
    pub(crate) fn ids(&self) -> Result<Vec<String>, StateError> {
        let entries = match fs::read_dir(&self.root) {
            Err(err) if err.kind() == io::ErrorKind::NotFound && !self.named => return Ok(Vec::new()),
            other => other.map_err(|err| self.unusable("read", err))?,
        };
        let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut ids: Vec<_> = directories.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        ids.retain(|id| id != SECCOMP);
        ids.sort_unstable();
        Ok(ids)
    }

    /// Where compiled filters are kept; made if it is not there.
    pub(crate) fn filters(&self) -> Result<PathBuf, StateError> {
        let path = self.root.join(SECCOMP);
        let made = DirBuilder::new().mode(0o700).recursive(true).create(&path);
        made.map_err(StateError::io("create", &path))?;
        Ok(path)
    }

    /// The filters of all containers: they are read again for every `exec`.
    pub(crate) fn used_filters(&self) -> HashSet<PathBuf> {
        let ids = self.ids().unwrap_or_default();
        // What cannot be read has no exec.
        let records = ids.iter().filter_map(|id| self.open(id).ok()?.load().ok());
        records.filter_map(|record| record.spec.linux.seccomp_program).collect()
    }

    fn unusable(&self, action: &'static str, err: io::Error) -> StateError {
        let is_file = err.kind() == io::ErrorKind::AlreadyExists;
        let err = if is_file { io::ErrorKind::NotADirectory.into() } else { err };
        let denied = err.kind() == io::ErrorKind::PermissionDenied && std::env::var_os("XDG_RUNTIME_DIR").is_none();
        let hint = if denied && !self.named {
            " ($XDG_RUNTIME_DIR, which has another one for others than root, is not set)"
        } else {
            ""
        };
        StateError::Root { action, path: self.root.clone(), hint, source: SystemError(err) }
    }

    fn path(&self, id: &str) -> Result<PathBuf, StateError> {
        let known = |letter: char| letter.is_ascii_alphanumeric() || "_+-.".contains(letter);
        let valid = !id.is_empty() && id.chars().all(known) && !matches!(id, "." | ".." | SECCOMP);
        if valid { Ok(self.root.join(id)) } else { Err(StateError::Id { id: id.to_owned() }) }
    }
}

/// Names of files and directories that are there.
fn reserved(id: &str) -> &'static str {
    if matches!(id, "." | ".." | SECCOMP) { ", and no name of a directory that is there" } else { "" }
}

/// How long others have to be done with a container: as long as it takes without a hook.
const BUSY_WITHIN: Duration = Duration::from_secs(3);

/// No container's id.
const SECCOMP: &str = ".seccomp";

impl Place {
    /// Reads the record.
    pub(crate) fn load(&self) -> Result<Record, StateError> {
        let path = self.record();
        let bytes = match fs::read(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(StateError::Missing),
            other => other.map_err(StateError::io("read", &path))?,
        };
        let mut record: Record = match serde_json::from_slice(&bytes) {
            Ok(record) => record,
            // Another format may have another shape, too.
            Err(source) => match serde_json::from_slice::<Head>(&bytes) {
                Ok(head) if head.format != FORMAT => return Err(StateError::Format { path, format: head.format }),
                _ => return Err(StateError::Record { path, source }),
            },
        };
        record.process = self.process();
        if record.format == FORMAT { Ok(record) } else { Err(StateError::Format { path, format: record.format }) }
    }

    /// The first process, as it was recorded.
    pub(crate) fn process(&self) -> Option<FirstProcess> {
        let target = fs::read_link(self.link()).ok()?;
        let (pid, start_ticks) = target.to_str()?.split_once(':')?;
        Some(FirstProcess { pid: pid.parse().ok()?, start_ticks: start_ticks.parse().ok()? })
    }

    /// Whose container it is: the owner of the directory.
    pub(crate) fn owner(&self) -> Result<u32, StateError> {
        let meta = fs::symlink_metadata(&self.path).map_err(StateError::io("look at", &self.path))?;
        Ok(meta.uid())
    }

    /// What the container is doing.
    pub(crate) fn status(&self, record: &Record, hierarchies: &Hierarchies) -> Result<Status, StateError> {
        if record.process.is_none() {
            let locked = open_directory(&self.path).and_then(|fd| {
                flock(&fd, FlockOperation::NonBlockingLockShared).map_err(StateError::io("lock", &self.path))
            });
            if locked.is_err() {
                return Ok(Status::Creating);
            }
        }
        self.settled(record, hierarchies)
    }

    /// What the container is doing that nobody is making.
    fn settled(&self, record: &Record, hierarchies: &Hierarchies) -> Result<Status, StateError> {
        let group = Cgroup::open(hierarchies, Path::new(&record.spec.linux.cgroups_path));
        // It may have been made since the record was read.
        let Some(process) = record.process.or_else(|| self.process()) else {
            // Where the caller may make no cgroup nobody can know.
            return match group.map_or(0, |group| group.procs_with_below().len()) {
                0 => Ok(Status::Stopped),
                processes => Err(StateError::Lost { path: self.link(), processes }),
            };
        };
        if process.open().is_none() {
            return Ok(Status::Stopped);
        }
        Ok(match group {
            Ok(group) if is_frozen(&group) => Status::Paused,
            _ if self.gate().is_some() => Status::Created,
            _ => Status::Running,
        })
    }

    /// The gate, if the first process waits there.
    pub(crate) fn gate(&self) -> Option<OwnedFd> {
        // Without a reader that is ENXIO (fifo(7)).
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(self.fifo(), flags, Mode::empty()).ok()
    }

    /// Lets whoever changes the container know that it is to go.
    pub(crate) fn mark_deleted(&self) -> Result<(), StateError> {
        let path = self.path.join("deleted");
        fs::write(&path, "").map_err(StateError::io("create", &path))
    }

    /// Whether a hook has asked for its end.
    pub(crate) fn is_deleted(&self) -> bool {
        self.path.join("deleted").exists()
    }

    fn record(&self) -> PathBuf {
        self.path.join("state.json")
    }

    fn link(&self) -> PathBuf {
        self.path.join("process")
    }

    fn criu_root(&self) -> PathBuf {
        self.path.join("criu-root")
    }

    fn fifo(&self) -> PathBuf {
        self.path.join("start.fifo")
    }
}

impl Locked {
    /// Lets others change the container, until [`Locked::regain`].
    pub(crate) fn release(&self) -> Result<(), StateError> {
        flock(&self.lock, FlockOperation::Unlock).map_err(StateError::io("unlock", &self.place.path))
    }

    /// Waits until nobody else changes the container, and sees that it is still the same.
    pub(crate) fn regain(self) -> Result<Locked, StateError> {
        let path = &self.place.path;
        rustix::io::retry_on_intr(|| flock(&self.lock, FlockOperation::LockExclusive))
            .map_err(StateError::io("lock", path))?;
        // Whoever had it before may have removed it, and another one may have come since.
        let (ours, there) = (rustix::fs::fstat(&self.lock), fs::symlink_metadata(path));
        let same =
            ours.is_ok_and(|ours| there.is_ok_and(|there| (ours.st_dev, ours.st_ino) == (there.dev(), there.ino())));
        if same { Ok(self) } else { Err(StateError::Missing) }
    }

    /// What the container is doing; as nobody else is at work, it is not being made.
    pub(crate) fn status(&self, record: &Record, hierarchies: &Hierarchies) -> Result<Status, StateError> {
        self.place.settled(record, hierarchies)
    }

    /// Replaces the record.
    pub(crate) fn save(&self, record: &Record) -> Result<(), StateError> {
        let path = self.place.record();
        let bytes = serde_json::to_vec(record).expect("a record has only texts, numbers and paths that came as text");
        write_atomic(&path, &bytes, Durability::ProcessDeath).map_err(StateError::io("write", &path))?;
        record.process.map_or(Ok(()), |process| self.save_process(process))
    }

    /// Records the first process, if it is not recorded.
    pub(crate) fn save_process(&self, process: FirstProcess) -> Result<(), StateError> {
        if self.place.process() == Some(process) {
            return Ok(());
        }
        let path = self.place.link();
        remove_if_exists(&path).map_err(StateError::io("remove", &path))?;
        let text = format!("{}:{}", process.pid, process.start_ticks);
        symlinkat(text, CWD, &path).map_err(StateError::io("create", &path))
    }

    /// Makes the gate; the descriptor is its first reader.
    pub(crate) fn make_gate(&self) -> Result<OwnedFd, StateError> {
        let path = self.place.fifo();
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).map_err(StateError::io("create", &path))?;
        // For both: with a writer of its own the reader never sees an end.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::empty()).map_err(StateError::io("open", &path))
    }

    /// Takes the gate away: the container has started.
    pub(crate) fn remove_gate(&self) -> Result<(), StateError> {
        let path = self.place.fifo();
        remove_if_exists(&path).map_err(StateError::io("remove", &path))
    }

    /// Makes a directory for CRIU; a restore alone has it, as long as it is at work.
    pub(crate) fn make_criu_root(&self) -> Result<PathBuf, StateError> {
        let path = self.place.criu_root();
        DirBuilder::new().mode(0o700).create(&path).map_err(StateError::io("create", &path))?;
        Ok(path)
    }

    /// Takes it away.
    pub(crate) fn remove_criu_root(&self) -> Result<(), StateError> {
        let path = self.place.criu_root();
        match fs::remove_dir(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            // Never what is in it: that would be the container's root.
            other => other.map_err(StateError::io("remove", &path)),
        }
    }

    /// Takes everything away.
    pub(crate) fn remove(self) -> Result<(), StateError> {
        let path = &self.place.path;
        // The record last: until then a second try knows what there is.
        self.remove_gate()?;
        self.remove_criu_root()?;
        remove_if_exists(path).map_err(StateError::io("remove", path))
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, StateError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => Err(StateError::Missing),
        other => other.map_err(StateError::io("open", path)),
    }
}

#[cfg(test)]
mod tests;
