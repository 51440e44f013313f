//! CRIU's process, and what is said to it: `criu swrk FD` (criu.org/RPC), one message a packet.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Access, CWD, Mode, OFlags, accessat, openat};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use sys::fork::{Child, NewNamespaces, fork};
use sys::mount::{Attributes, set_attributes};

use super::Directories;
use super::error::{CriuError, errors_of};
use super::request::{self, Answer, Feature, Kind, NetworkLock};
use crate::channel::{At, Channel, Failure, Message};
use crate::error::Step;
use crate::target;

/// The oldest CRIU that tells of everything that is asked for here (external PID namespaces, `status-ready`).
const VERSION_MIN: u32 = 31_500;

/// The longest answer: a notification, or a failure with its reason.
const ANSWER_BYTES: usize = 64 * 1024;

/// How long CRIU has to undo what it did when nobody talks to it any more. It lets the processes that it holds go on.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A CRIU that does our work. Dropping it ends it, and its work if that is not done.
#[derive(Debug)]
pub(super) struct Criu {
    socket: Option<OwnedFd>,
    child: Child,
    /// Where it writes.
    log: PathBuf,
}

/// What CRIU's process is made of.
pub(super) struct Start<'a> {
    /// Where it reads or writes.
    pub(super) directories: Directories,
    /// Standard streams.
    pub(super) stdio: [BorrowedFd<'a>; 3],
    /// What it keeps besides, at the same numbers.
    pub(super) inherited: &'a [OwnedFd],
    /// The cgroup that it is cloned into.
    pub(super) directory: Option<BorrowedFd<'a>>,
    /// Done first in the new process, in a mount namespace of its own that nothing leaves.
    pub(super) prepare: &'a dyn Fn() -> Result<(), Failure>,
    /// Where it will write.
    pub(super) log: PathBuf,
    /// The value of `PATH`, for us and for it.
    pub(super) search_path: OsString,
}

impl Criu {
    /// Runs CRIU and makes sure that it is new enough. The calling process has one thread.
    pub(super) fn start(start: Start<'_>) -> Result<Criu, CriuError> {
        let program = program(&start.search_path).ok_or(CriuError::Missing)?;
        let (ours, theirs) = Channel::pair().map_err(CriuError::talk("make a socket pair"))?;
        let variable = |(name, value): (OsString, OsString)| {
            string(OsString::from_vec([name.as_bytes(), b"=", value.as_bytes()].concat()))
        };
        let others = std::env::vars_os().filter(|(name, _)| name != "PATH");
        let envp: Vec<_> = others.chain([("PATH".into(), start.search_path.clone())]).map(variable).collect();
        // Its mounts, and those that it leaves when it is killed, are nobody else's.
        let namespaces = NewNamespaces(u64::from(UnshareFlags::NEWNS.bits()));
        let execute = |mut directories: Directories| -> io::Result<std::convert::Infallible> {
            directories.reopen()?;
            // Made here and not before: CRIU takes descriptors from the process that has made its socket.
            let (client, server) = Channel::pair()?;
            theirs.send_console(&client.0).map_err(|_| io::ErrorKind::BrokenPipe)?;
            sys::fd::set_standard(start.stdio)?;
            sys::fd::cloexec_from(3)?;
            let inherited = start.inherited.iter().chain([&server.0, &directories.images]).chain(&directories.work);
            inherited.into_iter().try_for_each(|fd| sys::fd::inherit(fd.as_fd()))?;
            sys::signal::reset()?;
            let argv = ["criu", "swrk", &server.0.as_raw_fd().to_string()].map(|word| string(word.into()));
            drop(client);
            Err(sys::exec::execve(&program, &argv, &envp))
        };
        let child = fork(namespaces, start.directory, || {
            let prepared = detach().and_then(|()| (start.prepare)());
            let done = prepared.and_then(|()| execute(start.directories).at(Step::Clean, "criu"));
            crate::birth::report(&theirs, done)
        });
        let child = child.map_err(CriuError::talk("clone criu's process"))?;
        drop(theirs);
        let mut criu = Criu { socket: None, child, log: start.log };
        match ours.receive().map_err(CriuError::talk("hear from criu's process"))? {
            Message::Console(socket) => criu.socket = Some(socket),
            Message::Failed(err) => return Err(err.into()),
            _ => return Err(criu.gone()),
        }
        criu.require_version().map_err(|err| match ours.receive() {
            // It could not even be executed.
            Ok(Message::Failed(err)) => err.into(),
            _ => err,
        })?;
        Ok(criu)
    }

    /// The number of its process, which is single-threaded as long as it waits for work.
    pub(super) fn pid(&self) -> i32 {
        self.child.pid.as_raw_nonzero().get()
    }

    /// Says something.
    pub(super) fn send(&self, message: &[u8]) -> Result<(), CriuError> {
        match sys::socket::send(self.socket()?.as_fd(), message, &[]) {
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Err(self.gone()),
            other => other.map(drop).map_err(CriuError::talk("talk to criu")),
        }
    }

    /// The next answer, with descriptors. Blocks for as long as CRIU works.
    pub(super) fn hear(&self) -> Result<(Answer, Vec<OwnedFd>), CriuError> {
        let (mut buffer, mut fds) = (vec![0; ANSWER_BYTES], Vec::new());
        if !self.speaks().map_err(CriuError::talk("wait for criu"))? {
            return Err(self.gone());
        }
        let length = match sys::socket::receive(self.socket()?.as_fd(), &mut buffer, &mut fds) {
            Err(err) if err.kind() == io::ErrorKind::ConnectionReset => 0,
            other => other.map_err(CriuError::talk("hear from criu"))?,
        };
        if length == 0 {
            return Err(self.gone());
        }
        Ok((Answer::parse(&buffer[..length]).ok_or(CriuError::Answer)?, fds))
    }

    /// Waits until there is something to hear; false if its process ends instead. What it restores has a copy of its socket:
    /// the end of that says nothing.
    fn speaks(&self) -> io::Result<bool> {
        let Some(socket) = &self.socket else { return Ok(false) };
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(&self.child.pidfd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        Ok(!fds[0].revents().is_empty())
    }

    /// Hears what becomes of the work: a notification, or the end, with an error unless that is good.
    pub(super) fn hear_of(&self, kind: Kind) -> Result<(Answer, Vec<OwnedFd>), CriuError> {
        let (answer, fds) = self.hear()?;
        match answer.kind {
            Kind::Notify => Ok((answer, fds)),
            _ if !answer.success => Err(self.failed(kind, &answer)),
            answered if answered == kind => Ok((answer, fds)),
            _ => Err(CriuError::Answer),
        }
    }

    /// Makes sure that there is a feature.
    pub(super) fn require(&self, feature: Feature, flag: &'static str, name: &'static str) -> Result<(), CriuError> {
        self.send(&request::feature(feature))?;
        let (answer, _) = self.hear()?;
        let has = answer.kind == Kind::FeatureCheck && answer.features.contains(&(feature as u32));
        if has { Ok(()) } else { Err(CriuError::Feature { flag, feature: name }) }
    }

    /// Waits for the end of a CRIU that has done its work.
    pub(super) fn finish(mut self) -> Result<(), CriuError> {
        self.socket = None;
        sys::wait::wait(self.child.pidfd.as_fd()).map(drop).map_err(CriuError::talk("wait for criu"))
    }

    fn require_version(&self) -> Result<(), CriuError> {
        self.send(&request::version())?;
        let (answer, _) = self.hear()?;
        match answer.version {
            _ if answer.kind != Kind::Version => Err(CriuError::Answer),
            found if found < VERSION_MIN => Err(CriuError::Version { found, wanted: VERSION_MIN }),
            _ => Ok(()),
        }
    }

    fn socket(&self) -> Result<&OwnedFd, CriuError> {
        self.socket.as_ref().ok_or(CriuError::Answer)
    }

    fn failed(&self, kind: Kind, answer: &Answer) -> CriuError {
        let log = fs::read(&self.log).unwrap_or_default();
        let errors = errors_of(&String::from_utf8_lossy(&log));
        let reason = [errors, answer.reason.trim().to_owned()].into_iter().find(|text| !text.is_empty());
        CriuError::Failed {
            kind: kind.word(),
            errno: answer.errno,
            reason: reason.unwrap_or_else(|| "no reason given".into()),
            log: self.log.clone(),
        }
    }

    /// Its process is gone, or about to be.
    fn gone(&self) -> CriuError {
        CriuError::Gone { status: self.end(), log: self.log.clone() }
    }

    /// Waits for the end, forces it if need be; its status as far as it is known.
    fn end(&self) -> u8 {
        let within = sys::wait::readable(self.child.pidfd.as_fd(), Instant::now() + END_WITHIN);
        if !within.unwrap_or(false) {
            // It can only be there: nobody has reaped it.
            let _ = sys::signal::send(self.child.pidfd.as_fd(), Signal::KILL.as_raw());
        }
        sys::wait::wait(self.child.pidfd.as_fd()).map_or(0, sys::wait::Exit::code)
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        // Without anybody to talk to it gives its work up at the next step.
        self.socket = None;
        self.end();
    }
}

/// Nothing that is mounted from here on is seen outside, and nothing of the outside is unmounted.
fn detach() -> Result<(), Failure> {
    let detach = || -> io::Result<()> {
        let host = openat(CWD, "/", target::PATH_FLAGS, Mode::empty())?;
        let private = Attributes { propagation: Attributes::PRIVATE, ..Attributes::default() };
        set_attributes(host.as_fd(), private, true)
    };
    detach().at(Step::DetachHostMounts, "")
}

/// Whether there is a CRIU at all.
pub(super) fn require_installed(search_path: &OsStr) -> Result<(), CriuError> {
    program(search_path).map(drop).ok_or(CriuError::Missing)
}

/// The host's CRIU.
fn program(search_path: &OsStr) -> Option<CString> {
    find(search_path, "criu").map(|file| string(file.into_os_string()))
}

/// How CRIU keeps packets away from connections meanwhile: by iptables, its own choice, where that is installed.
pub(super) fn network_lock(search_path: &OsStr) -> NetworkLock {
    let is_there = |name| find(search_path, name).is_some();
    if is_there("iptables-restore") && is_there("ip6tables-restore") {
        NetworkLock::Default
    } else {
        NetworkLock::Nftables
    }
}

/// A program of the host's, looked up as a shell does.
fn find(search_path: &OsStr, name: &str) -> Option<PathBuf> {
    let candidates = std::env::split_paths(search_path).map(|directory| directory.join(name));
    candidates
        .into_iter()
        .find(|file| file.is_file() && accessat(CWD, file, Access::EXEC_OK, rustix::fs::AtFlags::EACCESS).is_ok())
}

fn string(text: OsString) -> CString {
    CString::new(text.into_vec()).expect("arguments, environment and PATH come from execve, which takes no NUL bytes")
}

/// Opens the null device for a standard stream.
pub(super) fn null() -> Result<OwnedFd, CriuError> {
    let opened = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(|err| CriuError::talk("open /dev/null")(err.into()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn packets_are_kept_away_by_what_is_installed() {
        let (some, all) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let install = |directory: &tempfile::TempDir, name: &str| {
            let file =
                std::fs::OpenOptions::new().create_new(true).write(true).mode(0o755).open(directory.path().join(name));
            drop(file.unwrap());
        };
        install(&some, "iptables-restore");
        ["iptables-restore", "ip6tables-restore"].into_iter().for_each(|name| install(&all, name));
        assert_eq!(network_lock(OsStr::new("")), NetworkLock::Nftables);
        assert_eq!(network_lock(some.path().as_os_str()), NetworkLock::Nftables);
        assert_eq!(network_lock(all.path().as_os_str()), NetworkLock::Default);
    }
}
