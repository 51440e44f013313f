//! Gives every layer its place, then records the images.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use content::{Expected, Ingest, Sync};
use layer::Applied;
use oci::image::{Descriptor, Manifest};
use oci::{Digest, Reference};
use snapshot::{ChainId, Stage};

use super::plan::{Documents, PlannedImage, PlannedLayer};
use super::spool::{LayerBlob, Spool, Spooled};
use super::{LoadError, LoadEvent, Loaded};
use crate::attestation::Attestation;
use crate::metadata::{Change, Unsettled};
use crate::pins::Pins;
use crate::record::{State, StoredImage, StoredLayer, stored};
use crate::remove::difference;
use crate::settle::{Lasting, settled};
use crate::store::{Store, image_record};
use crate::unpacked::Unpacked;

/// All that a load adds, on disk but not visible.
pub(crate) struct Assembly<'a> {
    images: Vec<PlannedImage>,
    layers: HashMap<ChainId, StoredLayer>,
    /// New layers, each above those that it inherited from.
    staged: Vec<(ChainId, Stage)>,
    blobs: Vec<Ingest>,
    _pins: Pins<'a>,
}

/// Layers by place, while they are being placed.
struct Placing<'a> {
    store: &'a Store,
    documents: Documents,
    by_path: HashMap<Vec<u8>, usize>,
    pins: Pins<'a>,
    slots: Vec<Slot>,
    layers: HashMap<ChainId, StoredLayer>,
    staged: Vec<(ChainId, Stage)>,
    recipes: Vec<Ingest>,
}

/// A layer of the archive, and where it went.
enum Slot {
    Failed(LoadError),
    Taken,
    /// At a place in the store, or at the first place that this load gave it.
    Placed {
        chain_id: ChainId,
        layer: StoredLayer,
        bytes: u64,
    },
    Unpacked(Box<Unpacked>),
}

/// Makes directories of layers for all images; `events` hears of every new one.
pub(crate) fn assemble<'a>(
    store: &'a Store,
    spool: Spool<'a>,
    mut images: Vec<PlannedImage>,
    events: &mut dyn FnMut(LoadEvent),
) -> Result<Assembly<'a>, LoadError> {
    let (mut slots, mut compressed) = (Vec::new(), Compressed::default());
    for spooled in spool.spooled {
        slots.push(match spooled {
            Spooled::Unpacked { unpacked, blob } => {
                let applied = &unpacked.applied;
                if !matches!(blob, LayerBlob::None) {
                    compressed.of.insert(applied.digest.clone(), applied.diff_id.clone());
                }
                if let LayerBlob::New(ingest) = blob {
                    compressed.ingests.insert(applied.digest.clone(), *ingest);
                }
                Slot::Unpacked(unpacked)
            }
            Spooled::Failed(err) => Slot::Failed(err),
            Spooled::Known { chain_id, layer, bytes } => {
                compressed.of.extend(layer.blob.clone().map(|blob| (blob, layer.diff_id.clone())));
                Slot::Placed { chain_id, layer, bytes }
            }
        });
    }
    let Spool { documents, layers: by_path, pins, blobs: beside, .. } = Spool { spooled: Vec::new(), ..spool };
    let (layers, staged, recipes) = (HashMap::new(), Vec::new(), Vec::new());
    let mut placing = Placing { store, documents, by_path, pins, slots, layers, staged, recipes };
    for image in &images {
        placing.image(image, events)?;
    }
    let Placing { documents, pins, mut layers, staged, recipes: mut blobs, .. } = placing;
    let mut beside = Beside { store, documents, ingests: beside, placed: HashSet::new(), pins };
    for image in &mut images {
        compressed.keep(image, &mut layers, &mut blobs);
        blobs.push(document(store, &image.config)?);
        if let Some((_, manifest)) = &image.manifest {
            blobs.push(document(store, manifest)?);
            // Without the manifest nobody reads it.
            if let Some((_, index)) = &image.index {
                blobs.push(document(store, index)?);
                beside.keep(image, &mut blobs)?;
            }
        }
    }
    Ok(Assembly { images, layers, staged, blobs, _pins: beside.pins })
}

fn document(store: &Store, bytes: &[u8]) -> Result<Ingest, LoadError> {
    let mut ingest = store.content.begin()?;
    ingest.write(bytes)?;
    ingest.rest();
    Ok(ingest)
}

/// What indexes name about images.
struct Beside<'a> {
    store: &'a Store,
    documents: Documents,
    ingests: HashMap<Digest, Ingest>,
    /// Blobs that are among those to be committed.
    placed: HashSet<Digest>,
    pins: Pins<'a>,
}

impl Beside<'_> {
    /// Keeps each of an image's with all that it names, or not at all.
    fn keep(&mut self, image: &mut PlannedImage, blobs: &mut Vec<Ingest>) -> Result<(), LoadError> {
        let all = std::mem::take(&mut image.attestations);
        for one in all {
            // Held first: what is here now stays then.
            one.blobs.iter().for_each(|blob| self.pins.hold_blob(&blob.digest));
            if one.blobs.iter().all(|blob| self.is_here(blob)) {
                for blob in &one.blobs {
                    blobs.extend(self.take(blob)?);
                }
                blobs.push(document(self.store, &one.manifest)?);
                image.attestations.push(one);
            }
        }
        Ok(())
    }

    fn is_here(&self, blob: &Descriptor) -> bool {
        let digest = &blob.digest;
        self.placed.contains(digest)
            || self.ingests.get(digest).is_some_and(|ingest| ingest.size() == blob.size)
            || self.documents.blob(blob).is_ok()
            || self.store.content.contains(digest)
    }

    fn take(&mut self, blob: &Descriptor) -> Result<Option<Ingest>, LoadError> {
        if !self.placed.insert(blob.digest.clone()) {
            return Ok(None);
        }
        match (self.ingests.remove(&blob.digest), self.documents.blob(blob)) {
            (Some(ingest), _) => Ok(Some(ingest)),
            (None, Ok(bytes)) => document(self.store, bytes).map(Some),
            (None, Err(_)) => Ok(None),
        }
    }
}

/// Compressed layers of the archive, and those that were there already and are pinned.
#[derive(Default)]
struct Compressed {
    /// What they are when inflated, which was computed or verified, by the digest of the compressed bytes.
    of: HashMap<Digest, Digest>,
    /// Those that are not in the store yet, or again.
    ingests: HashMap<Digest, Ingest>,
}

impl Compressed {
    /// Keeps a manifest with all its layers, or neither: the crate page says why. One that names a layer which is not
    /// the image's is not kept either. Which index it was stays: that says which images belong together.
    fn keep(&mut self, image: &mut PlannedImage, layers: &mut HashMap<ChainId, StoredLayer>, blobs: &mut Vec<Ingest>) {
        let Some((_, bytes)) = &image.manifest else { return };
        let manifest = serde_json::from_slice::<Manifest>(bytes);
        let digests: Vec<Digest> = manifest
            .map(|manifest| manifest.layers.into_iter().map(|layer| layer.digest).collect())
            .unwrap_or_default();
        let diff_ids = &image.parsed.rootfs.diff_ids;
        let chain = ChainId::chain(diff_ids);
        // A layer that is held is held with its blob, whether or not the archive has it, too.
        let held = |chain_id| layers.get(chain_id).and_then(|layer: &StoredLayer| layer.blob.as_ref());
        let is_here = |(index, digest): (usize, &Digest)| {
            self.of.get(digest) == Some(&diff_ids[index]) || held(&chain[index]) == Some(digest)
        };
        if digests.len() != chain.len() || !digests.iter().enumerate().all(is_here) {
            image.manifest = None;
            return;
        }
        for (digest, chain_id) in digests.iter().zip(&chain) {
            blobs.extend(self.ingests.remove(digest));
            if let Some(layer) = layers.get_mut(chain_id) {
                layer.blob = Some(digest.clone());
            }
        }
        image.layer_blobs = digests;
    }
}

impl Placing<'_> {
    fn image(&mut self, image: &PlannedImage, events: &mut dyn FnMut(LoadEvent)) -> Result<(), LoadError> {
        let diff_ids = &image.parsed.rootfs.diff_ids;
        let chain = ChainId::chain(diff_ids);
        for (index, (chain_id, diff_id)) in chain.iter().zip(diff_ids).enumerate() {
            if self.layers.contains_key(chain_id) {
                continue;
            }
            if let Some(layer) = self.pins.hold(chain_id) {
                self.layers.insert(chain_id.clone(), layer);
                continue;
            }
            let (stage, layer, bytes) = self.take(&image.layers[index], index, diff_id)?;
            let lowers: Vec<PathBuf> = chain[..index].iter().rev().map(|lower| self.directory(lower)).collect();
            layer::inherit(stage.path(), &layer.implied, &layer.whiteouts, &lowers)?;
            self.staged.push((chain_id.clone(), stage));
            let slot = self.slot(&image.layers[index])?;
            self.slots[slot] = Slot::Placed { chain_id: chain_id.clone(), layer: layer.clone(), bytes };
            self.layers.insert(chain_id.clone(), layer);
            events(LoadEvent::Layer { diff_id: diff_id.clone(), bytes });
        }
        Ok(())
    }

    fn directory(&self, chain_id: &ChainId) -> PathBuf {
        let staged = self.staged.iter().find(|(other, _)| other == chain_id);
        staged.map_or_else(|| self.store.snapshots.layer(chain_id), |(_, stage)| stage.path().to_owned())
    }

    fn slot(&self, planned: &PlannedLayer) -> Result<usize, LoadError> {
        let path = self.documents.follow(&planned.path);
        let name = || String::from_utf8_lossy(&planned.path).into_owned();
        match self.by_path.get(&path) {
            Some(index) => Ok(*index),
            // It is there, and neither a tar nor compressed.
            None if self.documents.files.contains_key(&path) => {
                Err(layer::TarError::Header { reason: "not a tar archive" }.into())
            }
            None => Err(LoadError::Missing { path: name() }),
        }
    }

    /// A directory with the layer, of its own: the unpacked one for its first place, copies of that for others.
    fn take(
        &mut self,
        planned: &PlannedLayer,
        index: usize,
        expected: &Digest,
    ) -> Result<(Stage, StoredLayer, u64), LoadError> {
        let slot = self.slot(planned)?;
        let check = |actual: &Digest| match actual == expected {
            true => Ok(()),
            false => Err(LoadError::DiffId { index, expected: expected.clone(), actual: actual.clone() }),
        };
        match std::mem::replace(&mut self.slots[slot], Slot::Taken) {
            Slot::Failed(err) => Err(err),
            Slot::Taken => unreachable!("a taken slot is settled before the next one is taken"),
            Slot::Placed { chain_id, layer, bytes } => {
                check(&layer.diff_id)?;
                let stage = self.store.snapshots.stage()?;
                layer::clone_tree(&self.directory(&chain_id), stage.path())?;
                Ok((stage, layer, bytes))
            }
            Slot::Unpacked(unpacked) => {
                check(&unpacked.applied.diff_id)?;
                verify(planned, &unpacked.applied)?;
                let layer = unpacked.stored();
                let Unpacked { applied, stage, recipe } = *unpacked;
                self.recipes.push(recipe);
                Ok((stage, layer, applied.size))
            }
        }
    }
}

/// A layer of an OCI layout is what its descriptor says.
fn verify(planned: &PlannedLayer, applied: &Applied) -> Result<(), LoadError> {
    let Some(descriptor) = &planned.descriptor else { return Ok(()) };
    match applied.digest == descriptor.digest && applied.size == descriptor.size {
        true => Ok(()),
        false => {
            let path = String::from_utf8_lossy(&planned.path).into_owned();
            Err(LoadError::Digest { path, expected: descriptor.digest.clone() })
        }
    }
}

impl Assembly<'_> {
    /// Makes it all visible, or nothing.
    pub(crate) fn record(
        self,
        store: &Store,
        lasting: Lasting,
        events: &mut dyn FnMut(LoadEvent),
    ) -> Result<Vec<Loaded>, LoadError> {
        // Without a boot to name nothing can be left for later.
        let later = if lasting == Lasting::Later { stdx::boot::id().ok() } else { None };
        // What is recorded builds on layers of which some may not be on disk: from now on all of them are.
        let older = if later.is_none() { store.unsettling.all() } else { BTreeSet::new() };
        if later.is_none() {
            store.snapshots.sync().map_err(|source| LoadError::Sync { source })?;
        }
        let mut metadata = store.writer();
        let recorded = self.place(store, later.is_none()).and_then(|(mut change, next, loaded)| {
            let new = later.as_ref().map(|_| store.read(|before| added(before, &next))).unwrap_or_default();
            change.unsettled = settled(&older);
            change.unsettled.extend(new.iter().map(|what| (what.clone(), later.clone())));
            metadata.commit(&change).map_err(|source| LoadError::Record { source })?;
            store.unsettling.forget(&older);
            store.unsettling.add(new);
            Ok((next, loaded))
        });
        let (next, loaded) = match recorded {
            Ok(recorded) => recorded,
            Err(err) => {
                drop(metadata);
                // Layers and blobs that got their names already; the error above is the one that matters.
                if let Err(err) = store.collect() {
                    tracing::debug!("a failed load stays behind: {}", errdefs::chain(&err));
                }
                return Err(err);
            }
        };
        let before = store.read(Clone::clone);
        store.replace(next);
        // An image that was there already may have got another manifest.
        store.drop_blobs(&before);
        drop(metadata);
        tell(store, &before, &loaded, events);
        Ok(loaded)
    }

    /// Renames everything to where it belongs, and has the names survive a power cut if they are `synced`. The caller holds the
    /// database.
    fn place(self, store: &Store, synced: bool) -> Result<(Change, State, Vec<Loaded>), LoadError> {
        for (chain_id, stage) in self.staged {
            store.snapshots.commit(stage, &chain_id)?;
        }
        for blob in self.blobs {
            blob.commit(&Expected::default(), Sync::Later)?;
        }
        if synced {
            let synced = store.snapshots.sync_names().and_then(|()| store.content.sync_names());
            synced.map_err(|source| LoadError::Sync { source })?;
        }
        let before = store.read(Clone::clone);
        let mut next = before.clone();
        next.layers.extend(self.layers.clone());
        let now = stdx::time::Rfc3339::now().to_string();
        let mut loaded = Vec::new();
        for image in self.images {
            let old = next.images.get(&image.id).map(|record| stored(record)).unwrap_or_default();
            let attested = attested(&image, old.attested);
            let (manifest, layer_blobs) = match image.manifest {
                Some((descriptor, _)) => (Some(descriptor), image.layer_blobs),
                None => (old.manifest, old.layer_blobs),
            };
            let came = image.index.map(|(descriptor, _)| descriptor);
            let (index, parent) = (came.clone().or(old.index), image.parent.or(old.parent));
            let stored = StoredImage { manifest, layer_blobs, index, attested, parent, ..old };
            let record = image_record(&image.id, &image.config, stored, &next.layers);
            let mut record = record.expect("the plan parsed this configuration, and its layers were placed");
            record.references = next.images.get(&image.id).map(|old| old.references.clone()).unwrap_or_default();
            next.images.insert(image.id.clone(), record.into());
            for reference in &image.references {
                next.join(reference, &image.id, came.as_ref(), Some(&now));
            }
            loaded.push(Loaded { id: image.id, references: image.references });
        }
        let layers = self.layers.into_iter().map(|(chain_id, layer)| (chain_id, Some(layer))).collect();
        let change = Change { layers, ..difference(&before, &next) };
        Ok((change, next, loaded))
    }
}

/// What there was not before.
fn added(before: &State, next: &State) -> Vec<Unsettled> {
    let images = next.images.keys().filter(|id| !before.images.contains_key(id)).cloned().map(Unsettled::Image);
    let layers = next.layers.keys().filter(|chain| !before.layers.contains_key(chain)).cloned().map(Unsettled::Layer);
    images.chain(layers).collect()
}

/// Tells of every name once, though images for several platforms may have it.
fn tell(store: &Store, before: &State, loaded: &[Loaded], events: &mut dyn FnMut(LoadEvent)) {
    let mut told: HashSet<&Reference> = HashSet::new();
    for image in loaded {
        let references: Vec<&Reference> = image.references.iter().filter(|name| told.insert(name)).collect();
        for reference in &references {
            match before.references.get(&reference.to_string()) {
                // Beside it, the old one keeps the name for its platform.
                Some((_, old)) if *old != image.id && !has_name(store, old, reference) => {
                    events(LoadEvent::Renamed { reference: (*reference).clone(), old: old.clone() });
                }
                _ => {}
            }
        }
        if image.references.is_empty() || !references.is_empty() {
            let references = references.into_iter().cloned().collect();
            events(LoadEvent::Loaded(Loaded { references, id: image.id.clone() }));
        }
    }
}

/// What is kept about an image from now on.
fn attested(image: &PlannedImage, mut all: Vec<Attestation>) -> Vec<Attestation> {
    let Some((index, _)) = &image.index else { return all };
    for one in &image.attestations {
        let (manifest, index) = (one.descriptor.clone(), index.digest.clone());
        all.retain(|old| old.index != index || old.manifest.digest != manifest.digest);
        all.push(Attestation { index, manifest, blobs: one.blobs.iter().map(|blob| blob.digest.clone()).collect() });
    }
    all
}

fn has_name(store: &Store, id: &Digest, reference: &Reference) -> bool {
    store.get(id).is_some_and(|image| image.platform_of.contains(reference) || image.references.contains(reference))
}
