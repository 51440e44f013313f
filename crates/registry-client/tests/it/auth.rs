//! Who sees which credentials.

use registry_client::Wanted;

use testkit::registry::{Answer, Request, Served, Server};

use crate::{Credentials, Registry, impatient, reference, settings};

fn basic() -> Credentials {
    Credentials::Basic { username: "u".into(), password: "p".into() }
}

fn unauthorized(challenge: String) -> Answer {
    Answer::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#)
        .with("WWW-Authenticate", challenge)
}

/// A registry with a token server of its own, which answers so.
fn tokens(token: Answer) -> Server {
    let served = Served::new(&[100]);
    Server::start(move |request| match request.header("authorization") {
        _ if request.path.starts_with("/token") => token.clone(),
        Some("Bearer T") => served.answer(request),
        _ => {
            let host = request.header("host").unwrap();
            unauthorized(format!(
                "Bearer realm=\"http://{host}/token?a=b\",service=\"reg\",scope=\"repository:other:*\""
            ))
        }
    })
}

async fn resolve(server: &Server, registry: &std::sync::Arc<Registry>, credentials: Credentials) -> Result<(), String> {
    let name = reference(&server.host(), "r:1");
    let resolved = async { registry.session(&name, credentials).await?.resolve(&name, &Wanted::host()).await };
    resolved.await.map(drop).map_err(|err| errdefs::chain(&err))
}

#[tokio::test]
async fn a_token_is_for_this_repository_alone_and_is_used_again() {
    let server = tokens(Answer::new(200, r#"{"token":"T","expires_in":300}"#));
    let registry = Registry::new(settings());
    for _ in 0..2 {
        resolve(&server, &registry, basic()).await.unwrap();
    }
    let asked = server.requests("/token");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, "/token?a=b&service=reg&scope=repository%3Ar%3Apull&account=u");
    assert_eq!(asked[0].header("authorization"), Some("Basic dTpw"));
    resolve(&server, &registry, Credentials::Anonymous).await.unwrap();
    assert_eq!(server.requests("/token").len(), 2);
    assert_eq!(server.requests("/token")[1].header("authorization"), None);
}

#[tokio::test]
async fn a_refresh_token_is_posted_and_a_registry_token_is_shown_as_it_is() {
    let server = tokens(Answer::new(200, r#"{"access_token":"T"}"#));
    let registry = Registry::new(settings());
    resolve(&server, &registry, Credentials::Identity { token: "I".into() }).await.unwrap();
    assert_eq!(server.requests("/token")[0].method, "POST");
    resolve(&server, &registry, Credentials::Bearer { token: "T".into() }).await.unwrap();
    assert_eq!(server.requests("/token").len(), 1);
}

#[tokio::test]
async fn a_token_that_has_come_to_its_end_is_asked_for_again() {
    let served = Served::new(&[100]);
    let count = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |request: &Request| {
        let order = std::sync::atomic::Ordering::SeqCst;
        if request.path.starts_with("/token") {
            return Answer::new(200, format!(r#"{{"token":"T{}"}}"#, count.fetch_add(1, order)));
        }
        match request.header("authorization") {
            Some("Bearer T1") => served.answer(request),
            _ => unauthorized(format!("Bearer realm=\"http://{}/token\"", request.header("host").unwrap())),
        }
    });
    resolve(&server, &Registry::new(settings()), Credentials::Anonymous).await.unwrap();
    assert_eq!(server.requests("/token").len(), 2);
}

#[tokio::test]
async fn token_servers_that_fail_are_told_in_dockers_words() {
    for (answer, expected) in [
        (Answer::new(500, "oops"), "received unexpected HTTP status: 500 Internal Server Error"),
        (Answer::new(200, "{}"), "authorization server did not include a token in the response"),
        (Answer::new(200, "<html>"), "authorization server did not include a token in the response"),
        (
            Answer::new(401, r#"{"details":"incorrect username or password"}"#),
            "unauthorized: incorrect username or password",
        ),
        (Answer { status: 200, endless: true, ..Answer::default() }, "the answer is longer than 1048576 bytes"),
        (Answer { hang: true, length: Some(9), ..Answer::new(200, "{") }, "net/http: timeout reading the body"),
        (Answer::new(200, "{\"token\":\"a\\nb\"}"), "credentials with characters that no header can have"),
    ] {
        let server = tokens(answer);
        let settings = if expected.contains("timeout") { impatient() } else { settings() };
        let err = resolve(&server, &Registry::new(settings), basic()).await.unwrap_err();
        assert_eq!(err, format!("Head \"http://{}/v2/r/manifests/1\": {expected}", server.host()));
    }
}

#[tokio::test]
async fn name_and_password_go_to_who_asks_for_them_and_to_nobody_else() {
    let served = Served::new(&[100]);
    let stranger = {
        let served = served.clone();
        Server::start(move |request| served.answer(request))
    };
    let there = stranger.host();
    let server = Server::start(move |request| match request.header("authorization") {
        Some("Basic dTpw") if request.path.contains("manifests") => {
            Answer::new(307, "").with("Location", format!("http://{there}{}", request.path))
        }
        Some("Basic dTpw") => Answer::new(200, "{}"),
        _ => unauthorized("Basic realm=\"x\"".into()),
    });
    let registry = Registry::new(settings());
    let err = resolve(&server, &registry, Credentials::Anonymous).await.unwrap_err();
    assert_eq!(err, format!("Head \"http://{}/v2/r/manifests/1\": no basic auth credentials", server.host()));
    assert!(server.requests("").iter().all(|request| request.header("authorization").is_none()));
    resolve(&server, &registry, basic()).await.unwrap();
    assert!(!stranger.requests("manifests").is_empty());
    assert!(stranger.requests("").iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn wrong_passwords_are_refused_once() {
    let server = Server::start(|_| unauthorized("Basic realm=\"x\"".into()));
    let err = resolve(&server, &Registry::new(settings()), basic()).await.unwrap_err();
    assert_eq!(err, "unauthorized");
    assert_eq!(server.requests("manifests").len(), 2);
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::start(|request| match &request.path[..] {
        "/v2/" => Answer::new(200, "{}"),
        path => Answer::new(302, "").with("Location", path),
    });
    let err = resolve(&server, &Registry::new(settings()), Credentials::Anonymous).await.unwrap_err();
    assert!(err.ends_with("stopped after 10 redirects"), "{err}");
    for bad in ["file:///etc/passwd", "http://u:p@127.0.0.1/", "//x", ""] {
        let server = Server::start(move |request| match &request.path[..] {
            "/v2/" => Answer::new(200, "{}"),
            _ => Answer::new(302, "").with("Location", bad),
        });
        let err = resolve(&server, &Registry::new(settings()), Credentials::Anonymous).await.unwrap_err();
        assert!(err.ends_with(&format!("invalid address {bad:?}")), "{err}");
    }
}
