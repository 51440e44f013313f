//! Reads an archive once: documents into memory, layers straight into staged directories.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufReader, Cursor, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope, ScopedJoinHandle};

use content::Ingest;
use layer::{ApplyError, Compression, Entry, Kind, TarReader};
use oci::Digest;
use sha2::{Digest as _, Sha256};
use snapshot::ChainId;

use super::LoadError;
use super::plan::Documents;
use crate::pins::{Form, Pins};
use crate::pull::inflated_max;
use crate::record::StoredLayer;
use crate::store::{DOCUMENT_MAX, Store};
use crate::unpacked::{Staging, Unpacked};

/// All documents of one archive together, with all paths and links. A registry's whole history of one repository is far smaller.
pub(crate) const DOCUMENTS_MAX: u64 = 64 * 1024 * 1024;

/// The most entries of an archive: an image of 127 layers has some 400 in the oldest format.
const ENTRIES_MAX: u64 = 65_536;

/// Layers unpacked at the same time. More than two gain nothing from one stream, but a small one need not wait.
const LAYERS_AT_ONCE: usize = 3;

/// Chunks of the archive's buffer that a layer may be behind: what lets the next layer start before this one is written.
const CHUNKS_AHEAD: usize = 32;

/// The buffer on the archive.
const BUFFER_BYTES: usize = 256 * 1024;

/// Blobs of one archive that are neither documents nor layers, all together: on the disk, until it is known who wants them.
const BLOBS_MAX: u64 = 1024 * 1024 * 1024;

/// What tells a layer from a document: one header of a tar.
const START_BYTES: u64 = 512;

type Reader<'a> = TarReader<BufReader<Box<dyn Read + Send + 'a>>>;

/// What was in the archive.
pub(crate) struct Spool<'a> {
    /// Layers that are there already and must stay until the images are recorded.
    pub(crate) pins: Pins<'a>,
    pub(crate) documents: Documents,
    /// Layers by path.
    pub(crate) layers: HashMap<Vec<u8>, usize>,
    pub(crate) spooled: Vec<Spooled>,
    /// Blobs that are neither, for what an index names beside images.
    pub(crate) blobs: HashMap<Digest, Ingest>,
}

impl<'a> Spool<'a> {
    pub(crate) fn new(pins: Pins<'a>) -> Spool<'a> {
        let (layers, blobs) = (HashMap::new(), HashMap::new());
        Spool { pins, documents: Documents::default(), layers, spooled: Vec::new(), blobs }
    }
}

/// A layer of the archive.
pub(crate) enum Spooled {
    /// It lies in a staged directory.
    Unpacked { unpacked: Box<Unpacked>, blob: LayerBlob },
    /// It is broken; that matters only if an image wants it.
    Failed(LoadError),
    /// It is there already at some place, so that it was only verified.
    Known { chain_id: ChainId, layer: StoredLayer, bytes: u64 },
}

/// Where the compressed bytes of a layer are.
pub(crate) enum LayerBlob {
    /// It is not compressed, or nobody keeps them.
    None,
    /// On their way into the store.
    New(Box<Ingest>),
    /// There already, and pinned: somebody else was quicker.
    Here,
}

/// A layer on its way.
struct Job<'scope> {
    index: usize,
    thread: ScopedJoinHandle<'scope, Result<Box<Unpacked>, ApplyError>>,
    ingest: Option<Box<Ingest>>,
}

pub(crate) fn read<'a>(store: &'a Store, source: impl Read + Send) -> Result<Spool<'a>, LoadError> {
    let (_, source) = layer::decompress(source).map_err(|source| LoadError::Inflate { source })?;
    let mut tar = TarReader::new(BufReader::with_capacity(BUFFER_BYTES, source));
    let spool = Spool::new(Pins::new(store));
    thread::scope(|scope| {
        let mut spooling =
            Spooling { store, scope, jobs: VecDeque::new(), spool, documents_bytes: 0, blobs_room: BLOBS_MAX };
        let mut entries = 0;
        while let Some(entry) = tar.next_entry()? {
            entries += 1;
            if entries > ENTRIES_MAX {
                return Err(LoadError::TooMuch { what: "number of entries", limit: ENTRIES_MAX });
            }
            spooling.entry(&entry, &mut tar)?;
        }
        // Whoever writes the pipe must not fail because we stop at the end mark.
        tar.drain()?;
        spooling.finish_to(0);
        Ok(spooling.spool)
    })
}

struct Spooling<'scope, 'env, 'store> {
    store: &'store Store,
    scope: &'scope Scope<'scope, 'env>,
    jobs: VecDeque<Job<'scope>>,
    spool: Spool<'store>,
    documents_bytes: u64,
    /// How many bytes of blobs that are neither are still kept.
    blobs_room: u64,
}

impl Spooling<'_, '_, '_> {
    fn entry(&mut self, entry: &Entry, tar: &mut Reader<'_>) -> Result<(), LoadError> {
        // A name that climbs out is one that no manifest can mean.
        let Some(path) = layer::clean_path(&entry.path) else { return Ok(()) };
        self.count((path.len() + entry.link.len()) as u64)?;
        match entry.kind {
            Kind::File => self.file(path, tar),
            Kind::HardLink => {
                self.link(path, layer::clean_path(&entry.link));
                Ok(())
            }
            Kind::Symlink => {
                let directory = path.iter().rposition(|b| *b == b'/').map_or(&b""[..], |slash| &path[..slash]);
                let target = layer::clean_path(&[directory, b"/", &entry.link].concat());
                self.link(path, target);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, bytes: u64) -> Result<(), LoadError> {
        self.documents_bytes += bytes;
        match self.documents_bytes {
            ..=DOCUMENTS_MAX => Ok(()),
            _ => Err(LoadError::TooMuch { what: "size of all documents", limit: DOCUMENTS_MAX }),
        }
    }

    fn link(&mut self, path: Vec<u8>, target: Option<Vec<u8>>) {
        if let Some(target) = target {
            self.spool.documents.links.insert(path, target);
        }
    }

    fn file(&mut self, path: Vec<u8>, tar: &mut Reader<'_>) -> Result<(), LoadError> {
        let size = tar.remaining();
        let start = take(tar, START_BYTES)?;
        if layer::looks_like_layer(&start) {
            return self.layer(path, size, start, tar);
        }
        if size > DOCUMENT_MAX {
            return self.blob(&path, size, &start, tar);
        }
        self.count(size)?;
        let mut document = start;
        document.extend(take(tar, size)?);
        self.spool.documents.files.insert(path, document);
        Ok(())
    }

    /// Neither: kept for what may be said about an image, if it is what its name says; else skipped, and missing if an image
    /// wants it.
    fn blob(&mut self, path: &[u8], size: u64, start: &[u8], tar: &mut Reader<'_>) -> Result<(), LoadError> {
        let Some(room) = self.blobs_room.checked_sub(size) else { return Ok(()) };
        let hex = path.strip_prefix(b"blobs/sha256/").and_then(|hex| std::str::from_utf8(hex).ok());
        let Some(digest) = hex.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()) else { return Ok(()) };
        self.blobs_room = room;
        let mut ingest = self.store.content.begin()?;
        ingest.write(start)?;
        loop {
            let chunk = tar.chunk()?;
            if chunk.is_empty() {
                break;
            }
            ingest.write(chunk)?;
            let length = chunk.len();
            tar.consume(length);
        }
        ingest.rest();
        if ingest.digest() == digest {
            self.spool.blobs.insert(digest, ingest);
        }
        Ok(())
    }

    fn layer(&mut self, path: Vec<u8>, size: u64, start: Vec<u8>, tar: &mut Reader<'_>) -> Result<(), LoadError> {
        let index = self.spool.spooled.len();
        self.spool.layers.insert(path.clone(), index);
        self.spool.documents.layers.insert(path.clone());
        let compressed = Compression::detect(&start) != Compression::Plain;
        let form = if compressed { Form::Compressed } else { Form::Tar };
        if let Some(known) = self.known(&path, form) {
            self.spool.spooled.push(known.verify(&path, start, tar)?);
            return Ok(());
        }
        self.finish_to(LAYERS_AT_ONCE - 1);
        // Its real value comes when the job ends.
        self.spool.spooled.push(Spooled::Failed(LoadError::NoManifest));
        let staging = Staging::begin(self.store)?;
        let mut ingest = if compressed { Some(Box::new(self.store.content.begin()?)) } else { None };
        let (chunks, received) = sync_channel(CHUNKS_AHEAD);
        let limit = inflated_max(size);
        let thread = self.scope.spawn(move || staging.fill(ChannelReader::new(received), limit));
        let fed = feed(start, tar, &chunks, ingest.as_deref_mut());
        drop(chunks);
        self.jobs.push_back(Job { index, thread, ingest });
        fed
    }

    /// A layer that is named by its own digest, as most archives do, and is there already.
    fn known(&mut self, path: &[u8], form: Form) -> Option<Known> {
        let text = std::str::from_utf8(path).ok()?;
        let mut names = text.split(['/', '.']).rev();
        let digest = names.find_map(|name| format!("sha256:{name}").parse::<Digest>().ok())?;
        let (chain_id, layer) = self.spool.pins.hold_any(&digest, form)?;
        Some(Known { digest, chain_id, layer })
    }

    /// Waits until at most `count` layers are on their way.
    fn finish_to(&mut self, count: usize) {
        while self.jobs.len() > count {
            let Some(mut job) = self.jobs.pop_front() else { return };
            // An archive has as many layers as it likes.
            job.ingest.iter_mut().for_each(|ingest| ingest.rest());
            let unpacked = job.thread.join().expect("applying has no invariant to break");
            self.spool.spooled[job.index] = match unpacked {
                Ok(unpacked) => {
                    Spooled::Unpacked { unpacked, blob: job.ingest.map_or(LayerBlob::None, LayerBlob::New) }
                }
                Err(err) => Spooled::Failed(err.into()),
            };
        }
    }
}

/// Up to `limit` bytes of the present entry.
fn take(tar: &mut Reader<'_>, limit: u64) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < limit {
        let chunk = tar.chunk()?;
        let length = chunk.len().min(limit as usize - bytes.len());
        if length == 0 {
            break;
        }
        bytes.extend_from_slice(&chunk[..length]);
        tar.consume(length);
    }
    Ok(bytes)
}

/// Gives the rest of the present entry to a layer's thread, and to its blob.
fn feed(
    start: Vec<u8>,
    tar: &mut Reader<'_>,
    chunks: &SyncSender<Vec<u8>>,
    mut ingest: Option<&mut Ingest>,
) -> Result<(), LoadError> {
    let mut chunk = start;
    while !chunk.is_empty() {
        if let Some(ingest) = ingest.as_deref_mut() {
            ingest.write(&chunk)?;
        }
        if chunks.send(chunk).is_err() {
            // The layer is broken: its thread says why. The rest is skipped.
            return Ok(());
        }
        chunk = tar.chunk()?.to_vec();
        tar.consume(chunk.len());
    }
    Ok(())
}

/// A layer that is there already, if it is what its name says.
struct Known {
    digest: Digest,
    chain_id: ChainId,
    layer: StoredLayer,
}

impl Known {
    /// Hashes it, which is all that is left to do.
    fn verify(self, path: &[u8], start: Vec<u8>, tar: &mut Reader<'_>) -> Result<Spooled, LoadError> {
        let bytes = start.len() as u64 + tar.remaining();
        let mut hasher = Sha256::new_with_prefix(start);
        loop {
            let chunk = tar.chunk()?;
            if chunk.is_empty() {
                break;
            }
            hasher.update(chunk);
            let length = chunk.len();
            tar.consume(length);
        }
        if Digest::from_sha256(&hasher.finalize().into()) != self.digest {
            // Named after a layer that it is not: it was not unpacked, so nobody can have it.
            let path = String::from_utf8_lossy(path).into_owned();
            return Ok(Spooled::Failed(LoadError::Digest { path, expected: self.digest }));
        }
        Ok(Spooled::Known { chain_id: self.chain_id, layer: self.layer, bytes })
    }
}

/// Chunks from another thread as a reader.
struct ChannelReader {
    chunks: Receiver<Vec<u8>>,
    current: Cursor<Vec<u8>>,
}

impl ChannelReader {
    fn new(chunks: Receiver<Vec<u8>>) -> ChannelReader {
        ChannelReader { chunks, current: Cursor::default() }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.current.read(buffer)? {
                0 => match self.chunks.recv() {
                    Ok(chunk) => self.current = Cursor::new(chunk),
                    Err(_) => return Ok(0),
                },
                count => return Ok(count),
            }
        }
    }
}
