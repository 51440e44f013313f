//! Containers that run: what holds them still, changes, counts and watches them.

use engine::ops;
use engine_api::published_ports::PortsRequest;
use engine_api::update::{UpdateRequest, UpdateResponse};
use engine_api::versions;
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

/// `POST /containers/{}/update`.
pub(crate) async fn update(mut call: Call) -> Result<Answer, Failure> {
    let mut request: UpdateRequest = call.json().await?.unwrap_or_default();
    versions::upgrade_update(call.version, &mut request);
    let warnings = ops::update::update(&call.engine, &call.name, request).await?;
    let response = UpdateResponse { warnings: (!warnings.is_empty()).then_some(warnings) };
    Ok(response::json(StatusCode::OK, &response))
}

/// `GET /containers/{}/top`.
pub(crate) async fn top(call: Call) -> Result<Answer, Failure> {
    let top = ops::top::top(&call.engine, &call.name, call.query.text("ps_args")).await?;
    Ok(response::json(StatusCode::OK, &top))
}

/// `GET /containers/{}/stats`: one line of JSON a second, or one look.
pub(crate) async fn stats(call: Call) -> Result<Answer, Failure> {
    let stream = call.query.flag_or("stream", true);
    let mut watch = ops::stats::watch(&call.engine, &call.name)?;
    if !stream && call.query.flag("one-shot") && !call.version.before(41) {
        return Ok(response::json(StatusCode::OK, &watch.once().await?));
    }
    if !stream {
        return Ok(response::json(StatusCode::OK, &watch.pair().await?));
    }
    Ok(call.stream("application/json", async move |sink| {
        while let Some(Ok(stats)) = watch.later().await {
            if sink.line(&stats).await.is_err() {
                return;
            }
        }
    }))
}

/// `POST /containers/{}/ports`, which Docker does not have.
pub(crate) async fn ports(mut call: Call) -> Result<Answer, Failure> {
    let request: PortsRequest = call.json().await?.unwrap_or_default();
    let warnings = ops::published_ports::update(&call.engine, &call.name, request).await?;
    let response = UpdateResponse { warnings: (!warnings.is_empty()).then_some(warnings) };
    Ok(response::json(StatusCode::OK, &response))
}

/// `GET /longshore/exposure?container=NAME`, which Docker does not have; of all containers without a name.
pub(crate) async fn exposure(call: Call) -> Result<Answer, Failure> {
    let exposed = ops::exposure::exposure(&call.engine, call.query.given("container")).await?;
    Ok(response::json(StatusCode::OK, &exposed))
}

/// `GET /containers/{}/why`, which Docker does not have.
pub(crate) async fn why(call: Call) -> Result<Answer, Failure> {
    Ok(response::json(StatusCode::OK, &ops::why::why(&call.engine, &call.name)?))
}
