//! Images of containers.

use engine::metrics::Action;
use engine::ops::commit::{self, CommitOptions};
use engine_api::IdResponse;
use engine_api::container::CreateRequest;
use http::StatusCode;

use crate::request::Call;
use crate::response::{self, Answer};
use crate::status::Failure;

/// `POST /commit`.
pub(crate) async fn commit(mut call: Call) -> Result<Answer, Failure> {
    let body = call.json_text().await?.unwrap_or_default();
    let config = if body.is_empty() { None } else { CreateRequest::decode(&body)?.map(|request| request.config) };
    let query = &call.query;
    let options = CommitOptions {
        repository: query.text("repo").to_owned(),
        tag: query.text("tag").to_owned(),
        comment: query.text("comment").to_owned(),
        author: query.text("author").to_owned(),
        changes: query.all("changes"),
        // Not said is yes.
        pause: query.given("pause").is_none() || query.flag("pause"),
        config,
    };
    let committing = commit::commit(&call.engine, query.text("container"), options);
    let id = call.engine.metrics.time(Action::Commit, committing).await?;
    Ok(response::json(StatusCode::CREATED, &IdResponse { id }))
}
