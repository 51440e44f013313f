//! The first bytes of a blob that is being transferred.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci::Digest;
use sha2::{Digest as _, Sha256};

use crate::ingest::IngestError;

/// How long the bytes of a transfer that nobody takes up again are kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// How much is hashed at a time.
const READ_BYTES: usize = 256 * 1024;

/// The first bytes of a blob; dropped, they stay for the next transfer.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
    hasher: Sha256,
    size: u64,
}

impl Partial {
    pub(crate) fn open(path: PathBuf) -> Result<Partial, IngestError> {
        let opened = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path);
        let resumed = opened.and_then(|mut file| {
            let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; READ_BYTES]);
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => return Ok((file, hasher, size)),
                    Ok(count) => {
                        hasher.update(&buffer[..count]);
                        size += count as u64;
                    }
                    Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                    Err(err) => return Err(err),
                }
            }
        });
        match resumed {
            Ok((file, hasher, size)) => Ok(Partial { file, path, hasher, size }),
            Err(source) => Err(IngestError::Write { path, source }),
        }
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), IngestError> {
        let written = self.file.write_all(bytes);
        written.map_err(|source| IngestError::Write { path: self.path.clone(), source })?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// How many bytes there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of what there is so far.
    pub fn digest(&self) -> Digest {
        Digest::from_sha256(&self.hasher.clone().finalize().into())
    }

    /// Throws all bytes away: they are not what was promised.
    pub fn restart(&mut self) -> Result<(), IngestError> {
        let truncated = self.file.set_len(0);
        truncated.map_err(|source| IngestError::Write { path: self.path.clone(), source })?;
        (self.hasher, self.size) = (Sha256::new(), 0);
        Ok(())
    }

    /// Opens the file for reading at its begin, while it grows and after it became a blob.
    pub fn reader(&self) -> Result<File, IngestError> {
        File::open(&self.path).map_err(|source| IngestError::Write { path: self.path.clone(), source })
    }

    /// Throws the whole file away: for a transfer that cannot be continued, such as one that filled the disk.
    pub fn discard(self) -> Result<(), IngestError> {
        stdx::fs::remove_if_exists(&self.path).map_err(|source| IngestError::Write { path: self.path, source })
    }
}

/// Removes what nobody took up for too long: where nobody can be taking anything up, at a start.
pub(crate) fn sweep(partials: &Path) -> io::Result<()> {
    for entry in fs::read_dir(partials)? {
        let entry = entry?;
        if is_stale(&entry)? {
            stdx::fs::remove_if_exists(&entry.path())?;
        }
    }
    Ok(())
}

/// What was not added to for too long. What is no digest is not ours.
pub(crate) fn stale(partials: &Path) -> io::Result<Vec<Digest>> {
    let mut stale = Vec::new();
    for entry in fs::read_dir(partials)? {
        let entry = entry?;
        let digest = entry.file_name().to_str().and_then(|hex| format!("sha256:{hex}").parse().ok());
        match is_stale(&entry) {
            Ok(true) => stale.extend(digest),
            Ok(false) => {}
            // It became a blob, or was thrown away.
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
    }
    Ok(stale)
}

fn is_stale(entry: &fs::DirEntry) -> io::Result<bool> {
    // A clock that was set back makes a file of the future, whose age is none: kept until it comes of age.
    let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
    Ok(age > KEPT)
}
