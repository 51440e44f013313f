//! Bodies of requests: bytes that are there, or pieces that are made while they are sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// What a body that is made while it is sent consists of. One whose queue closes before [`Piece::End`] was broken off, and
/// must not look like a whole one to the registry.
#[derive(Debug)]
pub(crate) enum Piece {
    Bytes(Bytes),
    End,
}

/// The body of a request.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// It can be sent again.
    Whole(Bytes),
    /// It can be sent once.
    Pieces {
        queue: mpsc::Receiver<Piece>,
        /// Bytes in all, if that is known.
        length: Option<u64>,
        /// Bytes that the connection took so far, for whoever watches whether it gets on.
        taken: Arc<AtomicU64>,
    },
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Outgoing::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Outgoing::Pieces { queue, taken, .. } => Poll::Ready(match ready!(queue.poll_recv(context)) {
                Some(Piece::Bytes(bytes)) => {
                    taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    Some(Ok(Frame::data(bytes)))
                }
                Some(Piece::End) => None,
                None => Some(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the body was broken off"))),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Outgoing::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Outgoing::Pieces { length, .. } => length.map(SizeHint::with_exact).unwrap_or_default(),
        }
    }
}
