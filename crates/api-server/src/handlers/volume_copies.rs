//! Ours: volumes exported, imported, cloned, and brought back to what they were.

use std::time::Duration;

use engine::ops::volume_copies;
use http::StatusCode;

use crate::download;
use crate::request::{Call, RequestBody};
use crate::response::{self, Answer};
use crate::status::Failure;
use crate::upload::{self, feed_within};

/// How long a client may send nothing of an archive.
const SEND_TIMEOUT: Duration = Duration::from_secs(300);

/// `GET /longshore/volumes/{}/export`.
pub(crate) async fn export(call: Call) -> Result<Answer, Failure> {
    let (download, chunks) = download::channel();
    volume_copies::export(&call.engine, &call.name, download).await?;
    Ok(response::archive("application/x-tar", chunks))
}

/// `POST /longshore/volumes/{}/import`.
pub(crate) async fn import(mut call: Call) -> Result<Answer, Failure> {
    let first = call.body.chunk().await?;
    let (upload, tar) = upload::channel();
    let body = std::mem::replace(&mut call.body, RequestBody::Whole(Default::default()));
    let fed = feed_within(SEND_TIMEOUT, first, body, upload);
    let (made, ()) = tokio::join!(volume_copies::import(&call.engine, &call.name, tar), fed);
    Ok(response::json(StatusCode::CREATED, &made?))
}

/// `POST /longshore/volumes/{}/clone?to=NAME`.
pub(crate) async fn clone(call: Call) -> Result<Answer, Failure> {
    let made = volume_copies::clone(&call.engine, &call.name, call.query.text("to")).await?;
    Ok(response::json(StatusCode::CREATED, &made))
}

/// `GET /longshore/volumes/{}/snapshots`.
pub(crate) async fn snapshots(call: Call) -> Result<Answer, Failure> {
    Ok(response::json(StatusCode::OK, &volume_copies::snapshots(&call.engine, &call.name).await?))
}

/// `POST /longshore/volumes/{}/snapshots?name=NAME`.
pub(crate) async fn snapshot(call: Call) -> Result<Answer, Failure> {
    let kept = volume_copies::snapshot(&call.engine, &call.name, call.query.text("name")).await?;
    Ok(response::json(StatusCode::CREATED, &kept))
}

/// `DELETE /longshore/volumes/{}/snapshots?name=NAME`.
pub(crate) async fn remove_snapshot(call: Call) -> Result<Answer, Failure> {
    volume_copies::remove_snapshot(&call.engine, &call.name, call.query.text("name")).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// `POST /longshore/volumes/{}/restore?snapshot=NAME`.
pub(crate) async fn restore(call: Call) -> Result<Answer, Failure> {
    volume_copies::restore(&call.engine, &call.name, call.query.text("snapshot")).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}
