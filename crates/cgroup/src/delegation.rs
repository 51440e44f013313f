//! Giving a cgroup to a user, who may make cgroups in it then, and move processes between them (cgroup-v2.rst, "Delegation").

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::Path;

use crate::error::CgroupError;
use crate::facts::Version;
use crate::group::Cgroup;

/// Where the kernel names the files that are given away (cgroups(7)), since Linux 4.15.
const NAMES: &str = "/sys/kernel/cgroup/delegate";

/// What they are where it does not (runtime-spec config-linux.md, "Cgroup ownership").
const FILES: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// Makes `uid` the owner of the cgroup's directory and of the files in it that manage, but do not limit, what is inside.
///
/// Nothing with version 1, which is not safe to give away.
pub fn delegate(group: &Cgroup, uid: u32) -> Result<(), CgroupError> {
    let (Version::V2, Some((_, directory))) = (group.version, group.directories.first()) else { return Ok(()) };
    chown(directory, Some(uid), None).map_err(CgroupError::io("change the owner of", directory))?;
    let names = fs::read_to_string(NAMES).unwrap_or_else(|_| FILES.to_owned());
    names.lines().try_for_each(|name| give(&directory.join(name), uid))
}

fn give(file: &Path, uid: u32) -> Result<(), CgroupError> {
    match chown(file, Some(uid), None) {
        // Of a controller that is not on here.
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(CgroupError::io("change the owner of", file)),
    }
}
