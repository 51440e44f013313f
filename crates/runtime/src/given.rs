//! What the caller has given with a process, and wants to be given: descriptors, a terminal's socket, a file for the number.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use oci::runtime::Process;
use oci_runtime::{Kept, Stdio, SystemError};
use rustix::process::Pid;
use stdx::fs::{Durability, write_atomic_with_mode};

use crate::arguments::{Parsed, UsageError};

/// Of one new process.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// Where the terminal's master is sent.
    pub(crate) console_socket: Option<PathBuf>,
    /// Where the process's pidfd is sent.
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Where the process's number is written.
    pub(crate) pid_file: Option<PathBuf>,
    /// What the process keeps.
    pub(crate) kept: Kept,
    /// Whether the container's root is moved, not exchanged.
    pub(crate) no_pivot: bool,
    /// How many of the kept descriptors are sockets of an activation (sd_listen_fds(3)).
    listening: u32,
}

/// Which of a container's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The first.
    First,
    /// One that exec adds.
    Added,
}

impl Role {
    /// What is sent with a pidfd: runc's words.
    fn message(self) -> &'static [u8] {
        match self {
            Role::First => b"standard",
            Role::Added => b"setns",
        }
    }
}

/// Why it cannot be given, or not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GivenError {
    /// As runc says it, but for its name.
    #[error(
        "cannot allocate tty if longshore-runtime will detach without setting console socket \
         (process.terminal needs --console-socket)"
    )]
    NoConsoleSocket,
    /// As runc says it, but for its name.
    #[error(
        "cannot use console socket if longshore-runtime will not detach or allocate tty \
         (--console-socket needs process.terminal, and `run` and `exec` need --detach)"
    )]
    NeedlessConsoleSocket,
    /// A descriptor to be kept is not there.
    #[error("descriptor {number} of --preserve-fds or LISTEN_FDS is not open")]
    NoDescriptor {
        /// Which.
        number: u32,
    },
    /// The socket could not be used.
    #[error("--console-socket: send the terminal to {}", path.display())]
    Console {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: SystemError,
    },
    /// The socket could not be used.
    #[error("--pidfd-socket: send the pidfd to {}", path.display())]
    Pidfd {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: SystemError,
    },
    /// The standard streams could not be taken.
    #[error("take over the standard streams")]
    Streams {
        /// The kernel's answer.
        source: SystemError,
    },
    /// The number could not be written.
    #[error("--pid-file: write {}", path.display())]
    PidFile {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: SystemError,
    },
}

impl Given {
    /// From flags and environment. `own_pid` decides whether the environment's descriptors are meant for us.
    pub(crate) fn parse(
        flags: &Parsed,
        current_directory: &Path,
        environment: impl Fn(&str) -> Option<String>,
        own_pid: u32,
    ) -> Result<Given, UsageError> {
        let absolute =
            |name| flags.value(name).filter(|path| !path.is_empty()).map(|path| current_directory.join(path));
        let number = |name: &str| environment(name).and_then(|value| value.parse::<u32>().ok());
        let listening = number("LISTEN_FDS").filter(|_| number("LISTEN_PID") == Some(own_pid)).unwrap_or(0);
        let preserved = flags.number("preserve-fds")?;
        let descriptors = preserved.checked_add(listening).filter(|count| *count <= DESCRIPTORS_MAX);
        let too_many = || UsageError::BadValue { name: "preserve-fds", value: preserved.to_string() };
        let kept = Kept { keyring: flags.is_on("no-new-keyring"), descriptors: descriptors.ok_or_else(too_many)? };
        let [console_socket, pidfd_socket, pid_file] = ["console-socket", "pidfd-socket", "pid-file"].map(absolute);
        Ok(Given { console_socket, pidfd_socket, pid_file, kept, no_pivot: flags.is_on("no-pivot"), listening })
    }

    /// Tells the process of its sockets. `1` stands for whatever number it has inside, as runc has it.
    pub(crate) fn announce(&self, process: &mut Process) {
        if self.listening > 0 {
            process.env.extend([format!("LISTEN_FDS={}", self.listening), "LISTEN_PID=1".to_owned()]);
        }
    }

    /// Whether what is given fits the process. Before anything is opened.
    pub(crate) fn check(&self, terminal: bool, detach: bool) -> Result<(), GivenError> {
        match (terminal, detach, &self.console_socket) {
            (true, true, None) => return Err(GivenError::NoConsoleSocket),
            (false, _, Some(_)) | (true, false, Some(_)) => return Err(GivenError::NeedlessConsoleSocket),
            _ => {}
        }
        let is_open = |number: &u32| Path::new(&format!("/proc/self/fd/{number}")).symlink_metadata().is_ok();
        match (3..3 + self.kept.descriptors).find(|number| !is_open(number)) {
            Some(number) => Err(GivenError::NoDescriptor { number }),
            None => Ok(()),
        }
    }

    /// The process's streams: ours, or a terminal.
    pub(crate) fn stdio(&self, terminal: bool) -> Result<Stdio, GivenError> {
        if terminal {
            return Ok(Stdio::Terminal);
        }
        let own = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        let [input, output, error] = own.map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, self.first_free()));
        let taken = || -> io::Result<[OwnedFd; 3]> { Ok([input?, output?, error?]) };
        taken().map(Stdio::Fds).map_err(|source| GivenError::Streams { source: SystemError(source) })
    }

    /// Above what is kept, which must stay what it is.
    pub(crate) fn first_free(&self) -> i32 {
        3 + self.kept.descriptors as i32
    }

    /// Gives the caller what it wants of the new process.
    pub(crate) fn hand_out(
        &self,
        role: Role,
        pid: Pid,
        pidfd: BorrowedFd<'_>,
        console: Option<&OwnedFd>,
    ) -> Result<(), GivenError> {
        if let Some(path) = &self.pidfd_socket {
            let failed = |source| GivenError::Pidfd { path: path.clone(), source: SystemError(source) };
            send(path, role.message(), pidfd).map_err(failed)?;
        }
        if let (Some(path), Some(master)) = (&self.console_socket, console) {
            let failed = |source| GivenError::Console { path: path.clone(), source: SystemError(source) };
            // The message is the terminal's name, as runc sends it.
            send(path, b"/dev/ptmx", master.as_fd()).map_err(failed)?;
        }
        let Some(path) = &self.pid_file else { return Ok(()) };
        let number = pid.as_raw_nonzero().to_string();
        // Monitors that are not root's read it, as with runc.
        let written = write_atomic_with_mode(path, number.as_bytes(), Durability::ProcessDeath, 0o666);
        written.map_err(|source| GivenError::PidFile { path: path.clone(), source: SystemError(source) })
    }
}

/// More than anybody keeps; below every limit of descriptors that there is.
pub(crate) const DESCRIPTORS_MAX: u32 = 512;

/// Connects, and sends one message with one descriptor.
fn send(path: &Path, message: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
    // Paths of sockets end at 107 bytes: a longer one is reached through its directory.
    let directory = File::open(path.parent().unwrap_or(Path::new("/")))?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let near = Path::new("/proc/self/fd").join(std::os::fd::AsRawFd::as_raw_fd(&directory).to_string()).join(name);
    let socket = UnixStream::connect(near)?;
    sys::socket::send(socket.as_fd(), message, &[descriptor]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{CREATE, parse};

    fn given(line: &str, environment: &[(&str, &str)]) -> Result<Given, UsageError> {
        let flags = parse(&CREATE, line.split(' ').map(str::to_owned), true).unwrap();
        let environment = |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, v)| v.to_string());
        Given::parse(&flags, Path::new("/here"), environment, 7)
    }

    #[test]
    fn paths_begin_where_the_caller_is() {
        let given = given("--pid-file p --console-socket /s --no-new-keyring", &[]).unwrap();
        assert_eq!(given.pid_file.as_deref(), Some(Path::new("/here/p")));
        assert_eq!(given.console_socket.as_deref(), Some(Path::new("/s")));
        assert!(given.kept.keyring);
    }

    #[test]
    fn sockets_of_an_activation_count_if_they_are_ours() {
        let environment = [("LISTEN_FDS", "2"), ("LISTEN_PID", "7")];
        let ours = given("--preserve-fds 1", &environment).unwrap();
        let mut process = Process::default();
        ours.announce(&mut process);
        assert_eq!(
            (ours.kept.descriptors, process.env),
            (3, vec!["LISTEN_FDS=2".to_owned(), "LISTEN_PID=1".to_owned()])
        );
        let others = given("--preserve-fds 1", &[("LISTEN_FDS", "2"), ("LISTEN_PID", "8")]).unwrap();
        assert_eq!(others.kept.descriptors, 1);
        assert!(given("--preserve-fds 4000000000", &environment).is_err());
    }

    #[test]
    fn a_terminal_needs_somebody_who_shows_it() {
        let with = given("--console-socket /s", &[]).unwrap();
        let without = given("x", &[]).unwrap();
        assert!(
            with.check(true, true).is_ok() && without.check(false, true).is_ok() && without.check(false, false).is_ok()
        );
        assert!(matches!(without.check(true, true), Err(GivenError::NoConsoleSocket)));
        assert!(without.check(true, false).is_ok());
        assert!(matches!(with.check(true, false), Err(GivenError::NeedlessConsoleSocket)));
        assert!(matches!(with.check(false, true), Err(GivenError::NeedlessConsoleSocket)));
        let many = given("--preserve-fds 500", &[]).unwrap();
        assert!(matches!(many.check(false, true), Err(GivenError::NoDescriptor { .. })));
    }
}
