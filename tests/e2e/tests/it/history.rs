//! `history` of images that others built: what Docker shows of steps and layers that do not match.
//!
//! The expected lines were seen on Docker 28.5.2, but for one image that it does not load.

use serde_json::{Value, json};
use testkit::images::plan::Entry;
use testkit::images::write::{layer_tar, sha256};

use crate::hostile_images::load;
use crate::support::{At, on_both, ours};

/// A docker-archive of one image with layers of 1, 2 and 3 kB and this history, and what else its configuration has.
fn archive(tag: &str, history: Option<Value>, more: Value) -> Vec<u8> {
    let layer = |size: usize| layer_tar(&[Entry::file(&format!("f{size}"), &"x".repeat(size))]).unwrap();
    let layers = [1000, 2000, 3000].map(layer);
    let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    let mut config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": ids },
    });
    let fields = config.as_object_mut().unwrap();
    fields.extend(history.map(|history| ("history".to_owned(), history)));
    fields.extend(more.as_object().unwrap().clone());
    let config = serde_json::to_vec(&config).unwrap();
    let config_name = format!("{}.json", sha256(&config));
    let manifest = json!([{ "Config": config_name, "RepoTags": [tag], "Layers": ["0.tar", "1.tar", "2.tar"] }]);
    let mut archive = tar::Builder::new(Vec::new());
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let names = [&config_name[..], "0.tar", "1.tar", "2.tar", "manifest.json"];
    for (name, bytes) in names.into_iter().zip([&config, &layers[0], &layers[1], &layers[2], &manifest]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

/// `created by|size|seconds` of each step, newest first.
fn steps(at: &At<'_>, image: &str) -> Vec<String> {
    let items = at.daemon.get(&format!("/images/{image}/history")).unwrap().json().unwrap();
    let item = |item: &Value| format!("{}|{}|{}", item["CreatedBy"].as_str().unwrap(), item["Size"], item["Created"]);
    items.as_array().unwrap().iter().map(item).collect()
}

#[test]
fn privileged_histories_that_do_not_match_the_layers_are_shown_as_docker_shows_them() {
    on_both(|at| {
        let year_1 = "0001-01-01T00:00:00Z";
        for (name, history, more, wanted) in [
            ("absent", None, json!({}), &[][..]),
            ("null", Some(Value::Null), json!({ "author": null, "created": null }), &[]),
            ("empty", Some(json!([])), json!({ "config": null }), &[]),
            (
                "shorter",
                Some(json!([{ "created": "2026-01-01T01:00:00.5+02:00", "created_by": "one" }])),
                json!({}),
                &["one|1000|1767222000"],
            ),
            (
                "undated",
                Some(json!([
                    { "created_by": "a" },
                    { "created_by": "e", "empty_layer": true },
                    { "created_by": "b" },
                    { "created": null, "created_by": "c", "empty_layer": null },
                ])),
                json!({}),
                &["c|3000|0", "b|2000|0", "e|0|0", "a|1000|0"],
            ),
            // What kaniko --reproducible writes.
            (
                "timeless",
                Some(json!([{ "created": year_1, "created_by": "a" }, { "created": year_1, "created_by": "b" }])),
                json!({ "created": year_1 }),
                &["b|2000|-62135596800", "a|1000|-62135596800"],
            ),
            (
                "nulls",
                Some(json!([null, { "created_by": "b" }, { "created_by": null }])),
                json!({}),
                &["|3000|0", "b|2000|0", "|1000|0"],
            ),
        ] {
            let image = at.image(name);
            assert_eq!(load(at.daemon, &archive(&format!("{image}:1"), history, more)), "", "{name}");
            assert_eq!(steps(at, &format!("{image}:1")), wanted, "{name}");
            let shown = at.ok(&format!("history --format '{{{{.CreatedBy}}}}|{{{{.CreatedSince}}}}' {image}:1"));
            let since = |step: &str| if step.ends_with("|1767222000") { " months ago" } else { "|N/A" };
            assert_eq!(shown.lines().count(), wanted.len(), "{shown}");
            for (line, step) in shown.lines().zip(wanted) {
                assert!(line.contains(since(step)) || since(step).starts_with(' ') && line.ends_with("ago"), "{line}");
            }
            let listed = at.ok(&format!("images --format '{{{{.CreatedAt}}}}|{{{{.CreatedSince}}}}' {image}:1"));
            match name {
                "timeless" => assert_eq!(listed, "0001-01-01 00:00:00 +0000 UTC |".replace(" |", "|")),
                _ => assert!(listed.starts_with("1970-01-01 00:00:00 +0000 UTC|"), "{listed}"),
            }
            at.ok(&format!("rmi {image}:1"));
        }
    });
}

#[test]
fn privileged_steps_without_layers_have_no_size() {
    // Docker refuses to load it: "too many non-empty layers in History section".
    ours(|daemon| {
        crate::support::each(daemon, |at| {
            let image = at.image("longer");
            let history: Vec<Value> = (0..5).map(|step| json!({ "created_by": format!("s{step}") })).collect();
            assert_eq!(load(at.daemon, &archive(&format!("{image}:1"), Some(json!(history)), json!({}))), "");
            let wanted = ["s4|0|0", "s3|0|0", "s2|3000|0", "s1|2000|0", "s0|1000|0"];
            assert_eq!(steps(at, &format!("{image}:1")), wanted);
            at.ok(&format!("rmi {image}:1"));
        });
    });
}

#[test]
fn privileged_steps_that_are_images_here_are_named() {
    on_both(|at| {
        let (name, image) = (at.name("made"), at.image("made"));
        at.ok(&format!("run --network none --name {name} busybox touch /made"));
        let id = at.ok(&format!("commit {name} {image}:1"));
        at.remove(&name);
        let parent = at.inspect("busybox", "{{.Id}}");
        let ids = at.ok(&format!("history -q --no-trunc {image}:1"));
        let ids: Vec<&str> = ids.lines().collect();
        assert_eq!(ids[..2], [&id[..], &parent[..]]);
        assert!(ids[2..].iter().all(|id| *id == "<missing>"), "{ids:?}");
        at.ok(&format!("rmi {image}:1"));
    });
}
