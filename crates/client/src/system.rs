//! Calls about the engine itself.

use engine_api::auth::{AuthConfig, AuthResponse};
use engine_api::disk_usage::{CachesPruned, DiskUsage};
use engine_api::system::{Info, Version};
use http::Method;

use crate::call::{Answer, Client, Payload};
use crate::error::ClientError;
use crate::query::Query;

/// The engine's version.
pub async fn version(client: &Client) -> Result<Version, ClientError> {
    client.get("/version").await
}

/// The engine's state.
pub async fn info(client: &Client) -> Result<Info, ClientError> {
    client.get("/info").await
}

/// What happens, as a stream of [`engine_api::events::Event`]; `since` and `until` in seconds since 1970.
pub async fn events(client: &Client, since: &str, until: &str, filters: &str) -> Result<Answer, ClientError> {
    let query = Query::new("/events").with_text("filters", filters).with_text("since", since).with_text("until", until);
    client.stream(Method::GET, &query.build(), Payload::Empty).await
}

/// What everything takes on disk.
pub async fn disk_usage(client: &Client) -> Result<DiskUsage, ClientError> {
    client.get("/system/df").await
}

/// Removes what builds have cached; `options` are further parameters, such as `all`.
pub async fn prune_caches(
    client: &Client,
    filters: &str,
    options: &[(&str, &str)],
) -> Result<CachesPruned, ClientError> {
    let query = Query::new("/build/prune").with_text("filters", filters);
    let path = options.iter().fold(query, |query, (name, value)| query.with(name, value)).build();
    let bytes = client.call(Method::POST, &path, Payload::Empty).await?;
    crate::call::decode(&path, &bytes)
}

/// Lets the engine show a registry who the user is.
pub async fn login(client: &Client, config: &AuthConfig) -> Result<AuthResponse, ClientError> {
    client.post("/auth", config).await
}
