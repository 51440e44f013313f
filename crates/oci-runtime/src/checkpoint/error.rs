//! Why a container could not be checkpointed or restored.

use std::io;
use std::path::PathBuf;

use errdefs::ErrorKind;

use crate::error::{CreateError, PlanError, ProcessError};
use crate::hooks::HookError;

/// Why [`checkpoint`](super::checkpoint) or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum CriuError {
    /// CRIU is not installed.
    #[error("exec: \"criu\": executable file not found in $PATH")]
    Missing,
    /// A CRIU without what is needed.
    #[error("CRIU version {found} must be {wanted} or higher")]
    Version {
        /// As CRIU counts: 31700 is 3.17.
        found: u32,
        /// The lowest.
        wanted: u32,
    },
    /// CRIU or this kernel lacks something that was asked for.
    #[error("--{flag} is not possible here: criu is missing features: {feature}")]
    Feature {
        /// The flag of the command line.
        flag: &'static str,
        /// CRIU's word.
        feature: &'static str,
    },
    /// CRIU could not be started, or not be talked to.
    #[error("{action}")]
    Talk {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// CRIU says something else than its protocol has.
    #[error("criu answers with something that is not understood")]
    Answer,
    /// CRIU ended before its work was done.
    #[error("criu ended with status {status} before its work was done (log file: {})", log.display())]
    Gone {
        /// Exit status, or 128 plus the signal.
        status: u8,
        /// Where it writes.
        log: PathBuf,
    },
    /// CRIU gave up.
    #[error("criu failed: type {kind} errno {errno}: {reason} (log file: {})", log.display())]
    Failed {
        /// What was asked for.
        kind: &'static str,
        /// CRIU's number for it.
        errno: i32,
        /// The errors of the log.
        reason: String,
        /// Where it writes.
        log: PathBuf,
    },
    /// A directory or file of the images.
    #[error("{action} {}", path.display())]
    Images {
        /// What was tried.
        action: &'static str,
        /// With which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// What is to be restored was never written. The last words are runc's.
    #[error("--image-path {} is no checkpoint: open {}", path.display(), missing.display())]
    NoImages {
        /// The directory.
        path: PathBuf,
        /// What every checkpoint has.
        missing: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file of the host's that a restore would not find as it was.
    #[error("{name} is {}, a file of the host's with content that is not open for appending, and could not be restored", path.display())]
    Stream {
        /// Which of the three.
        name: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The list of descriptors in the images is none.
    #[error("read {}", path.display())]
    Descriptors {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The specification cannot be carried out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The cgroup.
    #[error(transparent)]
    Cgroup(#[from] cgroup::CgroupError),
    /// The root or a mount could not be made.
    #[error(transparent)]
    Mount(#[from] CreateError),
    /// What comes before CRIU in its process.
    #[error(transparent)]
    Prepare(#[from] ProcessError),
    /// A hook failed.
    #[error(transparent)]
    Hook(#[from] HookError),
}

impl CriuError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CriuError::Missing | CriuError::Version { .. } | CriuError::Feature { .. } => ErrorKind::NotImplemented,
            CriuError::Stream { .. } | CriuError::NoImages { .. } => ErrorKind::InvalidArgument,
            CriuError::Plan(err) => err.kind(),
            CriuError::Cgroup(err) => err.kind(),
            CriuError::Mount(err) => err.kind(),
            CriuError::Prepare(err) => err.kind(),
            CriuError::Hook(err) => err.kind(),
            _ => ErrorKind::Internal,
        }
    }

    pub(super) fn talk(action: &'static str) -> impl FnOnce(io::Error) -> CriuError {
        move |source| CriuError::Talk { action, source }
    }
}

/// What a log of CRIU's says went wrong: its lines of errors without times and places, in one line.
pub(super) fn errors_of(log: &str) -> String {
    // `(00.055991) Error (criu/util.c:1534): rlimit: ...`
    let error = |line: &str| {
        let (_, place) = line.split_once("Error (")?;
        let text = place.split_once("): ").map_or(place, |(_, text)| text);
        Some(text.trim().to_owned())
    };
    // Without CAP_SYS_RESOURCE every run has this one, and goes on.
    let mut errors: Vec<_> = log.lines().filter_map(error).filter(|text| !text.starts_with("rlimit:")).collect();
    errors.truncate(ERRORS_MAX);
    errors.join("; ")
}

/// More only repeat that the step above has failed, too.
const ERRORS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errors_of_a_log_are_one_line() {
        let log = "\
(00.055991) ========================================
(00.056014) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.166541) Error (criu/files-reg.c:1790): Can't lookup mount=64 for fd=1 path=/tmp/o
(00.166543) ----------------------------------------
(00.166551) Error (criu/cr-dump.c:1545): Dump files (pid: 25755) failed with -1
(00.166695) Running network-unlock scripts
";
        assert_eq!(
            errors_of(log),
            "Can't lookup mount=64 for fd=1 path=/tmp/o; Dump files (pid: 25755) failed with -1"
        );
        assert_eq!(errors_of(&"Error (a): b\n".repeat(9)), "b; b; b; b");
        assert_eq!(errors_of("Error (cut"), "cut");
    }
}
