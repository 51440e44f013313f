//! Images of containers, and of archives.

use engine::metrics::Action;
use engine::ops::commit::{self, CommitOptions};
use engine::ops::import::{self, ImportOptions};
use engine_api::IdResponse;
use engine_api::container::CreateRequest;
use http::StatusCode;

use crate::handlers::progress::Line;
use crate::request::{Call, RequestBody};
use crate::response::{self, Answer};
use crate::status::Failure;
use crate::upload::{self, feed};

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

/// `POST /images/create` with `fromSrc`.
pub(crate) async fn import(mut call: Call, source: &str) -> Result<Answer, Failure> {
    let query = &call.query;
    if source != "-" {
        return Err(Failure::new(
            errdefs::ErrorKind::NotImplemented,
            "importing from another place than the request is not supported yet",
        ));
    }
    let plan = import::plan(&ImportOptions {
        repository: query.text("repo").to_owned(),
        tag: query.text("tag").to_owned(),
        message: query.text("message").to_owned(),
        changes: query.all("changes"),
        platform: query.text("platform").to_owned(),
    })?;
    let first = call.body.chunk().await?;
    let (upload, tar) = upload::channel();
    let body = std::mem::replace(&mut call.body, RequestBody::Whole(Default::default()));
    let engine = call.engine.clone();
    Ok(call.stream("application/json", async move |sink| {
        let (imported, ()) = tokio::join!(import::import(&engine, plan, tar), feed(first, body, upload));
        let line = match imported {
            Ok(id) => Line::Status { status: id, id: None },
            Err(err) => Line::failed(errdefs::chain(&err)),
        };
        // A client that has gone needs no answer.
        let _ = sink.line(&line).await;
    }))
}
