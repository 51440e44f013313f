//! Where a mount goes, and where none may go.
//!
//! What a runtime reads and writes below /proc must be proc, and what it hides and protects there must be hidden and
//! protected for good. An image, or a container that shares a volume, must therefore not decide where /proc is:
//!
//! - proc and sysfs go to ordinary directories, not through links: masks would be looked up through the link again, which
//!   leads elsewhere by then (CVE-2019-19921, CVE-2023-27561, CVE-2023-28642);
//! - nothing that is not proc goes over /proc, by whatever way (CVE-2019-16884), and into it only what
//!   [`crate::mounts`] lists;
//! - nothing goes over the root: whoever joins the container would find another one than who is inside.
//!
//! The first look tells that a path has no links, at no cost; only those that have some are looked at closer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, ResolveFlags, fstat};
use rustix::io::Errno;
use sys::open::openat2;

use crate::channel::{At, Failure, Reason};
use crate::error::Step;
use crate::mounts::{MountKind, MountPlan};
use crate::process::is_proc;
use crate::target::{self, Missing, PATH_FLAGS};

/// Finds or makes the place of a mount below `root`.
pub(crate) fn open(root: BorrowedFd<'_>, plan: &MountPlan, missing: Missing) -> Result<OwnedFd, Failure> {
    let place = plan.place();
    let place = place.as_str();
    let found = |step| move |err: io::Error| Err(err).because(Reason::Mount(step), place);
    match plainly(root, &plan.destination) {
        Ok(target) => return Ok(target),
        Err(Errno::NOENT) => {
            let made = target::open(root, &plan.destination, missing).or_else(found(Step::MountPoint))?;
            if let Ok(target) = plainly(root, &plan.destination) {
                return Ok(target);
            }
            drop(made);
        }
        Err(Errno::LOOP) => {}
        Err(err) => return found(Step::MountPoint)(err.into()),
    }
    if shows_kernel(&plan.kind) {
        return found(Step::OrdinaryDirectory)(Errno::LOOP.into());
    }
    let target = target::open(root, &plan.destination, missing).or_else(found(Step::MountPoint))?;
    match is_same(root, target.as_fd()) {
        Ok(false) => {}
        Ok(true) => return found(Step::CoverRoot)(Errno::BUSY.into()),
        Err(err) => return found(Step::CoverRoot)(err),
    }
    match is_of_proc(root, target.as_fd()) {
        Ok(false) => Ok(target),
        Ok(true) => found(Step::CoverProc)(Errno::PERM.into()),
        Err(err) => found(Step::CoverProc)(err),
    }
}

/// File systems that show the kernel's own objects.
fn shows_kernel(kind: &MountKind) -> bool {
    matches!(kind, MountKind::InChild(kind) if kind == "proc" || kind == "sysfs")
}

/// Without following any link: ELOOP if there is one. A path with `..` counts as one with links.
fn plainly(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(Errno::LOOP);
    }
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, relative, PATH_FLAGS, Mode::empty(), resolve)
}

/// Whether a path that had links, or `..`, led to /proc or into it.
fn is_of_proc(root: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<bool> {
    if is_proc(target)? {
        return Ok(true);
    }
    let Ok(proc) = target::open(root, Path::new("/proc"), Missing::Refuse) else { return Ok(false) };
    is_same(proc.as_fd(), target)
}

fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}
