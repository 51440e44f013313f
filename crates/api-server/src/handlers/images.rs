//! Images.

use engine::filters::Filters;
use engine::ops::distribution;
use engine::ops::images::{self, ImageQuery, LoadProgress};
use engine::ops::search::{self, SearchQuery};
use engine_api::{auth, platform};
use http::StatusCode;

use crate::handlers::progress::Line;
use crate::handlers::save;
use crate::query::decimal;
use crate::request::{Call, RequestBody};
use crate::response::{self, Answer};
use crate::status::Failure;
use crate::upload::{self, feed};

/// `GET /images/json`.
pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    let mut filters = Filters(call.query.filters()?);
    // Until 1.41 a glob of names had a parameter of its own.
    if let Some(glob) = call.query.given("filter").filter(|_| call.version.before(41)) {
        filters.0.entry("reference".to_owned()).or_default().insert(glob.to_owned());
    }
    let query = ImageQuery {
        all: call.query.flag("all"),
        digests: call.query.flag("digests"),
        shared_size: call.query.flag("shared-size") && !call.version.before(42),
        manifests: call.query.flag("manifests") && !call.version.before(48),
        filters,
    };
    let images = images::list(&call.engine, query).await?;
    Ok(response::json(StatusCode::OK, &engine_api::versions::downgrade_images(call.version, images)))
}

/// `GET /images/{}/json`.
pub(crate) async fn inspect(call: Call) -> Result<Answer, Failure> {
    let manifests = call.query.flag("manifests") && !call.version.before(48);
    let platform = platform_since(&call, 49, "platform")?;
    if manifests && platform.is_some() {
        return Err(Failure::invalid("conflicting options: manifests and platform options cannot both be set"));
    }
    let image = images::inspect(&call.engine, &call.name, platform.as_deref(), manifests).await?;
    Ok(response::json(StatusCode::OK, &engine_api::versions::downgrade_image(call.version, image)))
}

/// `GET /distribution/{}/json`.
pub(crate) async fn distribution(call: Call) -> Result<Answer, Failure> {
    Ok(response::json(StatusCode::OK, &distribution::inspect(&call.engine, &call.name, authorization(&call)).await?))
}

/// `GET /images/search`.
pub(crate) async fn search(call: Call) -> Result<Answer, Failure> {
    let limit = call.query.given("limit").map(|text| {
        let refused =
            |cause| Failure::invalid(format!("invalid limit specified: strconv.Atoi: parsing {text:?}: {cause}"));
        decimal(text).map_err(refused)
    });
    let query = SearchQuery {
        term: call.query.text("term").to_owned(),
        limit: limit.transpose()?.unwrap_or_default(),
        filters: Filters(call.query.filters()?),
        authorization: authorization(&call).to_owned(),
    };
    Ok(response::json(StatusCode::OK, &search::search(&call.engine, &query).await?))
}

pub(super) fn authorization(call: &Call) -> &str {
    call.headers.get(auth::HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// `GET /images/{}/history`.
pub(crate) async fn history(call: Call) -> Result<Answer, Failure> {
    let platform = platform_since(&call, 48, "platform")?;
    Ok(response::json(StatusCode::OK, &images::history(&call.engine, &call.name, platform.as_deref()).await?))
}

/// The one platform that a request is about, `os/architecture[/variant]`; before that version of the API nobody asked.
fn platform_since(call: &Call, minor: u32, key: &str) -> Result<Option<String>, Failure> {
    let given = if call.version.before(minor) { Vec::new() } else { call.query.all(key) };
    let mut platforms = Vec::new();
    for text in given.iter().filter(|text| !text.is_empty()) {
        let platform = platform::from_json(text.as_bytes()).map_err(|err| Failure::invalid(errdefs::chain(&err)))?;
        let parts = [platform.os, platform.architecture, platform.variant].join("/");
        platforms.push(parts.trim_end_matches('/').to_owned());
    }
    match platforms.len() {
        0 | 1 => Ok(platforms.pop()),
        _ if key == "platforms" => Err(Failure::invalid("multiple platforms are not supported")),
        // Go takes the first of several values.
        _ => Ok(platforms.into_iter().next()),
    }
}

/// `POST /images/{}/tag`.
pub(crate) async fn tag(call: Call) -> Result<Answer, Failure> {
    let (repository, tag) = (call.query.text("repo"), call.query.text("tag"));
    if repository.is_empty() {
        // dockerd does nothing and says so with 200 instead of 201.
        return Ok(response::empty(StatusCode::OK));
    }
    images::tag(&call.engine, &call.name, repository, tag).await?;
    Ok(response::empty(StatusCode::CREATED))
}

/// `DELETE /images/{}`.
pub(crate) async fn remove(call: Call) -> Result<Answer, Failure> {
    if call.name.trim().is_empty() {
        return Err(Failure::invalid("image name cannot be blank"));
    }
    let (force, no_prune) = (call.query.flag("force"), call.query.flag("noprune"));
    let platform = platform_since(&call, 50, "platforms")?;
    let removed = images::remove(&call.engine, &call.name, force, no_prune, platform).await?;
    Ok(response::json(StatusCode::OK, &removed))
}

/// `POST /images/load`: the archive is unpacked while it arrives; what happens is told line by line.
pub(crate) async fn load(mut call: Call) -> Result<Answer, Failure> {
    let quiet = call.query.flag_or("quiet", true);
    let platform = save::wanted_platform(&call)?;
    // No answer before the archive has begun: where a client cannot read its file, Go's would read the answer instead, and
    // tell that this was cut off.
    let first = call.body.chunk().await?;
    let (upload, archive) = upload::channel();
    let body = std::mem::replace(&mut call.body, RequestBody::Whole(Default::default()));
    let engine = call.engine.clone();
    Ok(call.progress(async move |sink| {
        let progress = sink.clone();
        let tell = move |step| {
            if quiet && matches!(step, LoadProgress::Layer { .. }) {
                return;
            }
            // A client that has gone stops the load by the end of its body, if at all.
            let _ = progress.blocking_line(&line(step));
        };
        let (loaded, ()) = tokio::join!(images::load(&engine, platform, archive, tell), feed(first, body, upload));
        if let Err(err) = loaded {
            let _ = sink.line(&Line::failed(errdefs::chain(&err))).await;
        }
    }))
}

fn line(step: LoadProgress) -> Line {
    match step {
        LoadProgress::Layer { id, current, total } => Line::part(id, "Loading layer", current, total),
        LoadProgress::Loaded(sentence) => Line::Text { stream: format!("{sentence}\n") },
    }
}
