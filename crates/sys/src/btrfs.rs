//! Subvolumes of btrfs: made, copied at once by snapshot, destroyed at once (linux/btrfs.h).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use crate::check;

/// `BTRFS_IOC_SNAP_CREATE`, `BTRFS_IOC_SUBVOL_CREATE` and `BTRFS_IOC_SNAP_DESTROY`.
const SNAPSHOT: u32 = command(1);
const CREATE: u32 = command(14);
const DESTROY: u32 = command(15);

const fn command(number: u32) -> u32 {
    // _IOW(BTRFS_IOCTL_MAGIC, number, struct btrfs_ioctl_vol_args)
    (1 << 30) | ((size_of::<Arguments>() as u32) << 16) | (0x94 << 8) | number
}

/// `BTRFS_PATH_NAME_MAX`, with the final zero.
const NAME_BYTES: usize = 4088;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct Arguments {
    fd: i64,
    name: [u8; NAME_BYTES],
}

/// Makes an empty subvolume `name` in the directory `parent`.
pub fn create(parent: impl AsFd, name: &CStr) -> io::Result<()> {
    call(parent, CREATE, 0, name)
}

/// Makes `name` in the directory `parent` a writable copy of the subvolume `source`, which shares its bytes.
pub fn snapshot(parent: impl AsFd, name: &CStr, source: impl AsFd) -> io::Result<()> {
    call(parent, SNAPSHOT, source.as_fd().as_raw_fd().into(), name)
}

/// Removes the subvolume `name` of the directory `parent` with all that is in it; the space comes back in the background.
///
/// One that has subvolumes in it is ENOTEMPTY, a plain directory EINVAL.
pub fn destroy(parent: impl AsFd, name: &CStr) -> io::Result<()> {
    call(parent, DESTROY, 0, name)
}

fn call(parent: impl AsFd, command: u32, fd: i64, name: &CStr) -> io::Result<()> {
    let bytes = name.to_bytes();
    // The last byte stays the final zero.
    if bytes.len() >= NAME_BYTES {
        return Err(Errno::NAMETOOLONG.into());
    }
    let mut arguments = Arguments { fd, name: [0; NAME_BYTES] };
    arguments.name[..bytes.len()].copy_from_slice(bytes);
    // SAFETY: the three commands read one `struct btrfs_ioctl_vol_args`, which `arguments` has the layout of and which
    // lives for the call; its name ends with a zero. Other file systems do not know the commands, and say ENOTTY. The
    // descriptor is open, since it is borrowed.
    let result = unsafe { libc::ioctl(parent.as_fd().as_raw_fd(), command as _, &raw const arguments) };
    check(result.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_file_systems_do_not_know_subvolumes_and_names_are_bounded() {
        let proc = std::fs::File::open("/proc/self").unwrap();
        for answer in [create(&proc, c"a"), snapshot(&proc, c"a", &proc), destroy(&proc, c"a")] {
            assert_eq!(answer.unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        }
        let long = std::ffi::CString::new("a".repeat(NAME_BYTES)).unwrap();
        assert_eq!(create(&proc, &long).unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
    }

    #[test]
    fn the_numbers_are_the_kernel_s() {
        assert_eq!([SNAPSHOT, CREATE, DESTROY], [0x5000_9401, 0x5000_940e, 0x5000_940f]);
    }
}
