//! A registry in memory that takes what is pushed to it (distribution-spec v1.1, "Push").
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed, in whatever thread")]

use std::collections::HashMap;
use std::sync::Mutex;

use super::served::digest;
use super::server::{Answer, Request};

/// What was pushed, by repository.
#[derive(Debug, Default)]
pub struct Received(Mutex<Contents>);

#[derive(Debug, Default)]
struct Contents {
    repositories: HashMap<String, Repository>,
    /// By number: what came so far.
    uploads: HashMap<String, Vec<u8>>,
    begun: usize,
}

/// One repository.
#[derive(Clone, Debug, Default)]
pub struct Repository {
    /// By digest.
    pub blobs: HashMap<String, Vec<u8>>,
    /// By tag and digest: media type and bytes.
    pub manifests: HashMap<String, (String, Vec<u8>)>,
}

impl Received {
    /// What a repository has.
    pub fn repository(&self, name: &str) -> Repository {
        self.0.lock().unwrap().repositories.get(name).cloned().unwrap_or_default()
    }

    /// As a registry that has no fault would. What a cut request brought is kept.
    pub fn answer(&self, request: &Request) -> Answer {
        let mut contents = self.0.lock().unwrap();
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let Some(rest) = path.strip_prefix("/v2/") else { return Answer::new(404, "") };
        if rest.is_empty() {
            return Answer::new(200, "{}");
        }
        let (name, what) = ["/blobs/uploads/", "/blobs/", "/manifests/"]
            .into_iter()
            .find_map(|part| rest.split_once(part).map(|(name, end)| (name.to_owned(), (part, end))))
            .expect("a path of the specification");
        match what {
            ("/blobs/uploads/", "") => contents.begin(&name, query),
            ("/blobs/uploads/", id) => contents.upload(&name, id, query, request),
            ("/blobs/", blob) => match contents.repositories.entry(name).or_default().blobs.get(blob) {
                Some(bytes) => Answer::new(200, bytes.clone()),
                None => Answer::new(404, ""),
            },
            (_, reference) => contents.manifest(&name, reference, request),
        }
    }
}

impl Contents {
    fn begin(&mut self, name: &str, query: &str) -> Answer {
        let named = |key| field(query, key).map(|text| text.replace("%3A", ":").replace("%2F", "/"));
        if let (Some(blob), Some(from)) = (named("mount"), named("from"))
            && let Some(bytes) = self.repositories.get(&from).and_then(|from| from.blobs.get(&blob)).cloned()
        {
            self.repositories.entry(name.to_owned()).or_default().blobs.insert(blob.clone(), bytes);
            return Answer::new(201, "").with("Location", format!("/v2/{name}/blobs/{blob}"));
        }
        self.begun += 1;
        let id = self.begun.to_string();
        self.uploads.insert(id.clone(), Vec::new());
        accepted(name, &id, 0)
    }

    fn upload(&mut self, name: &str, id: &str, query: &str, request: &Request) -> Answer {
        let Some(bytes) = self.uploads.get_mut(id) else {
            return Answer::new(
                404,
                r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"blob upload unknown to registry"}]}"#,
            );
        };
        let from =
            request.header("content-range").map(|range| range.split_once('-').unwrap().0.parse::<usize>().unwrap());
        if from.is_some_and(|from| from != bytes.len()) {
            return Answer::new(416, "");
        }
        bytes.extend_from_slice(&request.body);
        let length = bytes.len();
        match &request.method[..] {
            "GET" => Answer { status: 204, ..accepted(name, id, length) },
            "PATCH" => accepted(name, id, length),
            _ => {
                let wanted = field(query, "digest").unwrap().replace("%3A", ":");
                if digest(bytes) != wanted {
                    let error = r#"{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}"#;
                    return Answer::new(400, error);
                }
                let bytes = self.uploads.remove(id).unwrap();
                self.repositories.entry(name.to_owned()).or_default().blobs.insert(wanted.clone(), bytes);
                Answer::new(201, "").with("Location", format!("/v2/{name}/blobs/{wanted}"))
            }
        }
    }

    fn manifest(&mut self, name: &str, reference: &str, request: &Request) -> Answer {
        let repository = self.repositories.entry(name.to_owned()).or_default();
        if request.method != "PUT" {
            return match repository.manifests.get(reference) {
                Some((kind, bytes)) => Answer::new(200, bytes.clone())
                    .with("Content-Type", kind.clone())
                    .with("Docker-Content-Digest", digest(bytes)),
                None => Answer::new(404, ""),
            };
        }
        let (kind, bytes) = (request.header("content-type").unwrap().to_owned(), request.body.clone());
        let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        // An index has neither.
        let blobs = document["layers"].as_array().into_iter().flatten().chain(document.get("config"));
        if blobs.into_iter().any(|blob| !repository.blobs.contains_key(blob["digest"].as_str().unwrap())) {
            let error = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#;
            return Answer::new(400, error);
        }
        let own = digest(&bytes);
        for name in [reference.to_owned(), own.clone()] {
            repository.manifests.insert(name, (kind.clone(), bytes.clone()));
        }
        Answer::new(201, "").with("Docker-Content-Digest", own)
    }
}

/// A field of a query.
fn field<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

/// What says where an upload goes on.
fn accepted(name: &str, id: &str, length: usize) -> Answer {
    let answer = Answer::new(202, "").with("Location", format!("/v2/{name}/blobs/uploads/{id}?state=x"));
    answer.with("Range", format!("0-{}", length.saturating_sub(1)))
}
