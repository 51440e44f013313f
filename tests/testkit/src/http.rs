//! HTTP/1.1 by hand over a unix socket: for requests that a client library would refuse to send.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::process::DEADLINE;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, chunks put together.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// The sentence in `{"message": ...}`, as Docker's errors have it; empty when there is none.
    pub fn message(&self) -> String {
        let body = self.json().unwrap_or_default();
        body["message"].as_str().unwrap_or_default().to_owned()
    }
}

/// A connection whose reads fail after [`DEADLINE`].
pub fn connect(socket: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// One request on a connection of its own. A body is sent as JSON.
pub fn request(socket: &Path, method: &str, path: &str, body: Option<&str>) -> Result<Response> {
    let body_headers = match body {
        Some(body) => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
        None => String::new(),
    };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n{body_headers}\r\n");
    raw(socket, &[head.as_bytes(), body.unwrap_or_default().as_bytes()].concat())
}

/// Sends these bytes, whatever they are, and reads one answer.
pub fn raw(socket: &Path, bytes: &[u8]) -> Result<Response> {
    let mut stream = connect(socket)?;
    // A server may answer and close before it has read everything: the answer is what counts.
    let sent = stream.write_all(bytes);
    read_response(&mut BufReader::new(stream)).with_context(|| format!("request sent: {sent:?}"))
}

/// Reads one answer: head and body.
pub fn read_response(from: &mut impl BufRead) -> Result<Response> {
    let mut response = read_head(from)?;
    response.body = read_body(from, &response)?;
    Ok(response)
}

/// Reads the head of an answer and leaves the body, of a stream that has no end, where it is.
pub fn read_head(from: &mut impl BufRead) -> Result<Response> {
    let status_line = line(from)?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("not an HTTP status line: {status_line:?}"))?;
    let mut headers = Vec::new();
    loop {
        let text = line(from)?;
        if text.is_empty() {
            break;
        }
        let (name, value) = text.split_once(':').with_context(|| format!("not a header: {text:?}"))?;
        headers.push((name.trim().to_lowercase(), value.trim().to_owned()));
    }
    Ok(Response { status, headers, body: Vec::new() })
}

/// Reads the body that belongs to this head.
pub fn read_body(from: &mut impl BufRead, head: &Response) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    if matches!(head.status, 100..200 | 204 | 304) {
        return Ok(body);
    }
    if head.header("transfer-encoding") == Some("chunked") {
        loop {
            let text = line(from)?;
            let length = u64::from_str_radix(&text, 16).with_context(|| format!("not a chunk length: {text:?}"))?;
            from.take(length).read_to_end(&mut body)?;
            line(from)?;
            if length == 0 {
                return Ok(body);
            }
        }
    }
    match head.header("content-length") {
        Some(length) => from.take(length.parse()?).read_to_end(&mut body)?,
        None => from.read_to_end(&mut body)?,
    };
    Ok(body)
}

fn line(from: &mut impl BufRead) -> Result<String> {
    let mut text = String::new();
    if from.read_line(&mut text)? == 0 {
        bail!("the connection ended in the middle of an answer");
    }
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_all_three_kinds_are_read() {
        for (wire, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore", "ok"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", "ok"),
            ("HTTP/1.1 404 Not Found\r\n\r\nok", "ok"),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nxx", ""),
        ] {
            assert_eq!(read_response(&mut wire.as_bytes()).unwrap().text(), body);
        }
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        for wire in ["", "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
            assert!(read_response(&mut wire.as_bytes()).is_err(), "{wire:?}");
        }
    }
}
