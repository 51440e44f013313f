//! Who is asked before a registry.

use std::collections::BTreeMap;

use registry_client::{Mirror, Mirrors, Transfer, Wanted};
use testkit::registry::{Answer, Request, Served, Server};
use tokio::sync::mpsc;

use crate::{Registry, Scratch, impatient, read, reference, settings};

fn registry(hub: &[String], by_host: &[(String, String)]) -> std::sync::Arc<Registry> {
    let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (host, mirror) in by_host {
        hosts.entry(host.clone()).or_default().push(mirror.clone());
    }
    Registry::new(crate::Settings { mirrors: Mirrors::parse(hub, &hosts).unwrap(), ..settings() })
}

/// A registry behind a token server that gives its token to everybody, and behind this path.
fn mirror(before: &'static str, behind: &'static str) -> Server {
    let served = Served::new(&[100]);
    Server::start(move |request| match request.header("authorization") {
        _ if request.path.starts_with("/token") => Answer::new(200, r#"{"token":"T"}"#),
        Some("Bearer T") => {
            let path = request.path.replacen(before, "/v2/", 1).replacen(&format!("/v2/{behind}"), "/v2/", 1);
            match request.path.starts_with(before) {
                true => served.answer(&Request { path, ..request.clone() }),
                false => Answer::new(404, ""),
            }
        }
        _ => {
            let realm = format!("Bearer realm=\"http://{}/token\",service=\"m\"", request.header("host").unwrap());
            Answer::new(401, "").with("WWW-Authenticate", realm)
        }
    })
}

#[tokio::test]
async fn the_hub_has_mirrors_that_see_no_credentials_and_may_lie_below_a_path() {
    let (plain, below) = (mirror("/v2/", ""), mirror("/hub/v2/", ""));
    let urls = [format!("http://{}", plain.host()), format!("http://{}/hub/", below.host())];
    let registry = registry(&urls, &[]);
    let name = "docker.io/some/r:1".parse().unwrap();
    let mirrors = registry.mirrors(&name);
    let shown: Vec<String> = mirrors.iter().map(Mirror::to_string).collect();
    assert_eq!(shown, [format!("{}/v2/", urls[0]), format!("{}v2/", urls[1])]);
    for (mirror, server) in mirrors.iter().zip([&plain, &below]) {
        let session = registry.mirror_session(mirror, &name).await.unwrap();
        let resolved = session.resolve(&name, &Wanted::parse("linux/amd64").unwrap()).await.unwrap();
        session.config(&resolved.manifest).await.unwrap();
        let asked = server.requests("/token");
        assert_eq!(asked[0].path, "/token?service=m&scope=repository%3Asome%2Fr%3Apull");
        assert_eq!((asked.len(), asked[0].header("authorization")), (1, None));
    }
}

#[tokio::test]
async fn a_mirror_may_keep_repositories_in_a_project() {
    let server = mirror("/v2/", "cache/ghcr/");
    let url = format!("http://{}/v2/cache/ghcr", server.host());
    let registry = registry(&[], &[("ghcr.io".to_owned(), url)]);
    let name = "ghcr.io/r:1".parse().unwrap();
    let session = registry.mirror_session(&registry.mirrors(&name)[0], &name).await.unwrap();
    session.resolve(&name, &Wanted::parse("linux/amd64").unwrap()).await.unwrap();
    assert!(server.requests("scope=repository%3Acache%2Fghcr%2Fr%3Apull").len() == 1);
    assert!(!server.requests("/v2/cache/ghcr/r/manifests/1").is_empty());
}

#[tokio::test]
async fn a_mirror_that_is_none_says_so_and_a_registry_without_mirrors_has_none() {
    let server = Server::start(|_| Answer::new(404, ""));
    let registry = registry(&[format!("http://{}", server.host())], &[]);
    let name = "docker.io/library/x:1".parse().unwrap();
    let refused = registry.mirror_session(&registry.mirrors(&name)[0], &name).await.unwrap_err();
    assert_eq!(refused.to_string(), "received unexpected HTTP status: 404 Not Found");
    assert!(registry.mirrors(&reference(&server.host(), "r:1")).is_empty());
    // TLS is never left for a mirror that is named with it.
    let tls = Registry::new(crate::Settings {
        mirrors: Mirrors::parse(&[format!("https://{}", server.host())], &BTreeMap::new()).unwrap(),
        ..settings()
    });
    let refused = tls.mirror_session(&tls.mirrors(&name)[0], &name).await.unwrap_err();
    assert!(errdefs::chain(&refused).contains("server gave HTTP response to HTTPS client"), "{refused}");
}

#[tokio::test]
async fn what_a_mirror_does_not_give_comes_from_the_registry() {
    let served = Served::new(&[100_000]);
    let layer = served.layers[0].clone();
    let origin = Server::start({
        let served = served.clone();
        move |request| served.answer(request)
    });
    let dead = Server::start(move |request| match served.is_layer(request) {
        true => Answer { hang: true, length: Some(served.layers[0].len() as u64), ..Answer::new(200, "") },
        false => served.answer(request),
    });
    let by_host = BTreeMap::from([(origin.host(), vec![format!("http://{}", dead.host())])]);
    let mirrors = Mirrors::parse(&[], &by_host).unwrap();
    let scratch = Scratch::with(crate::Settings { mirrors, ..impatient() });
    let name = reference(&origin.host(), "r:1");
    let mirror = scratch.registry.mirrors(&name).remove(0);
    let session = scratch.registry.mirror_session(&mirror, &name).await.unwrap();
    let (reports, _reported) = mpsc::channel(64);
    let mirrored = Transfer::new(session, &scratch.content, reports);
    let (direct, resolved, _direct) = scratch.transfer(&origin).await;
    // The second one begins while the first one runs.
    let descriptor = &resolved.manifest.layers[0];
    let (mut one, mut two) = (mirrored.open(descriptor), direct.open(descriptor));
    let one = tokio::task::spawn_blocking(move || read(&mut one));
    let two = tokio::task::spawn_blocking(move || read(&mut two));
    assert!(one.await.unwrap().is_err());
    assert!(two.await.unwrap().unwrap() == layer);
}
