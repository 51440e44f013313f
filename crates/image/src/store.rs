//! Opening, looking up, naming.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use content::Content;
use errdefs::ErrorKind;
use oci::image::ImageConfig;
use oci::{Digest, Reference, ReferenceError};
use snapshot::{ChainId, Driver, Snapshots};

use crate::attestation::Attestation;
use crate::cut::CutLayers;
use crate::metadata::{Change, Metadata, Rows};
use crate::pins::Pinned;
use crate::platforms::{meant_by, named};
use crate::record::{ImageRecord, State, StoredImage, StoredLayer, stored};
use crate::remove::difference;
use crate::settle::{self, SettleError, Unsettling};

/// The longest configuration, manifest or index that is read. Registries and containerd refuse longer ones, too.
pub(crate) const DOCUMENT_MAX: u64 = 4 * 1024 * 1024;

/// The longest configuration that is read of an image that is recorded: what was once accepted stays.
pub(crate) const RECORDED_MAX: u64 = 64 * 1024 * 1024;

/// All images of one daemon. One process owns a root.
#[derive(Debug)]
pub struct Store {
    pub(crate) content: Content,
    pub(crate) snapshots: Snapshots,
    pub(crate) metadata: Mutex<Metadata>,
    pub(crate) state: RwLock<State>,
    pub(crate) unsettling: Unsettling,
    /// What loads count on.
    pub(crate) pins: Mutex<Pinned>,
    /// How long blobs are, as far as somebody asked.
    pub(crate) lengths: Mutex<Arc<HashMap<Digest, u64>>>,
    /// What cut pulls have unpacked.
    pub(crate) cut: Mutex<CutLayers>,
    root: PathBuf,
    torn: Vec<String>,
}

/// Why [`Store::open`] failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The blobs.
    #[error("open the content store")]
    Content {
        /// Why.
        source: content::OpenError,
    },
    /// The snapshots.
    #[error("open the snapshots")]
    Snapshots {
        /// Why.
        source: snapshot::OpenError,
    },
    /// The database is another process's, or cannot even be created anew.
    #[error("open the database {}", path.display())]
    Database {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: redb::Error,
    },
    /// What no record names cannot be set aside.
    #[error("collect what no image needs")]
    Collect {
        /// Why.
        source: SweepError,
    },
}

impl OpenError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            OpenError::Database { source: redb::Error::DatabaseAlreadyOpen, .. } => ErrorKind::Conflict,
            _ => ErrorKind::Internal,
        }
    }
}

/// Why a name means no image. The texts are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Not a name at all.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// No image is called that, or more than one id begins so.
    #[error("No such image: {name}")]
    NotFound {
        /// The name, with its tag.
        name: String,
    },
}

impl ResolveError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ResolveError::Reference(_) => ErrorKind::InvalidArgument,
            ResolveError::NotFound { .. } => ErrorKind::NotFound,
        }
    }
}

/// Why an image did not get a name. The texts are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// There is no such image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A digest is not a name to give.
    #[error("cannot import digest reference")]
    Digest,
    /// `sha256:x` would read as an id.
    #[error("refusing to create an ambiguous tag using digest algorithm as name")]
    Ambiguous,
    /// The disk does not take the image.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// The database does not take it.
    #[error("record the tag")]
    Record {
        /// Why.
        source: redb::Error,
    },
}

impl TagError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            TagError::Resolve(err) => err.kind(),
            TagError::Digest | TagError::Ambiguous => ErrorKind::InvalidArgument,
            TagError::Settle(_) | TagError::Record { .. } => ErrorKind::Internal,
        }
    }
}

/// What could not be collected; it is tried again at the next start.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Blobs cannot be listed.
    #[error("list blobs")]
    List {
        /// Why.
        source: content::ReadError,
    },
    /// A blob cannot be removed.
    #[error("remove a blob")]
    Blob {
        /// Why.
        source: content::RemoveError,
    },
    /// A layer snapshot cannot be set aside.
    #[error("set aside layers")]
    Layers {
        /// Why.
        source: snapshot::SnapshotError,
    },
    /// The trash cannot be emptied.
    #[error("empty the trash")]
    Trash {
        /// Why.
        source: snapshot::SweepError,
    },
}

impl SweepError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

impl Store {
    /// Opens or creates the store below `root`, on overlay2. See [`open_on`].
    pub fn open(root: &Path) -> Result<Store, OpenError> {
        open_on(root, Driver::Overlay2)
    }

    /// Records that could not be read when the store opened, for the log. Usually none.
    pub fn torn(&self) -> &[String] {
        &self.torn
    }

    /// Where the store lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The snapshots of layers and containers.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// The blobs.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The image that a user means: a name, a digest, an id or its beginning. No I/O.
    pub fn resolve(&self, name: &str) -> Result<Arc<ImageRecord>, ResolveError> {
        self.read(|state| resolve(state, name))
    }

    /// The image of that id. No I/O.
    pub fn get(&self, id: &Digest) -> Option<Arc<ImageRecord>> {
        self.read(|state| state.images.get(id).cloned())
    }

    /// All images, by id. No I/O.
    pub fn list(&self) -> Vec<Arc<ImageRecord>> {
        self.read(|state| state.images.values().cloned().collect())
    }

    /// Gives the image that `source` means the name `target` (`latest` if it has no tag), taking it from another one.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<Arc<ImageRecord>, TagError> {
        if target.digest().is_some() {
            return Err(TagError::Digest);
        }
        if target.familiar_name() == "sha256" {
            return Err(TagError::Ambiguous);
        }
        // Whoever gives an image a name wants it to stay.
        settle::settle(self)?;
        let mut metadata = self.writer();
        let target = target.clone().with_default_tag();
        let now = stdx::time::Rfc3339::now().to_string();
        let before = self.read(Clone::clone);
        let mut next = before.clone();
        let images = meant_by(&next, source)?;
        if named(&next, source).as_ref() == Some(&target) {
            next.point(&target, images.first().map(|image| &image.id), Some(&now));
        } else {
            next.point(&target, None, None);
            let source = named(&next, source);
            let index = |image: &ImageRecord| image.index_of(source.as_ref()?).cloned();
            next.gather(&target, &images, index, Some(&now));
        }
        let record = resolve(&next, &target.to_string())?;
        let change = difference(&before, &next);
        // A build that found everything gives the name again. The time of it is not worth a wait for the disk.
        let committed = match changes_times_alone(&before, &change) {
            true => metadata.commit_at_leisure(&change),
            false => metadata.commit(&change),
        };
        committed.map_err(|source| TagError::Record { source })?;
        self.replace(next);
        Ok(record)
    }

    /// Removes what was set aside: layers and containers that are gone. Takes its time; holds no lock.
    pub fn sweep(&self) -> Result<usize, SweepError> {
        sweep_between(self, &|| {})
    }

    /// Sets aside what nothing needs: layers no longer held by a container that is gone, blobs without an image.
    ///
    /// For the background, after the removal of a container whose image was removed before it.
    pub fn collect(&self) -> Result<(), SweepError> {
        let _metadata = self.writer();
        self.collect_layers()?;
        let mut needed = self.read(needed_blobs);
        needed.extend(self.pinned(|pinned| pinned.blobs.keys().cloned().collect::<Vec<_>>()));
        // Blobs of a load that has not recorded its image are unfinished ingests and not listed, because committing
        // them happens under the lock that we hold.
        let blobs = self.content.list().map_err(|source| SweepError::List { source })?;
        for digest in blobs.iter().filter(|digest| !needed.contains(digest)) {
            self.content.remove(digest).map_err(|source| SweepError::Blob { source })?;
        }
        Ok(())
    }

    /// The caller holds `metadata`.
    pub(crate) fn collect_layers(&self) -> Result<(), SweepError> {
        let mut keep: Vec<ChainId> = self.read(|state| state.layers.keys().cloned().collect());
        keep.extend(self.pinned(|pinned| pinned.layers.keys().cloned().collect::<Vec<_>>()));
        self.snapshots.retain_layers(keep).map(drop).map_err(|source| SweepError::Layers { source })
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, Metadata> {
        // Whoever panicked with it had not replaced the state: it is as good as before.
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The caller holds `metadata`.
    pub(crate) fn replace(&self, next: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

/// Opens or creates the store below `root`, which is this driver's, and sets aside what a dead process left. Blocks,
/// briefly.
///
/// Call [`Store::sweep`] afterwards, in the background.
pub fn open_on(root: &Path, driver: Driver) -> Result<Store, OpenError> {
    let content = Content::open(&root.join("content")).map_err(|source| OpenError::Content { source })?;
    let snapshots = Snapshots::open(&root.join("snapshots"), driver);
    let snapshots = snapshots.map_err(|source| OpenError::Snapshots { source })?;
    let path = root.join("images.redb");
    let opened = Metadata::open(&path).and_then(|(mut metadata, aside)| {
        let mut rows = metadata.read()?;
        settle::forget_other_boots(&mut rows, &mut metadata)?;
        Ok((rows, metadata, aside))
    });
    let (rows, metadata, aside) = opened.map_err(|source| OpenError::Database { path, source })?;
    let unsettling = Unsettling::of(&rows);
    let mut torn = rows.torn.clone();
    let state = build_state(rows, &content, &mut torn);
    let store = Store {
        content,
        snapshots,
        metadata: Mutex::new(metadata),
        state: RwLock::new(state),
        unsettling,
        pins: Mutex::default(),
        lengths: Mutex::default(),
        cut: Mutex::default(),
        root: root.to_owned(),
        torn,
    };
    match aside {
        Some(aside) => Ok(Store { torn: vec![aside.display().to_string()], ..store }),
        None => {
            store.collect().map_err(|source| OpenError::Collect { source })?;
            Ok(store)
        }
    }
}

/// What [`Store::sweep`] does; before each directory it asks `pause`, which takes as long as other work is to go first.
pub fn sweep_between(store: &Store, pause: &dyn Fn()) -> Result<usize, SweepError> {
    snapshot::sweep_between(&store.snapshots, pause).map_err(|source| SweepError::Trash { source })
}

/// Whether all that a change changes is when images that there were got the names that they had.
fn changes_times_alone(before: &State, change: &Change) -> bool {
    let Change { images, references, layers, unsettled } = change;
    let untimed = |image: StoredImage| StoredImage { last_tagged: None, ..image };
    references.is_empty()
        && layers.is_empty()
        && unsettled.is_empty()
        && images.iter().all(|(id, after)| {
            let before = before.images.get(id).map(|record| untimed(stored(record)));
            before.is_some() && before == after.clone().map(untimed)
        })
}

pub(crate) fn needed_blobs(state: &State) -> HashSet<Digest> {
    let mut needed: HashSet<Digest> = state.images.keys().cloned().collect();
    needed.extend(state.images.values().filter_map(|record| Some(record.manifest.as_ref()?.digest.clone())));
    let indexes = state.images.values().flat_map(|record| record.index.iter().chain(record.came_by.values()));
    needed.extend(indexes.map(|index| index.digest.clone()));
    needed.extend(state.images.values().flat_map(|record| record.layer_blobs.iter().cloned()));
    let attestations = state.images.values().flat_map(|record| record.attestations());
    needed.extend(attestations.flat_map(Attestation::contents).cloned());
    needed.extend(state.layers.values().flat_map(|layer| layer.blobs().cloned()));
    needed
}

/// Docker's order: a whole id or digest, a name, the beginning of an id (moby daemon/images/image.go, `getImage`).
pub(crate) fn resolve(state: &State, name: &str) -> Result<Arc<ImageRecord>, ResolveError> {
    let as_id = match name.len() {
        64 => format!("sha256:{name}").parse::<Digest>(),
        _ => name.parse::<Digest>(),
    };
    if let Ok(id) = as_id {
        return state.images.get(&id).cloned().ok_or(ResolveError::NotFound { name: id.to_string() });
    }
    let reference: Reference = name.parse()?;
    let reference = reference.with_default_tag();
    if let Some((_, id)) = state.references.get(&lookup_name(&reference)) {
        return state.images.get(id).cloned().ok_or(ResolveError::NotFound { name: reference.familiar() });
    }
    match &state.by_prefix(name.strip_prefix("sha256:").unwrap_or(name))[..] {
        [only] => Ok(Arc::clone(only)),
        _ => Err(ResolveError::NotFound { name: reference.familiar() }),
    }
}

/// With a digest the tag says nothing (moby daemon/internal/refstore, `favorDigest`).
pub(crate) fn lookup_name(reference: &Reference) -> String {
    let name = reference.to_string();
    match (reference.tag(), reference.digest()) {
        (Some(tag), Some(digest)) => name.replace(&format!(":{tag}@{digest}"), &format!("@{digest}")),
        _ => name,
    }
}

/// Makes the state of the rows; an image whose configuration or layers are missing is as good as absent.
fn build_state(rows: Rows, content: &Content, torn: &mut Vec<String>) -> State {
    let mut state = State { layers: rows.layers, ..State::default() };
    for (id, stored) in rows.images {
        let config = content.read(&id, RECORDED_MAX).ok();
        let record = config.and_then(|bytes| image_record(&id, &bytes, stored, &state.layers));
        match record {
            Some(record) => drop(state.images.insert(id, Arc::new(record))),
            None => torn.push(format!("image {id}")),
        }
    }
    let needed: HashSet<&ChainId> = state.images.values().flat_map(|record| &record.chain).collect();
    let unneeded: Vec<ChainId> = state.layers.keys().filter(|chain| !needed.contains(chain)).cloned().collect();
    for chain_id in unneeded {
        state.layers.remove(&chain_id);
    }
    for (reference, id) in rows.references {
        if state.images.contains_key(&id) {
            let beside = state.siblings(&reference);
            state.point(&reference, Some(&id), None);
            state.keep_beside(&reference, &id, &beside);
        }
    }
    state.forget_lost_names();
    state
}

pub(crate) fn image_record(
    id: &Digest,
    config: &[u8],
    stored: StoredImage,
    layers: &HashMap<ChainId, StoredLayer>,
) -> Option<ImageRecord> {
    let parsed: ImageConfig = serde_json::from_slice(config).ok()?;
    let chain = ChainId::chain(&parsed.rootfs.diff_ids);
    // Clients read it as a signed number, and a sparse file of a hostile layer is as long as it likes.
    let size_bytes = chain.iter().try_fold(0, |sum: u64, chain_id| {
        Some(sum.saturating_add(layers.get(chain_id)?.size_bytes).min(i64::MAX as u64))
    })?;
    Some(ImageRecord {
        id: id.clone(),
        config: Arc::new(parsed),
        config_bytes: config.len() as u64,
        chain,
        size_bytes,
        references: Vec::new(),
        manifest: stored.manifest,
        layer_blobs: stored.layer_blobs,
        index: stored.index,
        came_by: stored.came_by,
        attested: stored.attested,
        platform_of: stored.platform_of.iter().filter_map(|name| name.parse().ok()).collect(),
        parent: stored.parent,
        last_tagged: stored.last_tagged,
    })
}
