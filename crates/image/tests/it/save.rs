use std::fs;
use std::io::{self, Read, Write};

use expect_test::{Expect, expect};
use image::{LayerTarError, RemoveOptions, SaveError, Store, WantedPlatform};
use oci::Digest;
use oci::image::Platform;
use redb::ReadableTable as _;

use crate::Scratch;
use crate::archive::{Files, config, digest, docker, gzip, layer, layout, tar};

fn layers() -> Vec<Vec<u8>> {
    // The second one replaces its own file, and ends as no other tar does.
    let mut second = layer(&[("etc/.wh.a", ""), ("etc/b", "22"), ("etc/b", "333")]);
    second.extend_from_slice(b"behind the end");
    vec![layer(&[("bin/sh", "shell"), ("etc/a", "1")]), second]
}

fn saved(store: &Store, names: &[&str]) -> Result<Vec<u8>, SaveError> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut archive = Vec::new();
    image::save(store, &names, None)?.write(&mut archive)?;
    Ok(archive)
}

/// The image that `a:1` means, whatever index it came through.
fn saved_alone(store: &Store) -> Result<Vec<u8>, SaveError> {
    let platform = WantedPlatform { text: String::new(), is_wanted: &|_| true };
    let mut archive = Vec::new();
    image::save(store, &["a:1".to_owned()], Some(&platform))?.write(&mut archive)?;
    Ok(archive)
}

/// Files of an archive, directories without contents.
fn files(archive: &[u8]) -> Files {
    let mut archive = tar::Archive::new(archive);
    let read = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().display().to_string(), bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

fn text<'a>(files: &'a Files, path: &str) -> &'a str {
    let (_, bytes) = files.iter().find(|(other, _)| other == path).unwrap();
    std::str::from_utf8(bytes).unwrap()
}

fn check(actual: &str, expected: Expect) {
    expected.assert_eq(actual);
}

#[test]
fn privileged_an_archive_has_what_was_loaded_to_the_byte() {
    let scratch = Scratch::new();
    scratch.load(&docker(Some("a:1"), &layers(), "")).unwrap();
    let archive = saved(&scratch.store, &["a:1"]).unwrap();
    let files = files(&archive);
    let paths: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
    assert!(paths.is_sorted(), "{paths:?}");
    for bytes in layers().iter().chain([&config(&layers(), "")]) {
        let path = format!("blobs/sha256/{}", digest(bytes).hex());
        let (_, found) = files.iter().find(|(other, _)| *other == path).unwrap();
        assert!(found == bytes, "{path}");
    }
    for (path, bytes) in files.iter().filter(|(path, _)| path.len() > 70) {
        assert_eq!(*path, format!("blobs/sha256/{}", digest(bytes).hex()));
    }
    check(
        text(&files, "manifest.json"),
        expect![[r#"
        [{"Config":"blobs/sha256/1eb227f9e30dc4dd9dfede587e96c573a5a36a6f622b6aecd23dc644a10a0108","RepoTags":["a:1"],"Layers":["blobs/sha256/eb8cbd37fce409d4cd374ecc8ba1e44c2a718ac6c1c2cfa96262f493667f4dc5","blobs/sha256/7cd794fc4e6d96ccd7aeeed3d305a868c15ba20058705d983fbd04bb294d8821"],"LayerSources":{"sha256:7cd794fc4e6d96ccd7aeeed3d305a868c15ba20058705d983fbd04bb294d8821":{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":3598,"digest":"sha256:7cd794fc4e6d96ccd7aeeed3d305a868c15ba20058705d983fbd04bb294d8821"},"sha256:eb8cbd37fce409d4cd374ecc8ba1e44c2a718ac6c1c2cfa96262f493667f4dc5":{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":3072,"digest":"sha256:eb8cbd37fce409d4cd374ecc8ba1e44c2a718ac6c1c2cfa96262f493667f4dc5"}}}]
    "#]],
    );
    check(
        text(&files, "repositories"),
        expect![[r#"
        {"a":{"1":"7cd794fc4e6d96ccd7aeeed3d305a868c15ba20058705d983fbd04bb294d8821"}}
    "#]],
    );
    check(
        text(&files, "index.json"),
        expect![[
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:4881fcafd68f7ba470eecf7294919511bf51382934de857bd768454a26dbfa87","size":547,"annotations":{"io.containerd.image.name":"docker.io/library/a:1","org.opencontainers.image.ref.name":"1"}}]}"#
        ]],
    );
    check(text(&files, "oci-layout"), expect![[r#"{"imageLayoutVersion": "1.0.0"}"#]]);
    // And again: from another store, in another form, under another root.
    let other = Scratch::new();
    other.store.load(&archive[..], &mut |_| {}).unwrap();
    assert!(saved(&other.store, &["a:1"]).unwrap() == archive);
    assert_eq!(other.store.resolve("a:1").unwrap().id, scratch.store.resolve("a:1").unwrap().id);
    let pulled = Scratch::new();
    pulled.load(&layout("docker.io/library/a:1", &layers(), gzip, "")).unwrap();
    assert!(saved_alone(&pulled.reopened().store).unwrap() == archive);
}

#[test]
fn privileged_layers_of_several_images_are_saved_once() {
    let scratch = Scratch::new();
    let [lower, upper] = &layers()[..] else { unreachable!() };
    scratch.load(&docker(Some("a:1"), std::slice::from_ref(lower), "one")).unwrap();
    scratch.load(&docker(Some("b:1"), &[lower.clone(), upper.clone(), lower.clone()], "two")).unwrap();
    let two = files(&saved(&scratch.store, &["b:1", "a"]).unwrap());
    let of_layers = [lower, upper].map(|layer| format!("blobs/sha256/{}", digest(layer).hex()));
    for path in &of_layers {
        assert_eq!(two.iter().filter(|(other, _)| other == path).count(), 1);
    }
    let again = Scratch::new();
    again.load(&two).unwrap();
    for name in ["a:1", "b:1"] {
        let (there, here) = (again.store.resolve(name).unwrap(), scratch.store.resolve(name).unwrap());
        assert_eq!((&there.id, &there.chain, &there.references), (&here.id, &here.chain, &here.references));
    }
}

#[test]
fn privileged_names_are_looked_up_as_dockerd_does() {
    let scratch = Scratch::new();
    let id = scratch.load(&docker(Some("a:2"), &layers(), "")).unwrap()[0].id.clone();
    scratch.store.tag("a:2", &"a:10".parse().unwrap()).unwrap();
    scratch.store.tag("a:2", &"other:1".parse().unwrap()).unwrap();
    let tags = |name: &str| {
        let archive = files(&saved(&scratch.store, &[name]).unwrap());
        let manifest: serde_json::Value = serde_json::from_str(text(&archive, "manifest.json")).unwrap();
        manifest[0]["RepoTags"].to_string()
    };
    assert_eq!(tags("a:2"), r#"["a:2"]"#);
    assert_eq!(tags("a"), r#"["a:10","a:2"]"#);
    assert_eq!(tags("other"), r#"["other:1"]"#);
    for name in [id.as_str(), id.hex(), &id.hex()[..12], &id.as_str()[..20]] {
        assert_eq!(tags(name), "null", "{name}");
    }
    let refused = |name: &str| saved(&scratch.store, &["a:2", name]).unwrap_err().to_string();
    assert_eq!(refused("none"), "No such image: none");
    assert_eq!(refused("a:3"), "reference does not exist");
    assert_eq!(refused("sha256:0000"), "No such image: sha256:0000");
    assert_eq!(refused(&"0".repeat(64)), format!("No such image: sha256:{}", "0".repeat(64)));
    assert_eq!(refused(""), "invalid reference format");
    assert_eq!(refused("A"), "invalid reference format: repository name (library/A) must be lowercase");
    let nothing = files(&saved(&scratch.store, &[]).unwrap());
    assert_eq!(nothing.len(), 3);
    assert_eq!(text(&nothing, "manifest.json"), "null\n");
    let platform = |wanted: bool| {
        let is_wanted = move |_: &Platform| wanted;
        let platform = WantedPlatform { text: "linux/arm64".to_owned(), is_wanted: &is_wanted };
        image::save(&scratch.store, &["a:2".to_owned()], Some(&platform)).map(drop).map_err(|err| err.to_string())
    };
    assert_eq!(platform(true), Ok(()));
    assert_eq!(platform(false), Err("no suitable export target found for platform linux/arm64".to_owned()));
}

#[test]
fn privileged_what_is_removed_while_it_is_saved_is_saved_whole() {
    let scratch = Scratch::new();
    scratch.load(&docker(Some("a:1"), &layers(), "")).unwrap();
    let whole = saved(&scratch.store, &["a:1"]).unwrap();
    let saving = image::save(&scratch.store, &["a:1".to_owned()], None).unwrap();
    scratch.store.remove("a:1", RemoveOptions { force: true, prune_parents: true }, &[]).unwrap();
    scratch.store.collect().unwrap();
    scratch.store.sweep().unwrap();
    let mut archive = Vec::new();
    saving.write(&mut archive).unwrap();
    assert!(archive == whole);
    drop(saving);
    scratch.store.collect().unwrap();
    scratch.store.sweep().unwrap();
    assert_eq!(crate::leftovers(scratch.dir.path()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn privileged_a_layer_that_changed_is_never_saved_as_if_it_had_not() {
    let scratch = Scratch::new();
    scratch.load(&docker(Some("a:1"), &layers(), "")).unwrap();
    let image = scratch.store.resolve("a:1").unwrap();
    fs::write(scratch.store.snapshots().layer(&image.chain[0]).join("bin/sh"), "SHELL").unwrap();
    let err = saved(&scratch.store, &["a:1"]).unwrap_err();
    assert!(matches!(err, SaveError::Layer(LayerTarError::Recreate(_))), "{err}");
}

#[test]
fn privileged_who_takes_no_more_ends_it() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let scratch = Scratch::new();
    scratch.load(&docker(Some("a:1"), &layers(), "")).unwrap();
    let length = saved(&scratch.store, &["a:1"]).unwrap().len();
    for room in (0..length).step_by(1_000) {
        image::save(&scratch.store, &["a:1".to_owned()], None).unwrap().write(&mut Full(room)).unwrap_err();
    }
    image::save(&scratch.store, &["a:1".to_owned()], None).unwrap().write(&mut Full(length)).unwrap();
}

/// A layer of a version that recorded nothing, with its blob and without.
#[test]
fn privileged_layers_without_recipe_come_from_their_blob() {
    for (files, has_blob) in
        [(layout("docker.io/library/a:1", &layers(), gzip, ""), true), (docker(Some("a:1"), &layers(), ""), false)]
    {
        let scratch = Scratch::new();
        scratch.load(&files).unwrap();
        let whole = saved_alone(&scratch.store).unwrap();
        let scratch = without_recipes(scratch);
        let archive = saved_alone(&scratch.store);
        match has_blob {
            true => assert!(archive.unwrap() == whole),
            false => {
                let err = archive.unwrap_err().to_string();
                assert!(err.contains("was stored by an earlier version"), "{err}");
            }
        }
    }
}

/// The same store as if such a version had written it.
fn without_recipes(scratch: Scratch) -> Scratch {
    drop(scratch.store);
    let table: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("layers");
    let database = redb::Database::open(scratch.dir.path().join("images.redb")).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut layers = write.open_table(table).unwrap();
        let mut rows: Vec<(String, Vec<u8>)> = Vec::new();
        for row in layers.iter().unwrap() {
            let (key, value) = row.unwrap();
            rows.push((key.value().to_owned(), value.value().to_vec()));
        }
        for (key, value) in rows {
            let mut layer: serde_json::Value = serde_json::from_slice(&value).unwrap();
            layer.as_object_mut().unwrap().remove("recipe").unwrap();
            layers.insert(&key[..], &serde_json::to_vec(&layer).unwrap()[..]).unwrap();
        }
    }
    write.commit().unwrap();
    drop(database);
    Scratch { store: Store::open(scratch.dir.path()).unwrap(), dir: scratch.dir }
}

#[test]
fn privileged_an_image_without_layers_is_refused() {
    let scratch = Scratch::new();
    scratch.load(&docker(Some("a:1"), &[], "")).unwrap();
    assert_eq!(saved(&scratch.store, &["a:1"]).unwrap_err().to_string(), "empty export - not implemented");
}

fn ids(scratch: &Scratch) -> Vec<Digest> {
    scratch.store.list().iter().map(|image| image.id.clone()).collect()
}

#[test]
fn privileged_an_archive_that_is_loaded_adds_nothing_to_what_is_there() {
    let scratch = Scratch::new();
    scratch.load(&docker(Some("a:1"), &layers(), "")).unwrap();
    let (before, blobs) = (ids(&scratch), crate::leftovers(scratch.dir.path()));
    let archive = saved(&scratch.store, &["a:1"]).unwrap();
    scratch.store.load(&archive[..], &mut |_| {}).unwrap();
    assert_eq!((ids(&scratch), crate::leftovers(scratch.dir.path())), (before, blobs));
}

#[test]
fn privileged_parents_come_back_with_their_images() {
    let scratch = Scratch::new();
    scratch.load(&docker(Some("a:1"), &layers()[..1], "")).unwrap();
    let parent = scratch.store.resolve("a:1").unwrap();
    let step = oci::image::History { created_by: "step".to_owned(), ..Default::default() };
    let configure = |config: &mut oci::image::ImageConfig| config.history.push(step);
    let child =
        scratch.store.build(Some(&parent), &layers()[1][..], Some("b:1".parse().unwrap()), configure).unwrap().id;
    let both = saved(&scratch.store, &["b:1", "a:1"]).unwrap();
    let parent_in = |archive: &[u8]| {
        let scratch = Scratch::new();
        scratch.store.load(archive, &mut |_| {}).map(|_| scratch.store.get(&child).unwrap().parent.clone())
    };
    assert_eq!(parent_in(&both).unwrap(), Some(parent.id.clone()));
    assert_eq!(parent_in(&saved(&scratch.store, &["b:1"]).unwrap()).unwrap(), None, "it is not in the archive");
    let mut files = files(&both);
    let manifest = files.iter_mut().find(|(path, _)| path == "manifest.json").unwrap();
    // The child as the parent's parent, which has no step more.
    let mut items: serde_json::Value = serde_json::from_slice(&manifest.1).unwrap();
    items[1]["Parent"] = serde_json::json!(child);
    manifest.1 = items.to_string().into_bytes();
    let refused = parent_in(&tar(&files)).unwrap_err().to_string();
    assert_eq!(refused, format!("image {child} is not a valid parent for {}", parent.id));
}

/// A later build's other choice changes no digest that a registry has.
#[test]
fn privileged_a_layer_is_compressed_again_as_it_was_before() {
    let scratch = Scratch::new();
    let id = scratch.load(&docker(Some("a:1"), &layers(), "")).unwrap()[0].id.clone();
    let pushed = || image::push_image(&scratch.store, &id).unwrap().layers;
    assert_eq!(pushed().iter().map(|layer| layer.compressor).collect::<Vec<_>>(), [image::COMPRESSOR; 2]);
    let (blob, before) =
        (content::Blob { digest: digest(b"x"), size: 1 }, image::Compressor { level: 4, ..image::COMPRESSOR });
    image::remember_compressed(&scratch.store, &id, 1, &blob, before).unwrap();
    assert_eq!(pushed()[1].compressor, before);
    assert_eq!(pushed()[1].compressed, Some(blob.clone()));
    // Nobody makes the bytes of another version again.
    let earlier = image::Compressor { version: 1, ..before };
    image::remember_compressed(&scratch.store, &id, 1, &blob, earlier).unwrap();
    assert_eq!((pushed()[1].compressor, pushed()[1].compressed.clone()), (image::COMPRESSOR, None));
}
