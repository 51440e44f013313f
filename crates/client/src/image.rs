//! Calls about images.

use bytes::Bytes;
use engine_api::auth::{self, AuthConfig};
use engine_api::disk_usage::{ImageBudget, ImagesPruned};
use engine_api::image::{Deleted, HistoryItem, SearchResult, Summary};
use engine_api::platform::Platform;
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
    /// What each stands for, platform by platform.
    pub manifests: bool,
}

/// Lists images.
pub async fn list(client: &Client, options: &ListOptions) -> Result<Vec<Summary>, ClientError> {
    let query = Query::new("/images/json").with_flag("all", options.all).with_text("filters", &options.filters);
    let query = query.with_flag("manifests", options.manifests);
    client.get(&query.build()).await
}

/// Shows an image as the daemon's own bytes.
///
/// `platform` is `os[/architecture[/variant]]`, or empty.
pub async fn inspect_raw(client: &Client, name: &str, platform: &str) -> Result<Bytes, ClientError> {
    let path = with_platform(Query::new(path(name, "/json")), "platform", platform).build();
    client.call(Method::GET, &path, Payload::Empty).await
}

/// How an image was made, newest step first. `platform` is `os[/architecture[/variant]]`, or empty.
pub async fn history(client: &Client, name: &str, platform: &str) -> Result<Vec<HistoryItem>, ClientError> {
    client.get(&with_platform(Query::new(path(name, "/history")), "platform", platform).build()).await
}

fn with_platform(query: Query, key: &str, platform: &str) -> Query {
    if platform.is_empty() { query } else { query.with(key, &platform_json(platform)) }
}

/// Gives an image one more name.
pub async fn tag(client: &Client, name: &str, repository: &str, tag: &str) -> Result<(), ClientError> {
    let query = Query::new(path(name, "/tag")).with("repo", repository).with_text("tag", tag);
    client.call(Method::POST, &query.build(), Payload::Empty).await.map(drop)
}

/// Removes a name and, with its last one, the image; of images for several platforms only those that are named.
pub async fn remove(
    client: &Client,
    name: &str,
    force: bool,
    prune: bool,
    platforms: &[String],
) -> Result<Vec<Deleted>, ClientError> {
    let mut query = Query::new(path(name, "")).with_flag("force", force).with_flag("noprune", !prune);
    for platform in platforms {
        query = with_platform(query, "platforms", platform);
    }
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

/// What the budget for images would remove now.
pub async fn budget(client: &Client) -> Result<ImageBudget, ClientError> {
    client.get("/longshore/images/budget").await
}

/// Saves images as an archive, which the answer is. `platform` is `os[/architecture[/variant]]`, or empty.
pub async fn save(client: &Client, names: &[String], platform: &str) -> Result<Answer, ClientError> {
    let mut query = Query::new("/images/get");
    for name in names {
        query = query.with("names", name);
    }
    if !platform.is_empty() {
        query = query.with("platform", &platform_json(platform));
    }
    client.stream(Method::GET, &query.build(), Payload::Empty).await
}

/// The files of an image in an archive: Longshore's own.
pub async fn files(client: &Client, image: &str) -> Result<Answer, ClientError> {
    let path = format!("/longshore/images/{image}/files");
    client.stream(Method::GET, &path, Payload::Empty).await
}

/// A platform as requests carry it.
fn platform_json(text: &str) -> String {
    let parts: Vec<&str> = text.split('/').collect();
    let mut platform = serde_json::Map::new();
    for (key, part) in ["architecture", "os", "variant"].iter().zip([1, 0, 2]) {
        let part = parts.get(part).copied().unwrap_or_default();
        if part.is_empty() && *key == "variant" {
            continue;
        }
        platform.insert((*key).to_owned(), part.into());
    }
    serde_json::Value::Object(platform).to_string()
}

/// Loads images from an archive. The answer is a stream of progress (see [`crate::lines`]).
pub async fn load(client: &Client, archive: Upload, quiet: bool, platform: &str) -> Result<Answer, ClientError> {
    client.stream(Method::POST, &load_path(quiet, platform), Payload::Archive(archive)).await
}

/// Where archives go.
pub fn load_path(quiet: bool, platform: &str) -> String {
    let query = Query::new("/images/load");
    let query = if platform.is_empty() { query } else { query.with("platform", &platform_json(platform)) };
    query.with("quiet", if quiet { "1" } else { "0" }).build()
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

/// What to push.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    /// The repository, with its registry.
    pub repository: String,
    /// The tag; empty for all tags.
    pub tag: String,
    /// The image must be for this one, if one is given.
    pub platform: Option<Platform>,
    /// What is shown to the registry.
    pub auth: AuthConfig,
}

/// Pushes an image. The answer is a stream of progress.
pub async fn push(client: &Client, options: &PushOptions) -> Result<Answer, ClientError> {
    let platform = options.platform.as_ref().map(serde_json::to_string);
    let platform = platform.map(|json| json.expect("a platform has string keys and no failing serializers"));
    let query = Query::new(format!("/images/{}/push", options.repository))
        .with_text("tag", &options.tag)
        .with_text("platform", &platform.unwrap_or_default());
    let auth = options.auth.to_header();
    client.stream_with(Method::POST, &query.build(), &[(auth::HEADER, &auth)], Payload::Empty).await
}

/// What to look for.
#[derive(Clone, Debug, Default)]
pub struct SearchOptions {
    /// With the registry before it, if that is not Docker Hub.
    pub term: String,
    /// How many at most; 0 for the daemon's own idea.
    pub limit: i64,
    /// Docker's JSON of filters; empty for none.
    pub filters: String,
    /// What is shown to the registry.
    pub auth: AuthConfig,
}

/// Searches a registry.
pub async fn search(client: &Client, options: &SearchOptions) -> Result<Vec<SearchResult>, ClientError> {
    let limit = if options.limit > 0 { options.limit.to_string() } else { String::new() };
    let query = Query::new("/images/search")
        .with("term", &options.term)
        .with_text("limit", &limit)
        .with_text("filters", &options.filters);
    let auth = options.auth.to_header();
    client.stream_with(Method::GET, &query.build(), &[(auth::HEADER, &auth)], Payload::Empty).await?.json().await
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

/// Where the archive is.
#[derive(Debug)]
pub enum ImportSource {
    /// Here; it is sent.
    Archive(Upload),
    /// At an address, where the daemon fetches it.
    Address(String),
}

/// Makes an image of an archive of files. The answer is a stream of progress.
pub async fn import(client: &Client, source: ImportSource, options: &ImportOptions) -> Result<Answer, ClientError> {
    let (from, payload) = match source {
        ImportSource::Archive(archive) => ("-".to_owned(), Payload::Archive(archive)),
        ImportSource::Address(address) => (address, Payload::Empty),
    };
    let mut query = Query::new("/images/create")
        .with("fromSrc", &from)
        .with_text("repo", &options.repository)
        .with_text("message", &options.message)
        .with_text("platform", &options.platform.to_lowercase());
    for change in &options.changes {
        query = query.with("changes", change);
    }
    client.stream(Method::POST, &query.build(), payload).await
}
