//! Lists of images that are being put together: Docker's client keeps them in files, and these are the same.
//!
//! ```text
//! <directory of config.json>/manifests/
//!     registry.example_app-1/             a list, by its name
//!         registry.example_app-arm64      one image of it
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use engine_api::auth;
use engine_api::manifest::{ManifestPlatform, RegistryManifest};
use oci::image::media_type;
use oci::{Digest, Reference};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest file that is read: a document of a registry, twice, once in base64.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// Why a list is not to be had. The texts are those of Docker's client.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// There is none, or it does not have that image.
    #[error("No such manifest: {0}")]
    Absent(Reference),
    /// A file or directory.
    #[error("{what} {}", path.display())]
    File {
        /// What was to be done with it.
        what: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is none of ours.
    #[error("decode {}", path.display())]
    Decode {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// An image of a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Entry {
    /// Its name, with the registry.
    #[serde(rename = "Ref")]
    pub(super) name: String,
    /// Its manifest's address, and what it is for.
    pub(super) descriptor: Descriptor,
    /// The manifest's bytes in base64. Clients of long ago kept none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) raw: String,
    /// The manifest, if it is Docker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) schema_v2_manifest: Option<Value>,
    /// The manifest, if it is of OCI's type.
    #[serde(rename = "OCIManifest", skip_serializing_if = "Option::is_none")]
    pub(super) oci_manifest: Option<Value>,
}

/// As Go writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Descriptor {
    /// Of an image's manifest.
    pub(super) media_type: String,
    /// `sha256:...`, unless somebody else wrote it.
    pub(super) digest: String,
    /// Bytes.
    pub(super) size: u64,
    /// What the image is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<ManifestPlatform>,
}

impl Entry {
    /// What a registry has under a name.
    pub(super) fn new(name: &Reference, found: &RegistryManifest) -> Result<Entry, serde_json::Error> {
        let manifest: Option<Value> = Some(serde_json::from_str(&found.raw)?);
        let is_oci = found.media_type == media_type::OCI_MANIFEST;
        let (schema_v2_manifest, oci_manifest) = if is_oci { (None, manifest) } else { (manifest, None) };
        Ok(Entry {
            name: name.to_string(),
            descriptor: Descriptor {
                media_type: found.media_type.clone(),
                digest: found.digest.clone(),
                size: found.raw.len() as u64,
                platform: found.platform.clone(),
            },
            raw: auth::encode_standard(found.raw.as_bytes()),
            schema_v2_manifest,
            oci_manifest,
        })
    }

    /// The manifest itself.
    pub(super) fn manifest(&self) -> Option<&Value> {
        self.schema_v2_manifest.as_ref().or(self.oci_manifest.as_ref())
    }

    /// The manifest's bytes, if they were kept and are whole.
    pub(super) fn raw(&self) -> Option<Vec<u8>> {
        auth::decode(&self.raw).filter(|bytes| !bytes.is_empty())
    }

    /// Configuration and layers, as far as the manifest names such.
    pub(super) fn blobs(&self) -> Vec<Digest> {
        let manifest = self.manifest();
        let layers = manifest.and_then(|one| one.get("layers")?.as_array()).into_iter().flatten();
        let blobs = manifest.and_then(|one| one.get("config")).into_iter().chain(layers);
        blobs.filter_map(|blob| blob.get("digest")?.as_str()?.parse().ok()).collect()
    }
}

/// All lists of a user.
pub(super) struct Store(PathBuf);

impl Store {
    /// Those beside the configuration in `directory`.
    pub(super) fn of(directory: &Path) -> Store {
        Store(directory.join("manifests"))
    }

    fn list_path(&self, list: &Reference) -> PathBuf {
        self.0.join(file_name(list))
    }

    /// One image of a list.
    pub(super) fn get(&self, list: &Reference, image: &Reference) -> Result<Entry, StoreError> {
        read(&self.list_path(list).join(file_name(image)), image)
    }

    /// All images of a list, by the names of their files.
    pub(super) fn list(&self, list: &Reference) -> Result<Vec<Entry>, StoreError> {
        let path = self.list_path(list);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => StoreError::Absent(list.clone()),
            _ => StoreError::File { what: "list", path: path.clone(), source },
        };
        let files: io::Result<Vec<PathBuf>> =
            fs::read_dir(&path).map_err(failed)?.map(|file| Ok(file?.path())).collect();
        let mut files = files.map_err(failed)?;
        files.sort();
        files.iter().map(|file| read(file, list)).collect()
    }

    /// Keeps an image of a list.
    pub(super) fn save(&self, list: &Reference, image: &Reference, entry: &Entry) -> Result<(), StoreError> {
        let directory = self.list_path(list);
        let made = fs::create_dir_all(&directory);
        made.map_err(|source| StoreError::File { what: "create", path: directory.clone(), source })?;
        let path = directory.join(file_name(image));
        let text =
            crate::format::json::escaped(&serde_json::to_string(entry).expect("texts and numbers are always JSON"));
        // Nothing beside it: whatever is in the directory is an image of the list, also to Docker's client.
        fs::write(&path, text).map_err(|source| StoreError::File { what: "write", path, source })
    }

    /// Forgets a list, if there is one.
    pub(super) fn remove(&self, list: &Reference) -> Result<(), StoreError> {
        let path = self.list_path(list);
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::File { what: "remove", path, source })
            }
            _ => Ok(()),
        }
    }
}

/// A name has no `..`, and no letter but these two that files must not have.
fn file_name(reference: &Reference) -> String {
    reference.to_string().replace(':', "-").replace('/', "_")
}

fn read(path: &Path, what: &Reference) -> Result<Entry, StoreError> {
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes));
    file.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => StoreError::Absent(what.clone()),
        _ => StoreError::File { what: "read", path: path.to_owned(), source },
    })?;
    serde_json::from_slice(&bytes).map_err(|source| StoreError::Decode { path: path.to_owned(), source })
}
