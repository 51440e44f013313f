//! Requests: what a handler is given, and the bounded reading of bodies.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use engine::Engine;
use engine_api::json::Document;
use engine_api::versions::ApiVersion;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING};
use hyper::body::{Body, Bytes, Incoming};
use tracing::debug;

use crate::buildkit::BuildKit;
use crate::handlers::progress::Line;
use crate::query::Query;
use crate::response::{self, Answer, Sink};
use crate::rewound::Note;
use crate::serve::Closing;
use crate::status::Failure;

/// The largest JSON document that is accepted.
///
/// The largest honest ones are creations with thousands of labels, some 100 KiB; what is larger would only fill memory.
pub(crate) const BODY_LIMIT: usize = 4 << 20;

/// One request, taken apart.
pub(crate) struct Call {
    pub(crate) engine: Engine,
    /// The version the client speaks; ours if it does not say.
    pub(crate) version: ApiVersion,
    /// What stands in the path where the route has a wildcard.
    pub(crate) name: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    pub(crate) closing: Closing,
    /// What clients of BuildKit's have open.
    pub(crate) buildkit: Arc<BuildKit>,
}

/// The bytes of a request.
pub(crate) enum RequestBody {
    /// Read already.
    Whole(Bytes),
    /// Still coming, and where its end is noted.
    Stream(Incoming, Note),
}

impl Call {
    /// An answer whose head is sent now and whose bytes are made by `work`.
    ///
    /// `work` is dropped where it stands when the client goes away or the daemon ends.
    pub(crate) fn stream<F>(&self, content_type: &'static str, work: impl FnOnce(Sink) -> F) -> Answer
    where
        F: Future<Output = ()> + Send + 'static,
    {
        response::stream(content_type, self.closing.clone(), "", work)
    }

    /// As [`stream`](Self::stream), of lines that tell how something gets on: where the daemon ends before it is done, the
    /// last one says so. An end alone would be taken for success.
    pub(crate) fn progress<F>(&self, work: impl FnOnce(Sink) -> F) -> Answer
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut farewell =
            serde_json::to_vec(&Line::failed("the daemon is shutting down".to_owned())).unwrap_or_default();
        farewell.push(b'\n');
        response::stream("application/json", self.closing.clone(), farewell, work)
    }

    /// Decodes the JSON body; a request without one is `None`.
    pub(crate) async fn json<T: Document + Default>(&mut self) -> Result<Option<T>, Failure> {
        match self.json_text().await? {
            Some(text) => Ok(Some(engine_api::json::decode(&text)?)),
            None => Ok(None),
        }
    }

    /// The JSON body as it is; a request without one is `None`.
    pub(crate) async fn json_text(&mut self) -> Result<Option<Bytes>, Failure> {
        require_json(&self.headers)?;
        match has_body(&self.headers) {
            true => self.body.read(BODY_LIMIT).await.map(Some),
            false => Ok(None),
        }
    }
}

impl RequestBody {
    /// The next bytes; `None` is the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            RequestBody::Whole(bytes) => Ok(Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty())),
            RequestBody::Stream(incoming, unread) => loop {
                match poll_fn(|cx| Pin::new(&mut *incoming).poll_frame(cx)).await {
                    None => {
                        unread.set(false);
                        return Ok(None);
                    }
                    Some(Err(err)) => return Err(unreadable(&err)),
                    // Trailers say nothing that we know of.
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                        _ => continue,
                    },
                }
            },
        }
    }

    /// All bytes, if they are not more than `limit`.
    pub(crate) async fn read(&mut self, limit: usize) -> Result<Bytes, Failure> {
        let mut all = Vec::new();
        while let Some(bytes) = self.chunk().await? {
            if all.len() + bytes.len() > limit {
                return Err(too_large(limit));
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.into())
    }
}

/// What is said of a body that breaks off, or whose chunks are none.
fn unreadable(err: &hyper::Error) -> Failure {
    debug!("body: {}", errdefs::chain(err));
    Failure::invalid(match err.is_incomplete_message() {
        true => "invalid JSON: unexpected EOF",
        false => "invalid JSON: invalid byte in chunk length",
    })
}

/// What is said of a body that is too large.
pub(crate) fn too_large(limit: usize) -> Failure {
    let message = format!("request body is larger than {} KiB", limit >> 10);
    Failure { status: StatusCode::PAYLOAD_TOO_LARGE, message }
}

/// Whether a request announces a body.
pub(crate) fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// Refuses a body that is not said to be JSON. A request with neither a body nor a type passes.
fn require_json(headers: &HeaderMap) -> Result<(), Failure> {
    let shown = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
    if shown.is_empty() && !has_body(headers) {
        return Ok(());
    }
    match media_type(&shown) {
        Ok(media_type) if media_type == "application/json" => Ok(()),
        Ok(_) => {
            Err(Failure::invalid(format!("unsupported Content-Type header ({shown}): must be 'application/json'")))
        }
        Err(cause) => Err(Failure::invalid(format!("malformed Content-Type header ({shown}): mime: {cause}"))),
    }
}

/// The media type of a Content-Type header, without its parameters; else the words of Go's `mime.ParseMediaType`.
fn media_type(header: &str) -> Result<String, &'static str> {
    let mut parts = header.split(';');
    let media_type = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    if media_type.is_empty() {
        return Err("no media type");
    }
    let is_value = |value: &str| is_token(value) || (value.len() > 1 && value.starts_with('"') && value.ends_with('"'));
    let well_formed = |part: &str| part.split_once('=').is_some_and(|(name, value)| is_token(name) && is_value(value));
    let well_typed = |(kind, subtype): (&str, &str)| match (is_token(kind), subtype.chars().all(is_token_character)) {
        (false, _) => Err("expected slash after first token"),
        (_, false) => Err("unexpected content after media subtype"),
        _ if subtype.is_empty() => Err("expected token after slash"),
        _ => Ok(()),
    };
    media_type.split_once('/').map_or(Ok(()), well_typed)?;
    // A lone semicolon at the end is no parameter.
    if parts.map(str::trim).any(|part| !part.is_empty() && !well_formed(part)) {
        return Err("invalid media parameter");
    }
    Ok(media_type)
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_token_character)
}

/// RFC 9110, "token".
fn is_token_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_read_as_json() {
        let check = |content_type: Option<&str>, length: Option<&str>| {
            let mut headers = HeaderMap::new();
            content_type.map(|value| headers.insert(CONTENT_TYPE, value.parse().unwrap()));
            length.map(|value| headers.insert(CONTENT_LENGTH, value.parse().unwrap()));
            require_json(&headers).map_err(|failure| failure.message)
        };
        let err = |text: &str| Err(text.to_owned());
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/json;"] {
            assert_eq!(check(Some(good), Some("2")), Ok(()), "{good}");
        }
        for (bad, cause) in [
            ("application/json, text/plain", "unexpected content after media subtype"),
            ("a/b/c", "unexpected content after media subtype"),
            ("application/json;charset=\"", "invalid media parameter"),
        ] {
            assert_eq!(
                check(Some(bad), Some("2")),
                err(&format!("malformed Content-Type header ({bad}): mime: {cause}"))
            );
        }
        assert_eq!(check(None, None), Ok(()));
        assert_eq!(check(None, Some("0")), Ok(()));
        assert_eq!(check(None, Some("2")), err("malformed Content-Type header (): mime: no media type"));
        assert_eq!(
            check(Some("text/plain"), None),
            err("unsupported Content-Type header (text/plain): must be 'application/json'")
        );
        assert_eq!(
            check(Some("application/json; charset"), Some("2")),
            err("malformed Content-Type header (application/json; charset): mime: invalid media parameter")
        );
    }
}
