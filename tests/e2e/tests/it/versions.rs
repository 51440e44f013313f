//! The versions in the paths of the API.

use testkit::Daemon;

#[test]
fn privileged_every_version_from_1_24_is_served() {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::start().unwrap();
    for minor in 24..=51 {
        for path in ["version", "containers/json", "_ping", "info", "images/json"] {
            let answer = daemon.get(&format!("/v1.{minor}/{path}")).unwrap();
            assert_eq!(answer.status, 200, "1.{minor} {path}: {}", answer.text());
            assert_eq!(answer.header("api-version"), Some("1.51"), "1.{minor} {path}");
        }
    }
    let version = daemon.get("/version").unwrap().json().unwrap();
    assert_eq!((&version["ApiVersion"], &version["MinAPIVersion"]), (&"1.51".into(), &"1.24".into()));
}

#[test]
fn privileged_other_versions_are_refused_with_dockers_sentence() {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::start().unwrap();
    // Old clients get plain text: they know no JSON for errors.
    let old = |version: &str| {
        format!(
            "client version {version} is too old. Minimum supported API version is 1.24, please upgrade your client to a \
             newer version"
        )
    };
    for (path, version) in [("/v1.23/version", "1.23"), ("/v0.1/containers/json", "0.1")] {
        let answer = daemon.get(path).unwrap();
        assert_eq!((answer.status, answer.text().trim()), (400, old(version).as_str()), "{path}");
        assert!(answer.header("content-type").is_some_and(|value| value.starts_with("text/plain")), "{path}");
    }
    let new = |version: &str| format!("client version {version} is too new. Maximum supported API version is 1.51");
    for (path, status, sentence) in [
        ("/v1.99/version", 400, new("1.99")),
        ("/v1.52/containers/json", 400, new("1.52")),
        ("/v9.0/containers/json", 400, new("9.0")),
        ("/vx.y/version", 404, "page not found".to_owned()),
        ("/v1.50", 404, "page not found".to_owned()),
        ("/v1.50/nope", 404, "page not found".to_owned()),
        ("/nope", 404, "page not found".to_owned()),
    ] {
        let answer = daemon.get(path).unwrap();
        assert_eq!((answer.status, answer.message()), (status, sentence), "{path}");
    }
    assert_eq!(daemon.post("/v1.50/version", "").unwrap().status, 404);
}

#[test]
fn privileged_ping_tells_what_clients_need() {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::start().unwrap();
    let answer = daemon.get("/_ping").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "OK"));
    assert_eq!(answer.header("ostype"), Some("linux"));
    assert!(answer.header("cache-control").is_some_and(|value| value.contains("no-cache")));
    assert!(answer.header("content-type").is_some_and(|value| value.starts_with("text/plain")));
    let head = testkit::http::request(daemon.socket(), "HEAD", "/_ping", None).unwrap();
    assert_eq!((head.status, head.header("api-version")), (200, Some("1.51")));
}
