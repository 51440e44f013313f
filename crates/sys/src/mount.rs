//! mount_setattr(2).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What [`set_attributes`] changes of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// MOUNT_ATTR_* bits to set.
    pub set: u64,
    /// MOUNT_ATTR_* bits to clear.
    pub clear: u64,
    /// The new propagation (MS_PRIVATE and so on), 0 to leave it.
    pub propagation: u64,
}

impl Attributes {
    /// MOUNT_ATTR_RDONLY.
    pub const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
    /// MOUNT_ATTR_NOSUID.
    pub const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
    /// MOUNT_ATTR_NODEV.
    pub const NO_DEV: u64 = libc::MOUNT_ATTR_NODEV;
    /// MOUNT_ATTR_NOEXEC.
    pub const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
    /// MOUNT_ATTR__ATIME: the bits of the three access-time modes, to be cleared before one of them is set.
    pub const ATIME_MASK: u64 = libc::MOUNT_ATTR__ATIME;
    /// MOUNT_ATTR_NOATIME.
    pub const NO_ATIME: u64 = libc::MOUNT_ATTR_NOATIME;
    /// MOUNT_ATTR_STRICTATIME.
    pub const STRICT_ATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
    /// MOUNT_ATTR_NODIRATIME.
    pub const NO_DIR_ATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
    /// MOUNT_ATTR_NOSYMFOLLOW.
    pub const NO_SYMLINKS: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;
    /// MS_PRIVATE.
    pub const PRIVATE: u64 = libc::MS_PRIVATE;
    /// MS_SLAVE.
    pub const SLAVE: u64 = libc::MS_SLAVE;
    /// MS_SHARED.
    pub const SHARED: u64 = libc::MS_SHARED;
    /// MS_UNBINDABLE.
    pub const UNBINDABLE: u64 = libc::MS_UNBINDABLE;

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == Attributes::default()
    }
}

/// Changes the mount that `mount` is the root of, and with `recursive` every mount below it, all or none of them.
pub fn set_attributes(mount: BorrowedFd<'_>, attributes: Attributes, recursive: bool) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    mount_setattr(mount, &attr, recursive)
}

/// Shows the files of a detached mount, and with `recursive` of all below it, with the ids that `user_namespace` maps theirs
/// to (mount_setattr(2), "ID-mapped mounts"). EINVAL where the file system cannot, or the mount has ids mapped already.
pub fn map_ids(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_raw_fd() as u64,
    };
    mount_setattr(mount, &attr, recursive)
}

fn mount_setattr(mount: BorrowedFd<'_>, attr: &libc::mount_attr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty NUL-terminated string; attr has the size given.
    crate::check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}
