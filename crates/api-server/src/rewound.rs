//! The stream that hyper serves: bytes are put back in front of it, and a client that still sends gets time behind it.
//!
//! Closing a socket with bytes unread resets it: a client that is refused while it still sends would see a broken pipe
//! instead of the answer. hyper closes so as soon as a handler leaves a body unread. Here its shutdown lasts until the
//! client has seen the end, too, within limits.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

/// How long a client that is refused may go on sending; Go's server waits as long.
const LINGER: Duration = Duration::from_millis(500);

/// How much of it is read, in bytes.
const LINGER_LIMIT: usize = 16 << 20;

/// Whether a client may still be sending what nobody reads; shared by a stream and the bodies of its requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread(Arc<AtomicBool>);

impl Unread {
    /// Notes whether there is something to come. One task serves a connection, so that nothing is ordered by this.
    pub(crate) fn set(&self, unread: bool) {
        self.0.store(unread, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream with bytes put back in front.
pub(crate) struct Rewound<S> {
    bytes: Vec<u8>,
    taken: usize,
    stream: S,
    unread: Unread,
    /// Exists once our side of the stream has ended.
    linger: Option<Linger>,
}

/// The wait for a client that still sends.
struct Linger {
    deadline: Pin<Box<Sleep>>,
    left: usize,
}

impl<S> Rewound<S> {
    /// A stream that begins with `bytes`.
    pub(crate) fn new(bytes: Vec<u8>, stream: S) -> Rewound<S> {
        Rewound { bytes, taken: 0, stream, unread: Unread::default(), linger: None }
    }

    /// Where it is noted whether a request's body is still to come.
    pub(crate) fn unread(&self) -> Unread {
        self.unread.clone()
    }

    /// The stream.
    pub(crate) fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream, once the bytes in front have been read; hyper reads them before anything else.
    pub(crate) fn into_stream(self) -> S {
        self.stream
    }
}

/// Writes the last bytes of a connection, and waits until the client has ended it, too, or has had its time.
pub(crate) async fn farewell(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(LINGER_LIMIT as u64);
    // The client has its answer; how it ends, or whether it does, is its own affair.
    let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    Ok(())
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.taken == this.bytes.len() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let length = buffer.remaining().min(this.bytes.len() - this.taken);
        buffer.put_slice(&this.bytes[this.taken..this.taken + length]);
        this.taken += length;
        if this.taken == this.bytes.len() {
            this.bytes = Vec::new();
            this.taken = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        if !this.unread.get() {
            return Poll::Ready(Ok(()));
        }
        let start = || Linger { deadline: Box::pin(tokio::time::sleep(LINGER)), left: LINGER_LIMIT };
        this.linger.get_or_insert_with(start).poll_drain(&mut this.stream, cx).map(Ok)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Linger {
    /// Reads what comes, until nothing more does or the client has had its share.
    fn poll_drain(&mut self, stream: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 16 << 10];
        while self.left > 0 && self.deadline.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            // The answer was written: how the client ends is its own affair.
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer));
            match buffer.filled().len() {
                length @ 1.. if read.is_ok() => self.left = self.left.saturating_sub(length),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}
