//! Starting shims.

use std::ffi::CString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use errdefs::ErrorKind;
use oci::ContainerId;
use sys::binary::SealedProgram;

/// What every start of a shim needs, made once.
pub struct Spawner {
    program: SealedProgram,
    null: File,
    /// The `tasks` (v1) or `cgroup.procs` (v2) files of the root of each hierarchy in which the daemon is somewhere else.
    cgroups: Vec<File>,
}

/// Why a shim could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program cannot be opened.
    #[error("open the shim {}", path.display())]
    Program {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// /dev/null or a cgroup's file cannot be opened.
    #[error("open {}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its directory cannot be made.
    #[error("create {}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel makes no socket, or no process.
    #[error("start the container's shim")]
    Process(#[source] io::Error),
}

impl SpawnError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

impl Spawner {
    /// Opens what starts need. Blocks.
    pub fn open(program: &Path) -> Result<Spawner, SpawnError> {
        let sealed =
            SealedProgram::open(program).map_err(|source| SpawnError::Program { path: program.to_owned(), source })?;
        let null = open("/dev/null".as_ref(), OpenOptions::new().read(true).write(true))?;
        let paths = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let entrances = root_entrances(&paths, &mounts);
        let cgroups =
            entrances.iter().map(|path| open(path, OpenOptions::new().write(true))).collect::<Result<_, _>>()?;
        Ok(Spawner { program: sealed, null, cgroups })
    }

    /// Starts the shim of `id` with its directory `dir`, and answers the connection and the pidfd.
    ///
    /// Blocks for the time between fork and exec, about 0.2 ms, which is less than a crossing and back would add.
    pub fn spawn(&self, dir: &Path, id: &ContainerId) -> Result<(UnixStream, OwnedFd), SpawnError> {
        let made = DirBuilder::new().mode(0o700).recursive(true).create(dir);
        made.map_err(|source| SpawnError::Directory { path: dir.to_owned(), source })?;
        let (ours, theirs) = UnixStream::pair().map_err(SpawnError::Process)?;
        let dir = dir.as_os_str().as_bytes();
        let pidfd = self.start([b"longshore-shim", b"--dir", dir, id.as_str().as_bytes()], theirs.as_fd());
        Ok((ours, pidfd.map_err(SpawnError::Process)?))
    }

    /// Starts the relay, which has its directory already and speaks over this socket. Blocks likewise.
    pub fn spawn_relay(&self, dir: &Path, socket: OwnedFd) -> io::Result<()> {
        let pidfd = self.start([b"longshore-relay", b"--relay", dir.as_os_str().as_bytes()], socket.as_fd())?;
        // Nobody else waits for it. The thread is there while a relay is which this daemon has started.
        let reap = move || {
            if let Err(err) = sys::wait::wait(pidfd.as_fd()) {
                tracing::debug!(%err, "wait for the relay");
            }
        };
        std::thread::Builder::new().name("relay".to_owned()).spawn(reap).map(drop)
    }

    fn start<const N: usize>(&self, argv: [&[u8]; N], socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let null = self.null.as_fd();
        let command = sys::spawn::Command {
            program: self.program.as_fd(),
            argv: argv.into_iter().map(CString::new).collect::<Result<_, _>>()?,
            envp: Vec::new(),
            fds: vec![null, null, null, socket],
            cgroups: self.cgroups.iter().map(AsFd::as_fd).collect(),
        };
        Ok(sys::spawn::spawn(&command)?.pidfd)
    }
}

fn open(path: &Path, options: &OpenOptions) -> Result<File, SpawnError> {
    options.open(path).map_err(|source| SpawnError::Open { path: path.to_owned(), source })
}

/// The files through which a process enters the root of every hierarchy in which we are not in the root already.
///
/// `paths` is /proc/self/cgroup, `mounts` /proc/self/mountinfo. A shim must not die or be limited with the daemon's own
/// cgroup; usually the daemon sits in the roots, and then a start costs nothing here.
fn root_entrances(paths: &str, mounts: &str) -> Vec<PathBuf> {
    let elsewhere = paths.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        (path != "/").then_some(controllers)
    });
    elsewhere.filter_map(|controllers| mount_of(controllers, mounts)).collect()
}

fn mount_of(controllers: &str, mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        // A hierarchy of which only a part is mounted has no root that we could enter.
        let (root, target) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, _, options) = (right.next()?, right.next()?, right.next()?);
        let file = match (kind, controllers) {
            ("cgroup2", "") => "cgroup.procs",
            ("cgroup", named) if !named.is_empty() && named.split(',').all(|one| has_option(options, one)) => "tasks",
            _ => return None,
        };
        (root == "/").then(|| Path::new(target).join(file))
    })
}

fn has_option(options: &str, name: &str) -> bool {
    options.split(',').any(|option| option == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shims_enter_the_roots_where_the_daemon_is_elsewhere() {
        let mounts = "\
            30 25 0:26 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n\
            31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            32 25 0:28 / /sys/fs/cgroup/systemd rw - cgroup none rw,name=systemd\n\
            33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
            34 25 0:30 /part /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let check = |paths, expected: &[&str]| {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(root_entrances(paths, mounts), expected, "{paths}");
        };
        check("4:memory:/\n3:cpu,cpuacct:/\n0::/\n", &[]);
        check(
            "4:memory:/a\n3:cpu,cpuacct:/\n0::/b\n",
            &["/sys/fs/cgroup/memory/tasks", "/sys/fs/cgroup/unified/cgroup.procs"],
        );
        check(
            "1:name=systemd:/a\n9:pids:/a\n3:cpu,cpuacct:/a:b\n",
            &["/sys/fs/cgroup/systemd/tasks", "/sys/fs/cgroup/cpu,cpuacct/tasks"],
        );
    }
}
