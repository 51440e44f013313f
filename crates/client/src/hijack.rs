//! Connections that become raw streams: attach and exec.
//!
//! The daemon answers `101 UPGRADED` or, as it always did, `200 OK` followed by the raw bytes; hyper's client takes only
//! the first for an upgrade. So the head of this one kind of request is written and read here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Method;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::call::{Client, api_error};
use crate::error::ClientError;
use crate::transport::Stream;

/// The protocol of raw bytes.
const RAW: &str = "tcp";

/// The longest head of an answer that we take.
const HEAD_MAX_BYTES: usize = 64 << 10;
/// The longest error body that we read.
const ERROR_MAX_BYTES: usize = 1 << 20;

/// A raw stream in both directions.
pub struct Hijacked {
    /// The daemon's direction: what came with the head, then the connection.
    pub reader: Reader,
    /// Our direction; shutting it down ends the container's standard input.
    pub writer: Writer,
    /// Whether the daemon's direction is framed (see [`crate::frame`]); `None` if the daemon does not say.
    pub multiplexed: Option<bool>,
}

/// The daemon's direction.
pub struct Reader {
    early: Vec<u8>,
    early_used: usize,
    half: tokio::io::ReadHalf<Box<dyn Stream>>,
}

/// Our direction.
pub type Writer = tokio::io::WriteHalf<Box<dyn Stream>>;

impl AsyncRead for Reader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let early = &self.early[self.early_used..];
        if early.is_empty() {
            return Pin::new(&mut self.half).poll_read(cx, buf);
        }
        let length = early.len().min(buf.remaining());
        buf.put_slice(&early[..length]);
        self.early_used += length;
        Poll::Ready(Ok(()))
    }
}

/// The head of an answer.
struct Head {
    status: u16,
    content_type: String,
    content_length: Option<usize>,
    chunked: bool,
    body: Vec<u8>,
}

impl Client {
    /// Posts `body` (JSON, may be empty) and turns the connection into a raw stream.
    pub async fn hijack(&self, path: &str, body: &[u8]) -> Result<Hijacked, ClientError> {
        upgrade(self, path, RAW, &[], body).await
    }

    async fn hijack_once(&self, path: &str, more: &[(&str, &str)], body: &[u8]) -> Result<Hijacked, ClientError> {
        let broken = |source| ClientError::Stream { path: path.to_owned(), source };
        let mut stream = self.connect().await?;
        stream.write_all(&self.hijack_head(path, more, body)).await.map_err(broken)?;
        let head = read_head(&mut stream).await.map_err(broken)?;
        if !matches!(head.status, 101 | 200) {
            let status = head.status;
            let body = read_error(&mut stream, head).await.map_err(broken)?;
            return Err(api_error(status, &body));
        }
        let multiplexed = match head.content_type.as_str() {
            "application/vnd.docker.multiplexed-stream" => Some(true),
            _ => None,
        };
        let (half, writer) = tokio::io::split(stream);
        Ok(Hijacked { reader: Reader { early: head.body, early_used: 0, half }, writer, multiplexed })
    }

    fn hijack_head(&self, path: &str, more: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let method = Method::POST;
        let mut head = format!("{method} {} HTTP/1.1\r\nHost: api.moby.localhost\r\n", self.versioned(path));
        head.push_str("Connection: Upgrade\r\n");
        for (name, value) in more {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        for (name, value) in self.headers() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str("Content-Type: application/json\r\n");
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}

/// Turns a connection into a stream of another protocol; `headers` are of this request alone.
pub(crate) async fn upgrade(
    client: &Client,
    path: &str,
    protocol: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Hijacked, ClientError> {
    let more: Vec<(&str, &str)> = [("Upgrade", protocol)].iter().chain(headers).copied().collect();
    match client.hijack_once(path, &more, body).await {
        Err(ClientError::Api { status: 400, message }) if client.adopt(&message) => {
            client.hijack_once(path, &more, body).await
        }
        other => other,
    }
}

async fn read_head(stream: &mut Box<dyn Stream>) -> io::Result<Head> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(head) = parse_head(&bytes)? {
            return Ok(head);
        }
        if bytes.len() > HEAD_MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "head of the answer is too long"));
        }
    }
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))?;
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).trim().to_owned()).unwrap_or_default()
    };
    Ok(Some(Head {
        status: response.code.unwrap_or_default(),
        content_type: header("content-type"),
        content_length: header("content-length").parse().ok(),
        chunked: header("transfer-encoding").eq_ignore_ascii_case("chunked"),
        body: bytes[length..].to_vec(),
    }))
}

/// Reads the body of a refusal: by its length, by chunks, or to the end.
async fn read_error(stream: &mut Box<dyn Stream>, head: Head) -> io::Result<Vec<u8>> {
    let mut body = head.body;
    let whole = |body: &[u8]| match head.content_length {
        Some(length) => body.len() >= length,
        None => head.chunked && body.ends_with(b"0\r\n\r\n"),
    };
    while !whole(&body) && body.len() < ERROR_MAX_BYTES {
        if stream.read_buf(&mut body).await? == 0 {
            break;
        }
    }
    Ok(if head.chunked { unchunk(&body) } else { body })
}

/// The payload of chunked bytes, as far as they are well formed.
fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    while let Ok(httparse::Status::Complete((start, length))) = httparse::parse_chunk_size(bytes) {
        let Some(chunk) = bytes.get(start..).and_then(|rest| rest.get(..length as usize)).filter(|c| !c.is_empty())
        else {
            break;
        };
        payload.extend_from_slice(chunk);
        bytes = bytes.get(start + chunk.len() + 2..).unwrap_or_default();
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_told_from_what_follows_it() {
        assert!(parse_head(b"HTTP/1.1 101 UPGRADED\r\nConn").unwrap().is_none());
        let head =
            parse_head(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nearly").unwrap();
        let head = head.unwrap();
        assert_eq!((head.status, head.body.as_slice()), (200, &b"early"[..]));
        assert_eq!(head.content_type, "application/vnd.docker.raw-stream");
        assert!(parse_head(b"nonsense\r\n\r\n").is_err());
    }

    #[test]
    fn chunks_are_joined() {
        assert_eq!(unchunk(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), b"abcde");
        assert_eq!(unchunk(b"9\r\nabc"), b"");
    }
}
