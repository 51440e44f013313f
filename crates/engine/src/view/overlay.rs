//! A container's root without the container: mounted detached, in no mount table, gone with its descriptor.
//!
//! What the image has at a path, and through which of its links, only its layers on top of each other tell.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc;

use oci::runtime::Mount;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};
use sys::mount::Attributes;
use sys::{fuse, overlay};
use tracing::warn;

/// The root that `mounts` describe. Blocks.
pub(crate) fn mount_detached(mounts: &[Mount]) -> io::Result<OwnedFd> {
    // One mount is what `snapshot` answers.
    let [mount] = mounts else { return Err(io::ErrorKind::InvalidInput.into()) };
    if matches!(mount.kind.as_str(), "" | "bind") {
        if mount.options.iter().any(|option| option == "ro") {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            return Ok(openat(CWD, &mount.source, flags, Mode::empty())?);
        }
        // Something may be mounted in it: a mount of its own, of which the host's hears nothing.
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let root = open_tree(CWD, &mount.source, flags)?;
        let private = Attributes { propagation: Attributes::PRIVATE, ..Attributes::default() };
        sys::mount::set_attributes(root.as_fd(), private, false)?;
        return Ok(root);
    }
    let option = |option: &String| match option.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (option.clone(), None),
    };
    let options: Vec<(String, Option<String>)> = mount.options.iter().map(option).collect();
    if mount.kind == fuse::KIND {
        return serve(mount.source.clone(), options);
    }
    if options.iter().any(|(name, _)| name == overlay::LAYER) && overlay::joins_layers() {
        return overlay::mount_joined(&options);
    }
    Ok(configure(mount, &options)?)
}

/// The program ends when the mount is gone; a thread waits for that.
fn serve(program: PathBuf, options: Vec<(String, Option<String>)>) -> io::Result<OwnedFd> {
    let (tell, told) = mpsc::channel();
    let serve = move || match fuse::mount(&program, &options) {
        Ok(fuse::Served { mount, mut server }) => {
            // Nobody waits for it who has given up.
            let _ = tell.send(Ok(mount));
            if let Err(err) = server.wait() {
                warn!(%err, "wait for fuse-overlayfs");
            }
        }
        Err(err) => drop(tell.send(Err(err))),
    };
    std::thread::Builder::new().name("fuse-overlayfs".into()).spawn(serve)?;
    told.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
}

fn configure(mount: &Mount, options: &[(String, Option<String>)]) -> Result<OwnedFd, Errno> {
    let context = fsopen(mount.kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", mount.source.as_path())?;
    for (name, value) in options {
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), name.as_str(), value.as_str())?,
            None => fsconfig_set_flag(context.as_fd(), name.as_str())?,
        }
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}
