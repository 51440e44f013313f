//! What a container changed becomes a layer as it is.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, fstat, futimens, openat2, unlinkat};
use rustix::io::Errno;

use crate::changes::Changes;
use crate::copy::times;

/// Removes what is no part of a layer. Directories keep their times, which were theirs if they had been packed where they were.
pub(crate) fn clear(root: &Path, changes: &Changes) -> io::Result<()> {
    if changes.hidden.is_empty() && changes.sockets.is_empty() {
        return Ok(());
    }
    let root = File::open(root)?;
    // What is in a directory comes behind it.
    for path in changes.sockets.iter().chain(changes.hidden.iter().rev()) {
        remove(&root, path)?;
    }
    Ok(())
}

/// Removes a file or an empty directory. Whatever a command has made of the directories above, nothing else is touched.
fn remove(root: &File, path: &[u8]) -> io::Result<()> {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    let (above, name) = slash.map_or((&b"."[..], path), |slash| (&path[..slash], &path[slash + 1..]));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = openat2(root, above, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?;
    let before = fstat(&above)?;
    match unlinkat(&above, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => unlinkat(&above, name, AtFlags::REMOVEDIR)?,
        removed => removed?,
    }
    Ok(futimens(&above, &times(&before))?)
}
