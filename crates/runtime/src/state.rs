//! What is known of containers between two calls, and who may change it.
//!
//! ```text
//! <root>/                 0700
//!   .seccomp/             compiled filters, by their content
//!   <id>/                 locked (flock) by whoever changes the container
//!     state.json          the record: written before anything is made
//!     process             the first process when it is there: a link to `<pid>:<start ticks>`, so that it is whole or absent
//!     criu-root/          empty; where a restore shows the root to CRIU, in a mount namespace that ends with it
//!     start.fifo          where the first process waits for `start`; gone, or without reader, when it has started
//! ```
//!
//! The record comes first and goes last, so that whatever a killed runtime has made is found from it: the cgroup by its path,
//! the processes in the cgroup. A directory without a readable record holds nothing else.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use cgroup::{Cgroup, Hierarchies, is_frozen};
use oci::runtime::Spec;
use oci_runtime::SystemError;
use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags, flock, mknodat, symlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use stdx::fs::{Durability, remove_if_exists, write_atomic};

use crate::scope::Scope;

/// One container, as it is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Version of this form; readers refuse others.
    pub(crate) format: u32,
    /// Its id.
    pub(crate) id: String,
    /// The bundle's directory; absolute.
    pub(crate) bundle: PathBuf,
    /// When it was created, RFC 3339.
    pub(crate) created: String,
    /// The first process; absent until it is there. A file of its own, as the rest is long and does not change with it.
    #[serde(skip)]
    pub(crate) process: Option<FirstProcess>,
    /// What its standard streams are, for a checkpoint; empty with a terminal, or where it is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) descriptors: Vec<String>,
    /// The scope of systemd that its cgroup is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<Scope>,
    /// The whole contract: config.json may change or go.
    pub(crate) spec: Spec,
}

/// What a record has in every format.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

/// The [`Record::format`] that is written.
pub(crate) const FORMAT: u32 = 2;

/// A process, told from later ones of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FirstProcess {
    /// In the runtime's PID namespace.
    pub(crate) pid: i32,
    /// When it began, in clock ticks since boot (proc_pid_stat(5), field 22).
    pub(crate) start_ticks: u64,
}

/// The five states of the specification, and runc's sixth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// `create` is at work.
    Creating,
    /// It waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its first process has ended, or never was.
    Stopped,
}

impl Status {
    /// The specification's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// Why a container's state cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// A name that could lead elsewhere.
    #[error("invalid container ID format")]
    Id,
    /// There is one already.
    #[error("container with given ID already exists")]
    Exists,
    /// There is none.
    #[error("container does not exist")]
    Missing,
    /// The record is not one of ours.
    #[error("read {}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
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
        builder.recursive(true).create(&self.root).map_err(StateError::io("create", &self.root))?;
        match builder.recursive(false).create(&path) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => return Err(StateError::Exists),
            other => other.map_err(StateError::io("create", &path))?,
        }
        self.lock(id)
    }

    /// Waits until nobody else changes the container.
    pub(crate) fn lock(&self, id: &str) -> Result<Locked, StateError> {
        let path = self.path(id)?;
        let lock = open_directory(&path)?;
        Locked { place: Place { path }, lock }.regain()
    }

    /// The container, to be looked at.
    pub(crate) fn open(&self, id: &str) -> Result<Place, StateError> {
        let path = self.path(id)?;
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => Ok(Place { path }),
            _ => Err(StateError::Missing),
        }
    }

    /// The ids of all containers, sorted.
    pub(crate) fn ids(&self) -> Result<Vec<String>, StateError> {
        let entries = match fs::read_dir(&self.root) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(StateError::io("read", &self.root))?,
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

    fn path(&self, id: &str) -> Result<PathBuf, StateError> {
        let known = |letter: char| letter.is_ascii_alphanumeric() || "_+-.".contains(letter);
        let valid = !id.is_empty() && id.chars().all(known) && !matches!(id, "." | ".." | SECCOMP);
        if valid { Ok(self.root.join(id)) } else { Err(StateError::Id) }
    }
}

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
    fn process(&self) -> Option<FirstProcess> {
        let target = fs::read_link(self.link()).ok()?;
        let (pid, start_ticks) = target.to_str()?.split_once(':')?;
        Some(FirstProcess { pid: pid.parse().ok()?, start_ticks: start_ticks.parse().ok()? })
    }

    /// What the container is doing.
    pub(crate) fn status(&self, record: &Record, hierarchies: &Hierarchies) -> Status {
        let Some(process) = record.process else {
            let locked = open_directory(&self.path).and_then(|fd| {
                flock(&fd, FlockOperation::NonBlockingLockShared).map_err(StateError::io("lock", &self.path))
            });
            // Without a process and without somebody who makes one there will be none.
            return if locked.is_err() { Status::Creating } else { Status::Stopped };
        };
        if process.open().is_none() {
            return Status::Stopped;
        }
        let group = Cgroup::open(hierarchies, Path::new(&record.spec.linux.cgroups_path));
        match group {
            Ok(group) if is_frozen(&group) => Status::Paused,
            _ if self.gate().is_some() => Status::Created,
            _ => Status::Running,
        }
    }

    /// The gate, if the first process waits there.
    pub(crate) fn gate(&self) -> Option<OwnedFd> {
        // Without a reader that is ENXIO (fifo(7)).
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(self.fifo(), flags, Mode::empty()).ok()
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
    pub(crate) fn status(&self, record: &Record, hierarchies: &Hierarchies) -> Status {
        match record.process {
            Some(_) => self.place.status(record, hierarchies),
            None => Status::Stopped,
        }
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

impl FirstProcess {
    /// Of a process that is ours to wait for, or else known to live.
    pub(crate) fn new(pid: Pid) -> Option<FirstProcess> {
        let pid = pid.as_raw_nonzero().get();
        Some(FirstProcess { pid, start_ticks: start_ticks(pid)? })
    }

    /// The process, unless it has ended.
    pub(crate) fn open(self) -> Option<OwnedFd> {
        // First the descriptor, then the look: from there on the number cannot become another process's unseen.
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        let same = start_ticks(self.pid)? == self.start_ticks;
        let ended = sys::wait::readable(pidfd.as_fd(), std::time::Instant::now()).unwrap_or(true);
        (same && !ended).then_some(pidfd)
    }
}

fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; field 3 follows it.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(22 - 3)?.parse().ok()
}

fn open_directory(path: &Path) -> Result<OwnedFd, StateError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => Err(StateError::Missing),
        other => other.map_err(StateError::io("open", path)),
    }
}

/// Whose container it is: the owner of the directory.
pub(crate) fn owner(place: &Place) -> u32 {
    File::open(&place.path).and_then(|file| file.metadata()).map_or(0, |meta| meta.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        (dir, Store { root })
    }

    fn record(process: Option<FirstProcess>) -> Record {
        let spec = Spec::default();
        Record {
            format: FORMAT,
            id: "a".into(),
            bundle: "/b".into(),
            created: String::new(),
            process,
            descriptors: Vec::new(),
            scope: None,
            spec,
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let (_dir, store) = store();
        for id in ["", ".", "..", "a/b", "a b", ".seccomp", "ä"] {
            assert!(matches!(store.create(id), Err(StateError::Id)), "{id}");
        }
        assert!(matches!(store.open("a"), Err(StateError::Missing)));
        drop(store.create("a_+-.1").unwrap());
        assert!(matches!(store.create("a_+-.1"), Err(StateError::Exists)));
        store.filters().unwrap();
        assert_eq!(store.ids().unwrap(), ["a_+-.1"]);
    }

    #[test]
    fn a_record_is_found_again_and_one_of_tomorrow_is_refused() {
        let (_dir, store) = store();
        let locked = store.create("a").unwrap();
        assert!(matches!(locked.place.load(), Err(StateError::Missing)));
        locked.save(&record(None)).unwrap();
        assert_eq!(locked.place.load().unwrap(), record(None));
        let process = FirstProcess { pid: 7, start_ticks: 1 << 40 };
        for process in [process, FirstProcess { pid: 8, ..process }] {
            locked.save_process(process).unwrap();
            assert_eq!(locked.place.load().unwrap(), record(Some(process)));
        }
        locked.save(&record(Some(process))).unwrap();
        assert_eq!(locked.place.load().unwrap(), record(Some(process)));
        locked.save(&Record { format: FORMAT + 1, ..record(None) }).unwrap();
        assert!(matches!(locked.place.load(), Err(StateError::Format { format, .. }) if format == FORMAT + 1));
        fs::write(locked.place.record(), r#"{"format": 77, "of": "later"}"#).unwrap();
        assert!(matches!(locked.place.load(), Err(StateError::Format { format: 77, .. })));
        fs::write(locked.place.record(), "{").unwrap();
        assert!(matches!(locked.place.load(), Err(StateError::Record { .. })));
        locked.remove().unwrap();
        assert!(matches!(store.lock("a"), Err(StateError::Missing)));
    }

    #[test]
    fn a_container_that_others_replaced_is_not_the_same() {
        let (_dir, store) = store();
        let ours = store.create("a").unwrap();
        ours.release().unwrap();
        let ours = ours.regain().unwrap();
        ours.release().unwrap();
        store.lock("a").unwrap().remove().unwrap();
        drop(store.create("a").unwrap());
        assert!(matches!(ours.regain(), Err(StateError::Missing)));
    }

    #[test]
    fn a_container_without_process_is_being_made_or_has_failed() {
        let (_dir, store) = store();
        let hierarchies = Hierarchies::default();
        let locked = store.create("a").unwrap();
        let place = store.open("a").unwrap();
        assert_eq!(place.status(&record(None), &hierarchies), Status::Creating);
        assert_eq!(locked.status(&record(None), &hierarchies), Status::Stopped);
        drop(locked);
        assert_eq!(place.status(&record(None), &hierarchies), Status::Stopped);
    }

    #[test]
    fn a_number_that_another_process_has_is_not_the_first_process() {
        let own = FirstProcess::new(rustix::process::getpid()).unwrap();
        assert!(own.open().is_some());
        assert!(FirstProcess { start_ticks: own.start_ticks + 1, ..own }.open().is_none());
    }

    #[test]
    fn a_gate_is_open_for_those_who_come_while_somebody_waits() {
        let (_dir, store) = store();
        let locked = store.create("a").unwrap();
        assert!(locked.place.gate().is_none());
        let reader = locked.make_gate().unwrap();
        let gate = locked.place.gate().unwrap();
        oci_runtime::open_gate(&gate).unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&reader, &mut byte).unwrap(), 1);
        drop(reader);
        assert!(locked.place.gate().is_none());
    }
}
