//! The two directories of an instance, and the locks that keep a second daemon out of them.
//!
//! ```text
//! <exec-root>/    0700, tmpfs
//!   longshored.lock   held (flock) by the daemon, holds its process id
//!   starting.lock     held by whoever starts a daemon on demand, and by that daemon while it ends
//!   instance-key      8 hex digits
//!   containers/ ...   engine and shims
//! <data-root>/    0700
//!   longshored.lock
//!   ...               engine
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use stdx::fs::Durability;

/// How long a daemon that was just killed may take to die: the kernel takes its memory and its sockets apart first.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The locks of an instance, held until the process ends.
#[derive(Debug)]
pub(crate) struct Roots {
    /// 8 hex digits that tell this instance's cgroups from those of others.
    pub(crate) instance_key: String,
    _locks: [File; 2],
}

/// Why a daemon may not use its directories.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    #[error("{} is in use by another longshored, process {pid}", root.display())]
    InUse { root: PathBuf, pid: String },
    #[error("longshored needs root: start it as root, or with sudo")]
    Unprivileged,
    #[error(
        "--data-root {} and --exec-root {} must be two directories, neither of them in the other",
        data_root.display(),
        exec_root.display()
    )]
    Nested { data_root: PathBuf, exec_root: PathBuf },
    #[error("prepare {}", path.display())]
    Prepare { path: PathBuf, source: io::Error },
    #[error("process with PID {pid} is still running: ensure longshored is not running or delete {}", path.display())]
    PidfileInUse { path: PathBuf, pid: i32 },
}

/// Refuses to go on as another user than root, who could neither make the directories nor use them.
pub(crate) fn require_root() -> Result<(), RootError> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(RootError::Unprivileged),
    }
}

/// Makes both directories and takes their locks.
pub(crate) fn take(data_root: &Path, exec_root: &Path) -> Result<Roots, RootError> {
    make(exec_root)?;
    make(data_root)?;
    refuse_nested(data_root, exec_root)?;
    let locks = [take_root(exec_root)?, take_root(data_root)?];
    let failed = |source| RootError::Prepare { path: exec_root.to_owned(), source };
    let instance_key = instance_key(&fs::canonicalize(exec_root).map_err(failed)?);
    let path = exec_root.join("instance-key");
    stdx::fs::write_atomic(&path, instance_key.as_bytes(), Durability::ProcessDeath).map_err(failed)?;
    Ok(Roots { instance_key, _locks: locks })
}

/// The lock that a starter of a daemon on demand holds.
pub(crate) fn starting_lock(exec_root: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(exec_root.join("starting.lock"))
}

/// Writes the process id, unless the file holds that of another daemon which lives.
pub(crate) fn write_pidfile(path: &Path) -> Result<(), RootError> {
    let running = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(pid) = running.filter(|&pid| pid != std::process::id() as i32 && is_daemon(pid)) {
        return Err(RootError::PidfileInUse { path: path.to_owned(), pid });
    }
    let text = std::process::id().to_string();
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = made.and_then(|()| stdx::fs::write_atomic(path, text.as_bytes(), Durability::ProcessDeath));
    let readable = written.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o644)));
    readable.map_err(|source| RootError::Prepare { path: path.to_owned(), source })
}

fn make(root: &Path) -> Result<(), RootError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(root);
    made.map_err(|source| RootError::Prepare { path: root.to_owned(), source })
}

/// Each root has a lock of its own and names of its own: one lock would be the other, or lie among the engine's files.
///
/// They need not exist: a configuration that is only checked makes nothing.
pub(crate) fn refuse_nested(data_root: &Path, exec_root: &Path) -> Result<(), RootError> {
    let failed = |root: &Path| {
        let path = root.to_owned();
        move |source| RootError::Prepare { path, source }
    };
    let data = real(data_root).map_err(failed(data_root))?;
    let exec = real(exec_root).map_err(failed(exec_root))?;
    match data.starts_with(&exec) || exec.starts_with(&data) {
        true => Err(RootError::Nested { data_root: data_root.to_owned(), exec_root: exec_root.to_owned() }),
        false => Ok(()),
    }
}

/// Where a path leads, as far as it exists: links may lead from one root to the other.
fn real(path: &Path) -> io::Result<PathBuf> {
    match (fs::canonicalize(path), path.parent(), path.file_name()) {
        (Err(err), Some(parent), Some(name)) if err.kind() == io::ErrorKind::NotFound => Ok(real(parent)?.join(name)),
        (found, ..) => found,
    }
}

fn take_root(root: &Path) -> Result<File, RootError> {
    let failed = |source| RootError::Prepare { path: root.to_owned(), source };
    fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    let lock = open_lock(root).map_err(failed)?;
    let mut lock = match lock.try_lock() {
        Ok(()) => lock,
        Err(fs::TryLockError::WouldBlock) => wait_for_lock(root).map_err(failed)?.ok_or_else(|| in_use(root))?,
        Err(fs::TryLockError::Error(err)) => return Err(failed(err)),
    };
    let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    written.map_err(failed)?;
    Ok(lock)
}

fn open_lock(root: &Path) -> io::Result<File> {
    File::options().create(true).read(true).append(true).open(root.join("longshored.lock"))
}

/// Waits until the daemon before us is gone; `None` if it stays.
///
/// flock(2) has no deadline of its own, so a thread waits in it. It is left behind when nobody wants the lock any more,
/// and gives up what it got.
fn wait_for_lock(root: &Path) -> io::Result<Option<File>> {
    let lock = open_lock(root)?;
    let (sender, receiver) = mpsc::sync_channel(0);
    std::thread::Builder::new().name("lock".to_owned()).spawn(move || {
        let locked = lock.lock().map(|()| lock);
        // An error says that we were too late: the lock goes with the file.
        let _ = sender.send(locked);
    })?;
    match receiver.recv_timeout(LOCK_TIMEOUT) {
        Ok(locked) => locked.map(Some),
        Err(_) => Ok(None),
    }
}

fn in_use(root: &Path) -> RootError {
    // Whose lock it is only helps the reader of the message.
    let pid = fs::read_to_string(root.join("longshored.lock")).unwrap_or_default();
    RootError::InUse { root: root.to_owned(), pid: pid.trim().to_owned() }
}

fn instance_key(exec_root: &Path) -> String {
    let digest = Sha256::digest(exec_root.as_os_str().as_bytes());
    digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether that is a process of our program which lives: another one has the number of a dead daemon by chance, and one that
/// was killed is a zombie until its parent looks.
fn is_daemon(pid: i32) -> bool {
    let read = |pid: &str, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let pid = pid.to_string();
    // proc(5): the state follows the name, which may hold anything but is the last thing in parentheses.
    let is_zombie = read(&pid, "stat").rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']));
    !is_zombie && read(&pid, "comm") == read("self", "comm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_has_one_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let (data, exec, other) = (dir.path().join("data"), dir.path().join("exec"), dir.path().join("other"));
        let first = take(&data, &exec).unwrap();
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_to_string(exec.join("instance-key")).unwrap(), first.instance_key);
        assert_eq!(first.instance_key.len(), 8);
        let message = take(&data, &other).unwrap_err().to_string();
        assert_eq!(
            message,
            format!("{} is in use by another longshored, process {}", data.display(), std::process::id())
        );
        assert!(matches!(take(&other, &exec), Err(RootError::InUse { .. })));
        drop(first);
        take(&data, &exec).unwrap();
    }

    #[test]
    fn the_roots_are_two_directories_side_by_side() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("a")).unwrap();
        std::os::unix::fs::symlink(path("a"), path("link")).unwrap();
        for (data, exec) in [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("link", "a"), ("a", "link/c"), ("a", "a/../a")] {
            let message = take(&path(data), &path(exec)).unwrap_err().to_string();
            let wanted = format!(
                "--data-root {} and --exec-root {} must be two directories, neither of them in the other",
                path(data).display(),
                path(exec).display()
            );
            assert_eq!(message, wanted);
        }
        assert!(!path("a/longshored.lock").exists());
        take(&path("a"), &path("ab")).unwrap();
    }

    #[test]
    fn a_daemon_waits_for_one_that_is_about_to_be_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (data, exec) = (dir.path().join("data"), dir.path().join("exec"));
        let first = take(&data, &exec).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| take(&data, &exec).map(drop));
            // It sleeps in flock(2) of the exec root's lock, which is the first that it asks for.
            let locks = || fs::read_to_string("/proc/locks").unwrap();
            let inode = format!(
                ":{} ",
                std::os::unix::fs::MetadataExt::ino(&fs::metadata(exec.join("longshored.lock")).unwrap())
            );
            while !locks().lines().any(|line| line.contains("-> FLOCK") && line.contains(&inode)) {
                assert!(!second.is_finished(), "it did not wait");
                std::thread::yield_now();
            }
            drop(first);
            second.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_pidfile_of_a_living_process_is_respected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/d.pid");
        write_pidfile(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        write_pidfile(&path).unwrap();
        // A program that bears our name, of which the kernel keeps 15 bytes.
        let name = fs::read_to_string("/proc/self/comm").unwrap();
        let program = dir.path().join(name.trim_end());
        fs::copy("/bin/sleep", &program).unwrap();
        let mut other = std::process::Command::new(&program).arg("1000").spawn().unwrap();
        let pid = other.id() as i32;
        fs::write(&path, pid.to_string()).unwrap();
        let refused = write_pidfile(&path);
        other.kill().unwrap();
        assert!(matches!(refused, Err(RootError::PidfileInUse { pid: named, .. }) if named == pid), "{refused:?}");
        // Dead, and nobody has waited for it.
        let is_zombie = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ");
        while !is_zombie() {
            std::thread::yield_now();
        }
        write_pidfile(&path).unwrap();
        other.wait().unwrap();
        for stale in ["", "nonsense", "1", "-5", "2147483647"] {
            fs::write(&path, stale).unwrap();
            write_pidfile(&path).unwrap();
        }
    }
}
