//! The calls of BuildKit's clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use builder::attest;
use buildkit_api::messages::{
    ApiCap, BridgeResult, BridgeSolveRequest, BridgeSolveResponse, BuildkitVersion, Definition, DiskUsageResponse,
    Empty, EvaluateRequest, InfoResponse, ListWorkersResponse, Platform, PongResponse, PruneRequest, Ref,
    ReturnRequest, SolveRequest, SolveResponse, StatusRequest, UsageRecord, WorkerRecord,
};
use buildkit_api::server::{Call, Reply, Service, Streaming};
use buildkit_api::session::Session;
use buildkit_api::status::{Code, Status};
use dockerfile_checks::{Answer, Question};
use engine::Engine;
use engine::ops::build::outputs::Built;
use engine::ops::build::{self, BuildOptions, Input, Local, Used};
use engine::ops::build_cache::{self, Wanted};
use engine_api::disk_usage::CacheRecord;
use tokio::sync::{mpsc, oneshot};

use super::BuildKit;
use super::attributes::{self, Attributes};
use super::build::{Build, Listed, Outcome};
use super::failure::{self, not_yet, said};
use super::follow::{Telling, follow};
use super::history::{self, Recording};
use super::inputs::Loaded;
use super::local;
use super::outputs::{self, Exporting, Output};
use super::progress::now_nanos;
use super::questions;
use super::tunnel;

/// By which a call says which build it is of.
const BUILD_ID: &str = "buildkit-controlapi-buildid";

/// Who reads Dockerfiles.
pub(super) const DOCKERFILE: &str = "dockerfile.v0";

/// Who has an image read them, which clients ask for where `BUILDKIT_SYNTAX` is set. Like `# syntax=` it is passed over.
const GATEWAY: &str = "gateway.v0";

/// What is said of who builds. By the second one buildx knows that outputs of `oci` and `docker` are had, annotations, and pushes
/// by the daemon itself (driver/docker, Features).
const LABELS: [(&str, &str); 2] =
    [("org.mobyproject.buildkit.worker.executor", "oci"), ("org.mobyproject.buildkit.worker.snapshotter", "overlayfs")];

/// What clients may ask of the bridge (frontend/gateway/pb, caps.go).
const CAPS: [&str; 11] = [
    "solve.base",
    "solve.inlinereturn",
    "return",
    "returnmap",
    "proto.refarray",
    "reference.output",
    "frontend.caps",
    "frontend.inputs",
    "gateway.solve.metadata",
    "gateway.solve.evaluate",
    "gateway.evaluate",
];

/// What clients may ask of a build (solver/pb, caps.go).
const GRAPH_CAPS: [&str; 3] = ["exporter.multiple", "exporter.image.attestations", "gc.freespacefilter"];

/// What becomes of a Dockerfile.
enum Solved {
    /// Its image.
    Image(Outcome),
    /// What was asked of it.
    Answer(Answer),
}

/// Answers calls.
#[derive(Clone)]
pub(super) struct BuildService {
    pub(super) engine: Engine,
    kit: Arc<BuildKit>,
}

impl Service for BuildService {
    async fn call(&self, call: Call) -> Result<Reply, Status> {
        let (service, method) = call.path.trim_start_matches('/').split_once('/').unwrap_or_default();
        match (service, method) {
            ("moby.buildkit.v1.Control", "Info") => Ok(Reply::message(&InfoResponse { version: Some(version()) })),
            ("moby.buildkit.v1.Control", "ListWorkers") => {
                Ok(Reply::message(&ListWorkersResponse { records: vec![self.worker()] }))
            }
            ("moby.buildkit.v1.Control", "Solve") => self.solve(call.message()?).await,
            ("moby.buildkit.v1.Control", "Status") => self.status(call.message()?).await,
            ("moby.buildkit.v1.Control", "ListenBuildHistory") => {
                history::listen(&self.engine, &self.kit.histories, call.message()?).await
            }
            ("moby.buildkit.v1.Control", "UpdateBuildHistory") => {
                history::update(&self.engine, &self.kit.histories, call.message()?).await
            }
            ("containerd.services.content.v1.Content", "Info") => {
                history::content_info(&self.engine, call.message()?).await
            }
            ("containerd.services.content.v1.Content", "Read") => {
                history::content_read(&self.engine, call.message()?).await
            }
            ("moby.buildkit.v1.Control", "DiskUsage") => self.disk_usage().await,
            ("moby.buildkit.v1.Control", "Prune") => self.prune(call.message()?).await,
            ("moby.buildkit.v1.frontend.LLBBridge", "Ping") => Ok(Reply::message(&self.pong())),
            ("moby.buildkit.v1.frontend.LLBBridge", "Solve") => {
                let build = self.build(&call).await?;
                self.bridge_solve(&build, call.message()?).await
            }
            ("moby.buildkit.v1.frontend.LLBBridge", "Evaluate") => {
                let (build, request) = (self.build(&call).await?, call.message::<EvaluateRequest>()?);
                // What has an outcome was built.
                match build.outcome(&request.reference) {
                    Some(_) => Ok(Reply::message(&Empty {})),
                    None => Err(said(format!("no such ref: {}", request.reference))),
                }
            }
            ("moby.buildkit.v1.frontend.LLBBridge", "Return") => {
                self.build(&call).await?.give_back(call.message()?);
                Ok(Reply::message(&Empty {}))
            }
            _ => Err(Status::new(Code::Unimplemented, format!("unknown method {method} for service {service}"))),
        }
    }

    fn streams(&self, path: &str) -> bool {
        path == SESSION
    }

    async fn stream(&self, call: Streaming) {
        tunnel::serve(self.kit.clone(), call).await;
    }
}

/// By which a client finds what a cache is that was left in a directory of its own (buildkit cache/remotecache).
const CACHE_MANIFEST: &str = "cache.manifest";

/// The call whose messages are a session.
const SESSION: &str = "/moby.buildkit.v1.Control/Session";

/// What we say we are: not BuildKit.
fn version() -> BuildkitVersion {
    BuildkitVersion {
        package: "longshore".to_owned(),
        version: concat!("v", env!("CARGO_PKG_VERSION"), "+longshore").to_owned(),
        revision: String::new(),
    }
}

impl BuildService {
    pub(super) fn new(engine: Engine, kit: Arc<BuildKit>) -> BuildService {
        BuildService { engine, kit }
    }

    fn worker(&self) -> WorkerRecord {
        let [os, architecture, variant] = build::host_platform();
        WorkerRecord {
            id: "longshore".to_owned(),
            labels: LABELS.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            platforms: vec![Platform { architecture, os, variant }],
            version: Some(version()),
        }
    }

    fn pong(&self) -> PongResponse {
        let cap = |id: &str| ApiCap { id: id.to_owned(), enabled: true };
        PongResponse {
            frontend: CAPS.map(cap).into(),
            graphs: GRAPH_CAPS.map(cap).into(),
            workers: vec![self.worker()],
        }
    }

    /// The build that a call is of.
    async fn build(&self, call: &Call) -> Result<Arc<Build>, Status> {
        self.kit.builds.find(call.header(BUILD_ID).unwrap_or_default()).await
    }

    /// Waits for what a build comes to, and puts it where the client wants it.
    async fn solve(&self, request: SolveRequest) -> Result<Reply, Status> {
        let (frontend, attributes) = (request.frontend.clone(), request.frontend_attributes.clone());
        let has_definition = request.definition.is_some();
        // The host's network is known only with what else is wanted.
        let refused = request.entitlements.iter().find(|name| *name != "network.host").cloned();
        let (build, returned) = Build::new(request);
        // From here on a client that asks how it goes is told, whatever becomes of it.
        let listed = self.kit.builds.list(build)?;
        let (histories, engine) = (self.kit.histories.clone(), self.engine.clone());
        let recording = Recording::begin(histories, engine, listed.build.clone(), (&frontend, &attributes));
        let outcome = match refused {
            _ if has_definition => Err(not_yet("a definition of operations (LLB)")),
            Some(name) => {
                Err(said(format!("granting entitlement {name} is not allowed by build daemon configuration")))
            }
            None => self.outcome(&listed, returned, &frontend, &attributes).await,
        };
        let (outcome, exporter) = match outcome {
            // A client that only asked what there is.
            Ok((None, _)) => (None, Ok(BTreeMap::new())),
            Ok((Some(outcome), wanted)) => {
                let exporter = self.export(&listed.build, &outcome, &wanted).await;
                (Some(outcome), exporter)
            }
            Err(err) => (None, Err(err)),
        };
        recording.end(outcome.as_ref(), exporter.as_ref()).await;
        let mut exporter = exporter?;
        exporter.extend(listed.build.cache_manifest().map(|manifest| (CACHE_MANIFEST.to_owned(), manifest)));
        Ok(Reply::message(&SolveResponse { exporter }))
    }

    /// What a build comes to, with all that is said of it; and where it goes.
    async fn outcome(
        &self,
        listed: &Listed,
        returned: oneshot::Receiver<ReturnRequest>,
        frontend: &str,
        attributes: &BTreeMap<String, String>,
    ) -> Result<(Option<Outcome>, Vec<Output>), Status> {
        let wanted = outputs::parse(&listed.build.exporters)?;
        let attest = attest::Wanted::parse(attributes).map_err(|err| said(err.to_string()))?;
        let mut outcome = match frontend {
            "" => from_client(listed, returned).await?,
            name => match self.frontend(&listed.build, name, attributes, &BTreeMap::new()).await? {
                Solved::Image(outcome) => Some(outcome),
                Solved::Answer(_) => None,
            },
        };
        if let Some(outcome) = &mut outcome {
            self.attest(&listed.build, outcome, &attest).await?;
        }
        Ok((outcome, wanted))
    }

    /// What a build tells, to its end.
    async fn status(&self, request: StatusRequest) -> Result<Reply, Status> {
        if let Some(told) = history::told(&self.engine, &request.reference).await {
            return Ok(told);
        }
        let build = self.kit.builds.find(&request.reference).await?;
        let told = build.progress.read();
        // Who asks a second time hears that it is over.
        Ok(Reply::Stream(told.unwrap_or_else(|| mpsc::channel(1).1)))
    }

    async fn bridge_solve(&self, build: &Arc<Build>, request: BridgeSolveRequest) -> Result<Reply, Status> {
        if request.definition.is_some() {
            return Err(not_yet("a definition of operations (LLB)"));
        }
        let solved = tokio::select! {
            solved = self.frontend(build, &request.frontend, &request.options, &request.inputs) => solved,
            // The call that waits for the outcome was given up or refused.
            () = build.ended() => Err(Status::new(Code::Cancelled, "context canceled")),
        };
        let result = match solved.inspect_err(|err| build.has_failed(err))? {
            Solved::Image(outcome) => {
                let definition = Some(Definition::of_outcome(&outcome.by_platform()));
                BridgeResult { reference: Some(Ref { id: build.keep(outcome), definition }), metadata: BTreeMap::new() }
            }
            Solved::Answer(answer) => {
                let metadata = answer.metadata().into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes()));
                BridgeResult { reference: None, metadata: metadata.collect() }
            }
        };
        Ok(Reply::message(&BridgeSolveResponse { result: Some(result) }))
    }

    /// Builds a Dockerfile of the client's, or answers what is asked of it.
    async fn frontend(
        &self,
        build: &Arc<Build>,
        name: &str,
        attributes: &BTreeMap<String, String>,
        inputs: &BTreeMap<String, Definition>,
    ) -> Result<Solved, Status> {
        let has_syntax = name == GATEWAY && attributes.contains_key("build-arg:BUILDKIT_SYNTAX");
        if name != DOCKERFILE && !has_syntax {
            return Err(said(format!("invalid frontend: {name}")));
        }
        let mut wanted = attributes::read(attributes, build.allows_host_network)?;
        let caches = build.caches.clone().map_err(|err| said(err.to_string()))?;
        (wanted.options.cache_from, wanted.options.cache_to) = caches;
        let files = outputs::rewrites(&build.exporters);
        wanted.options.reproduce = wanted.time.map(|secs| build::Reproduce { secs, files });
        let loaded = self.load(build, &wanted).await?;
        let place = loaded.definition.place();
        if let Some(question @ (Question::Targets | Question::Describe)) = wanted.question {
            return questions::of_text(question, &place).map(Solved::Answer);
        }
        if let Some(question) = wanted.question {
            return self.answer(build, question, wanted, loaded, inputs).await.map(Solved::Answer);
        }
        let mut outcome = Outcome {
            several: wanted.several,
            time: wanted.time,
            frontend: name.to_owned(),
            attributes: attributes.clone(),
            definition: (loaded.definition.name.clone(), loaded.definition.text.clone()),
            ..Outcome::default()
        };
        let platforms = if wanted.platforms.is_empty() { vec![String::new()] } else { wanted.platforms.clone() };
        let (mut definition, mut loaded) = (loaded.definition.clone(), Some(loaded));
        for platform in platforms {
            let loaded = match loaded.take() {
                Some(loaded) => loaded,
                // What was fetched is gone with the build of the one before.
                None if wanted.remote.is_some() => self.load(build, &wanted).await?,
                None => Loaded { definition: definition.clone(), fetched: None },
            };
            let local = self.local(build, wanted.context_in.clone(), loaded).await?;
            if !outcome.built.is_empty() {
                // What checks find is told once.
                definition.part.clear();
            }
            let options = BuildOptions { platform, ..wanted.options.clone() };
            let (built, used) = self.one(build, (options, wanted.several), local, &wanted, inputs, &definition).await?;
            outcome.built.push(built);
            outcome.used.push(used);
        }
        Ok(Solved::Image(outcome))
    }

    /// Builds for one platform; `several` is whether that is told.
    async fn one(
        &self,
        build: &Arc<Build>,
        (options, several): (BuildOptions, bool),
        local: Local,
        wanted: &Attributes,
        inputs: &BTreeMap<String, Definition>,
        definition: &local::Definition,
    ) -> Result<(Built, Used), Status> {
        let platform = build::platform_of(&options);
        let named = self.named(build, &wanted.named, inputs, &platform).await?;
        let place = definition.place();
        let failed = |err: &_| failure::of_build(err, &place, None);
        let client = self.kit.client(&build.session).await;
        let building =
            build::start(&self.engine, options, Input::Local(local), named, client).map_err(|err| failed(&err))?;
        let warned = Some(definition.part.as_str()).filter(|part| !part.is_empty());
        let telling = Telling { warned, platform: several.then_some(&platform) };
        let followed = follow(build, building, place.clone(), telling).await?;
        build.hold(followed.held);
        let image = followed.image.ok_or_else(|| said("no image was built"))?;
        Ok((Built { image, platform, predicates: Vec::new() }, followed.used))
    }

    /// Answers what is asked of a Dockerfile instead of building it.
    async fn answer(
        &self,
        build: &Arc<Build>,
        question: Question,
        wanted: Attributes,
        loaded: Loaded,
        inputs: &BTreeMap<String, Definition>,
    ) -> Result<Answer, Status> {
        let (part, place) = (loaded.definition.part.clone(), loaded.definition.place());
        let named = self.named(build, &wanted.named, inputs, &build::platform_of(&wanted.options)).await?;
        let local = self.local(build, wanted.context_in, loaded).await?;
        // Without a target checks look at all stages.
        let all_stages = question == Question::Lint && wanted.options.target.is_empty();
        let asking = build::ask(&self.engine, wanted.options, local, named, all_stages);
        let warned = (question == Question::Outline).then_some(part.as_str());
        let telling = Telling { warned, platform: None };
        let findings = follow(build, asking, place.clone(), telling).await?.findings;
        questions::of_findings(question, &findings, &place)
    }

    /// A session of the client's: its own, or the build's.
    pub(super) async fn session(&self, build: &Build, own: Option<String>) -> Result<Arc<Session>, Status> {
        let id = own.unwrap_or_else(|| build.session.clone());
        let found = self.kit.sessions.find(&id).await;
        found.ok_or_else(|| said(format!("no active session for {id}: context deadline exceeded")))
    }

    /// Brings an outcome to where the client wants it.
    pub(super) async fn export(
        &self,
        build: &Build,
        outcome: &Outcome,
        wanted: &[Output],
    ) -> Result<BTreeMap<String, String>, Status> {
        let session = match wanted.iter().any(outputs::is_sent) {
            true => Some(self.session(build, None).await?),
            false => None,
        };
        Exporting { engine: &self.engine, build, session, outcome }.all(wanted).await
    }

    async fn disk_usage(&self) -> Result<Reply, Status> {
        let records = build_cache::list(&self.engine).await.into_iter();
        let records = records.map(usage_of).collect();
        Ok(Reply::message(&DiskUsageResponse { records }))
    }

    async fn prune(&self, request: PruneRequest) -> Result<Reply, Status> {
        let before = match request.keep_nanos {
            age if age > 0 => now_nanos().saturating_sub(age),
            _ => i64::MAX,
        };
        let wanted = Wanted::parse_clauses(&request.filter, before);
        let wanted =
            wanted.ok_or_else(|| not_yet(&format!("one of the filters {:?} of what is pruned", request.filter)))?;
        let all = build_cache::list(&self.engine).await;
        let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
        let limits = build::Limits {
            reserved: bytes(request.reserved_space),
            max_used: bytes(request.max_used_space),
            min_free: bytes(request.min_free_space),
        };
        let pruned = build_cache::prune(&self.engine, wanted, request.all, limits).await;
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            let gone: BTreeSet<String> = pruned.caches_deleted.into_iter().flatten().collect();
            for record in all.into_iter().filter(|record| gone.contains(&record.id)) {
                let told = prost::Message::encode_to_vec(&usage_of(record));
                if sender.send(Ok(told)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Reply::Stream(receiver))
    }
}

fn usage_of(record: CacheRecord) -> UsageRecord {
    let CacheRecord { id, kind, description, in_use, shared, size, usage_count, .. } = record;
    UsageRecord { id, in_use, shared, size, usage_count, description, kind, ..UsageRecord::default() }
}

/// What a client came to; `None` if it built nothing.
async fn from_client(listed: &Listed, returned: oneshot::Receiver<ReturnRequest>) -> Result<Option<Outcome>, Status> {
    let build = &listed.build;
    let returned = returned.await.map_err(|_| Status::new(Code::Cancelled, "context canceled"))?;
    if let Some(error) = returned.error {
        // In our words, if they were ours.
        return Err(build.failure().unwrap_or_else(|| Status::of_message(error)));
    }
    let name = returned.result.and_then(|result| result.reference).unwrap_or_default().id;
    if name.is_empty() {
        return Ok(None);
    }
    build.outcome(&name).map(Some).ok_or_else(|| said(format!("no such ref: {name}")))
}
