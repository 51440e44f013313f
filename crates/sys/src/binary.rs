//! A program of ours that a container cannot overwrite (CVE-2019-5736).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use crate::mount::{Attributes, set_attributes};

/// A program file seen through a detached, read-only clone of its mount.
///
/// A process that runs from it shows the clone in /proc/PID/exe: opening that for writing fails with EROFS, whoever asks.
/// Unlike a copy in a memfd it shares its pages with every other process of the program. Needs CAP_SYS_ADMIN.
#[derive(Debug)]
pub struct SealedProgram(OwnedFd);

impl SealedProgram {
    /// Seals the file at `path`. Costs about 13 us; keep it for every start.
    pub fn open(path: &Path) -> io::Result<SealedProgram> {
        let tree =
            rustix::mount::open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
        let read_only = Attributes { set: Attributes::READ_ONLY, ..Attributes::default() };
        set_attributes(tree.as_fd(), read_only, false)?;
        Ok(SealedProgram(tree))
    }
}

impl SealedProgram {
    /// The same without privilege, at the price of memory: a sealed copy (memfd_create(2)).
    pub fn copy(path: &Path) -> io::Result<SealedProgram> {
        let (name, plain) = (c"longshore", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
        // Kernels before 6.3 know no such flag, and make every one executable.
        let memory = match memfd_create(name, plain | MemfdFlags::EXEC) {
            Err(Errno::INVAL) => memfd_create(name, plain)?,
            other => other?,
        };
        let mut memory = File::from(memory);
        io::copy(&mut File::open(path)?, &mut memory)?;
        fcntl_add_seals(&memory, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
        Ok(SealedProgram(memory.into()))
    }
}

/// Whether a file is a copy that [`SealedProgram::copy`] has made.
pub fn is_sealed(file: BorrowedFd<'_>) -> bool {
    // Any other file answers EINVAL.
    fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::WRITE | SealFlags::SEAL))
}

impl AsFd for SealedProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
