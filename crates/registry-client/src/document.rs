//! Manifests, indexes, configurations, lists of tags.

use std::time::Duration;

use http::header::{CONTENT_TYPE, LINK, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use oci::image::{Descriptor, Index, Manifest, Platform, media_type};
use oci::{Digest, Reference};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::Wanted;
use crate::access::{Ask, Reply};
use crate::error::{Answer, RegistryError};
use crate::session::Session;

mod raw;
mod referrers;
mod signatures;

pub use raw::{RawManifest, has_manifest, mount, named_manifest};
pub(crate) use referrers::list_referrer;
pub use referrers::{Referrer, referrers};
pub use signatures::Signed;

/// The longest manifest, index or configuration. Registries and containerd refuse longer ones, too.
const DOCUMENT_MAX: u64 = 4 * 1024 * 1024;

/// The longest error of a registry that is read.
const ANSWER_MAX: u64 = 64 * 1024;

/// Pages of a list of tags.
const PAGES_MAX: usize = 1000;

/// Indexes within indexes.
const NESTING_MAX: usize = 4;

/// How often a document is asked for.
const ATTEMPTS: u32 = 3;

/// What we take, the best first.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// The types of images that are still made of the oldest documents.
const SCHEMA1_TYPES: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// Types of a configuration, and of what; only images run (moby distribution/registry.go, `mediaTypeClasses`).
const CONFIG_CLASSES: [(&str, Option<&str>); 5] = [
    (media_type::DOCKER_CONFIG, None),
    (media_type::OCI_CONFIG, None),
    // Written by registries of long ago, which know no better.
    ("application/octet-stream", None),
    ("application/vnd.docker.plugin.v1+json", Some("plugin")),
    ("application/vnd.docker.plugin.v0+json", Some("plugin")),
];

/// Types of layers that can be unpacked, and what may follow behind a dot.
const LAYER_TYPES: [&str; 8] = [
    media_type::OCI_LAYER,
    media_type::OCI_LAYER_GZIP,
    media_type::OCI_LAYER_ZSTD,
    media_type::DOCKER_LAYER,
    media_type::DOCKER_LAYER_GZIP,
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
];

/// The image that a name means, for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Of what the name means, which may be an index: what people see, and what a pull by digest needs.
    pub digest: Digest,
    /// The image's own manifest.
    pub manifest: Manifest,
    /// Its address, length and type.
    pub descriptor: Descriptor,
    /// Its bytes, verified.
    pub bytes: Vec<u8>,
    /// The index that the name means, and its bytes, if it means one.
    pub index: Option<(Descriptor, Vec<u8>)>,
}

/// A document with its type.
struct Document {
    digest: Digest,
    media_type: String,
    bytes: Vec<u8>,
}

impl Document {
    fn descriptor(&self) -> Descriptor {
        let (media_type, digest) = (self.media_type.clone(), self.digest.clone());
        let size = self.bytes.len() as u64;
        Descriptor { media_type, digest, size, annotations: Default::default(), platform: None }
    }
}

/// What a document is.
enum Kind {
    Image(Manifest),
    Index(Index),
}

impl Session {
    /// The digest that a tag has at present, if the registry tells without sending the manifest.
    pub async fn digest_of(&self, reference: &Reference) -> Result<Option<Digest>, RegistryError> {
        if let Some(digest) = reference.digest() {
            return Ok(Some(digest.clone()));
        }
        let path = self.manifest_path(reference.tag().unwrap_or(oci::reference::DEFAULT_TAG));
        let ask = Ask { method: Method::HEAD, accept: Some(MANIFEST_TYPES), ..Ask::get(&path) };
        let reply = self.ask(&ask).await.map_err(|source| self.failed(&ask, source))?;
        if !reply.response.status().is_success() {
            return Ok(None);
        }
        let header = reply.response.headers().get("docker-content-digest");
        Ok(header.and_then(|value| value.to_str().ok()?.parse().ok()))
    }

    /// The image that `reference` means for a machine of that platform.
    ///
    /// Nothing but its manifest is fetched. A manifest that is not in an index is taken for what it is, whatever the platform.
    pub async fn resolve(&self, reference: &Reference, wanted: &Wanted) -> Result<Resolved, RegistryError> {
        resolve_or(self, reference, wanted, None).await
    }

    /// What `reference` means: the document's address, and what its images run on, as far as they say.
    pub async fn inspect(&self, reference: &Reference) -> Result<(Descriptor, Vec<Platform>), RegistryError> {
        let (name, expected) = self.name_of(reference).await?;
        let document = self.manifest(reference, &name, expected.as_ref()).await?;
        let platforms = match kind(reference, &document)? {
            Kind::Index(index) => index.manifests.into_iter().map(|image| image.platform.unwrap_or_default()).collect(),
            Kind::Image(manifest) => {
                // What is no image of a program says nothing, and dockerd takes that for an answer.
                let platform = match self.config(&manifest).await {
                    Ok(config) => serde_json::from_slice::<Platform>(&config).ok(),
                    Err(RegistryError::Config { source }) if source.passes() => return Err(*source),
                    Err(_) => None,
                };
                platform.into_iter().filter(|platform| *platform != Platform::default()).collect()
            }
        };
        Ok((document.descriptor(), platforms))
    }

    /// What to ask for, and what must come, if the registry tells that beforehand.
    async fn name_of(&self, reference: &Reference) -> Result<(String, Option<Digest>), RegistryError> {
        Ok(match self.digest_of(reference).await? {
            Some(digest) => (digest.to_string(), Some(digest)),
            None => (reference.tag().unwrap_or(oci::reference::DEFAULT_TAG).to_owned(), None),
        })
    }

    /// The configuration of an image.
    pub async fn config(&self, manifest: &Manifest) -> Result<Vec<u8>, RegistryError> {
        let digest = &manifest.config.digest;
        let failed = |source| RegistryError::Config { source: Box::new(source) };
        if manifest.config.size > DOCUMENT_MAX {
            return Err(failed(RegistryError::TooLong { limit_bytes: DOCUMENT_MAX }));
        }
        let path = self.blob_path(digest);
        let (_, bytes) = self.document(&Ask::get(&path), None).await.map_err(failed)?;
        match digest_of(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(failed(RegistryError::ConfigDigest { digest: digest.clone() })),
        }
    }

    /// All tags of the repository.
    pub async fn tags(&self) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let (mut path, mut tags) = (format!("{}/tags/list", self.root), Vec::new());
        for _ in 0..PAGES_MAX {
            let (headers, bytes) = self.document(&Ask::get(&path), Some(&self.repository)).await?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|source| RegistryError::Manifest { source })?;
            tags.extend(page.tags.unwrap_or_default());
            match next_page(&headers) {
                Some(next) => path = next,
                None => return Ok(tags),
            }
        }
        Ok(tags)
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> String {
        format!("{}/blobs/{digest}", self.root)
    }

    pub(crate) fn manifest_path(&self, name: &str) -> String {
        format!("{}/manifests/{name}", self.root)
    }

    async fn manifest(
        &self,
        reference: &Reference,
        name: &str,
        expected: Option<&Digest>,
    ) -> Result<Document, RegistryError> {
        let path = self.manifest_path(name);
        let ask = Ask { accept: Some(MANIFEST_TYPES), ..Ask::get(&path) };
        let (headers, bytes) = self.document(&ask, Some(reference)).await?;
        let digest = digest_of(&bytes);
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(RegistryError::ManifestDigest { digest: expected.clone() });
        }
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        Ok(Document { digest, media_type, bytes })
    }

    /// A whole document, asked for again when that can help. For whom the registry's errors are about is `subject`.
    pub(crate) async fn document(
        &self,
        ask: &Ask<'_>,
        subject: Option<&Reference>,
    ) -> Result<(HeaderMap, Vec<u8>), RegistryError> {
        self.document_within(ask, subject, DOCUMENT_MAX).await
    }

    /// The same, of which no more than that is read.
    async fn document_within(
        &self,
        ask: &Ask<'_>,
        subject: Option<&Reference>,
        limit_bytes: u64,
    ) -> Result<(HeaderMap, Vec<u8>), RegistryError> {
        let timing = self.registry().settings.timing;
        let mut attempt = 1;
        loop {
            match self.document_once(ask, subject, limit_bytes).await {
                Err(err) if err.passes() && attempt < ATTEMPTS => {
                    let Some(wait) = err.wait(timing.retry / 4 * attempt) else { return Err(err) };
                    tracing::debug!("ask a registry again: {}", errdefs::chain(&err));
                    tokio::time::sleep(wait).await;
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    async fn document_once(
        &self,
        ask: &Ask<'_>,
        subject: Option<&Reference>,
        limit_bytes: u64,
    ) -> Result<(HeaderMap, Vec<u8>), RegistryError> {
        let reply = self.ask(ask).await.map_err(|source| self.failed(ask, source))?;
        if ask.may_lack && reply.response.status() == StatusCode::NOT_FOUND {
            return Err(RegistryError::Status { status: StatusCode::NOT_FOUND });
        }
        if !reply.response.status().is_success() {
            return Err(match ask.method {
                // It has no words (RFC 9110, 9.3.2): the status is all that it says.
                Method::HEAD => busy(retry_after(&reply), RegistryError::Status { status: reply.response.status() }),
                _ => self.refused(reply, subject).await,
            });
        }
        let (head, body) = reply.response.into_parts();
        let bytes = body.read(limit_bytes, self.registry().settings.timing.document).await;
        Ok((head.headers, bytes.map_err(|source| self.failed(ask, source))?))
    }

    /// What an answer says that is not what was asked for.
    pub(crate) async fn refused(&self, reply: Reply, subject: Option<&Reference>) -> RegistryError {
        let after = retry_after(&reply);
        busy(after, self.refusal(reply, subject).await)
    }

    async fn refusal(&self, reply: Reply, subject: Option<&Reference>) -> RegistryError {
        let status = reply.response.status();
        if reply.elsewhere || !status.is_client_error() {
            return RegistryError::Status { status };
        }
        let timing = self.registry().settings.timing;
        // A registry that cannot even say what is wrong has said it with the status.
        let body = reply.response.into_body().read(ANSWER_MAX, timing.document).await.ok();
        let answer = body.and_then(|body| answer(status, &body));
        let Some(answer) = answer else { return RegistryError::Status { status } };
        let Some(subject) = subject.filter(|_| answer.specific) else { return RegistryError::Refused { answer } };
        match &answer.code[..] {
            "DENIED" => RegistryError::Denied { name: subject.familiar_name(), answer },
            "NAME_UNKNOWN" => RegistryError::NameUnknown { name: subject.familiar_name(), answer },
            "MANIFEST_UNKNOWN" => RegistryError::ManifestUnknown { reference: subject.familiar(), answer },
            _ => RegistryError::Refused { answer },
        }
    }
}

/// What a registry says, with the time at which it wants to be asked again, if it tells that.
fn busy(after: Option<Duration>, refusal: RegistryError) -> RegistryError {
    match after {
        Some(after) => RegistryError::Busy { after, refusal: Box::new(refusal) },
        None => refusal,
    }
}

pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(&Sha256::digest(bytes).into())
}

/// When a registry that has too much to do wants to be asked again; only of its own words, and not as a date, which clocks
/// may not agree on (RFC 9110, 10.2.3).
fn retry_after(reply: &Reply) -> Option<Duration> {
    let busy = matches!(reply.response.status().as_u16(), 429 | 503);
    let header = reply.response.headers().get(RETRY_AFTER).filter(|_| busy && !reply.elsewhere)?;
    header.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The first error of an answer, as Go's client of registries understands it (distribution registry/client/errors.go).
fn answer(status: StatusCode, body: &[u8]) -> Option<Answer> {
    #[derive(Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
        #[serde(default)]
        detail: Option<serde_json::Value>,
    }
    let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(512).collect::<String>();
    let Ok(errors) = serde_json::from_slice::<Errors>(body) else {
        let message = short(&String::from_utf8_lossy(body));
        let (code, status) = match status.as_u16() {
            401 => ("UNAUTHORIZED", 401),
            403 => ("DENIED", 403),
            429 => ("TOOMANYREQUESTS", 429),
            _ => ("UNKNOWN", 500),
        };
        return Some(Answer { code: code.to_owned(), message, status, specific: true });
    };
    let one = errors.errors.into_iter().next()?;
    let usual = usual_message(&one.code);
    let specific = one.detail.is_some_and(|detail| !detail.is_null()) || Some(&one.message[..]) != usual;
    let message = if one.message.is_empty() { usual.unwrap_or_default().to_owned() } else { short(&one.message) };
    Some(Answer { code: short(&one.code), message, status: status.as_u16(), specific })
}

/// The message that a code usually has; with that and no detail, dockerd prints the code alone.
fn usual_message(code: &str) -> Option<&'static str> {
    Some(match code {
        "UNAUTHORIZED" => "authentication required",
        "DENIED" => "requested access to the resource is denied",
        "NAME_UNKNOWN" => "repository name not known to registry",
        "MANIFEST_UNKNOWN" => "manifest unknown",
        "BLOB_UNKNOWN" => "blob unknown to registry",
        "TOOMANYREQUESTS" => "too many requests",
        "UNAVAILABLE" => "service unavailable",
        "UNSUPPORTED" => "The operation is unsupported.",
        "UNKNOWN" => "unknown error",
        _ => return None,
    })
}

/// Tells an image from an index by the header's type, else by the document's own, and never by its fields alone when they
/// would allow both (CVE-2021-41190).
fn kind(reference: &Reference, document: &Document) -> Result<Kind, RegistryError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outline {
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        media_type: String,
        config: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    if SCHEMA1_TYPES.contains(&&document.media_type[..]) {
        return Err(RegistryError::Schema1 { reference: reference.to_string() });
    }
    let failed = |source| RegistryError::Manifest { source };
    let outline: Outline = serde_json::from_slice(&document.bytes).map_err(failed)?;
    if outline.schema_version == 1 {
        return Err(RegistryError::Schema1 { reference: reference.to_string() });
    }
    let is_image = |name: &str| [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST].contains(&name);
    let is_index = |name: &str| [media_type::OCI_INDEX, media_type::DOCKER_LIST].contains(&name);
    let known = |name: &&str| is_image(name) || is_index(name);
    let said = [&document.media_type[..], &outline.media_type[..]].into_iter().find(known);
    let said = said.ok_or(RegistryError::Format)?;
    let ambiguous = || RegistryError::Ambiguous { media_type: said.to_owned() };
    if known(&&outline.media_type[..]) && is_image(said) != is_image(&outline.media_type) {
        return Err(ambiguous());
    }
    match is_image(said) {
        true if outline.manifests.is_some() => Err(ambiguous()),
        true => Ok(Kind::Image(serde_json::from_slice(&document.bytes).map_err(failed)?)),
        false if outline.config.is_some() || outline.layers.is_some() => Err(ambiguous()),
        false => Ok(Kind::Index(serde_json::from_slice(&document.bytes).map_err(failed)?)),
    }
}

/// Whether it is an image whose layers we can unpack, or such an artifact.
fn check_types(manifest: &Manifest, said: &str, artifact: Option<&str>) -> Result<(), RegistryError> {
    let config = &manifest.config.media_type;
    match CONFIG_CLASSES.iter().find(|(name, _)| name == config) {
        Some((_, None)) => {}
        None if artifact == Some(config) => {}
        // An artifact (image-spec v1.1 manifest.md, "Guidelines for Artifact Usage"). dockerd looks at classes in its own
        // manifests alone.
        None if said == media_type::OCI_MANIFEST => {
            return Err(RegistryError::LayerType { media_type: config.clone() });
        }
        other => {
            let class = other.and_then(|(_, class)| *class).unwrap_or("unknown");
            return Err(RegistryError::NotAnImage { media_type: config.clone(), class });
        }
    }
    for layer in &manifest.layers {
        let name = layer.media_type.to_ascii_lowercase();
        let extends =
            |known: &&str| name.strip_prefix(*known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if !LAYER_TYPES.iter().any(extends) {
            return Err(RegistryError::LayerType { media_type: layer.media_type.clone() });
        }
    }
    Ok(())
}

/// As [`Session::resolve`], or what has layers as an image has them beside an `artifact` of that type (image-spec v1.1 manifest.md,
/// "Guidelines for Artifact Usage").
pub async fn resolve_or(
    session: &Session,
    reference: &Reference,
    wanted: &Wanted,
    artifact: Option<&str>,
) -> Result<Resolved, RegistryError> {
    let (name, expected) = session.name_of(reference).await?;
    let mut document = session.manifest(reference, &name, expected.as_ref()).await?;
    let (digest, mut outermost) = (document.digest.clone(), None);
    for _ in 0..NESTING_MAX {
        let index = match kind(reference, &document)? {
            Kind::Image(manifest) => {
                check_types(&manifest, &document.media_type, artifact)?;
                let (descriptor, bytes) = (document.descriptor(), document.bytes);
                return Ok(Resolved { digest, manifest, descriptor, bytes, index: outermost });
            }
            Kind::Index(index) => index,
        };
        let chosen = wanted.choose(&index.manifests).into_iter().next();
        let chosen = chosen.ok_or_else(|| RegistryError::NoMatch { platform: wanted.to_string() })?;
        let next = session.manifest(reference, chosen.digest.as_str(), Some(&chosen.digest)).await?;
        let index = std::mem::replace(&mut document, next);
        outermost = outermost.or_else(|| Some((index.descriptor(), index.bytes)));
    }
    Err(RegistryError::Nesting)
}

/// The path of the next page: `</v2/a/tags/list?last=x&n=100>; rel="next"` (RFC 8288). Only on the same registry.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.replace(['"', ' '], "").contains("rel=next");
    (is_next && target.starts_with('/') && !target.starts_with("//")).then(|| target.to_owned())
}

#[cfg(test)]
mod tests;
