use super::*;
use tokio::io::duplex;

fn request(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    pairs.collect()
}

/// As a browser's; the key and what it becomes are those of RFC 6455, 1.3.
const GOOD: [(&str, &str); 4] = [
    ("connection", "keep-alive, Upgrade"),
    ("upgrade", "WebSocket"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
];

fn version(minor: u8) -> ApiVersion {
    format!("1.{minor}").parse().unwrap()
}

#[test]
fn a_handshake_is_that_of_the_specification() {
    let accepted = Accepted::of(&request(&GOOD), version(51)).unwrap();
    assert_eq!(accepted.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!((accepted.kind, accepted.protocol), (BINARY, None));
    assert_eq!(Accepted::of(&request(&GOOD), version(27)).unwrap().kind, TEXT);
    let protocol = [&GOOD[..], &[("sec-websocket-protocol", "chat")]].concat();
    assert_eq!(Accepted::of(&request(&protocol), version(51)).unwrap().protocol.unwrap(), "chat");
}

#[test]
fn what_is_no_handshake_is_refused_in_dockerds_words() {
    for (without, words) in [
        ("connection", "not websocket protocol"),
        ("upgrade", "not websocket protocol"),
        ("sec-websocket-key", "mismatch challenge/response"),
        ("sec-websocket-version", "missing or bad WebSocket Version"),
    ] {
        let mut headers = request(&GOOD);
        headers.remove(without);
        let answer = Accepted::of(&headers, version(51)).unwrap_err();
        assert_eq!((answer.status(), answer.body().whole()), (StatusCode::BAD_REQUEST, words.as_bytes()), "{without}");
    }
}

#[test]
fn heads_of_all_lengths_are_read_and_written() {
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let bytes = frame(BINARY, &vec![7; length]);
        let head = parse_head(&bytes).unwrap();
        assert_eq!((head.kind, head.length, head.mask), (BINARY, length as u64, None));
        assert_eq!(bytes.len(), head.head_bytes + length);
        (0..head.head_bytes).for_each(|short| assert_eq!(parse_head(&bytes[..short]), None, "{short} of {length}"));
    }
}

/// A frame as clients send it.
fn masked(kind: u8, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(kind, payload);
    let begin = bytes.len() - payload.len();
    bytes[0] = if fin { 0x80 } else { 0 } | kind;
    bytes[1] |= 0x80;
    bytes[begin..].iter_mut().enumerate().for_each(|(at, byte)| *byte ^= [1, 2, 3, 4][at % 4]);
    bytes.splice(begin..begin, [1, 2, 3, 4]);
    bytes
}

/// What a container gets of what a client sends, in pieces of a few bytes, and what that gets back.
async fn exchange(sent: Vec<u8>, output: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let accepted = Accepted::of(&request(&GOOD), version(51)).unwrap();
    let (mut client, theirs) = duplex(7);
    let (ours, mut container) = UnixStream::pair().unwrap();
    let output = output.to_vec();
    let relay = tokio::spawn(async move { accepted.relay(theirs, Vec::new(), ours).await });
    let container = tokio::spawn(async move {
        let mut input = Vec::new();
        container.read_to_end(&mut input).await.unwrap();
        container.write_all(&output).await.unwrap();
        input
    });
    let (mut from, mut to) = tokio::io::split(&mut client);
    let mut got = Vec::new();
    let (_, read) = tokio::join!(
        async {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await
        },
        from.read_to_end(&mut got)
    );
    read.unwrap();
    relay.await.unwrap().unwrap();
    (container.await.unwrap(), got)
}

#[tokio::test]
async fn payload_goes_both_ways_whatever_its_frames() {
    let sent =
        [masked(TEXT, false, b"on"), masked(PING, true, b"you?"), masked(0, true, b"e \xff"), masked(CLOSE, true, b"")];
    let (input, got) = exchange(sent.concat(), b"answer").await;
    assert_eq!(input, b"one \xff");
    assert_eq!(got, [frame(PONG, b"you?"), frame(BINARY, b"answer"), frame(CLOSE, &NORMAL)].concat());
}

#[tokio::test]
async fn who_does_not_mask_is_told_so() {
    let (input, got) = exchange([masked(TEXT, true, b"in"), frame(TEXT, b"plain")].concat(), b"").await;
    assert_eq!(input, b"in");
    assert_eq!(got, [frame(CLOSE, &PROTOCOL_ERROR), frame(CLOSE, &NORMAL)].concat());
}
