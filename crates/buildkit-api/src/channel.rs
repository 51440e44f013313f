//! Calls to the other end of a connection.

use bytes::Bytes;
use h2::SendStream;
use h2::client::{self, SendRequest};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::{Method, Request, Uri};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::frame::{self, Incoming, framed};
use crate::server::{SMALL_FRAMES_BYTES, WINDOW_BYTES};
use crate::status::{Code, Status};

/// Somebody who answers calls; cheap to clone.
#[derive(Clone, Debug)]
pub struct Channel(SendRequest<Bytes>);

/// Messages that go.
#[derive(Debug)]
pub struct Outgoing(SendStream<Bytes>);

impl Channel {
    /// Begins with a connection; what is answered beside the channel carries its bytes, and ends with it.
    pub async fn open(
        io: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Result<(Channel, impl Future<Output = Result<(), h2::Error>>), Status> {
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .data_frame_budget(SMALL_FRAMES_BYTES)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let (sender, connection) = builder.handshake(io).await.map_err(|err| Status::broken(&err))?;
        Ok((Channel(sender), connection))
    }

    /// Makes a call of one message, which is answered with one.
    pub async fn call<A: Message + Default>(&self, path: &str, message: &impl Message) -> Result<A, Status> {
        let (mut outgoing, mut incoming) = self.stream(path, &[]).await?;
        outgoing.send(message).await?;
        outgoing.end()?;
        let answer = incoming.next().await?;
        let answer = answer.ok_or_else(|| Status::new(Code::Internal, "a call without an answer"))?;
        // What follows is how the call ended.
        match incoming.next::<A>().await? {
            None => Ok(answer),
            Some(_) => Err(Status::new(Code::Internal, "a call with two answers")),
        }
    }

    /// Makes a call of messages both ways. `headers` stand beside them.
    pub async fn stream(
        &self,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<(Outgoing, Incoming), Status> {
        let uri = Uri::builder().scheme("http").authority("localhost").path_and_query(path).build();
        let uri = uri.map_err(|err| Status::new(Code::Internal, err.to_string()))?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let own = request.headers_mut();
        own.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        own.insert(TE, HeaderValue::from_static("trailers"));
        for (name, value) in headers {
            own.append(name, value.clone());
        }
        let mut ready = self.0.clone().ready().await.map_err(|err| Status::broken(&err))?;
        let (answer, stream) = ready.send_request(request, false).map_err(|err| Status::broken(&err))?;
        Ok((Outgoing(stream), Incoming::of_answer(answer)))
    }
}

impl Outgoing {
    /// Sends a message, waiting for an end that is behind.
    pub async fn send(&mut self, message: &impl Message) -> Result<(), Status> {
        frame::send(&mut self.0, framed(&message.encode_to_vec())).await
    }

    /// Sends no more.
    pub fn end(&mut self) -> Result<(), Status> {
        self.0.send_data(Bytes::new(), true).map_err(|err| Status::broken(&err))
    }
}
