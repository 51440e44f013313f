//! Images to serve.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed, in whatever thread")]

use std::collections::HashMap;
use std::io::{Read, Write};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::server::{Answer, Request};
use crate::images::write::sha256;

/// An image's manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The same in Docker's words.
const SCHEMA_2: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The manifests of several platforms.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Documents and layers of one repository `r`, tag `1`.
#[derive(Clone, Debug)]
pub struct Served {
    /// As they are in the manifest.
    pub layers: Vec<Vec<u8>>,
    /// The image's.
    pub manifest: Vec<u8>,
    /// The manifest's.
    pub media_type: String,
    /// By digest.
    pub blobs: HashMap<String, Vec<u8>>,
    /// By tag and digest.
    pub manifests: HashMap<String, Vec<u8>>,
}

impl Served {
    /// Layers with one file each, of these lengths.
    pub fn new(lengths: &[usize]) -> Served {
        let tars: Vec<_> = lengths
            .iter()
            .enumerate()
            .map(|(index, length)| layer(&format!("f{index}"), &noise(*length, index as u64 + *length as u64)))
            .collect();
        Served::of_tars(&tars)
    }

    /// These layers, which are compressed for the way.
    pub fn of_tars(tars: &[Vec<u8>]) -> Served {
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]},
            "rootfs": {"type": "layers", "diff_ids": tars.iter().map(|tar| digest(tar)).collect::<Vec<_>>()},
        });
        Served::of(tars.iter().map(|tar| gzip(tar)).collect(), config.to_string().as_bytes())
    }

    /// These compressed layers, whatever the configuration says.
    pub fn of(layers: Vec<Vec<u8>>, config: &[u8]) -> Served {
        let describe =
            |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": describe("application/vnd.oci.image.config.v1+json", config),
            "layers": layers.iter().map(|layer| describe(kind, layer)).collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        let blobs = layers.iter().map(Vec::as_slice).chain([config]).map(|blob| (digest(blob), blob.to_vec()));
        let blobs = blobs.collect();
        Served { layers, manifests: named(&manifest), manifest, media_type: MANIFEST.into(), blobs }
    }

    /// The image of an OCI layout in a tar.
    pub fn of_layout(layout: &[u8]) -> Result<Served> {
        let mut blobs = HashMap::new();
        let mut index = Value::Null;
        for entry in tar::Archive::new(layout).entries()? {
            let mut entry = entry?;
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            if entry.path()?.ends_with("index.json") {
                index = serde_json::from_slice(&bytes)?;
            }
            blobs.insert(digest(&bytes), bytes);
        }
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().context("a descriptor without a digest")?;
            blobs.get(digest).cloned().with_context(|| format!("{digest} is not in the layout"))
        };
        let manifest = blob(&index["manifests"][0])?;
        let document: Value = serde_json::from_slice(&manifest)?;
        let layers = document["layers"].as_array().context("a manifest without layers")?;
        let layers = layers.iter().map(blob).collect::<Result<_>>()?;
        Ok(Served { layers, manifests: named(&manifest), manifest, media_type: MANIFEST.into(), blobs })
    }

    /// The same image with the tag `tag` for `1`.
    pub fn tagged(mut self, tag: &str) -> Served {
        let manifest = self.manifests.remove("1").expect("every image has the tag 1");
        self.manifests.insert(tag.to_owned(), manifest);
        self
    }

    /// The same image as Docker's own manifests describe it (distribution, manifest-v2-2.md).
    pub fn schema_2(self) -> Served {
        const DOCKER: &str = "application/vnd.docker.";
        let text = String::from_utf8(self.manifest).expect("a manifest of ours is JSON");
        let text = text.replace(MANIFEST, SCHEMA_2);
        let text =
            text.replace("application/vnd.oci.image.config.v1+json", &format!("{DOCKER}container.image.v1+json"));
        let layer = format!("{DOCKER}image.rootfs.diff.tar.gzip");
        let manifest = text.replace("application/vnd.oci.image.layer.v1.tar+gzip", &layer).into_bytes();
        Served { manifests: named(&manifest), manifest, media_type: SCHEMA_2.into(), ..self }
    }

    /// The platforms' images behind one index; the first platform's is known as such.
    pub fn index(images: &[(&str, &Served)]) -> Served {
        let entry = |(architecture, image): &(&str, &Served)| {
            json!({
                "mediaType": image.media_type, "digest": digest(&image.manifest), "size": image.manifest.len(),
                "platform": {"os": "linux", "architecture": architecture},
            })
        };
        let entries: Vec<_> = images.iter().map(entry).collect();
        let index = json!({ "manifests": entries, "mediaType": INDEX, "schemaVersion": 2 }).to_string().into_bytes();
        let mut all = images[0].1.clone();
        for (_, image) in images {
            all.blobs.extend(image.blobs.clone());
            all.manifests.insert(digest(&image.manifest), image.manifest.clone());
        }
        all.manifests.extend(named(&index));
        all
    }

    /// The same as [`Served::index`], with a statement about each image as buildx publishes it.
    pub fn attested(images: &[(&str, &Served)]) -> Served {
        let describe =
            |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
        let mut all = Served::index(images);
        let index = all.manifests.remove("1").expect("every index has the tag 1");
        all.manifests.remove(&digest(&index));
        let mut index: Value = serde_json::from_slice(&index).expect("an index of ours is JSON");
        for (architecture, image) in images {
            let statement = json!({ "_type": "https://in-toto.io/Statement/v0.1", "subject": architecture });
            let (config, statement) = (b"{}".to_vec(), statement.to_string().into_bytes());
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": describe("application/vnd.oci.image.config.v1+json", &config),
                "layers": [describe("application/vnd.in-toto+json", &statement)],
            });
            let manifest = manifest.to_string().into_bytes();
            let mut entry = describe(MANIFEST, &manifest);
            entry["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
            entry["annotations"] = json!({
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": digest(&image.manifest),
            });
            index["manifests"].as_array_mut().expect("an index of ours names manifests").push(entry);
            all.manifests.insert(digest(&manifest), manifest);
            all.blobs.extend([config, statement].map(|blob| (digest(&blob), blob)));
        }
        all.manifests.extend(named(index.to_string().as_bytes()));
        all
    }

    /// As a registry that has no fault would.
    pub fn answer(&self, request: &Request) -> Answer {
        if request.path == "/v2/" {
            return Answer::new(200, "{}");
        }
        let name = request.path.rsplit('/').next().unwrap();
        if request.path.contains("/manifests/") {
            let Some(bytes) = self.manifests.get(name) else {
                let error =
                    r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
                return Answer::new(404, error);
            };
            let answer = Answer::new(200, bytes.clone()).with("Content-Type", self.kind(bytes));
            return answer.with("Docker-Content-Digest", digest(bytes));
        }
        match self.blobs.get(name) {
            Some(bytes) => part(request, bytes),
            None => Answer::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#),
        }
    }

    /// Whether this manifest stands for those of several platforms.
    pub fn is_index(&self, manifest: &[u8]) -> bool {
        manifest.starts_with(b"{\"manifests\"")
    }

    /// The media type of a manifest.
    pub fn kind(&self, manifest: &[u8]) -> &str {
        if self.is_index(manifest) { INDEX } else { &self.media_type }
    }

    /// Whether it asks for a layer.
    pub fn is_layer(&self, request: &Request) -> bool {
        self.layers.iter().any(|layer| request.path.ends_with(&digest(layer)))
    }
}

/// Bytes without a pattern, other ones for every seed.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A layer with one file, not compressed.
fn layer(name: &str, data: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(data.len() as u64);
    builder.append_data(&mut header, name, data).unwrap();
    builder.into_inner().unwrap()
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(tar).unwrap();
    gzip.finish().unwrap()
}

/// `sha256:` and the digits.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256(bytes))
}

/// A manifest under its tag and its digest.
fn named(manifest: &[u8]) -> HashMap<String, Vec<u8>> {
    HashMap::from([("1".to_owned(), manifest.to_vec()), (digest(manifest), manifest.to_vec())])
}

/// A blob, or the part of it that was asked for.
fn part(request: &Request, bytes: &[u8]) -> Answer {
    match request.from() {
        0 => Answer::new(200, bytes),
        from => Answer::new(206, &bytes[from..])
            .with("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
    }
}
