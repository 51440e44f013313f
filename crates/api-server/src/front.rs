//! The first bytes of a connection: who wants HTTP, and who wants the connection itself.
//!
//! hyper hands a connection back only after answering 101, but clients may ask for a hijack without asking for an
//! upgrade (`curl`, old SDKs). So the first head is read here. A hijacking request is answered by the code below, which
//! also saves `docker run` and `docker exec` the detour; everything else is given to hyper, with the bytes read so far
//! in front. Later requests of a connection that is kept alive are hyper's in any case (see [`crate::serve`]).
//!
//! Refusals in this file are worded as Go's `net/http` words them, since clients see them as dockerd's.

use std::io;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Method, Uri, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::chunked;
use crate::refusal::{self, Refusal};
use crate::request::{RequestBody, too_large};
use crate::response::{self, Answer};
use crate::rewound::{Rewound, farewell};
use crate::router::{self, Handler, Target};
use crate::serve::Client;
use crate::status::Failure;

/// The longest head of a request: the request line and all headers.
///
/// Go's limit: a MiB, and 4 KiB that its buffer may hold beyond it. Memory is taken only as bytes come.
pub(crate) const HEAD_LIMIT: usize = (1 << 20) + (4 << 10);

/// How many headers a request may have: as many as Go's server takes.
pub(crate) const HEADERS_LIMIT: usize = 500;

/// The largest body of a hijacking request: they are a few words of JSON.
const HIJACK_BODY_LIMIT: usize = 64 << 10;

/// How long a client may take to send a head, and the body of a hijacking request.
///
/// Longer than any honest client needs, short enough that silent ones do not pile up. Streams have no deadline.
pub(crate) const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// What a connection begins with.
pub(crate) enum Opening<S> {
    /// Nothing that needs an answer.
    Nothing,
    /// HTTP: bytes to be read again, and the rest.
    Http(Rewound<S>),
    /// A hijacking request.
    Hijack(Box<Hijack<S>>),
}

/// A request that wants the connection.
pub(crate) struct Hijack<S> {
    pub(crate) stream: S,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    /// What the client sent behind its request.
    pub(crate) read_ahead: Vec<u8>,
}

/// A head as far as it matters here.
struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    length: usize,
}

/// Why there is no head.
#[derive(Debug, PartialEq, Eq)]
enum HeadError {
    Refused(Refusal),
    Gone,
}

/// Reads the first head of a connection and decides.
pub(crate) async fn open<S: Client>(mut stream: S) -> Opening<S> {
    let mut bytes = Vec::new();
    let head = match tokio::time::timeout(HEAD_DEADLINE, read_head(&mut stream, &mut bytes)).await {
        Ok(Ok(head)) => head,
        Ok(Err(HeadError::Refused(refusal))) => return refuse(stream, refusal).await,
        Ok(Err(HeadError::Gone)) | Err(_) => return Opening::Nothing,
    };
    if let Some(refusal) = refusal::of_head(head.version, &head.headers) {
        return refuse(stream, refusal).await;
    }
    match router::resolve(&head.method, &head.uri) {
        Ok(target) if matches!(target.handler, Handler::Hijack(_)) => hijack(stream, bytes, head, target).await,
        _ => Opening::Http(Rewound::new(bytes, stream)),
    }
}

/// Reads the body of a hijacking request.
async fn hijack<S: Client>(mut stream: S, mut bytes: Vec<u8>, head: Head, target: Target) -> Opening<S> {
    let mut rest = bytes.split_off(head.length);
    let body = read_body(&mut stream, &head.headers, &mut rest);
    match tokio::time::timeout(HEAD_DEADLINE, body).await {
        Ok(Ok(Ok(body))) => {
            let body = RequestBody::Whole(body.into());
            Opening::Hijack(Box::new(Hijack { stream, target, headers: head.headers, body, read_ahead: rest }))
        }
        Ok(Ok(Err(failure))) => {
            let mut answer = response::failure(failure);
            response::set_common_headers(answer.headers_mut());
            // The client is told, if it still listens; either way the connection ends here.
            let _ = write_answer(&mut stream, &answer).await;
            Opening::Nothing
        }
        Ok(Err(_)) | Err(_) => Opening::Nothing,
    }
}

async fn read_head<S: Client>(stream: &mut S, bytes: &mut Vec<u8>) -> Result<Head, HeadError> {
    loop {
        let known = bytes.len();
        // A client that has nothing more to say may have said it before: both are no request.
        match stream.read_buf(bytes).await {
            Ok(0) | Err(_) => return Err(HeadError::Gone),
            Ok(_) => {}
        }
        // Only the end of a line can make a difference. A head that trickles in is not read again for every byte.
        if bytes[known..].contains(&b'\n')
            && let Some(head) = parse_head(bytes)?
        {
            return Ok(head);
        }
        if bytes.len() > HEAD_LIMIT {
            return Err(TOO_LARGE);
        }
    }
}

/// Parses a head; `None` if more bytes are needed.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_LIMIT];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length > HEAD_LIMIT => return Err(TOO_LARGE),
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::Version) if names_http(bytes) => return Err(HeadError::Refused(refusal::VERSION)),
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
        Err(_) => return Err(MALFORMED),
    };
    let (Some(method), Some(path)) = (request.method, request.path) else { return Err(MALFORMED) };
    let method = method.parse().map_err(|_| MALFORMED)?;
    // More than 64 KiB is more than hyper's addresses hold.
    let uri = path.parse().map_err(|_| match path.len() < usize::from(u16::MAX) {
        true => MALFORMED,
        false => TOO_LARGE,
    })?;
    let headers = request.headers.iter().map(parse_header).collect::<Result<HeaderMap, HeadError>>()?;
    // httparse knows two versions.
    let version = if request.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    Ok(Some(Head { method, uri, version, headers, length }))
}

const MALFORMED: HeadError = HeadError::Refused(refusal::BAD_REQUEST);
const TOO_LARGE: HeadError = HeadError::Refused(refusal::TOO_LARGE);

/// Whether the first line ends as those of HTTP do.
fn names_http(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    matches!(line, [.., b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'])
}

fn parse_header(header: &httparse::Header<'_>) -> Result<(HeaderName, HeaderValue), HeadError> {
    let name = header.name.parse().map_err(|_| MALFORMED)?;
    let value = HeaderValue::from_bytes(header.value).map_err(|_| MALFORMED)?;
    Ok((name, value))
}

/// Reads a body of known length or in chunks. `rest` begins with what was read already and ends as what lies behind it.
async fn read_body<S: Client>(
    stream: &mut S,
    headers: &HeaderMap,
    rest: &mut Vec<u8>,
) -> io::Result<Result<Vec<u8>, Failure>> {
    if headers.contains_key(EXPECT) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        return read_chunked(stream, rest).await;
    }
    let length = match headers.get(CONTENT_LENGTH).map(|value| value.to_str().unwrap_or_default().parse::<usize>()) {
        None => 0,
        Some(Ok(length)) if length <= HIJACK_BODY_LIMIT => length,
        Some(Ok(_)) => return Ok(Err(too_large(HIJACK_BODY_LIMIT))),
        Some(Err(_)) => return Ok(Err(Failure::invalid("bad Content-Length"))),
    };
    while rest.len() < length {
        read_more(stream, rest).await?;
    }
    let behind = rest.split_off(length);
    Ok(Ok(std::mem::replace(rest, behind)))
}

async fn read_chunked<S: Client>(stream: &mut S, rest: &mut Vec<u8>) -> io::Result<Result<Vec<u8>, Failure>> {
    loop {
        match chunked::decode(rest, HIJACK_BODY_LIMIT) {
            Ok(Some((body, length))) => {
                rest.drain(..length);
                return Ok(Ok(body));
            }
            Ok(None) => read_more(stream, rest).await?,
            Err(chunked::ChunkError::TooLarge) => return Ok(Err(too_large(HIJACK_BODY_LIMIT))),
            Err(chunked::ChunkError::Malformed) => {
                return Ok(Err(Failure::invalid("invalid JSON: invalid byte in chunk length")));
            }
        }
    }
}

async fn read_more<S: Client>(stream: &mut S, bytes: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(bytes).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Answers a request that cannot be read, as Go does.
async fn refuse<S: Client>(mut stream: S, refusal: Refusal) -> Opening<S> {
    // The client is told, if it still listens; either way the connection ends here.
    let _ = farewell(&mut stream, refusal.text().as_bytes()).await;
    Opening::Nothing
}

/// Writes a whole answer to a connection that ends behind it.
pub(crate) async fn write_answer<S: Client>(stream: &mut S, answer: &Answer) -> io::Result<()> {
    let (status, body) = (answer.status(), answer.body().whole());
    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    let mut headers = answer.headers().clone();
    headers.remove(http::header::CONNECTION);
    response::write_headers(&headers, &mut bytes);
    bytes.extend_from_slice(format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    farewell(stream, &bytes).await
}

/// Whether a client asks for an upgrade.
pub(crate) fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
}

#[cfg(test)]
mod tests;
