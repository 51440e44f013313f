//! What a tmpfs takes over from the directory that it covers: the mode, and with `tmpcopyup` everything in it, as with runc.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fstat, mkdirat, mknodat, openat,
    readlinkat, statat, symlinkat,
};

use crate::mounts::MountPlan;
use crate::target::{self, Missing};

/// Settles a tmpfs that is not attached yet, and still writable.
pub(crate) fn settle(root: BorrowedFd<'_>, plan: &MountPlan, mount: BorrowedFd<'_>) -> io::Result<()> {
    let covered = match target::open(root, &plan.destination, Missing::Refuse) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !plan.options.has("mode") {
        chmodat(mount, ".", Mode::from_raw_mode(fstat(&covered)?.st_mode), AtFlags::empty())?;
    }
    if plan.options.copy_up {
        copy_directory(covered.as_fd(), mount)?;
    }
    Ok(())
}

/// Copies what is in a directory. By descriptor, and no link is followed: somebody else may be changing it.
fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = openat(from, ".", directory, Mode::empty())?;
    for entry in Dir::read_from(&from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(to, name, Mode::RWXU)?;
                let (inner, copy) =
                    (openat(&from, name, directory, Mode::empty())?, openat(to, name, directory, Mode::empty())?);
                copy_directory(inner.as_fd(), copy.as_fd())?;
            }
            FileType::RegularFile => copy_file(from.as_fd(), to, name)?,
            FileType::Symlink => symlinkat(readlinkat(&from, name, Vec::new())?, to, name)?,
            // Whoever listens at it listens at the one that is covered.
            FileType::Socket => continue,
            kind => mknodat(to, name, kind, Mode::RUSR, stat.st_rdev)?,
        }
        copy_owner(to, name, &stat)?;
    }
    Ok(())
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<()> {
    let reading = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source: OwnedFd = openat(from, name, reading, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&source)?.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let writing = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = openat(to, name, writing, Mode::RUSR | Mode::WUSR)?;
    io::copy(&mut File::from(source), &mut File::from(copy)).map(drop)
}

fn copy_owner(to: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    // After the owner, whose change takes setuid bits away. A link has no mode.
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        chmodat(to, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
    }
    Ok(())
}
