//! Containers.

use engine::filters::Filters;
use engine::metrics::Action;
use engine::ops;
use engine::ops::attach::{self, AttachQuery};
use engine::ops::checkpoint::CheckpointName;
use engine::ops::create::{CreateError, CreateOptions};
use engine::ops::list::ListQuery;
use engine::ops::remove::RemoveOptions;
use engine::ops::wait::{Condition, Waiting};
use engine_api::container::CreateRequest;
use engine_api::{platform, versions};
use http::StatusCode;

use crate::hijack::{Outcome, Takeover};
use crate::query::Query;
use crate::request::Call;
use crate::response::{self, Answer};
use crate::router::raw_failure;
use crate::status::Failure;
use crate::websocket::Accepted;

/// `GET /containers/json`.
pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    let query = ListQuery {
        all: call.query.flag("all"),
        // As with dockerd, zero and less mean "no limit".
        limit: call.query.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|&limit| limit > 0),
        size: call.query.flag("size"),
        filters: Filters(call.query.filters()?),
    };
    let mut containers = response::List::default();
    let add = |mut container| {
        versions::downgrade_summary(call.version, &mut container);
        containers.push(&container);
    };
    ops::list::list(&call.engine, query, add).await?;
    Ok(containers.into_answer())
}

/// `GET /containers/{}/json`.
pub(crate) async fn inspect(call: Call) -> Result<Answer, Failure> {
    let mut inspect = ops::inspect::inspect(&call.engine, &call.name, call.query.flag("size")).await?;
    versions::downgrade_inspect(call.version, &mut inspect);
    Ok(response::json(StatusCode::OK, &inspect))
}

/// `POST /containers/create`.
pub(crate) async fn create(mut call: Call) -> Result<Answer, Failure> {
    let body = call.json_text().await?.unwrap_or_default();
    let mut request = CreateRequest::decode(&body)?.ok_or(CreateError::Empty)?;
    let warning = versions::upgrade_create(call.version, &mut request)?;
    let platform = versions::upgrade_platform(call.version, call.query.given("platform"));
    let platform = platform.map(platform::parse).transpose()?;
    let options = CreateOptions {
        name: call.query.given("name").map(str::to_owned),
        platform,
        flat_read_only: versions::read_only_is_flat(call.version),
        warning,
        without_volumes: false,
        without_mark: false,
    };
    let creation = ops::create::create(&call.engine, options, request);
    let created = call.engine.metrics.time(Action::Create, creation).await?;
    Ok(response::json(StatusCode::CREATED, &created))
}

/// `POST /containers/{}/start`.
pub(crate) async fn start(call: Call) -> Result<Answer, Failure> {
    if announces_host_config(&call) {
        return Err(Failure::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    let (checkpoint, dir) = (call.query.given("checkpoint"), call.query.text("checkpoint-dir").to_owned());
    let from = checkpoint.map(|name| CheckpointName { name: name.to_owned(), dir });
    call.engine.metrics.time(Action::Start, ops::start::start(&call.engine, &call.name, from)).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{}/stop`.
pub(crate) async fn stop(call: Call) -> Result<Answer, Failure> {
    let (timeout, signal) = (call.query.number("t")?, stop_signal(&call));
    ops::stop::stop(&call.engine, &call.name, timeout, signal).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{}/restart`.
pub(crate) async fn restart(call: Call) -> Result<Answer, Failure> {
    let (timeout, signal) = (call.query.number("t")?, stop_signal(&call));
    ops::restart::restart(&call.engine, &call.name, timeout, signal).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{}/kill`.
pub(crate) async fn kill(call: Call) -> Result<Answer, Failure> {
    ops::kill::kill(&call.engine, &call.name, call.query.text("signal")).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{}/wait`: the head at once, so that the client knows its wait is registered; then the exit code.
pub(crate) async fn wait(call: Call) -> Result<Answer, Failure> {
    // Before 1.30 there were neither conditions nor an early head.
    let legacy = call.version.before(30);
    let condition = call.query.given("condition").filter(|_| !legacy);
    let condition = condition.map(str::parse::<Condition>).transpose()?.unwrap_or_default();
    let waiting: Waiting = ops::wait::wait(&call.engine, &call.name, condition).await?;
    if legacy {
        return Ok(response::json(StatusCode::OK, &waiting.finish().await));
    }
    Ok(call.stream("application/json", async move |sink| {
        // A client that has gone needs no answer.
        let _ = sink.line(&waiting.finish().await).await;
    }))
}

/// `POST /containers/{}/resize`.
pub(crate) async fn resize(call: Call) -> Result<Answer, Failure> {
    let (height, width) = terminal_size(&call.query)?;
    ops::resize::resize(&call.engine, &call.name, height, width).await?;
    Ok(response::empty(StatusCode::OK))
}

/// `POST /containers/{}/rename`.
pub(crate) async fn rename(call: Call) -> Result<Answer, Failure> {
    ops::rename::rename(&call.engine, &call.name, call.query.text("name")).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// `DELETE /containers/{}`.
pub(crate) async fn remove(call: Call) -> Result<Answer, Failure> {
    let flag = |name| call.query.flag(name);
    let options = RemoveOptions { force: flag("force"), volumes: flag("v"), link: flag("link") };
    call.engine.metrics.time(Action::Delete, ops::remove::remove(&call.engine, &call.name, options)).await?;
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{}/attach`.
pub(crate) async fn attach(call: Call) -> Result<Outcome, Failure> {
    let flag = |name| call.query.flag(name);
    let query = AttachQuery {
        logs: flag("logs"),
        stream: flag("stream"),
        stdin: flag("stdin"),
        stdout: flag("stdout"),
        stderr: flag("stderr"),
        detach_keys: call.query.given("detachKeys").map(str::to_owned),
        unframed: false,
    };
    match attach::prepare(&call.engine, &call.name, query).await {
        Ok(attachment) => Ok(Outcome::Takeover(Box::new(Takeover::attach(attachment, call.version)))),
        Err(err) => Ok(Outcome::Answer(raw_failure(err.into()))),
    }
}

/// `GET /containers/{}/attach/ws`: all streams in one, in frames of a web socket.
pub(crate) async fn attach_websocket(call: Call) -> Result<Outcome, Failure> {
    let flag = |name| call.query.flag(name);
    // Before 1.42 the choice of streams was ignored.
    let wants = |name| call.version.before(42) || flag(name);
    let query = AttachQuery {
        logs: flag("logs"),
        stream: flag("stream"),
        stdin: wants("stdin"),
        stdout: wants("stdout"),
        stderr: wants("stderr"),
        detach_keys: call.query.given("detachKeys").map(str::to_owned),
        unframed: true,
    };
    let attachment = attach::prepare(&call.engine, &call.name, query).await?;
    Ok(match Accepted::of(&call.headers, call.version) {
        Ok(accepted) => Outcome::Takeover(Box::new(Takeover::websocket(attachment, accepted))),
        Err(refusal) => Outcome::Answer(*refusal),
    })
}

/// Height and width of a terminal. The kernel's fields have 16 bits; more is as much as there can be.
pub(super) fn terminal_size(query: &Query) -> Result<(u16, u16), Failure> {
    let clamp = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
    Ok((clamp(query.size("h", "height")?), clamp(query.size("w", "width")?)))
}

/// The signal of a stop can be chosen since 1.42.
fn stop_signal(call: &Call) -> Option<String> {
    call.query.given("signal").filter(|_| !call.version.before(42)).map(str::to_owned)
}

/// Whether a body of more than 7 bytes, the shortest JSON object with a member, or of unknown length is announced.
fn announces_host_config(call: &Call) -> bool {
    let length =
        call.headers.get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    call.headers.contains_key(http::header::TRANSFER_ENCODING) || length.is_some_and(|length| length > 7)
}
