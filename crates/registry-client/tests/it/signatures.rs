//! Signatures beside an image.

use std::time::Duration;

use registry_client::{Credentials, Registry, RegistryError, Settings, Timing};
use serde_json::json;
use testkit::registry::served::MANIFEST;
use testkit::registry::{Answer, Server};

use crate::{digest, reference, settings};

const PAYLOADS: [&str; 3] = ["first payload", "second payload", "third payload"];

/// The manifest of these signatures, each so long as it says.
fn manifest(size: impl Fn(&str) -> usize) -> String {
    let layers = PAYLOADS.map(|payload| {
        json!({
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "size": size(payload),
            "digest": digest(payload.as_bytes()).to_string(),
            "annotations": {"dev.cosignproject.cosign/signature": payload.to_uppercase()},
        })
    });
    let config = json!({"mediaType": "x", "digest": digest(b"{}").to_string(), "size": 2});
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers, "config": config}).to_string()
}

/// A registry that has these signatures of everything, each so long as it says, and gives `answer` for one.
fn serve(size: impl Fn(&str) -> usize, answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Server {
    let manifest = manifest(size);
    Server::start(move |request| {
        let asked = |payload: &&&str| request.path.ends_with(digest(payload.as_bytes()).as_str());
        match PAYLOADS.iter().find(asked) {
            Some(payload) => answer(payload),
            None if request.path.ends_with(".sig") => Answer::new(200, manifest.clone()).with("Content-Type", MANIFEST),
            None => Answer::new(200, "{}"),
        }
    })
}

/// What comes of them until there are enough.
async fn signatures(server: &Server, settings: Settings, enough: usize) -> Result<Vec<String>, RegistryError> {
    let name = reference(&server.host(), "r");
    let session = Registry::new(settings).session(&name, Credentials::Anonymous).await?;
    let mut found = Vec::new();
    let more = |one: registry_client::Signed| {
        found.push(one.signature);
        found.len() < enough
    };
    session.signatures(&digest(b"image"), more).await?;
    Ok(found)
}

#[tokio::test]
async fn no_more_signatures_are_fetched_than_are_wanted() {
    let server = serve(str::len, |payload| Answer::new(200, payload));
    assert_eq!(signatures(&server, settings(), 2).await.unwrap(), ["FIRST PAYLOAD", "SECOND PAYLOAD"]);
    assert_eq!(server.requests("/blobs/").len(), 2);
    assert_eq!(signatures(&server, settings(), 9).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_payload_is_as_long_as_it_says() {
    let endless = serve(str::len, |_| Answer { endless: true, ..Answer::new(200, "") });
    let refused = errdefs::chain(&signatures(&endless, settings(), 9).await.unwrap_err());
    assert!(refused.contains("the answer is longer than 13 bytes"), "{refused}");
    let short = serve(|payload| payload.len() + 1, |payload| Answer::new(200, payload));
    let refused = errdefs::chain(&signatures(&short, settings(), 9).await.unwrap_err());
    assert!(refused.contains("verification failed for digest"), "{refused}");
}

#[tokio::test]
async fn all_of_them_together_have_the_time_of_one_document() {
    // Each answer comes at once, and asks for a pause that is longer than the whole may take.
    let busy = r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#;
    let server = serve(str::len, move |_| Answer::new(429, busy).with("Retry-After", "1"));
    let timing = Timing { document: Duration::from_millis(300), ..settings().timing };
    let refused = errdefs::chain(&signatures(&server, Settings { timing, ..settings() }, 9).await.unwrap_err());
    assert!(refused.contains("timeout reading the body"), "{refused}");
}

/// The same signatures in a manifest that refers to the image: the registry's own list, or the list under a tag.
#[tokio::test]
async fn signatures_that_refer_to_an_image_are_found_too() {
    let subject = digest(b"image").to_string().replace(':', "-");
    for (lists, under) in [(true, "/referrers/".to_owned()), (false, format!("/manifests/{subject}"))] {
        let signed = serve(str::len, |payload| Answer::new(200, payload));
        let of_image = digest(b"image").to_string();
        // What is under the tag of signatures elsewhere is a manifest of its own here.
        let manifest = manifest(str::len).into_bytes();
        let refers = digest(&manifest).to_string();
        let entry = |kind: &str| json!({ "mediaType": MANIFEST, "digest": refers, "size": manifest.len(), "artifactType": kind });
        let kinds = ["application/vnd.dev.cosign.artifact.sig.v1+json", "application/spdx+json"].map(entry);
        let list = json!({ "schemaVersion": 2, "manifests": kinds }).to_string();
        let (of, document) = (refers.clone(), manifest.clone());
        let server = Server::start(move |request| {
            let payload = PAYLOADS.iter().find(|payload| request.path.ends_with(digest(payload.as_bytes()).as_str()));
            if let Some(payload) = payload {
                return Answer::new(200, *payload);
            }
            match &request.path[..] {
                "/v2/" => Answer::new(200, "{}"),
                path if path.ends_with(&of) => Answer::new(200, document.clone()).with("Content-Type", MANIFEST),
                path if path.contains(&under) && path.ends_with(if lists { &of_image } else { &under }) => {
                    Answer::new(200, list.clone())
                }
                path if path.contains("/referrers/") => Answer::new(404, "404 page not found"),
                _ => Answer::new(
                    404,
                    r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#,
                ),
            }
        });
        assert_eq!(signatures(&server, settings(), 9).await.unwrap().len(), 3, "{lists}");
        assert_eq!(server.requests(&refers).len(), 1, "what is of another type is not fetched");
        // Who has enough asks no further.
        assert_eq!(signatures(&signed, settings(), 1).await.unwrap().len(), 1);
        assert_eq!(signed.requests("/referrers/").len(), 0);
    }
}
