//! Images as a layout of OCI in an archive, as builders give them away: compressed layers, manifests with annotations, what is
//! said beside them, an index.
//!
//! ```text
//! plan      each layer is compressed once to know its digest and length, unless it is kept so, or that is known already
//! write     index.json, documents, and the layers, which are compressed again while they are written
//! ```
//! What [`crate::save`] writes is the image as it is here; this is the image as a registry would have it.

use std::collections::BTreeMap;
use std::fs::File as KeptFile;
use std::io::{self, BufWriter, Read, Seek, Write};

use content::{Blob, ReadError};
use layer::{COMPRESSOR, Compression, Compressor, Gzip, Kind, TarWriter, Time};
use oci::image::{Descriptor, Index, media_type};
use oci::{Digest, Reference};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::load::plan::blob_path;
use crate::outcome::{Statement, attestation, descriptor, image_manifest, json, named_entries, outcome_index};
use crate::push::{KeptBlob, PushLayer};
use crate::{Held, LayerTarError, PushImageError, Store, hold, push_image, remember_compressed};

/// Headers and documents are collected until there are so many bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// Docker's type of layers as zstd (containerd core/images, mediatypes.go).
const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// zstd's own level where nothing is said.
const ZSTD_LEVEL: i32 = 3;

/// In which form layers go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayerForm {
    /// gzip.
    #[default]
    Gzip,
    /// Plain tars.
    Plain,
    /// zstd.
    Zstd,
}

/// How images are laid out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayoutOptions {
    /// The names that they get in the index.
    pub names: Vec<Reference>,
    /// Whether `load` of a Docker without containerd's store must read it: `manifest.json`, and Docker's media types.
    pub docker: bool,
    /// The form of layers that have none yet.
    pub form: LayerForm,
    /// Whether layers get it that came in another one.
    pub force: bool,
    /// How much is done for it, as gzip or zstd count that; none for the usual.
    pub level: Option<i32>,
    /// Whether there is an index even of one image of which nothing is said.
    pub indexed: bool,
    /// Annotations of that index.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of its entry in the layout's own index.
    pub entry_annotations: BTreeMap<String, String>,
}

/// An image that is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutImage {
    /// Its id.
    pub id: Digest,
    /// Annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of the manifest's entry in the index.
    pub entry_annotations: BTreeMap<String, String>,
}

/// What is said of an image, by its place among those that are laid out and its manifest.
pub type Say<'a> = dyn Fn(usize, &Descriptor) -> Vec<Statement> + 'a;

/// Why there is no layout.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The image is gone.
    #[error("No such image: {0}")]
    Gone(Digest),
    /// A document cannot be read.
    #[error(transparent)]
    Document(#[from] ReadError),
    /// What is known of its layers cannot be read, or not be remembered.
    #[error(transparent)]
    Image(#[from] PushImageError),
    /// A layer cannot be had.
    #[error(transparent)]
    Layer(#[from] LayerTarError),
    /// A layer cannot be compressed.
    #[error("compress a layer")]
    Compress(#[source] io::Error),
    /// A layer that is kept cannot be read.
    #[error("read a layer")]
    Kept(#[source] io::Error),
    /// A layer is not the same twice.
    #[error("layer {0} is not what it was")]
    Changed(Digest),
    /// Whoever takes the archive takes no more.
    #[error("write the archive")]
    Write(#[source] io::Error),
}

/// A layout to be written.
pub struct Layout<'a> {
    held: Vec<Held<'a>>,
    /// The manifest or the index that is everything.
    pub top: Descriptor,
    /// The images' manifests, in order.
    pub manifests: Vec<Descriptor>,
    /// The images' layers, lowest first.
    layers: Vec<Vec<Descriptor>>,
    files: BTreeMap<String, File>,
}

enum File {
    Document(Vec<u8>),
    Layer(LaidLayer),
}

/// A layer of one of the images.
struct LaidLayer {
    image: usize,
    index: usize,
    blob: Blob,
    how: How,
}

/// How the bytes of a layer come.
enum How {
    Plain,
    Gzip(Compressor),
    Zstd(i32),
    Kept(KeptFile),
}

/// `manifest.json`
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Finds out all but the bytes of layers. Blocks, as long as compressing them takes.
pub fn layout<'a>(
    store: &'a Store,
    images: &[LayoutImage],
    options: &LayoutOptions,
    say: &Say<'_>,
) -> Result<Layout<'a>, LayoutError> {
    let mut layout = Layout::default();
    let (mut entries, mut said, mut items) = (Vec::new(), Vec::new(), Vec::new());
    let mut created = None;
    for (place, image) in images.iter().enumerate() {
        let held = hold(store, &image.id).ok_or_else(|| LayoutError::Gone(image.id.clone()))?;
        let (config, platform) = (held.config()?, held.record().config.platform.clone());
        created = held.record().created().map(str::to_owned);
        let layers = layout.layers(store, held, options)?;
        items.push(item(&image.id, &layers, &options.names));
        let named = (&image.id, config.len() as u64);
        let (bare, bytes) = image_manifest(named, layers, image.annotations.clone(), options.docker);
        layout.document(&image.id, config);
        layout.document(&bare.digest, bytes);
        let statements = say(place, &bare);
        if !statements.is_empty() {
            let mut documents = attestation(&bare, statements);
            said.extend(documents.last().map(|(named, _)| named.clone()));
            documents.drain(..).for_each(|(named, bytes)| layout.document(&named.digest, bytes));
        }
        let annotations = image.entry_annotations.clone();
        entries.push(Descriptor { annotations, platform: Some(platform), ..bare.clone() });
        layout.manifests.push(bare);
    }
    let mut more = options.entry_annotations.clone();
    layout.top = match &entries[..] {
        [only] if said.is_empty() && !options.indexed => {
            more.extend(only.annotations.clone());
            Descriptor { annotations: BTreeMap::new(), platform: None, ..only.clone() }
        }
        _ => {
            let (top, bytes) = outcome_index([entries, said].concat(), options.annotations.clone());
            layout.document(&top.digest, bytes);
            top
        }
    };
    more.extend(created.map(|created| ("org.opencontainers.image.created".to_owned(), created)));
    let index = Index {
        schema_version: 2,
        media_type: media_type::OCI_INDEX.to_owned(),
        manifests: named_entries(&layout.top, &options.names, &more),
        annotations: BTreeMap::new(),
    };
    layout.files.insert("index.json".to_owned(), File::Document(json(&index)));
    layout.files.insert("oci-layout".to_owned(), File::Document(br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    if options.docker {
        layout.files.insert("manifest.json".to_owned(), File::Document(json(&items)));
    }
    Ok(layout)
}

impl Default for Layout<'_> {
    fn default() -> Self {
        // What everything is, is known last.
        let top = descriptor("", Digest::from_sha256(&[0; 32]), 0);
        Layout { held: Vec::new(), top, manifests: Vec::new(), layers: Vec::new(), files: BTreeMap::new() }
    }
}

impl<'a> Layout<'a> {
    /// The layers of an image, by its place, lowest first.
    pub fn layers_of(&self, image: usize) -> &[Descriptor] {
        self.layers.get(image).map(Vec::as_slice).unwrap_or_default()
    }

    /// Writes one of the layers. Blocks.
    pub fn write_layer(&self, layer: &Descriptor, to: &mut dyn Write) -> Result<(), LayoutError> {
        match self.files.get(&blob_path(&layer.digest)) {
            Some(File::Layer(layer)) => self.write_one(layer, to),
            _ => Err(LayoutError::Gone(layer.digest.clone())),
        }
    }

    fn document(&mut self, digest: &Digest, bytes: Vec<u8>) {
        self.files.insert(blob_path(digest), File::Document(bytes));
    }

    /// The layers of the next image.
    fn layers(
        &mut self,
        store: &Store,
        held: Held<'a>,
        options: &LayoutOptions,
    ) -> Result<Vec<Descriptor>, LayoutError> {
        let (id, image) = (held.record().id.clone(), self.held.len());
        let mut layers = Vec::new();
        for (index, known) in push_image(store, &id)?.layers.into_iter().enumerate() {
            let (blob, how) = laid(store, (&held, index), known, options)?;
            let kind = layer_type(options.docker, &how)?;
            layers.push(descriptor(kind, blob.digest.clone(), blob.size));
            self.files.insert(blob_path(&blob.digest), File::Layer(LaidLayer { image, index, blob, how }));
        }
        self.held.push(held);
        self.layers.push(layers.clone());
        Ok(layers)
    }
}

/// What a layer is in the form that is wanted.
fn laid(
    store: &Store,
    (held, index): (&Held<'_>, usize),
    known: PushLayer,
    options: &LayoutOptions,
) -> Result<(Blob, How), LayoutError> {
    let is_kept = |kept: &KeptBlob| match kept.compression {
        Compression::Gzip => !options.force || options.form == LayerForm::Gzip && options.level.is_none(),
        Compression::Zstd => !options.force || options.form == LayerForm::Zstd && options.level.is_none(),
        Compression::Plain => !options.force || options.form == LayerForm::Plain,
        Compression::Bzip2 | Compression::Xz => false,
    };
    if let Some(kept) = known.kept.filter(is_kept) {
        return Ok((kept.blob, How::Kept(kept.file)));
    }
    let how = match (options.form, options.level) {
        (LayerForm::Plain, _) => How::Plain,
        (LayerForm::Zstd, level) => How::Zstd(level.unwrap_or(ZSTD_LEVEL)),
        (LayerForm::Gzip, None) => How::Gzip(known.compressor),
        (LayerForm::Gzip, Some(level)) => How::Gzip(Compressor { level: level.unsigned_abs(), ..COMPRESSOR }),
    };
    let blob = match (&how, &known.compressed) {
        (How::Plain, _) => Blob { digest: known.diff_id, size: held.layer_tar_bytes(index)? },
        (How::Gzip(_), Some(blob)) if options.level.is_none() => blob.clone(),
        (how, _) => {
            let mut measured = Measured { hasher: Sha256::new(), bytes: 0, to: io::sink() };
            write_layer(held, index, how, &mut measured)?;
            let blob = measured.blob();
            if let (How::Gzip(compressor), None) = (how, options.level) {
                remember_compressed(store, &held.record().id, index, &blob, *compressor)?;
            }
            blob
        }
    };
    Ok((blob, how))
}

fn layer_type(docker: bool, how: &How) -> Result<&'static str, LayoutError> {
    let form = match how {
        How::Plain => LayerForm::Plain,
        How::Gzip(_) => LayerForm::Gzip,
        How::Zstd(_) => LayerForm::Zstd,
        How::Kept(file) => {
            let mut start = Vec::new();
            let mut from = file;
            let read = from.take(4).read_to_end(&mut start).and_then(|_| from.rewind());
            read.map_err(LayoutError::Kept)?;
            match Compression::detect(&start) {
                Compression::Gzip => LayerForm::Gzip,
                Compression::Zstd => LayerForm::Zstd,
                _ => LayerForm::Plain,
            }
        }
    };
    Ok(match (docker, form) {
        (true, LayerForm::Plain) => media_type::DOCKER_LAYER,
        (true, LayerForm::Gzip) => media_type::DOCKER_LAYER_GZIP,
        (true, LayerForm::Zstd) => DOCKER_LAYER_ZSTD,
        (false, LayerForm::Plain) => media_type::OCI_LAYER,
        (false, LayerForm::Gzip) => media_type::OCI_LAYER_GZIP,
        (false, LayerForm::Zstd) => media_type::OCI_LAYER_ZSTD,
    })
}

fn item(id: &Digest, layers: &[Descriptor], names: &[Reference]) -> Item {
    let tags: Vec<String> = names.iter().map(Reference::familiar).collect();
    Item {
        config: blob_path(id),
        repo_tags: Some(tags).filter(|tags| !tags.is_empty()),
        layers: layers.iter().map(|layer| blob_path(&layer.digest)).collect(),
    }
}

/// The bytes of a layer, as they are laid out.
fn write_layer(held: &Held<'_>, index: usize, how: &How, to: &mut dyn Write) -> Result<(), LayoutError> {
    match how {
        How::Plain => Ok(held.layer_tar(index, to)?),
        How::Gzip(compressor) => {
            let mut gzip = Gzip::new(*compressor, to).map_err(LayoutError::Compress)?;
            held.layer_tar(index, &mut gzip)?;
            gzip.finish().map_err(LayoutError::Compress)
        }
        How::Zstd(level) => {
            let mut zstd = zstd::Encoder::new(to, *level).map_err(LayoutError::Compress)?;
            held.layer_tar(index, &mut zstd)?;
            zstd.finish().map(drop).map_err(LayoutError::Compress)
        }
        How::Kept(file) => {
            let mut from = file;
            from.rewind().map_err(LayoutError::Kept)?;
            io::copy(&mut from, to).map(drop).map_err(LayoutError::Kept)
        }
    }
}

/// What goes through it is counted.
struct Measured<W> {
    hasher: Sha256,
    bytes: u64,
    to: W,
}

impl<W> Measured<W> {
    fn blob(self) -> Blob {
        Blob { digest: Digest::from_sha256(&self.hasher.finalize().into()), size: self.bytes }
    }
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Layout<'_> {
    /// Writes the archive. Blocks; an error says that what was written is worth nothing.
    pub fn write(&self, to: &mut dyn Write) -> Result<(), LayoutError> {
        let mut tar = TarWriter::new(BufWriter::with_capacity(BUFFER_BYTES, to));
        for path in ["blobs/", "blobs/sha256/"] {
            tar.begin(&entry(path, Kind::Directory, 0)).map_err(LayoutError::Write)?;
        }
        for (path, file) in &self.files {
            match file {
                File::Document(bytes) => {
                    let begun = tar.begin(&entry(path, Kind::File, bytes.len() as u64));
                    begun.and_then(|()| tar.data(bytes)).map_err(LayoutError::Write)?;
                }
                File::Layer(layer) => {
                    tar.begin(&entry(path, Kind::File, layer.blob.size)).map_err(LayoutError::Write)?;
                    self.write_one(layer, Bounded { tar: &mut tar, left: layer.blob.size })?;
                }
            }
        }
        let mut out = tar.finish().map_err(LayoutError::Write)?;
        out.flush().map_err(LayoutError::Write)
    }

    fn write_one(&self, layer: &LaidLayer, to: impl Write) -> Result<(), LayoutError> {
        let mut measured = Measured { hasher: Sha256::new(), bytes: 0, to };
        write_layer(&self.held[layer.image], layer.index, &layer.how, &mut measured)?;
        match measured.blob() == layer.blob {
            true => Ok(()),
            false => Err(LayoutError::Changed(layer.blob.digest.clone())),
        }
    }
}

/// The data of the present entry, and no more than that has.
struct Bounded<'a, W> {
    tar: &'a mut TarWriter<W>,
    left: u64,
}

impl<W: Write> Write for Bounded<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.tar.data(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn entry(path: &str, kind: Kind, size: u64) -> layer::Entry {
    layer::Entry {
        path: path.as_bytes().to_vec(),
        kind,
        link: Vec::new(),
        mode: if kind == Kind::Directory { 0o755 } else { 0o444 },
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        size,
        device: (0, 0),
        xattrs: Vec::new(),
        segments: None,
    }
}
