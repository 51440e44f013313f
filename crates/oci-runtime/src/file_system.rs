//! New file systems: made detached, by fsopen(2) and its kin, which tell what they refuse.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, fstatvfs, statvfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};
use sys::mount::{Attributes, set_attributes};
use sys::overlay;

use crate::fault::{Fault, Part, kernel_words};
use crate::labels::label_root;
use crate::mounts::MountPlan;
use crate::overlay_options;

/// A new file system for a place below the root, as a detached mount; still writable if it is [`MountPlan::read_only_last`].
pub(crate) fn new_file_system(plan: &MountPlan, kind: &str) -> Result<OwnedFd, Fault> {
    if !plan.read_only_last() {
        return file_system(plan, kind);
    }
    let mut writable = plan.clone();
    writable.options.attributes.set &= !Attributes::READ_ONLY;
    file_system(&writable, kind)
}

/// A new file system, as a detached mount.
pub(crate) fn file_system(plan: &MountPlan, kind: &str) -> Result<OwnedFd, Fault> {
    if kind == sys::fuse::KIND {
        return served(plan).map_err(Part::Whole.fault(plan, format!("mount with {}", plan.source.display())));
    }
    let layers = || plan.options.data.iter().filter(|(key, _)| key == overlay::LAYER);
    let mount = if layers().next().is_none() || !overlay::joins_layers() {
        configure(plan, kind, None)?
    } else {
        let escaped = |path: &String| path.replace('\\', "\\\\").replace(':', "\\:");
        let joined = layers().filter_map(|(_, path)| path.as_ref().map(escaped)).collect::<Vec<_>>().join(":");
        if joined.len() <= STRING_MAX {
            configure(plan, kind, Some(&joined))?
        } else {
            old_overlay(plan).map_err(Part::Whole.fault(plan, "mount an overlay"))?
        }
    };
    let flags = plan.options.apply_rest(mount.as_fd());
    flags.map_err(Part::Options.fault(plan, format!("set flags of the {kind} on {}", plan.destination.display())))?;
    writable_as_asked(plan, mount).map_err(Part::Options.fault(plan, "mount an overlay for writing"))
}

/// An overlay by a program, which ends with the mount. As any child of ours it is reaped by whoever keeps the container.
fn served(plan: &MountPlan) -> io::Result<OwnedFd> {
    let mount = sys::fuse::mount(&plan.source, &plan.options.data)?.mount;
    set_attributes(mount.as_fd(), plan.options.attributes, false)?;
    plan.options.apply_rest(mount.as_fd())?;
    Ok(mount)
}

/// The longest string that fsconfig(2) takes (fs/fsopen.c).
const STRING_MAX: usize = 255;

fn old_overlay(plan: &MountPlan) -> io::Result<OwnedFd> {
    let mount = overlay::mount_joined(&plan.options.data)?;
    set_attributes(mount.as_fd(), plan.options.attributes, false)?;
    Ok(mount)
}

/// Refuses an overlay that would be read-only without being asked to: overlayfs makes one, and says so to the kernel's log
/// alone, when it cannot make its directory in the work directory (fs/overlayfs/super.c, `ovl_make_workdir`).
fn writable_as_asked(plan: &MountPlan, mount: OwnedFd) -> io::Result<OwnedFd> {
    let upper = plan.options.data.iter().find(|(key, _)| key == "upperdir").and_then(|(_, path)| path.as_ref());
    let Some(upper) = upper else { return Ok(mount) };
    let asked = plan.options.attributes.set & Attributes::READ_ONLY != 0;
    if asked || !fstatvfs(&mount)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(mount);
    }
    let room = statvfs(upper)?;
    let full = room.f_bavail == 0 || room.f_favail == 0;
    Err(if full { Errno::NOSPC } else { Errno::ROFS }.into())
}

fn configure(plan: &MountPlan, kind: &str, joined_lower: Option<&str>) -> Result<OwnedFd, Fault> {
    let opened = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC);
    let context = opened.map_err(|err| {
        let unknown = match kind {
            _ if err != Errno::NODEV => String::new(),
            // What mount(8) writes for a bind mount, which its options alone make one.
            "none" => format!(" is no file system: a bind mount needs \"bind\" or \"rbind\" in {}.options", plan.field),
            _ => " is no file system of this kernel".to_owned(),
        };
        Part::Type.fault(plan, format!("{kind:?}{unknown}"))(err)
    })?;
    let context = context.as_fd();
    let source = if plan.source.as_os_str().is_empty() { Path::new(kind) } else { &plan.source };
    let named = || format!("{kind} on {} refuses {:?}{}", plan.destination.display(), source, kernel_words(context));
    fsconfig_set_string(context, "source", source).map_err(|err| Part::Source.fault(plan, named())(err))?;
    let lower = joined_lower.map(|joined| ("lowerdir".to_owned(), Some(joined.to_owned())));
    let data = plan.options.data.iter().filter(|(key, _)| joined_lower.is_none() || key != overlay::LAYER);
    let flags = plan.options.superblock.iter().map(|word| (word.as_str(), None));
    let data = lower.iter().chain(data).map(|(key, value)| (key.as_str(), value.as_deref()));
    data.chain(flags).try_for_each(|(key, value)| set(context, plan, kind, key, value))?;
    let failed = |err: Errno| {
        let what = format!("make the {kind} on {} of {source:?}{}", plan.destination.display(), kernel_words(context));
        if let Some(why) = explained(plan, kind, err) {
            return Part::Options.fault(plan, why)(err);
        }
        // What is said of a source that is no disk.
        let part = if matches!(err, Errno::NOENT | Errno::NOTBLK) { Part::Source } else { Part::Whole };
        part.fault(plan, what)(err)
    };
    fsconfig_create(context).map_err(failed)?;
    let attributes = MountAttrFlags::from_bits_retain(plan.options.attributes.set as u32);
    let mount = fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed)?;
    if let Some(label) = &plan.root_label {
        let labelled = || Part::Whole.fault(plan, format!("label the {kind} on {}", plan.destination.display()));
        label_root(mount.as_fd(), label).map_err(labelled())?;
    }
    Ok(mount)
}

/// What is wrong with an overlay that the kernel does not make.
fn explained(plan: &MountPlan, kind: &str, err: Errno) -> Option<String> {
    let (options, place) = (Some(&plan.options).filter(|_| kind == "overlay")?, plan.destination.display());
    if err == Errno::NOENT {
        // Before Linux 6.5 it looks for layers only now.
        let mut layers = options.data.iter().filter(|(key, _)| key == "lowerdir");
        return layers.find_map(|(key, value)| {
            let missing = overlay_options::missing_layer(key, value.as_deref())?;
            let value = value.as_deref()?;
            let which = if missing == value { String::new() } else { format!(" ({missing})") };
            Some(format!("overlay on {place} refuses {:?}{which}", format!("{key}={value}")))
        });
    }
    Some(format!("overlay on {place}: {}", overlay_options::explain(options)?))
}

/// Gives a file system one of its options.
pub(crate) fn set(
    context: BorrowedFd<'_>,
    plan: &MountPlan,
    kind: &str,
    key: &str,
    value: Option<&str>,
) -> Result<(), Fault> {
    let done = match value {
        Some(value) => fsconfig_set_string(context, key, value),
        None => fsconfig_set_flag(context, key),
    };
    done.map_err(|err| {
        let option = value.map_or_else(|| key.to_owned(), |value| format!("{key}={value}"));
        let missing = overlay_options::missing_layer(key, value).filter(|_| err == Errno::NOENT);
        // The only one is in the option itself.
        let missing = missing.filter(|layer| Some(layer.as_str()) != value);
        let words = missing.map_or_else(|| kernel_words(context), |layer| format!(" ({layer})"));
        Part::Options.fault(plan, format!("{kind} on {} refuses {option:?}{words}", plan.destination.display()))(err)
    })
}

/// An empty read-only tmpfs for masked directories, detached; with SELinux's label if there is one.
pub(crate) fn empty_directory(label: &str) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", "tmpfs")?;
    fsconfig_set_string(context.as_fd(), "nr_inodes", "1")?;
    fsconfig_set_string(context.as_fd(), "size", "4096")?;
    if !label.is_empty() {
        fsconfig_set_string(context.as_fd(), "context", label)?;
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?)
}
