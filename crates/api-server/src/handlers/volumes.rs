//! Volumes.

use engine::filters::Filters;
use engine::ops::volumes;
use engine_api::versions;
use engine_api::volume::VolumeCreate;
use http::StatusCode;

use crate::request::Call;
use crate::response::{self, Answer};
use crate::status::Failure;

/// `GET /volumes`.
pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    let of_list =
        |failure: Failure| Failure { message: format!("error reading volume filters: {}", failure.message), ..failure };
    let filters = Filters(call.query.filters().map_err(of_list)?);
    Ok(response::json(StatusCode::OK, &volumes::list(&call.engine, &filters)?))
}

/// `GET /volumes/{}`.
pub(crate) async fn inspect(call: Call) -> Result<Answer, Failure> {
    Ok(response::json(StatusCode::OK, &volumes::inspect(&call.engine, &call.name)?))
}

/// `POST /volumes/create`.
pub(crate) async fn create(mut call: Call) -> Result<Answer, Failure> {
    let mut request: VolumeCreate = call.json().await?.unwrap_or_default();
    versions::upgrade_volume_create(call.version, &mut request);
    Ok(response::json(StatusCode::CREATED, &volumes::create(&call.engine, request).await?))
}

/// `DELETE /volumes/{}`.
pub(crate) async fn remove(call: Call) -> Result<Answer, Failure> {
    volumes::remove(&call.engine, &call.name, call.query.flag("force")).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// `POST /volumes/prune`.
pub(crate) async fn prune(call: Call) -> Result<Answer, Failure> {
    let mut filters = Filters(call.query.filters()?);
    versions::upgrade_volume_prune(call.version, &mut filters.0);
    Ok(response::json(StatusCode::OK, &volumes::prune(&call.engine, filters).await?))
}
