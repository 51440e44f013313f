//! Calls about images.

use bytes::Bytes;
use engine_api::auth::{self, AuthConfig};
use engine_api::disk_usage::ImagesPruned;
use engine_api::image::{Deleted, HistoryItem, Summary};
use http::Method;

use crate::call::{Answer, Client, Payload, Upload};
use crate::error::ClientError;
use crate::query::{Query, segment};

/// The path of an image. Go's client cleans its paths: without a name there is one slash less.
fn path(name: &str, action: &str) -> String {
    if name.is_empty() { format!("/images{action}") } else { format!("/images/{}{action}", segment(name)) }
}

/// What a list is about.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Intermediate images, too.
    pub all: bool,
    /// Docker's JSON of filters; empty for none.
    pub filters: String,
}

/// Lists images.
pub async fn list(client: &Client, options: &ListOptions) -> Result<Vec<Summary>, ClientError> {
    let query = Query::new("/images/json").with_flag("all", options.all).with_text("filters", &options.filters);
    client.get(&query.build()).await
}

/// Shows an image as the daemon's own bytes.
pub async fn inspect_raw(client: &Client, name: &str) -> Result<Bytes, ClientError> {
    client.call(Method::GET, &path(name, "/json"), Payload::Empty).await
}

/// How an image was made, newest step first.
pub async fn history(client: &Client, name: &str) -> Result<Vec<HistoryItem>, ClientError> {
    client.get(&path(name, "/history")).await
}

/// Gives an image one more name.
pub async fn tag(client: &Client, name: &str, repository: &str, tag: &str) -> Result<(), ClientError> {
    let query = Query::new(path(name, "/tag")).with("repo", repository).with_text("tag", tag);
    client.call(Method::POST, &query.build(), Payload::Empty).await.map(drop)
}

/// Removes a name and, with its last one, the image.
pub async fn remove(client: &Client, name: &str, force: bool, prune: bool) -> Result<Vec<Deleted>, ClientError> {
    let query = Query::new(path(name, "")).with_flag("force", force).with_flag("noprune", !prune);
    let path = query.build();
    let bytes = client.call(Method::DELETE, &path, Payload::Empty).await?;
    crate::call::decode(&path, &bytes)
}

/// Removes images that no container has.
pub async fn prune(client: &Client, filters: &str) -> Result<ImagesPruned, ClientError> {
    let path = Query::new("/images/prune").with_text("filters", filters).build();
    let bytes = client.call(Method::POST, &path, Payload::Empty).await?;
    crate::call::decode(&path, &bytes)
}

/// Loads images from an archive. The answer is a stream of progress (see [`crate::lines`]).
pub async fn load(client: &Client, archive: Upload, quiet: bool) -> Result<Answer, ClientError> {
    client.stream(Method::POST, &load_path(quiet), Payload::Archive(archive)).await
}

/// Where archives go.
pub fn load_path(quiet: bool) -> String {
    Query::new("/images/load").with("quiet", if quiet { "1" } else { "0" }).build()
}

/// What to pull.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// The repository, with its registry.
    pub repository: String,
    /// The tag or the digest; empty for all tags.
    pub tag: String,
    /// For another platform than the daemon's own.
    pub platform: String,
    /// What is shown to the registry.
    pub auth: AuthConfig,
}

/// Pulls an image. The answer is a stream of progress.
pub async fn pull(client: &Client, options: &PullOptions) -> Result<Answer, ClientError> {
    let query = Query::new("/images/create")
        .with("fromImage", &options.repository)
        // The daemon compares it with what stands in images: Docker's client lowers it, too.
        .with_text("platform", &options.platform.to_lowercase())
        .with_text("tag", &options.tag);
    let auth = options.auth.to_header();
    client.stream_with(Method::POST, &query.build(), &[(auth::HEADER, &auth)], Payload::Empty).await
}

/// What is made of an archive.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The new image's name; empty for none.
    pub repository: String,
    /// Why it was made.
    pub message: String,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// For another platform than the daemon's own.
    pub platform: String,
}

/// Makes an image of an archive of files. The answer is a stream of progress.
pub async fn import(client: &Client, archive: Upload, options: &ImportOptions) -> Result<Answer, ClientError> {
    let mut query = Query::new("/images/create")
        .with("fromSrc", "-")
        .with_text("repo", &options.repository)
        .with_text("message", &options.message)
        .with_text("platform", &options.platform.to_lowercase());
    for change in &options.changes {
        query = query.with("changes", change);
    }
    client.stream(Method::POST, &query.build(), Payload::Archive(archive)).await
}
