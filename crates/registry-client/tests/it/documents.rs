//! Manifests and configurations.

use std::sync::atomic::{AtomicUsize, Ordering};

use oci::image::media_type;
use registry_client::{RegistryError, Wanted, has_manifest};
use serde_json::json;
use testkit::registry::served::INDEX;
use testkit::registry::{Answer, Served, Server};

use crate::{Credentials, Registry, digest, impatient, reference, resolve, session, settings};

fn texts(err: &RegistryError) -> String {
    errdefs::chain(err)
}

#[tokio::test]
async fn a_tag_leads_through_an_index_to_a_manifest_and_its_configuration() {
    let mut served = Served::new(&[1000]);
    let image = digest(&served.manifest);
    let size = served.manifest.len();
    let index = json!({ "manifests": [
        {"mediaType": "x", "digest": digest(b"absent"), "size": 1, "platform": {"os": "linux", "architecture": "arm64"}},
        {"mediaType": "x", "digest": image, "size": size, "platform": {"os": "linux", "architecture": "amd64"}},
    ], "mediaType": INDEX, "schemaVersion": 2 });
    let index = index.to_string().into_bytes();
    served.manifests.insert("1".into(), index.clone());
    served.manifests.insert(digest(&index).to_string(), index.clone());
    let server = Server::start(move |request| served.answer(request));
    let resolved = resolve(&server, "r:1").await.unwrap();
    assert_eq!((resolved.digest, resolved.descriptor.digest), (digest(&index), image.clone()));
    assert_eq!(resolved.descriptor.media_type, media_type::OCI_MANIFEST);
    let config = session(&server).await.unwrap().config(&resolved.manifest).await.unwrap();
    assert_eq!(digest(&config), resolved.manifest.config.digest);
    let by_digest = resolve(&server, &format!("r@{image}")).await.unwrap();
    assert_eq!(by_digest.digest, image);
    let session = session(&server).await.unwrap();
    let none = session.resolve(&reference(&server.host(), "r:1"), &Wanted::parse("linux/s390x").unwrap()).await;
    assert_eq!(texts(&none.unwrap_err()), "no matching manifest for linux/s390x in the manifest list entries");
}

#[tokio::test]
async fn what_is_absent_is_told_in_dockers_words() {
    let served = Served::new(&[1]);
    let error =
        |code: &str, message: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"{message}","detail":[1]}}]}}"#);
    let (denied, unknown) = (error("DENIED", "no"), error("NAME_UNKNOWN", "none"));
    let server = Server::start(move |request| match &request.path {
        path if path.contains("/denied/") => Answer::new(403, denied.clone()),
        path if path.contains("/none/") => Answer::new(404, unknown.clone()),
        path if path.contains("/broken/") => Answer::new(500, "secret"),
        _ => served.answer(request),
    });
    let host = server.host();
    for (name, expected) in [
        ("r:2", format!("manifest for {host}/r:2 not found: manifest unknown: manifest unknown")),
        ("none:1", format!("repository {host}/none not found: name unknown: none")),
        (
            "denied:1",
            format!(
                "pull access denied for {host}/denied, repository does not exist or may require 'docker login': denied: no"
            ),
        ),
        ("broken:1", "received unexpected HTTP status: 500 Internal Server Error".to_owned()),
    ] {
        let name = reference(&host, name);
        let session = Registry::new(settings()).session(&name, Credentials::Anonymous).await.unwrap();
        let err = session.resolve(&name, &Wanted::host()).await.unwrap_err();
        assert_eq!(texts(&err), expected);
    }
    // One HEAD, and three attempts.
    assert_eq!(server.requests("/broken/").len(), 4);
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_told_in_gos_words() {
    let name = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        reference(&listener.local_addr().unwrap().to_string(), "r:1")
    };
    let err = Registry::new(settings()).session(&name, Credentials::Anonymous).await.unwrap_err();
    let host = name.domain();
    assert_eq!(texts(&err), format!("Get \"http://{host}/v2/\": dial tcp {host}: connect: connection refused"));
}

#[tokio::test]
async fn documents_that_are_too_long_or_not_what_they_should_be_are_refused() {
    let long = vec![b' '; 4 * 1024 * 1024 + 1];
    let mut served = Served::new(&[1]);
    let other = Served::new(&[2]);
    let asked = digest(b"asked for");
    served.manifests.insert(asked.to_string(), other.manifest.clone());
    served.manifests.insert(digest(&long).to_string(), long.clone());
    served.manifests.insert("long".into(), long);
    let config = digest(&served.blobs.values().find(|bytes| bytes.starts_with(b"{")).unwrap().clone());
    served.blobs.insert(config.to_string(), b"{}".to_vec());
    let plain = served.clone();
    let server = Server::start(move |request| match request.path.rsplit('/').next().unwrap() {
        "endless" => Answer { status: 200, endless: true, ..Answer::default() },
        "slow" => Answer { hang: true, length: Some(10), ..Answer::new(200, "{") },
        "cut" => Answer { cut: Some(3), ..Answer::new(200, "{123456}") },
        "short" => Answer { cut: Some(3), ..Answer::new(404, "{123456}") },
        "html" => Answer::new(200, "<html>").with("Content-Type", "text/html"),
        _ => plain.answer(request),
    });
    for (tag, expected) in [
        ("long", "longer than 4194304 bytes"),
        ("endless", "longer than 4194304 bytes"),
        ("slow", "timeout reading the body"),
        ("cut", "unexpected EOF"),
        ("short", "received unexpected HTTP status: 404 Not Found"),
        ("html", "decode the manifest"),
    ] {
        let name = reference(&server.host(), &format!("r:{tag}"));
        let registry = Registry::new(if tag == "slow" { impatient() } else { settings() });
        let session = registry.session(&name, Credentials::Anonymous).await.unwrap();
        let err = texts(&session.resolve(&name, &Wanted::host()).await.unwrap_err());
        assert!(err.contains(expected), "{tag}: {err}");
    }
    let err = resolve(&server, &format!("r@{asked}")).await.unwrap_err();
    assert_eq!(texts(&err), format!("manifest verification failed for digest {asked}"));
    let resolved = resolve(&server, "r:1").await.unwrap();
    let err = session(&server).await.unwrap().config(&resolved.manifest).await.unwrap_err();
    let expected = "error pulling image configuration: image config verification failed for digest";
    assert_eq!(texts(&err), format!("{expected} {config}"));
}

#[tokio::test]
async fn what_is_not_an_image_is_refused() {
    let with = |from: &str, to: &str| {
        let mut served = Served::new(&[1]);
        let manifest = String::from_utf8(served.manifest.clone()).unwrap().replace(from, to).into_bytes();
        served.manifests = [("1".into(), manifest.clone()), (digest(&manifest).to_string(), manifest)].into();
        Server::start(move |request| served.answer(request))
    };
    for artifact in ["vnd.cncf.helm.config.v1", "vnd.oci.empty.v1"] {
        let chart = with("vnd.oci.image.config.v1", artifact);
        let err = texts(&resolve(&chart, "r:1").await.unwrap_err());
        assert_eq!(err, format!("unsupported media type application/{artifact}+json"));
    }
    // In Docker's own manifests it looks at classes of configurations.
    let mut served = Served::new(&[1]).schema_2();
    let text = String::from_utf8(served.manifest.clone()).unwrap();
    let manifest = text.replace("vnd.docker.container.image.v1", "vnd.cncf.helm.config.v1").into_bytes();
    served.manifests = [("1".into(), manifest.clone()), (digest(&manifest).to_string(), manifest)].into();
    let chart = Server::start(move |request| served.answer(request));
    let err = texts(&resolve(&chart, "r:1").await.unwrap_err());
    assert_eq!(err, "Encountered remote \"application/vnd.cncf.helm.config.v1+json\"(unknown) when fetching");
    let layers = with("application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.foo+json");
    assert_eq!(texts(&resolve(&layers, "r:1").await.unwrap_err()), "unsupported media type application/vnd.foo+json");
}

#[tokio::test]
async fn tags_come_page_by_page() {
    let server = Server::start(|request| match &request.path[..] {
        "/v2/r/tags/list" => {
            Answer::new(200, r#"{"tags":["a","b"]}"#).with("Link", "</v2/r/tags/list?last=b>; rel=\"next\"")
        }
        "/v2/r/tags/list?last=b" => Answer::new(200, r#"{"tags":["c"]}"#),
        _ => Answer::new(200, "{}"),
    });
    assert_eq!(session(&server).await.unwrap().tags().await.unwrap(), ["a", "b", "c"]);
}

/// Whoever asks replaces what lacks something: a registry that only has too much to do must not seem to lack it.
#[tokio::test]
async fn only_a_404_says_that_a_manifest_is_not_there() {
    for (status, there, asked) in [
        (200, Ok(true), 1),
        (404, Ok(false), 1),
        (401, Err("401 Unauthorized"), 1),
        (403, Err("403 Forbidden"), 1),
        (429, Err("429 Too Many Requests"), 1),
        (500, Err("500 Internal Server Error"), 3),
        (503, Err("503 Service Unavailable"), 3),
    ] {
        let server = Server::start(move |request| match request.method == "HEAD" {
            true => Answer::new(status, r#"{"errors":[]}"#),
            false => Answer::new(200, "{}"),
        });
        let answer = has_manifest(&session(&server).await.unwrap(), &digest(b"x")).await;
        let expected = there.map_err(|status| format!("received unexpected HTTP status: {status}"));
        assert_eq!(answer.map_err(|err| texts(&err)), expected);
        assert_eq!(server.requests("/manifests/").len(), asked, "{status}");
    }
    // One that is busy for a while is asked again, as for any document.
    for busy in [429, 503] {
        let asked = AtomicUsize::new(0);
        let server = Server::start(move |request| match request.method == "HEAD" {
            true if asked.fetch_add(1, Ordering::Relaxed) == 0 => Answer::new(busy, "").with("Retry-After", "0"),
            true => Answer::new(404, ""),
            false => Answer::new(200, "{}"),
        });
        assert!(!has_manifest(&session(&server).await.unwrap(), &digest(b"x")).await.unwrap());
        assert_eq!(server.requests("/manifests/").len(), 2);
    }
}
