//! Processes added to running containers.

use engine::ops::exec;
use engine_api::IdResponse;
use engine_api::exec::{ExecCreate, ExecStart};
use http::StatusCode;

use super::containers::terminal_size;
use crate::hijack::{Outcome, Takeover};
use crate::request::Call;
use crate::response::{self, Answer};
use crate::status::Failure;

/// `POST /containers/{}/exec`.
pub(crate) async fn create(mut call: Call) -> Result<Answer, Failure> {
    let mut request: ExecCreate = call.json().await?.unwrap_or_default();
    if request.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(Failure::invalid("No exec command specified"));
    }
    if call.version.before(42) {
        request.console_size = None;
    }
    let id = exec::create(&call.engine, &call.name, request).await?;
    Ok(response::json(StatusCode::CREATED, &IdResponse { id }))
}

/// `POST /exec/{}/start`: a stream, or nothing for one that runs alone.
pub(crate) async fn start(mut call: Call) -> Result<Outcome, Failure> {
    let mut request: ExecStart = call.json().await?.unwrap_or_default();
    if call.version.before(42) || !request.tty {
        request.console_size = None;
    }
    let detached = request.detach;
    let prepared = exec::prepare_start(&call.engine, &call.name, request).await?;
    if detached {
        prepared.run(None).await?;
        return Ok(Outcome::Answer(response::empty(StatusCode::OK)));
    }
    Ok(Outcome::Takeover(Box::new(Takeover::exec(prepared, call.version))))
}

/// `POST /exec/{}/resize`.
pub(crate) async fn resize(call: Call) -> Result<Answer, Failure> {
    let (height, width) = terminal_size(&call.query)?;
    exec::resize(&call.engine, &call.name, height, width).await?;
    Ok(response::empty(StatusCode::OK))
}

/// `GET /exec/{}/json`.
pub(crate) async fn inspect(call: Call) -> Result<Answer, Failure> {
    Ok(response::json(StatusCode::OK, &exec::inspect(&call.engine, &call.name).await?))
}
