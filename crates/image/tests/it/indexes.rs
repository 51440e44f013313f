//! Indexes kept whole: images for several platforms, and what is said about them; saved and loaded with the same digests.

use std::io::Cursor;

use image::{ImageRecord, PulledAttestation, PulledImage, SaveError, Store, pull_with};
use oci::Digest;
use oci::image::{Descriptor, Index};
use serde_json::{Value, json};

use crate::archive::{Files, digest, tar};
use crate::platforms::{Made, describe, made, plain, platforms};
use crate::{Scratch, leftovers};

const NAME: &str = "h:1/r:1";

/// What is said about an image: a manifest and its blobs.
struct Said {
    manifest: Vec<u8>,
    blobs: Vec<Vec<u8>>,
}

/// An index of images, each with what is said about it.
struct Published {
    images: Vec<(Made, Said)>,
    index: Vec<u8>,
}

fn said(text: &str, length: usize) -> Said {
    let statement = format!("{{\"about\":\"{text}\",\"filler\":\"{}\"}}", "x".repeat(length));
    let blobs = vec![b"{}".to_vec(), statement.into_bytes()];
    let layer = describe(&blobs[1], None);
    let manifest = json!({ "schemaVersion": 2, "config": describe(&blobs[0], None), "layers": [layer] });
    Said { manifest: manifest.to_string().into_bytes(), blobs }
}

fn published(architectures: &[&str], length: usize) -> Published {
    let image = |architecture: &&str| (made(architecture, architecture), said(architecture, length));
    let images: Vec<_> = architectures.iter().map(image).collect();
    let entry = |(image, _): &(Made, Said)| json!(describe(&image.manifest, Some(&image.architecture)));
    let about = |(image, said): &(Made, Said)| {
        let mut entry = json!(describe(&said.manifest, Some("unknown")));
        entry["platform"]["os"] = json!("unknown");
        entry["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": digest(&image.manifest),
        });
        entry
    };
    let entries: Vec<Value> = images.iter().map(entry).chain(images.iter().map(about)).collect();
    let index = json!({ "schemaVersion": 2, "manifests": entries }).to_string().into_bytes();
    Published { images, index }
}

impl Published {
    fn entries(&self) -> Index {
        serde_json::from_slice(&self.index).unwrap()
    }

    /// Pulls one of its images, of which `keep` says which blobs of what is said come.
    fn pull(&self, store: &Store, number: usize, keep: impl Fn(&[u8]) -> bool) -> std::sync::Arc<ImageRecord> {
        let (Made { layer, config, manifest, .. }, said) = &self.images[number];
        let image = PulledImage {
            config: config.clone(),
            manifest: serde_json::from_slice(manifest).unwrap(),
            descriptor: describe(manifest, None),
            manifest_bytes: manifest.clone(),
            index: Some((describe(&self.index, None), self.index.clone())),
            references: vec![NAME.parse().unwrap(), format!("h:1/r@{}", digest(&self.index)).parse().unwrap()],
            parent: None,
        };
        let fetch = |_: &Descriptor| {
            store.content().partial(&digest(layer)).unwrap().write(layer).unwrap();
            Cursor::new(layer.clone())
        };
        let beside = || {
            let named = image::attestations_of(&self.entries(), &digest(manifest));
            let ingest = |blob: &Vec<u8>| {
                let mut ingest = store.content().begin().unwrap();
                ingest.write(blob).unwrap();
                ingest
            };
            let blobs = said.blobs.iter().filter(|blob| keep(blob)).map(ingest).collect();
            let one = |descriptor| PulledAttestation { descriptor, manifest: said.manifest.clone(), blobs };
            named.into_iter().next().map(one).into_iter().collect()
        };
        let id = pull_with(store, image, fetch, beside, &|_| {}).unwrap().id;
        store.get(&id).unwrap()
    }

    /// All of it that is in a store, by the digests that a push gives.
    fn missing(&self, store: &Store) -> Vec<Digest> {
        let images = image::resolve_all(store, NAME).unwrap();
        let came = image::came_by(store, &images[0], &NAME.parse().unwrap()).unwrap().unwrap();
        assert_eq!((&came.descriptor.digest, &came.bytes), (&digest(&self.index), &self.index));
        let about = images.iter().map(|image| image::push_attestations(store, image, &digest(&self.index)).unwrap());
        let about: Vec<_> = about.flatten().collect();
        for one in &about {
            assert!(one.addresses().all(|blob| store.content().contains(&blob.digest)));
        }
        came.missing(&images, &about).into_iter().map(|entry| entry.digest.clone()).collect()
    }
}

fn saved(store: &Store) -> Vec<u8> {
    let mut archive = Vec::new();
    image::save(store, &[NAME.to_owned()], None).unwrap().write(&mut archive).unwrap();
    archive
}

fn files(archive: &[u8]) -> Files {
    let mut archive = tar::Archive::new(archive);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let (mut entry, mut bytes) = (entry.unwrap(), Vec::new());
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        (entry.path().unwrap().display().to_string(), bytes)
    };
    archive.entries().unwrap().map(read).filter(|(path, _)| !path.ends_with('/')).collect()
}

#[test]
fn privileged_what_is_said_about_an_image_stays_with_it() {
    let (scratch, remote) = (Scratch::new(), published(&[image::host_architecture(), "s390x"], 10));
    remote.pull(&scratch.store, 0, |_| true);
    let other = [&remote.images[1].0.manifest, &remote.images[1].1.manifest].map(|bytes| digest(bytes));
    assert_eq!(remote.missing(&scratch.store), other);
    remote.pull(&scratch.store, 1, |_| true);
    let scratch = scratch.reopened();
    assert_eq!(remote.missing(&scratch.store), []);
    scratch.store.collect().unwrap();
    let image = scratch.store.resolve(NAME).unwrap();
    assert!(image.is_attested(&describe(&remote.index, None), &remote.entries()));
    assert_eq!(image.attestations().count(), 1);
    let parts = image::image_parts(&scratch.store).unwrap();
    let statement = image::Part::Blob(digest(&remote.images[0].1.blobs[1]));
    assert!(parts.iter().any(|image| image.parts.iter().any(|(part, _)| *part == statement)), "it takes room");
    scratch.store.remove(NAME, plain(), &[]).unwrap();
    assert_eq!(leftovers(scratch.dir.path()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn privileged_what_did_not_come_whole_is_not_kept_and_comes_with_the_next_pull() {
    let (scratch, remote) = (Scratch::new(), published(&[image::host_architecture()], 10));
    let image = remote.pull(&scratch.store, 0, |blob| blob != &remote.images[0].1.blobs[1][..]);
    assert!(!image.is_attested(&describe(&remote.index, None), &remote.entries()));
    assert_eq!(remote.missing(&scratch.store), [digest(&remote.images[0].1.manifest)]);
    assert!(!scratch.store.content().contains(&digest(&remote.images[0].1.manifest)));
    let image = remote.pull(&scratch.store, 0, |_| true);
    assert!(image.is_attested(&describe(&remote.index, None), &remote.entries()));
    assert_eq!(remote.missing(&scratch.store), []);
}

#[test]
fn privileged_all_platforms_are_saved_and_loaded_with_the_same_digests() {
    // What is said of one is longer than any document.
    for length in [10, 5 << 20] {
        let (scratch, remote) = (Scratch::new(), published(&[image::host_architecture(), "s390x", "ppc64le"], length));
        remote.pull(&scratch.store, 0, |_| true);
        remote.pull(&scratch.store, 1, |_| true);
        let absent = [&remote.images[2].0.manifest, &remote.images[2].1.manifest].map(|bytes| digest(bytes));
        assert_eq!(remote.missing(&scratch.store), absent);
        let archive = saved(&scratch.store);
        let manifest = files(&archive).into_iter().find(|(path, _)| path == "manifest.json").unwrap().1;
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let path = |bytes: &[u8]| format!("blobs/sha256/{}", digest(bytes).hex());
        let here = &remote.images[0].0;
        assert_eq!(
            manifest,
            json!([{ "Config": path(&here.config), "RepoTags": [NAME], "Layers": [path(&here.layer)] }])
        );
        let other = Scratch::new();
        let mut names = Vec::new();
        let mut tell = |event| {
            if let image::LoadEvent::Loaded(loaded) = event {
                names.extend(loaded.references);
            }
        };
        other.store.load(&archive[..], &mut tell).unwrap();
        assert_eq!(names, [NAME.parse().unwrap()], "a name is told once");
        let other = other.reopened();
        assert_eq!(platforms(&other.store, NAME), [image::host_architecture(), "s390x"]);
        assert_eq!(remote.missing(&other.store), absent);
        assert!(saved(&other.store) == archive, "the same again");
        // One that knows layouts alone, and one that knows docker-archives alone, find theirs.
        let without =
            |name: &str| tar(&files(&archive).into_iter().filter(|(path, _)| path != name).collect::<Vec<_>>());
        for (left_out, kept) in [("manifest.json", 2), ("index.json", 1)] {
            let third = Scratch::new();
            third.store.load(&without(left_out)[..], &mut |_| {}).unwrap();
            assert_eq!(platforms(&third.store, NAME).len(), kept, "without {left_out}");
        }
        let id = other.store.resolve(NAME).unwrap().id.clone();
        other.store.remove(NAME, plain(), &[]).unwrap();
        assert_eq!(leftovers(other.dir.path()), Vec::<std::path::PathBuf>::new(), "{id}");
    }
}

#[test]
fn privileged_a_blob_that_changed_is_never_saved_as_if_it_had_not() {
    let (scratch, remote) = (Scratch::new(), published(&[image::host_architecture()], 10));
    remote.pull(&scratch.store, 0, |_| true);
    let path = scratch.dir.path().join("content/blobs/sha256").join(digest(&remote.images[0].0.layer).hex());
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let refused = image::save(&scratch.store, &[NAME.to_owned()], None).unwrap().write(&mut Vec::new()).unwrap_err();
    assert!(matches!(refused, SaveError::Changed { .. }), "{refused}");
}

#[test]
fn privileged_an_index_without_an_image_for_this_machine_means_its_first() {
    let (scratch, remote) = (Scratch::new(), published(&["s390x", "ppc64le"], 10));
    remote.pull(&scratch.store, 0, |_| true);
    remote.pull(&scratch.store, 1, |_| true);
    let other = Scratch::new();
    other.store.load(&saved(&scratch.store)[..], &mut |_| {}).unwrap();
    assert_eq!(platforms(&other.store, NAME), ["s390x", "ppc64le"]);
    assert_eq!(remote.missing(&other.store), []);
}

/// Indexes that name each other and themselves, images of other systems, and documents that are none.
#[test]
fn privileged_hostile_indexes_of_a_layout_are_bounded() {
    let blob = |bytes: &[u8]| (format!("blobs/sha256/{}", digest(bytes).hex()), bytes.to_vec());
    let good = made("s390x", "good");
    let mut nested = json!({ "schemaVersion": 2, "manifests": [describe(&good.manifest, Some("s390x"))] }).to_string();
    let mut all: Files = [&good.layer, &good.config, &good.manifest].map(|bytes| blob(bytes)).into();
    for _ in 0..3 {
        all.push(blob(nested.as_bytes()));
        // Ten thousand times the same.
        let entries = vec![describe(nested.as_bytes(), None); 10_000];
        nested = json!({ "schemaVersion": 2, "manifests": entries }).to_string();
    }
    all.push(blob(nested.as_bytes()));
    let top = json!({ "schemaVersion": 2, "manifests": [describe(nested.as_bytes(), None)] });
    all.push(("index.json".to_owned(), top.to_string().into_bytes()));
    let scratch = Scratch::new();
    assert_eq!(scratch.load(&all).unwrap().len(), 1);
    for _ in 0..2 {
        all.push(blob(nested.as_bytes()));
        nested = json!({ "schemaVersion": 2, "manifests": [describe(nested.as_bytes(), None)] }).to_string();
    }
    all.push(blob(nested.as_bytes()));
    let top = json!({ "schemaVersion": 2, "manifests": [describe(nested.as_bytes(), None)] });
    all.push(("index.json".to_owned(), top.to_string().into_bytes()));
    assert_eq!(scratch.load(&all).unwrap_err().to_string(), "indexes nest too deep");
}
