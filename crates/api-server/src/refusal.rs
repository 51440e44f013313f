//! What Go's HTTP server refuses before a handler is asked, in its words: plain text, and the end of the connection.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{StatusCode, Version};
use hyper::ext::ReasonPhrase;

use crate::response::{self, Answer};

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    /// What stands behind the number in the first line.
    reason: &'static str,
    body: &'static str,
}

/// What cannot be read.
pub(crate) const BAD_REQUEST: Refusal =
    Refusal { status: StatusCode::BAD_REQUEST, reason: "Bad Request", body: "400 Bad Request" };

/// More than the limits allow.
pub(crate) const TOO_LARGE: Refusal = Refusal {
    status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    reason: "Request Header Fields Too Large",
    body: "431 Request Header Fields Too Large",
};

/// Another protocol than HTTP/1.
pub(crate) const VERSION: Refusal = Refusal {
    status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
    reason: "HTTP Version Not Supported: unsupported protocol version",
    body: "505 HTTP Version Not Supported: unsupported protocol version",
};

const NO_HOST: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    reason: "Bad Request: missing required Host header",
    body: "400 Bad Request: missing required Host header",
};

const BAD_HOST: Refusal = Refusal {
    status: StatusCode::BAD_REQUEST,
    reason: "Bad Request: malformed Host header",
    body: "400 Bad Request: malformed Host header",
};

const CODING: Refusal =
    Refusal { status: StatusCode::NOT_IMPLEMENTED, reason: "Not Implemented", body: "Unsupported transfer encoding" };

const EXPECTATION: Refusal = Refusal { status: StatusCode::EXPECTATION_FAILED, reason: "Expectation Failed", body: "" };

impl Refusal {
    /// The whole answer, where hyper does not write it.
    pub(crate) fn text(self) -> String {
        let Refusal { status, reason, body } = self;
        let content = if body.is_empty() { "Content-Length: 0" } else { "Content-Type: text/plain; charset=utf-8" };
        format!("HTTP/1.1 {} {reason}\r\n{content}\r\nConnection: close\r\n\r\n{body}", status.as_str())
    }

    /// The answer where hyper writes it.
    pub(crate) fn answer(self) -> Answer {
        let mut answer = match self.body {
            "" => response::empty(self.status),
            body => response::text(self.status, body),
        };
        answer.extensions_mut().insert(ReasonPhrase::from_static(self.reason.as_bytes()));
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        answer
    }
}

/// What Go has against a head that can be read.
pub(crate) fn of_head(version: Version, headers: &HeaderMap) -> Option<Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Some(BAD_REQUEST),
        (None, None) if version == Version::HTTP_11 => return Some(NO_HOST),
        (Some(host), None) if !host.as_bytes().iter().copied().all(is_host_byte) => return Some(BAD_HOST),
        _ => {}
    }
    // The coding is compared as a whole: even "gzip, chunked" is unknown.
    let unknown = |coding: &HeaderValue| !coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if version == Version::HTTP_11 && headers.get(TRANSFER_ENCODING).is_some_and(unknown) {
        return Some(CODING);
    }
    let lengths: Vec<&[u8]> = headers.get_all(CONTENT_LENGTH).iter().map(HeaderValue::as_bytes).collect();
    let is_number = |length: &&[u8]| !length.is_empty() && length.len() < 19 && length.iter().all(u8::is_ascii_digit);
    if !lengths.iter().all(is_number) || lengths.windows(2).any(|pair| pair[0] != pair[1]) {
        return Some(BAD_REQUEST);
    }
    let unmet =
        |expected: &HeaderValue| !expected.is_empty() && !expected.as_bytes().eq_ignore_ascii_case(b"100-continue");
    headers.get(EXPECT).is_some_and(unmet).then_some(EXPECTATION)
}

/// What a host may be made of (Go `httpguts.ValidHostHeader`).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!$%&'()*+,-./:;=@[]_~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn heads_are_refused_as_go_refuses_them() {
        let check = |version, lines: &[(&str, &str)]| {
            let parsed = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
            of_head(version, &lines.iter().map(parsed).collect::<HeaderMap>())
        };
        let (old, new, host) = (Version::HTTP_10, Version::HTTP_11, ("Host", "d"));
        assert_eq!(check(old, &[]), None);
        assert_eq!(check(new, &[]), Some(NO_HOST));
        assert_eq!(check(new, &[("Host", "")]), None);
        assert_eq!(check(new, &[("Host", "a b")]), Some(BAD_HOST));
        assert_eq!(check(new, &[host, host]), Some(BAD_REQUEST));
        for (name, value, wanted) in [
            ("Transfer-Encoding", "Chunked", None),
            ("Transfer-Encoding", "identity", Some(CODING)),
            ("Transfer-Encoding", "gzip, chunked", Some(CODING)),
            ("Content-Length", "5", None),
            ("Content-Length", "x", Some(BAD_REQUEST)),
            ("Content-Length", "-1", Some(BAD_REQUEST)),
            ("Expect", "100-Continue", None),
            ("Expect", "wonders", Some(EXPECTATION)),
        ] {
            assert_eq!(check(new, &[host, (name, value)]), wanted, "{name}: {value}");
        }
        let twice = |second| check(new, &[host, ("Content-Length", "2"), ("Content-Length", second)]);
        assert_eq!((twice("2"), twice("3")), (None, Some(BAD_REQUEST)));
    }
}
