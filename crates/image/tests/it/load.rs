use std::fs;
use std::io;

use image::{LoadEvent, Loaded, ResolveError, Store};
use oci::Reference;
use serde_json::json;

use crate::archive::{Compress, Files, config, digest, docker, docker_with, gzip, layer, layout, tar, zstd};
use crate::{Scratch, leftovers, names};

fn two_layers() -> Vec<Vec<u8>> {
    vec![layer(&[("bin/sh", "shell"), ("etc/a", "1")]), layer(&[("etc/.wh.a", ""), ("etc/b", "22")])]
}

fn check_two_layers(store: &Store, name: &str) {
    let image = store.resolve(name).unwrap();
    assert_eq!((image.chain.len(), image.size_bytes), (2, 8));
    assert_eq!(image.config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
    assert_eq!(image.id, digest(&store.content().read(&image.id, 10_000).unwrap()));
    let top = store.snapshots().layer(&image.chain[1]);
    assert_eq!(fs::read(top.join("etc/b")).unwrap(), b"22");
    let mounts = store.snapshots().view(&image.chain).unwrap();
    assert_eq!(mounts[0].options[0], format!("lowerdir+={}", top.display()));
}

#[test]
fn privileged_every_shape_of_archive_loads() {
    let layers = two_layers();
    let compressed: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(layer)).collect();
    let shapes: Vec<(Files, bool)> = vec![
        (docker(Some("a:1"), &layers, ""), false),
        (docker(Some("a:1"), &layers, "").into_iter().rev().collect(), false),
        (docker_with(Some("a:1"), &compressed, &config(&layers, "")), false),
        (layout("docker.io/library/a:1", &layers, gzip, ""), true),
        (layout("a:1", &layers, zstd, ""), true),
        (layout("a:1", &layers, <[u8]>::to_vec, ""), false),
    ];
    let wrap: [Compress; 3] = [<[u8]>::to_vec, gzip, zstd];
    for (index, (files, keeps_layers)) in shapes.into_iter().enumerate() {
        for wrap in wrap {
            let scratch = Scratch::new();
            let loaded = scratch.store.load(&wrap(&tar(&files))[..], &mut |_| {}).unwrap();
            assert_eq!(loaded.len(), 1, "{index}");
            check_two_layers(&scratch.store, "a:1");
            let blobs = names(&scratch.dir.path().join("content/blobs/sha256")).len();
            // Two recipes; what the manifest needs, and the index through which it came.
            assert_eq!(blobs, 2 + if keeps_layers { 5 } else { 1 }, "{index}");
            assert_eq!(scratch.store.resolve("a:1").unwrap().manifest.is_some(), keeps_layers);
            let scratch = scratch.reopened();
            check_two_layers(&scratch.store, "a:1");
            assert_eq!(names(&scratch.dir.path().join("content/blobs/sha256")).len(), blobs);
        }
    }
}

#[test]
fn privileged_links_in_an_archive_are_followed() {
    let layers = two_layers();
    let mut files = docker(Some("a:1"), &layers, "");
    let (path, data) = files[1].clone();
    files[1] = (path, b"link:../real/layer.tar".to_vec());
    files.insert(0, ("real/layer.tar".into(), data));
    let scratch = Scratch::new();
    scratch.load(&files).unwrap();
    check_two_layers(&scratch.store, "a:1");
}

#[test]
fn privileged_what_is_there_is_not_unpacked_again() {
    not_again(&docker(Some("a:1"), &two_layers(), ""));
    not_again(&layout("a:1", &two_layers(), gzip, ""));
}

fn not_again(files: &Files) {
    let scratch = Scratch::new();
    let layers = |events: &[LoadEvent]| events.iter().filter(|event| matches!(event, LoadEvent::Layer { .. })).count();
    assert_eq!(layers(&scratch.events(files)), 2);
    let inode = |scratch: &Scratch| {
        use std::os::unix::fs::MetadataExt;
        let image = scratch.store.resolve("a:1").unwrap();
        fs::metadata(scratch.store.snapshots().layer(&image.chain[0])).unwrap().ino()
    };
    let before = inode(&scratch);
    let again = scratch.events(files);
    assert_eq!((layers(&again), again.len()), (0, 1));
    assert_eq!(inode(&scratch), before);
    // One more layer on top of the same: only that is new.
    let mut three = two_layers();
    three.push(layer(&[("c", "3")]));
    assert_eq!(layers(&scratch.events(&docker(Some("a:2"), &three, ""))), 1);
}

#[test]
fn privileged_one_layer_can_stand_at_several_places() {
    let scratch = Scratch::new();
    let base = layer(&[("d/x", "1")]);
    let files = docker(Some("a:1"), &[base.clone(), base.clone(), layer(&[]), layer(&[])], "");
    scratch.load(&files).unwrap();
    let image = scratch.store.resolve("a:1").unwrap();
    assert_eq!(image.chain.len(), 4);
    for chain_id in &image.chain[..2] {
        assert_eq!(fs::read(scratch.store.snapshots().layer(chain_id).join("d/x")).unwrap(), b"1");
    }
    // Named by its digest and known: hashed, not unpacked, and then needed at a place where it is not.
    let mut other = docker(Some("b:1"), &[layer(&[("y", "2")]), base.clone()], "");
    let manifest = String::from_utf8(other[3].1.clone()).unwrap();
    let named = format!("{}/layer.tar", digest(&base).hex());
    other[3].1 = manifest.replace(&other[1].0, &named).into_bytes();
    other[1].0 = named;
    // First, it must be what its name says.
    let mut lie = other.clone();
    lie[1].1 = layer(&[("evil", "3")]);
    assert!(scratch.load(&lie).unwrap_err().to_string().starts_with("wrong digest or size"));
    scratch.load(&other).unwrap();
    let image = scratch.store.resolve("b:1").unwrap();
    assert_eq!(fs::read(scratch.store.snapshots().layer(&image.chain[1]).join("d/x")).unwrap(), b"1");
}

#[test]
fn privileged_a_name_moves_to_the_new_image() {
    let scratch = Scratch::new();
    let first = scratch.load(&docker(Some("a"), &[], "")).unwrap_err();
    assert_eq!(first.to_string(), "invalid tag \"a\"");
    let old = scratch.load(&docker(Some("a:latest"), &two_layers(), "one")).unwrap()[0].id.clone();
    let events = scratch.events(&docker(Some("a:latest"), &two_layers(), "two"));
    let reference: Reference = "a:latest".parse().unwrap();
    let new = scratch.store.resolve("a").unwrap();
    assert_ne!(new.id, old);
    let loaded = Loaded { id: new.id.clone(), references: vec![reference.clone()] };
    assert_eq!(events, [LoadEvent::Renamed { reference, old: old.clone() }, LoadEvent::Loaded(loaded)]);
    assert!(scratch.store.get(&old).unwrap().repo_tags().is_empty());
    assert_eq!(scratch.store.list().len(), 2);
    assert_eq!(scratch.reopened().store.resolve("a").unwrap().id, new.id);
}

#[test]
fn privileged_a_broken_archive_leaves_nothing() {
    let layers = two_layers();
    let good = docker(Some("a:1"), &layers, "");
    let with = |index: usize, data: &[u8]| {
        let mut files = good.clone();
        files[index].1 = data.to_vec();
        tar(&files)
    };
    let without = |index: usize| {
        let mut files = good.clone();
        files.remove(index);
        tar(&files)
    };
    let manifest = |change: fn(&mut serde_json::Value)| {
        let mut value: serde_json::Value = serde_json::from_slice(&good[3].1).unwrap();
        change(&mut value[0]);
        with(3, value.to_string().as_bytes())
    };
    let config = |config: &[u8]| tar(&docker_with(Some("a:1"), &layers, config));
    let lower = digest(&layers[0]);
    let windows = json!({ "os": "windows", "rootfs": { "type": "layers", "diff_ids": [lower, lower] } });
    let same = json!({ "os": "linux", "rootfs": { "type": "layers", "diff_ids": [lower, lower] } });
    let escape = layer(&[]).into_iter().collect::<Vec<u8>>();
    let bomb = zstd(&tar(&[("zeros".into(), vec![0; 100 * 1024 * 1024])]));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (with(1, &bomb), "read layer: read archive: it inflates to more than any layer of its size"),
        (b"junk".repeat(1000), "archive/tar: invalid tar header"),
        (b"\xfd7zXZ\0and so on".to_vec(), "read archive: "),
        (tar(&good)[..1500].to_vec(), "unexpected EOF"),
        (tar(&[]), "invalid archive: does not contain a manifest.json"),
        (with(3, b"null"), "invalid manifest, manifest cannot be null (but can be [])"),
        (with(3, b"{"), "invalid archive: failed to decode manifest.json"),
        (config(b"{}"), "invalid image JSON, no RootFS key"),
        (config(windows.to_string().as_bytes()), "cannot load windows image on linux"),
        (config(same.to_string().as_bytes()), "invalid diffID for layer 1: expected "),
        (config(br#"{"rootfs":{"type":"layers"}}"#), "invalid manifest, layers length mismatch: expected 2, got 0"),
        (without(0), "open "),
        (without(2), "open "),
        (with(1, b"not a layer"), "archive/tar: invalid tar header"),
        (with(1, &gzip(b"not a layer")), "read layer"),
        (with(1, &gzip(&layers[1])[..40]), "read layer"),
        (with(1, &escape), "invalid diffID for layer 1: expected "),
        (manifest(|entry| entry["RepoTags"] = json!(["BAD:1"])), "invalid reference format"),
        (manifest(|entry| entry["RepoTags"] = json!(["a"])), "invalid tag \"a\""),
        (manifest(|entry| entry["Config"] = json!("../../../etc/passwd")), "open ../../../etc/passwd"),
    ];
    let scratch = Scratch::new();
    for (bytes, sentence) in cases {
        let err = scratch.store.load(&bytes[..], &mut |_| {}).unwrap_err();
        let err = errdefs::chain(&err);
        assert!(err.starts_with(sentence), "{err} is not {sentence}");
        assert_eq!(leftovers(scratch.dir.path()), Vec::<std::path::PathBuf>::new(), "{sentence}");
        assert!(scratch.store.list().is_empty());
    }
    assert!(scratch.store.sweep().unwrap() > 0);
    assert!(names(&scratch.dir.path().join("snapshots/trash")).is_empty());
}

#[test]
fn privileged_a_layout_is_what_its_descriptors_say() {
    let good = layout("a:1", &two_layers(), gzip, "");
    for index in 1..good.len() - 1 {
        let mut files = good.clone();
        // A good layer, document or whatever, but another one.
        files[index].1 = if index == 2 || index == 3 { gzip(&layer(&[("z", "z")])) } else { b"{}".to_vec() };
        let scratch = Scratch::new();
        let err = scratch.load(&files).unwrap_err().to_string();
        assert!(err.starts_with("wrong digest or size") || err.starts_with("invalid diffID"), "{index}: {err}");
        assert!(leftovers(scratch.dir.path()).is_empty());
    }
}

#[test]
fn an_endless_archive_of_documents_is_refused() {
    struct Endless(Vec<u8>, usize);
    impl io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let from = &self.0[self.1..];
            let count = from.len().min(buffer.len());
            buffer[..count].copy_from_slice(&from[..count]);
            self.1 = (self.1 + count) % self.0.len();
            Ok(count)
        }
    }
    let mut entry = tar(&[("a.json".into(), vec![b' '; 1_000_000])]);
    entry.truncate(entry.len() - 1024);
    let scratch = Scratch::new();
    let err = scratch.store.load(Endless(entry, 0), &mut |_| {}).unwrap_err();
    assert!(err.to_string().contains("size of all documents"), "{err}");
}

#[test]
fn privileged_names_mean_what_they_mean_to_docker() {
    let scratch = Scratch::new();
    scratch.load(&docker(Some("a:1"), &two_layers(), "")).unwrap();
    scratch.load(&docker(None, &two_layers(), "untagged")).unwrap();
    let image = scratch.store.resolve("a:1").unwrap();
    let hex = image.id.hex();
    for name in [
        "a:1",
        "docker.io/library/a:1",
        image.id.as_str(),
        hex,
        &hex[..12],
        &hex[..6],
        &format!("sha256:{}", &hex[..9]),
    ] {
        assert_eq!(scratch.store.resolve(name).unwrap().id, image.id, "{name}");
    }
    let zeros = "0".repeat(64);
    for (name, sentence) in [
        ("a", "No such image: a:latest"),
        ("a:2", "No such image: a:2"),
        ("reg.example:5000/a", "No such image: reg.example:5000/a:latest"),
        (&zeros, &format!("No such image: sha256:{zeros}")),
        (&format!("a@sha256:{zeros}"), &format!("No such image: a@sha256:{zeros}")),
        ("a b", "invalid reference format"),
    ] {
        let err = scratch.store.resolve(name).unwrap_err();
        assert_eq!(err.to_string(), *sentence);
        assert_eq!(matches!(err, ResolveError::Reference(_)), sentence.starts_with("invalid"));
    }
}

#[test]
fn privileged_a_torn_database_is_set_aside_and_said() {
    let scratch = Scratch::new();
    scratch.load(&docker(Some("a:1"), &two_layers(), "")).unwrap();
    let database = scratch.dir.path().join("images.redb");
    drop(scratch.store);
    let good = fs::read(&database).unwrap();
    for torn in [&b"garbage"[..], &good[..good.len() / 2], &[0; 8192]] {
        fs::write(&database, torn).unwrap();
        let store = Store::open(scratch.dir.path()).unwrap();
        assert_eq!(store.torn().len(), 1);
        assert!(store.torn()[0].contains("images.redb.torn-"));
        assert!(store.list().is_empty());
        // What nobody names any more may still be wanted.
        assert_eq!(names(&scratch.dir.path().join("snapshots/l")).len(), 2);
    }
    fs::write(&database, good).unwrap();
    let store = Store::open(scratch.dir.path()).unwrap();
    check_two_layers(&store, "a:1");
}

#[test]
fn a_root_has_one_owner() {
    let scratch = Scratch::new();
    assert!(Store::open(scratch.dir.path()).is_err());
}
