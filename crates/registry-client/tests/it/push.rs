//! Uploads to a registry in memory that cuts, stalls, refuses and lies.

use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use content::Blob;
use registry_client::{Registry, RegistryError, Settings, Source, Upload, UploadProgress};
use testkit::registry::{Answer, Received, Request, Server, Take};

use super::{digest, impatient, reference, settings};
use registry_client::Credentials;

/// Bytes that can be had from anywhere, and how often they were asked for.
struct Bytes(Vec<u8>);

impl Source for Bytes {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.0[from as usize..].to_vec())))
    }

    fn progress(&self, sent: u64) -> (u64, u64) {
        (sent, self.0.len() as u64)
    }
}

fn layer(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

/// An upload of these bytes, whose digest is known beforehand or not.
fn upload(bytes: &[u8], known: bool) -> Upload {
    let blob = known.then(|| Blob { digest: digest(bytes), size: bytes.len() as u64 });
    Upload { blob, mounts: Vec::new(), source: Arc::new(Bytes(bytes.to_vec())) }
}

/// What is said of an upload, without the numbers.
async fn send(server: &Server, settings: Settings, upload: &Upload) -> (Result<Blob, RegistryError>, Vec<String>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let tell = move |progress: UploadProgress| {
        let word = match progress {
            UploadProgress::Sending { .. } => return,
            UploadProgress::Retrying { .. } => return,
            other => format!("{other:?}"),
        };
        heard.lock().unwrap().push(word);
    };
    let session =
        Registry::new(settings).push_session(&reference(&server.host(), "r"), Credentials::Anonymous).await.unwrap();
    let sent = session.upload(upload, Arc::new(tell)).await;
    let told = told.lock().unwrap().clone();
    (sent, told)
}

/// A registry that is as good as any, but for how it takes requests and what `lie` answers to them.
fn registry(
    take: impl Fn(&Request) -> Take + Send + Sync + 'static,
    lie: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
) -> (Server, Arc<Received>) {
    let received = Arc::new(Received::default());
    let state = received.clone();
    let server = Server::start_taking(take, move |request| lie(request).unwrap_or_else(|| state.answer(request)));
    (server, received)
}

fn patient() -> Settings {
    Settings { timing: registry_client::Timing { idle: Duration::from_secs(10), ..settings().timing }, ..settings() }
}

#[tokio::test]
async fn a_blob_is_sent_once_and_found_the_next_time() {
    let (server, received) = registry(|_| Take::All, |_| None);
    let bytes = layer(700_000);
    for known in [true, false] {
        let blob = Blob { digest: digest(&bytes), size: bytes.len() as u64 };
        let (sent, told) = send(&server, settings(), &upload(&bytes, known)).await;
        assert_eq!((sent.unwrap(), told), (blob, vec!["Sent".to_owned()]));
    }
    assert_eq!(received.repository("r").blobs[digest(&bytes).as_str()], bytes);
    let before = server.requests("uploads").len();
    let (_, told) = send(&server, settings(), &upload(&bytes, true)).await;
    assert_eq!((told, server.requests("uploads").len()), (vec!["Exists".to_owned()], before));
}

#[tokio::test]
async fn a_blob_of_another_repository_is_mounted() {
    let (server, received) = registry(|_| Take::All, |_| None);
    let bytes = layer(9000);
    send(&server, settings(), &upload(&bytes, true)).await.0.unwrap();
    let session = Registry::new(settings())
        .push_session(&reference(&server.host(), "other"), Credentials::Anonymous)
        .await
        .unwrap();
    let mounts = [reference(&server.host(), "nothing"), reference(&server.host(), "r")];
    for (mounts, patches) in [(mounts[1..].to_vec(), 1), (mounts[..1].to_vec(), 1)] {
        session.upload(&Upload { mounts, ..upload(&bytes, true) }, Arc::new(|_| {})).await.unwrap();
        let sent = server.requests("uploads").iter().filter(|request| request.method == "PATCH").count();
        assert_eq!(sent, patches);
    }
    assert_eq!(received.repository("other").blobs.len(), 1);
    let third = Registry::new(settings())
        .push_session(&reference(&server.host(), "third"), Credentials::Anonymous)
        .await
        .unwrap();
    let mounts = vec![reference(&server.host(), "nothing")];
    third.upload(&Upload { mounts, ..upload(&bytes, true) }, Arc::new(|_| {})).await.unwrap();
    assert_eq!(received.repository("third").blobs[digest(&bytes).as_str()], bytes, "what cannot be mounted is sent");
}

#[tokio::test]
async fn a_cut_upload_goes_on_where_it_ended() {
    const EVERY: usize = 200_000;
    for known in [true, false] {
        let take = |request: &Request| match &request.method[..] {
            // What has a length is cut until what is left is less.
            "PATCH"
                if request.header("content-length").is_none_or(|length| length.parse::<usize>().unwrap() > EVERY) =>
            {
                Take::Cut(EVERY)
            }
            _ => Take::All,
        };
        let cuts = AtomicUsize::new(0);
        let take = move |request: &Request| match (known, take(request)) {
            // Chunks have none: three cuts are enough.
            (false, Take::Cut(bytes)) if cuts.fetch_add(1, Ordering::Relaxed) < 3 => Take::Cut(bytes),
            (false, _) => Take::All,
            (_, take) => take,
        };
        let (server, received) = registry(take, |_| None);
        let bytes = layer(1_500_000);
        let (sent, told) = send(&server, patient(), &upload(&bytes, known)).await;
        assert_eq!(sent.unwrap().digest, digest(&bytes));
        assert_eq!(told, ["Sent"]);
        assert_eq!(received.repository("r").blobs[digest(&bytes).as_str()], bytes);
        let begun = server.requests("uploads").iter().filter(|request| request.method == "POST").count();
        assert_eq!(begun, 1, "resumed, not begun anew");
    }
}

#[tokio::test]
async fn where_a_registry_forgets_cut_uploads_they_begin_anew() {
    let cuts = AtomicUsize::new(0);
    let take = move |request: &Request| match request.method == "PATCH" && cuts.fetch_add(1, Ordering::Relaxed) < 2 {
        true => Take::Cut(100_000),
        false => Take::All,
    };
    let forgotten =
        |request: &Request| (request.method == "GET" && request.path.contains("uploads")).then(|| Answer::new(404, ""));
    let (server, received) = registry(take, forgotten);
    let bytes = layer(300_000);
    send(&server, patient(), &upload(&bytes, true)).await.0.unwrap();
    assert_eq!(received.repository("r").blobs[digest(&bytes).as_str()], bytes);
    let begun = server.requests("uploads").iter().filter(|request| request.method == "POST").count();
    assert_eq!(begun, 3);
}

#[tokio::test]
async fn what_a_registry_kept_wrongly_is_sent_anew() {
    let cuts = AtomicUsize::new(0);
    let take = move |request: &Request| match request.method == "PATCH" && cuts.fetch_add(1, Ordering::Relaxed) < 1 {
        true => Take::Cut(100_000),
        false => Take::All,
    };
    // It says that it has more than it has, and takes what comes behind.
    let lies = AtomicUsize::new(0);
    let lie = move |request: &Request| {
        let asks =
            request.method == "GET" && request.path.contains("uploads") && lies.fetch_add(1, Ordering::Relaxed) < 1;
        asks.then(|| Answer::new(204, "").with("Location", request.path.clone()).with("Range", "0-149999"))
    };
    let (server, received) = registry(take, lie);
    let bytes = layer(300_000);
    let (sent, _) = send(&server, patient(), &upload(&bytes, true)).await;
    sent.unwrap();
    assert_eq!(received.repository("r").blobs[digest(&bytes).as_str()], bytes);
}

/// A request to begin an upload is answered so.
async fn refused(answer: impl Fn() -> Answer + Send + Sync + 'static) -> (String, usize) {
    let lie = move |request: &Request| (request.method == "POST").then(&answer);
    let (server, _) = registry(|_| Take::All, lie);
    let (sent, told) = send(&server, settings(), &upload(&layer(10), true)).await;
    assert_eq!(told, [""; 0]);
    let posts = server.requests("uploads").iter().filter(|request| request.method == "POST").count();
    (errdefs::chain(&sent.unwrap_err()), posts)
}

#[tokio::test]
async fn refusals_are_told_and_outages_are_sat_out() {
    let denied = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    assert_eq!(refused(move || Answer::new(403, denied)).await, ("denied".to_owned(), 1));
    let (said, posts) = refused(|| Answer::new(503, "")).await;
    assert_eq!((&said[..], posts), ("received unexpected HTTP status: 503 Service Unavailable", 5));
    let busy = || Answer::new(429, r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#).with("Retry-After", "3600");
    assert_eq!(refused(busy).await.1, 1, "nobody waits for an hour");
    let busy = || Answer::new(429, r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#).with("Retry-After", "0");
    assert_eq!(refused(busy).await.1, 5);
    let (said, _) = refused(|| Answer::new(202, "")).await;
    assert_eq!(said, "the registry does not say where the upload goes");
}

#[tokio::test]
async fn a_registry_that_has_too_much_to_do_gets_the_bytes_later() {
    for method in ["PATCH", "PUT"] {
        let refused = AtomicUsize::new(0);
        let lie = move |request: &Request| {
            let busy = request.method == method && refused.fetch_add(1, Ordering::Relaxed) < 2;
            busy.then(|| Answer::new(429, r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#).with("Retry-After", "0"))
        };
        let (server, received) = registry(|_| Take::All, lie);
        let bytes = layer(300_000);
        let (sent, _) = send(&server, patient(), &upload(&bytes, true)).await;
        sent.unwrap_or_else(|err| panic!("{method}: {}", errdefs::chain(&err)));
        assert_eq!(received.repository("r").blobs[digest(&bytes).as_str()], bytes, "{method}");
    }
}

#[tokio::test]
async fn a_registry_that_reads_nothing_is_given_up() {
    let take = |request: &Request| if request.method == "PATCH" { Take::Nothing } else { Take::All };
    let (server, _) = registry(take, |_| None);
    let bytes = layer(30_000_000);
    let (sent, _) = send(&server, impatient(), &upload(&bytes, true)).await;
    let said = errdefs::chain(&sent.unwrap_err());
    assert!(said.starts_with("Patch \"http://127.0.0.1:") && said.ends_with("timeout reading the body"), "{said}");
}

#[tokio::test]
async fn credentials_are_not_shown_to_another_host_that_takes_the_upload() {
    let received = Arc::new(Received::default());
    let elsewhere = {
        let received = received.clone();
        Server::start(move |request| received.answer(request))
    };
    let host = elsewhere.host();
    let state = received.clone();
    let server = Server::start(move |request| {
        if request.header("authorization") != Some("Basic bWU6c2VjcmV0") {
            return Answer::new(401, "{}").with("WWW-Authenticate", "Basic realm=\"r\"");
        }
        let mut answer = state.answer(request);
        for (name, value) in &mut answer.headers {
            if name == "Location" {
                *value = format!("http://{host}{value}");
            }
        }
        answer
    });
    let me = Credentials::Basic { username: "me".into(), password: "secret".into() };
    let session = Registry::new(settings()).push_session(&reference(&server.host(), "r"), me).await.unwrap();
    let bytes = layer(1000);
    session.upload(&upload(&bytes, true), Arc::new(|_| {})).await.unwrap();
    let there = elsewhere.requests("uploads");
    assert_eq!(there.iter().map(|request| &request.method[..]).collect::<Vec<_>>(), ["PATCH", "PUT"]);
    assert!(there.iter().all(|request| request.header("authorization").is_none()), "{there:?}");
}

#[tokio::test]
async fn a_manifest_must_be_stored_as_it_is() {
    let session = async |lie: fn(&Request) -> Option<Answer>| {
        let (server, _) = registry(|_| Take::All, lie);
        let name = reference(&server.host(), "r");
        let session = Registry::new(settings()).push_session(&name, Credentials::Anonymous).await.unwrap();
        let put = session.put_manifest("1", "application/x", b"{\"layers\":[],\"config\":{\"digest\":\"x\"}}").await;
        put.map_err(|err| errdefs::chain(&err))
    };
    let other = |request: &Request| {
        let zeros = format!("sha256:{:064}", 0);
        (request.method == "PUT").then(|| Answer::new(201, "").with("Docker-Content-Digest", zeros))
    };
    assert!(session(other).await.unwrap_err().starts_with("manifest verification failed for digest sha256:"));
    assert_eq!(session(|_| None).await.unwrap_err(), "manifest blob unknown: blob unknown to registry");
}

#[tokio::test]
async fn a_refusal_that_comes_before_the_bytes_are_read_is_told() {
    let take = |request: &Request| if request.method == "PATCH" { Take::Cut(0) } else { Take::All };
    let (server, _) = registry(take, |_| None);
    let (sent, _) = send(&server, settings(), &upload(&layer(30_000_000), true)).await;
    assert!(sent.is_err());
    let early = |request: &Request| if request.method == "PATCH" { Take::Early } else { Take::All };
    let denied = r#"{"errors":[{"code":"DENIED","message":"too much"}]}"#;
    let lie = move |request: &Request| (request.method == "PATCH").then(|| Answer::new(403, denied));
    let (server, _) = registry(early, lie);
    let (sent, _) = send(&server, settings(), &upload(&layer(30_000_000), true)).await;
    assert_eq!(errdefs::chain(&sent.unwrap_err()), "denied: too much");
}

#[tokio::test]
async fn an_upload_that_was_finished_without_a_word_is_found_and_not_finished_again() {
    for known in [true, false] {
        // It makes a blob of the upload, and hangs up. The connection has been used before.
        let cuts = AtomicUsize::new(0);
        let take = move |request: &Request| match request.method == "PUT" && cuts.fetch_add(1, Ordering::Relaxed) < 1 {
            true => Take::Cut(0),
            false => Take::All,
        };
        let (server, received) = registry(take, |_| None);
        let bytes = layer(300_000);
        let (sent, told) = send(&server, patient(), &upload(&bytes, known)).await;
        assert_eq!((sent.unwrap().digest, told), (digest(&bytes), vec!["Sent".to_owned()]));
        assert_eq!(received.repository("r").blobs[digest(&bytes).as_str()], bytes);
        let count = |method: &str| server.requests("uploads").iter().filter(|one| one.method == method).count();
        assert_eq!((count("PUT"), count("PATCH")), (1, 1), "sent once");
    }
}

/// A registry of before the listing of referrers gets the list under a tag; one that says it lists them itself, does not.
#[tokio::test]
async fn what_refers_to_another_manifest_is_listed_there_once() {
    use testkit::registry::served::MANIFEST;
    let subject = digest(b"image");
    let manifest = |note: &str| {
        serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": note, "layers": [],
            "config": { "mediaType": "c", "digest": digest(b"{}"), "size": 2 },
            "subject": { "mediaType": MANIFEST, "digest": subject, "size": 5 },
        })
        .to_string()
        .into_bytes()
    };
    for lists in [false, true] {
        let received = Arc::new(Received::default());
        let state = received.clone();
        let server = Server::start(move |request| match (lists, state.answer(request)) {
            (true, answer) if request.method == "PUT" => answer.with("OCI-Subject", digest(b"image").to_string()),
            (_, answer) => answer,
        });
        let name = reference(&server.host(), "r");
        let session = Registry::new(settings()).push_session(&name, Credentials::Anonymous).await.unwrap();
        session.upload(&upload(b"{}", true), Arc::new(|_| {})).await.unwrap();
        for note in ["first", "second", "first"] {
            session.put_manifest("1", MANIFEST, &manifest(note)).await.unwrap();
        }
        let there = received.repository("r");
        let list = there.manifests.get(&subject.to_string().replace(':', "-"));
        if lists {
            assert_eq!(list, None);
            continue;
        }
        let list: serde_json::Value = serde_json::from_slice(&list.unwrap().1).unwrap();
        let listed: Vec<_> =
            list["manifests"].as_array().unwrap().iter().map(|one| one["artifactType"].clone()).collect();
        assert_eq!(listed, ["first", "second"]);
        assert_eq!(list["manifests"][0]["digest"], digest(&manifest("first")).to_string());
    }
}

/// A registry of before the listing of referrers that lets nobody write, or read, the list.
#[tokio::test]
async fn what_cannot_be_listed_is_there_all_the_same() {
    use testkit::registry::served::MANIFEST;
    let subject = digest(b"image");
    let list = format!("/manifests/{}", subject.to_string().replace(':', "-"));
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": { "mediaType": "c", "digest": digest(b"{}"), "size": 2 },
        "subject": { "mediaType": MANIFEST, "digest": subject, "size": 5 },
    });
    let manifest = manifest.to_string().into_bytes();
    for refused in ["PUT", "GET"] {
        let of_list = list.clone();
        let lie = move |request: &Request| {
            (request.method == refused && request.path.ends_with(&of_list)).then(|| Answer::new(403, "no"))
        };
        let (server, received) = registry(|_| Take::All, lie);
        let name = reference(&server.host(), "r");
        let session = Registry::new(settings()).push_session(&name, Credentials::Anonymous).await.unwrap();
        session.upload(&upload(b"{}", true), Arc::new(|_| {})).await.unwrap();
        let stored = session.put_manifest("1", MANIFEST, &manifest).await.unwrap();
        assert_eq!(stored.digest, digest(&manifest));
        assert!(errdefs::chain(&stored.unlisted.unwrap()).ends_with("no"));
        assert_eq!(received.repository("r").manifests["1"].1, manifest);
    }
}
