//! Images to registries.

use engine::ops::push::{self, PushQuery, PushStage, PushStep, UploadProgress};
use engine_api::image::PushedInstead;
use engine_api::platform::Platform;
use engine_api::{auth, platform, versions};

use crate::handlers::progress::Line;
use crate::request::Call;
use crate::response::Answer;
use crate::status::Failure;

/// `POST /images/{}/push`.
pub(crate) async fn push(call: Call) -> Result<Answer, Failure> {
    let authorization = call.headers.get(auth::HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wanted = versions::upgrade_push_platform(call.version, call.query.given("platform"));
    let wanted = wanted.map(|json| platform::from_json(json.as_bytes())).transpose();
    let wanted = wanted.map_err(|err| Failure::invalid(errdefs::chain(&err)))?;
    let parts = |platform: Platform| [platform.os, platform.architecture, platform.variant].join("/");
    let plan = push::plan(
        &call.engine,
        &PushQuery {
            name: call.name.clone(),
            tag: call.query.text("tag").to_owned(),
            platform: wanted.map(parts).unwrap_or_default().trim_end_matches('/').to_owned(),
            authorization: authorization.to_owned(),
        },
    )?;
    let mut pushing = push::start(&call.engine, plan);
    Ok(call.progress(async move |sink| {
        while let Some(step) = pushing.next().await {
            let line = step.map_or_else(|err| Line::failed(errdefs::chain(&err)), line);
            // Dropped with us, the push ends.
            if sink.line(&line).await.is_err() {
                return;
            }
        }
    }))
}

fn line(step: PushStep) -> Line {
    match step {
        PushStep::Said(status) => Line::Status { status, id: None },
        PushStep::Layer { id, stage } => layer(id, stage),
        PushStep::Instead { index, manifest } => {
            let (original_index, selected_manifest) = (*index, *manifest);
            let aux = PushedInstead { pushed_instead: true, original_index, selected_manifest };
            Line::Instead { aux: aux.into() }
        }
        PushStep::Pushed { tag, digest, size } => Line::pushed(tag, digest.to_string(), size),
    }
}

fn layer(id: String, stage: PushStage) -> Line {
    let (status, (current, total)) = match stage {
        PushStage::Preparing => ("Preparing", (0, 0)),
        PushStage::Upload(progress) => match progress {
            UploadProgress::Waiting => ("Waiting", (0, 0)),
            UploadProgress::Exists => ("Layer already exists", (0, 0)),
            UploadProgress::Mounted { from } => return Line::part(id, format!("Mounted from {from}"), 0, 0),
            UploadProgress::Sending { current, total } => ("Pushing", (current, total)),
            UploadProgress::Retrying { seconds } => return Line::retrying(id, seconds),
            UploadProgress::Sent => ("Pushed", (0, 0)),
        },
    };
    Line::part(id, status, current, total)
}
