//! Messages: five bytes that tell how long it is in front of each (gRPC over HTTP/2, "Length-Prefixed-Message").

use std::future::poll_fn;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::StatusCode;
use prost::Message;

use crate::status::{Code, Status};

/// The longest message that is read, in bytes: as much as dockerd takes.
pub const MESSAGE_MAX: usize = 16 << 20;

/// What stands in front of a message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// Messages that come.
#[derive(Debug)]
pub struct Incoming {
    source: Source,
    bytes: BytesMut,
}

#[derive(Debug)]
enum Source {
    /// The answer's head is still to come.
    Answer(ResponseFuture),
    Body(RecvStream),
    Ended,
}

impl Incoming {
    /// Those of a request.
    pub(crate) fn of_request(body: RecvStream) -> Incoming {
        Incoming { source: Source::Body(body), bytes: BytesMut::new() }
    }

    /// Those of an answer.
    pub(crate) fn of_answer(answer: ResponseFuture) -> Incoming {
        Incoming { source: Source::Answer(answer), bytes: BytesMut::new() }
    }

    /// The next message; `None` is the end of a call that went well.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let Some(bytes) = self.next_bytes().await? else { return Ok(None) };
        match M::decode(bytes) {
            Ok(message) => Ok(Some(message)),
            Err(err) => Err(Status::new(Code::Internal, format!("decode a message: {err}"))),
        }
    }

    /// The next message as it is.
    pub(crate) async fn next_bytes(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = split(&mut self.bytes)? {
                return Ok(Some(message));
            }
            let Some(piece) = self.piece().await? else {
                let cut = || Status::new(Code::Internal, "a message breaks off");
                return if self.bytes.is_empty() { Ok(None) } else { Err(cut()) };
            };
            self.bytes.put(piece);
        }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            match &mut self.source {
                Source::Ended => return Ok(None),
                Source::Answer(answer) => {
                    let answer = answer.await.map_err(|err| Status::broken(&err))?;
                    if answer.status() != StatusCode::OK {
                        return Err(Status::new(Code::Unknown, format!("unexpected HTTP status {}", answer.status())));
                    }
                    Status::of_trailers(answer.headers())?;
                    self.source = Source::Body(answer.into_body());
                }
                Source::Body(body) => {
                    if let Some(piece) = body.data().await {
                        let piece = piece.map_err(|err| Status::broken(&err))?;
                        // What was read makes place for more; a stream that has ended needs none.
                        let _ = body.flow_control().release_capacity(piece.len());
                        return Ok(Some(piece));
                    }
                    let trailers = body.trailers().await.map_err(|err| Status::broken(&err))?;
                    self.source = Source::Ended;
                    if let Some(trailers) = trailers {
                        Status::of_trailers(&trailers)?;
                    }
                }
            }
        }
    }
}

/// Takes a whole message off the front, if there is one.
fn split(bytes: &mut BytesMut) -> Result<Option<Bytes>, Status> {
    let Some(head) = bytes.get(..HEAD_BYTES) else { return Ok(None) };
    if head[0] != 0 {
        return Err(Status::new(Code::Unimplemented, "compressed messages are not supported"));
    }
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > MESSAGE_MAX {
        let told = format!("received message larger than max ({length} vs. {MESSAGE_MAX})");
        return Err(Status::new(Code::ResourceExhausted, told));
    }
    if bytes.len() < HEAD_BYTES + length {
        return Ok(None);
    }
    let mut message = bytes.split_to(HEAD_BYTES + length);
    Ok(Some(message.split_off(HEAD_BYTES).freeze()))
}

/// A message with what stands in front of it.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES + message.len());
    bytes.put_u8(0);
    // Ours are far shorter than four gigabytes.
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

/// Sends bytes as the other end has place for them.
pub(crate) async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), Status> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let place = match stream.capacity() {
            0 => match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(place) => place.map_err(|err| Status::broken(&err))?,
                None => return Err(Status::new(Code::Cancelled, "the other end reads no more")),
            },
            place => place,
        };
        let piece = bytes.split_to(place.min(bytes.len()));
        stream.send_data(piece, false).map_err(|err| Status::broken(&err))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_split_where_they_end() {
        let mut bytes = BytesMut::new();
        bytes.put(framed(b"one"));
        bytes.put(framed(b""));
        bytes.put_slice(&framed(b"three")[..7]);
        assert_eq!(split(&mut bytes), Ok(Some(Bytes::from_static(b"one"))));
        assert_eq!(split(&mut bytes), Ok(Some(Bytes::new())));
        assert_eq!(split(&mut bytes), Ok(None));
        bytes.put_slice(b"ree");
        assert_eq!(split(&mut bytes), Ok(Some(Bytes::from_static(b"three"))));
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_comes() {
        let mut bytes = BytesMut::from(&[0, 0xff, 0, 0, 0][..]);
        assert_eq!(split(&mut bytes).unwrap_err().code, Code::ResourceExhausted as i32);
        let mut bytes = BytesMut::from(&[1, 0, 0, 0, 0][..]);
        assert_eq!(split(&mut bytes).unwrap_err().code, Code::Unimplemented as i32);
    }
}
