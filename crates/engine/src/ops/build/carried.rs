//! Caches of commands (`RUN --mount=type=cache`) that go with a cache of steps, and come with one: `mounts=true`, which is
//! ours alone.
//!
//! ```text
//! a cache's files --> tar --secrets? bound?--> gzip --> a file of the build's --> beside the steps' layers
//! what a cache of steps names --> compared, bounded --> a directory of the build's --> a cache that is not here yet
//! ```
//! What is in them is whatever commands have put there, for whoever may read the cache; so they go where that is wanted alone.
//! What comes is believed as far as the layers of steps are: whoever may write there says what is in it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::{Overwrite, Owner, Pack, Resolution, Unpack, UnpackError};
use builder::mounts::{Mounted, RunMount};
use builder::shared::{MOUNT_ANNOTATION, SharedMount};
use content::Blob;
use layer::{COMPRESSOR, Gzip, TarReader, TarWriter};
use oci::Digest;
use oci::image::{Descriptor, media_type};
use rustix::fs::{CWD, Mode, OFlags, openat};
use sha2::{Digest as _, Sha256};

use super::caches::{self, Wish};
use super::client_files::Secret;
use super::imports::Origin;
use super::leaks::Watch;
use crate::Engine;
use crate::ops::export::is_exported;

/// The longest tar of a cache that goes or comes, in bytes. Those of compilers have some gigabytes.
const CARRIED_MAX: u64 = 16 << 30;

/// How much is read or written at once.
const PIECE_BYTES: usize = 1 << 20;

/// What commands of a build keep, and what they are told that is nobody else's.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted {
    /// By their keys.
    wishes: BTreeMap<String, Wish>,
    /// The names of secrets.
    pub(super) secrets: BTreeSet<String>,
}

impl Noted {
    /// Notes a command.
    pub(super) fn note(&mut self, mounts: &[RunMount], wishes: Vec<Option<Wish>>) {
        for wish in wishes.into_iter().flatten() {
            self.wishes.insert(wish.key.clone(), wish);
        }
        let secrets = mounts.iter().filter_map(|mount| match &mount.what {
            Mounted::Secret { id, .. } => Some(id.clone()),
            _ => None,
        });
        self.secrets.extend(secrets);
    }

    /// The caches of these names.
    pub(super) fn wanted(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<Wish> {
        self.wishes.values().filter(|wish| is_wanted(wish.id())).cloned().collect()
    }
}

/// Why a cache of commands does not go or come.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// A secret would go with it.
    #[error(
        "the secret {id} is in {file:?} of the cache {cache}, which would go with the steps: have the command keep it elsewhere, \
         or name the caches that may go (mounts=ID)"
    )]
    Leak {
        /// Its name.
        id: String,
        /// Where it is, below the top.
        file: String,
        /// The name of the cache.
        cache: String,
    },
    /// It is too much.
    #[error("the cache {0} has more than {CARRIED_MAX} bytes")]
    TooMuch(String),
    /// It cannot be read.
    #[error("pack the cache {cache}")]
    Pack {
        /// Its name.
        cache: String,
        /// Why.
        source: archive::PackError,
    },
    /// It has no place.
    #[error("make a place for the cache {cache}")]
    Place {
        /// Its name.
        cache: String,
        /// Why.
        source: io::Error,
    },
    /// It is none.
    #[error("unpack the cache {cache}")]
    Unpack {
        /// Its name.
        cache: String,
        /// Why.
        source: UnpackError,
    },
    /// It does not come.
    #[error("read the cache {cache}")]
    Read {
        /// Its name.
        cache: String,
        /// Why.
        source: io::Error,
    },
    /// Something else came.
    #[error("{0} is not what it is called")]
    Digest(Digest),
}

/// A cache as it goes.
#[derive(Debug)]
pub(super) struct Packed {
    key: String,
    cache: String,
    pub(super) blob: Blob,
    file: Arc<File>,
}

/// What a cache is known by where others find it: its key says what it begins with, which is long.
pub(super) fn name(key: &str) -> String {
    Digest::from_sha256(&Sha256::digest(key).into()).hex().to_owned()
}

/// Packs a cache into a file at `path`, which has no name from then on; `None` where there is none.
///
/// Waits for whoever has it for himself alone. A secret in it is an error.
pub(super) async fn pack(
    engine: &Engine,
    wish: Wish,
    path: PathBuf,
    secrets: Arc<Vec<Secret>>,
) -> Result<Option<Packed>, CarryError> {
    let lease = caches::acquire(engine, vec![Some(wish.clone())], None).await.pop().flatten();
    let Some(lease) = lease else { return Ok(None) };
    bridge::blocking(move || {
        // Nobody removes it and nobody has it for himself until it is packed.
        let lease = lease;
        let cache = wish.id().to_owned();
        let failed = |source: io::Error| CarryError::Place { cache: cache.clone(), source };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = match openat(CWD, lease.directory(), flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            top => top.map_err(|err| failed(err.into()))?,
        };
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).map_err(failed)?;
        fs::remove_file(&path).map_err(failed)?;
        let blob = pack_into(&mut file, top, &cache, &secrets)?;
        Ok(Some(Packed { key: wish.key, cache, blob, file: Arc::new(file) }))
    })
    .await
}

fn pack_into(file: &mut File, top: OwnedFd, cache: &str, secrets: &[Secret]) -> Result<Blob, CarryError> {
    let failed = |source: io::Error| CarryError::Place { cache: cache.to_owned(), source };
    let mut hashed = Hashed { to: BufWriter::with_capacity(PIECE_BYTES, file), hash: Sha256::new(), bytes: 0 };
    let gzip = Gzip::new(COMPRESSOR, &mut hashed).map_err(failed)?;
    let mut watched = Watched { to: gzip, watch: Watch::new(secrets), found: None, bytes: 0 };
    let at = RefCell::new(Vec::new());
    let mut tar = TarWriter::new(&mut watched);
    let mut note = |seen: &archive::Seen<'_>, _: &mut archive::Entry, _: &mut Vec<archive::Entry>| {
        seen.path.clone_into(&mut at.borrow_mut());
        Ok(true)
    };
    // The top is the archive's first entry, so that its owner and mode are not lost.
    let options = Pack { name: b".", xattr: is_exported, holes: true, still: false, entry: &mut note };
    let packed = archive::pack(&mut tar, top, options);
    let packed = packed.and_then(|()| tar.finish().map(drop).map_err(archive::PackError::Write));
    let (to, found, bytes) = watched.end();
    if let Some(id) = found {
        let file = String::from_utf8_lossy(&at.borrow()).into_owned();
        return Err(CarryError::Leak { id, file, cache: cache.to_owned() });
    }
    if bytes > CARRIED_MAX {
        return Err(CarryError::TooMuch(cache.to_owned()));
    }
    packed.map_err(|source| CarryError::Pack { cache: cache.to_owned(), source })?;
    to.finish().map_err(failed)?;
    hashed.to.flush().map_err(failed)?;
    Ok(Blob { digest: Digest::from_sha256(&hashed.hash.finalize().into()), size: hashed.bytes })
}

impl Packed {
    /// How a manifest names it.
    pub(super) fn shared(&self) -> SharedMount {
        let layer = Descriptor {
            // As a layer, since registries and those who read caches of older ones know no other type.
            media_type: media_type::OCI_LAYER_GZIP.to_owned(),
            digest: self.blob.digest.clone(),
            size: self.blob.size,
            annotations: BTreeMap::from([(MOUNT_ANNOTATION.to_owned(), self.cache.clone())]),
            platform: None,
        };
        SharedMount { key: name(&self.key), layer }
    }

    /// Its bytes.
    pub(super) fn reader(&self) -> PackedReader {
        PackedReader { file: self.file.clone(), position: 0 }
    }
}

/// Its bytes, for whoever reads them alone.
pub(super) struct PackedReader {
    file: Arc<File>,
    position: u64,
}

impl Read for PackedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl registry_client::Source for Packed {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(PackedReader { position: from, ..self.reader() }))
    }

    fn progress(&self, sent: u64) -> (u64, u64) {
        (sent, self.blob.size)
    }
}

/// Hashes what goes.
struct Hashed<W> {
    to: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Lets neither secrets nor too much pass.
struct Watched<'a, W> {
    to: W,
    watch: Watch<'a>,
    found: Option<String>,
    bytes: u64,
}

impl<W> Watched<'_, W> {
    /// What it was written to, the secret that was in it, and how much it was.
    fn end(self) -> (W, Option<String>, u64) {
        (self.to, self.found, self.bytes)
    }
}

impl<W: Write> Write for Watched<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        self.found = self.watch.see(bytes).map(str::to_owned);
        if self.found.is_some() || self.bytes > CARRIED_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.to.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A cache that somebody else has.
#[derive(Clone)]
pub(super) struct Carried {
    pub(super) engine: Engine,
    /// Its name.
    pub(super) cache: String,
    pub(super) layer: Descriptor,
    pub(super) origin: Origin,
    /// Whose cache it comes with.
    pub(super) whose: String,
}

impl Carried {
    /// Fills `directory`, which is there and empty, with it: all of it, or nothing. Blocks, and waits for other work; called
    /// where there is a runtime.
    pub(super) fn restore(&self, directory: &Path) -> Result<(), CarryError> {
        let failed = |source: io::Error| CarryError::Place { cache: self.cache.clone(), source };
        let aside = directory.with_file_name("carried");
        DirBuilder::new().mode(0o700).create(&aside).map_err(failed)?;
        match self.unpack(&aside) {
            Ok(()) => {
                fs::remove_dir(directory).map_err(failed)?;
                fs::rename(&aside, directory).map_err(failed)
            }
            Err(err) => {
                fs::remove_dir_all(&aside).map_err(failed)?;
                Err(err)
            }
        }
    }

    fn unpack(&self, directory: &Path) -> Result<(), CarryError> {
        let cache = || self.cache.clone();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(CWD, directory, flags, Mode::empty());
        let root = root.map_err(|err| CarryError::Place { cache: cache(), source: err.into() })?;
        let unpack = Unpack {
            root: root.as_fd(),
            directory: b"",
            resolution: Resolution::InRoot,
            overwrite: Overwrite::Allow,
            owner: Owner::Archive,
            rename: None,
            top: true,
        };
        let (reader, _coming) = self.origin.open(&self.engine, &self.layer);
        let mut compared = Compared { from: reader.take(self.layer.size), hash: Sha256::new() };
        let read = |source: io::Error| CarryError::Read { cache: cache(), source };
        {
            let (_, plain) = layer::decompress(&mut compared).map_err(read)?;
            let limit = image::inflated_max(self.layer.size).min(CARRIED_MAX);
            let bounded = Bounded { from: plain, left: limit };
            let mut tar = TarReader::new(BufReader::with_capacity(PIECE_BYTES, bounded));
            archive::unpack(&mut tar, &unpack).map_err(|source| CarryError::Unpack { cache: cache(), source })?;
        }
        io::copy(&mut compared, &mut io::sink()).map_err(read)?;
        match Digest::from_sha256(&compared.hash.finalize().into()) == self.layer.digest {
            true => Ok(()),
            false => Err(CarryError::Digest(self.layer.digest.clone())),
        }
    }
}

/// Hashes what comes.
struct Compared<R> {
    from: R,
    hash: Sha256,
}

impl<R: Read> Read for Compared<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// Fails where there is more.
struct Bounded<R> {
    from: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(count)
    }
}
