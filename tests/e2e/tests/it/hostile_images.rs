//! Broken and malicious archives: refused, and nothing of them stays.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use testkit::images::plan::{Entry, Image, Kind};
use testkit::images::write::{self, Compression};
use testkit::{Daemon, http, process};

/// How long the sweep of what was half there may take.
pub(crate) const SWEPT_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// A small image of its own name.
fn image(daemon: &Daemon, entries: Vec<Entry>) -> Image {
    let tag = format!("{}:latest", daemon.name("hostile").to_lowercase());
    Image { tag, layers: vec![entries], command: vec!["true".into()], volumes: vec![] }
}

fn plain(daemon: &Daemon) -> Vec<u8> {
    let content = "0123456789abcdef".repeat(4096);
    write::docker_archive(&image(daemon, vec![Entry::dir("data", 0o755), Entry::file("data/file", &content)])).unwrap()
}

/// POSTs the archive; answers what went wrong, empty if nothing.
pub(crate) fn load(daemon: &Daemon, archive: &[u8]) -> String {
    let head = format!(
        "POST /images/load?quiet=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/x-tar\r\n\
         Content-Length: {}\r\n\r\n",
        archive.len()
    );
    let answer = http::raw(daemon.socket(), &[head.as_bytes(), archive].concat()).unwrap();
    let text = answer.text();
    let of_line = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_default()["error"].as_str().map(str::to_owned)
    };
    text.lines().find_map(of_line).or((answer.status != 200).then(|| answer.message())).unwrap_or_default()
}

/// What the daemon keeps: its list of images and, of ours, every file of its stores.
pub(crate) fn kept(daemon: &Daemon) -> BTreeSet<String> {
    let images = daemon.get("/images/json?all=1").unwrap().json().unwrap();
    let ids = images.as_array().unwrap().iter().map(|one| format!("{} {}", one["Id"], one["RepoTags"]));
    let mut kept: BTreeSet<String> = ids.collect();
    if !daemon.is_foreign() {
        let root = daemon.scratch().data_root();
        files(&root.join("content"), &mut kept);
        files(&root.join("snapshots"), &mut kept);
    }
    kept
}

fn files(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        found.insert(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&entry.path(), found);
        }
    }
}

/// Each archive must be refused with its sentence and leave the stores as they were.
fn refused(cases: impl Fn(&Daemon) -> Vec<(&'static str, Vec<u8>, &'static str)>) {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    let before = kept(&daemon);
    for (what, archive, sentence) in cases(&daemon) {
        let said = load(&daemon, &archive);
        assert!(!said.is_empty() && said.contains(sentence), "{what}: {said:?} has no {sentence:?}");
        if daemon.is_foreign() {
            continue;
        }
        // What was half there is swept in the background.
        let same = process::until("the stores are as before", SWEPT_WITHIN, || (kept(&daemon) == before).then_some(()));
        same.unwrap_or_else(|err| {
            panic!("{what}: {err}: {:?}", kept(&daemon).symmetric_difference(&before).collect::<Vec<_>>())
        });
    }
}

fn replace(archive: &[u8], name: &str, content: &[u8]) -> Vec<u8> {
    let edit = |member: &str, old: Vec<u8>| Some(if member.ends_with(name) { content.to_vec() } else { old });
    write::edited(archive, edit).unwrap()
}

fn without(archive: &[u8], name: &str) -> Vec<u8> {
    write::edited(archive, |member, content| (!member.ends_with(name)).then_some(content)).unwrap()
}

#[test]
fn privileged_broken_archives_are_refused_and_nothing_is_kept() {
    refused(|daemon| {
        let good = plain(daemon);
        let flipped = write::edited(&good, |name, mut content| {
            if name.ends_with("layer.tar") {
                content[2048] ^= 1;
            }
            Some(content)
        });
        vec![
            ("no archive", b"garbage".to_vec(), ""),
            ("nothing", Vec::new(), ""),
            ("cut in the middle of the layer", good[..30_000].to_vec(), "unexpected EOF"),
            ("another layer than the configuration says", flipped.unwrap(), "invalid diffID for layer 0: expected "),
            ("no layer", without(&good, "layer.tar"), ""),
            ("no manifest", without(&good, "manifest.json"), ""),
            ("manifest is no JSON", replace(&good, "manifest.json", b"nope"), ""),
            ("manifest of another shape", replace(&good, "manifest.json", b"{\"Config\":1}"), ""),
            ("layer is no tar", replace(&good, "layer.tar", &[7; 5000]), ""),
            ("layer is empty", replace(&good, "layer.tar", b""), ""),
        ]
    });
}

#[test]
fn privileged_layouts_with_wrong_digests_are_refused_and_nothing_is_kept() {
    refused(|daemon| {
        let content = "0123456789abcdef".repeat(4096);
        let image = image(daemon, vec![Entry::file("file", &content)]);
        let good = write::oci_layout(&image, Compression::Gzip).unwrap();
        let mut members = Vec::new();
        write::edited(&good, |name, content| {
            members.push((name.to_owned(), content.len()));
            Some(content)
        })
        .unwrap();
        let blobs: Vec<String> =
            members.into_iter().map(|(name, _)| name).filter(|name| name.starts_with("blobs")).collect();
        let [layer, config, manifest] = &blobs[..] else { panic!("{blobs:?}") };
        vec![
            ("no layer", without(&good, layer), ""),
            ("no configuration", without(&good, config), ""),
            ("no manifest", without(&good, manifest), ""),
            ("layer of other bytes", replace(&good, layer, b"other"), ""),
            ("configuration of other bytes", replace(&good, config, b"{}"), ""),
            ("index is no JSON", replace(&good, "index.json", b"nope"), ""),
        ]
    });
}

#[test]
fn privileged_paths_that_lead_out_of_the_layer_touch_nothing() {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    if daemon.is_foreign() {
        return testkit::skip::report("what a foreign daemon's host has is not seen from here");
    }
    let target = daemon.scratch().write("target", "before\n").unwrap();
    let outside = daemon.scratch().path().display().to_string();
    let link = |path: &str, to: &str| Entry::new(path, 0o777, Kind::Symlink(to.to_owned()));
    let hard = |path: &str, to: &str| Entry::new(path, 0o644, Kind::Hardlink(to.to_owned()));
    for (what, entries, rename) in [
        (
            "symlink to a directory outside, then a file in it",
            vec![link("d", &outside), Entry::file("d/target", "evil")],
            None,
        ),
        ("symlink up and out", vec![link("d", "../../../../../.."), Entry::file("d/longshore-evil", "evil")], None),
        (
            "file over a symlink to a file",
            vec![link("f", &target.display().to_string()), Entry::file("f", "evil")],
            None,
        ),
        ("hard link to a file outside", vec![hard("h", &target.display().to_string()), Entry::file("h", "evil")], None),
        (
            "dots in the name",
            vec![Entry::file("aa/aa/aa/aa/aa/longshore-evil", "evil")],
            Some("../../../../../longshore-evil"),
        ),
        ("whiteout through a symlink", vec![link("d", &outside), Entry::whiteout("d", "target")], None),
    ] {
        let layer = write::layer_tar(&entries).unwrap();
        let layer = match rename {
            Some(name) => write::renamed(layer, "aa/aa/aa/aa/aa/longshore-evil", name).unwrap(),
            None => layer,
        };
        // Taken as if the root were the layer, or refused: both are right, touching the host is not.
        println!("{what}: {:?}", load(&daemon, &with_layer(&daemon, &layer)));
        assert_eq!(fs::read_to_string(&target).unwrap(), "before\n", "{what}");
        assert!(!Path::new("/longshore-evil").exists(), "{what}");
        assert!(!daemon.scratch().path().join("longshore-evil").exists(), "{what}");
        assert!(!daemon.scratch().data_root().join("longshore-evil").exists(), "{what}");
    }
}

/// A docker-archive with these bytes as its only layer.
pub(crate) fn with_layer(daemon: &Daemon, layer: &[u8]) -> Vec<u8> {
    let good = write::docker_archive(&image(daemon, Vec::new())).unwrap();
    let (old, new) = (write::sha256(&write::layer_tar(&[]).unwrap()), write::sha256(layer));
    write::edited(&good, |name, content| {
        Some(match name {
            _ if name.ends_with("layer.tar") => layer.to_vec(),
            "manifest.json" => content,
            _ => String::from_utf8(content).unwrap().replace(&old, &new).into_bytes(),
        })
    })
    .unwrap()
}
