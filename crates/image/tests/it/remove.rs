use image::{ImageUser, RemoveOptions, Removed, TagError};
use oci::{Digest, Reference};

use crate::archive::{docker, layer};
use crate::{Scratch, leftovers, names};

const ID: &str = "0123456789abcdef";

fn force(force: bool) -> RemoveOptions {
    RemoveOptions { force, prune_parents: true }
}

fn user(image: &Digest, running: bool) -> ImageUser {
    ImageUser { container: ID.repeat(4), image: image.clone(), running }
}

fn loaded(tags: &[&str]) -> (Scratch, Digest) {
    let scratch = Scratch::new();
    let layers = [layer(&[("a", "1")]), layer(&[("b", "2")])];
    let id = scratch.load(&docker(None, &layers, "")).unwrap()[0].id.clone();
    for tag in tags {
        scratch.store.tag(id.as_str(), &tag.parse().unwrap()).unwrap();
    }
    (scratch, id)
}

fn lines(removed: &[Removed]) -> Vec<String> {
    let line = |removed: &Removed| match removed {
        Removed::Untagged { reference, .. } => format!("Untagged {}", reference.familiar()),
        Removed::Image(_) => "Deleted image".to_owned(),
        Removed::Layer(_) => "Deleted layer".to_owned(),
    };
    removed.iter().map(line).collect()
}

#[test]
fn privileged_the_last_name_takes_the_image_with_it() {
    let (scratch, id) = loaded(&["a:1", "b:2"]);
    let image = scratch.store.get(&id).unwrap();
    assert_eq!(image.repo_tags(), ["a:1", "b:2"]);
    assert!(image.last_tagged.is_some());
    assert_eq!(lines(&scratch.store.remove("b:2", force(false), &[]).unwrap()), ["Untagged b:2"]);
    let removed = scratch.store.remove("a:1", force(false), &[]).unwrap();
    assert_eq!(lines(&removed), ["Untagged a:1", "Deleted image", "Deleted layer", "Deleted layer"]);
    assert_eq!(removed[2], Removed::Layer(image.chain[1].clone()));
    assert!(leftovers(scratch.dir.path()).is_empty());
    assert_eq!(scratch.store.sweep().unwrap(), 2);
    assert!(scratch.reopened().store.list().is_empty());
}

#[test]
fn privileged_names_given_again_last_and_take_no_room() {
    let (scratch, id) = loaded(&["a:1"]);
    let database = scratch.dir.path().join("images.redb");
    let first = scratch.store.get(&id).unwrap().last_tagged.clone();
    for _ in 0..600 {
        scratch.store.tag(id.as_str(), &"a:1".parse().unwrap()).unwrap();
    }
    assert!(std::fs::metadata(&database).unwrap().len() < 1 << 20);
    let last = scratch.store.get(&id).unwrap().last_tagged.clone();
    assert!(last > first);
    let scratch = scratch.reopened();
    assert_eq!(scratch.store.get(&id).unwrap().last_tagged, last);
    assert_eq!(scratch.store.get(&id).unwrap().repo_tags(), ["a:1"]);
}

#[test]
fn privileged_conflicts_are_docker_s() {
    let check = |tags: &[&str], name: Option<&str>, forced: bool, running: Option<bool>, sentence: &str| {
        let (scratch, id) = loaded(tags);
        let users: Vec<ImageUser> = running.map(|running| user(&id, running)).into_iter().collect();
        let short = &id.hex()[..12];
        let result = scratch.store.remove(name.unwrap_or(short), force(forced), &users);
        match result {
            Ok(removed) => assert_eq!(lines(&removed).join(", "), sentence),
            Err(err) => assert_eq!(err.to_string(), sentence.replace("ID", short)),
        }
    };
    let deleted = "Deleted image, Deleted layer, Deleted layer";
    let in_use = |forced, how| {
        format!(
            "conflict: unable to delete ID ({forced} be forced) - image is being used by {how} container 0123456789ab"
        )
    };
    check(&["a:1"], None, false, None, &format!("Untagged a:1, {deleted}"));
    check(&[], None, false, None, deleted);
    check(
        &["a:1", "b:1"],
        None,
        false,
        None,
        "conflict: unable to delete ID (must be forced) - image is referenced in multiple repositories",
    );
    check(&["a:1", "b:1"], None, true, None, &format!("Untagged a:1, Untagged b:1, {deleted}"));
    check(&["a:1"], None, false, Some(true), &in_use("cannot", "running"));
    check(&["a:1"], None, true, Some(true), &in_use("cannot", "running"));
    check(&["a:1"], None, false, Some(false), &in_use("must", "stopped"));
    // Its layers stay with the container.
    check(&["a:1"], None, true, Some(false), "Untagged a:1, Deleted image");
    check(
        &["a:1"],
        Some("a:1"),
        false,
        Some(false),
        "conflict: unable to remove repository reference \"a:1\" (must force) - container 0123456789ab is using its \
         referenced image ID",
    );
    check(&["a:1", "a:2"], Some("a:1"), false, Some(true), "Untagged a:1");
    check(&["a:1"], Some("a:1"), true, Some(true), "Untagged a:1");
    check(&["a:1"], Some("nosuch"), true, None, "No such image: nosuch:latest");
}

#[test]
fn privileged_a_layer_stays_while_another_image_has_it() {
    let scratch = Scratch::new();
    let base = layer(&[("a", "1")]);
    scratch.load(&docker(Some("a:1"), &[base.clone(), layer(&[("b", "2")])], "")).unwrap();
    scratch.load(&docker(Some("a:2"), &[base], "")).unwrap();
    let removed = scratch.store.remove("a:1", force(false), &[]).unwrap();
    assert_eq!(lines(&removed), ["Untagged a:1", "Deleted image", "Deleted layer"]);
    let left = scratch.store.resolve("a:2").unwrap();
    assert!(scratch.store.snapshots().layer(&left.chain[0]).join("a").exists());
}

#[test]
fn privileged_a_container_keeps_the_layers_of_an_image_removed_by_force() {
    let (scratch, id) = loaded(&["a:1"]);
    let chain = scratch.store.get(&id).unwrap().chain.clone();
    let key = "c1".parse().unwrap();
    scratch.store.snapshots().prepare(&key, &chain).unwrap();
    scratch.store.remove(id.as_str(), force(true), &[user(&id, false)]).unwrap();
    let scratch = scratch.reopened();
    assert_eq!(scratch.store.snapshots().mounts(&key).unwrap()[0].options.len(), 8);
    // Loaded again meanwhile, it uses what is there.
    scratch.load(&docker(Some("a:1"), &[layer(&[("a", "1")]), layer(&[("b", "2")])], "")).unwrap();
    scratch.store.remove("a:1", force(true), &[]).unwrap();
    scratch.store.snapshots().remove(&key).unwrap();
    scratch.store.collect().unwrap();
    assert!(names(&scratch.dir.path().join("snapshots/l")).is_empty());
}

#[test]
fn privileged_names_that_would_confuse_are_refused() {
    let (scratch, id) = loaded(&[]);
    let digest: Reference = format!("a@{id}").parse().unwrap();
    let tag = |reference: &Reference| scratch.store.tag(id.as_str(), reference);
    assert!(matches!(tag(&digest), Err(TagError::Digest)));
    assert!(matches!(tag(&"sha256:1".parse().unwrap()), Err(TagError::Ambiguous)));
    let missing = scratch.store.tag("nosuch", &"b".parse().unwrap()).unwrap_err();
    assert_eq!(missing.to_string(), "No such image: nosuch:latest");
    assert_eq!(tag(&"b".parse().unwrap()).unwrap().repo_tags(), ["b:latest"]);
}
