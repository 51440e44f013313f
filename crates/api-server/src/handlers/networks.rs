//! Networks.

use engine::filters::Filters;
use engine::ops::{network_connect, network_create, networks};
use engine_api::network::{NetworkConnect, NetworkCreate, NetworkDisconnect};
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
    // It says more of a cluster's networks alone, but whoever sends nonsense is told.
    call.query.truth("verbose")?;
    let network = networks::inspect(&call.engine, &call.name, call.query.text("scope")).await?;
    Ok(response::json(StatusCode::OK, &network))
}

/// `POST /networks/create`.
pub(crate) async fn create(mut call: Call) -> Result<Answer, Failure> {
    let request: NetworkCreate = call.json().await?.unwrap_or_default();
    Ok(response::json(StatusCode::CREATED, &network_create::create(&call.engine, request).await?))
}

/// `POST /networks/{}/connect`.
pub(crate) async fn connect(mut call: Call) -> Result<Answer, Failure> {
    let mut request: NetworkConnect = call.json().await?.unwrap_or_default();
    versions::upgrade_network_connect(call.version, &mut request);
    network_connect::connect(&call.engine, &call.name, request).await?;
    Ok(response::empty(StatusCode::OK))
}

/// `POST /networks/{}/disconnect`.
pub(crate) async fn disconnect(mut call: Call) -> Result<Answer, Failure> {
    let request: NetworkDisconnect = call.json().await?.unwrap_or_default();
    network_connect::disconnect(&call.engine, &call.name, request).await?;
    Ok(response::empty(StatusCode::OK))
}

/// `DELETE /networks/{}`.
pub(crate) async fn remove(call: Call) -> Result<Answer, Failure> {
    networks::remove(&call.engine, &call.name).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// `POST /networks/prune`.
pub(crate) async fn prune(call: Call) -> Result<Answer, Failure> {
    Ok(response::json(StatusCode::OK, &networks::prune(&call.engine, &Filters(call.query.filters()?)).await?))
}
