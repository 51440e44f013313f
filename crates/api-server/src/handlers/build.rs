//! Images of Dockerfiles.

mod beside;
pub(crate) mod look;
mod tail;

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::ops::build::{
    self, Asks, BuildError, BuildLine, BuildOptions, Building, CacheFrom, CacheOptionError, CacheTo, Client, Directory,
    Input, NamedContext, Reproduce,
};
use engine_api::auth::AuthConfig;
use engine_api::exec::ExecCreate;
use engine_api::host_config::{HostConfig, Ulimit};
use engine_api::json::DecodeError;
use errdefs::ErrorKind;
use http::StatusCode;
use hyper::body::Bytes;
use serde::de::DeserializeOwned;

use self::beside::Bringing;
use self::tail::Tail;
use crate::buildkit;
use crate::buildkit::beside::Beside;
use crate::handlers::progress::{FailedAt, Fault, Line};
use crate::handlers::pull;
use crate::query::Query;
use crate::request::{Call, RequestBody};
use crate::response::{self, Answer, Gone, Sink};
use crate::status::Failure;
use crate::upload::{self, UploadReader, feed};

/// Logins by registry (moby api/types/registry, `X-Registry-Config`).
const LOGINS: &str = "x-registry-config";

/// The longest Dockerfile, in bytes.
const DOCKERFILE_MAX: usize = 16 << 20;

/// `POST /build`.
pub(crate) async fn build(mut call: Call) -> Result<Answer, Failure> {
    let wanted = Wanted::of(&call).await?;
    let first = call.body.chunk().await?;
    let input = match call.query.text("remote") {
        "" => Input::archive(archive(&mut call, first)),
        url => Input::Remote(url.to_owned()),
    };
    wanted.start(call, input).await
}

/// The body as it comes, behind its first piece.
fn archive(call: &mut Call, first: Option<Bytes>) -> UploadReader {
    let (upload, archive) = upload::channel();
    let body = std::mem::replace(&mut call.body, RequestBody::Whole(Default::default()));
    // Ends with the body, or when nobody reads it any more.
    tokio::spawn(feed(first, body, upload));
    archive
}

/// `POST /longshore/build`: the same of a directory that the client's session tells; the body is the Dockerfile. Ours alone.
pub(crate) async fn build_directory(mut call: Call) -> Result<Answer, Failure> {
    let wanted = Wanted::of(&call).await?;
    let session = call.query.text("session");
    let files = buildkit::directory(&call.buildkit, session).await;
    let files = files.ok_or_else(|| no_session(session))?;
    let name = match call.query.text("dockerfile") {
        "" => "Dockerfile".to_owned(),
        name => name.to_owned(),
    };
    let text = call.body.read(DOCKERFILE_MAX).await?.to_vec();
    wanted.start(call, Input::Directory(Directory { name, text, files })).await
}

/// What a request wants.
struct Wanted {
    options: BuildOptions,
    named: Vec<NamedContext>,
    client: Client,
    /// What is wanted beside the image.
    beside: Option<Beside>,
}

impl Wanted {
    async fn of(call: &Call) -> Result<Wanted, Failure> {
        check(&call.query)?;
        let beside = beside::read(&call.query)?;
        let mut options = options(call)?;
        let logins = call.headers.get(LOGINS).and_then(|value| value.to_str().ok()).unwrap_or_default();
        options.logins = AuthConfig::all_from_header(logins);
        let session = call.query.text("session");
        let client = if session.is_empty() { None } else { Some(session_of(call, session).await?) };
        let given: BTreeMap<String, String> = json(&call.query, "buildcontexts", "error reading build contexts")?;
        let named = buildkit::contexts(&call.buildkit, session, &given).await?;
        Ok(Wanted { options, named, client, beside })
    }

    async fn start(self, call: Call, input: Input) -> Result<Answer, Failure> {
        let quiet = call.query.flag("q");
        let names_images = !call.version.before(30);
        let shown_as = call.query.text("excerpt").to_owned();
        let beside = self.beside.map(|wanted| Bringing::new(wanted, &call, &self.options));
        let mut building = build::start(&call.engine, self.options, input, self.named, self.client)?;
        // What fails before there is anything to tell has a status of its own.
        let first = match building.next().await {
            None => return Ok(response::empty(StatusCode::OK)),
            Some(Err(err)) => {
                let Some(at) = failed_at(&building, &err, &shown_as) else { return Err(err.into()) };
                return Ok(call.progress(async move |sink| {
                    for line in [at, failed(&err)] {
                        if sink.line(&line).await.is_err() {
                            return;
                        }
                    }
                }));
            }
            Some(Ok(first)) => first,
        };
        Ok(call.progress(async move |sink| match quiet {
            true => tell_outcome(building, first, &shown_as, beside, sink).await,
            false => tell_all(building, first, (names_images, &shown_as), beside, sink).await,
        }))
    }
}

/// The client of a session that it has opened beside the request: it is asked for secrets and agents.
async fn session_of(call: &Call, session: &str) -> Result<Arc<dyn Asks>, Failure> {
    let client = call.buildkit.client(session).await;
    client.ok_or_else(|| no_session(session))
}

/// BuildKit's sentence.
fn no_session(session: &str) -> Failure {
    Failure::invalid(format!("no active session for {session}: context deadline exceeded"))
}

async fn tell_all(
    mut building: Building,
    first: BuildLine,
    (names_images, shown_as): (bool, &str),
    mut beside: Option<Bringing>,
    sink: Sink,
) {
    let mut next = Some(Ok(first));
    while let Some(line) = next {
        let told = match line {
            Ok(BuildLine::Image(_)) if !names_images => Ok(()),
            Ok(BuildLine::Used(used)) => {
                beside.iter_mut().for_each(|beside| beside.used = *used.clone());
                Ok(())
            }
            Err(err) => tell_failure(&building, &err, shown_as, &sink).await,
            Ok(line) => sink.line(&told(line)).await,
        };
        // Dropped with us, the build ends when its client has gone.
        if told.is_err() {
            return;
        }
        next = building.next().await;
    }
    if let Some(beside) = beside
        && beside.bring(&building, &sink, false).await.is_err()
    {
        return;
    }
    // Who reads the end may prune: nothing is needed any more by then.
    drop(building);
    drop(sink);
}

/// The image's id alone; the last of what was told only where it fails.
async fn tell_outcome(
    mut building: Building,
    first: BuildLine,
    shown_as: &str,
    mut beside: Option<Bringing>,
    sink: Sink,
) {
    let (mut tail, mut left) = (Tail::default(), Vec::new());
    tail.push(first);
    while let Some(line) = building.next().await {
        match line {
            // The client has to note it however little it wants to be told.
            Ok(line @ BuildLine::CacheLeft { .. }) => left.push(told(line)),
            Ok(BuildLine::Used(used)) => beside.iter_mut().for_each(|beside| beside.used = *used.clone()),
            Ok(line) => tail.push(line),
            Err(err) => {
                for line in tail.lines() {
                    if sink.line(&line).await.is_err() {
                        return;
                    }
                }
                // As above.
                let _ = tell_failure(&building, &err, shown_as, &sink).await;
                return;
            }
        }
    }
    let image = building.image.clone().unwrap_or_default();
    if let Some(beside) = beside
        && !matches!(beside.bring(&building, &sink, true).await, Ok(true))
    {
        return;
    }
    // As above.
    drop(building);
    for line in left {
        if sink.line(&line).await.is_err() {
            return;
        }
    }
    // A client that has gone needs no answer.
    let _ = sink.line(&Line::Text { stream: format!("{image}\n") }).await;
}

/// Tells why a build has failed, and where, if the client wants to know.
async fn tell_failure(building: &Building, err: &BuildError, shown_as: &str, sink: &Sink) -> Result<(), Gone> {
    if let Some(at) = failed_at(building, err, shown_as) {
        sink.line(&at).await?;
    }
    sink.line(&failed(err)).await
}

/// Where a build has failed; nothing for clients that do not say how they show the Dockerfile.
fn failed_at(building: &Building, err: &BuildError, shown_as: &str) -> Option<Line> {
    if shown_as.is_empty() {
        return None;
    }
    let at = building.failed_at(err);
    let fault = Fault {
        line: at.line,
        end: at.end,
        excerpt: at.excerpt(shown_as),
        hint: at.hint(err).unwrap_or_default(),
        missing: build::missing_in_context(err).map(|missing| missing.path.clone()).unwrap_or_default(),
    };
    let says_nothing = fault.excerpt.is_empty() && fault.hint.is_empty() && fault.missing.is_empty();
    (!says_nothing).then(|| Line::FailedAt { aux: Box::new(FailedAt { failed_at: fault }) })
}

fn told(line: BuildLine) -> Line {
    match line {
        BuildLine::Text(stream) => Line::Text { stream },
        BuildLine::Image(id) => Line::made(id),
        BuildLine::Pull(step) => pull::line(step),
        BuildLine::Explained(explanation) => Line::explained(explanation),
        BuildLine::Kept(id) => Line::kept(id),
        BuildLine::CacheLeft { directory, manifest } => Line::cache_left(directory, *manifest),
        // Those of a graph, which no build of ours is.
        BuildLine::Failed { .. }
        | BuildLine::Part { .. }
        | BuildLine::Findings(_)
        | BuildLine::Heard(_)
        | BuildLine::Used(_) => Line::Text { stream: String::new() },
    }
}

fn failed(err: &BuildError) -> Line {
    Line::failed_with(err.code(), errdefs::chain(err))
}

/// Refuses what is not there.
fn check(query: &Query) -> Result<(), Failure> {
    if query.given("securityopt").is_some() {
        return Err(Failure::invalid("security options are not supported on linux"));
    }
    if query.flag("squash") {
        return Err(Failure::invalid("squash is only supported with experimental mode"));
    }
    match query.text("version") {
        "" | "1" => {}
        "2" => return Err(not_yet("building with BuildKit's protocol")),
        other => return Err(Failure::invalid(format!("invalid version {other:?}"))),
    }
    // Ours alone has sessions beside this call.
    if query.given("outputs").is_some() && query.text("session").is_empty() {
        return Err(not_yet("another output of a build than an image"));
    }
    match query.text("remote") {
        "client-session" => Err(Failure::invalid(
            "experimental session with v1 builder is no longer supported, use builder version v2 (BuildKit) instead",
        )),
        _ => Ok(()),
    }
}

fn not_yet(what: &str) -> Failure {
    Failure::new(ErrorKind::NotImplemented, format!("{what} is not supported yet"))
}

fn options(call: &Call) -> Result<BuildOptions, Failure> {
    let query = &call.query;
    let force_remove = query.flag("forcerm");
    Ok(BuildOptions {
        names: query.all("t").into_iter().filter(|name| !name.is_empty()).collect(),
        dockerfile: query.text("dockerfile").to_owned(),
        arguments: json::<BTreeMap<String, Option<String>>>(query, "buildargs", "error reading build args")?,
        labels: json(query, "labels", "error reading labels")?,
        target: query.text("target").to_owned(),
        // Until 1.32 dockerd did not know it, and no client sends it.
        platform: query.text("platform").to_owned(),
        no_cache: query.flag("nocache"),
        explain: query.flag("explain"),
        keep_failed: query.flag("keepfailed"),
        no_cache_stages: json(query, "nocachefilter", "error reading nocachefilter")?,
        pull: query.flag("pull"),
        remove: force_remove || query.given("rm").is_none() || query.flag("rm"),
        force_remove,
        check: None,
        cache_from: parsed(json(query, "cachefrom", "error reading cache-from")?, CacheFrom::parse)?,
        // Ours alone.
        cache_to: parsed(json(query, "cacheto", "error reading cache-to")?, CacheTo::parse)?
            .into_iter()
            .flatten()
            .collect(),
        host: host(query)?,
        logins: BTreeMap::new(),
        // Ours alone.
        allows_host_network: query.all("allow").iter().any(|name| name == "network.host"),
        reproduce: reproduce(query)?,
    })
}

fn parsed<T>(texts: Vec<String>, parse: impl Fn(&str) -> Result<T, CacheOptionError>) -> Result<Vec<T>, Failure> {
    let parsed = texts.iter().map(|text| parse(text)).collect::<Result<_, _>>();
    parsed.map_err(|err| Failure::new(err.kind(), err.to_string()))
}

/// Ours: the time that nothing in the image may be later than, and whether that is said of files, too.
fn reproduce(query: &Query) -> Result<Option<Reproduce>, Failure> {
    let Some(text) = query.given("source-date-epoch") else { return Ok(None) };
    let secs = crate::query::decimal(text).map_err(|cause| crate::query::not_a_number("ParseInt", text, cause))?;
    Ok(Some(Reproduce { secs, files: query.flag("rewrite-timestamp") }))
}

/// How commands are run.
fn host(query: &Query) -> Result<HostConfig, Failure> {
    let number = |name: &str| query.text(name).parse::<i64>().unwrap_or(0);
    let ulimits: Vec<Ulimit> = json(query, "ulimits", "error reading ulimit settings")?;
    let shm_size = match query.given("shmsize") {
        None => 0,
        Some(text) => {
            crate::query::decimal(text).map_err(|cause| crate::query::not_a_number("ParseInt", text, cause))?
        }
    };
    let isolation = query.text("isolation");
    if !matches!(isolation.to_lowercase().as_str(), "" | "default") {
        return Err(Failure::invalid(format!("unsupported isolation: {isolation:?}")));
    }
    let network = query.text("networkmode");
    Ok(HostConfig {
        extra_hosts: Some(query.all("extrahosts")).filter(|hosts| !hosts.is_empty()),
        shm_size,
        cpu_shares: number("cpushares"),
        cpu_period: number("cpuperiod"),
        cpu_quota: number("cpuquota"),
        cpuset_cpus: query.text("cpusetcpus").to_owned(),
        cpuset_mems: query.text("cpusetmems").to_owned(),
        memory: number("memory"),
        memory_swap: number("memswap"),
        cgroup_parent: query.text("cgroupparent").to_owned(),
        ulimits: Some(ulimits).filter(|ulimits| !ulimits.is_empty()),
        ..HostConfig::of_build(if network.is_empty() { "default" } else { network })
    })
}

/// A parameter in JSON; null is nothing, as Go reads it.
fn json<T: DeserializeOwned + Default>(query: &Query, name: &str, what: &str) -> Result<T, Failure> {
    let Some(text) = query.given(name) else { return Ok(T::default()) };
    let value: Option<T> =
        serde_json::from_str(text).map_err(|_| Failure::invalid(format!("{what}: {}", go_error(text))))?;
    Ok(value.unwrap_or_default())
}

/// What Go says of a text that is no JSON, or not what is wanted.
fn go_error(text: &str) -> String {
    match engine_api::json::decode::<ExecCreate>(text.as_bytes()) {
        Err(DecodeError::Syntax(err)) => err.to_string(),
        _ => "it has another type than what is wanted".to_owned(),
    }
}
