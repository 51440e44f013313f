//! Calls about checkpoints of containers.

use engine_api::checkpoint::{CheckpointCreate, CheckpointSummary};
use http::Method;

use crate::call::{Client, Payload};
use crate::container::path;
use crate::error::ClientError;
use crate::query::{Query, segment};

/// Writes a running container to files.
pub async fn create(client: &Client, id: &str, request: &CheckpointCreate) -> Result<(), ClientError> {
    client.call(Method::POST, &path(id, "/checkpoints")?, Payload::json(request)).await.map(drop)
}

/// Lists the checkpoints of a container, or those in `dir`.
pub async fn list(client: &Client, id: &str, dir: &str) -> Result<Vec<CheckpointSummary>, ClientError> {
    client.get(&Query::new(path(id, "/checkpoints")?).with_text("dir", dir).build()).await
}

/// Removes one.
pub async fn remove(client: &Client, id: &str, name: &str, dir: &str) -> Result<(), ClientError> {
    let path = path(id, &format!("/checkpoints/{}", segment(name)))?;
    let path = Query::new(path).with_text("dir", dir).build();
    client.call(Method::DELETE, &path, Payload::Empty).await.map(drop)
}
