//! Archives whose documents are small and mean more than fits in memory.

use serde_json::{Value, json};

use crate::archive::{Files, config, digest, docker_with, layer};
use crate::{Scratch, leftovers};

fn refused(files: &Files) -> String {
    let scratch = Scratch::new();
    let err = scratch.load(files).unwrap_err();
    assert!(leftovers(scratch.dir.path()).is_empty());
    err.to_string()
}

fn manifest_of(entries: &[Value]) -> (String, Vec<u8>) {
    ("manifest.json".into(), Value::from(entries).to_string().into_bytes())
}

#[test]
fn a_manifest_that_names_one_configuration_again_and_again_is_refused() {
    let entry = json!({ "Config": "c", "Layers": [] });
    let small = ("c".to_owned(), config(&[], ""));
    let large = ("c".to_owned(), config(&[], &"x".repeat(1_000_000)));
    let err = refused(&vec![small, manifest_of(&vec![entry.clone(); 5000])]);
    assert_eq!(err, "invalid archive: number of images exceeds 4096");
    let err = refused(&vec![large, manifest_of(&vec![entry; 100])]);
    assert!(err.starts_with("invalid archive: size of all images' documents exceeds"), "{err}");
}

#[test]
fn more_layers_than_can_be_mounted_are_refused_with_docker_s_sentence() {
    let layers = vec![layer(&[]); 126];
    let config = config(&layers, "");
    let paths = vec!["l"; layers.len()];
    let files = vec![
        ("l".to_owned(), layers[0].clone()),
        ("c".to_owned(), config),
        manifest_of(&[json!({ "Config": "c", "Layers": paths })]),
    ];
    assert_eq!(refused(&files), "max depth exceeded");
}

/// Each index names the next one ten thousand times.
#[test]
fn privileged_indexes_do_not_multiply() {
    let layers = vec![layer(&[("a", "1")])];
    let mut files = docker_with(Some("a:1"), &layers, &config(&layers, ""));
    let descriptor = |bytes: &[u8]| json!({ "mediaType": "x", "digest": digest(bytes), "size": bytes.len() });
    let mut index = json!({ "schemaVersion": 2, "manifests": [] }).to_string().into_bytes();
    for _ in 0..4 {
        files.push((format!("blobs/sha256/{}", digest(&index).hex()), index.clone()));
        index = json!({ "schemaVersion": 2, "manifests": vec![descriptor(&index); 10_000] }).to_string().into_bytes();
    }
    files.push(("index.json".into(), index));
    Scratch::new().load(&files).unwrap();
}

#[test]
fn links_without_end_are_refused() {
    let target = format!("link:{}", "t/".repeat(1500));
    let files: Files = (0..30_000).map(|index| (format!("l{index}"), target.clone().into_bytes())).collect();
    assert!(refused(&files).starts_with("invalid archive: size of all documents exceeds"));
}
