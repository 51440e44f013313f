//! Opening what a tree holds while others change it.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// More than any storm of renames takes: each try is lost only to a rename that falls into its own microsecond.
const ATTEMPTS: u32 = 128;

/// Where symlinks on the way may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Anywhere below the root, which they take for `/`: as in a chroot.
    InRoot,
    /// Below the root, and one that says otherwise is an error: for trees of the user's, where `/` is another one.
    Beneath,
}

impl Resolution {
    fn flags(self) -> ResolveFlags {
        match self {
            Resolution::InRoot => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            Resolution::Beneath => ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        }
    }
}

/// Opens a path below `root`; what is not absolute begins there, too.
pub(crate) fn open(
    root: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    resolution: Resolution,
) -> Result<OwnedFd, Errno> {
    let open = || rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolution.flags());
    // While `..` is resolved, any rename on the machine may have been an escape for all the kernel knows (openat2(2)).
    let mut opened = open();
    for _ in 1..ATTEMPTS {
        match opened {
            Err(Errno::AGAIN) => opened = open(),
            opened => return opened,
        }
    }
    opened
}

/// What is called `name` in a directory, whatever it is, as a place without any access to it.
pub(crate) fn child(directory: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Opens what an `O_PATH` descriptor stands for, and nothing else that may have its name by now.
pub fn reopen(place: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, proc_path(place), flags | OFlags::CLOEXEC, Mode::empty())
}

/// A path that means what a descriptor stands for: a magic link, which leads to a symlink itself and no further.
pub(crate) fn proc_path(place: impl AsFd) -> String {
    format!("/proc/self/fd/{}", place.as_fd().as_raw_fd())
}
