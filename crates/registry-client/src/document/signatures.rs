//! Signatures that cosign keeps beside an image: a manifest under the tag `sha256-<digits>.sig`, or manifests that refer to the
//! image's; one layer a signature.

use http::StatusCode;
use oci::Digest;
use oci::image::{Descriptor, Manifest};

use super::referrers::{manifest_of, referrers};
use super::{Ask, DOCUMENT_MAX, MANIFEST_TYPES, digest_of};
use crate::error::{ExchangeError, RegistryError};
use crate::session::Session;

/// The type of what was signed (cosign specs/SIGNATURE_SPEC.md).
const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Where a layer says its signature, in base64.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// The longest payload that is fetched; they are about 300 bytes.
const PAYLOAD_MAX: u64 = 64 << 10;

/// How many signatures are fetched of one manifest.
const SIGNATURES_MAX: usize = 64;

/// The type of a manifest of signatures that refers to an image's (cosign specs/SIGNATURE_SPEC.md, cosign pkg/oci/remote).
const SIGNATURES_TYPE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// How many of these are looked at.
const REFERRERS_MAX: usize = 16;

/// A signature, of which nothing is known but that it came whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What was signed.
    pub payload: Vec<u8>,
    /// The signature in base64.
    pub signature: String,
}

impl Session {
    /// Hands over the signatures of the manifest of that digest, one after another as they arrive, until `more` wants no more;
    /// none where the registry has none. What is no signature is left out.
    ///
    /// All of them together get the time that one document has: a registry that is asked for them shall not hold a pull.
    pub async fn signatures(&self, of: &Digest, more: impl FnMut(Signed) -> bool + Send) -> Result<(), RegistryError> {
        let path = self.manifest_path(&format!("{}.sig", of.as_str().replacen(':', "-", 1)));
        let ask = Ask { accept: Some(MANIFEST_TYPES), ..Ask::get(&path) };
        let all = self.all_signatures(of, &ask, more);
        let done = tokio::time::timeout(self.registry().settings.timing.document, all).await;
        done.unwrap_or_else(|_| Err(self.failed(&ask, ExchangeError::Stalled)))
    }

    async fn all_signatures(
        &self,
        of: &Digest,
        ask: &Ask<'_>,
        mut more: impl FnMut(Signed) -> bool + Send,
    ) -> Result<(), RegistryError> {
        match self.document(ask, Some(&self.repository)).await {
            Ok((_, bytes)) if !signatures_in(self, &bytes, &mut more).await? => return Ok(()),
            Ok(_) => {}
            Err(err) if is_absent(&err) => {}
            Err(err) => return Err(err),
        }
        for one in referrers(self, of, SIGNATURES_TYPE).await?.iter().take(REFERRERS_MAX) {
            if !signatures_in(self, &manifest_of(self, one).await?, &mut more).await? {
                break;
            }
        }
        Ok(())
    }

    async fn payload(&self, layer: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        if layer.size > PAYLOAD_MAX {
            return Err(RegistryError::TooLong { limit_bytes: PAYLOAD_MAX });
        }
        let path = self.blob_path(&layer.digest);
        let (_, bytes) = self.document_within(&Ask::get(&path), None, layer.size).await?;
        match bytes.len() as u64 == layer.size && digest_of(&bytes) == layer.digest {
            true => Ok(bytes),
            false => Err(RegistryError::ManifestDigest { digest: layer.digest.clone() }),
        }
    }
}

/// Those of one manifest; whether more are wanted.
async fn signatures_in(
    session: &Session,
    manifest: &[u8],
    more: &mut (impl FnMut(Signed) -> bool + Send),
) -> Result<bool, RegistryError> {
    let manifest: Manifest = serde_json::from_slice(manifest).map_err(|source| RegistryError::Manifest { source })?;
    let layers: Vec<&Descriptor> = manifest.layers.iter().filter(|layer| layer.media_type == PAYLOAD_TYPE).collect();
    if layers.len() > SIGNATURES_MAX {
        return Err(RegistryError::TooLong { limit_bytes: DOCUMENT_MAX });
    }
    for layer in layers {
        let Some(signature) = layer.annotations.get(SIGNATURE) else { continue };
        if !more(Signed { payload: session.payload(layer).await?, signature: signature.clone() }) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the registry says that there is none: with a code of its own, or the status alone.
fn is_absent(err: &RegistryError) -> bool {
    match err {
        RegistryError::ManifestUnknown { .. } | RegistryError::NameUnknown { .. } => true,
        RegistryError::Refused { answer } => answer.code == "MANIFEST_UNKNOWN" || answer.code == "NAME_UNKNOWN",
        RegistryError::Status { status } => *status == StatusCode::NOT_FOUND,
        _ => false,
    }
}
