//! Calls about volumes.

use bytes::Bytes;
use engine_api::volume::{Volume, VolumeCreate, VolumeList, VolumesPruned};
use http::Method;

use crate::call::{Client, Payload};
use crate::error::ClientError;
use crate::query::{Query, segment};

fn path(name: &str) -> String {
    format!("/volumes/{}", segment(name))
}

/// Makes a volume, unless there is one of that name.
pub async fn create(client: &Client, request: &VolumeCreate) -> Result<Volume, ClientError> {
    client.post("/volumes/create", request).await
}

/// Lists volumes; `filters` is Docker's JSON of filters, empty for none.
pub async fn list(client: &Client, filters: &str) -> Result<VolumeList, ClientError> {
    client.get(&Query::new("/volumes").with_text("filters", filters).build()).await
}

/// Shows a volume as the daemon's own bytes.
pub async fn inspect_raw(client: &Client, name: &str) -> Result<Bytes, ClientError> {
    client.call(Method::GET, &path(name), Payload::Empty).await
}

/// Removes a volume; with `force` also one that is not there.
pub async fn remove(client: &Client, name: &str, force: bool) -> Result<(), ClientError> {
    let query = Query::new(path(name)).with_flag("force", force);
    client.call(Method::DELETE, &query.build(), Payload::Empty).await.map(drop)
}

/// Removes volumes that no container has.
pub async fn prune(client: &Client, filters: &str) -> Result<VolumesPruned, ClientError> {
    let path = Query::new("/volumes/prune").with_text("filters", filters).build();
    let bytes = client.call(Method::POST, &path, Payload::Empty).await?;
    crate::call::decode(&path, &bytes)
}
