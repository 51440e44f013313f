//! What is wanted beside the image of a build: attestations, and outputs that have them. Ours alone: `attest` and `outputs`, in
//! JSON, of a client that has a session.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::Engine;
use engine::ops::build::{self, BuildOptions, Building, Used};
use serde::Deserialize;

use super::json;
use crate::buildkit::BuildKit;
use crate::buildkit::beside::{Beside, Image};
use crate::handlers::progress::Line;
use crate::query::Query;
use crate::request::Call;
use crate::response::{Gone, Sink};
use crate::status::Failure;

/// An output (moby api/types, `ImageBuildOutput`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wanted {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

/// Reads what is wanted; nothing where no output is.
pub(super) fn read(query: &Query) -> Result<Option<Beside>, Failure> {
    let outputs: Vec<Wanted> = json(query, "outputs", "error reading outputs")?;
    if outputs.is_empty() {
        return Ok(None);
    }
    let said: BTreeMap<String, String> = json(query, "attest", "error reading attest")?;
    let mut attributes = arguments(query)?;
    attributes.extend(said.into_iter().map(|(kind, how)| (format!("attest:{kind}"), how)));
    let outputs = outputs.into_iter().map(|wanted| (wanted.kind, wanted.attrs)).collect();
    Beside::parse(attributes, outputs).map(Some).map_err(Failure::invalid)
}

/// What the build is told, as the reader of a Dockerfile would be by BuildKit's clients.
fn arguments(query: &Query) -> Result<BTreeMap<String, String>, Failure> {
    let given: BTreeMap<String, Option<String>> = json(query, "buildargs", "error reading build args")?;
    let labels: BTreeMap<String, String> = json(query, "labels", "error reading labels")?;
    let named: BTreeMap<String, String> = json(query, "buildcontexts", "error reading build contexts")?;
    let stages: Vec<String> = json(query, "nocachefilter", "error reading nocachefilter")?;
    let given = given.into_iter().map(|(name, value)| (format!("build-arg:{name}"), value.unwrap_or_default()));
    let labels = labels.into_iter().map(|(name, value)| (format!("label:{name}"), value));
    let named = named.into_iter().map(|(name, value)| (format!("context:{name}"), value));
    let mut all: BTreeMap<String, String> = given.chain(labels).chain(named).collect();
    for (parameter, name) in
        [("dockerfile", "filename"), ("target", "target"), ("platform", "platform"), ("remote", "context")]
    {
        let value = query.text(parameter);
        if !value.is_empty() {
            all.insert(name.to_owned(), value.to_owned());
        }
    }
    all.entry("filename".to_owned()).or_insert_with(|| "Dockerfile".to_owned());
    if query.flag("nocache") || !stages.is_empty() {
        all.insert("no-cache".to_owned(), if query.flag("nocache") { String::new() } else { stages.join(",") });
    }
    Ok(all)
}

/// What is to be brought when there is an image.
pub(super) struct Bringing {
    wanted: Beside,
    /// What the build has used, once that is known.
    pub(super) used: Used,
    engine: Engine,
    kit: Arc<BuildKit>,
    session: String,
    platform: String,
    dockerfile: String,
    time: Option<i64>,
}

impl Bringing {
    pub(super) fn new(wanted: Beside, call: &Call, options: &BuildOptions) -> Bringing {
        let dockerfile = match options.dockerfile.as_str() {
            "" => "Dockerfile",
            path => path,
        };
        Bringing {
            wanted,
            used: Used::default(),
            engine: call.engine.clone(),
            kit: call.buildkit.clone(),
            session: call.query.text("session").to_owned(),
            platform: build::platform_of(options),
            dockerfile: dockerfile.to_owned(),
            time: options.reproduce.map(|wanted| wanted.secs),
        }
    }

    /// Brings it, and tells what came of it; answers whether it has come.
    pub(super) async fn bring(self, building: &Building, sink: &Sink, is_quiet: bool) -> Result<bool, Gone> {
        let Bringing { wanted, used, engine, kit, session, platform, dockerfile, time } = self;
        let text = building.dockerfile().as_bytes().to_vec();
        let id = building.image.clone().unwrap_or_default();
        let image = Image { id, platform, used, dockerfile: (dockerfile, text), time };
        let told = wanted.bring((&engine, &kit, &session), image, (!is_quiet).then_some(sink)).await?;
        let has_come = told.is_ok();
        let line = told.map_or_else(Line::failed, Line::exported);
        sink.line(&line).await.map(|()| has_come)
    }
}
