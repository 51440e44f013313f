//! The directory of blobs.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use errdefs::ErrorKind;
use oci::Digest;

use crate::ingest::{Blob, Expected, Ingest, IngestError, Sync};
use crate::partial::{self, Partial};

/// How much a copy moves at a time: large enough that the system call does not show, small enough for the cache.
const COPY_BYTES: usize = 256 * 1024;

/// A directory of blobs. All operations block. A clone is the same directory.
#[derive(Clone, Debug)]
pub struct Content {
    blobs: PathBuf,
    ingests: PathBuf,
    partials: PathBuf,
}

/// Why [`Content::open`] failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory of the store cannot be made.
    #[error("create directory {}", path.display())]
    Create {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What an earlier process left half-written cannot be removed.
    #[error("remove unfinished blobs in {}", path.display())]
    Sweep {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl OpenError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// Why a blob cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none of that digest.
    #[error("blob {digest} does not exist")]
    NotFound {
        /// Which one.
        digest: Digest,
    },
    /// It is longer than the caller accepts.
    #[error("blob {digest} is longer than {limit_bytes} bytes")]
    TooLarge {
        /// Which one.
        digest: Digest,
        /// The caller's limit.
        limit_bytes: u64,
    },
    /// The system says no.
    #[error("read blob {digest}")]
    Read {
        /// Which one.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The directory of blobs cannot be listed.
    #[error("list blobs in {}", path.display())]
    List {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ReadError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ReadError::NotFound { .. } => ErrorKind::NotFound,
            ReadError::TooLarge { .. } => ErrorKind::InvalidArgument,
            ReadError::Read { .. } | ReadError::List { .. } => ErrorKind::Internal,
        }
    }
}

/// Why a blob cannot be removed.
#[derive(Debug, thiserror::Error)]
#[error("remove blob {digest}")]
pub struct RemoveError {
    /// Which one.
    pub digest: Digest,
    /// Why.
    pub source: io::Error,
}

impl RemoveError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

impl Content {
    /// Opens or creates the store below `root`, and removes what an earlier process left unfinished.
    pub fn open(root: &Path) -> Result<Content, OpenError> {
        let (blobs, ingests) = (root.join("blobs/sha256"), root.join("ingest"));
        stdx::fs::remove_if_exists(&ingests).map_err(|source| OpenError::Sweep { path: ingests.clone(), source })?;
        let partials = root.join("partial");
        for path in [&blobs, &ingests, &partials] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|source| OpenError::Create { path: path.clone(), source })?;
        }
        partial::sweep(&partials).map_err(|source| OpenError::Sweep { path: partials.clone(), source })?;
        Ok(Content { blobs, ingests, partials })
    }

    /// Takes up the blob of that digest where an earlier transfer ended, or begins it. Reads and hashes what is there.
    pub fn partial(&self, digest: &Digest) -> Result<Partial, IngestError> {
        Partial::open(self.partials.join(digest.hex()))
    }

    /// Removes what there is of the partial blob of that digest. Nobody may be writing to it.
    pub fn discard(&self, digest: &Digest) -> Result<(), IngestError> {
        let path = self.partials.join(digest.hex());
        stdx::fs::remove_if_exists(&path).map_err(|source| IngestError::Write { path, source })
    }

    /// All partial blobs. What is no digest is not ours.
    pub fn partials(&self) -> Result<Vec<Digest>, IngestError> {
        let failed = |source| IngestError::Write { path: self.partials.clone(), source };
        let mut digests = Vec::new();
        for entry in fs::read_dir(&self.partials).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            digests.extend(name.to_str().and_then(|hex| format!("sha256:{hex}").parse().ok()));
        }
        Ok(digests)
    }

    /// All partial blobs, and the bytes of each that are there.
    pub fn partial_sizes(&self) -> Result<Vec<(Digest, u64)>, IngestError> {
        let sized = |digest: Digest| match fs::metadata(self.partials.join(digest.hex())) {
            Ok(metadata) => Some(Ok((digest, metadata.len()))),
            // It became a blob, or was thrown away.
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            Err(source) => Some(Err(IngestError::Write { path: self.partials.clone(), source })),
        };
        self.partials()?.into_iter().filter_map(sized).collect()
    }

    /// Partial blobs to which nothing was added for a day. Some may be whole and wait for what they belong to.
    pub fn stale_partials(&self) -> Result<Vec<Digest>, IngestError> {
        let stale = partial::stale(&self.partials);
        stale.map_err(|source| IngestError::Write { path: self.partials.clone(), source })
    }

    /// The partial blob of that digest and length, which the caller has read whole and hashed to it; `None` if there is none, as
    /// when it became a blob meanwhile. Where there is a blob the caller has read that: a partial one beside it is what a
    /// transfer that was cut has left.
    pub fn verified(&self, digest: &Digest, size: u64) -> Option<Ingest> {
        let path = self.partials.join(digest.hex());
        let whole = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == size) && !self.contains(digest);
        whole.then(|| Ingest::verified(path, &self.blobs, digest.clone(), size))
    }

    /// Starts a blob whose digest need not be known yet.
    pub fn begin(&self) -> Result<Ingest, IngestError> {
        Ingest::create(&self.ingests, &self.blobs)
    }

    /// Stores what `reader` gives, if it is what was `expected`; else nothing stays behind.
    pub fn ingest(&self, mut reader: impl Read, expected: &Expected, sync: Sync) -> Result<Blob, IngestError> {
        let mut ingest = self.begin()?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return ingest.commit(expected, sync),
                Ok(count) => count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(IngestError::Source { source }),
            };
            // Refused before the disk is full of it, not after.
            if expected.size.is_some_and(|size| ingest.size() + count as u64 > size) {
                return Err(ingest.too_long(expected, count as u64));
            }
            ingest.write(&buffer[..count])?;
        }
    }

    /// Opens a blob for reading.
    pub fn reader(&self, digest: &Digest) -> Result<File, ReadError> {
        File::open(self.path(digest)).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ReadError::NotFound { digest: digest.clone() },
            _ => ReadError::Read { digest: digest.clone(), source },
        })
    }

    /// A whole blob of at most `limit_bytes`: for documents, not for layers.
    pub fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::new();
        let read = self.reader(digest)?.take(limit_bytes + 1).read_to_end(&mut bytes);
        read.map_err(|source| ReadError::Read { digest: digest.clone(), source })?;
        if bytes.len() as u64 > limit_bytes {
            return Err(ReadError::TooLarge { digest: digest.clone(), limit_bytes });
        }
        Ok(bytes)
    }

    /// Whether there is a blob of that digest.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// The digests of all blobs, in no order. Files of other names are not ours and not listed.
    pub fn list(&self) -> Result<Vec<Digest>, ReadError> {
        let failed = |source| ReadError::List { path: self.blobs.clone(), source };
        let mut digests = Vec::new();
        for entry in fs::read_dir(&self.blobs).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            digests.extend(name.to_str().and_then(|hex| format!("sha256:{hex}").parse().ok()));
        }
        Ok(digests)
    }

    /// How long a blob is; `None` if there is none of that digest.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, ReadError> {
        match fs::metadata(self.path(digest)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ReadError::Read { digest: digest.clone(), source }),
        }
    }

    /// Removes a blob; that it is absent already is success. Readers that have it open keep it.
    pub fn remove(&self, digest: &Digest) -> Result<(), RemoveError> {
        stdx::fs::remove_if_exists(&self.path(digest)).map_err(|source| RemoveError { digest: digest.clone(), source })
    }

    /// Makes the names of blobs committed with [`Sync::Later`] survive a power cut; their bytes are the caller's to sync.
    pub fn sync_names(&self) -> io::Result<()> {
        stdx::fs::sync_dir(&self.blobs)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }
}

#[cfg(test)]
mod tests;
