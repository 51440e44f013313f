//! All containers, by id and by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use errdefs::ErrorKind;
use oci::ContainerId;

use crate::container::Container;
use crate::links::Links;
use crate::sync::{read, write};

/// All containers. Names are reserved here before the record exists, and freed when it is gone.
#[derive(Default)]
pub struct Registry(RwLock<Maps>, Links);

#[derive(Default)]
struct Maps {
    containers: BTreeMap<ContainerId, Arc<Container>>,
    names: HashMap<String, ContainerId>,
}

/// Why a name means no container. The texts are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No name at all.
    #[error("invalid name or ID supplied: \"\"")]
    Empty,
    /// Neither a name nor the beginning of an id.
    #[error("No such container: {0}")]
    NotFound(String),
    /// The beginning of several ids.
    #[error("multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// It is there, but being written to files, which takes as long as its memory is large. The text is ours: dockerd waits.
    #[error("container {0} is being checkpointed")]
    BeingWritten(String),
}

impl LookupError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LookupError::Empty | LookupError::Ambiguous(_) => ErrorKind::InvalidArgument,
            LookupError::NotFound(_) => ErrorKind::NotFound,
            LookupError::BeingWritten(_) => ErrorKind::Conflict,
        }
    }
}

impl Registry {
    /// Finds a container by id, by name (with or without a slash), or by the beginning of its id, in this order.
    pub fn find(&self, text: &str) -> Result<Arc<Container>, LookupError> {
        if text.is_empty() {
            return Err(LookupError::Empty);
        }
        let maps = read(&self.0);
        let not_found = || LookupError::NotFound(text.to_owned());
        if let Some(container) = text.parse().ok().and_then(|id: ContainerId| maps.containers.get(&id)) {
            return Ok(container.clone());
        }
        if let Some(id) = maps.names.get(text.strip_prefix('/').unwrap_or(text)) {
            // A name that is only reserved means nothing yet.
            return maps.containers.get(id).cloned().ok_or_else(not_found);
        }
        if let Some((parent, alias)) = text.trim_start_matches('/').split_once('/') {
            let linked = maps.names.get(parent).and_then(|parent| self.1.child(parent, alias));
            return linked.filter(|linked| maps.containers.contains_key(linked.id())).ok_or_else(not_found);
        }
        let Some(first) = smallest_id(text) else { return Err(not_found()) };
        let mut matches = maps.containers.range(first..).take_while(|(id, _)| id.as_str().starts_with(text));
        match (matches.next(), matches.next()) {
            (Some((_, container)), None) => Ok(container.clone()),
            (Some(_), Some(_)) => Err(LookupError::Ambiguous(text.to_owned())),
            (None, _) => Err(not_found()),
        }
    }

    /// Who links to whom.
    pub fn links(&self) -> &Links {
        &self.1
    }

    /// The container of that id.
    pub fn get(&self, id: &ContainerId) -> Option<Arc<Container>> {
        read(&self.0).containers.get(id).cloned()
    }

    /// All containers, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Container>> {
        read(&self.0).containers.values().cloned().collect()
    }

    /// Reserves a name for `id`; answers who has it already, if somebody else does.
    pub fn reserve(&self, name: &str, id: &ContainerId) -> Result<(), ContainerId> {
        let mut maps = write(&self.0);
        match maps.names.get(name) {
            Some(owner) if owner != id => Err(owner.clone()),
            _ => {
                maps.names.insert(name.to_owned(), id.clone());
                Ok(())
            }
        }
    }

    /// Frees a name, if `id` has it.
    pub fn release(&self, name: &str, id: &ContainerId) {
        let mut maps = write(&self.0);
        if maps.names.get(name) == Some(id) {
            maps.names.remove(name);
        }
    }

    /// Makes a container known.
    pub fn insert(&self, container: Arc<Container>) {
        write(&self.0).containers.insert(container.id().clone(), container);
    }

    /// Forgets a container and frees its name.
    pub fn remove(&self, id: &ContainerId) {
        self.1.forget(id);
        let mut maps = write(&self.0);
        maps.containers.remove(id);
        maps.names.retain(|_, owner| owner != id);
    }
}

/// The smallest id that begins with `prefix`.
fn smallest_id(prefix: &str) -> Option<ContainerId> {
    let missing = 64_usize.checked_sub(prefix.len())?;
    format!("{prefix}{}", "0".repeat(missing)).parse().ok()
}
