//! A container's root without the container: mounted detached, in no mount table, gone with its descriptor.
//!
//! What the image has at a path, and through which of its links, only its layers on top of each other tell.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use oci::runtime::Mount;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

/// The option of overlayfs that names one lower directory more; kernels before 6.5 do not know it.
const ONE_LOWER: &str = "lowerdir+=";

/// The root that `mounts` describe. Blocks.
pub(super) fn mount_detached(mounts: &[Mount]) -> io::Result<OwnedFd> {
    // One mount is what `snapshot` answers.
    let [mount] = mounts else { return Err(io::ErrorKind::InvalidInput.into()) };
    if matches!(mount.kind.as_str(), "" | "bind") {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        return Ok(openat(CWD, &mount.source, flags, Mode::empty())?);
    }
    let options: Vec<&str> = mount.options.iter().map(String::as_str).collect();
    match configure(mount, &options) {
        Err(Errno::INVAL) if options.iter().any(|option| option.starts_with(ONE_LOWER)) => {
            let (lower, mut rest): (Vec<&str>, Vec<&str>) =
                options.iter().partition(|option| option.starts_with(ONE_LOWER));
            let paths: Vec<&str> = lower.iter().filter_map(|option| option.strip_prefix(ONE_LOWER)).collect();
            let joined = format!("lowerdir={}", paths.join(":"));
            rest.push(&joined);
            Ok(configure(mount, &rest)?)
        }
        mounted => Ok(mounted?),
    }
}

fn configure(mount: &Mount, options: &[&str]) -> Result<OwnedFd, Errno> {
    let context = fsopen(mount.kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", mount.source.as_path())?;
    for option in options {
        match option.split_once('=') {
            Some((name, value)) => fsconfig_set_string(context.as_fd(), name, value)?,
            None => fsconfig_set_flag(context.as_fd(), *option)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}
