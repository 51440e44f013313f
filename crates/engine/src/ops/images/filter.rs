//! Which images a list shows.

use std::collections::HashSet;

use image::ImageRecord;
use oci::{Digest, Reference};

use crate::Engine;
use crate::filters::Filters;
use crate::ops::images::{ImageError, ImageQuery, created_nanos};
use crate::time_query;

const FILTERS: [&str; 6] = ["before", "dangling", "label", "reference", "since", "until"];

/// A query that was checked.
pub(super) struct Wanted {
    filters: Filters,
    all: bool,
    dangling: Option<bool>,
    before: Option<i64>,
    since: Option<i64>,
    /// Images that others are made of.
    parents: HashSet<Digest>,
}

impl Wanted {
    pub(super) fn check(engine: &Engine, query: &ImageQuery) -> Result<Wanted, ImageError> {
        let filters = &query.filters;
        filters.check(&FILTERS)?;
        let created = |name: &str| Ok::<_, ImageError>(created_nanos(&*engine.images.resolve(name)?));
        let before = filters.get("before").map(created).collect::<Result<Vec<_>, _>>()?;
        let until = filters.get("until").map(time_query::parse).collect::<Result<Vec<_>, _>>()?;
        let since = filters.get("since").map(created).collect::<Result<Vec<_>, _>>()?;
        Ok(Wanted {
            all: query.all,
            dangling: filters.boolean("dangling")?,
            // Several values of one filter all count.
            before: before.into_iter().chain(until.into_iter().flatten()).min(),
            since: since.into_iter().max(),
            parents: parents(engine),
            filters: filters.clone(),
        })
    }

    pub(super) fn matches(&self, image: &ImageRecord) -> bool {
        let no_labels = Default::default();
        let labels = image.config.config.labels.as_ref().unwrap_or(&no_labels);
        self.before.is_none_or(|before| created_nanos(image) < before)
            && self.since.is_none_or(|since| created_nanos(image) > since)
            && self.filters.labels("label", labels)
            && self.matches_names(image)
    }

    fn matches_names(&self, image: &ImageRecord) -> bool {
        // It is shown with the image that its names mean.
        if image.is_beside() {
            return false;
        }
        let is_parent = self.parents.contains(&image.id);
        if image.references.is_empty() {
            let shown = self.all || !is_parent;
            return shown && self.dangling != Some(false) && !self.filters.has("reference");
        }
        let has_tag = image.references.iter().any(|name| name.tag().is_some());
        (self.dangling != Some(true) || (!has_tag && !is_parent))
            && image.references.iter().any(|name| self.matches_name(name))
    }

    /// Whether a name as users see it matches one of the wanted patterns, with or without its tag, or none is given.
    pub(super) fn matches_name(&self, name: &Reference) -> bool {
        if !self.filters.has("reference") {
            return true;
        }
        let (with, without) = (name.familiar(), name.familiar_name());
        self.filters.get("reference").any(|pattern| glob(pattern, &with) || glob(pattern, &without))
    }
}

/// What images were built from that are something to users.
fn parents(engine: &Engine) -> HashSet<Digest> {
    let images = engine.images.list();
    images.iter().filter(|image| !engine.steps.has(image)).filter_map(|image| image.parent.clone()).collect()
}

/// Go's path.Match without character classes: `*` and `?` match anything but a slash.
fn glob(pattern: &str, text: &str) -> bool {
    let (mut pattern_rest, mut text_rest) = (pattern.chars(), text.chars());
    match (pattern_rest.next(), text_rest.next()) {
        (None, None) => true,
        (Some('*'), Some(c)) if c != '/' => glob(pattern_rest.as_str(), text) || glob(pattern, text_rest.as_str()),
        (Some('*'), _) => glob(pattern_rest.as_str(), text),
        (Some('?'), Some(c)) if c != '/' => glob(pattern_rest.as_str(), text_rest.as_str()),
        (Some('\\'), Some(c)) => pattern_rest.next() == Some(c) && glob(pattern_rest.as_str(), text_rest.as_str()),
        (Some(wanted), Some(c)) => wanted == c && glob(pattern_rest.as_str(), text_rest.as_str()),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_within_one_component() {
        for (pattern, text, matches) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox:latest", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("b?x", "box", true),
            ("b?x", "bx", false),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
    }
}
