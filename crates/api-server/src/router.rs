//! One table of routes, and the way from a request to its handler.
//!
//! Paths are matched as dockerd's router matches them: percent escapes are undone first, `/v1.NN` may stand in front,
//! a wildcard takes slashes, too (`/images/library/busybox/json`) and may be empty, and the first route that fits wins.

use std::pin::Pin;

use engine_api::versions::{self, ApiVersion, VersionError};
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS};
use http::{Method, StatusCode, Uri};

use crate::buildkit;
use crate::handlers::{
    archive, build, checkpoints, commit, containers, disk, events, exec, images, later, live, login, logs, networks,
    pull, push, registry_manifest, save, swarm, system, volume_copies, volumes,
};
use crate::hijack::Outcome;
use crate::query::{Query, unescape};
use crate::refusal;
use crate::request::Call;
use crate::response::{self, Answer};
use crate::status::Failure;

/// What a handler promises.
pub(crate) type Promise<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// What happens with a request.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    /// Answers.
    Plain(fn(Call) -> Promise<Answer>),
    /// May take over the connection.
    Hijack(fn(Call) -> Promise<Outcome>),
    /// Docker has it, we do not yet.
    Later(&'static str),
}

/// One line of the table.
pub(crate) struct Route {
    method: Method,
    /// `{}` stands for anything.
    pattern: &'static str,
    pub(crate) handler: Handler,
}

/// Where a request goes.
pub(crate) struct Target {
    pub(crate) handler: Handler,
    pub(crate) version: ApiVersion,
    pub(crate) name: String,
    pub(crate) query: Query,
}

macro_rules! routes {
    ($($method:ident $pattern:literal $kind:ident $handler:path),* $(,)?) => {
        &[$(Route {
            method: Method::$method,
            pattern: $pattern,
            handler: Handler::$kind(|call| Box::pin($handler(call))),
        }),*]
    };
}

/// Everything that we do.
const ROUTES: &[Route] = routes![
    GET    "/_ping"                Plain   system::ping,
    HEAD   "/_ping"                Plain   system::ping,
    GET    "/version"              Plain   system::version,
    GET    "/info"                 Plain   system::info,
    GET    "/events"               Plain   events::stream,
    GET    "/containers/json"      Plain   containers::list,
    GET    "/containers/{}/json"   Plain   containers::inspect,
    GET    "/containers/{}/logs"   Plain   logs::stream,
    POST   "/containers/create"    Plain  containers::create,
    POST   "/containers/{}/start"  Plain  containers::start,
    POST   "/containers/{}/stop"   Plain  containers::stop,
    POST   "/containers/{}/restart" Plain containers::restart,
    POST   "/containers/{}/kill"   Plain  containers::kill,
    POST   "/containers/{}/wait"   Plain   containers::wait,
    POST   "/containers/{}/resize" Plain  containers::resize,
    POST   "/containers/{}/rename" Plain  containers::rename,
    POST   "/containers/{}/pause"  Plain  live::pause,
    POST   "/containers/{}/unpause" Plain live::unpause,
    POST   "/containers/{}/update" Plain  live::update,
    GET    "/containers/{}/top"    Plain   live::top,
    GET    "/containers/{}/stats"  Plain   live::stats,
    GET    "/containers/{}/why"    Plain   live::why,
    POST   "/containers/{}/ports"  Plain   live::ports,
    GET    "/containers/{}/checkpoints" Plain checkpoints::list,
    POST   "/containers/{}/checkpoints" Plain checkpoints::create,
    DELETE "/containers/{}/checkpoints/{}" Plain checkpoints::remove,
    POST   "/containers/{}/attach" Hijack containers::attach,
    GET    "/containers/{}/attach/ws" Hijack containers::attach_websocket,
    POST   "/containers/{}/exec"   Plain  exec::create,
    HEAD   "/containers/{}/archive" Plain archive::head,
    GET    "/containers/{}/archive" Plain archive::get,
    PUT    "/containers/{}/archive" Plain archive::put,
    GET    "/containers/{}/changes" Plain archive::changes,
    GET    "/containers/{}/export" Plain  archive::export,
    POST   "/containers/prune"     Plain  archive::prune,
    POST   "/commit"               Plain  commit::commit,
    POST   "/auth"                 Plain  login::login,
    GET    "/distribution/{}/json" Plain  images::distribution,
    GET    "/exec/{}/json"         Plain   exec::inspect,
    POST   "/exec/{}/start"        Hijack exec::start,
    POST   "/exec/{}/resize"       Plain  exec::resize,
    GET    "/images/json"          Plain   images::list,
    GET    "/images/search"        Plain   images::search,
    GET    "/images/{}/history"    Plain   images::history,
    GET    "/images/{}/json"       Plain   images::inspect,
    GET    "/images/get"           Plain  save::several,
    GET    "/images/{}/get"        Plain  save::one,
    POST   "/images/load"          Plain  images::load,
    POST   "/images/create"        Plain  pull::create,
    POST   "/images/{}/tag"        Plain  images::tag,
    POST   "/images/{}/push"       Plain  push::push,
    GET    "/volumes"              Plain   volumes::list,
    GET    "/volumes/{}"           Plain   volumes::inspect,
    POST   "/volumes/create"       Plain  volumes::create,
    POST   "/volumes/prune"        Plain  volumes::prune,
    GET    "/longshore/volumes/{}/export"  Plain volume_copies::export,
    POST   "/longshore/volumes/{}/import"  Plain volume_copies::import,
    POST   "/longshore/volumes/{}/clone"   Plain volume_copies::clone,
    GET    "/longshore/volumes/{}/snapshots" Plain volume_copies::snapshots,
    POST   "/longshore/volumes/{}/snapshots" Plain volume_copies::snapshot,
    DELETE "/longshore/volumes/{}/snapshots" Plain volume_copies::remove_snapshot,
    POST   "/longshore/volumes/{}/restore" Plain volume_copies::restore,
    GET    "/system/df"            Plain   disk::usage,
    POST   "/images/prune"         Plain  disk::prune_images,
    POST   "/longshore/build"      Plain build::build_directory,
    POST   "/longshore/dockerfile" Plain build::look::dockerfile,
    GET    "/longshore/images/budget" Plain disk::image_budget,
    GET    "/longshore/images/{}/files" Plain save::files,
    GET    "/longshore/exposure"   Plain  live::exposure,
    GET    "/longshore/registry/manifest" Plain registry_manifest::read,
    PUT    "/longshore/registry/manifest" Plain registry_manifest::write,
    POST   "/longshore/registry/mount" Plain registry_manifest::mount,
    POST   "/build"                Plain  build::build,
    POST   "/build/prune"          Plain  disk::prune_caches,
    GET    "/networks"             Plain   networks::list,
    GET    "/networks/"            Plain   networks::list,
    GET    "/networks/{}"          Plain   networks::inspect,
    POST   "/networks/prune"       Plain  networks::prune,
    POST   "/swarm/leave"          Plain  swarm::leave,
    GET    "/plugins"              Plain  later::plugins,
    GET    "/plugins/{}/json"      Plain  later::plugin,
    DELETE "/plugins/{}"           Plain  later::plugin,
    POST   "/plugins/{}/enable"    Plain  later::enabled_plugin,
    POST   "/plugins/{}/disable"   Plain  later::plugin,
    POST   "/plugins/{}/push"      Plain  later::plugin,
    POST   "/plugins/{}/set"       Plain  later::plugin,
    POST   "/plugins/{}/upgrade"   Plain  later::upgraded_plugin,
    POST   "/session"              Hijack buildkit::session,
    POST   "/grpc"                 Hijack buildkit::grpc,
    POST   "/networks/create"      Plain  networks::create,
    POST   "/networks/{}/connect"  Plain  networks::connect,
    POST   "/networks/{}/disconnect" Plain networks::disconnect,
    DELETE "/networks/{}"          Plain  networks::remove,
    DELETE "/volumes/{}"           Plain  volumes::remove,
];

/// Routes whose patterns are so wide that they come after everything else.
const WIDE_ROUTES: &[Route] = routes![
    DELETE "/containers/{}"        Plain  containers::remove,
    DELETE "/images/{}"            Plain  images::remove,
    OPTIONS "/{}"                  Plain   system::options,
];

/// Why a request has no way.
#[derive(Debug)]
pub(crate) enum NoWay {
    /// Its path is not clean: this one is.
    Moved(String),
    /// It is about the server, not about anything on it (`OPTIONS *`).
    Server,
    /// Its path cannot be unescaped.
    BadEscape,
    /// Nobody knows its path.
    Unknown,
    /// Its version is not served.
    Version(VersionError),
    /// It cannot be read.
    Unreadable(Failure),
}

/// Finds the way of a request.
pub(crate) fn resolve(method: &Method, uri: &Uri) -> Result<Target, NoWay> {
    if method == Method::OPTIONS && uri.path() == "*" {
        return Err(NoWay::Server);
    }
    let path = unescape(uri.path(), false).map_err(|_| NoWay::BadEscape)?;
    if let Some(clean) = cleaned(&path) {
        return Err(NoWay::Moved(uri.query().map_or(clean.clone(), |query| format!("{clean}?{query}"))));
    }
    let (asked, path) = split_version(&path);
    let (handler, name) = find(method, path).ok_or(NoWay::Unknown)?;
    let version = asked.map_or(Ok(versions::MAX), |asked| version(asked).check(asked)).map_err(NoWay::Version)?;
    let query = Query::parse(uri.query().unwrap_or_default()).map_err(NoWay::Unreadable)?;
    Ok(Target { handler, version, name, query })
}

impl NoWay {
    /// The answer to such a request. Only where dockerd's own code answers, and not Go's, does it say who we are.
    pub(crate) fn answer(self) -> Answer {
        let mut answer = match self {
            NoWay::Moved(path) => return moved(&path),
            NoWay::Server => return response::empty(StatusCode::OK),
            NoWay::Unknown => return page_not_found(),
            NoWay::BadEscape => return refusal::BAD_REQUEST.answer(),
            // Clients older than 1.24 print the body as it is, so they get plain text.
            NoWay::Version(err @ VersionError::TooOld(_)) => too_old(&err),
            NoWay::Version(err) => response::failure(err.into()),
            NoWay::Unreadable(failure) => response::failure(failure),
        };
        response::set_common_headers(answer.headers_mut());
        answer
    }
}

fn too_old(err: &VersionError) -> Answer {
    let mut answer = response::text(StatusCode::BAD_REQUEST, format!("{err}\n"));
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn find(method: &Method, path: &str) -> Option<(Handler, String)> {
    let ours = ROUTES.iter().find_map(|route| Some((route.handler, matched(route, method, path)?)));
    ours.or_else(|| Some((Handler::Later(later::what(method, path)?), String::new())))
        .or_else(|| WIDE_ROUTES.iter().find_map(|route| Some((route.handler, matched(route, method, path)?))))
}

fn matched(route: &Route, method: &Method, path: &str) -> Option<String> {
    if route.method != *method {
        return None;
    }
    wildcard(route.pattern, path).map(str::to_owned)
}

/// What the wildcard of a pattern stands for in a path that fits; the empty text for a pattern without one.
pub(crate) fn wildcard<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    match pattern.split_once("{}") {
        None => (pattern == path).then_some(""),
        Some((before, after)) => match after.strip_suffix("{}") {
            // Two names, each of one part, and what stands between them.
            Some(between) => {
                let names = path.strip_prefix(before)?;
                let (first, second) = names.split_once(between)?;
                let is_name = |name: &str| !name.is_empty() && !name.contains('/');
                (is_name(first) && is_name(second)).then_some(names)
            }
            None => path.strip_prefix(before)?.strip_suffix(after),
        },
    }
}

/// Splits `/v1.41/info` into `1.41` and `/info`.
fn split_version(path: &str) -> (Option<&str>, &str) {
    let Some(rest) = path.strip_prefix("/v") else { return (None, path) };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (version, rest) = rest.split_at(end);
    if version.is_empty() || !rest.starts_with('/') {
        return (None, path);
    }
    (Some(version), rest)
}

/// The version that digits and dots stand for. As with dockerd, what is missing counts as zero; what is huge stays huge.
fn version(text: &str) -> ApiVersion {
    let number = |part: &str| if part.is_empty() { 0 } else { part.parse().unwrap_or(u32::MAX) };
    let mut parts = text.split('.').map(number);
    let mut part = || parts.next().unwrap_or(0);
    ApiVersion { major: part(), minor: part() }
}

/// The path that Go's router would redirect to: without empty, `.` and `..` parts. `None` if it is clean already.
fn cleaned(path: &str) -> Option<String> {
    if !path.contains("//") && !path.contains("/.") && path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    (clean != path).then_some(clean)
}

fn page_not_found() -> Answer {
    response::failure(Failure { status: StatusCode::NOT_FOUND, message: "page not found".to_owned() })
}

fn moved(path: &str) -> Answer {
    let Ok(path) = HeaderValue::from_str(path) else { return page_not_found() };
    let mut answer = response::empty(StatusCode::MOVED_PERMANENTLY);
    answer.headers_mut().insert(LOCATION, path);
    answer
}

/// An answer to a hijacking request in the form that dockerd gives: the bare sentence, and the end of the connection.
pub(crate) fn raw_failure(failure: Failure) -> Answer {
    let mut answer = response::text(failure.status, format!("{}\r\n", failure.message));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/vnd.docker.raw-stream"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_take_anything() {
        for (pattern, path, wanted) in [
            ("/info", "/info", Some("")),
            ("/info", "/info/", None),
            ("/images/{}/json", "/images/library/busybox:1/json", Some("library/busybox:1")),
            ("/images/{}/json", "/images/json", None),
            ("/images/{}/json", "/images//json", Some("")),
            ("/containers/{}", "/containers/", Some("")),
            ("/containers/{}", "/containers", None),
        ] {
            assert_eq!(wildcard(pattern, path), wanted, "{pattern} {path}");
        }
    }

    #[test]
    fn versions_stand_in_front() {
        for (path, wanted, rest) in [
            ("/info", None, "/info"),
            ("/v1.41/info", Some("1.41"), "/info"),
            ("/v1.4.5/info", Some("1.4.5"), "/info"),
            ("/version", None, "/version"),
            ("/volumes/x", None, "/volumes/x"),
            ("/v1.41", None, "/v1.41"),
        ] {
            assert_eq!(split_version(path), (wanted, rest), "{path}");
        }
        for (text, major, minor) in
            [("1.41", 1, 41), ("1.", 1, 0), ("0", 0, 0), ("1.4.5", 1, 4), ("99999999999", u32::MAX, 0)]
        {
            assert_eq!(version(text), ApiVersion { major, minor }, "{text}");
        }
    }

    #[test]
    fn unclean_paths_are_redirected() {
        for (path, wanted) in [
            ("/info", None),
            ("/networks/", None),
            ("//info", Some("/info")),
            ("/containers//json", Some("/containers/json")),
            ("/a/../b/./c/", Some("/b/c/")),
            ("/../..", Some("/")),
            ("/images/.hidden/json", None),
        ] {
            assert_eq!(cleaned(path).as_deref(), wanted, "{path}");
        }
    }

    #[test]
    fn every_path_of_docker_is_known() {
        let kind = |method: Method, path: &str| match find(&method, path) {
            None => "none",
            Some((Handler::Later(_), _)) => "later",
            Some((Handler::Hijack(_), _)) => "hijack",
            Some((Handler::Plain(_), _)) => "ours",
        };
        for (method, path, wanted) in [
            (Method::GET, "/_ping", "ours"),
            (Method::HEAD, "/_ping", "ours"),
            (Method::HEAD, "/version", "none"),
            (Method::POST, "/containers/a/attach", "hijack"),
            (Method::POST, "/exec/a/start", "hijack"),
            (Method::POST, "/containers/a/start", "ours"),
            (Method::DELETE, "/containers/a", "ours"),
            (Method::DELETE, "/containers/a/checkpoints/b", "ours"),
            (Method::GET, "/containers/a/attach/ws", "hijack"),
            (Method::POST, "/containers/a/pause", "ours"),
            (Method::PUT, "/containers/a/archive", "ours"),
            (Method::HEAD, "/containers/a/archive", "ours"),
            (Method::POST, "/containers/prune", "ours"),
            (Method::POST, "/build", "ours"),
            (Method::GET, "/networks", "ours"),
            (Method::POST, "/networks/create", "ours"),
            (Method::GET, "/swarm", "later"),
            (Method::POST, "/auth", "ours"),
            (Method::GET, "/nothing", "none"),
            (Method::PUT, "/version", "none"),
        ] {
            assert_eq!(kind(method, path), wanted, "{path}");
        }
    }
}
