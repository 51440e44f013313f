//! The API over a real unix socket, with a real engine that has no containers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod http;

use std::io::Write;
use std::os::unix::net::UnixStream;

use http::Api;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What dockerd says without a cluster.
const NO_MANAGER: &str = r#"{"message":"This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."}"#;

/// Requests, and how their answers begin and end. Each sentence is what dockerd 28.5 answers.
const TABLE: &[(&str, &str, u16, &str)] = &[
    ("GET /_ping", "", 200, "OK"),
    ("GET /v1.24/_ping", "", 200, "OK"),
    ("HEAD /_ping", "", 200, ""),
    ("HEAD /version", "", 404, ""),
    ("OPTIONS /anything", "", 200, ""),
    ("GET /nothing", "", 404, r#"{"message":"page not found"}"#),
    ("PUT /version", "", 404, r#"{"message":"page not found"}"#),
    ("GET /plugins", "", 200, "[]"),
    ("GET /plugins/x/json", "", 404, r#"{"message":"plugin \"x\" not found"}"#),
    ("GET /plugins/x", "", 404, r#"{"message":"page not found"}"#),
    ("DELETE /plugins/x", "", 404, r#"{"message":"plugin \"x\" not found"}"#),
    ("POST /plugins/x/enable", "", 500, r#"{"message":"strconv.Atoi: parsing \"\": invalid syntax"}"#),
    ("POST /plugins/x/enable?timeout=0", "", 404, r#"{"message":"plugin \"x\" not found"}"#),
    ("POST /plugins/x/disable", "", 404, r#"{"message":"plugin \"x\" not found"}"#),
    ("POST /plugins/x/push", "", 404, r#"{"message":"plugin \"x\" not found"}"#),
    ("POST /plugins/x/set", "[]", 404, r#"{"message":"plugin \"x\" not found"}"#),
    ("POST /plugins/x/upgrade?remote=y", "", 404, r#"{"message":"plugin \"x:latest\" not found"}"#),
    ("POST /plugins/create?name=x", "", 501, r#"{"message":"plugins are not supported yet"}"#),
    ("OPTIONS *", "", 200, ""),
    ("GET /swarm", "", 503, NO_MANAGER),
    ("GET /services", "", 503, NO_MANAGER),
    ("DELETE /nodes/x", "", 503, NO_MANAGER),
    ("GET /tasks/x", "", 503, NO_MANAGER),
    ("POST /secrets/create", "{}", 503, NO_MANAGER),
    ("POST /configs/x/update?version=1", "{}", 503, NO_MANAGER),
    ("POST /session", "", 400, r#"{"message":"no upgrade proto in request"}"#),
    (
        "GET /v1.99/info",
        "",
        400,
        r#"{"message":"client version 1.99 is too new. Maximum supported API version is 1.51"}"#,
    ),
    (
        "GET /v1.12/info",
        "",
        400,
        "client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
    ),
    (
        "GET /v1./info",
        "",
        400,
        "client version 1. is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
    ),
    (
        "GET /v99999999999999.1/info",
        "",
        400,
        r#"{"message":"client version 99999999999999.1 is too new. Maximum supported API version is 1.51"}"#,
    ),
    ("GET /containers//json", "", 301, ""),
    ("GET /containers/%2e%2e/json", "", 301, ""),
    ("GET /containers/json?filters=null", "", 200, "[]"),
    ("GET /containers/json", "", 200, "[]"),
    ("GET /containers/json?limit=abc", "", 500, r#"{"message":"strconv.Atoi: parsing \"abc\": invalid syntax"}"#),
    ("GET /containers/json?filters=abc", "", 400, r#"{"message":"invalid filter"}"#),
    ("GET /containers/json?filters=%7B%22foo%22:%5B%22x%22%5D%7D", "", 400, r#"{"message":"invalid filter 'foo'"}"#),
    ("GET /containers/json?a=%zz", "", 400, r#"{"message":"invalid URL escape \"%zz\""}"#),
    ("GET /containers/json?a=1;b=2", "", 400, r#"{"message":"invalid semicolon separator in query"}"#),
    ("GET /containers/nope/json", "", 404, r#"{"message":"No such container: nope"}"#),
    ("GET /containers/nope/logs", "", 400, r#"{"message":"Bad parameters: you must choose at least one stream"}"#),
    ("GET /containers/nope/logs?stdout=1", "", 404, r#"{"message":"No such container: nope"}"#),
    ("POST /containers/nope/start", "", 404, r#"{"message":"No such container: nope"}"#),
    ("POST /containers/nope/stop?t=abc", "", 500, r#"{"message":"strconv.Atoi: parsing \"abc\": invalid syntax"}"#),
    ("POST /containers/nope/kill", "", 404, r#"{"message":"cannot kill container: nope: No such container: nope"}"#),
    ("POST /containers/nope/wait?condition=foo", "", 400, r#"{"message":"invalid condition: \"foo\""}"#),
    ("POST /containers/nope/wait", "", 404, r#"{"message":"No such container: nope"}"#),
    ("POST /containers/nope/resize?h=a&w=1", "", 400, r#"{"message":"invalid resize height \"a\": invalid syntax"}"#),
    ("POST /containers/nope/attach?stream=1", "", 404, "No such container: nope\r"),
    ("DELETE /containers/nope", "", 404, r#"{"message":"No such container: nope"}"#),
    ("POST /containers/create", "", 400, r#"{"message":"invalid JSON: got EOF while reading request body"}"#),
    ("POST /containers/create", "{", 400, r#"{"message":"invalid JSON: unexpected EOF"}"#),
    ("POST /containers/create", "{}{}", 400, r#"{"message":"unexpected content after JSON"}"#),
    ("POST /containers/create", "{}", 400, r#"{"message":"config cannot be empty in order to create a container"}"#),
    ("POST /containers/create", "null", 400, r#"{"message":"config cannot be empty in order to create a container"}"#),
    (
        "POST /containers/create",
        r#"{"HostConfig":{"Memory":1}}"#,
        400,
        r#"{"message":"config cannot be empty in order to create a container"}"#,
    ),
    ("POST /containers/create", r#"{"Image":""}"#, 400, r#"{"message":"no command specified"}"#),
    ("POST /containers/create", r#"{"Image":"nope"}"#, 404, r#"{"message":"No such image: nope:latest"}"#),
    (
        "POST /containers/x/start",
        r#"{"Binds":["/a"]}"#,
        400,
        r#"{"message":"starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"}"#,
    ),
    ("POST /containers/x/start?checkpoint=a", "", 404, r#"{"message":"No such container: x"}"#),
    (
        "POST /containers/create?platform=foo",
        r#"{"Image":"nope"}"#,
        400,
        r#"{"message":"\"foo\": unknown operating system or architecture: invalid argument"}"#,
    ),
    ("POST /containers/x/exec", "{}", 400, r#"{"message":"No exec command specified"}"#),
    ("POST /exec/nope/start", "{", 400, r#"{"message":"invalid JSON: unexpected EOF"}"#),
    ("POST /exec/nope/start", "{}", 404, r#"{"message":"No such exec instance: nope"}"#),
    ("GET /exec/nope/json", "", 404, r#"{"message":"No such exec instance: nope"}"#),
    ("POST /exec/nope/resize?h=1&w=1", "", 404, r#"{"message":"No such exec instance: nope"}"#),
    ("GET /images/json", "", 200, "[]"),
    ("GET /images/json?filters=abc", "", 400, r#"{"message":"invalid filter"}"#),
    ("GET /images/nope/json", "", 404, r#"{"message":"No such image: nope:latest"}"#),
    ("POST /images/nope/tag", "", 200, ""),
    ("POST /images/nope/tag?repo=a", "", 404, r#"{"message":"No such image: nope:latest"}"#),
    ("DELETE /images/%20", "", 400, r#"{"message":"image name cannot be blank"}"#),
    (
        "GET /events?since=200&until=100",
        "",
        400,
        r#"{"message":"`since` time (200) cannot be after `until` time (100)"}"#,
    ),
    ("GET /events?since=abc", "", 500, r#"{"message":"strconv.ParseInt: parsing \"abc\": invalid syntax"}"#),
    ("GET /events?since=1&until=2", "", 200, ""),
    ("POST /build", "", 500, r#"{"message":"Cannot locate specified Dockerfile: Dockerfile"}"#),
    ("POST /networks/create", "{}", 400, r#"{"message":"invalid name: name is empty"}"#),
    (
        "POST /images/create?fromImage=A&tag=1",
        "",
        400,
        r#"{"message":"invalid reference format: repository name (library/A) must be lowercase"}"#,
    ),
];

#[tokio::test]
async fn privileged_statuses_and_sentences() {
    let api = Api::start().await;
    for (request, body, status, wanted) in TABLE {
        let answer = api.ask(request, body).await;
        assert_eq!((answer.status, answer.body.trim_end_matches('\n')), (*status, *wanted), "{request} {body}");
        // Go's own answers say nothing of us.
        let of_go =
            *status == 301 || wanted.contains("page not found") || matches!(*request, "HEAD /version" | "OPTIONS *");
        for header in ["Api-Version: 1.51", "Ostype: linux", "Docker-Experimental: false", "Server: Longshore/"] {
            let found = answer.head.to_lowercase().contains(&header.to_lowercase());
            assert_eq!(found, !of_go, "{header} for {request}: {}", answer.head);
        }
    }
}

#[tokio::test]
async fn privileged_content_types_must_be_json() {
    let api = Api::start().await;
    let request = "POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}";
    let answer = api.raw(request.as_bytes()).await;
    assert!(
        answer
            .ends_with("{\"message\":\"unsupported Content-Type header (text/plain): must be 'application/json'\"}\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn privileged_pipelined_requests_are_answered_in_order() {
    let api = Api::start().await;
    let requests = "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n\
                    POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
                    1\r\n{\r\n1\r\n}\r\n0\r\n\r\n\
                    HEAD /_ping HTTP/1.1\r\nHost: d\r\n\r\n\
                    GET /nothing HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
    let answers = api.raw(requests.as_bytes()).await;
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "400", "200", "404"], "{answers}");
}

#[tokio::test]
async fn privileged_what_go_refuses_is_refused_on_any_request() {
    let api = Api::start().await;
    for (request, status, body) in [
        ("GET /_ping HTTP/1.1\r\n\r\n", "400 Bad Request: missing required Host header", None),
        ("GET /_ping HTTP/1.1\r\nHost: a b\r\n\r\n", "400 Bad Request: malformed Host header", None),
        ("GET /_ping HTTP/1.1\r\nHost: d\r\nExpect: x\r\n\r\n", "417 Expectation Failed", Some("")),
        ("GET /%zz HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n", "400 Bad Request", None),
    ] {
        for before in ["", "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"] {
            let answers = api.raw(format!("{before}{request}").as_bytes()).await;
            let last = answers.rsplit_once("HTTP/1.1 ").unwrap().1;
            assert!(last.starts_with(&format!("{status}\r\n")), "{request}: {last}");
            assert!(last.ends_with(&format!("\r\n\r\n{}", body.unwrap_or(status))), "{request}: {last}");
        }
    }
    let chunks = "POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\n\
                  Transfer-Encoding: chunked\r\n\r\nzz\r\n";
    let answer = api.raw(chunks.as_bytes()).await;
    assert!(answer.ends_with("{\"message\":\"invalid JSON: invalid byte in chunk length\"}\n"), "{answer}");
}

#[tokio::test]
async fn privileged_oversized_heads_are_refused_on_any_request() {
    let api = Api::start().await;
    let long = format!("GET /_ping HTTP/1.1\r\nHost: d\r\nX: {}\r\n\r\n", "a".repeat(2 << 20));
    assert!(api.raw(long.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let second = format!("GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n{long}");
    assert!(api.raw(second.as_bytes()).await.contains("HTTP/1.1 431 "));
}

#[tokio::test]
async fn privileged_large_bodies_are_refused() {
    let api = Api::start().await;
    let head = "POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let request = format!("{head}Content-Length: 5000000\r\n\r\n\"{}\"", "a".repeat(4_999_998));
    let answer = api.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

/// Requests whose large bodies nobody reads to the end, and what their answers contain.
const UNREAD: &[(&str, u16, &str)] = &[
    ("POST /images/create?fromSrc=-", 200, "errorDetail"),
    ("POST /images/create?fromSrc=-&changes=FROM", 400, "FROM is not a valid change command"),
    ("PUT /containers/nope/archive?path=/", 404, "No such container: nope"),
    ("POST /images/create?fromImage=A", 400, "invalid reference format"),
    ("POST /build", 500, "archive/tar: invalid tar header"),
    ("POST /nothing", 404, "page not found"),
    ("POST /v1.99/build", 400, "client version 1.99 is too new"),
    ("POST /containers/create", 413, "request body is larger than"),
    ("POST /images/load", 200, "errorDetail"),
    ("POST /exec/nope/start", 413, "request body is larger than"),
];

const PING: &str = "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n";

#[tokio::test]
async fn privileged_answers_reach_clients_that_still_send() {
    let api = Api::start().await;
    for (request, status, sentence) in UNREAD {
        for before in ["", PING] {
            let head = format!("{before}{request} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n");
            api.answers_before_it_reads(&format!("{head}Content-Length: {}\r\n\r\n", 8 << 20), *status, sentence).await;
        }
    }
}

#[tokio::test]
async fn privileged_refused_hijacks_reach_clients_that_still_send() {
    let api = Api::start().await;
    let head = "POST /containers/nope/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\n";
    let length = format!("Content-Length: {}\r\n", 8 << 20);
    // The first of a connection has its body read, a later one is hyper's.
    api.answers_before_it_reads(&format!("{head}{length}\r\n"), 413, "request body is larger than").await;
    api.answers_before_it_reads(&format!("{PING}{head}{length}\r\n"), 404, "No such container: nope").await;
    // The input of the container comes with the request.
    api.answers_before_it_reads(&format!("{head}\r\n"), 404, "No such container: nope").await;
}

#[tokio::test]
async fn privileged_broken_archives_are_told_in_the_stream() {
    let api = Api::start().await;
    let answer =
        api.raw(b"POST /images/load HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("{\"errorDetail\":{\"message\":\""), "{answer}");
}

#[tokio::test]
async fn privileged_connections_are_counted_and_closed() {
    let api = Api::start().await;
    let mut connections = api.server.watch_connections();
    // Events never end by themselves.
    let mut events = UnixStream::connect(api.socket()).unwrap();
    events.write_all(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    let idle = UnixStream::connect(api.socket()).unwrap();
    connections.wait_for(|&count| count == 2).await.unwrap();
    drop(idle);
    connections.wait_for(|&count| count == 1).await.unwrap();
    tokio::time::timeout(http::DEADLINE, api.server.close(http::DEADLINE * 2)).await.unwrap();
    assert_eq!(api.server.connections(), 0);
}

#[tokio::test]
async fn privileged_each_request_of_a_client_that_stays_is_told() {
    let api = Api::start().await;
    let mut activity = api.server.watch_activity();
    let mut client = tokio::net::UnixStream::connect(api.socket()).await.unwrap();
    let changed = async |activity: &mut tokio::sync::watch::Receiver<()>| {
        tokio::time::timeout(http::DEADLINE, activity.changed()).await.expect("a change").unwrap();
    };
    changed(&mut activity).await;
    for _ in 0..3 {
        activity.mark_unchanged();
        client.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await.unwrap();
        changed(&mut activity).await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nOK") {
            assert!(client.read_buf(&mut answer).await.unwrap() > 0, "{answer:?}");
        }
    }
    // A stream is one request, from its begin to its end.
    client.write_all(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n").await.unwrap();
    changed(&mut activity).await;
    activity.mark_unchanged();
    drop(client);
    changed(&mut activity).await;
}

#[tokio::test]
async fn privileged_a_client_that_leaves_ends_its_stream() {
    let api = Api::start().await;
    let mut connections = api.server.watch_connections();
    let mut events = UnixStream::connect(api.socket()).unwrap();
    events.write_all(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    connections.wait_for(|&count| count == 1).await.unwrap();
    drop(events);
    tokio::time::timeout(http::DEADLINE, connections.wait_for(|&count| count == 0)).await.unwrap().unwrap();
}
