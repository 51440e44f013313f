//! Containers that run: what holds them still, changes, counts and watches them.

use engine::ops;
use http::StatusCode;

use crate::request::Call;
use crate::response::{self, Answer};
use crate::status::Failure;

/// `POST /containers/{}/pause`.
pub(crate) async fn pause(call: Call) -> Result<Answer, Failure> {
    ops::pause::pause(&call.engine, &call.name).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{}/unpause`.
pub(crate) async fn unpause(call: Call) -> Result<Answer, Failure> {
    ops::pause::unpause(&call.engine, &call.name).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}
