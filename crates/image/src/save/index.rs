//! Names that came through an index, saved as they came.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use layer::Time;
use oci::{Digest, Reference};
use sha2::{Digest as _, Sha256};

use super::{Content, Item, SaveError, document, time_of};
use crate::attestation::Attestation;
use crate::load::plan::blob_path;
use crate::push::{CameBy, came_by};
use crate::record::ImageRecord;
use crate::store::{DOCUMENT_MAX, Store};
use crate::{Held, hold};

/// How much of a blob is copied at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Indexes to be saved, each once: by digest, in the order in which they were named.
#[derive(Default)]
pub(super) struct Wanted(Vec<(CameBy, Vec<Digest>, Vec<Reference>)>);

/// An index, the images of it that are here, and the tags that it is saved under.
pub(super) struct Indexed<'a> {
    pub(super) came: CameBy,
    /// First the one that the names mean.
    pub(super) images: Vec<Held<'a>>,
    pub(super) tags: Vec<Reference>,
}

impl Wanted {
    /// Adds what a name means, if it came through an index that is kept with the images' manifests; whether it did.
    pub(super) fn add(&mut self, store: &Store, name: &Reference) -> bool {
        let images = store.read(|state| state.group(name));
        let kept = images.iter().filter(|image| image.manifest.is_some() && !image.layer_blobs.is_empty());
        let ids: Vec<Digest> = kept.map(|image| image.id.clone()).collect();
        let Some(meant) = images.first().filter(|meant| ids.first() == Some(&meant.id)) else { return false };
        // What cannot be read is saved as what it is without.
        let Ok(Some(came)) = came_by(store, meant, name) else { return false };
        let position = self.0.iter().position(|(other, ..)| other.descriptor.digest == came.descriptor.digest);
        let position = position.unwrap_or_else(|| {
            self.0.push((came, Vec::new(), Vec::new()));
            self.0.len() - 1
        });
        let (_, all, tags) = &mut self.0[position];
        all.extend(ids.into_iter().filter(|id| !all.contains(id)).collect::<Vec<_>>());
        if name.tag().is_some() && !tags.contains(name) {
            tags.push(name.clone());
        }
        true
    }

    pub(super) fn hold(self, store: &Store) -> Result<Vec<Indexed<'_>>, SaveError> {
        let hold_one = |id: &Digest| hold(store, id).ok_or_else(|| SaveError::NotFound(id.to_string()));
        let hold_all = |(came, ids, tags): (CameBy, Vec<Digest>, Vec<Reference>)| {
            let images = ids.iter().map(hold_one).collect::<Result<_, _>>()?;
            Ok(Indexed { came, images, tags })
        };
        self.0.into_iter().map(hold_all).collect()
    }
}

impl Indexed<'_> {
    /// Adds its files; answers what `manifest.json` says of it, for who reads nothing else, and when that image was made.
    pub(super) fn plan(&self, store: &Store, files: &mut BTreeMap<String, Content>) -> Result<(Item, Time), SaveError> {
        let index = &self.came.descriptor.digest;
        for held in &self.images {
            let (record, made) = (held.record(), time_of(held.record().created()));
            files.insert(blob_path(&record.id), Content::Document { bytes: held.config()?, made });
            if let Some(manifest) = &record.manifest {
                document(files, blob_path(&manifest.digest), store.content.read(&manifest.digest, DOCUMENT_MAX)?);
            }
            for blob in &record.layer_blobs {
                add(store, blob, made, files)?;
            }
            for one in record.attestations().filter(|one| one.index == *index && is_here(store, one)) {
                document(
                    files,
                    blob_path(&one.manifest.digest),
                    store.content.read(&one.manifest.digest, DOCUMENT_MAX)?,
                );
                one.blobs.iter().try_for_each(|blob| add(store, blob, Time::default(), files))?;
            }
        }
        document(files, blob_path(index), self.came.bytes.clone());
        let meant: &ImageRecord = self.images[0].record();
        let tags: Vec<String> = self.tags.iter().map(Reference::familiar).collect();
        let item = Item {
            config: blob_path(&meant.id),
            repo_tags: Some(tags).filter(|tags| !tags.is_empty()),
            layers: meant.layer_blobs.iter().map(blob_path).collect(),
            parent: None,
            layer_sources: None,
        };
        Ok((item, time_of(meant.created())))
    }
}

/// Whether all of it is still here: a version that knows nothing of it may have removed it.
fn is_here(store: &Store, one: &Attestation) -> bool {
    one.contents().all(|blob| store.content.contains(blob))
}

fn add(store: &Store, blob: &Digest, made: Time, files: &mut BTreeMap<String, Content>) -> Result<(), SaveError> {
    let failed = |source| SaveError::Read { digest: blob.clone(), source };
    let bytes = store.content.reader(blob)?.metadata().map_err(failed)?.len();
    files.entry(blob_path(blob)).or_insert(Content::Blob { digest: blob.clone(), bytes, made });
    Ok(())
}

/// Writes a blob of that length; an error says that all that was written is worth nothing.
pub(super) fn copy(store: &Store, digest: &Digest, bytes: u64, to: &mut dyn Write) -> Result<(), SaveError> {
    let failed = |source| SaveError::Read { digest: digest.clone(), source };
    let mut blob = store.content.reader(digest)?.take(bytes);
    let (mut hasher, mut copied, mut buffer) = (Sha256::new(), 0, vec![0; CHUNK_BYTES]);
    loop {
        let count = match blob.read(&mut buffer) {
            Ok(0) => break,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(failed)?,
        };
        hasher.update(&buffer[..count]);
        copied += count as u64;
        to.write_all(&buffer[..count]).map_err(SaveError::Write)?;
    }
    match copied == bytes && Digest::from_sha256(&hasher.finalize().into()) == *digest {
        true => Ok(()),
        false => Err(SaveError::Changed { digest: digest.clone() }),
    }
}
