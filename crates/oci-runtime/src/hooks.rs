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
use rustix::fs::{MemfdFlags, Mode, memfd_create};
use rustix::io::Errno;
use rustix::process::umask;
use sys::fork::{NewNamespaces, fork};
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
}

impl HookError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// Runs the hooks one after the other until one fails; `name` is their list's. The calling process has one thread.
pub fn run_all(name: &str, hooks: &[Hook], state: &State) -> Result<(), HookError> {
    hooks.iter().enumerate().try_for_each(|(index, hook)| run(name, index, hook, state))
}

/// What can be known of hooks before anything is done.
pub(crate) fn check(hooks: &Hooks) -> Result<(), PlanError> {
    let all = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (name, hooks) in all {
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

/// Runs the hook at this place of the list of this name.
pub fn run(name: &str, index: usize, hook: &Hook, state: &State) -> Result<(), HookError> {
    let (field, path_of) = (|| format!("hooks.{name}[{index}]"), || hook.path.clone());
    let failed = |source| HookError::Run { field: field(), path: path_of(), source };
    let (path, argv, envp) = strings(hook).map_err(failed)?;
    let input = memory(&serde_json::to_vec(state).expect("a state has only texts and numbers")).map_err(failed)?;
    // A file, not a pipe: nobody has to read while the hook writes.
    let mut output = memory(b"").map_err(failed)?;
    let mut refusal = memory(b"").map_err(failed)?;
    let execute = || {
        umask(Mode::from_raw_mode(0o022));
        let prepared = sys::fd::set_standard([input.as_fd(), output.as_fd(), output.as_fd()])
            .and_then(|()| sys::signal::reset())
            .and_then(|()| sys::fd::cloexec_from(3));
        let err = prepared.err().unwrap_or_else(|| sys::exec::execve(&path, &argv, &envp));
        // What its program says goes to the output alone.
        let _ = rustix::io::write(&refusal, &err.raw_os_error().unwrap_or_default().to_ne_bytes());
        127
    };
    let child = fork(NewNamespaces::default(), None, execute).map_err(failed)?;
    // One that no clock reaches is none.
    let deadline = hook.timeout.and_then(|s| Instant::now().checked_add(Duration::from_secs(s.unsigned_abs())));
    if let Some(deadline) = deadline
        && !sys::wait::readable(child.pidfd.as_fd(), deadline).map_err(failed)?
    {
        // It is ours and not reaped: it can only be there.
        let _ = sys::signal::send(child.pidfd.as_fd(), rustix::process::Signal::KILL.as_raw());
        sys::wait::wait(child.pidfd.as_fd()).map_err(failed)?;
        let seconds = hook.timeout.unwrap_or_default();
        return Err(HookError::Timeout { field: field(), path: path_of(), seconds });
    }
    let exit = sys::wait::wait(child.pidfd.as_fd()).map_err(failed)?;
    if let Some(err) = refused(&mut refusal).map_err(failed)? {
        return Err(failed(if hook.path.is_dir() { Errno::ISDIR.into() } else { err }));
    }
    match exit {
        Exit::Code(0) => Ok(()),
        exit => Err(HookError::Failed {
            field: field(),
            path: path_of(),
            status: exit.code(),
            output: said(&mut output).map_err(failed)?,
        }),
    }
}

/// Why the program could not be executed; `None` if it was.
fn refused(refusal: &mut File) -> io::Result<Option<io::Error>> {
    let mut number = [0; 4];
    refusal.rewind()?;
    let read = refusal.read(&mut number)?;
    Ok((read == number.len()).then(|| io::Error::from_raw_os_error(i32::from_ne_bytes(number))))
}

fn memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("hook", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// The beginning of what a hook wrote, in one line: it becomes part of an error message.
fn said(output: &mut File) -> io::Result<String> {
    /// Part of a message of at most 4 KiB.
    const BYTES_MAX: u64 = 1024;
    let mut bytes = Vec::new();
    output.rewind()?;
    output.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().replace('\n', "; "))
}
