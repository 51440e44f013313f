//! Caches that are shared: what steps came to, in a registry, where other machines find it.
//!
//! There are two forms. A [`SharedCache`] is a document of its own, beside the layers that it names: it has the keys of steps
//! and what they came to, those of stages that are in no image, too. And every image is one: its history says what was done,
//! and that is compared word for word, as dockerd's own builder does it (moby daemon/images/cache, [`next_step`]).

use std::collections::HashMap;

use oci::Digest;
use oci::image::{Descriptor, History, ImageConfig};
use serde::{Deserialize, Serialize};

/// The type of the document, as the configuration of a manifest that names the layers.
pub const DOCUMENT_TYPE: &str = "application/vnd.longshore.build-cache.v1+json";

/// What a manifest says of a layer that is in no image: the name of the cache of commands whose files it has.
pub const MOUNT_ANNOTATION: &str = "longshore.build-cache.mount";

/// What steps came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedCache {
    /// Stages, each with the layers of the image that it came to.
    pub stages: Vec<SharedStage>,
    /// What commands keep for those after them (`RUN --mount=type=cache`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<SharedMount>,
}

/// What commands keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedMount {
    /// What it is known by.
    pub key: String,
    /// Its files.
    pub layer: Descriptor,
}

/// What the steps of a stage came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedStage {
    /// The layers of its last image, lowest first.
    pub layers: Vec<Descriptor>,
    /// Its steps, in order.
    pub steps: Vec<SharedStep>,
}

/// What a step came to: an image of the first layers of its stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedStep {
    /// What the step is known by.
    pub key: String,
    /// The image that it is above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Digest>,
    /// The bytes of the image's configuration.
    pub config: String,
    /// How many of the layers are its own.
    pub layers: usize,
}

/// Where a step is in a [`SharedCache`].
pub type Place = (usize, usize);

/// The steps of a document, by their keys.
pub fn places(cache: &SharedCache) -> HashMap<&str, Vec<Place>> {
    let mut places = HashMap::<&str, Vec<Place>>::new();
    for (at, stage) in cache.stages.iter().enumerate() {
        for (index, step) in stage.steps.iter().enumerate() {
            places.entry(&step.key).or_default().push((at, index));
        }
    }
    places
}

/// What an image says of the step that comes after those of `parent`, where it was built above that, and the step was
/// `created_by` that; with the step's layer, if it has one.
pub fn next_step<'a>(
    parent: Option<&ImageConfig>,
    image: &'a ImageConfig,
    created_by: &str,
) -> Option<(&'a History, Option<&'a Digest>)> {
    let nothing = ImageConfig::default();
    let parent = parent.unwrap_or(&nothing);
    let below = image.history.strip_prefix(&parent.history[..])?;
    let layers = image.rootfs.diff_ids.strip_prefix(&parent.rootfs.diff_ids[..])?;
    let step = below.first().filter(|step| step.created_by == created_by)?;
    match step.empty_layer {
        true => Some((step, None)),
        false => Some((step, Some(layers.first()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::from_sha256(&[number; 32])
    }

    /// An image of these steps: a number is the one of the step's layer.
    fn image(steps: &[(&str, u8)]) -> ImageConfig {
        let mut image = ImageConfig::default();
        for (created_by, layer) in steps {
            let empty_layer = *layer == 0;
            let created = Some("2026-01-01T00:00:00Z".to_owned());
            image.history.push(History {
                created_by: (*created_by).to_owned(),
                empty_layer,
                created,
                ..History::default()
            });
            image.rootfs.diff_ids.extend((!empty_layer).then(|| digest(*layer)));
        }
        image
    }

    #[test]
    fn the_next_step_is_found_in_an_images_history() {
        let whole = image(&[("a", 1), ("env", 0), ("b", 2)]);
        let next = |parent: Option<&ImageConfig>, words: &str| {
            next_step(parent, &whole, words).map(|(step, layer)| (step.created_by.clone(), layer.cloned()))
        };
        assert_eq!(next(None, "a"), Some(("a".to_owned(), Some(digest(1)))));
        assert_eq!(next(Some(&image(&[("a", 1)])), "env"), Some(("env".to_owned(), None)));
        assert_eq!(next(Some(&image(&[("a", 1), ("env", 0)])), "b"), Some(("b".to_owned(), Some(digest(2)))));
        for (parent, words) in [
            (Some(image(&[("a", 1), ("env", 0)])), "env"),
            (Some(image(&[("a", 3)])), "env"),
            (Some(image(&[("other", 1)])), "env"),
            (Some(image(&[("a", 0)])), "env"),
            (Some(image(&[("a", 1), ("env", 0), ("b", 2)])), "c"),
            (None, "env"),
        ] {
            assert_eq!(next(parent.as_ref(), words), None, "{words} above {parent:?}");
        }
        let mut later = image(&[("a", 1)]);
        later.history[0].created = None;
        assert_eq!(next(Some(&later), "env"), None, "another time is another build");
    }

    #[test]
    fn an_image_that_says_more_layers_than_it_has_is_no_cache() {
        let mut lies = image(&[("a", 1), ("b", 2)]);
        lies.rootfs.diff_ids.truncate(1);
        assert_eq!(next_step(Some(&image(&[("a", 1)])), &lies, "b"), None);
    }

    #[test]
    fn steps_are_found_by_their_keys() {
        let step = |key: &str| SharedStep { key: key.into(), parent: None, config: "{}".into(), layers: 0 };
        let stage =
            |keys: &[&str]| SharedStage { layers: Vec::new(), steps: keys.iter().map(|key| step(key)).collect() };
        let cache = SharedCache { stages: vec![stage(&["a", "b"]), stage(&["b"])], mounts: Vec::new() };
        let places = places(&cache);
        assert_eq!((&places["a"][..], &places["b"][..]), (&[(0, 0)][..], &[(0, 1), (1, 0)][..]));
    }
}
