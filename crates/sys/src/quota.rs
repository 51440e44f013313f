//! Limits on what directories hold: project ids of files, and the kernel's quotas on them (quotactl(2), ioctl_xfs_fsgetxattr(2)).
//!
//! The commands are those that XFS began with; the kernel answers them for every file system with quotas
//! (fs/quota/quota.c), ext4 among them.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{fstat, major, minor};
use rustix::io::Errno;

use crate::check;

/// Quotas of projects: `PRJQUOTA` of linux/quota.h.
const PROJECTS: u32 = 2;

/// `Q_XGETQUOTA` and its like of linux/dqblk_xfs.h.
const GET: u32 = command(3);
const SET: u32 = command(4);
const STATE: u32 = command(5);
const GET_NEXT: u32 = command(9);

const fn command(number: u32) -> u32 {
    // XQM_CMD, then QCMD.
    ((((b'X' as u32) << 8) + number) << 8) | PROJECTS
}

/// Usage is counted, and limits are kept: `FS_QUOTA_PDQ_ACCT` and `FS_QUOTA_PDQ_ENFD`.
const COUNTED_AND_KEPT: u16 = (1 << 4) | (1 << 5);

/// What the kernel counts blocks in here, whatever the file system's are.
const BLOCK_BYTES: u64 = 512;

/// The kernel's numbers are signed in places.
const BLOCKS_MAX: u64 = i64::MAX as u64 / BLOCK_BYTES;

/// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR` of linux/fs.h.
const GET_ATTRIBUTES: u32 = ioctl(2, 31);
const SET_ATTRIBUTES: u32 = ioctl(1, 32);

const fn ioctl(direction: u32, number: u32) -> u32 {
    (direction << 30) | ((size_of::<Attributes>() as u32) << 16) | ((b'X' as u32) << 8) | number
}

/// New files have the project of their directory: `FS_XFLAG_PROJINHERIT`.
const INHERIT: u32 = 0x200;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// `struct fs_disk_quota`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct DiskQuota {
    version: i8,
    flags: i8,
    field_mask: u16,
    id: u32,
    block_hard_limit: u64,
    block_soft_limit: u64,
    inode_hard_limit: u64,
    inode_soft_limit: u64,
    blocks: u64,
    inodes: u64,
    timers: [i32; 2],
    warnings: [u16; 2],
    timers_high: [i8; 4],
    realtime: [u64; 3],
    realtime_timer: i32,
    realtime_warnings: u16,
    padding: [u8; 10],
}

/// `struct fs_quota_stat`, of which the flags alone are looked at; with room for more than the kernel writes.
#[repr(C, align(8))]
struct State {
    version: i8,
    flags: u16,
    rest: [u8; 124],
}

/// The file system's own number of [`DiskQuota`], `FS_DQUOT_VERSION`.
const VERSION: i8 = 1;

/// Both limits of blocks are meant: `FS_DQ_BSOFT` and `FS_DQ_BHARD`.
const BLOCK_LIMITS: u16 = (1 << 2) | (1 << 3);

/// To which project a directory belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The project; 0 is none.
    pub project: u32,
    /// What is made in it belongs to the same project.
    pub inherited: bool,
}

/// A project's limit, and what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Which project.
    pub project: u32,
    /// 0 for none.
    pub limit_bytes: u64,
    /// Bytes of its files.
    pub used_bytes: u64,
    /// Its files and directories.
    pub used_inodes: u64,
    /// It has a limit of another kind.
    pub other_limit: bool,
}

/// A file system whose quotas are asked for.
#[derive(Debug)]
pub struct FileSystem(Handle);

#[derive(Debug)]
enum Handle {
    /// A directory in it (Linux 5.14).
    Directory(OwnedFd),
    /// The node of its block device.
    Device(CString),
}

/// The project of a file or directory.
pub fn membership(file: impl AsFd) -> io::Result<Membership> {
    let attributes = attributes(file.as_fd())?;
    Ok(Membership { project: attributes.project, inherited: attributes.flags & INHERIT != 0 })
}

/// From now on the directory belongs to `project`, and what is made in it, too; what is there stays as it is.
pub fn join(directory: impl AsFd, project: u32) -> io::Result<()> {
    let before = attributes(directory.as_fd())?;
    let after = Attributes { flags: before.flags | INHERIT, project, ..before };
    // SAFETY: the descriptor is open, and the kernel reads one `fsxattr` from the pointer, which it outlives.
    check(unsafe { libc::ioctl(directory.as_fd().as_raw_fd(), SET_ATTRIBUTES as _, &raw const after) }.into())?;
    Ok(())
}

fn attributes(file: BorrowedFd<'_>) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the descriptor is open, and the kernel writes one `fsxattr` to the pointer.
    check(unsafe { libc::ioctl(file.as_raw_fd(), GET_ATTRIBUTES as _, &raw mut attributes) }.into())?;
    Ok(attributes)
}

impl FileSystem {
    /// The one that `directory` lies in.
    ///
    /// Before Linux 5.14 its block device must have a node in /dev.
    pub fn of(directory: OwnedFd) -> io::Result<FileSystem> {
        let here = FileSystem(Handle::Directory(directory));
        match here.state() {
            Err(err) if err.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => {
                let Handle::Directory(directory) = &here.0 else { return Ok(here) };
                match FileSystem::by_device(directory) {
                    // ENOSYS is the answer of a file system without quotas, too.
                    Err(_) => Ok(here),
                    found => found,
                }
            }
            _ => Ok(here),
        }
    }

    /// The same, by the node of its block device, as quotactl(2) wants it.
    pub fn by_device(directory: impl AsFd) -> io::Result<FileSystem> {
        let device = fstat(directory)?.st_dev;
        let told = format!("/sys/dev/block/{}:{}/uevent", major(device), minor(device));
        let told = std::fs::read_to_string(told)?;
        let name = told.lines().find_map(|line| line.strip_prefix("DEVNAME=")).ok_or(Errno::NOTBLK)?;
        let node: PathBuf = Path::new("/dev").join(name);
        let found = std::fs::metadata(&node)?;
        if !found.file_type().is_block_device() || found.rdev() != device {
            return Err(Errno::NOTBLK.into());
        }
        Ok(FileSystem(Handle::Device(CString::new(node.as_os_str().as_bytes())?)))
    }

    /// Whether projects are counted and their limits are kept.
    pub fn keeps_limits(&self) -> bool {
        self.state().is_ok_and(|flags| flags & COUNTED_AND_KEPT == COUNTED_AND_KEPT)
    }

    fn state(&self) -> io::Result<u16> {
        let mut state = State { version: 0, flags: 0, rest: [0; 124] };
        self.control(STATE, 0, (&raw mut state).cast())?;
        Ok(state.flags)
    }

    /// What is known of a project; one that nobody has heard of has nothing.
    pub fn account(&self, project: u32) -> io::Result<Account> {
        match self.ask(GET, project) {
            Err(err) if is_unknown(&err) => Ok(Account { project, ..Account::default() }),
            asked => asked,
        }
    }

    /// The first project from `project` on that the file system knows; none if there is none.
    pub fn next_account(&self, project: u32) -> io::Result<Option<Account>> {
        match self.ask(GET_NEXT, project) {
            Err(err) if is_unknown(&err) => Ok(None),
            asked => asked.map(Some),
        }
    }

    fn ask(&self, command: u32, project: u32) -> io::Result<Account> {
        let mut quota = DiskQuota::default();
        self.control(command, project, (&raw mut quota).cast())?;
        Ok(Account {
            project: quota.id,
            limit_bytes: quota.block_hard_limit.saturating_mul(BLOCK_BYTES),
            used_bytes: quota.blocks.saturating_mul(BLOCK_BYTES),
            used_inodes: quota.inodes,
            other_limit: [quota.block_soft_limit, quota.inode_hard_limit, quota.inode_soft_limit] != [0; 3],
        })
    }

    /// Limits a project's files; 0 is no limit. Rounded up to blocks.
    pub fn limit(&self, project: u32, bytes: u64) -> io::Result<()> {
        let mut quota = DiskQuota {
            version: VERSION,
            flags: PROJECTS as i8,
            field_mask: BLOCK_LIMITS,
            id: project,
            block_hard_limit: bytes.div_ceil(BLOCK_BYTES).min(BLOCKS_MAX),
            ..DiskQuota::default()
        };
        self.control(SET, project, (&raw mut quota).cast())
    }

    /// `data` is what the command reads or writes.
    fn control(&self, command: u32, project: u32, data: *mut libc::c_void) -> io::Result<()> {
        check(match &self.0 {
            // SAFETY: the descriptor is open; every caller's `data` points to the command's own structure, which it outlives.
            Handle::Directory(directory) => unsafe {
                libc::syscall(libc::SYS_quotactl_fd, directory.as_raw_fd(), command, project, data)
            },
            // SAFETY: likewise, and the path ends with a zero.
            Handle::Device(node) => unsafe { libc::syscall(libc::SYS_quotactl, command, node.as_ptr(), project, data) },
        })
        .map(drop)
    }
}

/// The file system has no record of such a project.
fn is_unknown(err: &io::Error) -> bool {
    err.raw_os_error() == Some(Errno::NOENT.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_and_commands_are_the_kernels() {
        assert_eq!((size_of::<Attributes>(), size_of::<DiskQuota>(), size_of::<State>()), (28, 112, 128));
        assert_eq!((GET_ATTRIBUTES, SET_ATTRIBUTES), (0x801c_581f, 0x401c_5820));
        assert_eq!((GET, SET, STATE, GET_NEXT), (0x58_0302, 0x58_0402, 0x58_0502, 0x58_0902));
        assert_eq!(std::mem::offset_of!(State, flags), 2);
        assert_eq!(std::mem::offset_of!(DiskQuota, blocks), 40);
        assert_eq!(std::mem::offset_of!(DiskQuota, realtime), 72);
    }

    #[test]
    fn a_file_system_without_quotas_keeps_no_limits() {
        let proc = std::fs::File::open("/proc").unwrap();
        let file_system = FileSystem::of(proc.into()).unwrap();
        assert!(!file_system.keeps_limits());
        file_system.limit(1, 4096).unwrap_err();
        FileSystem::by_device(std::fs::File::open("/proc").unwrap()).unwrap_err();
    }
}
