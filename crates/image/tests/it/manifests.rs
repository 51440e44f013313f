//! A kept manifest never names a blob that is gone.

use std::io::{self, Read};

use image::{RemoveOptions, Store};
use oci::image::{Index, Manifest};
use serde_json::json;

use crate::archive::{Compress, Files, config, digest, docker_with, gzip, layer, layout, tar, zstd};
use crate::{Scratch, leftovers, names};

fn layers() -> Vec<Vec<u8>> {
    vec![layer(&[("a", "1")]), layer(&[("b", "2")])]
}

/// Whether the image keeps its manifest; if so everything that it names is there.
fn keeps_manifest(store: &Store, name: &str) -> bool {
    let image = store.resolve(name).unwrap();
    let Some(descriptor) = &image.manifest else { return false };
    let manifest = store.content().read(&descriptor.digest, 1_000_000).unwrap();
    let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest.config.digest, image.id);
    for layer in &manifest.layers {
        assert!(store.content().contains(&layer.digest), "{name} names {}, which is gone", layer.digest);
    }
    true
}

#[test]
fn privileged_one_layer_compressed_twice_is_kept_for_both_manifests() {
    let scratch = Scratch::new();
    scratch.load(&layout("a:1", &layers(), gzip, "one")).unwrap();
    scratch.load(&layout("b:1", &layers(), zstd, "two")).unwrap();
    let scratch = scratch.reopened();
    assert!(keeps_manifest(&scratch.store, "a:1") && keeps_manifest(&scratch.store, "b:1"));
    scratch.store.remove("a:1", RemoveOptions::default(), &[]).unwrap();
    assert!(keeps_manifest(&scratch.store, "b:1"));
    assert!(keeps_manifest(&scratch.reopened().store, "b:1"));
}

#[test]
fn privileged_another_manifest_of_the_same_image_takes_the_place_of_the_first() {
    let scratch = Scratch::new();
    for compress in [gzip, zstd as Compress, gzip] {
        scratch.load(&layout("a:1", &layers(), compress, "")).unwrap();
        assert!(keeps_manifest(&scratch.store, "a:1"));
        // Configuration, index, manifest, two layers and their recipes.
        assert_eq!(names(&scratch.dir.path().join("content/blobs/sha256")).len(), 7);
    }
    scratch.store.remove("a:1", RemoveOptions::default(), &[]).unwrap();
    assert!(leftovers(scratch.dir.path()).is_empty());
}

/// Gives an archive, and removes an image once the last byte of it was read.
struct RemovingAtTheEnd<'a> {
    archive: &'a [u8],
    store: &'a Store,
    name: &'static str,
}

impl Read for RemovingAtTheEnd<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.archive.read(buffer)?;
        if count == 0 && self.store.resolve(self.name).is_ok() {
            self.store.remove(self.name, RemoveOptions::default(), &[]).unwrap();
        }
        Ok(count)
    }
}

#[test]
fn privileged_what_a_load_counts_on_survives_a_removal_meanwhile() {
    for (first, second) in [("one", "one"), ("one", "two")] {
        let scratch = Scratch::new();
        scratch.load(&layout("a:1", &layers(), gzip, first)).unwrap();
        let archive = tar(&layout("b:1", &layers(), gzip, second));
        let source = RemovingAtTheEnd { archive: &archive, store: &scratch.store, name: "a:1" };
        scratch.store.load(source, &mut |_| {}).unwrap();
        assert!(scratch.store.resolve("a:1").is_err());
        assert!(keeps_manifest(&scratch.store, "b:1"));
        assert!(keeps_manifest(&scratch.reopened().store, "b:1"));
    }
}

/// An archive of both kinds whose OCI manifest names other layers than the configuration has.
fn lying() -> Files {
    let (real, other) = (vec![layer(&[("a", "1")])], gzip(&layer(&[("other", "x")])));
    let config = config(&real, "");
    let mut files = docker_with(Some("a:1"), &[gzip(&real[0])], &config);
    files.push((format!("blobs/sha256/{}", digest(&other).hex()), other.clone()));
    let descriptor = |bytes: &[u8]| json!({ "mediaType": "x", "digest": digest(bytes), "size": bytes.len() });
    let manifest = json!({ "schemaVersion": 2, "config": descriptor(&config), "layers": [descriptor(&other)] });
    let manifest = manifest.to_string().into_bytes();
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor(&manifest)] }).to_string();
    serde_json::from_str::<Index>(&index).unwrap();
    files.push((format!("blobs/sha256/{}", digest(&manifest).hex()), manifest));
    files.push(("index.json".into(), index.into_bytes()));
    files
}

#[test]
fn privileged_a_manifest_that_names_other_layers_is_not_kept() {
    let scratch = Scratch::new();
    scratch.load(&lying()).unwrap();
    assert!(!keeps_manifest(&scratch.store, "a:1"));
}
