//! Images of OCI layouts that the client has, as archives (session/content, source/containerimage).
//!
//! ```text
//! root --an index--> the manifest of the platform --> configuration, layers
//! archive: index.json, which names the manifest alone, and what that names
//! ```
//! What is in the archive is checked against its digests by whoever loads it.

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use buildkit_api::content;
use buildkit_api::files::Sink;
use buildkit_api::frame::Incoming;
use buildkit_api::messages::{ReadContentResponse, Stat};
use buildkit_api::session::Session;
use buildkit_api::status::Status;
use serde::Deserialize;

use super::build::Build;
use super::failure::said;
use super::local::Archive;
use crate::upload;

/// The longest manifest or index, in bytes (distribution-spec, "Pushing Manifests").
const MANIFEST_MAX: usize = 4 << 20;

/// The longest blob, in bytes: more than any layer that people make.
const BLOB_MAX: u64 = 64 << 30;

/// The most blobs of an image.
const BLOBS_MAX: usize = 1024;

/// What a blob is known by: `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct BlobDigest(String);

impl BlobDigest {
    /// Reads one; `None` for everything else.
    pub(super) fn parse(text: &str) -> Option<BlobDigest> {
        let hex = text.strip_prefix("sha256:")?;
        let is_good = hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        is_good.then(|| BlobDigest(hex.to_owned()))
    }

    fn hex(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BlobDigest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<BlobDigest, &'static str> {
        BlobDigest::parse(&text).ok_or("invalid digest")
    }
}

impl fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// An image of a layout.
pub(super) struct Layout {
    pub(super) build: Arc<Build>,
    pub(super) session: Arc<Session>,
    /// The name of the context.
    pub(super) name: String,
    /// The client's name of the layout.
    pub(super) store: String,
    pub(super) digest: BlobDigest,
}

/// What a manifest or an index has of others (image-spec v1.1 descriptor.md).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Blob {
    digest: BlobDigest,
    size: u64,
    #[serde(default)]
    platform: Option<BlobPlatform>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct BlobPlatform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: String,
}

/// A manifest or an index.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    manifests: Vec<Blob>,
    config: Option<Blob>,
    #[serde(default)]
    layers: Vec<Blob>,
}

impl Layout {
    /// The archive of the image of a platform.
    pub(super) fn open(self, platform: [String; 3]) -> Box<dyn Read + Send> {
        let (upload, reader) = upload::channel();
        tokio::spawn(async move {
            let mut archive = Archive::new(upload);
            match self.tell(&platform, &mut archive).await {
                Ok(()) => archive.end().await,
                Err(err) => archive.fail(err.message).await,
            }
        });
        Box::new(reader)
    }

    async fn tell(&self, platform: &[String; 3], archive: &mut Archive) -> Result<(), Status> {
        let part = self.build.progress.begin(&format!("[context {}] OCI load from client", self.name), None).await;
        let sent = self.send(platform, archive).await;
        let told = sent.as_ref().err().map(|err| err.message.as_str());
        self.build.progress.end(&part, told).await;
        sent
    }

    async fn send(&self, platform: &[String; 3], archive: &mut Archive) -> Result<(), Status> {
        let (mut digest, mut bytes) = (self.digest.clone(), self.read(&self.digest).await?);
        let mut document = parse(&bytes)?;
        if !document.manifests.is_empty() {
            let chosen = choose(&document.manifests, platform);
            let chosen =
                chosen.ok_or_else(|| said(format!("no match for platform in manifest {digest}: not found")))?;
            (digest, bytes) = (chosen.digest.clone(), self.read(&chosen.digest).await?);
            document = parse(&bytes)?;
        }
        let config = document.config.ok_or_else(|| said(format!("{digest} is no manifest of an image")))?;
        let media_type = if document.media_type.is_empty() { OCI_MANIFEST } else { &document.media_type };
        let index = serde_json::json!({
            "schemaVersion": 2,
            "manifests": [{"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()}],
        });
        file(archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).await?;
        file(archive, "index.json", index.to_string().as_bytes()).await?;
        file(archive, &path(&digest), &bytes).await?;
        if document.layers.len() >= BLOBS_MAX {
            return Err(said(format!("{digest} names too many blobs")));
        }
        let mut sent = vec![digest];
        for blob in [config].iter().chain(&document.layers) {
            if !sent.contains(&blob.digest) {
                self.blob(blob, archive).await?;
                sent.push(blob.digest.clone());
            }
        }
        Ok(())
    }

    /// A blob into the archive; of another length than was said it is refused.
    async fn blob(&self, blob: &Blob, archive: &mut Archive) -> Result<(), Status> {
        if blob.size > BLOB_MAX {
            return Err(said(format!("{} is too large", blob.digest)));
        }
        let mut incoming = self.ask(&blob.digest).await?;
        let (size, mut left) = (blob.size.cast_signed(), blob.size);
        let stat = Stat { path: path(&blob.digest), mode: 0o644, size, ..Stat::default() };
        wanted(archive.entry(&stat).await)?;
        while let Some(ReadContentResponse { data, .. }) = incoming.next().await? {
            left = left.checked_sub(data.len() as u64).ok_or_else(|| wrong(&blob.digest))?;
            wanted(archive.data(data).await)?;
        }
        if left == 0 { Ok(()) } else { Err(wrong(&blob.digest)) }
    }

    /// A short blob, whole.
    async fn read(&self, digest: &BlobDigest) -> Result<Vec<u8>, Status> {
        let name = self.store_name();
        content::Store { session: &self.session, name: &name }.read_whole(&digest.to_string(), MANIFEST_MAX).await
    }

    async fn ask(&self, digest: &BlobDigest) -> Result<Incoming, Status> {
        let name = self.store_name();
        content::Store { session: &self.session, name: &name }.read(&digest.to_string()).await
    }

    fn store_name(&self) -> String {
        format!("oci:{}", self.store)
    }
}

/// What a manifest is that says nothing of it.
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn parse(bytes: &[u8]) -> Result<Document, Status> {
    serde_json::from_slice(bytes).map_err(|err| said(format!("could not parse oci-layout image: {err}")))
}

/// The manifest of a platform; of one alone that says nothing of it, that.
fn choose<'a>(all: &'a [Blob], [os, architecture, variant]: &[String; 3]) -> Option<&'a Blob> {
    let fits = |blob: &&Blob| {
        let own = blob.platform.clone().unwrap_or_default();
        own.os == *os && own.architecture == *architecture
    };
    let exact = all.iter().filter(fits).find(|blob| blob.platform.as_ref().is_some_and(|own| own.variant == *variant));
    let alone = || all.first().filter(|blob| all.len() == 1 && blob.platform.is_none());
    exact.or_else(|| all.iter().find(fits)).or_else(alone)
}

fn path(digest: &BlobDigest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

async fn file(archive: &mut Archive, path: &str, bytes: &[u8]) -> Result<(), Status> {
    let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    let stat = Stat { path: path.to_owned(), mode: 0o644, size, ..Stat::default() };
    wanted(archive.entry(&stat).await)?;
    wanted(archive.data(bytes.to_vec().into()).await)
}

fn wanted(more: bool) -> Result<(), Status> {
    if more { Ok(()) } else { Err(said("nobody reads the client's image")) }
}

fn wrong(digest: &BlobDigest) -> Status {
    said(format!("{digest} has another length than its descriptor says"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_chosen_by_platform() {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let one = |digit: &str, platform: &str| format!(r#"{{"digest":"{}","size":1{platform}}}"#, digest(digit));
        let platform = |os: &str, architecture: &str, variant: &str| {
            format!(r#","platform":{{"os":"{os}","architecture":"{architecture}","variant":"{variant}"}}"#)
        };
        let all = [
            one("a", &platform("linux", "arm", "v6")),
            one("b", &platform("linux", "arm", "v7")),
            one("c", &platform("linux", "amd64", "")),
            one("d", &platform("unknown", "unknown", "")),
        ];
        let index = parse(format!(r#"{{"manifests":[{}]}}"#, all.join(",")).as_bytes()).unwrap();
        let chosen = |wanted: [&str; 3]| {
            choose(&index.manifests, &wanted.map(str::to_owned)).map(|blob| blob.digest.hex()[..1].to_owned())
        };
        assert_eq!(chosen(["linux", "arm", "v7"]).as_deref(), Some("b"));
        assert_eq!(chosen(["linux", "arm", ""]).as_deref(), Some("a"));
        assert_eq!(chosen(["linux", "amd64", ""]).as_deref(), Some("c"));
        assert_eq!(chosen(["linux", "s390x", ""]), None);
    }
}
