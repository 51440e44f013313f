//! The daemon on demand: starts `longshored` when nothing listens on the default local socket.
//!
//! ```text
//! lock <exec-root>/starting.lock      two racing starters get one daemon: the second finds it listening
//! connect again
//! spawn longshored --on-demand ...    its stdout is a pipe to us, its stderr <exec-root>/longshored.log
//! read one byte                       "I listen"; end of file instead of it means that it failed
//! unlock
//! ```
//!
//! The daemon itself leaves our session, directory, umask, signal mask and cgroup (`--on-demand`): from here that would
//! take unsafe code between fork and exec. We give it a clean environment; every descriptor of ours closes on exec.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An instance of the daemon: its socket and its two directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Where it listens.
    pub socket: PathBuf,
    /// Where it keeps data.
    pub data_root: PathBuf,
    /// Where it keeps state that a reboot ends.
    pub exec_root: PathBuf,
}

/// Why the daemon could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its directory cannot be made: most likely we are not root.
    #[error("nothing listens on {}, and starting the daemon needs root: run as root, or start `longshored` once", socket.display())]
    Privilege {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The lock cannot be taken.
    #[error("lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program cannot be run.
    #[error("run {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended before it listened.
    #[error("longshored ended before it listened: see {}", log.display())]
    Ended {
        /// Its log.
        log: PathBuf,
    },
}

/// Environment that the daemon inherits: where programs are, and how to reach registries.
const KEPT_ENVIRONMENT: [&str; 7] =
    ["PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"];

/// Where programs are when the caller does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Holds the right to start the daemon; dropped, it lets the next starter look.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

/// Waits for our turn to start the daemon. Blocks while another caller starts it.
pub fn take_turn(instance: &Instance) -> Result<Turn, StartError> {
    let denied = |source| StartError::Privilege { socket: instance.socket.clone(), source };
    fs::create_dir_all(&instance.exec_root).map_err(denied)?;
    let path = instance.exec_root.join("starting.lock");
    let lock = File::options().create(true).append(true).open(&path).map_err(denied)?;
    lock.lock().map_err(|source| StartError::Lock { path, source })?;
    Ok(Turn { _lock: lock })
}

/// Starts the daemon and returns when it listens. Blocks.
pub fn start(turn: &Turn, instance: &Instance) -> Result<(), StartError> {
    start_program(turn, instance, daemon_program())
}

fn start_program(_turn: &Turn, instance: &Instance, program: PathBuf) -> Result<(), StartError> {
    let log = instance.exec_root.join("longshored.log");
    let spawn_error = |source| StartError::Spawn { program: program.clone(), source };
    let log_file = File::options().create(true).append(true).open(&log).map_err(spawn_error)?;
    let mut child = command(&program, instance).stderr(log_file).spawn().map_err(spawn_error)?;
    let mut byte = [0];
    match child.stdout.take().map(|mut ready| ready.read(&mut byte)) {
        Some(Ok(1)) => Ok(()),
        _ => {
            // It is our child and has closed its end: collect it. Its exit status says no more than its log.
            let _ = child.wait();
            Err(StartError::Ended { log })
        }
    }
}

fn command(program: &Path, instance: &Instance) -> Command {
    let mut host = std::ffi::OsString::from("unix://");
    host.push(&instance.socket);
    let mut command = Command::new(program);
    command.args(["--on-demand", "--ready-fd", "1", "-H"]).arg(host);
    command.arg("--data-root").arg(&instance.data_root).arg("--exec-root").arg(&instance.exec_root);
    command.env_clear().env("PATH", DEFAULT_PATH);
    for name in KEPT_ENVIRONMENT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// `longshored` beside this program, else wherever PATH finds it.
fn daemon_program() -> PathBuf {
    let name = format!("longshored{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.canonicalize().ok()?.parent()?.join(&name)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An instance in a scratch directory, and a program that stands for its daemon.
    fn scratch(script: &str) -> (tempfile::TempDir, Instance, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let instance = Instance { socket: path("s"), data_root: path("data"), exec_root: path("exec") };
        let program = path("daemon");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        // The shell's own: the mode without an import of unix.
        fs::set_permissions(&program, fs::metadata("/bin/sh").unwrap().permissions()).unwrap();
        (dir, instance, program)
    }

    #[test]
    fn a_daemon_that_listens_gets_its_instance_and_a_clean_environment() {
        let (dir, instance, program) = scratch("echo \"$@\" >&2; env >&2; printf 1");
        let turn = take_turn(&instance).unwrap();
        start_program(&turn, &instance, program).unwrap();
        let log = fs::read_to_string(instance.exec_root.join("longshored.log")).unwrap();
        let root = dir.path().display();
        let arguments =
            format!("--on-demand --ready-fd 1 -H unix://{root}/s --data-root {root}/data --exec-root {root}/exec");
        assert_eq!(log.lines().next(), Some(arguments.as_str()));
        assert!(log.contains("PATH=") && log.contains("PWD=/") && !log.contains("CARGO"), "{log}");
    }

    #[test]
    fn a_daemon_that_ends_first_is_an_error() {
        let (_dir, instance, program) = scratch("exit 1");
        let turn = take_turn(&instance).unwrap();
        assert!(matches!(start_program(&turn, &instance, program), Err(StartError::Ended { .. })));
        let missing = instance.exec_root.join("missing");
        assert!(matches!(start_program(&turn, &instance, missing), Err(StartError::Spawn { .. })));
    }

    #[test]
    fn only_one_starter_has_its_turn() {
        let (_dir, instance, _program) = scratch("");
        let turn = take_turn(&instance).unwrap();
        let lock = File::open(instance.exec_root.join("starting.lock")).unwrap();
        assert!(lock.try_lock().is_err());
        drop(turn);
        assert!(lock.try_lock().is_ok());
    }
}
