//! Lists of images as documents, and JSON as Go writes it. Pure.

use engine_api::manifest::ManifestPlatform;
use oci::image::media_type;
use oci::{Digest, Reference};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::store::Entry;

/// Why images make no list. The texts are those of Docker's client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ListError {
    /// An image is elsewhere.
    #[error("cannot use source images from a different registry than the target image: {found} != {target}")]
    Registry {
        /// Where the image is.
        found: String,
        /// Where the list is to be.
        target: String,
    },
    /// A file of ours says something else than a digest.
    #[error("digest parse of image {name:?} failed: invalid checksum digest format")]
    Digest {
        /// Of which image.
        name: String,
    },
    /// The name of an image is none.
    #[error("invalid name of an image: {name:?}")]
    Name {
        /// As it is kept.
        name: String,
    },
    /// It is not said what an image is for.
    #[error("manifest {name} must have an OS and Architecture to be pushed to a registry")]
    Platform {
        /// Of which image.
        name: String,
    },
}

/// A list; the fields stand in Go's order, which its digest depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct List {
    schema_version: u32,
    /// Docker's, or OCI's if the first image is of that type.
    pub(super) media_type: &'static str,
    manifests: Vec<Image>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Image {
    #[serde(skip_serializing_if = "String::is_empty")]
    media_type: String,
    size: u64,
    digest: Digest,
    platform: ManifestPlatform,
}

/// The registry and the repository of an image of a list.
pub(super) fn name_of(entry: &Entry) -> Result<Reference, ListError> {
    entry.name.parse().map_err(|_| ListError::Name { name: entry.name.clone() })
}

/// Makes a list of images that are in the same registry.
pub(super) fn list(target: &Reference, entries: &[Entry]) -> Result<List, ListError> {
    let image = |entry: &Entry| {
        let (found, target) = (name_of(entry)?.domain().to_owned(), target.domain().to_owned());
        if found != target {
            return Err(ListError::Registry { found, target });
        }
        let descriptor = &entry.descriptor;
        let digest = descriptor.digest.parse().map_err(|_| ListError::Digest { name: entry.name.clone() })?;
        let (media_type, platform) = (descriptor.media_type.clone(), descriptor.platform.clone().unwrap_or_default());
        Ok(Image { media_type, size: descriptor.size, digest, platform })
    };
    let manifests = entries.iter().map(image).collect::<Result<Vec<_>, _>>()?;
    let is_oci = manifests.first().is_some_and(|image| image.media_type == media_type::OCI_MANIFEST);
    let media_type = if is_oci { media_type::OCI_INDEX } else { media_type::DOCKER_LIST };
    Ok(List { schema_version: 2, media_type, manifests })
}

/// The same, of images that say what they are for.
pub(super) fn list_to_push(target: &Reference, entries: &[Entry]) -> Result<List, ListError> {
    let is_said = |entry: &&Entry| {
        let platform = entry.descriptor.platform.as_ref();
        platform.is_some_and(|platform| !platform.os.is_empty() && !platform.architecture.is_empty())
    };
    match entries.iter().find(|entry| !is_said(entry)) {
        Some(entry) => Err(ListError::Platform { name: entry.name.clone() }),
        None => list(target, entries),
    }
}

/// Over several lines, without Go's escapes.
pub(super) fn indented<T: Serialize>(value: &T, indent: &str) -> String {
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(indent.as_bytes()));
    value.serialize(&mut serializer).expect("texts and numbers are always JSON");
    String::from_utf8(text).expect("JSON is UTF-8")
}

/// Processors and operating systems that Go knows together (docker/cli command/manifest/util.go).
pub(super) fn is_known(os: &str, architecture: &str) -> bool {
    let known = match os {
        "darwin" => &["386", "amd64", "arm", "arm64"][..],
        "freebsd" | "netbsd" => &["386", "amd64", "arm"],
        "linux" => &["386", "amd64", "arm", "arm64", "ppc64le", "mips64", "mips64le", "riscv64", "s390x"],
        "openbsd" | "plan9" | "windows" => &["386", "amd64"],
        "dragonfly" | "solaris" => &["amd64"],
        _ => &[],
    };
    known.contains(&architecture)
}

#[cfg(test)]
mod tests {
    use super::super::store::Descriptor;
    use super::*;

    fn entry(name: &str, media_type: &str, architecture: &str) -> Entry {
        let platform = ManifestPlatform { architecture: architecture.into(), os: "linux".into(), ..Default::default() };
        let platform = Some(platform).filter(|_| !architecture.is_empty());
        let digest = format!("sha256:{:064x}", 7);
        let descriptor = Descriptor { media_type: media_type.into(), digest, size: 9, platform };
        Entry { name: name.into(), descriptor, ..Entry::default() }
    }

    #[test]
    fn lists_are_written_as_go_writes_them() {
        let target = "h:1/a:1".parse().unwrap();
        let made = list(&target, &[entry("h:1/b:1", media_type::DOCKER_MANIFEST, "")]).unwrap();
        let expected = format!(
            "{{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"{}\",\n   \"manifests\": [\n      {{\n         \"mediaType\": \
             \"{}\",\n         \"size\": 9,\n         \"digest\": \"sha256:{:064x}\",\n         \"platform\": {{\n            \
             \"architecture\": \"\",\n            \"os\": \"\"\n         }}\n      }}\n   ]\n}}",
            media_type::DOCKER_LIST,
            media_type::DOCKER_MANIFEST,
            7
        );
        assert_eq!(indented(&made, "   "), expected);
        assert_eq!(
            list(&target, &[entry("h:1/b:1", media_type::OCI_MANIFEST, "")]).unwrap().media_type,
            media_type::OCI_INDEX
        );
    }

    #[test]
    fn images_that_make_no_list_are_refused() {
        let target = "h:1/a:1".parse().unwrap();
        let refused = |entry: Entry| list_to_push(&target, &[entry]).unwrap_err().to_string();
        let elsewhere = "cannot use source images from a different registry than the target image: docker.io != h:1";
        assert_eq!(refused(entry("docker.io/library/b:1", "", "arm")), elsewhere);
        let silent = "manifest h:1/b:1 must have an OS and Architecture to be pushed to a registry";
        assert_eq!(refused(entry("h:1/b:1", "", "")), silent);
        let mut torn = entry("h:1/b:1", "", "arm");
        torn.descriptor.digest = "x".to_owned();
        assert_eq!(refused(torn), "digest parse of image \"h:1/b:1\" failed: invalid checksum digest format");
        assert!(is_known("linux", "riscv64") && !is_known("linux", "vax") && !is_known("", "amd64"));
    }
}
