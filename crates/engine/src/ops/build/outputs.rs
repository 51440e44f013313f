//! What a build came to as files and archives: what is sent to whoever builds, beside the image or instead of it.
//!
//! All of it blocks, and is written while it is read: of an image nothing is in memory but what its author wrote of it.
//! A held tree keeps its layers, however the image ends meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};

use archive::{Entry, Kind, Pack, PackError, Seen, TarWriter, Time};
use errdefs::ErrorKind;
use oci::{Reference, ReferenceError};
use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::sync::oneshot;
use tracing::debug;

use super::tree::open;
use super::work::{ImageTree, WorkError, tree_of};
use crate::Engine;
use crate::ops::archive::Finish;
use crate::ops::export::is_exported;

/// How much of an archive is handed on at once.
const PIECE_BYTES: usize = 128 * 1024;

/// Why an output is not there.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The image has gone.
    #[error(transparent)]
    Image(#[from] image::ResolveError),
    /// Its layers cannot be put together.
    #[error(transparent)]
    Tree(#[from] WorkError),
    /// A file cannot be opened.
    #[error("open the root of what was built")]
    Open(#[source] Errno),
    /// Its files cannot be read, or nobody takes them.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A name is none.
    #[error(transparent)]
    Name(#[from] ReferenceError),
    /// It is not laid out.
    #[error(transparent)]
    Layout(#[from] image::LayoutError),
    /// The daemon ends.
    #[error("the daemon is ending")]
    Ending,
}

impl OutputError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            OutputError::Image(err) => err.kind(),
            OutputError::Ending => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        }
    }
}

/// The files of an image.
pub struct ImageFiles {
    tree: ImageTree,
    /// What all times become; none stay as they are. Seconds since 1970.
    time: Option<i64>,
}

impl ImageFiles {
    /// Opens those of an image. Blocks.
    pub fn open(engine: &Engine, image: &str, time: Option<i64>) -> Result<ImageFiles, OutputError> {
        let image = engine.images.resolve(image)?;
        Ok(ImageFiles { tree: tree_of(engine, &image)?, time })
    }

    /// Tells all entries but sockets, each directory before what is in it, in the order of their names. Of a file with several names
    /// the others are hard links to the first. Paths have no slash in front. Blocks.
    pub fn list(&self, each: &mut dyn FnMut(Entry) -> io::Result<()>) -> Result<(), OutputError> {
        let mut first_names = std::collections::HashMap::new();
        let mut tell = |seen: &Seen<'_>, entry: &mut Entry, _: &mut Vec<Entry>| {
            // What has no path is not written: nothing is, here.
            let empty = Entry { path: Vec::new(), ..entry.clone() };
            let mut told = std::mem::replace(entry, empty);
            if told.path.is_empty() {
                return Ok(true);
            }
            if told.kind != Kind::Directory && seen.stat.st_nlink > 1 {
                let identity = (seen.stat.st_dev, seen.stat.st_ino);
                match first_names.get(&identity) {
                    Some(first) if told.kind == Kind::File => {
                        (told.kind, told.size) = (Kind::HardLink, 0);
                        told.link = Vec::clone(first);
                    }
                    Some(_) => {}
                    None => drop(first_names.insert(identity, told.path.clone())),
                }
            }
            told.mtime =
                Time { secs: seen.stat.st_mtime, nanos: u32::try_from(seen.stat.st_mtime_nsec).unwrap_or_default() };
            self.clamp(&mut told);
            each(told).map(|()| true)
        };
        let options = Pack { name: b"", xattr: is_exported, holes: false, entry: &mut tell };
        archive::pack(&mut TarWriter::new(io::sink()), self.top()?, options)?;
        Ok(())
    }

    /// A file that was told, to be read. Blocks shortly.
    pub fn read(&self, path: &[u8]) -> io::Result<File> {
        let file = open(self.tree.tree.root(), path, OFlags::RDONLY | OFlags::NOFOLLOW)?;
        Ok(File::from(file))
    }

    /// Writes them as an archive. Blocks; one that is not whole has no end.
    pub fn pack(&self, out: impl Write) -> Result<(), OutputError> {
        let mut tar = TarWriter::new(BufWriter::with_capacity(PIECE_BYTES, out));
        let mut entry = |_: &Seen<'_>, entry: &mut Entry, _: &mut Vec<Entry>| {
            self.clamp(entry);
            Ok(true)
        };
        archive::pack(&mut tar, self.top()?, Pack { name: b"", xattr: is_exported, holes: false, entry: &mut entry })?;
        let mut out = tar.finish().map_err(PackError::Write)?;
        out.flush().map_err(PackError::Write)?;
        Ok(())
    }

    fn top(&self) -> Result<std::os::fd::OwnedFd, OutputError> {
        open(self.tree.tree.root(), "", OFlags::PATH | OFlags::DIRECTORY).map_err(OutputError::Open)
    }

    fn clamp(&self, entry: &mut Entry) {
        if let Some(secs) = self.time {
            entry.mtime = Time { secs, nanos: 0 };
        }
    }
}

/// Does something with the files of an image on a thread that may wait for whoever takes them.
pub async fn with_files<T: Send + 'static>(
    engine: &Engine,
    image: &str,
    time: Option<i64>,
    work: impl FnOnce(&ImageFiles) -> Result<T, OutputError> + Send + 'static,
) -> Result<T, OutputError> {
    let (engine, image) = (engine.clone(), image.to_owned());
    bridge::waiting(move || work(&ImageFiles::open(&engine, &image, time)?)).await
}

/// Writes the files of an image as an archive to `out`, on a thread that may block; answers when it begins.
pub async fn archive(
    engine: &Engine,
    image: &str,
    time: Option<i64>,
    out: impl Finish + Send + 'static,
) -> Result<(), OutputError> {
    let (engine, image) = (engine.clone(), image.to_owned());
    let (opened, told) = oneshot::channel();
    tokio::spawn(bridge::waiting(move || {
        let files = match ImageFiles::open(&engine, &image, time) {
            Ok(files) => files,
            Err(err) => {
                // Who asked has gone.
                let _ = opened.send(Err(err));
                return;
            }
        };
        // The head is sent then: the end of the connection is all that can be told.
        let mut out = out;
        if opened.send(Ok(())).is_ok()
            && let Err(err) = files.pack(&mut out).and_then(|()| Ok(out.finish().map_err(PackError::Write)?))
        {
            debug!(err = errdefs::chain(&err), "the files of an image are not sent");
        }
    }));
    told.await.unwrap_or(Err(OutputError::Ending))
}

/// How an image is given away in an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaidOut {
    /// The names that it has there.
    pub names: Vec<String>,
    /// Whether any Docker can load it.
    pub docker: bool,
    /// Whether its layers are plain tars.
    pub uncompressed: bool,
    /// Annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of its manifest where the index names it.
    pub entry_annotations: BTreeMap<String, String>,
}

/// What a registry would know an image by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestOf {
    /// The manifest's digest.
    pub digest: String,
    /// Its descriptor, in JSON.
    pub descriptor: String,
}

/// Writes an image as a layout of OCI in an archive, on a thread that may wait for whoever takes it.
pub async fn lay_out(
    engine: &Engine,
    image: &str,
    wanted: LaidOut,
    mut out: impl Write + Send + 'static,
) -> Result<ManifestOf, OutputError> {
    let (engine, image) = (engine.clone(), image.to_owned());
    let LaidOut { names, docker, uncompressed, annotations, entry_annotations } = wanted;
    let names = names.iter().map(|name| Ok(name.parse::<Reference>()?.with_default_tag()));
    let names = names.collect::<Result<Vec<_>, OutputError>>()?;
    let options = image::LayoutOptions { names, docker, uncompressed, annotations, entry_annotations };
    bridge::waiting(move || {
        let id = engine.images.resolve(&image)?.id.clone();
        let layout = image::layout(&engine.images, &id, &options)?;
        layout.write(&mut out)?;
        let descriptor = serde_json::to_string(&layout.manifest).expect("texts and numbers are always JSON");
        Ok(ManifestOf { digest: layout.manifest.digest.to_string(), descriptor })
    })
    .await
}
