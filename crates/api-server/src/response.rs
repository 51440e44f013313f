//! Answers: whole ones, and streams that end with the client, the daemon, or by themselves.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SERVER};
use http::{Response, StatusCode};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::serve::Closing;
use crate::status::Failure;

/// An answer of ours.
pub(crate) type Answer = Response<AnswerBody>;

/// The value of `Server`.
const PRODUCT: &str = concat!("Longshore/", env!("CARGO_PKG_VERSION"), " (linux)");

/// How many chunks may wait for a client that reads slowly, before whoever makes them waits, too.
///
/// Chunks of logs are at most some 16 KiB, so that a client costs the daemon no more than a few of them.
const STREAM_DEPTH: usize = 4;

/// The bytes of an answer.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    /// All of them, or none any more.
    Whole(Option<Bytes>),
    /// As they come.
    Stream(mpsc::Receiver<Bytes>),
    /// As they come, and what breaks off is told by the end of the connection.
    Archive(mpsc::Receiver<io::Result<Bytes>>),
}

/// The bytes of an answer, and something that is dropped behind the last of them, or with a client that has gone.
pub(crate) struct Until<E> {
    pub(crate) body: AnswerBody,
    pub(crate) _end: E,
}

/// Where the maker of a stream puts its bytes; each chunk reaches the client at once.
#[derive(Clone, Debug)]
pub(crate) struct Sink(mpsc::Sender<Bytes>);

/// The client has gone, or the daemon ends: there is nobody to write for.
#[derive(Debug)]
pub(crate) struct Gone;

impl Sink {
    /// Sends bytes, waiting for a client that is behind.
    pub(crate) async fn send(&self, bytes: impl Into<Bytes>) -> Result<(), Gone> {
        self.0.send(bytes.into()).await.map_err(|_| Gone)
    }

    /// Sends a value as one line of JSON.
    pub(crate) async fn line(&self, value: &impl Serialize) -> Result<(), Gone> {
        self.send(json_bytes(value)).await
    }

    /// As [`line`](Self::line), from a thread that may block.
    pub(crate) fn blocking_line(&self, value: &impl Serialize) -> Result<(), Gone> {
        self.0.blocking_send(json_bytes(value).into()).map_err(|_| Gone)
    }
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    answer(status, None, Bytes::new())
}

/// An answer that is one JSON document.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    answer(status, Some("application/json"), json_bytes(value))
}

/// An answer that is a list, written while its elements are made: hundreds of them never stand side by side.
#[derive(Debug)]
pub(crate) struct List(Vec<u8>);

impl Default for List {
    fn default() -> List {
        List(b"[".to_vec())
    }
}

impl List {
    /// Adds an element.
    pub(crate) fn push(&mut self, value: &impl Serialize) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        serde_json::to_writer(&mut self.0, value).expect(SERIALIZES);
    }

    /// The whole list.
    pub(crate) fn into_answer(mut self) -> Answer {
        self.0.extend_from_slice(b"]\n");
        answer(StatusCode::OK, Some("application/json"), self.0)
    }
}

/// An answer in plain text.
pub(crate) fn text(status: StatusCode, message: impl Into<Bytes>) -> Answer {
    answer(status, Some("text/plain; charset=utf-8"), message)
}

/// A failure as clients of the API expect it.
pub(crate) fn failure(failure: Failure) -> Answer {
    if failure.status == StatusCode::NOT_MODIFIED {
        return empty(failure.status);
    }
    json(failure.status, &engine_api::ErrorBody { message: failure.message })
}

/// An answer whose head is sent now and whose bytes are made by `work`.
///
/// `work` is dropped where it stands when the client goes away or the daemon ends; then `farewell` is the last that is told.
pub(crate) fn stream<F>(
    content_type: &'static str,
    closing: Closing,
    farewell: impl Into<Bytes>,
    work: impl FnOnce(Sink) -> F,
) -> Answer
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(STREAM_DEPTH);
    let work = work(Sink(sender.clone()));
    let farewell = farewell.into();
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = closing.wait() => if !farewell.is_empty() {
                // Nobody is left to hear it, or somebody does.
                _ = sender.send(farewell).await;
            },
            () = work => {}
        }
    });
    with_body(StatusCode::OK, Some(content_type), AnswerBody::Stream(receiver))
}

/// An answer whose bytes come through a [`crate::download::Download`].
pub(crate) fn archive(content_type: &'static str, chunks: mpsc::Receiver<io::Result<Bytes>>) -> Answer {
    with_body(StatusCode::OK, Some(content_type), AnswerBody::Archive(chunks))
}

/// Sets what every answer says of us, whatever the daemon is told to say.
pub(crate) fn set_common_headers(headers: &mut HeaderMap) {
    const COMMON: [(HeaderName, HeaderValue); 4] = [
        (HeaderName::from_static("api-version"), HeaderValue::from_static("1.51")),
        (HeaderName::from_static("docker-experimental"), HeaderValue::from_static("false")),
        (HeaderName::from_static("ostype"), HeaderValue::from_static("linux")),
        (SERVER, HeaderValue::from_static(PRODUCT)),
    ];
    headers.extend(COMMON.map(|(name, value)| (Some(name), value)));
}

/// Appends headers as lines, their names as everybody writes them: `Content-Type`.
pub(crate) fn write_headers(headers: &HeaderMap, to: &mut Vec<u8>) {
    for (name, value) in headers {
        let begin = to.len();
        to.extend_from_slice(name.as_str().as_bytes());
        to[begin..].split_mut(|byte| *byte == b'-').for_each(|word| word[..1].make_ascii_uppercase());
        to.extend_from_slice(b": ");
        to.extend_from_slice(value.as_bytes());
        to.extend_from_slice(b"\r\n");
    }
}

fn answer(status: StatusCode, content_type: Option<&'static str>, body: impl Into<Bytes>) -> Answer {
    with_body(status, content_type, AnswerBody::Whole(Some(body.into())))
}

fn with_body(status: StatusCode, content_type: Option<&'static str>, body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    if let Some(content_type) = content_type {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    answer
}

/// Why no answer of ours fails to be written.
const SERIALIZES: &str = "wire types have string keys and cannot fail to serialize";

/// JSON with a line end, as Go's encoder writes it.
fn json_bytes(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect(SERIALIZES);
    bytes.push(b'\n');
    bytes
}

impl AnswerBody {
    /// The bytes of a body that is whole; nothing for a stream.
    pub(crate) fn whole(&self) -> &[u8] {
        match self {
            AnswerBody::Whole(bytes) => bytes.as_deref().unwrap_or_default(),
            AnswerBody::Stream(_) | AnswerBody::Archive(_) => &[],
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            AnswerBody::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            AnswerBody::Stream(chunks) => chunks.poll_recv(cx).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes)))),
            AnswerBody::Archive(chunks) => chunks.poll_recv(cx).map(|chunk| chunk.map(|bytes| bytes.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, AnswerBody::Whole(bytes) if bytes.as_ref().is_none_or(Bytes::is_empty))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            AnswerBody::Stream(_) | AnswerBody::Archive(_) => SizeHint::default(),
        }
    }
}

impl<E: Unpin> Body for Until<E> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
