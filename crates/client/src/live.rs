//! Calls about containers that run: what they use, what they may, and which processes they have.

use engine_api::container::Top;
use engine_api::exposure::ExposedPort;
use engine_api::published_ports::SentPorts;
use engine_api::stats::Stats;
use engine_api::update::{SentUpdate, UpdateResponse};
use engine_api::why::Why;

use crate::call::Client;
use crate::container::path;
use crate::error::ClientError;
use crate::query::Query;

/// What a container uses. `pair` looks twice, which takes a while, so that shares of the processors can be computed.
pub async fn stats(client: &Client, id: &str, pair: bool) -> Result<Stats, ClientError> {
    let query = Query::new(path(id, "/stats")?).with("stream", "0").with_flag("one-shot", !pair);
    client.get(&query.build()).await
}

/// Changes the limits of a container, and its restart policy.
pub async fn update(client: &Client, id: &str, update: &SentUpdate) -> Result<UpdateResponse, ClientError> {
    client.post(&path(id, "/update")?, update).await
}

/// Publishes ports of a container and gives others up, and changes its limits if that goes, too. Only our own daemon does that.
pub async fn update_ports(client: &Client, id: &str, update: &SentPorts<'_>) -> Result<UpdateResponse, ClientError> {
    client.post(&path(id, "/ports")?, update).await.map_err(ClientError::of_own_call)
}

/// The processes of a container; `arguments` are for the host's `ps`.
pub async fn top(client: &Client, id: &str, arguments: &str) -> Result<Top, ClientError> {
    client.get(&Query::new(path(id, "/top")?).with_text("ps_args", arguments).build()).await
}

/// Who reaches which port of a running container, or of all without a name. Only our own daemon knows.
pub async fn exposure(client: &Client, id: &str) -> Result<Vec<ExposedPort>, ClientError> {
    let exposed = client.get(&Query::new("/longshore/exposure").with_text("container", id).build()).await;
    exposed.map_err(ClientError::of_own_call)
}

/// Why a container is as it is. Only our own daemon knows.
pub async fn why(client: &Client, id: &str) -> Result<Why, ClientError> {
    client.get(&path(id, "/why")?).await.map_err(ClientError::of_own_call)
}
