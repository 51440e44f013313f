//! The option `remount`: what is mounted already is changed.
//!
//! Flags of the mount are changed one by one, so that those that the kernel has locked stay (mount_namespaces(7)). The file
//! system itself is changed only where this container has made it: behind a bind mount is one of the host's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fspick};
use sys::mount::{Attributes, set_attributes};

use crate::mounts::{MountKind, MountPlan};
use crate::target::{self, Missing};

/// Decides for each remount whether the file system is the container's.
pub(crate) fn plan(mounts: &mut [MountPlan]) {
    for index in 0..mounts.len() {
        let (before, rest) = mounts.split_at_mut(index);
        let [mount, ..] = rest else { return };
        let MountKind::Remount { file_system } = &mut mount.kind else { continue };
        let same = |other: &&MountPlan| {
            other.destination == mount.destination && !matches!(other.kind, MountKind::Remount { .. })
        };
        let made = before.iter().rev().find(same).map(|other| &other.kind);
        let own = matches!(made, Some(MountKind::FileSystem(_) | MountKind::InChild(_)));
        *file_system = own && !mount.options.bind;
    }
}

/// Changes what is mounted at the destination.
pub(crate) fn apply(root: BorrowedFd<'_>, plan: &MountPlan, file_system: bool) -> io::Result<()> {
    let mount = target::open(root, &plan.destination, Missing::Refuse)?;
    let options = &plan.options;
    if file_system {
        reconfigure(mount.as_fd(), plan)?;
    }
    if !options.attributes.is_empty() {
        set_attributes(mount.as_fd(), options.attributes, false)?;
    }
    options.apply_rest(mount.as_fd())
}

fn reconfigure(mount: BorrowedFd<'_>, plan: &MountPlan) -> io::Result<()> {
    let context = fspick(mount, Path::new(""), FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH)?;
    let attributes = plan.options.attributes;
    if attributes.set & Attributes::READ_ONLY != 0 {
        fsconfig_set_flag(context.as_fd(), "ro")?;
    }
    if attributes.clear & Attributes::READ_ONLY != 0 {
        fsconfig_set_flag(context.as_fd(), "rw")?;
    }
    for word in &plan.options.superblock {
        fsconfig_set_flag(context.as_fd(), word.as_str())?;
    }
    for (key, value) in &plan.options.data {
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), key.as_str(), value.as_str())?,
            None => fsconfig_set_flag(context.as_fd(), key.as_str())?,
        }
    }
    Ok(fsconfig_reconfigure(context.as_fd())?)
}
