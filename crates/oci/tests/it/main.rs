//! Names and documents of images that nobody planned, for a bounded time (`testkit::mutate`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use oci::image::{ArchiveManifest, ImageConfig, Index, Manifest};
use oci::{Digest, Reference};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::mutate::{Mutator, rounds};

const HEX: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

/// Names of every form, and what is nearly one.
const NAMES: [&str; 10] = [
    "busybox",
    "busybox:latest",
    "library/busybox",
    "127.0.0.1:5000/a/b-c__d.e:v1.0_2-3",
    "[2001:db8::1]:5000/a:1",
    "registry.example.org:443/deep/er/still:tag",
    "docker.io/library/a@sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
    "index.docker.io/a:b@sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
    "LOCALHOST/a",
    "a//b:..@sha512:00",
];

#[test]
fn slow_names_of_any_shape_mean_one_thing() {
    rounds(|mutator| {
        let text = mutated_text(mutator);
        let Ok(name) = text.parse::<Reference>() else { return };
        assert_eq!(name.to_string().parse(), Ok(name.clone()), "{text:?}");
        assert_eq!(name.familiar().parse(), Ok(name.clone()), "{text:?}");
        // It becomes a part of paths and of requests.
        let (domain, path) = (name.domain(), name.path());
        assert!(!path.contains("..") && !path.starts_with('/') && !path.is_empty() && !domain.is_empty(), "{text:?}");
        let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%\\\"'".contains(&byte));
        assert!(plain(domain) && plain(path) && name.tag().is_none_or(plain), "{text:?}");
        assert!(path.len() <= 255 && name.tag().is_none_or(|tag| tag.len() <= 128), "{text:?}");
    });
}

fn mutated_text(mutator: &mut Mutator) -> String {
    let bytes = mutator.pick(&NAMES).as_bytes().to_vec();
    let bytes = mutator.bytes(&bytes);
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if mutator.once_in(50) {
        text.insert_str(0, &"long/".repeat(mutator.below(80)));
    }
    text
}

fn descriptor() -> Value {
    json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": format!("sha256:{HEX}"), "size": 32654,
        "annotations": {"a": "b"}, "platform": {"architecture": "arm64", "os": "linux", "variant": "v8", "os.version": "1"},
    })
}

/// A document of every kind.
fn documents() -> [Value; 4] {
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": descriptor(),
        "layers": [descriptor(), descriptor()], "annotations": {"x": "y"}, "subject": descriptor(),
    });
    let index =
        json!({"schemaVersion": 2, "mediaType": "", "manifests": [descriptor(), descriptor()], "annotations": {}});
    let archive =
        json!({"Config": "a.json", "RepoTags": ["a:b"], "Layers": ["1/layer.tar", "2"], "Parent": "sha256:0"});
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z", "author": "me", "docker_version": "28",
        "config": {
            "User": "0:0", "ExposedPorts": {"80/tcp": {}}, "Env": ["A=1"], "Entrypoint": ["/a"], "Cmd": null,
            "Volumes": {"/v": {}}, "WorkingDir": "/", "Labels": {"a": "b"}, "StopSignal": "9", "OnBuild": ["RUN a"],
            "Healthcheck": {"Test": ["CMD", "a"], "Interval": 1, "Retries": 3}, "Shell": ["/bin/sh"], "ArgsEscaped": true,
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{HEX}")]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "a", "comment": "c", "empty_layer": true}],
    });
    [manifest, index, archive, config]
}

#[test]
fn slow_documents_of_any_shape_are_read_as_they_are_written() {
    let documents = documents();
    rounds(|mutator| {
        let value = mutator.pick(&documents).clone();
        let text = mutator.json(&value).to_string().into_bytes();
        let text = if mutator.once_in(4) { mutator.bytes(&text) } else { text };
        let read = [
            again::<Manifest>(&text),
            again::<Index>(&text),
            again::<ArchiveManifest>(&text),
            again::<ImageConfig>(&text),
        ];
        // What is read as an image cannot be read as an index but by a document that says it is both.
        assert!(!(read[0] && read[1]) || contains(&text, b"layers") && contains(&text, b"manifests"));
    });
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// Whether it is a `T`; what was written of that is the same one again, with digests that are digests.
fn again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(text: &[u8]) -> bool {
    let Ok(read) = serde_json::from_slice::<T>(text) else { return false };
    let written = serde_json::to_value(&read).unwrap();
    let digest = written.pointer("/config/digest").or(written.pointer("/rootfs/diff_ids/0"));
    if let Some(digest) = digest.and_then(Value::as_str) {
        assert_eq!(digest.parse::<Digest>().unwrap().hex().len(), 64, "{digest}");
    }
    assert_eq!(serde_json::from_value::<T>(written.clone()).unwrap(), read, "{written}");
    true
}
