//! Registries, which the daemon asks for us: a client of Docker's asks them itself.

use engine_api::auth::{self, AuthConfig};
use engine_api::manifest::{BlobMounted, ManifestStored, RegistryManifest};
use http::Method;

use crate::call::{Client, Payload};
use crate::error::ClientError;
use crate::query::Query;

/// Which document, and who asks.
#[derive(Clone, Debug, Default)]
pub struct RegistryName {
    /// With the registry, and a tag or a digest.
    pub name: String,
    /// Whether the registry needs no good certificate, nor TLS.
    pub insecure: bool,
    /// What is shown to the registry.
    pub auth: AuthConfig,
}

impl RegistryName {
    fn query(&self, path: &str) -> Query {
        Query::new(path).with("name", &self.name).with_flag("insecure", self.insecure)
    }
}

/// Reads a manifest or an index.
pub async fn manifest(client: &Client, name: &RegistryName) -> Result<RegistryManifest, ClientError> {
    let query = name.query("/longshore/registry/manifest");
    let header = name.auth.to_header();
    client.stream_with(Method::GET, &query.build(), &[(auth::HEADER, &header)], Payload::Empty).await?.json().await
}

/// Gives the name to a document, as it is.
pub async fn put_manifest(
    client: &Client,
    name: &RegistryName,
    media_type: &str,
    document: Vec<u8>,
) -> Result<ManifestStored, ClientError> {
    let query = name.query("/longshore/registry/manifest").with("type", media_type);
    let header = name.auth.to_header();
    let payload = Payload::Json(document);
    client.stream_with(Method::PUT, &query.build(), &[(auth::HEADER, &header)], payload).await?.json().await
}

/// Has the registry take a blob from another of its repositories, named without it.
pub async fn mount(client: &Client, name: &RegistryName, from: &str, digest: &str) -> Result<BlobMounted, ClientError> {
    let query = name.query("/longshore/registry/mount").with("from", from).with("digest", digest);
    let header = name.auth.to_header();
    client.stream_with(Method::POST, &query.build(), &[(auth::HEADER, &header)], Payload::Empty).await?.json().await
}
