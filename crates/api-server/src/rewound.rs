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

use crate::serve::Client;

/// How long a client that is refused may go on sending; Go's server waits as long.
const LINGER: Duration = Duration::from_millis(500);

/// How much of it is read, in bytes.
const LINGER_LIMIT: usize = 16 << 20;

/// Something that a stream has to know of its requests, and they say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note(Arc<AtomicBool>);

impl Note {
    /// Says whether it is so. One task serves a connection, so that nothing is ordered by this.
    pub(crate) fn set(&self, is_so: bool) {
        self.0.store(is_so, Ordering::Relaxed);
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
    /// The client may still be sending what nobody reads.
    unread: Note,
    /// What is written next is the last that hyper writes.
    last_head: Note,
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
        Rewound { bytes, taken: 0, stream, unread: Note::default(), last_head: Note::default(), linger: None }
    }

    /// Where it is noted whether a request's body is still to come, and whether the head of an answer is the last.
    pub(crate) fn notes(&self) -> (Note, Note) {
        (self.unread.clone(), self.last_head.clone())
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

impl<S: Client> AsyncWrite for Rewound<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.last_head.get() {
            true => this.stream.poll_write_head(cx, bytes),
            false => Pin::new(&mut this.stream).poll_write(cx, bytes),
        }
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
        let this = self.get_mut();
        match slices.iter().find(|slice| this.last_head.get() && !slice.is_empty()) {
            Some(head) => this.stream.poll_write_head(cx, head),
            None => Pin::new(&mut this.stream).poll_write_vectored(cx, slices),
        }
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream as StdUnixStream;

    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn the_last_head_is_read_by_itself() {
        let (ours, mut theirs) = StdUnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = UnixStream::from_std(ours).unwrap();
        let mut stream = Rewound::new(Vec::new(), ours);
        let (_, last_head) = stream.notes();
        stream.write_all(b"answer").await.unwrap();
        last_head.set(true);
        stream.write_all(b" head").await.unwrap();
        let mut ours = stream.into_stream();
        ours.write_all(b"output").await.unwrap();
        let mut bytes = [0; 64];
        let read = theirs.read(&mut bytes).unwrap();
        assert_eq!(&bytes[..read], b"answer head");
        let read = theirs.read(&mut bytes).unwrap();
        assert_eq!(&bytes[..read], b"output");
    }
}
