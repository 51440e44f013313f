//! `save`: images as an archive that is a docker-archive and an OCI layout at once.
//!
//! ```text
//! choose    names to images, which are held from then on
//! plan      every file of the archive with its length; all but the layers are in memory
//! write     the files in the order of their names; layers are made again while they are written
//! ```
//! A name that came through an index (`index`) is saved as that: the index, and of all images for which it is here the
//! documents and compressed layers as they came, so that whoever loads it has the digests of the registry. Other images are
//! saved as Docker's classic store does it, with layers in plain tars.
//!
//! The same images under the same names give the same bytes, and whatever is in the archive has one name, its digest.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufWriter, Write};
use std::time::UNIX_EPOCH;

use content::ReadError;
use errdefs::ErrorKind;
use layer::{Entry, Kind, TarWriter, Time};
use oci::image::{Descriptor, Manifest, media_type};
use oci::{Digest, Reference, ReferenceError};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::load::plan::blob_path;
use crate::record::State;
use crate::store::{Store, lookup_name};
use crate::{Held, LayerTarError, PushImageError, WantedPlatform, hold};

mod index;

use index::Indexed;

/// Headers and documents are collected until there are so many bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// Why images are not saved. The texts are dockerd's where it has one that names no directory of its own.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// A name is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// No image is called that.
    #[error("No such image: {0}")]
    NotFound(String),
    /// No image has that tag or digest.
    #[error("reference does not exist")]
    NoReference,
    /// It is for another platform.
    #[error("no suitable export target found for platform {0}")]
    Platform(String),
    /// It has no layers.
    #[error("empty export - not implemented")]
    Empty,
    /// A document cannot be read.
    #[error(transparent)]
    Document(#[from] ReadError),
    /// A layer cannot be had.
    #[error(transparent)]
    Layer(#[from] LayerTarError),
    /// A name's index cannot be read.
    #[error(transparent)]
    Index(#[from] PushImageError),
    /// A blob is not what was stored under its digest.
    #[error("blob {digest} is not what it was")]
    Changed {
        /// Which one.
        digest: Digest,
    },
    /// A blob cannot be read.
    #[error("read blob {digest}")]
    Read {
        /// Which one.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// Whoever takes the archive takes no more.
    #[error("write the archive")]
    Write(#[source] io::Error),
}

impl SaveError {
    /// What a caller can do about it. Names that are none are 500 in dockerd.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SaveError::NotFound(_) | SaveError::NoReference => ErrorKind::NotFound,
            _ => ErrorKind::Internal,
        }
    }
}

/// An archive to be written. What it holds stays until it is dropped.
pub struct Saving<'a> {
    store: &'a Store,
    images: Vec<Chosen<'a>>,
    indexed: Vec<Indexed<'a>>,
    files: BTreeMap<String, Content>,
    /// Of `blobs`: when the last of the images was made.
    directories: Option<Time>,
}

/// An image and the tags that it is saved under.
struct Chosen<'a> {
    held: Held<'a>,
    tags: Vec<Reference>,
}

/// What is in a file of the archive.
enum Content {
    Document { bytes: Vec<u8>, made: Time },
    Layer { image: usize, index: usize, bytes: u64, made: Time },
    Blob { digest: Digest, bytes: u64, made: Time },
}

/// Finds the images of these names and all that is to be known of them, so that only reading can fail later.
pub fn save<'a>(
    store: &'a Store,
    names: &[String],
    platform: Option<&WantedPlatform<'_>>,
) -> Result<Saving<'a>, SaveError> {
    let mut wanted: Vec<(Digest, Vec<Reference>)> = Vec::new();
    let mut indexes = index::Wanted::default();
    for name in names {
        for (id, found) in store.read(|state| find(state, name))? {
            if platform.is_none() && found.as_ref().is_some_and(|name| indexes.add(store, name)) {
                continue;
            }
            let id = store.read(|state| for_platform(state, id, found.as_ref(), platform));
            let tag = found.filter(|found| found.tag().is_some());
            let position = wanted.iter().position(|(other, _)| *other == id).unwrap_or_else(|| {
                wanted.push((id, Vec::new()));
                wanted.len() - 1
            });
            let tags = &mut wanted[position].1;
            tags.extend(tag.filter(|tag| !tags.contains(tag)));
        }
    }
    let mut images = Vec::new();
    for (id, tags) in wanted {
        let held = hold(store, &id).ok_or_else(|| SaveError::NotFound(id.to_string()))?;
        if let Some(platform) = platform.filter(|one| !(one.is_wanted)(&held.record().config.platform)) {
            return Err(SaveError::Platform(platform.text.clone()));
        }
        images.push(Chosen { held, tags });
    }
    plan(store, images, indexes.hold(store)?)
}

/// Of the images that a name stands for the one of the wanted platform, if it is here.
fn for_platform(state: &State, id: Digest, name: Option<&Reference>, platform: Option<&WantedPlatform<'_>>) -> Digest {
    let (Some(name), Some(platform)) = (name, platform) else { return id };
    let found = state.group(name).into_iter().find(|image| (platform.is_wanted)(&image.config.platform));
    found.map_or(id, |image| image.id.clone())
}

/// What a name means: a tag or a digest of an image, all of a repository, or an image alone.
fn find(state: &State, name: &str) -> Result<Vec<(Digest, Option<Reference>)>, SaveError> {
    let absent = || SaveError::NotFound(name.to_owned());
    let by_prefix = |hex: &str| match &state.by_prefix(hex)[..] {
        [only] => Ok(vec![(only.id.clone(), None)]),
        _ => Err(absent()),
    };
    let whole = if name.len() == 64 { format!("sha256:{name}") } else { name.to_owned() };
    if let Ok(id) = whole.parse::<Digest>() {
        return match state.images.contains_key(&id) {
            true => Ok(vec![(id, None)]),
            false => Err(SaveError::NotFound(whole)),
        };
    }
    let reference: Reference = name.parse()?;
    if reference.familiar_name() == "sha256" {
        return by_prefix(name.strip_prefix("sha256:").unwrap_or(name));
    }
    if reference.tag().is_some() || reference.digest().is_some() {
        let (found, id) = state.references.get(&lookup_name(&reference)).ok_or(SaveError::NoReference)?;
        return Ok(vec![(id.clone(), Some(found.clone()))]);
    }
    let repository = reference.familiar_name();
    let of_repository = state.references.values().filter(|(other, _)| other.familiar_name() == repository);
    let all: Vec<_> = of_repository.map(|(other, id)| (id.clone(), Some(other.clone()))).collect();
    if all.is_empty() { by_prefix(name) } else { Ok(all) }
}

/// A layer as `manifest.json` describes it: a descriptor in the order of docker/distribution's fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LayerSource {
    media_type: &'static str,
    size: u64,
    digest: Digest,
}

/// An image in `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer_sources: Option<BTreeMap<String, LayerSource>>,
}

/// A layout's index, which is `null` without images.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LayoutIndex {
    schema_version: u32,
    media_type: &'static str,
    manifests: Option<Vec<Descriptor>>,
}

fn plan<'a>(store: &'a Store, images: Vec<Chosen<'a>>, indexed: Vec<Indexed<'a>>) -> Result<Saving<'a>, SaveError> {
    let (mut files, mut items, mut manifests) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let parents: HashMap<&Digest, usize> =
        images.iter().enumerate().map(|(index, image)| (&image.held.record().id, index)).collect();
    let mut directories = None;
    for (index, image) in images.iter().enumerate() {
        let record = image.held.record();
        let made = time_of(record.created());
        let (config, layers) = (image.held.config()?, describe(index, image, made, &mut files)?);
        let Some(top) = layers.last() else { return Err(SaveError::Empty) };
        for tag in &image.tags {
            let tags = repositories.entry(tag.familiar_name()).or_default();
            tags.insert(tag.tag().unwrap_or_default().to_owned(), top.digest.hex().to_owned());
        }
        let parent = record.parent.clone().filter(|parent| parents.contains_key(parent) && *parent != record.id);
        items.push(item(image, &layers, parent));
        let manifest = manifest(record.id.clone(), config.len() as u64, layers);
        let bare = descriptor(media_type::OCI_MANIFEST, digest_of(&manifest), manifest.len() as u64);
        manifests.extend(entries(&bare, &image.tags));
        files.insert(blob_path(&record.id), Content::Document { bytes: config, made });
        document(&mut files, blob_path(&digest_of(&manifest)), manifest);
        directories = Some(made);
    }
    for one in &indexed {
        let (item, made) = one.plan(store, &mut files)?;
        items.push(item);
        manifests.extend(entries(&one.came.descriptor, &one.tags));
        directories = Some(made);
    }
    if !repositories.is_empty() {
        document(&mut files, "repositories".to_owned(), line(&repositories));
    }
    document(&mut files, "manifest.json".to_owned(), line(&(!items.is_empty()).then_some(items)));
    document(&mut files, "oci-layout".to_owned(), br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec());
    let manifests = (!manifests.is_empty()).then_some(manifests);
    let index = LayoutIndex { schema_version: 2, media_type: media_type::OCI_INDEX, manifests };
    document(&mut files, "index.json".to_owned(), json(&index));
    Ok(Saving { store, images, indexed, files, directories })
}

/// Descriptors of the layers of an image, which become files unless an image before has them.
fn describe(
    image: usize,
    chosen: &Chosen<'_>,
    made: Time,
    files: &mut BTreeMap<String, Content>,
) -> Result<Vec<Descriptor>, SaveError> {
    let mut layers = Vec::new();
    for (index, diff_id) in chosen.held.diff_ids().enumerate() {
        let path = blob_path(diff_id);
        let bytes = match files.get(&path) {
            Some(Content::Layer { bytes, .. }) => *bytes,
            _ => chosen.held.layer_tar_bytes(index)?,
        };
        files.entry(path).or_insert(Content::Layer { image, index, bytes, made });
        layers.push(descriptor(media_type::OCI_LAYER, diff_id.clone(), bytes));
    }
    Ok(layers)
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest, size, annotations: BTreeMap::new(), platform: None }
}

fn item(image: &Chosen<'_>, layers: &[Descriptor], parent: Option<Digest>) -> Item {
    let source = |layer: &Descriptor| {
        let source = LayerSource { media_type: media_type::OCI_LAYER, size: layer.size, digest: layer.digest.clone() };
        (layer.digest.to_string(), source)
    };
    Item {
        config: blob_path(&image.held.record().id),
        repo_tags: Some(image.tags.iter().map(Reference::familiar).collect()).filter(|tags: &Vec<_>| !tags.is_empty()),
        layers: layers.iter().map(|layer| blob_path(&layer.digest)).collect(),
        parent,
        layer_sources: Some(layers.iter().map(source).collect()),
    }
}

fn manifest(id: Digest, config_bytes: u64, layers: Vec<Descriptor>) -> Vec<u8> {
    json(&Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: descriptor(media_type::OCI_CONFIG, id, config_bytes),
        layers,
        annotations: BTreeMap::new(),
    })
}

/// A manifest or an index in the layout's own: once for each tag, or once without a name.
fn entries(bare: &Descriptor, tags: &[Reference]) -> Vec<Descriptor> {
    let named = |tag: &Reference| {
        let annotations = [
            ("io.containerd.image.name", tag.to_string()),
            ("org.opencontainers.image.ref.name", tag.tag().unwrap_or_default().to_owned()),
        ];
        let annotations = annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Descriptor { annotations, ..bare.clone() }
    };
    match tags {
        [] => vec![bare.clone()],
        tags => tags.iter().map(named).collect(),
    }
}

fn document(files: &mut BTreeMap<String, Content>, path: String, bytes: Vec<u8>) {
    files.insert(path, Content::Document { bytes, made: Time::default() });
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("documents have string keys and no failing serializers")
}

/// As Go's encoder writes it.
fn line(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = json(value);
    bytes.push(b'\n');
    bytes
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(&Sha256::digest(bytes).into())
}

/// Whole seconds; before 1970 is 1970, as dockerd sets the times of files.
fn time_of(created: Option<&str>) -> Time {
    let parsed = created.and_then(stdx::time::Rfc3339::parse);
    let since = parsed.and_then(|time| time.0.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Time { secs: i64::try_from(since.as_secs()).unwrap_or_default(), nanos: 0 }
}

impl Saving<'_> {
    /// The images, in the order in which they were named.
    pub fn ids(&self) -> impl Iterator<Item = &Digest> {
        let indexed = self.indexed.iter().flat_map(|one| &one.images);
        self.images.iter().map(|image| &image.held).chain(indexed).map(|held| &held.record().id)
    }

    /// Writes the archive. Blocks; an error says that what was written is worth nothing.
    pub fn write(&self, to: &mut dyn Write) -> Result<(), SaveError> {
        let mut tar = TarWriter::new(BufWriter::with_capacity(BUFFER_BYTES, to));
        if let Some(made) = self.directories {
            for path in ["blobs/", "blobs/sha256/"] {
                tar.begin(&entry(path, Kind::Directory, 0, made)).map_err(SaveError::Write)?;
            }
        }
        for (path, content) in &self.files {
            match content {
                Content::Document { bytes, made } => {
                    let begun = tar.begin(&entry(path, Kind::File, bytes.len() as u64, *made));
                    begun.and_then(|()| tar.data(bytes)).map_err(SaveError::Write)?;
                }
                Content::Layer { image, index, bytes, made } => {
                    tar.begin(&entry(path, Kind::File, *bytes, *made)).map_err(SaveError::Write)?;
                    self.images[*image].held.layer_tar(*index, &mut Data(&mut tar))?;
                }
                Content::Blob { digest, bytes, made } => {
                    tar.begin(&entry(path, Kind::File, *bytes, *made)).map_err(SaveError::Write)?;
                    index::copy(self.store, digest, *bytes, &mut Data(&mut tar))?;
                }
            }
        }
        tar.finish().map(drop).map_err(SaveError::Write)
    }
}

fn entry(path: &str, kind: Kind, size: u64, mtime: Time) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        link: Vec::new(),
        mode: if kind == Kind::Directory { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime,
        size,
        device: (0, 0),
        xattrs: Vec::new(),
        segments: None,
    }
}

/// The data of the present entry.
struct Data<'a, W>(&'a mut TarWriter<W>);

impl<W: Write> Write for Data<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.data(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
