//! Callers without privilege: what they do without.

use std::fs;
use std::io;
use std::path::Path;

use cgroup::{Cgroup, CgroupError, Entrance, Hierarchies};
use oci::runtime::Resources;

use crate::error::CreateError;

/// Whether a container has to have a cgroup, which a caller without privilege often cannot make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupNeed {
    /// Its absence is an error.
    Always,
    /// Its absence is an error, and the sentence is the one for a caller without privilege.
    Asked,
    /// A caller without privilege does without.
    UnlessRootless,
    /// Every caller does without.
    Never,
}

impl CgroupNeed {
    /// Makes the cgroup, or one without directories where it may not be made and need not be there.
    pub(crate) fn create(
        self,
        hierarchies: &Hierarchies,
        path: &Path,
        resources: &Resources,
    ) -> Result<Cgroup, CreateError> {
        let err = match Cgroup::create(hierarchies, path, resources) {
            Err(err) if self != CgroupNeed::Always && is_forbidden(&err) => err,
            other => return Ok(other?),
        };
        if self == CgroupNeed::Asked && is_rootless() {
            return Err(CreateError::RootlessCgroup { source: err });
        }
        if !self.is_none() {
            return Err(err.into());
        }
        Ok(Cgroup::none(hierarchies, path))
    }

    fn is_none(self) -> bool {
        match self {
            CgroupNeed::Always | CgroupNeed::Asked => false,
            CgroupNeed::UnlessRootless => is_rootless(),
            CgroupNeed::Never => true,
        }
    }

    /// The way into a container's cgroup, if there is one.
    pub(crate) fn entrance(self, cgroup: &Cgroup) -> Result<Entrance, CgroupError> {
        if cgroup.directories.is_empty() && self.is_none() {
            Ok(Entrance::Tasks(Vec::new()))
        } else {
            cgroup.entrance()
        }
    }
}

fn is_forbidden(err: &CgroupError) -> bool {
    let (CgroupError::Io { source, .. } | CgroupError::Write { source, .. }) = err else { return false };
    matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Whether this process is not the host's root: another user, or root of a user namespace.
pub fn is_rootless() -> bool {
    // The first user namespace maps all ids to themselves (user_namespaces(7)).
    let whole = |text: String| text.split_whitespace().eq(["0", "0", "4294967295"]);
    !rustix::process::geteuid().is_root() || !fs::read_to_string("/proc/self/uid_map").is_ok_and(whole)
}
