//! What Docker has and we do not have yet: refused by name, so that nobody takes it for a mistake of theirs.

use errdefs::ErrorKind;
use http::{Method, StatusCode};

use super::swarm;
use crate::request::Call;
use crate::response::{self, Answer};
use crate::router::wildcard;
use crate::status::Failure;

/// Docker's other routes: methods, pattern, and what they are for. The first that fits counts.
const LATER: &[(&str, &str, &str)] = &[
    ("GET", "/images/get", "saving images"),
    ("GET", "/images/{}/get", "saving images"),
    ("POST", "/build/{}", "building images"),
    ("PUT", "/volumes/{}", "updating cluster volumes"),
    ("GET", "/plugins/privileges", "plugins"),
    ("POST", "/plugins/pull", "plugins"),
    ("POST", "/plugins/create", "plugins"),
    ("POST", "/swarm/init", "swarm mode"),
    ("POST", "/swarm/join", "swarm mode"),
    ("GET", "/swarm", CLUSTER),
    ("GET POST", "/swarm/{}", CLUSTER),
    ("GET", "/services", CLUSTER),
    ("GET POST DELETE", "/services/{}", CLUSTER),
    ("GET", "/nodes", CLUSTER),
    ("GET POST DELETE", "/nodes/{}", CLUSTER),
    ("GET", "/tasks", CLUSTER),
    ("GET", "/tasks/{}", CLUSTER),
    ("GET", "/secrets", CLUSTER),
    ("GET POST DELETE", "/secrets/{}", CLUSTER),
    ("GET", "/configs", CLUSTER),
    ("GET POST DELETE", "/configs/{}", CLUSTER),
];

/// What only a member of a cluster has.
const CLUSTER: &str = "cluster";

/// What a route of Docker's is for that we do not have.
pub(crate) fn what(method: &Method, path: &str) -> Option<&'static str> {
    let fits = |methods: &str, pattern: &str| {
        wildcard(pattern, path).is_some() && methods.split(' ').any(|name| name == method.as_str())
    };
    LATER.iter().find(|(methods, pattern, _)| fits(methods, pattern)).map(|(_, _, what)| *what)
}

/// The refusal.
pub(crate) fn failure(what: &str) -> Failure {
    if what == CLUSTER {
        return swarm::no_manager();
    }
    let verb = if what.ends_with('s') && !what.contains(' ') { "are" } else { "is" };
    Failure::new(ErrorKind::NotImplemented, format!("{what} {verb} not supported yet"))
}

/// `GET /plugins`: there is none.
pub(crate) async fn plugins(_: Call) -> Result<Answer, Failure> {
    Ok(response::json(StatusCode::OK, &[(); 0]))
}

/// Whatever is asked of a plugin: there is none of any name.
pub(crate) async fn plugin(call: Call) -> Result<Answer, Failure> {
    Err(no_plugin(&call.name))
}

/// `POST /plugins/{}/enable`: the time that it may take is looked at first.
pub(crate) async fn enabled_plugin(call: Call) -> Result<Answer, Failure> {
    let timeout = call.query.text("timeout");
    if timeout.parse::<i64>().is_err() {
        let message = format!("strconv.Atoi: parsing {timeout:?}: invalid syntax");
        return Err(Failure::new(ErrorKind::Internal, message));
    }
    Err(no_plugin(&call.name))
}

/// `POST /plugins/{}/upgrade`: what is looked for has a tag.
pub(crate) async fn upgraded_plugin(call: Call) -> Result<Answer, Failure> {
    let name = &call.name;
    let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    Err(no_plugin(&if has_tag { name.clone() } else { format!("{name}:latest") }))
}

fn no_plugin(name: &str) -> Failure {
    Failure::new(ErrorKind::NotFound, format!("plugin {name:?} not found"))
}
