//! Why something about a cgroup failed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use errdefs::ErrorKind;

use crate::facts::{Controller, Version};
use crate::field::Field;
use crate::plan::PlanError;

/// Why an operation on a cgroup failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The limits contradict themselves.
    #[error(transparent)]
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
        field: Field,
        /// Its controller.
        controller: Controller,
    },
    /// A limit would be below what is in use, and cannot be taken back from the processes. The words are runc's.
    #[error("{field}: unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})")]
    InUse {
        /// The limit.
        field: &'static str,
        /// As given.
        limit: i64,
        /// What is in use.
        usage: u64,
        /// The most that ever was.
        peak: u64,
    },
    /// There is no such cgroup below the container's.
    #[error("--cgroup {name}: the container has no such cgroup{}", form(*.version))]
    NoSubgroup {
        /// As given.
        name: String,
        /// The host's, on which it depends how one is named.
        version: Version,
    },
    /// The path could leave the hierarchy.
    #[error("linux.cgroupsPath: {} {fault}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
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
    #[error("{field}: write {value:?} to {}{}{rule}", path.display(), if rule.is_empty() { "" } else { ", " })]
    Write {
        /// Which limit.
        field: Box<Field>,
        /// The file.
        path: PathBuf,
        /// What was written.
        value: Box<str>,
        /// What the kernel wants there, as far as it is known.
        rule: Box<str>,
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

/// How a cgroup below a container's is named.
fn form(version: Version) -> &'static str {
    match version {
        Version::V1 => " (with version 1 it is CONTROLLER:PATH, of a controller that the container is in)",
        Version::V2 => " (with version 2 it is a path below the container's own)",
    }
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

    /// The limit that is at fault, by its name in config.json without its place in lists; absent if none is.
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            CgroupError::Plan { source } => Some(source.limit()),
            CgroupError::InUse { field, .. } => Some(field),
            CgroupError::Unavailable { field, .. } => Some(field.limit()),
            CgroupError::Write { field, .. } => Some(field.limit()),
            _ => None,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
        let path = path.to_owned();
        move |source| CgroupError::Io { action, path, source }
    }
}
