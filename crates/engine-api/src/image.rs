//! Images as the API tells them.

use std::collections::BTreeMap;

use oci::image::{Descriptor, ExecConfig, Platform};
use serde::{Deserialize, Serialize};

use crate::json::null_as_default;

/// One element of `GET /images/json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Summary {
    /// Containers made of it; -1 if not counted.
    pub containers: i64,
    /// Seconds since 1970.
    pub created: i64,
    /// `sha256:...`.
    pub id: String,
    /// The image's labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// The image it was built from, by this engine.
    pub parent_id: String,
    /// `name@sha256:...`.
    #[serde(deserialize_with = "null_as_default")]
    pub repo_digests: Vec<String>,
    /// `name:tag`.
    #[serde(deserialize_with = "null_as_default")]
    pub repo_tags: Vec<String>,
    /// Bytes shared with other images; -1 if not counted.
    pub shared_size: i64,
    /// Bytes of its layers, uncompressed; with `manifests` of all that is here of it.
    pub size: i64,
    /// What the name means: an index or a manifest. Told with `manifests` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Descriptor>,
    /// The images that it stands for, and what belongs to them; since 1.48, for who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<ManifestSummary>>,
}

/// One of the images that a name stands for, here or not, or what belongs to one (moby `image.ManifestSummary`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ManifestSummary {
    /// The manifest's digest.
    #[serde(rename = "ID")]
    pub id: String,
    /// The manifest, as the index describes it.
    pub descriptor: Descriptor,
    /// Whether it is here.
    pub available: bool,
    /// What is here of it.
    pub size: ManifestSize,
    /// `image`, `attestation` or `unknown`.
    pub kind: String,
    /// Of an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_data: Option<ImageData>,
    /// Of an attestation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation_data: Option<AttestationData>,
}

/// Bytes of a [`ManifestSummary`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManifestSize {
    /// Blobs as a registry has them.
    pub content: i64,
    /// These, and the unpacked layers.
    pub total: i64,
}

/// What a [`ManifestSummary`] says of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageData {
    /// What it runs on.
    pub platform: Platform,
    /// Its unpacked layers.
    pub size: UnpackedSize,
    /// Ids of the containers that are made of it.
    #[serde(deserialize_with = "null_as_default")]
    pub containers: Vec<String>,
}

/// Bytes of unpacked layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UnpackedSize {
    /// Of all of them.
    pub unpacked: i64,
}

/// What a [`ManifestSummary`] says of an attestation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AttestationData {
    /// The digest of the image's manifest that it is about.
    #[serde(rename = "For")]
    pub of: String,
}

/// Body of `GET /images/{name}/json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Inspect {
    /// `sha256:...`.
    pub id: String,
    /// `name:tag`.
    #[serde(deserialize_with = "null_as_default")]
    pub repo_tags: Vec<String>,
    /// `name@sha256:...`.
    #[serde(deserialize_with = "null_as_default")]
    pub repo_digests: Vec<String>,
    /// The image it was built from, by this engine.
    pub parent: String,
    /// Comment of the last history entry.
    pub comment: String,
    /// RFC 3339; absent where the image does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Docker's version that made it.
    pub docker_version: String,
    /// Who made it.
    pub author: String,
    /// Its defaults.
    pub config: Option<InspectConfig>,
    /// Go's name of the processor.
    pub architecture: String,
    /// The processor's variant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Go's name of the operating system.
    pub os: String,
    /// Bytes of its layers, uncompressed.
    pub size: i64,
    /// Where its layers lie.
    pub graph_driver: GraphDriver,
    /// Its layers.
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    /// What this engine knows of it.
    pub metadata: Metadata,
    /// What the name means: an index or a manifest. Told with `manifests` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<Descriptor>,
    /// The images that it stands for; since 1.48, for who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<ManifestSummary>>,
}

/// Image defaults as `inspect` shows them: what Docker always shows, then what only some images have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InspectConfig {
    /// The default command.
    pub cmd: Option<Vec<String>>,
    /// The entry point.
    pub entrypoint: Option<Vec<String>>,
    /// The environment.
    pub env: Option<Vec<String>>,
    /// Ports it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, oci::image::Empty>>,
    /// How to ask whether it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<oci::image::Healthcheck>,
    /// Free-form metadata.
    pub labels: Option<BTreeMap<String, String>>,
    /// Build steps for images made from it.
    pub on_build: Option<Vec<String>>,
    /// The shell of shell-form commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// The stop signal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Who it runs as.
    pub user: String,
    /// Paths that are volumes.
    pub volumes: Option<BTreeMap<String, oci::image::Empty>>,
    /// Where it starts.
    pub working_dir: String,
}

impl From<&ExecConfig> for InspectConfig {
    fn from(config: &ExecConfig) -> Self {
        let config = config.clone();
        InspectConfig {
            cmd: config.cmd,
            entrypoint: config.entrypoint,
            env: config.env,
            exposed_ports: config.exposed_ports,
            healthcheck: config.healthcheck,
            labels: config.labels,
            on_build: config.on_build,
            shell: config.shell,
            stop_signal: config.stop_signal,
            user: config.user,
            volumes: config.volumes,
            working_dir: config.working_dir,
        }
    }
}

/// Where layers lie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GraphDriver {
    /// `ID`, `LowerDir`, `UpperDir`, `WorkDir`, `MergedDir`; null with drivers other than overlay2.
    pub data: Option<BTreeMap<String, String>>,
    /// `overlay2`.
    pub name: String,
}

/// An image's layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Diff ids, lowest first.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub layers: Vec<String>,
}

/// What this engine knows of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Metadata {
    /// RFC 3339; Go's zero time for never.
    pub last_tag_time: String,
}

/// One element of the answer to `DELETE /images/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deleted {
    /// A reference is gone.
    Untagged(String),
    /// An image or a layer is gone.
    Deleted(String),
}

/// One element of `GET /images/{name}/history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HistoryItem {
    /// Free text.
    pub comment: String,
    /// Seconds since 1970.
    pub created: i64,
    /// The command.
    pub created_by: String,
    /// The image at that step, or `<missing>`.
    pub id: String,
    /// Bytes that the step added.
    pub size: i64,
    /// The image's references at that step.
    pub tags: Option<Vec<String>>,
}

/// One element of `GET /images/search`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchResult {
    /// How many like it.
    pub star_count: i64,
    /// Whether Docker vouches for it.
    pub is_official: bool,
    /// Its name.
    pub name: String,
    /// Always false.
    pub is_automated: bool,
    /// What its owner says of it.
    pub description: String,
}

/// `GET /distribution/{name}/json`: what a name means in its registry.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DistributionInspect {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// What its images run on; none if it does not say.
    pub platforms: Option<Vec<Platform>>,
}

/// What a push tells programs where one image went in the place of an index (moby api/types/auxprogress).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushedInstead {
    /// Always true.
    #[serde(rename = "manifestPushedInsteadOfIndex")]
    pub pushed_instead: bool,
    /// The index.
    pub original_index: Descriptor,
    /// The image's manifest.
    pub selected_manifest: Descriptor,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_daemons_leave_out_what_they_have_not() {
        let summary: Summary = serde_json::from_str(r#"{"Id":"a","RepoTags":null,"RepoDigests":null}"#).unwrap();
        assert_eq!(summary, Summary { id: "a".into(), ..Summary::default() });
        let text = r#"{"Id":"a","RepoTags":null,"GraphDriver":{"Data":null,"Name":"x"},"RootFS":{"Layers":null}}"#;
        let inspect: Inspect = serde_json::from_str(text).unwrap();
        let graph_driver = GraphDriver { name: "x".into(), ..GraphDriver::default() };
        assert_eq!(inspect, Inspect { id: "a".into(), graph_driver, ..Inspect::default() });
        serde_json::from_str::<HistoryItem>("{}").unwrap();
    }
}
