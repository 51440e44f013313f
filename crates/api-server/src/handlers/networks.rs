//! Networks.

use engine::filters::Filters;
use engine::ops::networks;
use engine_api::versions;
use http::StatusCode;

use crate::request::Call;
use crate::response::{self, Answer};
use crate::status::Failure;

/// `GET /networks`.
pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    let filters = Filters(call.query.filters()?);
    let detailed = versions::network_lists_are_detailed(call.version);
    Ok(response::json(StatusCode::OK, &networks::list(&call.engine, &filters, detailed).await?))
}

/// `GET /networks/{}`.
pub(crate) async fn inspect(call: Call) -> Result<Answer, Failure> {
    let network = networks::inspect(&call.engine, &call.name, call.query.text("scope")).await?;
    Ok(response::json(StatusCode::OK, &network))
}

/// `DELETE /networks/{}`.
pub(crate) async fn remove(call: Call) -> Result<Answer, Failure> {
    networks::remove(&call.engine, &call.name).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// `POST /networks/prune`.
pub(crate) async fn prune(call: Call) -> Result<Answer, Failure> {
    Ok(response::json(StatusCode::OK, &networks::prune(&call.engine, &Filters(call.query.filters()?))?))
}
