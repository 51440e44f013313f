//! What a build came to as files and archives: what is sent to whoever builds, beside the image or instead of it.
//!
//! All of it blocks, and is written while it is read: of an image nothing is in memory but what its author wrote of it.
//! A held tree keeps its layers, however the image ends meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};

use archive::{Entry, Kind, Pack, PackError, Seen, TarWriter, Time};
use bridge::Abandoned;
pub use builder::attest::{self, Predicate};
use errdefs::ErrorKind;
pub use image::LayerForm;
use image::{LayoutImage, LayoutOptions, Statement};
use oci::{Reference, ReferenceError};
use rustix::fs::OFlags;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tracing::debug;

use super::tree::{hash_file, hex, open};
use super::work::{ImageTree, WorkError, tree_of};
use crate::Engine;
use crate::clock::now_seconds;
use crate::ops::archive::Finish;
use crate::ops::export::is_exported;

/// How much of an archive is handed on at once. Nothing but speed depends on it: less makes more system calls, more only takes memory.
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
    /// Two things that are said would be in one file.
    #[error("duplicate attestation path name {0}")]
    SameFile(String),
    /// An id is none.
    #[error("{0} is no image")]
    Id(String),
    /// Something is written of a platform that is not built for.
    #[error("invalid annotation: no platform {0} found in source")]
    Platform(String),
    /// Something is written of an index that is not there.
    #[error("index annotations not supported for single platform export")]
    NoIndex,
    /// Docker's archives have no index.
    #[error("docker exporter does not currently support exporting manifest lists")]
    DockerIndex,
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
    /// Whether nobody waits for them any more.
    abandoned: Abandoned,
}

impl ImageFiles {
    /// Opens those of an image, to be read as long as somebody waits for them. Blocks.
    pub fn open(
        engine: &Engine,
        image: &str,
        time: Option<i64>,
        abandoned: &Abandoned,
    ) -> Result<ImageFiles, OutputError> {
        let image = engine.images.resolve(image)?;
        Ok(ImageFiles { tree: tree_of(engine, &image)?, time, abandoned: abandoned.clone() })
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
        let options = Pack { name: b"", xattr: is_exported, holes: false, still: false, entry: &mut tell };
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
        self.pack_into(&mut tar, "")?;
        finish(tar)
    }

    /// Writes them below a directory, or without one where that is empty.
    fn pack_into(&self, tar: &mut TarWriter<impl Write>, top: &str) -> Result<(), OutputError> {
        let mut entry = |_: &Seen<'_>, entry: &mut Entry, _: &mut Vec<Entry>| {
            self.clamp(entry);
            Ok(true)
        };
        let name = top.as_bytes();
        archive::pack(
            tar,
            self.top()?,
            Pack { name, xattr: is_exported, holes: false, still: false, entry: &mut entry },
        )?;
        Ok(())
    }

    /// What is said beside an image, about its files: files of their own, by name. Reads all of the image. Blocks.
    ///
    /// Where the files of several platforms are together, `platform` is in their names.
    pub fn said(&self, predicates: &[Predicate], platform: Option<&str>) -> Result<Vec<OwnFile>, OutputError> {
        if predicates.is_empty() {
            return Ok(Vec::new());
        }
        let (mut paths, mut subjects) = (Vec::new(), Vec::new());
        self.list(&mut |entry| {
            if matches!(entry.kind, Kind::File | Kind::HardLink) {
                paths.push(entry.path);
            }
            Ok(())
        })?;
        for path in paths {
            let shown = String::from_utf8_lossy(&path).into_owned();
            let sum = self.sum(&path).map_err(|source| PackError::Read { path: shown.clone(), source })?;
            subjects.push((shown, sum));
        }
        let mut files: Vec<OwnFile> = Vec::new();
        for predicate in predicates {
            let base = predicate.filename.rsplit('/').next().unwrap_or_default();
            let name = match (platform, base.rsplit_once('.')) {
                (None, _) => base.to_owned(),
                (Some(platform), Some((stem, kind))) => format!("{stem}.{}.{kind}", platform.replace('/', "_")),
                (Some(platform), None) => format!("{base}.{}", platform.replace('/', "_")),
            };
            if files.iter().any(|file| file.name == name) {
                return Err(OutputError::SameFile(name));
            }
            files.push(OwnFile { name, bytes: predicate.statement(&subjects) });
        }
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(files)
    }

    /// The sum of a file's bytes, in hexadecimal.
    fn sum(&self, path: &[u8]) -> io::Result<String> {
        let mut hash = Sha256::new();
        // A command may have made it as long as it liked.
        hash_file(&mut hash, self.read(path)?, PIECE_BYTES, &self.abandoned)?;
        Ok(hex(hash))
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

/// A file that an output has beside those of the image, at its top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFile {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// The mode of such a file, as BuildKit has it.
pub const OWN_FILE_MODE: u32 = 0o600;

/// An image whose files go into an archive.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The image, and what is said beside it.
    pub built: Built,
    /// The directory that its files are below; none where that is empty.
    pub top: String,
    /// Whether its platform is in the names of what is said.
    pub by_platform: bool,
}

/// Writes the files of images as one archive. Blocks; one that is not whole has no end.
pub async fn pack_all(
    engine: &Engine,
    images: Vec<Packed>,
    time: Option<i64>,
    out: impl Write + Send + 'static,
) -> Result<(), OutputError> {
    let engine = engine.clone();
    bridge::waiting_abandonable(move |abandoned| {
        let mut tar = TarWriter::new(BufWriter::with_capacity(PIECE_BYTES, out));
        for Packed { built, top, by_platform } in images {
            let files = ImageFiles::open(&engine, &built.image, time, abandoned)?;
            files.pack_into(&mut tar, &top)?;
            for file in files.said(&built.predicates, by_platform.then_some(&built.platform))? {
                let path = if top.is_empty() { file.name } else { format!("{top}/{}", file.name) };
                let secs = time.unwrap_or_else(now_seconds);
                let entry = Entry {
                    path: path.into_bytes(),
                    kind: Kind::File,
                    link: Vec::new(),
                    mode: OWN_FILE_MODE,
                    uid: 0,
                    gid: 0,
                    mtime: Time { secs, nanos: 0 },
                    size: file.bytes.len() as u64,
                    device: (0, 0),
                    xattrs: Vec::new(),
                    segments: None,
                };
                tar.begin(&entry).and_then(|()| tar.data(&file.bytes)).map_err(PackError::Write)?;
            }
        }
        finish(tar)
    })
    .await
}

fn finish(tar: TarWriter<impl Write>) -> Result<(), OutputError> {
    let mut out = tar.finish().map_err(PackError::Write)?;
    out.flush().map_err(PackError::Write)?;
    Ok(())
}

/// Does something with the files of an image on a thread that may wait for whoever takes them.
pub async fn with_files<T: Send + 'static>(
    engine: &Engine,
    image: &str,
    time: Option<i64>,
    work: impl FnOnce(&ImageFiles) -> Result<T, OutputError> + Send + 'static,
) -> Result<T, OutputError> {
    let (engine, image) = (engine.clone(), image.to_owned());
    let work = move |abandoned: &_| work(&ImageFiles::open(&engine, &image, time, abandoned)?);
    bridge::waiting_abandonable(work).await
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
        let files = match ImageFiles::open(&engine, &image, time, &Abandoned::default()) {
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

/// What a build came to for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The image.
    pub image: String,
    /// What it is for: `linux/amd64`.
    pub platform: String,
    /// What is said beside it.
    pub predicates: Vec<Predicate>,
}

/// How images are given away, in an archive or to a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaidOut {
    /// The names that they have there.
    pub names: Vec<String>,
    /// Whether any Docker can load it.
    pub docker: bool,
    /// The form of layers that have none yet.
    pub form: LayerForm,
    /// Whether layers get it that came in another one.
    pub force: bool,
    /// How hard layers are compressed for it: 0 to 9 for gzip, 0 to 19 for zstd; nothing for what is usual.
    pub level: Option<i32>,
    /// Whether there is an index even of one image of which nothing is said.
    pub indexed: bool,
    /// What is written of it.
    pub annotations: Annotations,
}

/// What is written of images and of their index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// Of manifests: for which platform, or for all where that is empty; by what name, and what.
    pub manifest: Vec<[String; 3]>,
    /// Of manifests' entries in the index, likewise.
    pub manifest_descriptor: Vec<[String; 3]>,
    /// Of the index.
    pub index: BTreeMap<String, String>,
    /// Of its entry in a layout's own index.
    pub index_descriptor: BTreeMap<String, String>,
}

impl Annotations {
    /// A platform that is named and not built for.
    fn unknown(&self, images: &[Built]) -> Option<&str> {
        let named = self.manifest.iter().chain(&self.manifest_descriptor).map(|[platform, ..]| platform.as_str());
        named
            .into_iter()
            .find(|platform| !platform.is_empty() && !images.iter().any(|built| built.platform == *platform))
    }

    fn of(all: &[[String; 3]], platform: &str) -> BTreeMap<String, String> {
        let fits = |[own, ..]: &&[String; 3]| own.is_empty() || own == platform;
        // What is said of the platform alone counts more.
        let mut fitting: Vec<_> = all.iter().filter(fits).collect();
        fitting.sort_by_key(|[own, ..]| !own.is_empty());
        fitting.into_iter().map(|[_, name, value]| (name.clone(), value.clone())).collect()
    }
}

impl LaidOut {
    /// Whether it is more than an image alone, as a registry knows it. Refuses what does not fit together, in BuildKit's words.
    pub fn is_index(&self, images: &[Built]) -> Result<bool, OutputError> {
        let is_index = self.indexed || images.len() > 1 || images.iter().any(|built| !built.predicates.is_empty());
        if let Some(platform) = self.annotations.unknown(images) {
            return Err(OutputError::Platform(platform.to_owned()));
        }
        if !is_index && (!self.annotations.index.is_empty() || !self.annotations.index_descriptor.is_empty()) {
            return Err(OutputError::NoIndex);
        }
        if is_index && self.docker {
            return Err(OutputError::DockerIndex);
        }
        Ok(is_index)
    }

    /// The images, as they are laid out.
    pub(crate) fn images(&self, images: &[Built]) -> Result<Vec<LayoutImage>, OutputError> {
        let one = |built: &Built| {
            Ok(LayoutImage {
                id: built.image.parse().map_err(|_| OutputError::Id(built.image.clone()))?,
                annotations: Annotations::of(&self.annotations.manifest, &built.platform),
                entry_annotations: Annotations::of(&self.annotations.manifest_descriptor, &built.platform),
            })
        };
        images.iter().map(one).collect()
    }

    /// How a crate below is told.
    pub(crate) fn options(&self) -> Result<LayoutOptions, OutputError> {
        let names = self.names.iter().map(|name| Ok(name.parse::<Reference>()?.with_default_tag()));
        Ok(LayoutOptions {
            names: names.collect::<Result<Vec<_>, OutputError>>()?,
            docker: self.docker,
            form: self.form,
            force: self.force,
            level: self.level,
            indexed: self.indexed,
            annotations: self.annotations.index.clone(),
            entry_annotations: self.annotations.index_descriptor.clone(),
        })
    }
}

/// What is said beside an image whose manifest this is, which has these names.
pub(crate) fn statements(built: &Built, names: &[Reference], manifest: &oci::image::Descriptor) -> Vec<Statement> {
    let subject = |name: &Reference| {
        let tag = name.tag().unwrap_or_default();
        let url = attest::package_url("docker", &name.familiar_name(), tag, "", &built.platform);
        (url, manifest.digest.hex().to_owned())
    };
    let subjects: Vec<_> = names.iter().map(subject).collect();
    let said =
        |predicate: &Predicate| Statement { kind: predicate.kind.clone(), bytes: predicate.statement(&subjects) };
    built.predicates.iter().map(said).collect()
}

/// What a registry would know an outcome by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestOf {
    /// The digest of the manifest, or of the index.
    pub digest: String,
    /// Its descriptor, in JSON.
    pub descriptor: String,
}

impl ManifestOf {
    pub(crate) fn new(top: &oci::image::Descriptor) -> ManifestOf {
        let descriptor = serde_json::to_string(top).expect("texts and numbers are always JSON");
        ManifestOf { digest: top.digest.to_string(), descriptor }
    }
}

/// Writes images as a layout of OCI in an archive, on a thread that may wait for whoever takes it.
pub async fn lay_out(
    engine: &Engine,
    images: &[Built],
    wanted: &LaidOut,
    mut out: impl Write + Send + 'static,
) -> Result<ManifestOf, OutputError> {
    wanted.is_index(images)?;
    let (engine, options, laid) = (engine.clone(), wanted.options()?, wanted.images(images)?);
    let images = images.to_vec();
    bridge::waiting(move || {
        let say = |place: usize, manifest: &_| statements(&images[place], &options.names, manifest);
        let layout = image::layout(&engine.images, &laid, &options, &say)?;
        layout.write(&mut out)?;
        Ok(ManifestOf::new(&layout.top))
    })
    .await
}
