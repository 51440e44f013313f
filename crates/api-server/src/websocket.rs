//! Web sockets (RFC 6455), the server's side: a handshake, and frames around bytes.
//!
//! ```text
//! client  GET /containers/x/attach/ws?stream=1   Upgrade: websocket, Sec-WebSocket-Key: K
//! daemon  HTTP/1.1 101 Switching Protocols       Sec-WebSocket-Accept: base64(SHA-1(K + GUID))
//! client  == masked frames ==>  daemon  == bytes ==>  shim
//!         <== frames ========           <== bytes ==
//! ```
//!
//! As dockerd's: the origin is not looked at, what comes in may be text or binary, in one frame or several, and need not be
//! UTF-8; what goes out is one whole frame for what came at once, and at the end a closing frame.

use std::io;
use std::time::Duration;

use engine_api::versions::ApiVersion;
use http::StatusCode;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::response::{self, Answer};

/// What every server appends to the client's key (RFC 6455, 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The version that there is.
const VERSION: &str = "13";

/// What is read at once of the container's output.
const PIECE_BYTES: usize = 32 << 10;

/// How long a client may take to end the connection after its end was announced.
const LINGER: Duration = Duration::from_secs(2);

/// The longest control frame (RFC 6455, 5.5).
const CONTROL_MAX_BYTES: usize = 125;

/// Kinds of frames (RFC 6455, 11.8).
const TEXT: u8 = 1;
/// As above.
const BINARY: u8 = 2;
/// As above.
const CLOSE: u8 = 8;
/// As above.
const PING: u8 = 9;
/// As above.
const PONG: u8 = 10;

/// The normal closure (RFC 6455, 7.4.1).
const NORMAL: [u8; 2] = 1000_u16.to_be_bytes();
/// A client that breaks the protocol.
const PROTOCOL_ERROR: [u8; 2] = 1002_u16.to_be_bytes();

/// A handshake that succeeds.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    accept: HeaderValue,
    protocol: Option<HeaderValue>,
    /// The kind of frames that the client gets.
    kind: u8,
}

impl Accepted {
    /// Judges the client's request. The refusals are those of dockerd's library.
    pub(crate) fn of(headers: &HeaderMap, version: ApiVersion) -> Result<Accepted, Box<Answer>> {
        let text =
            |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
        let refused = |words: &'static str| Err(Box::new(response::text(StatusCode::BAD_REQUEST, words)));
        let upgrades = text(CONNECTION).to_ascii_lowercase().contains("upgrade");
        if !text(UPGRADE).eq_ignore_ascii_case("websocket") || !upgrades {
            return refused("not websocket protocol");
        }
        let key = text(SEC_WEBSOCKET_KEY);
        if key.is_empty() {
            return refused("mismatch challenge/response");
        }
        if text(SEC_WEBSOCKET_VERSION) != VERSION {
            let mut answer = response::text(StatusCode::BAD_REQUEST, "missing or bad WebSocket Version");
            answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
            return Err(Box::new(answer));
        }
        let protocol = text(SEC_WEBSOCKET_PROTOCOL);
        if protocol.contains(',') {
            // There is none to choose among several.
            return refused("");
        }
        let hash = Sha1::digest(format!("{key}{GUID}"));
        let accept = HeaderValue::try_from(engine_api::auth::encode_standard(&hash));
        let protocol = HeaderValue::from_str(protocol).ok().filter(|protocol| !protocol.is_empty());
        let kind = if version.before(28) { TEXT } else { BINARY };
        Ok(Accepted { accept: accept.expect("base64 is fit for a header"), protocol, kind })
    }

    /// Adds the headers that only this handshake's answer has.
    pub(crate) fn headers(&self, headers: &mut HeaderMap) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        if let Some(protocol) = &self.protocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol.clone());
        }
    }

    /// Answers the request, and then carries bytes until both have ended.
    pub(crate) async fn serve(
        &self,
        mut client: impl AsyncRead + AsyncWrite + Unpin,
        already_read: Vec<u8>,
        container: UnixStream,
    ) -> io::Result<()> {
        let mut head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n".to_vec();
        let mut headers = HeaderMap::new();
        self.headers(&mut headers);
        for (name, value) in &headers {
            let name = if name == SEC_WEBSOCKET_ACCEPT { "Sec-WebSocket-Accept" } else { "Sec-WebSocket-Protocol" };
            head.extend_from_slice(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        head.extend_from_slice(b"\r\n");
        client.write_all(&head).await?;
        self.relay(client, already_read, container).await
    }

    /// Carries bytes until the container's output has ended, or the client is gone.
    pub(crate) async fn relay(
        &self,
        client: impl AsyncRead + AsyncWrite,
        already_read: Vec<u8>,
        container: UnixStream,
    ) -> io::Result<()> {
        let (from_client, mut to_client) = tokio::io::split(client);
        let (mut from_container, to_container) = container.into_split();
        // Answers to what the client says of the connection itself go between the frames of output.
        let (replies, mut to_reply) = mpsc::channel(4);
        let output = async {
            let mut piece = vec![0; PIECE_BYTES];
            loop {
                tokio::select! {
                    Some((kind, payload)) = to_reply.recv() => {
                        let payload: Vec<u8> = payload;
                        send(&mut to_client, kind, &payload).await?;
                    }
                    length = from_container.read(&mut piece) => match length? {
                        0 => {
                            send(&mut to_client, CLOSE, &NORMAL).await?;
                            return to_client.shutdown().await;
                        }
                        length => send(&mut to_client, self.kind, &piece[..length]).await?,
                    },
                }
            }
        };
        let input = take_input(Frames { from: from_client, bytes: already_read }, to_container, replies);
        tokio::pin!(input, output);
        let ended = tokio::select! {
            ended = &mut output => ended,
            // Its input has ended, or the client is gone: the output says which.
            _ = &mut input => return output.await,
        };
        ended?;
        // The client has its closing frame, and answers it or not.
        let _ = tokio::time::timeout(LINGER, input).await;
        Ok(())
    }
}

/// The client's frames.
struct Frames<R> {
    from: R,
    /// Read and not yet taken.
    bytes: Vec<u8>,
}

/// The head of a frame.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    kind: u8,
    length: u64,
    /// Absent in what no client may send.
    mask: Option<[u8; 4]>,
    /// Its own length.
    head_bytes: usize,
}

/// Passes the payload of frames on until the last.
async fn take_input<C: AsyncRead>(
    mut frames: Frames<ReadHalf<C>>,
    mut to: impl AsyncWrite + Unpin,
    replies: mpsc::Sender<(u8, Vec<u8>)>,
) -> io::Result<()> {
    while let Some(head) = frames.head().await? {
        let Some(mask) = head.mask else {
            // Nobody is there to be told when this fails.
            let _ = replies.send((CLOSE, PROTOCOL_ERROR.to_vec())).await;
            break;
        };
        match head.kind {
            CLOSE => break,
            PING | PONG => {
                let mut payload = Vec::new();
                let keep = |piece: &[u8]| payload.extend_from_slice(&piece[..piece.len().min(CONTROL_MAX_BYTES)]);
                frames.payload(head.length, mask, keep).await?;
                payload.truncate(CONTROL_MAX_BYTES);
                if head.kind == PING && replies.send((PONG, payload)).await.is_err() {
                    break;
                }
            }
            _ => frames.pass_on(head.length, mask, &mut to).await?,
        }
    }
    to.shutdown().await
}

impl<C: AsyncRead> Frames<ReadHalf<C>> {
    /// The next frame; `None` at the end of the connection.
    async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(head) = parse_head(&self.bytes) {
                self.bytes.drain(..head.head_bytes);
                return Ok(Some(head));
            }
            if self.from.read_buf(&mut self.bytes).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Takes a frame's payload, in the pieces in which it comes.
    async fn payload(&mut self, length: u64, mask: [u8; 4], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            let piece = self.piece(&mut left, length, mask).await?;
            take(&piece);
        }
        Ok(())
    }

    async fn pass_on(&mut self, length: u64, mask: [u8; 4], to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            let piece = self.piece(&mut left, length, mask).await?;
            to.write_all(&piece).await?;
        }
        Ok(())
    }

    async fn piece(&mut self, left: &mut u64, length: u64, mask: [u8; 4]) -> io::Result<Vec<u8>> {
        if self.bytes.is_empty() && self.from.read_buf(&mut self.bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let count = usize::try_from(*left).unwrap_or(usize::MAX).min(self.bytes.len());
        let behind = self.bytes.split_off(count);
        let mut piece = std::mem::replace(&mut self.bytes, behind);
        let done = length - *left;
        for (at, byte) in piece.iter_mut().enumerate() {
            *byte ^= mask[(done as usize + at) % 4];
        }
        *left -= count as u64;
        Ok(piece)
    }
}

/// The head of the frame in front; `None` if more bytes are needed (RFC 6455, 5.2).
fn parse_head(bytes: &[u8]) -> Option<Head> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (length, length_bytes) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
        // The highest bit is none.
        127 => (u64::from_be_bytes(*rest.first_chunk()?) & (u64::MAX >> 1), 8),
        length => (u64::from(length), 0),
    };
    let masked = second & 0x80 != 0;
    let mask = if masked { Some(*rest[length_bytes..].first_chunk()?) } else { None };
    Some(Head { kind: first & 0xf, length, mask, head_bytes: 2 + length_bytes + if masked { 4 } else { 0 } })
}

/// Sends a whole frame.
async fn send<C: AsyncWrite>(to: &mut WriteHalf<C>, kind: u8, payload: &[u8]) -> io::Result<()> {
    to.write_all(&frame(kind, payload)).await?;
    to.flush().await
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | kind];
    match payload.len() {
        length @ 0..126 => frame.push(length as u8),
        length @ 126..0x1_0000 => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests;
