use tokio::io::AsyncRead;
use tokio::net::UnixStream;

use super::*;

#[test]
fn heads_are_parsed_as_far_as_they_have_come() {
    let text = b"POST /exec/x/start?a=b HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\n\r\n{}";
    for length in 0..text.len() - 2 {
        assert!(parse_head(&text[..length]).unwrap().is_none(), "{length}");
    }
    let head = parse_head(text).unwrap().unwrap();
    assert_eq!((head.method, head.uri.path(), head.uri.query()), (Method::POST, "/exec/x/start", Some("a=b")));
    assert!(wants_upgrade(&head.headers));
    assert_eq!(head.length, text.len() - 2);
}

#[test]
fn heads_that_cannot_be_read_are_told_apart() {
    let check = |text: &str| parse_head(text.as_bytes()).err();
    assert_eq!(check("garbage\r\n\r\n"), Some(MALFORMED));
    assert_eq!(check(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000))), Some(TOO_LARGE));
    assert_eq!(check("GET / HTTP/1.1\r\nno colon\r\n\r\n"), Some(MALFORMED));
    assert_eq!(check(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_LIMIT + 1))), Some(TOO_LARGE));
    assert_eq!(check(&format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(HEAD_LIMIT))), Some(TOO_LARGE));
}

/// What a connection that begins with these pieces comes to, and the client's end of it.
async fn opened(pieces: &[&str]) -> (Opening<UnixStream>, UnixStream) {
    let (mut client, server) = UnixStream::pair().unwrap();
    let opening = tokio::spawn(open(server));
    for piece in pieces {
        client.write_all(piece.as_bytes()).await.unwrap();
        // Lets the other side see each piece by itself.
        tokio::task::yield_now().await;
    }
    if pieces.last().is_some_and(|last| last.is_empty()) {
        client.shutdown().await.unwrap();
    }
    (opening.await.unwrap(), client)
}

async fn all_of(mut stream: impl AsyncRead + Unpin) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn other_requests_are_rewound_whole() {
    let request = "GET /info HTTP/1.1\r\nHost: d\r\n\r\nand more";
    let (opening, client) = opened(&[&request[..9], &request[9..], ""]).await;
    let Opening::Http(rewound) = opening else { panic!("not HTTP") };
    assert_eq!(all_of(rewound).await, request);
    drop(client);
}

#[tokio::test]
async fn heads_may_be_as_long_as_gos() {
    let head = |value: usize| format!("GET /_ping HTTP/1.1\r\nHost: d\r\nX: {}\r\n\r\n", "a".repeat(value));
    let frame = head(0).len();
    let request = head(HEAD_LIMIT - frame);
    let (opening, client) = opened(&[&request, ""]).await;
    let Opening::Http(rewound) = opening else { panic!("not HTTP") };
    assert!(all_of(rewound).await == request);
    drop(client);
    assert_eq!(parse_head(head(HEAD_LIMIT - frame + 1).as_bytes()).err(), Some(TOO_LARGE));
}

#[tokio::test]
async fn hijacking_requests_are_taken_with_their_bodies() {
    let head = "POST /v1.41/exec/abc/start HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\n";
    for body in
        ["Content-Length: 4\r\n\r\n{\"\"}in", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n3\r\n\"\"}\r\n0\r\n\r\nin"]
    {
        let request = format!("{head}{body}");
        for cut in [10, request.len() - 8, request.len() - 2, request.len()] {
            let (opening, _client) = opened(&[&request[..cut], &request[cut..]]).await;
            let Opening::Hijack(mut hijack) = opening else { panic!("not hijacked: {request}") };
            assert_eq!(&hijack.body.read(100).await.unwrap()[..], b"{\"\"}");
            assert_eq!((hijack.target.name.as_str(), hijack.target.version.minor), ("abc", 41));
            // What had not arrived yet is still in the socket.
            assert!("in".as_bytes().starts_with(&hijack.read_ahead), "{cut}");
        }
    }
}

#[tokio::test]
async fn a_client_that_waits_for_permission_gets_it() {
    let head = "POST /exec/a/start HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let (mut client, server) = UnixStream::pair().unwrap();
    let opening = tokio::spawn(open(server));
    client.write_all(head.as_bytes()).await.unwrap();
    let mut permission = [0; 25];
    client.read_exact(&mut permission).await.unwrap();
    assert_eq!(&permission, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"{}").await.unwrap();
    assert!(matches!(opening.await.unwrap(), Opening::Hijack(_)));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_as_go_refuses_it() {
    let long = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(HEAD_LIMIT));
    let exec = "POST /exec/a/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n";
    let (large, length, chunks) = (
        format!("{exec}Content-Length: 99999999\r\n\r\n{{"),
        format!("{exec}Content-Length: some\r\n\r\n{{"),
        format!("{exec}Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    );
    let refused_version = "505 HTTP Version Not Supported: unsupported protocol version";
    let no_host = "400 Bad Request: missing required Host header";
    for (request, status, body) in [
        ("garbage\r\n\r\n", "400 Bad Request", "400 Bad Request"),
        (&long, "431 Request Header Fields Too Large", "431 Request Header Fields Too Large"),
        (&large, "413 Payload Too Large", "{\"message\":\"request body is larger than 64 KiB\"}\n"),
        (&length, "400 Bad Request", "400 Bad Request"),
        ("GET / HTTP/2.0\r\n\r\n", refused_version, refused_version),
        ("POST /exec/a/start HTTP/1.1\r\n\r\n", no_host, no_host),
        (&chunks, "400 Bad Request", "{\"message\":\"invalid JSON: invalid byte in chunk length\"}\n"),
    ] {
        let (opening, client) = opened(&[request]).await;
        assert!(matches!(opening, Opening::Nothing), "{status}");
        let mut answer = Vec::new();
        // The connection may be reset behind the answer, since not all was read.
        let _ = { client }.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
    }
}

#[tokio::test]
async fn clients_that_leave_get_nothing() {
    for pieces in
        [&[""][..], &["GET /in", ""], &["POST /exec/a/start HTTP/1.1\r\nHost: d\r\nContent-Length: 9\r\n\r\n{", ""]]
    {
        let (opening, client) = opened(pieces).await;
        assert!(matches!(opening, Opening::Nothing), "{pieces:?}");
        assert_eq!(all_of(client).await, "");
    }
}

#[tokio::test(start_paused = true)]
async fn silent_clients_are_left() {
    let (client, server) = UnixStream::pair().unwrap();
    // The clock is paused and jumps ahead: nothing else is to happen.
    assert!(matches!(open(server).await, Opening::Nothing));
    drop(client);
}
