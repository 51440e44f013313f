//! /etc/hosts of a running container. The container has the file mounted and writes into it what it likes, so what is
//! found there is a stranger's: of any length, of any bytes, and perhaps leased, so that whoever opens it waits.
//!
//! The file stays the same one, for the mount shows no other: it is overwritten in place, first and in one piece, and
//! cut off behind that. If the disk is full it is what it was.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;

use oci::ContainerId;
use rustix::fs::OFlags;
use tracing::warn;

use crate::Engine;
use crate::sync::lock;

/// A longer file is left as it is: in bytes.
const LENGTH_MAX: usize = 1024 * 1024;

/// Of two changes at once one would be lost. Held while one file is read and written, which nobody can hold up.
static EDITING: Mutex<()> = Mutex::new(());

#[derive(Debug, thiserror::Error)]
enum HostsError {
    #[error("it is longer than {LENGTH_MAX} bytes")]
    TooLong,
    #[error("it is no text")]
    NoText,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Changes the hosts file of a container; `None` leaves it. What cannot be done is told the daemon's log: neither a start
/// nor a place on a network fails for it. Blocks.
pub(crate) fn edit(engine: &Engine, id: &ContainerId, change: impl FnOnce(&str) -> Option<String>) {
    if let Err(err) = edit_file(&engine.recorder.dir(id).hosts(), change) {
        warn!(container = %id, %err, "cannot update the hosts file of a container");
    }
}

fn edit_file(path: &Path, change: impl FnOnce(&str) -> Option<String>) -> Result<(), HostsError> {
    let _editing = lock(&EDITING);
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let mut found = Vec::new();
    (&file).take(LENGTH_MAX as u64 + 1).read_to_end(&mut found)?;
    if found.len() > LENGTH_MAX {
        return Err(HostsError::TooLong);
    }
    let hosts = str::from_utf8(&found).map_err(|_| HostsError::NoText)?;
    let Some(changed) = change(hosts) else { return Ok(()) };
    if let Err(err) = overwrite(&file, changed.as_bytes()) {
        // These bytes had room before.
        overwrite(&file, &found)?;
        return Err(err.into());
    }
    Ok(())
}

fn overwrite(file: &File, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn hosts(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        std::fs::write(&path, bytes).unwrap();
        (directory, path)
    }

    #[test]
    fn files_are_changed_in_place() {
        let (_directory, path) = hosts(b"127.0.0.1\tlocalhost\n");
        let inode = std::fs::metadata(&path).unwrap().ino();
        for text in ["a longer text than there was, or so\n", "short\n", ""] {
            edit_file(&path, |_| Some(text.to_owned())).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        edit_file(&path, |_| None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode, "the container has this one mounted");
    }

    #[test]
    fn what_a_container_wrote_there_is_left_alone() {
        let (_directory, path) = hosts(b"");
        // It takes no room on the disk, but would take all memory.
        std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let refused = edit_file(&path, |_| unreachable!("nobody reads it"));
        assert!(matches!(refused, Err(HostsError::TooLong)));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 40);
        std::fs::write(&path, b"127.0.0.1\t\xff\n").unwrap();
        let refused = edit_file(&path, |_| unreachable!("nobody understands it"));
        assert!(matches!(refused, Err(HostsError::NoText)));
        std::fs::write(&path, vec![b'#'; LENGTH_MAX]).unwrap();
        edit_file(&path, |hosts| Some(format!("{hosts}\n"))).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), LENGTH_MAX as u64 + 1);
    }

    #[test]
    fn changes_at_once_are_all_there() {
        let (_directory, path) = hosts(b"");
        std::thread::scope(|scope| {
            for number in 0..16 {
                let path = &path;
                scope.spawn(move || edit_file(path, |hosts| Some(format!("{hosts}10.0.0.{number}\tx\n"))).unwrap());
            }
        });
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 16);
    }

    #[test]
    fn a_file_that_makes_readers_wait_delays_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        // Stands for a lease, which holds an open up.
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        let refused = edit_file(&path, |_| unreachable!("nobody reads it"));
        assert!(matches!(refused, Err(HostsError::Io(err)) if err.kind() == io::ErrorKind::WouldBlock));
    }
}
