//! Images to serve.

use std::collections::HashMap;
use std::io::Write;

use oci::Digest;
use serde_json::json;
use sha2::Digest as _;

use crate::server::{Answer, Request};

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(&sha2::Sha256::digest(bytes).into())
}

/// Documents and layers of one repository `r`, tag `1`.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) media_type: String,
    pub(crate) blobs: HashMap<String, Vec<u8>>,
    pub(crate) manifests: HashMap<String, Vec<u8>>,
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Bytes without a pattern, other ones for every seed.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A gzip layer with one file.
pub(crate) fn layer(name: &str, data: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(data.len() as u64);
    builder.append_data(&mut header, name, data).unwrap();
    let tar = builder.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    (tar, gzip.finish().unwrap())
}

impl Served {
    pub(crate) fn new(lengths: &[usize]) -> Served {
        let made: Vec<_> = lengths
            .iter()
            .enumerate()
            .map(|(index, length)| layer(&format!("f{index}"), &noise(*length, index as u64 + *length as u64)))
            .collect();
        let diff_ids: Vec<_> = made.iter().map(|(tar, _)| digest(tar)).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let layers: Vec<Vec<u8>> = made.into_iter().map(|(_, gzip)| gzip).collect();
        Served::of(layers, config.to_string().as_bytes())
    }

    pub(crate) fn of(layers: Vec<Vec<u8>>, config: &[u8]) -> Served {
        let describe =
            |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": describe("application/vnd.oci.image.config.v1+json", config),
            "layers": layers.iter().map(|layer| describe(kind, layer)).collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        let mut blobs: HashMap<String, Vec<u8>> =
            layers.iter().map(|layer| (digest(layer).to_string(), layer.clone())).collect();
        blobs.insert(digest(config).to_string(), config.to_vec());
        let manifests =
            HashMap::from([("1".to_owned(), manifest.clone()), (digest(&manifest).to_string(), manifest.clone())]);
        Served { layers, manifest, media_type: MANIFEST.into(), blobs, manifests }
    }

    /// As a registry that has no fault would.
    pub(crate) fn answer(&self, request: &Request) -> Answer {
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
            let kind = if bytes.starts_with(b"{\"manifests\"") { INDEX } else { &self.media_type[..] };
            let answer = Answer::new(200, bytes.clone()).with("Content-Type", kind);
            return answer.with("Docker-Content-Digest", digest(bytes).to_string());
        }
        match self.blobs.get(name) {
            Some(bytes) => part(request, bytes),
            None => Answer::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#),
        }
    }

    pub(crate) fn is_layer(&self, request: &Request) -> bool {
        self.layers.iter().any(|layer| request.path.ends_with(digest(layer).as_str()))
    }
}

/// A blob, or the part of it that was asked for.
pub(crate) fn part(request: &Request, bytes: &[u8]) -> Answer {
    match request.from() {
        0 => Answer::new(200, bytes),
        from => Answer::new(206, &bytes[from..])
            .with("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
    }
}
