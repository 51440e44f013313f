//! Images from registries.

use engine::ops::pull::{self, PullQuery, PullStep, Stage};
use engine_api::auth;

use crate::handlers::import;
use crate::handlers::progress::Line;
use crate::request::Call;
use crate::response::Answer;
use crate::status::Failure;

/// `POST /images/create`: pull, or import.
pub(crate) async fn create(call: Call) -> Result<Answer, Failure> {
    let Some(image) = call.query.given("fromImage") else {
        return import::import(call).await;
    };
    let authorization = call.headers.get(auth::HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let plan = pull::plan(&PullQuery {
        image: image.to_owned(),
        tag: call.query.text("tag").to_owned(),
        // Until 1.32 dockerd did not know it, and no client sends it.
        platform: call.query.text("platform").to_owned(),
        authorization: authorization.to_owned(),
    })?;
    let mut pulling = pull::start(&call.engine, plan);
    // What fails before there is anything to tell has a status of its own.
    let Some(first) = pulling.next().await.transpose()? else {
        return Ok(call.progress(async |_| ()));
    };
    Ok(call.progress(async move |sink| {
        let mut next = Some(Ok(first));
        while let Some(step) = next {
            let line = step.map_or_else(|err| Line::failed(errdefs::chain(&err)), line);
            // Dropped with us, the pull ends when its last client has gone.
            if sink.line(&line).await.is_err() {
                return;
            }
            next = pulling.next().await;
        }
    }))
}

pub(crate) fn line(step: PullStep) -> Line {
    match step {
        PullStep::Said(status) => Line::Status { status, id: None },
        PullStep::About { id, status } => Line::Status { status, id: Some(id) },
        PullStep::Layer { id, stage } => layer(id, stage),
    }
}

fn layer(id: String, stage: Stage) -> Line {
    let (status, (current, total)) = match stage {
        Stage::Exists => ("Already exists", (0, 0)),
        Stage::Wanted => ("Pulling fs layer", (0, 0)),
        Stage::Waiting => ("Waiting", (0, 0)),
        Stage::Downloading { current, total } => ("Downloading", (current, total)),
        Stage::Retrying { seconds } => return Line::retrying(id, seconds),
        Stage::Verifying => ("Verifying Checksum", (0, 0)),
        Stage::Downloaded => ("Download complete", (0, 0)),
        Stage::Extracting { current, total } => ("Extracting", (current, total)),
        Stage::Complete => ("Pull complete", (0, 0)),
    };
    Line::part(id, status, current, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_in_dockers_json() {
        let id = || "56b9bb8c9234".to_owned();
        let layer = |stage| PullStep::Layer { id: id(), stage };
        for (step, wanted) in [
            (
                PullStep::About { id: "1".into(), status: "Pulling from good".into() },
                r#"{"status":"Pulling from good","id":"1"}"#,
            ),
            (PullStep::Said("Digest: sha256:00".into()), r#"{"status":"Digest: sha256:00"}"#),
            (layer(Stage::Wanted), r#"{"status":"Pulling fs layer","progressDetail":{},"id":"56b9bb8c9234"}"#),
            (
                layer(Stage::Retrying { seconds: 1 }),
                r#"{"status":"Retrying in 1 second","progressDetail":{},"id":"56b9bb8c9234"}"#,
            ),
            (
                layer(Stage::Downloading { current: 185, total: 185 }),
                r#"{"status":"Downloading","progressDetail":{"current":185,"total":185},"progress":"[==================================================>]     185B/185B","id":"56b9bb8c9234"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&line(step)).unwrap(), wanted);
        }
        assert_eq!(
            serde_json::to_string(&Line::failed("no".into())).unwrap(),
            r#"{"errorDetail":{"message":"no"},"error":"no"}"#
        );
    }
}
