//! Documents of what was built: manifests, what is said beside an image, and the index of both (buildkit
//! exporter/containerimage, writer.go; docs/attestations/attestation-storage.md). Pure.

use std::collections::BTreeMap;

use oci::image::{Descriptor, Index, Manifest, Platform, media_type};
use oci::{Digest, Reference};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::attestation::{ABOUT, KIND};

/// The type of statements (in-toto's attestation spec, "Envelope").
const STATEMENT: &str = "application/vnd.in-toto+json";

/// Where a statement's descriptor says of which kind it is.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// What is no platform.
const UNKNOWN: &str = "unknown";

/// Something that is said of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Of which kind it is: `https://slsa.dev/provenance/v0.2`.
    pub kind: String,
    /// in-toto's statement.
    pub bytes: Vec<u8>,
}

/// A document, and what names it.
pub type Document = (Descriptor, Vec<u8>);

/// The manifest of an image, of which the registry or the layout has everything else.
pub fn image_manifest(
    (id, config_bytes): (&Digest, u64),
    layers: Vec<Descriptor>,
    annotations: BTreeMap<String, String>,
    docker: bool,
) -> Document {
    let (kind, config) = match docker {
        true => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
        false => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
    };
    let config = descriptor(config, id.clone(), config_bytes);
    let manifest = Manifest { schema_version: 2, media_type: kind.to_owned(), config, layers, annotations };
    document(kind, &manifest)
}

/// What is said of the image of a manifest: the documents, of which the last one is the manifest that names the others.
pub fn attestation(about: &Descriptor, statements: Vec<Statement>) -> Vec<Document> {
    let mut documents = Vec::new();
    for Statement { kind, bytes } in statements {
        let mut named = descriptor(STATEMENT, digest_of(&bytes), bytes.len() as u64);
        named.annotations.insert(PREDICATE_TYPE.to_owned(), kind);
        documents.push((named, bytes));
    }
    let layers: Vec<Descriptor> = documents.iter().map(|(named, _)| named.clone()).collect();
    // They stand for layers, so that every registry takes them.
    let sums: Vec<&Digest> = layers.iter().map(|layer| &layer.digest).collect();
    let config = serde_json::json!({
        "architecture": UNKNOWN,
        "os": UNKNOWN,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": sums},
    });
    let (config, bytes) = document(media_type::OCI_CONFIG, &config);
    documents.push((config.clone(), bytes));
    let kind = media_type::OCI_MANIFEST;
    let manifest =
        Manifest { schema_version: 2, media_type: kind.to_owned(), config, layers, annotations: BTreeMap::new() };
    let (mut named, bytes) = document(kind, &manifest);
    named.annotations =
        BTreeMap::from([(KIND.0.to_owned(), KIND.1.to_owned()), (ABOUT.to_owned(), about.digest.to_string())]);
    named.platform = Some(Platform { architecture: UNKNOWN.to_owned(), os: UNKNOWN.to_owned(), ..Platform::default() });
    documents.push((named, bytes));
    documents
}

/// An index of these.
pub fn outcome_index(manifests: Vec<Descriptor>, annotations: BTreeMap<String, String>) -> Document {
    let kind = media_type::OCI_INDEX;
    document(kind, &Index { schema_version: 2, media_type: kind.to_owned(), manifests, annotations })
}

/// The entries of a layout's index for what it has: one for each name, or one without.
pub(crate) fn named_entries(
    bare: &Descriptor,
    names: &[Reference],
    more: &BTreeMap<String, String>,
) -> Vec<Descriptor> {
    let named = |name: &Reference| {
        let mut annotations = more.clone();
        annotations.insert("io.containerd.image.name".to_owned(), name.to_string());
        annotations.insert("org.opencontainers.image.ref.name".to_owned(), name.tag().unwrap_or_default().to_owned());
        Descriptor { annotations, ..bare.clone() }
    };
    match names {
        [] => vec![Descriptor { annotations: more.clone(), ..bare.clone() }],
        names => names.iter().map(named).collect(),
    }
}

pub(crate) fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest, size, annotations: BTreeMap::new(), platform: None }
}

pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("documents have string keys and no failing serializers")
}

fn document(kind: &str, value: &impl Serialize) -> Document {
    let bytes = json(value);
    (descriptor(kind, digest_of(&bytes), bytes.len() as u64), bytes)
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(&Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_an_image_names_it() {
        let id = digest_of(b"config");
        let (image, _) = image_manifest((&id, 6), Vec::new(), BTreeMap::new(), false);
        let said = Statement { kind: "https://slsa.dev/provenance/v0.2".to_owned(), bytes: b"{}".to_vec() };
        let documents = attestation(&image, vec![said]);
        let [statement, config, manifest] = &documents[..] else { panic!("{documents:?}") };
        for (named, bytes) in &documents {
            assert_eq!((&named.digest, named.size), (&digest_of(bytes), bytes.len() as u64));
        }
        let parsed: Manifest = serde_json::from_slice(&manifest.1).unwrap();
        assert_eq!((&parsed.config, &parsed.layers[..]), (&config.0, &[statement.0.clone()][..]));
        assert_eq!(statement.0.annotations[PREDICATE_TYPE], "https://slsa.dev/provenance/v0.2");
        assert!(crate::is_attestation(&manifest.0));
        let (_, bytes) = outcome_index(vec![image.clone(), manifest.0.clone()], BTreeMap::new());
        let index: Index = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(crate::attestations_of(&index, &image.digest), std::slice::from_ref(&manifest.0));
        assert_eq!(index.manifests[1].platform.as_ref().unwrap().os, "unknown");
    }
}
