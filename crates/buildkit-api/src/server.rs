//! Answers the calls of one connection.

use std::future::poll_fn;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{self, SendResponse};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, error};

use crate::frame::{self, Incoming, framed};
use crate::status::{Code, Status, success};

/// The type of bodies.
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Calls that may be under way on a connection: more than any client makes.
const CALLS_MAX: u32 = 128;

/// The longest headers of a call, in bytes.
const HEADERS_MAX: u32 = 64 << 10;

/// Messages of a call that may wait to be sent.
const MESSAGES: usize = 16;

/// How much may be on its way to us, in bytes: of a call, and of all.
pub(crate) const WINDOW_BYTES: u32 = 1 << 20;

/// What small frames may cost that wait to be read, in bytes: h2 counts each as 256. A window of messages of sixteen bytes is
/// as much; what h2 allows by itself, a directory of some thousand files exceeds.
pub(crate) const SMALL_FRAMES_BYTES: usize = 16 << 20;

/// A call: its name, and its one message.
#[derive(Debug)]
pub struct Call {
    /// `/moby.buildkit.v1.Control/Solve`
    pub path: String,
    /// What stands beside the message.
    pub headers: HeaderMap,
    message: Bytes,
}

/// A call of messages both ways.
#[derive(Debug)]
pub struct Streaming {
    /// `/moby.sshforward.v1.SSH/ForwardAgent`
    pub path: String,
    /// What stands beside the messages.
    pub headers: HeaderMap,
    /// What comes.
    pub incoming: Incoming,
    /// What goes.
    pub outgoing: mpsc::Sender<Result<Vec<u8>, Status>>,
}

/// What a call is answered.
#[derive(Debug)]
pub enum Reply {
    /// One message.
    One(Vec<u8>),
    /// Messages as they come, to the end of the channel or to a failure.
    Stream(mpsc::Receiver<Result<Vec<u8>, Status>>),
}

/// Who answers calls.
pub trait Service: Clone + Send + Sync + 'static {
    /// Answers a call. Dropped where it stands when the client does not wait for it any more.
    fn call(&self, call: Call) -> impl Future<Output = Result<Reply, Status>> + Send;

    /// Whether calls of that name have messages both ways, and are answered by [`Service::stream`].
    fn streams(&self, _path: &str) -> bool {
        false
    }

    /// Answers such a call, to whose end `outgoing` has to be dropped.
    fn stream(&self, _call: Streaming) -> impl Future<Output = ()> + Send {
        async {}
    }
}

impl Call {
    /// The message.
    pub fn message<M: Message + Default>(&self) -> Result<M, Status> {
        M::decode(self.message.clone())
            .map_err(|err| Status::new(Code::InvalidArgument, format!("decode a message: {err}")))
    }

    /// A header, if it is there and a text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Reply {
    /// A message.
    pub fn message(message: &impl Message) -> Reply {
        Reply::One(message.encode_to_vec())
    }
}

/// Serves a connection to its end; calls that are under way then are dropped.
pub async fn serve<S: Service>(io: impl AsyncRead + AsyncWrite + Unpin, service: S) -> Result<(), Status> {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(CALLS_MAX)
        .max_header_list_size(HEADERS_MAX)
        .data_frame_budget(SMALL_FRAMES_BYTES)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let mut connection = builder.handshake::<_, Bytes>(io).await.map_err(|err| Status::broken(&err))?;
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => drop(calls.spawn(answer(service.clone(), request, respond))),
                Some(Err(err)) => return Err(Status::broken(&err)),
                None => return Ok(()),
            },
            Some(ended) = calls.join_next() => {
                if let Err(err) = ended {
                    error!(%err, "a call of gRPC panicked");
                }
            }
        }
    }
}

async fn answer<S: Service>(service: S, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if service.streams(&path) {
        return stream(service, path, parts.headers, Incoming::of_request(body), respond).await;
    }
    let work = async {
        let message = Incoming::of_request(body).next_bytes().await?;
        let message = message.ok_or_else(|| Status::new(Code::Internal, "a call without a message"))?;
        service.call(Call { path: path.clone(), headers: parts.headers, message }).await
    };
    let reply = tokio::select! {
        reply = work => reply,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return debug!(path, "a call was given up"),
    };
    // A client that has gone needs no answer.
    if let Err(err) = tell(reply, respond).await {
        debug!(path, %err, "a call is not answered");
    }
}

async fn stream<S: Service>(
    service: S,
    path: String,
    headers: HeaderMap,
    incoming: Incoming,
    respond: SendResponse<Bytes>,
) {
    let (outgoing, messages) = mpsc::channel(MESSAGES);
    let streaming = async {
        service.stream(Streaming { path: path.clone(), headers, incoming, outgoing }).await;
        std::future::pending::<()>().await;
    };
    // The call ends when all that was to be told was, or when nobody listens any more.
    tokio::select! {
        told = tell(Ok(Reply::Stream(messages)), respond) => {
            if let Err(err) = told {
                debug!(path, %err, "a call breaks off");
            }
        }
        () = streaming => {}
    }
}

async fn tell(reply: Result<Reply, Status>, mut respond: SendResponse<Bytes>) -> Result<(), Status> {
    let broken = |err: h2::Error| Status::broken(&err);
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::OK;
    head.headers_mut().insert(CONTENT_TYPE, GRPC);
    let reply = match reply {
        Ok(reply) => reply,
        Err(status) => {
            head.headers_mut().extend(status.trailers());
            return respond.send_response(head, true).map(drop).map_err(broken);
        }
    };
    let mut stream = respond.send_response(head, false).map_err(broken)?;
    let trailers = match reply {
        Reply::One(message) => {
            frame::send(&mut stream, framed(&message)).await?;
            success()
        }
        Reply::Stream(mut messages) => loop {
            let next = tokio::select! {
                next = messages.recv() => next,
                _ = poll_fn(|cx| stream.poll_reset(cx)) => return Ok(()),
            };
            match next {
                Some(Ok(message)) => frame::send(&mut stream, framed(&message)).await?,
                Some(Err(status)) => break status.trailers(),
                None => break success(),
            }
        },
    };
    stream.send_trailers(trailers).map_err(broken)
}

#[cfg(test)]
mod tests;
