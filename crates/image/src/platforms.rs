//! One name, several images: those of an index that were fetched for several platforms, side by side.
//!
//! ```text
//! references   name -> id              the image that the name means where nobody asks for a platform
//! platform_of  in an image's record    the names that mean this image where its platform is asked for
//! ```
//! Images share a name only when they have it through one index, the very same bytes: then all of them are what the name
//! means in its registry. An image may have other names through other indexes. Of these the name means the one for this machine, or else the one that came last. A name that is
//! given to something else is taken from all of them. Everything here is pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use oci::image::Descriptor;
use oci::{Digest, Reference};

use crate::load::plan::is_host;
use crate::record::{ImageRecord, State};
use crate::store::{ResolveError, Store, lookup_name, resolve};

impl State {
    /// What is kept beside the image that the name means.
    pub(crate) fn siblings(&self, reference: &Reference) -> Vec<Arc<ImageRecord>> {
        self.images.values().filter(|record| record.platform_of.contains(reference)).cloned().collect()
    }

    /// Takes a name from all that is kept beside the image that it means.
    pub(crate) fn disperse(&mut self, reference: &Reference) {
        for sibling in self.siblings(reference) {
            self.change(&sibling.id, |record| {
                record.platform_of.retain(|other| other != reference);
                record.came_by.remove(&reference.to_string());
            });
        }
    }

    /// Gives the name to an image that came now: through an index beside those that have the name through the same one, else
    /// alone.
    pub(crate) fn join(&mut self, reference: &Reference, id: &Digest, index: Option<&Descriptor>, now: Option<&str>) {
        let Some(image) = self.images.get(id).cloned() else { return };
        let came_with = |other: &ImageRecord| {
            let same = |index: &Descriptor| other.index_of(reference).is_some_and(|other| other.digest == index.digest);
            index.is_some_and(same) && other.config.platform != image.config.platform
        };
        let mut beside = self.group(reference);
        beside.retain(|other| other.id != *id && came_with(other));
        beside.insert(0, image);
        self.point(reference, None, None);
        self.gather(reference, &beside, |_| index.cloned(), now);
    }

    /// Gives the name to all of these: it means the one for this machine, or the first. `index` says through which index an
    /// image has it.
    pub(crate) fn gather(
        &mut self,
        reference: &Reference,
        images: &[Arc<ImageRecord>],
        index: impl Fn(&ImageRecord) -> Option<Descriptor>,
        now: Option<&str>,
    ) {
        let Some(meant) = images.iter().find(|image| is_host(&image.config.platform)).or(images.first()) else {
            return;
        };
        self.point(reference, Some(&meant.id), now);
        for other in images.iter().filter(|other| other.id != meant.id) {
            self.put_beside(reference, &other.id);
        }
        for image in images {
            self.note_index(reference, &image.id, index(image));
        }
    }

    fn note_index(&mut self, reference: &Reference, id: &Digest, index: Option<Descriptor>) {
        self.change(id, |record| drop(index.map(|index| record.came_by.insert(reference.to_string(), index))));
    }

    /// After a start: what the records say is kept beside an image, unless a version that does not know of such has given
    /// the name to another one since.
    pub(crate) fn keep_beside(&mut self, reference: &Reference, meant: &Digest, beside: &[Arc<ImageRecord>]) {
        if self.images.get(meant).is_some_and(|image| image.index_of(reference).is_some()) {
            for image in beside.iter().filter(|image| image.id != *meant) {
                self.put_beside(reference, &image.id);
                self.note_index(reference, &image.id, image.came_by.get(&reference.to_string()).cloned());
            }
        }
    }

    fn put_beside(&mut self, reference: &Reference, id: &Digest) {
        self.change(id, |record| {
            record.platform_of.push(reference.clone());
            record.platform_of.sort_by_key(Reference::to_string);
            record.platform_of.dedup();
        });
    }

    /// After a start: no image is kept for a name that means nothing, and no index for a name that an image has not.
    pub(crate) fn forget_lost_names(&mut self) {
        let names: BTreeSet<String> = self.references.keys().cloned().collect();
        let told = |record: &&mut Arc<ImageRecord>| !record.platform_of.is_empty() || !record.came_by.is_empty();
        for record in self.images.values_mut().filter(told) {
            let record = Arc::make_mut(record);
            record.platform_of.retain(|name| names.contains(&name.to_string()));
            let own: BTreeSet<String> =
                record.references.iter().chain(&record.platform_of).map(Reference::to_string).collect();
            record.came_by.retain(|name, _| own.contains(name));
        }
    }

    /// Takes the name from one of the images that have it; whether it still means another one.
    pub(crate) fn leave(&mut self, reference: &Reference, id: &Digest) -> bool {
        let mut left = self.group(reference);
        left.retain(|image| image.id != *id);
        self.point(reference, None, None);
        self.gather(reference, &left, |image| image.index_of(reference).cloned(), None);
        !left.is_empty()
    }

    /// All images that have the name, first the one that it means.
    pub(crate) fn group(&self, reference: &Reference) -> Vec<Arc<ImageRecord>> {
        let meant = self.references.get(&reference.to_string()).and_then(|(_, id)| self.images.get(id).cloned());
        meant.into_iter().chain(self.siblings(reference)).collect()
    }
}

/// All images that a user's word stands for: first the one that it means, then those that are kept beside it for other
/// platforms. No I/O.
pub fn resolve_all(store: &Store, name: &str) -> Result<Vec<Arc<ImageRecord>>, ResolveError> {
    store.read(|state| meant_by(state, name))
}

pub(crate) fn meant_by(state: &State, name: &str) -> Result<Vec<Arc<ImageRecord>>, ResolveError> {
    let meant = resolve(state, name)?;
    Ok(match named(state, name) {
        Some(reference) => state.group(&reference),
        None => vec![meant],
    })
}

/// The name that a user's word is; none for an id or the beginning of one.
pub(crate) fn named(state: &State, name: &str) -> Option<Reference> {
    let is_id =
        name.parse::<Digest>().is_ok() || name.len() == 64 && format!("sha256:{name}").parse::<Digest>().is_ok();
    let reference: Reference = Some(name).filter(|_| !is_id)?.parse().ok()?;
    state.references.get(&lookup_name(&reference.with_default_tag())).map(|(reference, _)| reference.clone())
}
