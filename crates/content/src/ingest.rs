//! A blob in the making.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use errdefs::ErrorKind;
use oci::Digest;
use sha2::{Digest as _, Sha256};

/// What a blob must be; `None` where nobody knows beforehand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Its address.
    pub digest: Option<Digest>,
    /// Its length in bytes.
    pub size: Option<u64>,
}

/// A blob that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its address.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// When a committed blob survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// When the call returns.
    Now,
    /// When the caller has synced the file system and called [`crate::Content::sync_names`].
    Later,
}

/// Why a blob was not stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The bytes are not those that were promised.
    #[error("content has digest {actual}, expected {expected}")]
    WrongDigest {
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// There are more or fewer bytes than promised; reading stopped at the first one too many.
    #[error("content has {actual} bytes, expected {expected}")]
    WrongSize {
        /// What was promised.
        expected: u64,
        /// What came, or how much of it was seen.
        actual: u64,
    },
    /// Whoever gives the bytes failed.
    #[error("read the content to store")]
    Source {
        /// Why.
        source: io::Error,
    },
    /// The store cannot take them: full, failed.
    #[error("write {}", path.display())]
    Write {
        /// The unfinished file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl IngestError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            IngestError::WrongDigest { .. } | IngestError::WrongSize { .. } => ErrorKind::InvalidArgument,
            IngestError::Source { .. } | IngestError::Write { .. } => ErrorKind::Internal,
        }
    }
}

/// A blob in the making; dropped without [`Ingest::commit`], it leaves nothing, unless it is a partial one.
#[derive(Debug)]
pub struct Ingest {
    /// `None` while it rests.
    file: Option<File>,
    path: PathBuf,
    blobs: PathBuf,
    hash: Hash,
    size: u64,
    /// Whether the file stays when it is dropped.
    keep: bool,
}

/// What is known of the digest of the bytes.
#[derive(Debug)]
enum Hash {
    Running(Sha256),
    /// The caller hashed the file itself.
    Known(Digest),
}

impl Ingest {
    pub(crate) fn create(ingests: &Path, blobs: &Path) -> Result<Ingest, IngestError> {
        let path = ingests.join(stdx::id::random_hex::<16>());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|source| IngestError::Write { path: path.clone(), source })?;
        let hash = Hash::Running(Sha256::new());
        Ok(Ingest { file: Some(file), path, blobs: blobs.to_owned(), hash, size: 0, keep: false })
    }

    /// The partial blob at `path`, whose bytes the caller hashed to `digest`.
    pub(crate) fn verified(path: PathBuf, blobs: &Path, digest: Digest, size: u64) -> Ingest {
        Ingest { file: None, path, blobs: blobs.to_owned(), hash: Hash::Known(digest), size, keep: true }
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), IngestError> {
        match &mut self.hash {
            Hash::Running(hasher) => hasher.update(bytes),
            Hash::Known(_) => {
                let source = io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the blob is whole");
                return Err(IngestError::Write { path: self.path.clone(), source });
            }
        }
        self.size += bytes.len() as u64;
        let written = self.file().and_then(|file| file.write_all(bytes));
        written.map_err(|source| IngestError::Write { path: self.path.clone(), source })
    }

    /// Gives its descriptor back until more is written: for one of many that wait for their commit.
    pub fn rest(&mut self) {
        self.file = None;
    }

    fn file(&mut self) -> io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new().append(true).open(&self.path)?,
        };
        Ok(self.file.insert(file))
    }

    /// How many bytes were written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of what was written so far.
    pub fn digest(&self) -> Digest {
        match &self.hash {
            Hash::Running(hasher) => Digest::from_sha256(&hasher.clone().finalize().into()),
            Hash::Known(digest) => digest.clone(),
        }
    }

    /// Makes it a blob if it is what was `expected`; a blob of that digest that exists already is replaced by its equal.
    pub fn commit(mut self, expected: &Expected, sync: Sync) -> Result<Blob, IngestError> {
        let actual = self.digest();
        if let Some(size) = expected.size.filter(|size| *size != self.size) {
            return Err(IngestError::WrongSize { expected: size, actual: self.size });
        }
        if let Some(digest) = expected.digest.clone().filter(|digest| *digest != actual) {
            return Err(IngestError::WrongDigest { expected: digest, actual });
        }
        let placed = self.place(&actual, sync);
        placed.map_err(|source| IngestError::Write { path: self.path.clone(), source })?;
        self.keep = true;
        Ok(Blob { digest: actual, size: self.size })
    }

    pub(crate) fn too_long(&self, expected: &Expected, more: u64) -> IngestError {
        IngestError::WrongSize { expected: expected.size.unwrap_or(u64::MAX), actual: self.size + more }
    }

    fn place(&mut self, digest: &Digest, sync: Sync) -> io::Result<()> {
        if sync == Sync::Now {
            self.file()?.sync_data()?;
        }
        let blob = self.blobs.join(digest.hex());
        match fs::rename(&self.path, &blob) {
            // A partial blob that two wanted: the other one was first, and its bytes are the same.
            Err(err) if err.kind() == io::ErrorKind::NotFound && blob.exists() => {}
            renamed => renamed?,
        }
        match sync {
            Sync::Now => stdx::fs::sync_dir(&self.blobs),
            Sync::Later => Ok(()),
        }
    }
}

/// For whoever writes to any sink. Nothing is buffered.
impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Ingest::write(self, bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(IngestError::Write { source, .. }) => Err(source),
            Err(err) => Err(io::Error::other(err)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.keep {
            // Best effort: the next start of the store removes what cannot be removed now.
            let _ = fs::remove_file(&self.path);
        }
    }
}
