//! Calls about volumes.

use bytes::Bytes;
use engine_api::volume::{Volume, VolumeCreate, VolumeList, VolumeSnapshot, VolumesPruned};
use http::Method;

use crate::call::{Answer, Client, Payload, Upload};
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

/// The path of what only our daemon does with a volume.
fn own_path(name: &str, what: &str) -> String {
    format!("/longshore/volumes/{}/{what}", segment(name))
}

/// Reads the archive of a volume.
pub async fn export(client: &Client, name: &str) -> Result<Answer, ClientError> {
    client.stream(Method::GET, &own_path(name, "export"), Payload::Empty).await
}

/// Makes a volume of an archive.
pub async fn import(client: &Client, name: &str, archive: Upload) -> Result<Volume, ClientError> {
    client.stream(Method::POST, &own_path(name, "import"), Payload::Archive(archive)).await?.json().await
}

/// Makes a new volume that holds what another one holds.
pub async fn clone(client: &Client, name: &str, new_name: &str) -> Result<Volume, ClientError> {
    let path = Query::new(own_path(name, "clone")).with("to", new_name).build();
    let bytes = client.call(Method::POST, &path, Payload::Empty).await?;
    crate::call::decode(&path, &bytes)
}

/// Lists the snapshots of a volume.
pub async fn snapshots(client: &Client, name: &str) -> Result<Vec<VolumeSnapshot>, ClientError> {
    client.get(&own_path(name, "snapshots")).await
}

/// Keeps what a volume holds; an empty name is chosen by the daemon.
pub async fn snapshot(client: &Client, name: &str, snapshot: &str) -> Result<VolumeSnapshot, ClientError> {
    let path = Query::new(own_path(name, "snapshots")).with_text("name", snapshot).build();
    let bytes = client.call(Method::POST, &path, Payload::Empty).await?;
    crate::call::decode(&path, &bytes)
}

/// Removes a snapshot.
pub async fn remove_snapshot(client: &Client, name: &str, snapshot: &str) -> Result<(), ClientError> {
    let path = Query::new(own_path(name, "snapshots")).with("name", snapshot).build();
    client.call(Method::DELETE, &path, Payload::Empty).await.map(drop)
}

/// Makes a volume what it was.
pub async fn restore(client: &Client, name: &str, snapshot: &str) -> Result<(), ClientError> {
    let path = Query::new(own_path(name, "restore")).with("snapshot", snapshot).build();
    client.call(Method::POST, &path, Payload::Empty).await.map(drop)
}
