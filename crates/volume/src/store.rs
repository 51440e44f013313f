//! The table of volumes, and who uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use errdefs::ErrorKind;
use oci::ContainerId;
use quota::Projects;

use crate::name::VolumeName;
use crate::open::Fault;
use crate::record::Volume;

/// The label of a volume that was made without a name, with an empty value: dockerd's `volume prune` looks for it.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// The only driver.
pub const DRIVER: &str = "local";

/// All volumes below one root.
#[derive(Debug)]
pub struct Volumes {
    pub(crate) root: PathBuf,
    pub(crate) table: Mutex<BTreeMap<VolumeName, Slot>>,
    /// A slot is no longer changing, or its volume no longer held.
    pub(crate) changed: Condvar,
    pub(crate) faults: Vec<Fault>,
    /// Who limits directories; none where nobody can.
    pub(crate) limits: Option<Arc<Projects>>,
}

/// What a name means at the moment.
#[derive(Debug)]
pub(crate) enum Slot {
    /// Its directory is being made or removed. Nobody sees a volume.
    Changing,
    /// It is there.
    Here(Entry),
}

/// A volume that is there.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) volume: Arc<Volume>,
    pub(crate) users: BTreeSet<ContainerId>,
    /// One thread is changing its files; see [`Held`].
    pub(crate) held: bool,
    /// Containers that have it mounted, if it is a mount of its own.
    pub(crate) holders: BTreeSet<ContainerId>,
    /// What is mounted there was put down by the last of them.
    pub(crate) stale: bool,
}

/// A volume and its users at one moment.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The volume.
    pub volume: Arc<Volume>,
    /// Containers that have it, sorted.
    pub users: Vec<ContainerId>,
}

/// The same store with limits on what volumes hold, if somebody can keep them.
pub fn limited_by(volumes: Volumes, limits: Option<Arc<Projects>>) -> Volumes {
    Volumes { limits, ..volumes }
}

/// There is no volume of that name. The text is dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("get{}{name}: no such volume", if name.is_empty() { "" } else { " " })]
pub struct NotFound {
    /// What was looked for.
    pub name: String,
}

impl NotFound {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::NotFound
    }
}

/// Takes the mark from a slot when its change ends, however it ends; others wait for that.
pub(crate) struct Changing<'a> {
    store: &'a Volumes,
    name: VolumeName,
    becomes: Option<Entry>,
}

/// A volume whose files one thread changes, until this is dropped. Others see and use it; who would change or remove it
/// waits.
pub(crate) struct Held<'a> {
    store: &'a Volumes,
    /// The volume at the beginning.
    pub(crate) volume: Arc<Volume>,
}

impl Entry {
    pub(crate) fn new(volume: Arc<Volume>) -> Entry {
        Entry { volume, users: BTreeSet::new(), held: false, holders: BTreeSet::new(), stale: false }
    }

    fn listed(&self) -> Listed {
        Listed { volume: self.volume.clone(), users: self.users.iter().cloned().collect() }
    }
}

impl Volumes {
    /// The volume of that name. Any text may be asked for.
    pub fn get(&self, name: &str) -> Result<Listed, NotFound> {
        match self.lock().get(name) {
            Some(Slot::Here(entry)) => Ok(entry.listed()),
            _ => Err(NotFound { name: name.to_owned() }),
        }
    }

    /// All volumes, by name.
    pub fn list(&self) -> Vec<Listed> {
        let table = self.lock();
        let here = |slot: &Slot| match slot {
            Slot::Here(entry) => Some(entry.listed()),
            Slot::Changing => None,
        };
        table.values().filter_map(here).collect()
    }

    /// From now on `container` uses the volume, which is not removed before [`Volumes::release`]. Once is enough, however
    /// often the container mounts it.
    pub fn acquire(&self, name: &str, container: &ContainerId) -> Result<Arc<Volume>, NotFound> {
        match self.settled(name).get_mut(name) {
            Some(Slot::Here(entry)) => {
                entry.users.insert(container.clone());
                Ok(entry.volume.clone())
            }
            _ => Err(NotFound { name: name.to_owned() }),
        }
    }

    /// `container` uses the volume no longer; that it did not, or that there is no such volume, is success.
    pub fn release(&self, name: &str, container: &ContainerId) {
        if let Some(Slot::Here(entry)) = self.lock().get_mut(name) {
            entry.users.remove(container);
        }
    }

    /// What was found at open that a person should know of.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    pub(crate) fn directory(&self, name: &VolumeName) -> PathBuf {
        self.root.join(name.as_str())
    }

    /// A place out of sight for what `sweep` will delete.
    pub(crate) fn gone(&self) -> PathBuf {
        gone(&self.root)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<VolumeName, Slot>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table, when `name` is not changing.
    pub(crate) fn settled(&self, name: &str) -> MutexGuard<'_, BTreeMap<VolumeName, Slot>> {
        let changing = |table: &mut BTreeMap<_, _>| matches!(table.get(name), Some(Slot::Changing));
        self.changed.wait_while(self.lock(), changing).unwrap_or_else(PoisonError::into_inner)
    }

    /// The table, when `name` is neither changing nor held.
    pub(crate) fn idle(&self, name: &str) -> MutexGuard<'_, BTreeMap<VolumeName, Slot>> {
        let busy = |table: &mut BTreeMap<_, _>| match table.get(name) {
            Some(Slot::Changing) => true,
            Some(Slot::Here(Entry { held, .. })) => *held,
            None => false,
        };
        self.changed.wait_while(self.lock(), busy).unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hold(&self, name: &str) -> Result<Held<'_>, NotFound> {
        match self.idle(name).get_mut(name) {
            Some(Slot::Here(Entry { held, volume, .. })) => {
                *held = true;
                Ok(Held { store: self, volume: volume.clone() })
            }
            _ => Err(NotFound { name: name.to_owned() }),
        }
    }

    /// Keeps others from that name while the lock is not held. It means nothing afterwards, unless
    /// [`Changing::becomes`] says what.
    pub(crate) fn change(
        &self,
        mut table: MutexGuard<'_, BTreeMap<VolumeName, Slot>>,
        name: &VolumeName,
    ) -> (Changing<'_>, Option<Entry>) {
        let before = match table.insert(name.clone(), Slot::Changing) {
            Some(Slot::Here(entry)) => Some(entry),
            _ => None,
        };
        (Changing { store: self, name: name.clone(), becomes: None }, before)
    }
}

impl Changing<'_> {
    /// What the name means from now on.
    pub(crate) fn becomes(mut self, entry: Entry) {
        self.becomes = Some(entry);
    }
}

impl Held<'_> {
    /// What is known at this moment.
    pub(crate) fn look<T: Default>(&self, look: impl FnOnce(&Entry) -> T) -> T {
        match self.store.lock().get(&self.volume.name) {
            Some(Slot::Here(entry)) => look(entry),
            _ => T::default(),
        }
    }

    /// Changes who holds the mount, which is fresh from now on.
    pub(crate) fn change_holders(&self, change: impl FnOnce(&mut BTreeSet<ContainerId>)) {
        if let Some(Slot::Here(entry)) = self.store.lock().get_mut(&self.volume.name) {
            change(&mut entry.holders);
            entry.stale = false;
        }
    }

    /// What is known of the volume from now on.
    pub(crate) fn becomes(&self, volume: Volume) {
        if let Some(Slot::Here(entry)) = self.store.lock().get_mut(&volume.name) {
            entry.volume = Arc::new(volume);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(Slot::Here(entry)) = self.store.lock().get_mut(&self.volume.name) {
            entry.held = false;
        }
        self.store.changed.notify_all();
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mut table = self.store.lock();
        match self.becomes.take() {
            Some(entry) => drop(table.insert(self.name.clone(), Slot::Here(entry))),
            None => drop(table.remove(&self.name)),
        }
        self.store.changed.notify_all();
    }
}

pub(crate) fn gone(root: &Path) -> PathBuf {
    root.join(format!("{}{}", crate::remove::GONE, stdx::id::random_hex::<8>()))
}
