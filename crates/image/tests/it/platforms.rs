//! Images of one index for several platforms, side by side under one name.

use std::collections::HashMap;
use std::io::Cursor;

use image::{ImageUser, Part, PulledImage, RemoveError, RemoveOptions, Removed, Store, evict, remove_platform};
use oci::image::{Descriptor, Manifest, Platform};
use oci::{Digest, Reference};
use serde_json::json;

use crate::archive::{digest, gzip, layer};
use crate::{Scratch, leftovers};

pub(crate) fn describe(bytes: &[u8], architecture: Option<&str>) -> Descriptor {
    let platform = architecture.map(|architecture| Platform {
        architecture: architecture.to_owned(),
        os: "linux".to_owned(),
        ..Platform::default()
    });
    let (media_type, size) = ("x".to_owned(), bytes.len() as u64);
    Descriptor { media_type, digest: digest(bytes), size, annotations: Default::default(), platform }
}

/// An image of one layer.
pub(crate) struct Made {
    pub(crate) architecture: String,
    pub(crate) layer: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

pub(crate) fn made(architecture: &str, content: &str) -> Made {
    let tar = layer(&[("f", content)]);
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [digest(&tar)] },
    });
    let (layer, config) = (gzip(&tar), config.to_string().into_bytes());
    let (config_of, layer_of) = (describe(&config, None), describe(&layer, None));
    let manifest = json!({ "schemaVersion": 2, "config": config_of, "layers": [layer_of] });
    Made { architecture: architecture.to_owned(), layer, config, manifest: manifest.to_string().into_bytes() }
}

/// An index of these, as a registry has it.
struct Published {
    images: Vec<Made>,
    index: Vec<u8>,
}

fn published(images: Vec<Made>) -> Published {
    let entries: Vec<_> = images.iter().map(|image| describe(&image.manifest, Some(&image.architecture))).collect();
    let index = json!({ "schemaVersion": 2, "manifests": entries }).to_string().into_bytes();
    Published { images, index }
}

impl Published {
    /// Pulls one of them under `h:1/r:1` and the index's digest; answers its id.
    fn pull(&self, store: &Store, number: usize) -> Digest {
        self.pull_as(store, number, "h:1/r:1")
    }

    /// The same under another name of that repository.
    fn pull_as(&self, store: &Store, number: usize, name: &str) -> Digest {
        let names = [name.to_owned(), format!("h:1/r@{}", digest(&self.index))];
        self.images[number].pull(store, &names, Some(&self.index))
    }
}

impl Made {
    /// Pulls it under these names.
    fn pull(&self, store: &Store, names: &[String], index: Option<&[u8]>) -> Digest {
        let Made { layer, config, manifest, .. } = self;
        let image = PulledImage {
            config: config.clone(),
            manifest: serde_json::from_slice::<Manifest>(manifest).unwrap(),
            descriptor: describe(manifest, None),
            manifest_bytes: manifest.clone(),
            index: index.map(|index| (describe(index, None), index.to_vec())),
            references: names.iter().map(|name| name.parse().unwrap()).collect(),
            parent: None,
        };
        let fetch = |_: &Descriptor| {
            store.content().partial(&digest(layer)).unwrap().write(layer).unwrap();
            Cursor::new(layer.clone())
        };
        store.pull(image, fetch, &|_| {}).unwrap().id
    }
}

fn two() -> Published {
    published(vec![made(image::host_architecture(), "here"), made("s390x", "there")])
}

/// The platforms that a name stands for, first that of what it means.
pub(crate) fn platforms(store: &Store, name: &str) -> Vec<String> {
    let images = image::resolve_all(store, name).unwrap_or_default();
    images.iter().map(|image| image.config.platform.architecture.clone()).collect()
}

pub(crate) fn plain() -> RemoveOptions {
    RemoveOptions { force: false, prune_parents: true }
}

#[test]
fn privileged_platforms_of_one_index_are_kept_side_by_side() {
    for order in [[0, 1], [1, 0]] {
        let (scratch, remote, here) = (Scratch::new(), two(), image::host_architecture());
        order.iter().for_each(|number| drop(remote.pull(&scratch.store, *number)));
        let by_digest = format!("h:1/r@{}", digest(&remote.index));
        let scratch = scratch.reopened();
        for name in ["h:1/r:1", &by_digest] {
            assert_eq!(platforms(&scratch.store, name), [here, "s390x"], "{order:?}: this machine's comes first");
        }
        assert!(scratch.store.content().contains(&digest(&remote.index)), "{order:?}");
        scratch.store.remove("h:1/r:1", plain(), &[]).unwrap();
        assert_eq!(scratch.store.list().len(), 0, "{order:?}");
        assert!(leftovers(scratch.dir.path()).is_empty(), "{order:?}");
    }
}

#[test]
fn privileged_without_an_image_for_this_machine_the_last_one_is_meant() {
    let (scratch, remote) = (Scratch::new(), published(vec![made("s390x", "1"), made("ppc64le", "2")]));
    remote.pull(&scratch.store, 0);
    remote.pull(&scratch.store, 1);
    assert_eq!(platforms(&scratch.store, "h:1/r:1"), ["ppc64le", "s390x"]);
    assert_eq!(platforms(&scratch.reopened().store, "h:1/r:1"), ["ppc64le", "s390x"]);
}

#[test]
fn privileged_another_index_takes_the_name_from_all() {
    let (scratch, first) = (Scratch::new(), two());
    let old: Vec<Digest> = [0, 1].map(|number| first.pull(&scratch.store, number)).into();
    let second = published(vec![made("s390x", "newer")]);
    let new = second.pull(&scratch.store, 0);
    assert_eq!(scratch.store.resolve("h:1/r:1").unwrap().id, new);
    assert_eq!(platforms(&scratch.store, "h:1/r:1"), ["s390x"]);
    // The old digest still stands for both.
    let by_digest: Reference = format!("h:1/r@{}", digest(&first.index)).parse().unwrap();
    let scratch = scratch.reopened();
    let kept = image::resolve_all(&scratch.store, &by_digest.to_string()).unwrap();
    assert_eq!(kept.iter().map(|image| image.id.clone()).collect::<Vec<_>>(), old);
}

#[test]
fn privileged_an_image_of_two_indexes_keeps_the_names_of_both() {
    let (scratch, here) = (Scratch::new(), image::host_architecture());
    let first = published(vec![made(here, "here"), made("s390x", "there"), made("ppc64le", "later")]);
    // Its first image is the very one of the other.
    let second = published(vec![made(here, "here"), made("s390x", "newer")]);
    first.pull(&scratch.store, 0);
    first.pull(&scratch.store, 1);
    second.pull_as(&scratch.store, 0, "h:1/r:2");
    let scratch = scratch.reopened();
    first.pull(&scratch.store, 2);
    let sorted = |store: &Store| {
        let mut found = platforms(store, "h:1/r:1");
        found[1..].sort();
        found
    };
    assert_eq!(sorted(&scratch.store), [here, "ppc64le", "s390x"]);
    assert_eq!(platforms(&scratch.store, "h:1/r:2"), [here]);
    let image = scratch.store.resolve("h:1/r:1").unwrap();
    for (name, index) in [("h:1/r:1", &first.index), ("h:1/r:2", &second.index)] {
        let came = image::came_by(&scratch.store, &image, &name.parse().unwrap()).unwrap().unwrap();
        assert_eq!(came.bytes, *index, "{name}");
        let (all, missing) = if name == "h:1/r:1" { (3, 0) } else { (1, 1) };
        let images = image::resolve_all(&scratch.store, name).unwrap();
        assert_eq!((images.len(), came.missing(&images, &[]).len()), (all, missing), "{name}");
    }
    // What is taken away with one name does not take the other's index along.
    scratch.store.remove("h:1/r:2", plain(), &[]).unwrap();
    assert!(scratch.store.content().contains(&digest(&first.index)));
    assert_eq!(sorted(&scratch.reopened().store), [here, "ppc64le", "s390x"]);
}

#[test]
fn privileged_what_comes_without_an_index_takes_the_name_from_all() {
    let (scratch, remote, here) = (Scratch::new(), two(), image::host_architecture());
    let ids = [0, 1].map(|number| remote.pull(&scratch.store, number));
    // The registry gives the manifest alone now.
    assert_eq!(remote.images[0].pull(&scratch.store, &["h:1/r:1".to_owned()], None), ids[0]);
    assert_eq!(platforms(&scratch.store, "h:1/r:1"), [here]);
    let by_digest = format!("h:1/r@{}", digest(&remote.index));
    let scratch = scratch.reopened();
    assert_eq!(platforms(&scratch.store, "h:1/r:1"), [here]);
    assert_eq!(platforms(&scratch.store, &by_digest), [here, "s390x"], "the digest still stands for both");
}

#[test]
fn privileged_a_repository_is_saved_for_the_platform_that_is_asked_for() {
    let (scratch, remote) = (Scratch::new(), two());
    let ids = [0, 1].map(|number| remote.pull(&scratch.store, number));
    let is_wanted = |platform: &Platform| platform.architecture == "s390x";
    let platform = image::WantedPlatform { text: "linux/s390x".to_owned(), is_wanted: &is_wanted };
    for name in ["h:1/r", "h:1/r:1", &format!("h:1/r@{}", digest(&remote.index))] {
        let saving = image::save(&scratch.store, &[name.to_owned()], Some(&platform)).unwrap();
        assert_eq!(saving.ids().collect::<Vec<_>>(), [&ids[1]], "{name}");
    }
}

#[test]
fn privileged_a_platform_in_use_keeps_the_last_name_of_all() {
    let (scratch, remote) = (Scratch::new(), two());
    let ids = [0, 1].map(|number| remote.pull(&scratch.store, number));
    let user = ImageUser { image: ids[1].clone(), container: "c".to_owned(), running: false };
    let refused = scratch.store.remove("h:1/r:1", plain(), &[user]);
    assert!(matches!(&refused, Err(RemoveError::LastName { image, .. }) if *image == ids[1]), "{refused:?}");
    assert_eq!(platforms(&scratch.store, "h:1/r:1").len(), 2);
}

#[test]
fn privileged_a_tag_of_several_is_a_name_of_all_of_them() {
    let (scratch, remote, here) = (Scratch::new(), two(), image::host_architecture());
    let ids = [0, 1].map(|number| remote.pull(&scratch.store, number));
    scratch.store.tag("h:1/r:1", &"copy:1".parse().unwrap()).unwrap();
    scratch.store.tag("copy:1", &"copy:1".parse().unwrap()).unwrap();
    scratch.store.tag(ids[1].as_str(), &"alone:1".parse().unwrap()).unwrap();
    scratch.store.remove("h:1/r:1", plain(), &[]).unwrap();
    let scratch = scratch.reopened();
    assert_eq!(platforms(&scratch.store, "copy:1"), [here, "s390x"]);
    assert_eq!(platforms(&scratch.store, "alone:1"), ["s390x"]);
    // What has a name of its own stays.
    scratch.store.remove("copy:1", plain(), &[]).unwrap();
    assert_eq!(scratch.store.list().iter().map(|image| image.id.clone()).collect::<Vec<_>>(), [ids[1].clone()]);
    scratch.store.remove("alone:1", plain(), &[]).unwrap();
    assert!(leftovers(scratch.dir.path()).is_empty());
}

#[test]
fn privileged_one_platform_goes_and_the_others_stay() {
    for (number, left) in [(0, "s390x"), (1, image::host_architecture())] {
        let (scratch, remote) = (Scratch::new(), two());
        let ids = [0, 1].map(|number| remote.pull(&scratch.store, number));
        let gone = ids[number].clone();
        let user = [ImageUser { container: "0123456789abcdef".into(), image: gone.clone(), running: false }];
        let refused = remove_platform(&scratch.store, "h:1/r:1", plain(), &user, &|image| image.id == gone);
        assert!(matches!(refused, Err(RemoveError::Conflict { .. })), "{refused:?}");
        remove_platform(&scratch.store, "h:1/r:1", plain(), &[], &|image| image.id == gone).unwrap();
        let scratch = scratch.reopened();
        assert_eq!(platforms(&scratch.store, "h:1/r:1"), [left]);
        assert!(scratch.store.get(&gone).is_none());
        // The last one goes as an image that was alone.
        remove_platform(&scratch.store, "h:1/r:1", plain(), &[], &|_| true).unwrap();
        assert!(leftovers(scratch.dir.path()).is_empty());
    }
}

#[test]
fn privileged_an_image_that_goes_by_its_id_leaves_its_names_to_the_others() {
    let (scratch, remote) = (Scratch::new(), two());
    let ids = [0, 1].map(|number| remote.pull(&scratch.store, number));
    scratch.store.remove(ids[0].as_str(), plain(), &[]).unwrap();
    let scratch = scratch.reopened();
    assert_eq!(platforms(&scratch.store, "h:1/r:1"), ["s390x"]);
    scratch.store.remove(ids[1].as_str(), plain(), &[]).unwrap();
    assert!(leftovers(scratch.dir.path()).is_empty());
}

#[test]
fn privileged_a_name_of_its_own_goes_and_the_image_stays_beside_another() {
    let (scratch, remote, here) = (Scratch::new(), two(), image::host_architecture());
    let ids = [0, 1].map(|number| remote.pull(&scratch.store, number));
    scratch.store.tag(ids[1].as_str(), &"own:1".parse().unwrap()).unwrap();
    let removed = scratch.store.remove("own:1", plain(), &[]).unwrap();
    assert_eq!(removed.len(), 1, "the name alone: {removed:?}");
    assert_eq!(platforms(&scratch.store, "h:1/r:1"), [here, "s390x"]);
}

#[test]
fn privileged_what_goes_by_nobodys_word_goes_whole_or_not_at_all() {
    let (scratch, remote) = (Scratch::new(), two());
    let [here, there] = [0, 1].map(|number| remote.pull(&scratch.store, number));
    let store = &scratch.store;
    let seen = |ids: &[&Digest]| ids.iter().map(|id| store.get(id).unwrap()).collect::<Vec<_>>();
    let both = seen(&[&here, &there]);
    // Each has a name together with the other.
    for alone in [&here, &there] {
        assert_eq!(evict(store, &seen(&[alone]), &|_| false).unwrap(), None);
    }
    assert_eq!(evict(store, &both, &|image| image.id == there).unwrap(), None, "somebody needs it");
    // Named since it was seen.
    store.tag(there.as_str(), &"mine:1".parse().unwrap()).unwrap();
    assert_eq!(evict(store, &both, &|_| false).unwrap(), None);
    store.remove("mine:1", plain(), &[]).unwrap();
    // Built from since.
    let parent = store.get(&here).unwrap();
    let child =
        image::derive(store, Some(&*parent), (None, image::Lasting::Now), |config| config.author = "b".to_owned())
            .unwrap();
    let both = seen(&[&here, &there]);
    assert_eq!(evict(store, &both, &|_| false).unwrap(), None);
    store.remove(child.id.as_str(), plain(), &[]).unwrap();
    assert_eq!(store.list().len(), 2, "nothing was changed");
    let gone = evict(store, &seen(&[&here, &there]), &|_| false).unwrap().unwrap();
    let untagged = gone.iter().filter(|gone| matches!(gone, Removed::Untagged { .. })).count();
    assert_eq!((untagged, gone.len()), (2, 6), "{gone:?}");
    assert_eq!((store.list().len(), store.content().list().unwrap().len()), (0, 0));
    assert!(leftovers(scratch.dir.path()).is_empty());
    assert_eq!(evict(store, &both, &|_| false).unwrap(), None, "it is gone already");
}

#[test]
fn privileged_what_images_take_is_each_part_once() {
    let (scratch, remote) = (Scratch::new(), two());
    for number in [0, 1] {
        remote.pull(&scratch.store, number);
    }
    let all = image::image_parts(&scratch.store).unwrap();
    let blobs: HashMap<Part, u64> = all.iter().flat_map(|one| one.parts.clone()).collect();
    let kept = blobs.iter().filter(|(part, _)| matches!(part, Part::Blob(_))).map(|(_, bytes)| bytes).sum::<u64>();
    let content = scratch.store.content();
    let on_disk = content.list().unwrap().iter().map(|blob| content.size(blob).unwrap().unwrap()).sum::<u64>();
    assert_eq!(kept, on_disk, "layers as they came, recipes, documents, the index once");
    assert_eq!(image::blob_bytes(&scratch.store).unwrap(), on_disk);
    assert_eq!(blobs.values().sum::<u64>(), kept + scratch.store.layer_usage().total_bytes());
    // Of one alone: its layer, its recipe, the compressed layer, configuration, manifest, and the index.
    assert_eq!(all.iter().map(|one| one.parts.len()).collect::<Vec<_>>(), [6, 6]);
    // They are not measured again: what is needed is taken to be as it was.
    content.list().unwrap().iter().for_each(|blob| content.remove(blob).unwrap());
    assert_eq!(image::blob_bytes(&scratch.store).unwrap(), on_disk);
    let scratch = scratch.reopened();
    assert_eq!((scratch.store.list().len(), image::blob_bytes(&scratch.store).unwrap()), (0, 0));
}
