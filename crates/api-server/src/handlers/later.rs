//! What Docker has and we do not have yet: refused by name, so that nobody takes it for a mistake of theirs.

use errdefs::ErrorKind;
use http::Method;

use crate::router::wildcard;
use crate::status::Failure;

/// Docker's other routes: methods, pattern, and what they are for. The first that fits counts.
const LATER: &[(&str, &str, &str)] = &[
    ("GET", "/images/get", "saving images"),
    ("GET", "/images/{}/get", "saving images"),
    ("POST", "/build/{}", "building images"),
    ("POST", "/session", "building images"),
    ("POST", "/grpc", "building images"),
    ("PUT", "/volumes/{}", "updating cluster volumes"),
    ("GET", "/plugins", "plugins"),
    ("GET POST DELETE", "/plugins/{}", "plugins"),
    ("GET", "/swarm", "swarm mode"),
    ("GET POST", "/swarm/{}", "swarm mode"),
    ("GET", "/services", "swarm mode"),
    ("GET POST DELETE", "/services/{}", "swarm mode"),
    ("GET", "/nodes", "swarm mode"),
    ("GET POST DELETE", "/nodes/{}", "swarm mode"),
    ("GET", "/tasks", "swarm mode"),
    ("GET", "/tasks/{}", "swarm mode"),
    ("GET", "/secrets", "swarm mode"),
    ("GET POST DELETE", "/secrets/{}", "swarm mode"),
    ("GET", "/configs", "swarm mode"),
    ("GET POST DELETE", "/configs/{}", "swarm mode"),
];

/// What a route of Docker's is for that we do not have.
pub(crate) fn what(method: &Method, path: &str) -> Option<&'static str> {
    let fits = |methods: &str, pattern: &str| {
        wildcard(pattern, path).is_some() && methods.split(' ').any(|name| name == method.as_str())
    };
    LATER.iter().find(|(methods, pattern, _)| fits(methods, pattern)).map(|(_, _, what)| *what)
}

/// The refusal.
pub(crate) fn failure(what: &str) -> Failure {
    let verb = if what.ends_with('s') && !what.contains(' ') { "are" } else { "is" };
    Failure::new(ErrorKind::NotImplemented, format!("{what} {verb} not supported yet"))
}
