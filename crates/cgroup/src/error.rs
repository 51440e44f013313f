//! Why something about a cgroup failed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use errdefs::ErrorKind;

use crate::facts::Controller;
use crate::plan::PlanError;

/// Why an operation on a cgroup failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The limits contradict themselves.
    #[error("plan cgroup limits")]
    Plan {
        /// Why.
        source: PlanError,
    },
    /// This host has not mounted the controller, or the cgroup has none of its files.
    #[error("cgroup controller {controller} is not available")]
    NoController {
        /// Which.
        controller: Controller,
    },
    /// A limit asks for a controller that this host has not.
    #[error("{field}: cgroup controller {controller} is not available")]
    Unavailable {
        /// The limit.
        field: &'static str,
        /// Its controller.
        controller: Controller,
    },
    /// A limit would be below what is in use.
    #[error("{field}: {limit} bytes are not more than the {usage} bytes in use")]
    InUse {
        /// The limit.
        field: &'static str,
        /// As given.
        limit: i64,
        /// What is in use.
        usage: u64,
    },
    /// There is no such cgroup below the container's.
    #[error("cgroup {path:?} of the container, controller {controller:?}")]
    NoSubgroup {
        /// Below the container's own.
        path: PathBuf,
        /// Empty for version 2.
        controller: String,
    },
    /// The path could leave the hierarchy.
    #[error("linux.cgroupsPath {} is not absolute, has dots, or is the root", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// No hierarchy is mounted at all.
    #[error("no cgroup hierarchy is mounted")]
    NoHierarchy,
    /// A file or directory could not be used.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The limit was refused by the kernel.
    #[error("{field}: write {value:?} to {}", path.display())]
    Write {
        /// Which limit.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Processes did not go away, freeze or thaw in time.
    #[error("{action} {} within {} ms", path.display(), timeout.as_millis())]
    Timeout {
        /// What was tried.
        action: &'static str,
        /// With which directory.
        path: PathBuf,
        /// How long was waited.
        timeout: Duration,
    },
}

impl CgroupError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CgroupError::Plan { source } => source.kind(),
            CgroupError::NoController { .. }
            | CgroupError::Unavailable { .. }
            | CgroupError::InUse { .. }
            | CgroupError::NoSubgroup { .. }
            | CgroupError::Path { .. }
            | CgroupError::Write { .. } => ErrorKind::InvalidArgument,
            CgroupError::NoHierarchy | CgroupError::Io { .. } | CgroupError::Timeout { .. } => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
        let path = path.to_owned();
        move |source| CgroupError::Io { action, path, source }
    }
}
