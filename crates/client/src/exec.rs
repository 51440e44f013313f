//! Calls about processes added to a container.

use engine_api::IdResponse;
use engine_api::exec::{ExecCreate, ExecInspect, ExecStart};
use http::Method;

use crate::call::{Client, Payload};
use crate::error::ClientError;
use crate::hijack::Hijacked;
use crate::query::{Query, segment};

fn path(id: &str, action: &str) -> String {
    format!("/exec/{}{action}", segment(id))
}

/// Prepares a process in container `container`.
pub async fn create(client: &Client, container: &str, request: &ExecCreate) -> Result<IdResponse, ClientError> {
    client.post(&crate::container::path(container, "/exec")?, request).await
}

/// Starts it and attaches to its streams.
pub async fn start(client: &Client, id: &str, request: &ExecStart) -> Result<Hijacked, ClientError> {
    let Payload::Json(body) = Payload::json(request) else { return client.hijack(&path(id, "/start"), &[]).await };
    client.hijack(&path(id, "/start"), &body).await
}

/// Starts it and leaves it alone.
pub async fn start_detached(client: &Client, id: &str, request: &ExecStart) -> Result<(), ClientError> {
    client.call(Method::POST, &path(id, "/start"), Payload::json(request)).await.map(drop)
}

/// Shows it.
pub async fn inspect(client: &Client, id: &str) -> Result<ExecInspect, ClientError> {
    client.get(&path(id, "/json")).await
}

/// Tells the size of its terminal.
pub async fn resize(client: &Client, id: &str, height: u16, width: u16) -> Result<(), ClientError> {
    let query = Query::new(path(id, "/resize")).with("h", &height.to_string()).with("w", &width.to_string());
    client.call(Method::POST, &query.build(), Payload::Empty).await.map(drop)
}
