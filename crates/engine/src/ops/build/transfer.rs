//! Whole parts of trees, copied to a place of the host's that nobody else writes to.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;

use archive::{Pack, PackError, TarReader, TarWriter, UnpackError};
use rustix::fs::{CWD, Mode, OFlags};
use stdx::pipe::{Writer, pipe};

use super::tree::Found;

/// How much is handed on at once. Nothing but speed depends on it: less makes more system calls, more only takes memory.
const PIECE_BYTES: usize = 128 * 1024;

/// The name that a file gets.
const FILE: &str = "file";

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// There is no place to copy to.
    #[error("open the place of a copy")]
    Open(#[source] io::Error),
    /// It cannot be read.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// It cannot be written.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

/// Copies something into a directory that is there; answers where it is. Blocks.
pub(super) fn copy(found: Found, to: &Path) -> Result<PathBuf, TransferError> {
    let mode = found.stat.st_mode & 0o7777;
    let owner = (found.stat.st_uid, found.stat.st_gid);
    if found.is_directory() {
        copy_into(found, to)?;
        super::mounts::give(to, (owner.0, owner.1, mode)).map_err(TransferError::Open)?;
        return Ok(to.to_owned());
    }
    transfer(found, FILE.as_bytes(), to)?;
    Ok(to.join(FILE))
}

/// Copies what is in a directory into one that is there. Blocks.
pub(super) fn copy_into(found: Found, to: &Path) -> Result<(), TransferError> {
    transfer(found, b"", to)
}

fn transfer(found: Found, name: &[u8], to: &Path) -> Result<(), TransferError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, to, flags, Mode::empty()).map_err(|err| TransferError::Open(err.into()))?;
    let (reader, writer) = pipe(PIECE_BYTES);
    let (packed, unpacked) = thread::scope(|scope| {
        let packing = scope.spawn(move || send(found.place, name, writer));
        let mut tar = TarReader::new(reader);
        let unpacked = archive::unpack(&mut tar, &super::receive::into(&root));
        drop(tar);
        (packing.join(), unpacked)
    });
    match packed.unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
        // Who writes fails because the other one has.
        Err(PackError::Write(_)) => {}
        packed => packed?,
    }
    Ok(unpacked?)
}

fn send(place: OwnedFd, name: &[u8], writer: Writer) -> Result<(), PackError> {
    let mut tar = TarWriter::new(writer);
    let mut entry = |_: &archive::Seen<'_>, _: &mut archive::Entry, _: &mut Vec<archive::Entry>| Ok(true);
    let options = Pack { name, xattr: is_kept, holes: true, still: false, entry: &mut entry };
    archive::pack(&mut tar, place, options)?;
    tar.finish().map(drop).map_err(PackError::Write)
}

/// What users and programs gave a file; not what layers are put together by.
fn is_kept(xattr: &[u8]) -> bool {
    xattr == b"security.capability" || xattr.starts_with(b"user.")
}
