//! `rmi`: takes names away, and the image when no name is left. The rules and sentences are dockerd's (moby
//! daemon/images/image_delete.go).

use std::sync::Arc;

use errdefs::ErrorKind;
use oci::{Digest, Reference};
use snapshot::ChainId;
use tracing::debug;

use crate::metadata::Change;
use crate::platforms::{meant_by, named};
use crate::record::{ImageRecord, State, short, stored};
use crate::store::{ResolveError, Store, lookup_name, needed_blobs, resolve};

/// A container and the image it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUser {
    /// The container's id.
    pub container: String,
    /// The image's id.
    pub image: Digest,
    /// Whether it runs (a paused one does).
    pub running: bool,
}

/// What a removal may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Take several names away, and images of stopped containers.
    pub force: bool,
    /// Remove parents that are left without name and user, too (the opposite of `--no-prune`).
    pub prune_parents: bool,
}

/// One thing that is gone; in this order the client prints them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name: `Untagged: busybox:latest`, an `untag` event of the image.
    Untagged {
        /// The name.
        reference: Reference,
        /// The image it meant.
        image: Digest,
    },
    /// An image: `Deleted: sha256:...`, a `delete` event.
    Image(Digest),
    /// A layer that nothing else needs: `Deleted: sha256:...` with its ChainId, no event.
    Layer(ChainId),
}

/// Why an image was not removed. The texts are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is no such image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// It is the last name of an image that a container uses.
    #[error(
        "conflict: unable to remove repository reference \"{name}\" (must force) - container {} is using its \
         referenced image {}",
        short_text(container),
        short(image)
    )]
    LastName {
        /// As the user typed it.
        name: String,
        /// Who uses it.
        container: String,
        /// The image.
        image: Digest,
    },
    /// The image is needed.
    #[error("conflict: unable to delete {} ({}) - {reason}", short(image), force_text(reason))]
    Conflict {
        /// The image.
        image: Digest,
        /// By what.
        reason: Conflict,
    },
    /// The database does not take it.
    #[error("record the removal")]
    Record {
        /// Why.
        source: redb::Error,
    },
}

/// What needs an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Another image was built from it.
    #[error("image has dependent child images")]
    Child,
    /// A running container.
    #[error("image is being used by running container {}", short_text(.0))]
    Running(String),
    /// Names.
    #[error("image is referenced in multiple repositories")]
    Names,
    /// A stopped container.
    #[error("image is being used by stopped container {}", short_text(.0))]
    Stopped(String),
}

impl RemoveError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RemoveError::Resolve(err) => err.kind(),
            RemoveError::LastName { .. } | RemoveError::Conflict { .. } => ErrorKind::Conflict,
            RemoveError::Record { .. } => ErrorKind::Internal,
        }
    }
}

fn short_text(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn force_text(reason: &Conflict) -> &'static str {
    match reason {
        Conflict::Child | Conflict::Running(_) => "cannot be forced",
        Conflict::Names | Conflict::Stopped(_) => "must be forced",
    }
}

impl Store {
    /// Takes the name away, or removes the image of that id; `users` are the containers of all images.
    ///
    /// Layers and blobs that nothing needs any more are set aside at once; [`Store::sweep`] removes them. A container
    /// whose image is removed by force keeps its layers.
    pub fn remove(&self, name: &str, options: RemoveOptions, users: &[ImageUser]) -> Result<Vec<Removed>, RemoveError> {
        remove_planned(self, name, |state| plan(state, name, options, users))
    }

    /// Removes the blobs that were needed `before` and are not now. The caller holds `metadata`.
    pub(crate) fn drop_blobs(&self, before: &State) {
        let needed = self.read(needed_blobs);
        let unneeded = needed_blobs(before).into_iter().filter(|digest| !needed.contains(digest));
        for digest in unneeded.filter(|digest| !self.pinned(|pinned| pinned.blobs.contains_key(digest))) {
            if let Err(err) = self.content.remove(&digest) {
                debug!("a blob stays behind: {}", errdefs::chain(&err));
            }
        }
    }
}

/// As [`Store::remove`] of the first image that is wanted, where a name stands for several.
pub fn remove_platform(
    store: &Store,
    name: &str,
    options: RemoveOptions,
    users: &[ImageUser],
    is_wanted: &dyn Fn(&ImageRecord) -> bool,
) -> Result<Vec<Removed>, RemoveError> {
    remove_planned(store, name, |state| plan_platform(state, name, options, users, is_wanted))
}

pub(crate) fn remove_planned(
    store: &Store,
    name: &str,
    plan: impl FnOnce(&mut State) -> Result<Vec<Removed>, RemoveError>,
) -> Result<Vec<Removed>, RemoveError> {
    let mut metadata = store.writer();
    let before = store.read(Clone::clone);
    let mut next = before.clone();
    let removed = plan(&mut next)?;
    metadata.commit(&difference(&before, &next)).map_err(|source| RemoveError::Record { source })?;
    store.replace(next);
    // The image is gone, whatever happens now: what stays behind is collected at the next start.
    if let Err(err) = store.collect_layers() {
        debug!("layers of {name} stay behind: {}", errdefs::chain(&err));
    }
    store.drop_blobs(&before);
    Ok(removed)
}

/// What the database must be told so that it says `after`.
pub(crate) fn difference(before: &State, after: &State) -> Change {
    let mut change = Change::default();
    for id in before.images.keys() {
        if !after.images.contains_key(id) {
            change.images.push((id.clone(), None));
        }
    }
    for (id, record) in &after.images {
        if before.images.get(id).is_none_or(|old| !Arc::ptr_eq(old, record) && stored(old) != stored(record)) {
            change.images.push((id.clone(), Some(stored(record))));
        }
    }
    for (name, (reference, _)) in &before.references {
        if !after.references.contains_key(name) {
            change.references.push((reference.clone(), None));
        }
    }
    for (name, (reference, id)) in &after.references {
        if before.references.get(name).is_none_or(|(_, old)| old != id) {
            change.references.push((reference.clone(), Some(id.clone())));
        }
    }
    for chain_id in before.layers.keys().filter(|chain_id| !after.layers.contains_key(chain_id)) {
        change.layers.push((chain_id.clone(), None));
    }
    change
}

/// Pure: changes `state` to what it is after the removal, and says what goes.
fn plan(
    state: &mut State,
    name: &str,
    options: RemoveOptions,
    users: &[ImageUser],
) -> Result<Vec<Removed>, RemoveError> {
    let record = resolve(state, name)?;
    let mut plan = Plan::new(state, users);
    let by_id = [record.id.as_str(), record.id.hex()].iter().any(|id| id.starts_with(name));
    let is_single = is_single(&record.references);
    if by_id {
        if is_single {
            let mask = if options.force { Mask::Hard } else { Mask::HardAndStopped };
            plan.check(&record.id, mask)?;
            plan.untag_all(&record.id);
        }
        plan.delete(&record.id, options, false)?;
    } else {
        // Those for other platforms lose the name, too.
        let meant = meant_by(plan.state, name)?;
        let user = users.iter().find(|user| meant.iter().any(|image| user.image == image.id));
        if let Some(user) = user.filter(|_| !options.force && is_single) {
            let (name, container) = (name.to_owned(), user.container.clone());
            return Err(RemoveError::LastName { name, container, image: user.image.clone() });
        }
        if plan.untag_name(name, &record.id)? {
            plan.delete(&record.id, options, true)?;
        }
    }
    plan.delete_unnamed(options)?;
    Ok(plan.removed)
}

/// The same for one of the images that the name stands for; the others stay, and it means one of them.
fn plan_platform(
    state: &mut State,
    name: &str,
    options: RemoveOptions,
    users: &[ImageUser],
    is_wanted: &dyn Fn(&ImageRecord) -> bool,
) -> Result<Vec<Removed>, RemoveError> {
    let images = meant_by(state, name)?;
    let wanted = images.iter().find(|image| is_wanted(image));
    let wanted = wanted.ok_or_else(|| ResolveError::NotFound { name: name.to_owned() })?;
    match named(state, name) {
        Some(reference) if images.len() > 1 => {
            let mut plan = Plan::new(state, users);
            // The digest of the repository is another name of the same images, and goes with its last tag.
            let repository = reference.familiar_name();
            let others = plan.names_of(&wanted.id);
            let tagged = |other: &&Reference| other.familiar_name() == repository && other.tag().is_some();
            let last_tag = others.iter().filter(tagged).all(|other| *other == reference);
            plan.state.leave(&reference, &wanted.id);
            let digests = others.iter().filter(|other| other.familiar_name() == repository && other.digest().is_some());
            for digest in digests.filter(|_| last_tag) {
                plan.state.leave(digest, &wanted.id);
            }
            if plan.names_of(&wanted.id).is_empty() {
                plan.delete(&wanted.id, options, false)?;
            }
            Ok(plan.removed)
        }
        _ => plan(state, name, options, users),
    }
}

/// Whether all names are of one repository, with at most one tag among them (`isSingleReference`).
fn is_single(references: &[Reference]) -> bool {
    let [first, ..] = references else { return false };
    let tags = references.iter().filter(|reference| reference.digest().is_none()).count();
    let one_repository = references.iter().all(|other| other.familiar_name() == first.familiar_name());
    references.len() == 1 || (tags <= 1 && one_repository)
}

/// Which conflicts count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mask {
    Hard,
    HardAndStopped,
    All,
}

pub(crate) struct Plan<'a> {
    state: &'a mut State,
    users: &'a [ImageUser],
    pub(crate) removed: Vec<Removed>,
    /// What was kept beside an image whose name went.
    unnamed: Vec<Digest>,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(state: &'a mut State, users: &'a [ImageUser]) -> Plan<'a> {
        Plan { state, users, removed: Vec::new(), unnamed: Vec::new() }
    }
}

impl Plan<'_> {
    pub(crate) fn untag(&mut self, reference: &Reference, id: &Digest) {
        self.unnamed.extend(self.state.siblings(reference).iter().map(|image| image.id.clone()));
        self.state.point(reference, None, None);
        self.removed.push(Removed::Untagged { reference: reference.clone(), image: id.clone() });
    }

    /// Takes all names from an image; those that others have for their platforms mean one of them now.
    fn untag_all(&mut self, id: &Digest) {
        for reference in self.references(id) {
            if !self.state.leave(&reference, id) {
                self.removed.push(Removed::Untagged { reference, image: id.clone() });
            }
        }
    }

    /// Removes what was kept beside an image and has no name any more, unless somebody needs it.
    fn delete_unnamed(&mut self, options: RemoveOptions) -> Result<(), RemoveError> {
        for id in std::mem::take(&mut self.unnamed) {
            if self.names_of(&id).is_empty() {
                self.delete(&id, options, true)?;
            }
        }
        Ok(())
    }

    /// All names, also those that it has for its platform alone.
    fn names_of(&self, id: &Digest) -> Vec<Reference> {
        let record = self.state.images.get(id);
        record.map(|record| [&record.references[..], &record.platform_of[..]].concat()).unwrap_or_default()
    }

    fn references(&self, id: &Digest) -> Vec<Reference> {
        self.state.images.get(id).map(|record| record.references.clone()).unwrap_or_default()
    }

    /// Takes one name away; whether the image has no other, not even for its platform alone. Digests of a repository go with
    /// its last tag.
    fn untag_name(&mut self, name: &str, id: &Digest) -> Result<bool, ResolveError> {
        let typed = name.parse::<Reference>()?.with_default_tag();
        let key = lookup_name(&typed);
        let stored = self.state.references.get(&key).map(|(reference, _)| reference.clone());
        let reference = stored.unwrap_or(typed);
        self.untag(&reference, id);
        let repository = reference.familiar_name();
        let same = |other: &&Reference| other.familiar_name() == repository;
        let left = self.references(id);
        if reference.digest().is_none() && !left.iter().filter(same).any(|other| other.tag().is_some()) {
            for digest in left.iter().filter(same) {
                self.untag(digest, id);
            }
        }
        Ok(self.names_of(id).is_empty())
    }

    fn check(&self, id: &Digest, mask: Mask) -> Result<(), RemoveError> {
        let user = |running| self.users.iter().find(|user| user.image == *id && user.running == running);
        let reason = if self.state.children(id) {
            Conflict::Child
        } else if let Some(user) = user(true) {
            Conflict::Running(user.container.clone())
        } else if mask == Mask::All && !self.references(id).is_empty() {
            Conflict::Names
        } else if let Some(user) = user(false).filter(|_| mask != Mask::Hard) {
            Conflict::Stopped(user.container.clone())
        } else {
            return Ok(());
        };
        Err(RemoveError::Conflict { image: id.clone(), reason })
    }

    fn delete(&mut self, id: &Digest, options: RemoveOptions, quiet: bool) -> Result<(), RemoveError> {
        let mask = if options.force { Mask::Hard } else { Mask::All };
        if let Err(conflict) = self.check(id, mask) {
            let dangling = self.references(id).is_empty() && !self.state.children(id);
            let used =
                matches!(&conflict, RemoveError::Conflict { reason: Conflict::Running(_) | Conflict::Stopped(_), .. });
            // A name was taken away, which was asked for; that the image must stay is no failure then.
            return if quiet && (!dangling || used) { Ok(()) } else { Err(conflict) };
        }
        self.untag_all(id);
        for reference in self.names_of(id) {
            self.state.leave(&reference, id);
        }
        let parent = self.state.images.get(id).and_then(|record| record.parent.clone());
        self.take(id);
        match parent.filter(|parent| options.prune_parents && self.state.images.contains_key(parent)) {
            Some(parent) => self.delete(&parent, RemoveOptions { force: false, ..options }, true),
            None => Ok(()),
        }
    }

    /// Takes an image away that has no name any more, and the layers that are only its own.
    pub(crate) fn take(&mut self, id: &Digest) {
        let Some(record) = self.state.images.remove(id) else { return };
        self.removed.push(Removed::Image(id.clone()));
        self.drop_layers(id, &record.chain);
    }

    /// Uppermost first, down to the first that something else needs.
    fn drop_layers(&mut self, id: &Digest, chain: &[ChainId]) {
        let held = self.users.iter().any(|user| user.image == *id);
        for chain_id in chain.iter().rev() {
            if self.state.images.values().any(|record| record.chain.contains(chain_id)) {
                break;
            }
            if self.state.layers.remove(chain_id).is_some() && !held {
                self.removed.push(Removed::Layer(chain_id.clone()));
            }
        }
    }
}
