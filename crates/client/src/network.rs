//! Calls about networks.

use bytes::Bytes;
use engine_api::disk_usage::NetworksPruned;
use engine_api::network::{Network, NetworkConnect, NetworkCreate, NetworkCreated, NetworkDisconnect};
use http::Method;

use crate::call::{Client, Payload};
use crate::error::ClientError;
use crate::query::{Query, segment};

/// The path of a network, or of an action. A name that is empty would make another path of it.
fn path(name: &str, action: &str) -> Result<String, ClientError> {
    match name.trim() {
        "" => Err(ClientError::EmptyNetwork),
        name => Ok(format!("/networks/{}{action}", segment(name))),
    }
}

/// Lists networks; `filters` is Docker's JSON of filters, empty for none.
pub async fn list(client: &Client, filters: &str) -> Result<Vec<Network>, ClientError> {
    client.get(&Query::new("/networks").with_text("filters", filters).build()).await
}

/// Shows a network as the daemon's own bytes.
pub async fn inspect_raw(client: &Client, name: &str) -> Result<Bytes, ClientError> {
    client.call(Method::GET, &path(name, "")?, Payload::Empty).await
}

/// Makes a network.
pub async fn create(client: &Client, request: &NetworkCreate) -> Result<NetworkCreated, ClientError> {
    client.post("/networks/create", request).await
}

/// Removes a network.
pub async fn remove(client: &Client, name: &str) -> Result<(), ClientError> {
    client.call(Method::DELETE, &path(name, "")?, Payload::Empty).await.map(drop)
}

/// Connects a container to a network.
pub async fn connect(client: &Client, name: &str, request: &NetworkConnect) -> Result<(), ClientError> {
    client.call(Method::POST, &path(name, "/connect")?, Payload::json(request)).await.map(drop)
}

/// Disconnects a container from a network.
pub async fn disconnect(client: &Client, name: &str, request: &NetworkDisconnect) -> Result<(), ClientError> {
    client.call(Method::POST, &path(name, "/disconnect")?, Payload::json(request)).await.map(drop)
}

/// Removes networks that nobody uses.
pub async fn prune(client: &Client, filters: &str) -> Result<NetworksPruned, ClientError> {
    let path = Query::new("/networks/prune").with_text("filters", filters).build();
    let bytes = client.call(Method::POST, &path, Payload::Empty).await?;
    crate::call::decode(&path, &bytes)
}
