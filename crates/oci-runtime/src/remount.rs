//! The option `remount`: what is mounted already is changed.
//!
//! Flags of the mount are changed one by one, so that those that the kernel has locked stay (mount_namespaces(7)). The file
//! system itself is changed only where this container has made it: behind a bind mount is one of the host's.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fspick};
use sys::mount::{Attributes, set_attributes};

use crate::fault::{Fault, Part};
use crate::file_system;
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
pub(crate) fn apply(root: BorrowedFd<'_>, plan: &MountPlan, file_system: bool) -> Result<(), Fault> {
    let place = plan.destination.display();
    let mount = target::open(root, &plan.destination, Missing::Refuse);
    let mount = mount.map_err(Part::Destination.fault(plan, format!("remount {place}")))?;
    // Without a flag that the kernel would set it says nothing.
    let found = statx(&mount, "", AtFlags::EMPTY_PATH, StatxFlags::empty());
    let is_place = found.is_ok_and(|found| {
        let known = found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
        known && !found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    });
    if is_place {
        let what = format!("remount {place}: nothing is mounted there");
        return Err(Part::Destination.fault(plan, what)(Errno::INVAL));
    }
    let options = &plan.options;
    if file_system {
        reconfigure(mount.as_fd(), plan)?;
    }
    let changed = match options.attributes.is_empty() {
        true => Ok(()),
        false => set_attributes(mount.as_fd(), options.attributes, false),
    };
    let changed = changed.and_then(|()| options.apply_rest(mount.as_fd()));
    changed.map_err(Part::Options.fault(plan, format!("set flags of {place}")))
}

fn reconfigure(mount: BorrowedFd<'_>, plan: &MountPlan) -> Result<(), Fault> {
    let failed = || Part::Whole.fault::<Errno>(plan, format!("remount {}", plan.destination.display()));
    let picked = fspick(mount, Path::new(""), FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH);
    let context = picked.map_err(failed())?;
    let set = |key: &str, value: Option<&str>| file_system::set(context.as_fd(), plan, "what is mounted", key, value);
    let attributes = plan.options.attributes;
    if attributes.set & Attributes::READ_ONLY != 0 {
        set("ro", None)?;
    }
    if attributes.clear & Attributes::READ_ONLY != 0 {
        set("rw", None)?;
    }
    for word in &plan.options.superblock {
        set(word, None)?;
    }
    for (key, value) in &plan.options.data {
        set(key, value.as_deref())?;
    }
    fsconfig_reconfigure(context.as_fd()).map_err(failed())
}
