//! One name, images for several platforms: pulled, shown, chosen, pushed, removed.

use serde_json::{Value, json};
use testkit::images::plan::Entry;
use testkit::images::write::{self, Compression};
use testkit::registry::{Debian, Served, Server, digest};
use testkit::{Cli, images};

use crate::support::{At, ours};

/// busybox with a file of its own, as a registry has it.
pub(crate) fn busybox() -> Served {
    let mut image = images::busybox().unwrap();
    image.layers[0].push(Entry::file("platforms", std::thread::current().name().unwrap()));
    Served::of_layout(&write::oci_layout(&image, Compression::Gzip).unwrap()).unwrap()
}

/// An image that cannot run here.
pub(crate) fn of_arm64() -> Served {
    let Served { layers, blobs, .. } = Served::new(&[9]);
    let config = blobs.into_values().find(|blob| blob.starts_with(b"{")).unwrap();
    let config = String::from_utf8(config).unwrap().replace("amd64", "arm64");
    Served::of(layers, config.as_bytes())
}

/// Runs `test` with each command line and the name of an index of both.
fn with_two(test: impl Fn(&At<'_>, &Debian, &str, &str)) {
    let registry = Debian::start().unwrap();
    let served = Served::index(&[("amd64", &busybox()), ("arm64", &of_arm64())]);
    registry.push(&served, "two").unwrap();
    let index = digest(&served.manifests["1"]);
    ours(|daemon| {
        crate::support::each(daemon, |at| {
            let name = format!("{}/two:1", registry.host());
            at.ok(&format!("pull -q {name}"));
            at.ok(&format!("pull -q --platform linux/arm64 {name}"));
            test(at, &registry, &name, &index);
            at.line(&format!("rmi -f {name}"));
        });
    });
}

fn architecture(at: &At<'_>, line: &str) -> String {
    at.ok(&format!("image inspect -f '{{{{.Architecture}}}}' {line}"))
}

#[test]
fn privileged_a_second_platform_keeps_the_first() {
    with_two(|at, _, name, _| {
        assert_eq!(architecture(at, name), "amd64");
        for wanted in ["amd64", "arm64"] {
            assert_eq!(architecture(at, &format!("--platform linux/{wanted} {name}")), wanted);
        }
        let missing = "does not match the specified platform (linux/s390x)";
        at.fails(&format!("image inspect --platform linux/s390x {name}"), 1, missing);
        at.fails(&format!("history --platform linux/s390x {name}"), 1, missing);
        let ids = |platform: &str| at.ok(&format!("history -q --no-trunc {platform} {name}"));
        let id = |platform: &str| at.ok(&format!("image inspect -f '{{{{.Id}}}}' {platform} {name}"));
        assert_eq!(id("--platform linux/amd64"), id(""));
        assert_ne!(id("--platform linux/arm64"), id(""));
        assert!(ids("").starts_with(&id("")) && !ids("--platform linux/arm64").contains(&id("")));
        // Who does not ask sees one image.
        assert_eq!(at.ok(&format!("images -q --no-trunc {name}")), id(""));
        assert!(!at.ok("images -a -q --no-trunc").contains(&id("--platform linux/arm64")));
        assert_eq!(at.run(&format!("{name} echo here")), "here");
        let made = at.name("other");
        at.ok(&format!("create --pull never --platform linux/arm64 --name {made} {name}"));
        assert_eq!(at.inspect(&made, "{{.Image}}"), id("--platform linux/arm64"));
        at.remove(&made);
        // Another pull finds both.
        for platform in ["", "--platform linux/arm64"] {
            let told = at.ok(&format!("pull {platform} {name}"));
            assert!(told.contains(&format!("Status: Image is up to date for {name}")), "{told}");
            assert!(!told.contains("WARNING"), "{told}");
        }
        assert_eq!(at.ok("image prune -f"), "Total reclaimed space: 0B");
        assert_eq!(architecture(at, &format!("--platform linux/arm64 {name}")), "arm64");
    });
}

#[test]
fn privileged_platforms_are_shown_as_a_tree() {
    with_two(|at, _, name, index| {
        let listed = at.daemon.get("/v1.48/images/json?manifests=1").unwrap().json().unwrap();
        let tagged = |one: &&Value| one["RepoTags"][0] == name;
        let image = listed.as_array().unwrap().iter().find(tagged).unwrap().clone();
        assert_eq!(image["Descriptor"]["digest"], index);
        let manifests = image["Manifests"].as_array().unwrap();
        let platforms: Vec<_> =
            manifests.iter().map(|one| one["ImageData"]["Platform"]["architecture"].clone()).collect();
        assert_eq!(platforms, ["amd64", "arm64"]);
        for manifest in manifests {
            assert_eq!((&manifest["Available"], &manifest["Kind"]), (&json!(true), &json!("image")));
            let (size, unpacked) = (&manifest["Size"], manifest["ImageData"]["Size"]["Unpacked"].as_i64().unwrap());
            assert_eq!(size["Total"].as_i64().unwrap(), size["Content"].as_i64().unwrap() + unpacked);
            assert!(size["Content"].as_i64().unwrap() > manifest["Descriptor"]["size"].as_i64().unwrap());
        }
        let total: i64 = manifests.iter().map(|one| one["Size"]["Total"].as_i64().unwrap()).sum();
        assert_eq!(image["Size"].as_i64().unwrap(), total);
        // Before 1.48, and for who does not ask, an image is what it always was.
        for path in ["/v1.47/images/json?manifests=1", "/v1.48/images/json"] {
            let listed = at.daemon.get(path).unwrap().json().unwrap();
            let image = listed.as_array().unwrap().iter().find(tagged).unwrap().clone();
            assert!(image.get("Manifests").is_none() && image["Size"].as_i64().unwrap() < total, "{path}: {image}");
        }
        let inspected = at.daemon.get(&format!("/v1.48/images/{name}/json?manifests=1")).unwrap().json().unwrap();
        assert_eq!(inspected["Manifests"], image["Manifests"]);
        let made = at.name("uses");
        at.ok(&format!("create --pull never --name {made} {name}"));
        let tree = at.ok("images --tree");
        let lines: Vec<&str> = tree.lines().collect();
        let top = lines.iter().position(|line| line.starts_with(&format!("{name} "))).unwrap();
        assert!(lines[top].contains(" U "), "{tree}");
        assert!(lines[top + 1].starts_with("├─ linux/amd64 ") && lines[top + 1].contains(" U "), "{tree}");
        assert!(lines[top + 2].starts_with("└─ linux/arm64 ") && !lines[top + 2].contains(" U "), "{tree}");
        // Both command lines draw the same.
        let other = if at.cli == Cli::Longshore { Cli::Docker } else { Cli::Longshore };
        if at.daemon.clis().contains(&other) {
            let drawn = At { daemon: at.daemon, cli: other }.ok("images --tree");
            assert_eq!(drawn, tree);
        }
        at.remove(&made);
        at.ok(&format!("rmi --platform linux/arm64 -f {name}"));
        let tree = at.ok("images --tree");
        assert!(tree.contains("└─ linux/arm64 "), "what is not here is shown, too: {tree}");
        for flag in ["-q", "--no-trunc", "--digests", "--format x"] {
            at.fails(&format!("images --tree {flag}"), 1, "is not yet supported with --tree");
        }
    });
}

#[test]
fn privileged_a_name_of_several_platforms_is_pushed_as_it_was_pulled() {
    with_two(|at, registry, name, index| {
        let copy = format!("{}/{}:1", registry.host(), at.image("copy"));
        at.ok(&format!("tag {name} {copy}"));
        let told = at.ok(&format!("push {copy}"));
        assert!(told.contains(&format!("1: digest: {index} size: ")), "{told}");
        at.ok(&format!("rmi {copy}"));
        assert_eq!(architecture(at, &format!("--platform linux/arm64 {name}")), "arm64", "it has another name");
        // Others find both there.
        for wanted in ["arm64", "amd64"] {
            at.ok(&format!("pull -q --platform linux/{wanted} {copy}"));
            assert_eq!(architecture(at, &format!("--platform linux/{wanted} {copy}")), wanted);
        }
        let one = format!("{}/{}:1", registry.host(), at.image("one"));
        at.ok(&format!("tag {name} {one}"));
        let told = at.ok(&format!("push --platform linux/arm64 {one}"));
        assert!(!told.contains(index), "{told}");
        at.ok(&format!("rmi {copy} {one}"));
        at.ok(&format!("pull -q --platform linux/arm64 {one}"));
        assert_eq!(architecture(at, &one), "arm64");
        at.ok(&format!("rmi {one}"));
    });
}

#[test]
fn privileged_one_platform_is_saved_and_one_is_removed() {
    with_two(|at, _, name, _| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.tar").display().to_string();
        at.ok(&format!("save --platform linux/arm64 -o {path} {name}"));
        let id = |platform: &str| at.ok(&format!("image inspect -f '{{{{.Id}}}}' {platform} {name}"));
        let (here, there) = (id(""), id("--platform linux/arm64"));
        let removed = at.ok(&format!("rmi --platform linux/arm64 -f {name}"));
        assert!(removed.contains(&format!("Deleted: {there}")) && !removed.contains("Untagged"), "{removed}");
        assert_eq!(id(""), here);
        at.fails(&format!("rmi --platform linux/arm64 -f {name}"), 0, "does not match the specified platform");
        let loaded = at.ok(&format!("load --platform linux/arm64 -i {path}"));
        assert!(loaded.contains(&format!("Loaded image: {name}")), "{loaded}");
        assert_eq!(id(""), there, "what comes without its index takes the name");
        at.ok(&format!("rmi {here}"));
    });
}

#[test]
fn privileged_the_next_daemon_knows_the_platforms() {
    let registry = Debian::start().unwrap();
    registry.push(&Served::index(&[("amd64", &busybox()), ("arm64", &of_arm64())]), "two").unwrap();
    ours(|daemon| {
        let name = format!("{}/two:1", registry.host());
        {
            let at = At { daemon, cli: Cli::Longshore };
            at.ok(&format!("pull -q --platform linux/arm64 {name}"));
            at.ok(&format!("pull -q {name}"));
        }
        daemon.kill9().unwrap();
        daemon.restart().unwrap();
        let at = At { daemon, cli: Cli::Longshore };
        assert_eq!(architecture(&at, &name), "amd64");
        assert_eq!(architecture(&at, &format!("--platform linux/arm64 {name}")), "arm64");
        at.ok(&format!("rmi {name}"));
        assert_eq!(at.ok("images -a -q").lines().count(), 1, "busybox alone");
    });
}

#[test]
fn privileged_of_an_index_of_thousands_the_first_are_told() {
    let here = busybox();
    let entry = |number: usize| {
        json!({
            "mediaType": here.media_type, "digest": format!("sha256:{number:064x}"), "size": 2,
            "platform": { "os": "linux", "architecture": format!("a{number}") },
        })
    };
    let real = json!({
        "mediaType": here.media_type, "digest": digest(&here.manifest), "size": here.manifest.len(),
        "platform": { "os": "linux", "architecture": "amd64" },
    });
    let index = |count: usize| {
        let entries: Vec<Value> = std::iter::once(real.clone()).chain((0..count).map(entry)).collect();
        let media_type = "application/vnd.oci.image.index.v1+json";
        json!({ "manifests": entries, "mediaType": media_type, "schemaVersion": 2 }).to_string().into_bytes()
    };
    let mut served = here.clone();
    let (many, too_many) = (index(15_000), index(40_000));
    assert!(many.len() < 4 << 20 && too_many.len() > 4 << 20);
    served.manifests = [(digest(&here.manifest), here.manifest.clone()), ("1".to_owned(), many.clone())].into();
    served.manifests.insert(digest(&many), many);
    served.manifests.insert("2".to_owned(), too_many.clone());
    served.manifests.insert(digest(&too_many), too_many);
    let server = Server::start(move |request| served.answer(request));
    ours(|daemon| {
        crate::support::each(daemon, |at| {
            let name = |tag: u32| format!("{}/r:{tag}", server.host());
            at.ok(&format!("pull -q {}", name(1)));
            let listed = at.daemon.get("/v1.48/images/json?manifests=1").unwrap().json().unwrap();
            let image = listed.as_array().unwrap().iter().find(|one| one["RepoTags"][0] == name(1)).unwrap().clone();
            assert_eq!(image["Manifests"].as_array().unwrap().len(), 1024);
            at.ok(&format!("rmi {}", name(1)));
            at.fails(&format!("pull {}", name(2)), 1, "longer than 4194304 bytes");
        });
    });
}
