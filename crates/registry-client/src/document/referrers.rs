//! What refers to a manifest: signatures, lists of parts, whatever names it as its `subject` (distribution-spec v1.1,
//! "Listing Referrers"). A registry of before that has the same list under the tag `sha256-<digits>`, if whoever pushed has kept
//! it there, and so do we.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use oci::Digest;
use oci::image::{Index, media_type};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Ask, DOCUMENT_MAX, Document, MANIFEST_TYPES, digest_of, next_page};
use crate::error::RegistryError;
use crate::session::Session;

/// How the answer to a push says that the registry keeps the list itself.
const KEPT: &str = "oci-subject";

/// Pages of such a list.
const PAGES_MAX: usize = 16;

/// How many are told of one manifest.
const REFERRERS_MAX: usize = 1024;

/// A manifest that refers to another one, of which nothing is known but what the registry says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// Its address.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The type of its document.
    pub media_type: String,
    /// What it is.
    #[serde(default)]
    pub artifact_type: String,
}

/// The list under the tag.
fn tag_of(subject: &Digest) -> String {
    subject.as_str().replacen(':', "-", 1)
}

/// What refers to the manifest of that digest, and is of that type. Bounded; none where the registry knows none.
pub async fn referrers(session: &Session, of: &Digest, kind: &str) -> Result<Vec<Referrer>, RegistryError> {
    #[derive(Deserialize)]
    struct Page {
        #[serde(default)]
        manifests: Vec<Referrer>,
    }
    let mut path = format!("{}/referrers/{of}", session.root);
    let mut found = Vec::new();
    for number in 0..PAGES_MAX {
        let page = match known(session, &path).await? {
            None if number == 0 => known(session, &session.manifest_path(&tag_of(of))).await?,
            page => page,
        };
        let Some((headers, bytes)) = page else { break };
        let page: Page = serde_json::from_slice(&bytes).map_err(|source| RegistryError::Manifest { source })?;
        // Registries may filter, and need not.
        found.extend(page.manifests.into_iter().filter(|one| one.artifact_type == kind));
        match next_page(&headers) {
            Some(next) if found.len() < REFERRERS_MAX => path = next,
            _ => break,
        }
    }
    found.truncate(REFERRERS_MAX);
    Ok(found)
}

/// A document, or that there is none, in whatever words: a registry that does not know the question has none for it.
async fn known(session: &Session, path: &str) -> Result<Option<(HeaderMap, Vec<u8>)>, RegistryError> {
    let ask = Ask { accept: Some(MANIFEST_TYPES), may_lack: true, ..Ask::get(path) };
    match session.document(&ask, None).await {
        Err(RegistryError::Status { status: StatusCode::NOT_FOUND }) => Ok(None),
        answered => answered.map(Some),
    }
}

/// Has the registry list a manifest that was pushed with what it refers to, unless it says that it does so by itself.
pub(crate) async fn list_referrer(
    session: &Session,
    headers: &HeaderMap,
    media_type: &str,
    manifest: &[u8],
) -> Result<(), RegistryError> {
    let Some((subject, entry)) = entry(media_type, manifest).filter(|_| !headers.contains_key(KEPT)) else {
        return Ok(());
    };
    let path = session.manifest_path(&tag_of(&subject));
    let list = known(session, &path).await?.map(|(_, bytes)| bytes);
    let Some(list) = with_entry(list.as_deref(), entry)? else { return Ok(()) };
    if list.len() as u64 > DOCUMENT_MAX {
        return Err(RegistryError::TooLong { limit_bytes: DOCUMENT_MAX });
    }
    let content = Some((media_type::OCI_INDEX, Bytes::from(list)));
    let ask = Ask { method: Method::PUT, content, ..Ask::get(&path) };
    session.document(&ask, None).await.map(drop)
}

/// What a manifest refers to, and how it is listed there; none for one that refers to nothing. Pure.
fn entry(media_type: &str, manifest: &[u8]) -> Option<(Digest, Value)> {
    #[derive(Deserialize)]
    struct Subject {
        digest: Digest,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outline {
        subject: Option<Subject>,
        #[serde(default)]
        artifact_type: String,
        #[serde(default)]
        config: Value,
        #[serde(default)]
        annotations: Value,
    }
    let outline: Outline = serde_json::from_slice(manifest).ok()?;
    let subject = outline.subject?.digest;
    // Images without one are known by their configuration's (image-spec v1.1 manifest.md, "artifactType").
    let kind = Some(outline.artifact_type).filter(|kind| !kind.is_empty());
    let kind = kind.map(Value::from).or_else(|| outline.config.get("mediaType").cloned());
    let mut entry = json!({ "mediaType": media_type, "digest": digest_of(manifest), "size": manifest.len() });
    if let Some(kind) = kind {
        entry["artifactType"] = kind;
    }
    if outline.annotations.is_object() {
        entry["annotations"] = outline.annotations;
    }
    Some((subject, entry))
}

/// The list with one more entry; none if it has it already. What else it says stays. Pure.
fn with_entry(list: Option<&[u8]>, entry: Value) -> Result<Option<Vec<u8>>, RegistryError> {
    let failed = |source| RegistryError::Manifest { source };
    let new = || json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] });
    if let Some(list) = list {
        // One that is no index is somebody's tag, which shall stay.
        serde_json::from_slice::<Index>(list).map_err(failed)?;
    }
    let mut list: Value = list.map_or_else(|| Ok(new()), |list| serde_json::from_slice(list).map_err(failed))?;
    let Some(entries) = list["manifests"].as_array_mut() else { return Ok(None) };
    if entries.iter().any(|other| other["digest"] == entry["digest"]) {
        return Ok(None);
    }
    entries.push(entry);
    Ok(Some(serde_json::to_vec(&list).expect("a value of JSON has string keys")))
}

/// A document as `signatures` reads it.
pub(super) async fn manifest_of(session: &Session, one: &Referrer) -> Result<Vec<u8>, RegistryError> {
    let document: Document = session.manifest(&session.repository, one.digest.as_str(), Some(&one.digest)).await?;
    Ok(document.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u64) -> Digest {
        format!("sha256:{number:064x}").parse().unwrap()
    }

    #[test]
    fn what_refers_to_a_manifest_is_listed_once_and_by_its_type() {
        assert_eq!(entry("m", b"{}"), None);
        assert_eq!(entry("m", b"no json"), None);
        assert_eq!(tag_of(&digest(1)), format!("sha256-{:064x}", 1));
        let of = |more: Value| {
            let mut manifest = json!({ "subject": { "digest": digest(1) }, "config": { "mediaType": "c" } });
            manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let (subject, entry) = entry("m", manifest.to_string().as_bytes()).unwrap();
            assert_eq!(subject, digest(1));
            entry
        };
        let image = of(json!({}));
        assert_eq!((&image["artifactType"], &image["mediaType"]), (&json!("c"), &json!("m")));
        let artifact = of(json!({ "artifactType": "a", "annotations": { "k": "v" } }));
        assert_eq!((&artifact["artifactType"], &artifact["annotations"]["k"]), (&json!("a"), &json!("v")));
        let first = with_entry(None, image.clone()).unwrap().unwrap();
        assert_eq!(with_entry(Some(&first), image.clone()).unwrap(), None, "it is there");
        let mut others: Value = serde_json::from_slice(&first).unwrap();
        others["annotations"] = json!({ "somebody": "else" });
        let second = with_entry(Some(others.to_string().as_bytes()), artifact.clone()).unwrap().unwrap();
        let second: Value = serde_json::from_slice(&second).unwrap();
        assert_eq!(second["manifests"], json!([image, artifact.clone()]));
        assert_eq!(second["annotations"], json!({ "somebody": "else" }));
        assert!(with_entry(Some(br#"{"schemaVersion":2,"config":{}}"#), artifact).is_err(), "somebody's tag");
    }
}
