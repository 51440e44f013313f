//! An image as a layout of OCI in an archive, as builders give it away: compressed layers, a manifest with annotations, an index.
//!
//! ```text
//! plan      each layer is compressed once to know its digest and length, unless that is known already
//! write     index.json, documents, and the layers, which are compressed again while they are written
//! ```
//! What [`crate::save`] writes is the image as it is here; this is the image as a registry would have it.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use content::{Blob, ReadError};
use layer::{Compressor, Gzip, Kind, TarWriter, Time};
use oci::image::{Descriptor, Index, Manifest, media_type};
use oci::{Digest, Reference};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::load::plan::blob_path;
use crate::{Held, LayerTarError, PushImageError, Store, hold, push_image, remember_compressed};

/// Headers and documents are collected until there are so many bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// How an image is laid out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayoutOptions {
    /// The names that its manifest gets in the index.
    pub names: Vec<Reference>,
    /// Whether `load` of a Docker without containerd's store must read it: `manifest.json`, and Docker's media types.
    pub docker: bool,
    /// Whether layers are plain tars.
    pub uncompressed: bool,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of the manifest's entry in the index.
    pub entry_annotations: BTreeMap<String, String>,
}

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
    /// A layer is not the same twice.
    #[error("layer {0} is not what it was")]
    Changed(Digest),
    /// Whoever takes the archive takes no more.
    #[error("write the archive")]
    Write(#[source] io::Error),
}

/// A layout to be written.
pub struct Layout<'a> {
    held: Held<'a>,
    /// The manifest, as the index names it without annotations.
    pub manifest: Descriptor,
    files: BTreeMap<String, File>,
}

enum File {
    Document(Vec<u8>),
    Layer { index: usize, blob: Blob, compressor: Option<Compressor> },
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
pub fn layout<'a>(store: &'a Store, id: &Digest, options: &LayoutOptions) -> Result<Layout<'a>, LayoutError> {
    let held = hold(store, id).ok_or_else(|| LayoutError::Gone(id.clone()))?;
    let config = held.config()?;
    let known = push_image(store, id)?;
    let mut files = BTreeMap::new();
    let mut layers = Vec::new();
    for (index, known) in known.layers.iter().enumerate() {
        let compressor = (!options.uncompressed).then_some(known.compressor);
        let blob = match (compressor, &known.compressed) {
            (Some(_), Some(blob)) => blob.clone(),
            (None, _) => Blob { digest: known.diff_id.clone(), size: held.layer_tar_bytes(index)? },
            (Some(compressor), None) => {
                let blob = measured(&held, index, compressor)?;
                remember_compressed(store, id, index, &blob, compressor)?;
                blob
            }
        };
        layers.push(descriptor(layer_type(options), blob.digest.clone(), blob.size));
        files.insert(blob_path(&blob.digest), File::Layer { index, blob, compressor });
    }
    let kinds = match options.docker {
        true => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
        false => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
    };
    let manifest = json(&Manifest {
        schema_version: 2,
        media_type: kinds.0.to_owned(),
        config: descriptor(kinds.1, id.clone(), config.len() as u64),
        layers: layers.clone(),
        annotations: options.annotations.clone(),
    });
    let bare = descriptor(kinds.0, digest_of(&manifest), manifest.len() as u64);
    let created = held.record().created().map(str::to_owned);
    let index = Index {
        schema_version: 2,
        media_type: media_type::OCI_INDEX.to_owned(),
        manifests: entries(&bare, options, created),
        annotations: BTreeMap::new(),
    };
    let mut document = |path: String, bytes: Vec<u8>| drop(files.insert(path, File::Document(bytes)));
    document(blob_path(id), config);
    document(blob_path(&bare.digest), manifest);
    document("index.json".to_owned(), json(&index));
    document("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    if options.docker {
        document("manifest.json".to_owned(), json(&[item(id, &layers, &options.names)]));
    }
    Ok(Layout { held, manifest: bare, files })
}

fn layer_type(options: &LayoutOptions) -> &'static str {
    match (options.docker, options.uncompressed) {
        (true, true) => media_type::DOCKER_LAYER,
        (true, false) => media_type::DOCKER_LAYER_GZIP,
        (false, true) => media_type::OCI_LAYER,
        (false, false) => media_type::OCI_LAYER_GZIP,
    }
}

fn item(id: &Digest, layers: &[Descriptor], names: &[Reference]) -> Item {
    let tags: Vec<String> = names.iter().map(Reference::familiar).collect();
    Item {
        config: blob_path(id),
        repo_tags: Some(tags).filter(|tags| !tags.is_empty()),
        layers: layers.iter().map(|layer| blob_path(&layer.digest)).collect(),
    }
}

/// The manifest in the layout's index: once for each name, or once without.
fn entries(bare: &Descriptor, options: &LayoutOptions, created: Option<String>) -> Vec<Descriptor> {
    let mut all = options.entry_annotations.clone();
    if let Some(created) = created {
        all.insert("org.opencontainers.image.created".to_owned(), created);
    }
    let named = |name: &Reference| {
        let mut annotations = all.clone();
        annotations.insert("io.containerd.image.name".to_owned(), name.to_string());
        annotations.insert("org.opencontainers.image.ref.name".to_owned(), name.tag().unwrap_or_default().to_owned());
        Descriptor { annotations, ..bare.clone() }
    };
    match &options.names[..] {
        [] => vec![Descriptor { annotations: all.clone(), ..bare.clone() }],
        names => names.iter().map(named).collect(),
    }
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest, size, annotations: BTreeMap::new(), platform: None }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("documents have string keys and no failing serializers")
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(&Sha256::digest(bytes).into())
}

/// What a compressor makes of a layer, which nobody keeps.
fn measured(held: &Held<'_>, index: usize, compressor: Compressor) -> Result<Blob, LayoutError> {
    let mut measured = Measured { hasher: Sha256::new(), bytes: 0, to: io::sink() };
    compress(held, index, compressor, &mut measured)?;
    Ok(measured.blob())
}

fn compress(held: &Held<'_>, index: usize, compressor: Compressor, to: impl Write) -> Result<(), LayoutError> {
    let mut gzip = Gzip::new(compressor, to).map_err(LayoutError::Compress)?;
    held.layer_tar(index, &mut gzip)?;
    gzip.finish().map_err(LayoutError::Compress)
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
                File::Layer { index, blob, compressor } => {
                    tar.begin(&entry(path, Kind::File, blob.size)).map_err(LayoutError::Write)?;
                    let data = Bounded { tar: &mut tar, left: blob.size };
                    let mut measured = Measured { hasher: Sha256::new(), bytes: 0, to: data };
                    match compressor {
                        Some(compressor) => compress(&self.held, *index, *compressor, &mut measured)?,
                        None => self.held.layer_tar(*index, &mut measured)?,
                    }
                    if measured.blob() != *blob {
                        return Err(LayoutError::Changed(blob.digest.clone()));
                    }
                }
            }
        }
        let mut out = tar.finish().map_err(LayoutError::Write)?;
        out.flush().map_err(LayoutError::Write)
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
