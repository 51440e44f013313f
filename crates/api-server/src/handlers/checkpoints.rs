//! Checkpoints of containers.

use engine::ops::checkpoint::{self, CheckpointName};
use engine_api::checkpoint::CheckpointCreate;
use http::StatusCode;

use crate::request::Call;
use crate::response::{self, Answer};
use crate::status::Failure;

/// What stands between a container's name and a checkpoint's.
const BETWEEN: &str = "/checkpoints/";

/// `POST /containers/{}/checkpoints`.
pub(crate) async fn create(mut call: Call) -> Result<Answer, Failure> {
    let request: CheckpointCreate = call.json().await?.unwrap_or_default();
    checkpoint::create(&call.engine, &call.name, request).await?;
    Ok(response::empty(StatusCode::CREATED))
}

/// `GET /containers/{}/checkpoints`.
pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    let found = checkpoint::list(&call.engine, &call.name, call.query.text("dir")).await?;
    Ok(response::json(StatusCode::OK, &found))
}

/// `DELETE /containers/{}/checkpoints/{}`.
pub(crate) async fn remove(call: Call) -> Result<Answer, Failure> {
    let (container, name) = call.name.split_once(BETWEEN).unwrap_or_default();
    let checkpoint = CheckpointName { name: name.to_owned(), dir: call.query.text("dir").to_owned() };
    checkpoint::remove(&call.engine, container, checkpoint).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}
