//! The client against a server that says exactly what each test wants to hear.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails by panicking, as a test does")]

use std::io;

use client::call::{Payload, Upload};
use client::container::{self, AttachOptions};
use client::image::{self, PullOptions};
use client::{Client, ClientError, Endpoint, Options};
use engine_api::auth::AuthConfig;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// A client, and the listener that it connects to.
struct Scene {
    client: Client,
    listener: UnixListener,
    _dir: tempfile::TempDir,
}

fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    Scene { client: Client::new(Endpoint::Unix(path), Options::default()), listener, _dir: dir }
}

/// Reads one request up to the end of its head and of a body of known length; returns its first line and its body.
async fn request(stream: &mut UnixStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the request ends early");
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    while bytes.len() < head_end + length.unwrap_or(0) {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the body ends early");
    }
    (head.lines().next().unwrap_or("").to_owned(), bytes.split_off(head_end))
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn requests_share_a_connection_and_learn_the_version() {
    let Scene { client, listener, _dir } = scene();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut lines = Vec::new();
        let too_new = r#"{"message":"client version 1.51 is too new. Maximum supported API version is 1.47"}"#;
        for (status, body) in [("400 Bad Request", too_new), ("204 No Content", ""), ("304 Not Modified", "")] {
            lines.push(request(&mut stream).await.0);
            stream.write_all(answer(status, body).as_bytes()).await.unwrap();
        }
        lines
    };
    let calls = async {
        container::start(&client, "a b").await.unwrap();
        container::stop(&client, "c", "", Some(3)).await.unwrap();
    };
    let (lines, ()) = tokio::join!(server, calls);
    assert_eq!(
        lines,
        [
            "POST /v1.51/containers/a%20b/start HTTP/1.1",
            "POST /v1.47/containers/a%20b/start HTTP/1.1",
            "POST /v1.47/containers/c/stop?t=3 HTTP/1.1"
        ]
    );
}

#[tokio::test]
async fn a_refusal_is_the_daemons_sentence() {
    let Scene { client, listener, _dir } = scene();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        let body = answer("404 Not Found", "{\"message\":\"No such container: a\"}");
        stream.write_all(body.as_bytes()).await.unwrap();
    };
    let ((), outcome) = tokio::join!(server, container::inspect(&client, "a"));
    let err = outcome.unwrap_err();
    assert!(err.is_not_found());
    assert_eq!(err.to_string(), "Error response from daemon: No such container: a");
}

#[tokio::test]
async fn a_pull_shows_the_registry_who_we_are() {
    let Scene { client, listener, _dir } = scene();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the request ends early");
        }
        stream.write_all(answer("200 OK", "{}").as_bytes()).await.unwrap();
        String::from_utf8(bytes).unwrap()
    };
    let auth = AuthConfig { username: "u".to_owned(), ..AuthConfig::default() };
    let platform = "LINUX/Arm64".to_owned();
    let options = PullOptions { repository: "a:1/b".to_owned(), tag: String::new(), platform, auth };
    let (head, pulled) = tokio::join!(server, image::pull(&client, &options));
    assert_eq!(&*pulled.unwrap().rest().await.unwrap(), b"{}");
    assert!(head.starts_with("POST /v1.51/images/create?fromImage=a:1/b&platform=linux/arm64 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nx-registry-auth: eyJ1c2VybmFtZSI6InUifQ==\r\n"), "{head}");
}

#[tokio::test]
async fn both_answers_to_a_hijack_are_taken() {
    for head in ["HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
        let Scene { client, listener, _dir } = scene();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (line, _) = request(&mut stream).await;
            stream.write_all(format!("{head}early ").as_bytes()).await.unwrap();
            let mut input = Vec::new();
            stream.read_to_end(&mut input).await.unwrap();
            stream.write_all(b"late").await.unwrap();
            (line, input)
        };
        let session = async {
            let options = AttachOptions { stdin: true, stdout: true, ..AttachOptions::default() };
            let mut hijacked = container::attach(&client, "c", &options).await.unwrap();
            hijacked.writer.write_all(b"input").await.unwrap();
            hijacked.writer.shutdown().await.unwrap();
            let mut output = String::new();
            hijacked.reader.read_to_string(&mut output).await.unwrap();
            output
        };
        let ((line, input), output) = tokio::join!(server, session);
        assert_eq!(line, "POST /v1.51/containers/c/attach?stdin=1&stdout=1&stream=1 HTTP/1.1");
        assert_eq!((input.as_slice(), output.as_str()), (&b"input"[..], "early late"));
    }
}

#[tokio::test]
async fn a_refused_hijack_reads_its_body() {
    for body in [
        "Content-Length: 15\r\n\r\n{\"message\":\"x\"}".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\nf\r\n{\"message\":\"x\"}\r\n0\r\n\r\n".to_owned(),
    ] {
        let Scene { client, listener, _dir } = scene();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            stream.write_all(format!("HTTP/1.1 409 Conflict\r\n{body}").as_bytes()).await.unwrap();
            // Open until the client has gone: it must not wait for the end.
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        };
        let options = AttachOptions::default();
        let ((), outcome) = tokio::join!(server, container::attach(&client, "c", &options));
        assert!(matches!(outcome, Err(ClientError::Api { status: 409, message }) if message == "x"));
    }
}

#[tokio::test]
async fn an_upload_is_answered_before_its_end() {
    let Scene { client, listener, _dir } = scene();
    let (sender, pieces) = mpsc::channel::<io::Result<_>>(4);
    sender.send(Ok("piece".into())).await.unwrap();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (line, _) = request(&mut stream).await;
        stream.write_all(answer("200 OK", "{\"stream\":\"Loaded\"}").as_bytes()).await.unwrap();
        line
    };
    let upload = async {
        let payload = Payload::Archive(Upload { pieces });
        let mut answer = client.stream(Method::POST, "/images/load", payload).await.unwrap();
        answer.rest().await.unwrap()
    };
    let (line, body) = tokio::join!(server, upload);
    assert_eq!((line.as_str(), &body[..]), ("POST /v1.51/images/load HTTP/1.1", &b"{\"stream\":\"Loaded\"}"[..]));
}

#[tokio::test]
async fn nobody_there_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let client = Client::new(Endpoint::Unix(path.clone()), Options::default());
    let err = container::start(&client, "a").await.unwrap_err();
    let sentence =
        format!("Cannot connect to the Longshore daemon at unix://{}. Is the daemon running?", path.display());
    assert!(err.to_string().starts_with(&sentence), "{err}");
}

#[tokio::test]
async fn why_another_host_cannot_be_reached_is_said() {
    let check = async |host: &str, sentence: &str| {
        let client = Client::new(host.parse().unwrap(), Options::default());
        let err = container::start(&client, "a").await.unwrap_err();
        let source = std::error::Error::source(&err).map(|err| err.to_string()).unwrap_or_default();
        let found = format!("{err}: {source}");
        assert!(found.starts_with(sentence), "{host}: {found}");
        assert!(!found.contains("longshored"), "{host}: {found}");
    };
    check("tcp://nope:99999", "error during connect: tcp://nope:99999: dial tcp: address 99999: invalid port").await;
    // A label of 64 letters is a name that no resolver asks for.
    let long = "a".repeat(64);
    check(&format!("tcp://{long}:1"), &format!("error during connect: tcp://{long}:1: dial tcp: lookup {long}: "))
        .await;
    // Whose port it is not any more, once the listener is gone.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let sentence = format!("Cannot connect to the Longshore daemon at tcp://{gone}. Is the daemon running?: ");
    check(&format!("tcp://{gone}"), &sentence).await;
}
