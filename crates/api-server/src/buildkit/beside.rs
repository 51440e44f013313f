//! What our own client wants beside the image of a `POST /build`: what is said of it, what is written of it, and outputs that
//! have both. The image is built by then; what follows is what BuildKit's clients get of theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use builder::attest;
use buildkit_api::messages::{Exporter, SolveRequest, StatusResponse};
use engine::Engine;
use engine::ops::build::Used;
use engine::ops::build::outputs::Built;
use prost::Message;

use super::BuildKit;
use super::build::{Build, Outcome};
use super::outputs::{self, Output};
use super::progress::now_nanos;
use super::service::{BuildService, DOCKERFILE};
use crate::handlers::progress::Line;
use crate::response::{Gone, Sink};

/// What is wanted.
#[derive(Debug)]
pub(crate) struct Beside {
    attest: attest::Wanted,
    outputs: Vec<Output>,
    exporters: Vec<Exporter>,
    /// What the Dockerfile's reader was told, as BuildKit's is: what is said where an image comes from.
    attributes: BTreeMap<String, String>,
    /// When the build began, in nanoseconds since 1970.
    begun_nanos: i64,
}

/// An image that was built.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) id: String,
    /// `linux/amd64`
    pub(crate) platform: String,
    pub(crate) used: Used,
    /// The Dockerfile's name and text.
    pub(crate) dockerfile: (String, Vec<u8>),
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub(crate) time: Option<i64>,
}

impl Beside {
    /// Reads what is wanted, before anything is built. Sentences are BuildKit's.
    pub(crate) fn parse(
        attributes: BTreeMap<String, String>,
        outputs: Vec<(String, BTreeMap<String, String>)>,
    ) -> Result<Beside, String> {
        let exporters: Vec<Exporter> =
            outputs.into_iter().map(|(kind, attributes)| Exporter { kind, attributes }).collect();
        let outputs = outputs::parse(&exporters).map_err(|err| err.message)?;
        let attest = attest::Wanted::parse(&attributes).map_err(|err| err.to_string())?;
        Ok(Beside { attest, outputs, exporters, attributes, begun_nanos: now_nanos() })
    }

    /// Has it said, and brings the image to all outputs; answers what is told of them, or why it fails. `sink` is told
    /// what is done, in lines.
    pub(crate) async fn bring(
        self,
        (engine, kit, session): (&Engine, &Arc<BuildKit>, &str),
        image: Image,
        sink: Option<&Sink>,
    ) -> Result<Result<BTreeMap<String, String>, String>, Gone> {
        let Beside { attest, outputs, exporters, attributes, begun_nanos } = self;
        // The session's name is nobody else's.
        let request = SolveRequest {
            reference: session.to_owned(),
            session: session.to_owned(),
            exporters,
            ..SolveRequest::default()
        };
        let (mut build, _) = Build::new(request);
        build.begun_nanos = begun_nanos;
        let build = Arc::new(build);
        let mut outcome = Outcome {
            built: vec![Built { image: image.id, platform: image.platform, predicates: Vec::new() }],
            used: vec![image.used],
            time: image.time,
            frontend: DOCKERFILE.to_owned(),
            attributes,
            definition: image.dockerfile,
            ..Outcome::default()
        };
        let told = build.progress.read();
        let service = BuildService::new(engine.clone(), kit.clone());
        let bringing = async {
            let brought = async {
                service.attest(&build, &mut outcome, &attest).await?;
                service.export(&build, &outcome, &outputs).await
            };
            let brought = brought.await.map_err(|err| err.message);
            build.progress.close();
            Ok(brought)
        };
        let telling = async {
            let Some(mut told) = told else { return Ok(()) };
            while let Some(Ok(bytes)) = told.recv().await {
                let stream = StatusResponse::decode(bytes.as_slice()).map(|status| lines(&status)).unwrap_or_default();
                if let Some(sink) = sink.filter(|_| !stream.is_empty()) {
                    sink.line(&Line::Text { stream }).await?;
                }
            }
            Ok(())
        };
        tokio::try_join!(bringing, telling).map(|(brought, ())| brought)
    }
}

/// What begins, and what is printed, as a build that is told in lines has it.
fn lines(status: &StatusResponse) -> String {
    let parts = status.vertexes.iter().filter(|part| part.completed.is_none()).map(|part| format!("{}\n", part.name));
    let begun = status.statuses.iter().filter(|one| one.completed.is_none() && one.current == 0);
    let begun = begun.map(|one| format!(" ---> {}\n", one.id));
    let printed = status.logs.iter().map(|log| String::from_utf8_lossy(&log.message).into_owned());
    parts.chain(begun).chain(printed).collect()
}
