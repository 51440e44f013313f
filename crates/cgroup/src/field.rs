//! Full names of limits in config.json, with their places in lists.

use std::fmt;

/// A limit's full name, as `linux.resources.blockIO.weightDevice[1].weight`.
///
/// Small, as most limits are there once: errors carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    limit: &'static str,
    place: Option<Box<Place>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A member of a list, and a part of it; empty for the member itself.
    Member { index: usize, part: &'static str },
    /// What a map has under a key of the writer's choice.
    Key(String),
}

impl Field {
    /// Of a member of the list of this name; `part` is empty for the member itself.
    pub(crate) fn member(list: &'static str, index: usize, part: &'static str) -> Field {
        Field { limit: list, place: Some(Box::new(Place::Member { index, part })) }
    }

    /// What the map of this name has under the key.
    pub(crate) fn under(map: &'static str, key: &str) -> Field {
        Field { limit: map, place: Some(Box::new(Place::Key(key.to_owned()))) }
    }

    /// The name without its place: the same for all members of a list.
    pub fn limit(&self) -> &'static str {
        self.limit
    }

    /// Another part of the same member of a list.
    pub(crate) fn beside(mut self, other: &'static str) -> Field {
        if let Some(Place::Member { part, .. }) = self.place.as_deref_mut() {
            *part = other;
        }
        self
    }
}

impl From<&'static str> for Field {
    fn from(limit: &'static str) -> Field {
        Field { limit, place: None }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.limit)?;
        match self.place.as_deref() {
            None => Ok(()),
            Some(Place::Member { index, part: "" }) => write!(f, "[{index}]"),
            Some(Place::Member { index, part }) => write!(f, "[{index}].{part}"),
            // Keys have dots: they are files, or devices of somebody's naming.
            Some(Place::Key(key)) => write!(f, "[{key:?}]"),
        }
    }
}
