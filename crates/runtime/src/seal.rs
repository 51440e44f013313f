//! The program's own file, out of the reach of containers (CVE-2019-5736).
//!
//! A container's process is a copy of this one until it executes its program, and what is executed may be a link to
//! /proc/self/exe. So commands that make processes run from a detached, read-only clone of the program's mount, or
//! from a sealed copy in memory where the caller may not clone mounts.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use oci_runtime::SystemError;
use rustix::fs::{StatVfsMountFlags, statvfs};
use sys::binary::{SealedProgram, is_sealed};

/// Set in the second life: what is not sealed then cannot be.
const MARK: &str = "_LONGSHORE_RUNTIME_SEALED";

/// The link to the program that runs.
const OWN: &str = "/proc/self/exe";

/// Why the program cannot be protected.
#[derive(Debug, thiserror::Error)]
#[error("protect the runtime's program from its containers")]
pub(crate) struct SealError {
    source: SystemError,
}

/// Executes this program again from a sealed clone, unless it runs from one. Answers only then.
pub(crate) fn ensure() -> Result<(), SealError> {
    let failed = |source: io::Error| SealError { source: SystemError(source) };
    let read_only = statvfs(OWN).map_err(|err| failed(err.into()))?.f_flag.contains(StatVfsMountFlags::RDONLY);
    if read_only {
        return Ok(());
    }
    if std::env::var_os(MARK).is_some() {
        let sealed = File::open(OWN).is_ok_and(|own| is_sealed(own.as_fd()));
        return if sealed { Ok(()) } else { Err(failed(io::ErrorKind::Unsupported.into())) };
    }
    let program = match SealedProgram::open(Path::new(OWN)) {
        // For those without privilege.
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => SealedProgram::copy(Path::new(OWN)),
        other => other,
    };
    let program = program.map_err(failed)?;
    let string = |bytes: Vec<u8>| CString::new(bytes).expect("what execve gave us has no NUL byte inside");
    let argv: Vec<_> = std::env::args_os().map(|word| string(word.into_vec())).collect();
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        string([name.as_bytes(), b"=", value.as_bytes()].concat())
    };
    let mut envp: Vec<_> = std::env::vars_os().map(variable).collect();
    envp.push(string(format!("{MARK}=1").into_bytes()));
    Err(failed(sys::exec::fexecve(program.as_fd(), &argv, &envp)))
}
