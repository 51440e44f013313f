//! Programs that the specification has run at points of a container's life.
//!
//! ```text
//! prestart, createRuntime   parent   everything is mounted, the root is not changed yet
//! createContainer           child    the same moment, in the container's namespaces
//! startContainer            child    right before execve, as the container's user
//! poststart, poststop       the caller, with [`run_all`]
//! ```

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use errdefs::ErrorKind;
use oci::runtime::{Hook, Hooks, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, memfd_create};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, getpid, kill_current_process_group, pidfd_open, setpgid, umask};
use sys::fd::keep_only;
use sys::fork::{Child, NewNamespaces, fork};
use sys::signal::{SignalFd, SignalSet};
use sys::wait::Exit;

use crate::error::PlanError;
use crate::field::FieldError;

/// Why [`run_all`] failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be run.
    #[error("{field}: run {}", path.display())]
    Run {
        /// Its full name: `hooks.prestart[0]`.
        field: String,
        /// The program.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It failed.
    #[error("{field}: {} ended with status {status}{}{output}", path.display(), if output.is_empty() { "" } else { ", output: " })]
    Failed {
        /// Its full name.
        field: String,
        /// The program.
        path: PathBuf,
        /// Exit status, or 128 plus the signal.
        status: u8,
        /// What it wrote; often nothing.
        output: String,
    },
    /// It took longer than it may, and was killed.
    #[error("{field}.timeout: {} took longer than {seconds} s and was killed", path.display())]
    Timeout {
        /// Its full name.
        field: String,
        /// The program.
        path: PathBuf,
        /// Its time.
        seconds: i64,
    },
    /// A signal to end came to the caller while it ran, and it was killed.
    #[error("{field}: {} was interrupted and killed", path.display())]
    Interrupted {
        /// Its full name.
        field: String,
        /// The program.
        path: PathBuf,
    },
}

impl HookError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// Runs the hooks one after the other until one fails; `name` is their list's. The calling process has one thread.
pub fn run_all(name: &str, hooks: &[Hook], state: &State) -> Result<(), HookError> {
    let mut ran = Ran::default();
    hooks.iter().enumerate().try_for_each(|(index, hook)| run_one(name, index, hook, state, &mut ran))
}

/// Runs the hook at this place of the list of this name.
pub fn run(name: &str, index: usize, hook: &Hook, state: &State) -> Result<(), HookError> {
    run_one(name, index, hook, state, &mut Ran::default())
}

/// Hooks that have succeeded. They are reaped when it is dropped: before, the numbers of their process groups are nobody
/// else's.
#[derive(Debug, Default)]
pub(crate) struct Ran(Vec<Child>);

impl Ran {
    /// Runs the hooks of a list one after the other until one fails.
    pub(crate) fn run_all(&mut self, name: &str, hooks: &[Hook], state: &State) -> Result<(), HookError> {
        hooks.iter().enumerate().try_for_each(|(index, hook)| run_one(name, index, hook, state, self))
    }

    /// Kills what they have left running.
    pub(crate) fn kill(&self) {
        self.0.iter().for_each(kill_group);
    }
}

impl Drop for Ran {
    fn drop(&mut self) {
        // They have ended, or were killed.
        self.0.iter().for_each(|child| drop(sys::wait::wait(child.pidfd.as_fd())));
    }
}

/// What can be known of hooks before anything is done.
pub(crate) fn check(hooks: &Hooks) -> Result<(), PlanError> {
    for (name, hooks) in hooks.by_name() {
        for (index, hook) in hooks.iter().enumerate() {
            let failed = |err: FieldError, part: &str| err.at(format!("hooks.{name}[{index}].{part}"));
            if !hook.path.is_absolute() {
                return Err(failed(FieldError::Relative { path: hook.path.display().to_string() }, "path"));
            }
            if let Some(number) = hook.timeout.filter(|seconds| *seconds < 1) {
                return Err(failed(FieldError::TooFew { number, unit: "seconds", least: 1 }, "timeout"));
            }
            strings(hook).map_err(|_| PlanError::Nul { field: "hooks" })?;
        }
    }
    Ok(())
}

/// Path, arguments and environment for execve.
fn strings(hook: &Hook) -> io::Result<(CString, Vec<CString>, Vec<CString>)> {
    let list =
        |texts: &[String]| texts.iter().map(|text| Ok(CString::new(text.as_str())?)).collect::<io::Result<Vec<_>>>();
    let path = CString::new(hook.path.as_os_str().as_encoded_bytes())?;
    let argv = if hook.args.is_empty() { vec![path.clone()] } else { list(&hook.args)? };
    Ok((path, argv, list(&hook.env)?))
}

/// Runs the hook, which is among those that `ran` if it succeeds. If it fails, or takes too long, everything that it has
/// started goes with it, but for what has left its process group.
fn run_one(name: &str, index: usize, hook: &Hook, state: &State, ran: &mut Ran) -> Result<(), HookError> {
    let (field, path_of) = (|| format!("hooks.{name}[{index}]"), || hook.path.clone());
    let failed = |source| HookError::Run { field: field(), path: path_of(), source };
    let (path, argv, envp) = strings(hook).map_err(failed)?;
    // Its name is how others see what the runtime waits for.
    let input =
        memory(&field(), &serde_json::to_vec(state).expect("a state has only texts and numbers")).map_err(failed)?;
    // A file, not a pipe: nobody has to read while the hook writes.
    let output = memory("output", b"").map_err(failed)?;
    let refusal = memory("refusal", b"").map_err(failed)?;
    let signals = Held::new().map_err(failed)?;
    let keeper = if IN_CONTAINER.contains(&name) { None } else { Some(keep().map_err(failed)?) };
    let execute = || {
        umask(Mode::from_raw_mode(0o022));
        if name != IN_FILTER {
            join_group(keeper.as_ref());
        }
        let prepared = sys::fd::set_standard([input.as_fd(), output.as_fd(), output.as_fd()])
            .and_then(|()| sys::signal::reset())
            .and_then(|()| sys::fd::cloexec_from(3));
        let err = prepared.err().unwrap_or_else(|| sys::exec::execve(&path, &argv, &envp));
        // What its program says goes to the output alone.
        let _ = rustix::io::write(&refusal, &err.raw_os_error().unwrap_or_default().to_ne_bytes());
        127
    };
    let child = match fork(NewNamespaces::default(), None, execute) {
        Err(err) => {
            keeper.as_ref().into_iter().try_for_each(end).map_err(failed)?;
            return Err(failed(err));
        }
        Ok(child) => child,
    };
    let result = match attend(&child, hook.timeout, (name != IN_FILTER).then_some(&signals)).map_err(failed) {
        Err(err) => Err(err),
        Ok(Attended::TooLong) => {
            let seconds = hook.timeout.unwrap_or_default();
            Err(HookError::Timeout { field: field(), path: path_of(), seconds })
        }
        Ok(Attended::Interrupted) => Err(HookError::Interrupted { field: field(), path: path_of() }),
        Ok(Attended::Ended(exit)) => match refused(refusal) {
            Err(err) => Err(failed(err)),
            Ok(Some(err)) => Err(failed(if hook.path.is_dir() { Errno::ISDIR.into() } else { err })),
            Ok(None) if exit == Exit::Code(0) => Ok(()),
            Ok(None) => Err(match said(output) {
                Ok(output) => HookError::Failed { field: field(), path: path_of(), status: exit.code(), output },
                Err(err) => failed(err),
            }),
        },
    };
    if result.is_err() {
        kill_group(keeper.as_ref().unwrap_or(&child));
        // It may never have been in a group.
        [Some(&child), keeper.as_ref()].into_iter().flatten().try_for_each(end).map_err(failed)?;
    } else {
        let leader = match keeper {
            None => child,
            Some(keeper) => {
                // What the hook has left running may go on.
                let _ = sys::signal::send(keeper.pidfd.as_fd(), Signal::KILL.as_raw());
                sys::wait::wait(child.pidfd.as_fd()).map_err(failed)?;
                keeper
            }
        };
        ran.0.push(leader);
    }
    result
}

/// Hooks of this name run with the container's filter, which may end whoever makes a call that programs seldom need. What
/// they start ends with the container.
const IN_FILTER: &str = "startContainer";

/// Lists whose hooks run in the container, and end with it.
const IN_CONTAINER: [&str; 2] = ["createContainer", IN_FILTER];

/// Starts the first process of a hook's group, which kills the group when the calling process ends. The death signal of a
/// hook reaches the hook alone, not what it has started; and as long as its first process is not reaped, the number is no
/// other group's.
fn keep() -> io::Result<Child> {
    let runtime = pidfd_open(getpid(), PidfdFlags::empty())?;
    let keeper = fork(NewNamespaces::default(), None, || {
        // It does not fail for a process that has just been made.
        let _ = setpgid(None, None);
        // The caller's lock, above all, goes with the caller.
        let kept = keep_only(0, [runtime.as_fd()], |[runtime]| {
            while poll(&mut [PollFd::new(&runtime, PollFlags::IN)], None) == Err(Errno::INTR) {}
            let _ = kill_current_process_group(Signal::KILL);
            0
        });
        u8::from(kept.is_err())
    })?;
    // Whichever comes first: the hook needs the group. It fails only for one that has ended.
    let _ = setpgid(Some(keeper.pid), Some(keeper.pid));
    Ok(keeper)
}

/// Brings the calling process into the keeper's process group, or one of its own, which can be killed as a whole, and lets it
/// end with the runtime, as it did when it was in the group of a terminal's command.
fn join_group(keeper: Option<&Child>) {
    // Neither fails for a process that has just been made.
    let _ = setpgid(None, keeper.map(|keeper| keeper.pid));
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
}

/// Kills a hook's process group. It is not reaped yet, so that the number is no other group's.
fn kill_group(child: &Child) {
    // Without a member there is nothing to kill.
    let _ = rustix::process::kill_process_group(child.pid, Signal::KILL);
}

/// Kills and reaps a child. It is ours and not reaped: it can only be there.
fn end(child: &Child) -> io::Result<()> {
    let _ = sys::signal::send(child.pidfd.as_fd(), Signal::KILL.as_raw());
    sys::wait::wait(child.pidfd.as_fd()).map(drop)
}

/// Signals to end, held back while a hook runs: the terminal does not send them to the hook, which has a process group of its
/// own.
struct Held {
    before: SignalSet,
    signals: SignalFd,
}

impl Held {
    fn new() -> io::Result<Held> {
        let set = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];
        let set = || set.iter().fold(SignalSet::empty(), |set, signal| set.with(signal.as_raw()));
        let signals = SignalFd::open(set())?;
        Ok(Held { before: sys::signal::block(set())?, signals })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It has been the mask before.
        let _ = sys::signal::set_mask(self.before);
    }
}

/// How waiting for a hook went.
enum Attended {
    Ended(Exit),
    TooLong,
    Interrupted,
}

/// Waits for the hook's end without reaping it; at most for so many seconds, and until one of the signals comes.
fn attend(child: &Child, timeout: Option<i64>, signals: Option<&Held>) -> io::Result<Attended> {
    // One that no clock reaches is none.
    let deadline = timeout.and_then(|s| Instant::now().checked_add(Duration::from_secs(s.unsigned_abs())));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        let mut fds = vec![PollFd::new(&child.pidfd, PollFlags::IN)];
        fds.extend(signals.map(|held| PollFd::new(&held.signals, PollFlags::IN)));
        match poll(&mut fds, left.as_ref()) {
            Err(Errno::INTR) => {}
            Err(err) => return Err(err.into()),
            Ok(0) => return Ok(Attended::TooLong),
            Ok(_) if fds[0].revents().is_empty() => {
                // It has had its effect: the caller cleans up.
                signals.map_or(Ok(None), |held| held.signals.read())?;
                return Ok(Attended::Interrupted);
            }
            Ok(_) => return Ok(Attended::Ended(sys::wait::look(child.pidfd.as_fd())?)),
        }
    }
}

/// Why the program could not be executed; `None` if it was.
fn refused(mut refusal: File) -> io::Result<Option<io::Error>> {
    let mut number = [0; 4];
    refusal.rewind()?;
    let read = refusal.read(&mut number)?;
    Ok((read == number.len()).then(|| io::Error::from_raw_os_error(i32::from_ne_bytes(number))))
}

fn memory(name: &str, bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// The beginning of what a hook wrote, in one line: it becomes part of an error message.
fn said(mut output: File) -> io::Result<String> {
    /// Part of a message of at most 4 KiB.
    const BYTES_MAX: u64 = 1024;
    let mut bytes = Vec::new();
    output.rewind()?;
    output.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().replace('\n', "; "))
}
