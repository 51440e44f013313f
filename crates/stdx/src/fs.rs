//! Files that are either whole or absent after a crash.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Whether a write must survive a power cut, or only the death of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// File and directory are synced. Tens of microseconds to milliseconds.
    PowerCut,
    /// Only atomic: for tmpfs, and for facts that a reboot makes untrue anyway.
    ProcessDeath,
}

/// Replaces `path` by a file with these `bytes` and mode 0600: readers see the old file or the new one, nothing between.
///
/// Blocks. The directory must exist. A crash can leave `path` with the suffix `.tmp`, which the next write replaces.
pub fn write_atomic(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    write_atomic_with_mode(path, bytes, durability, 0o600)
}

/// The same; a new file has this mode, without what the umask takes.
pub fn write_atomic_with_mode(path: &Path, bytes: &[u8], durability: Durability, mode: u32) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    options.mode(mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| match durability {
        Durability::PowerCut => file.sync_data(),
        Durability::ProcessDeath => Ok(()),
    });
    if let Err(err) = written.and_then(|()| fs::rename(&temporary, path)) {
        // The error above is the one that matters; a left-over temporary is replaced by the next write.
        let _ = fs::remove_file(&temporary);
        return Err(err);
    }
    match durability {
        Durability::PowerCut => sync_dir(path.parent().unwrap_or(Path::new("/"))),
        Durability::ProcessDeath => Ok(()),
    }
}

/// Makes the entries of a directory survive a power cut.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a directory, and those above it, for its owner alone; one that exists stays as it is.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    builder.mode(0o700);
    builder.create(path)
}

/// Removes a file or a whole directory; that it is absent already is success.
pub fn remove_if_exists(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(err) => Err(err),
    };
    match removed {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_whole_file_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        write_atomic(&path, b"a longer first text", Durability::PowerCut).unwrap();
        write_atomic(&path, b"second", Durability::ProcessDeath).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_atomic(&dir.path().join("no/such"), b"", Durability::ProcessDeath).is_err());
    }

    #[test]
    fn removing_what_is_absent_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        remove_if_exists(&dir.path().join("a")).unwrap();
        remove_if_exists(&dir.path().join("a")).unwrap();
    }
}
