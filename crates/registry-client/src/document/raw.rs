//! Documents as they are, for whoever puts lists of images together or keeps what an index names besides; and blobs from
//! another repository.

use http::{Method, StatusCode};
use oci::image::Descriptor;
use oci::{Digest, Reference};

use super::{Kind, MANIFEST_TYPES, kind};
use crate::access::{Ask, Reply};
use crate::error::RegistryError;
use crate::session::Session;

/// A manifest or an index, as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawManifest {
    /// Its address, length and type.
    pub descriptor: Descriptor,
    /// Its bytes, verified where its digest was known.
    pub bytes: Vec<u8>,
    /// The configuration's bytes, verified; absent for an index.
    pub config: Option<Vec<u8>>,
}

impl Session {
    /// What `reference` means, as it is.
    pub async fn raw_manifest(&self, reference: &Reference) -> Result<RawManifest, RegistryError> {
        let (name, expected) = self.name_of(reference).await?;
        let document = self.manifest(reference, &name, expected.as_ref()).await?;
        let config = match kind(reference, &document)? {
            Kind::Index(_) => None,
            Kind::Image(manifest) => Some(self.config(&manifest).await?),
        };
        Ok(RawManifest { descriptor: document.descriptor(), bytes: document.bytes, config })
    }

    /// The answer to the wish for a blob of another repository: it is there now, or may be uploaded.
    pub(crate) async fn ask_to_mount(&self, blob: &Digest, from: &Reference) -> Result<Reply, RegistryError> {
        let repository = self.repository.path();
        let path = format!("/v2/{repository}/blobs/uploads/?mount={blob}&from={}", from.path());
        let scope = format!("repository:{repository}:pull,push repository:{}:pull", from.path());
        let ask = Ask::change(Method::POST, &path);
        self.access.with_scope(scope).ask(&ask).await.map_err(|source| self.failed(&ask, source))
    }
}

/// The bytes of a manifest that an index names, whatever it is of: verified, and as long as the index says.
pub async fn named_manifest(session: &Session, named: &Descriptor) -> Result<Vec<u8>, RegistryError> {
    let document = session.manifest(&session.repository, named.digest.as_str(), Some(&named.digest)).await?;
    match document.bytes.len() as u64 == named.size {
        true => Ok(document.bytes),
        false => Err(RegistryError::ManifestDigest { digest: named.digest.clone() }),
    }
}

/// Whether the repository has a manifest of that digest. Only a 404 says that it has not: a registry that has too much to do,
/// or does not let us look, is an error, since whoever asks replaces what seems to lack something.
pub async fn has_manifest(session: &Session, digest: &Digest) -> Result<bool, RegistryError> {
    let path = session.manifest_path(digest.as_str());
    let ask = Ask { method: Method::HEAD, accept: Some(MANIFEST_TYPES), may_lack: true, ..Ask::get(&path) };
    match session.document(&ask, None).await {
        Err(RegistryError::Status { status: StatusCode::NOT_FOUND }) => Ok(false),
        answered => answered.map(|_| true),
    }
}

/// Has the registry take a blob from another of its repositories; whether it did.
pub async fn mount(session: &Session, blob: &Digest, from: &Reference) -> Result<bool, RegistryError> {
    let reply = session.ask_to_mount(blob, from).await?;
    match reply.response.status() {
        StatusCode::CREATED => Ok(true),
        StatusCode::ACCEPTED => {
            give_up(session, &reply).await;
            Ok(false)
        }
        _ => Err(session.refused(reply, None).await),
    }
}

/// Ends an upload that nobody wanted. Registries end it themselves, in time.
async fn give_up(session: &Session, reply: &Reply) {
    let location = reply.response.headers().get(http::header::LOCATION).and_then(|value| value.to_str().ok());
    let Some(Ok(url)) = location.map(|location| session.access.join(location)) else { return };
    let path = url.path.clone();
    if let Err(err) = session.access.ask_at(url, &Ask::change(Method::DELETE, &path)).await {
        tracing::debug!("an upload is left to the registry: {}", errdefs::chain(&err));
    }
}
