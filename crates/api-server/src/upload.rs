//! A request's body as something that a blocking thread can read.

use std::io::{self, Read};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::mpsc;

use crate::request::RequestBody;
use crate::status::Failure;

/// How many chunks may wait for the thread that reads.
///
/// hyper makes chunks of up to some 400 KiB; with two waiting, the socket and the unpacking never wait for each other.
const UPLOAD_DEPTH: usize = 2;

/// The asynchronous end. One that is dropped before [`Upload::end`] has failed: the client went away.
pub(crate) struct Upload(mpsc::Sender<Chunk>);

enum Chunk {
    Bytes(Bytes),
    Failed(String),
    End,
}

/// The blocking end.
pub(crate) struct UploadReader {
    chunks: mpsc::Receiver<Chunk>,
    current: Bytes,
    ended: bool,
}

/// Makes both ends.
pub(crate) fn channel() -> (Upload, UploadReader) {
    let (sender, chunks) = mpsc::channel(UPLOAD_DEPTH);
    (Upload(sender), UploadReader { chunks, current: Bytes::new(), ended: false })
}

impl Upload {
    /// Passes bytes on; answers whether anybody reads them.
    pub(crate) async fn send(&self, bytes: Bytes) -> bool {
        self.0.send(Chunk::Bytes(bytes)).await.is_ok()
    }

    /// Tells the reader that the body is broken.
    pub(crate) async fn fail(self, message: String) {
        // A reader that has gone needs no telling.
        let _ = self.0.send(Chunk::Failed(message)).await;
    }

    /// Tells the reader that this was all.
    pub(crate) async fn end(self) {
        // A reader that has gone needs no telling.
        let _ = self.0.send(Chunk::End).await;
    }
}

impl Read for UploadReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Chunk::Bytes(bytes)) => self.current = bytes,
                Some(Chunk::End) => self.ended = true,
                Some(Chunk::Failed(message)) => return Err(broken(message)),
                None => return Err(broken("the client went away".to_owned())),
            }
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

/// Carries the request's body, of which the `first` chunk was read, to the thread that unpacks it.
pub(crate) async fn feed(first: Option<Bytes>, body: RequestBody, upload: Upload) {
    feed_within(Duration::MAX, first, body, upload).await;
}

/// The same from a client that is given up when it sends nothing for so long.
pub(crate) async fn feed_within(patience: Duration, first: Option<Bytes>, mut body: RequestBody, upload: Upload) {
    let mut next: Result<_, Failure> = Ok(first);
    loop {
        let read_on = match next {
            Ok(Some(bytes)) => upload.send(bytes).await,
            Ok(None) => return upload.end().await,
            Err(failure) => return upload.fail(failure.message).await,
        };
        // What is behind the end of the archive does not matter.
        if !read_on {
            return;
        }
        next = match tokio::time::timeout(patience, body.chunk()).await {
            Ok(next) => next,
            Err(_) => return upload.fail("the client sends nothing".to_owned()).await,
        };
    }
}

fn broken(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader sees of "hello world" in three chunks, followed by what `last` does.
    fn read_all<F: Future<Output = ()>>(
        last: impl FnOnce(Upload) -> F + Send + 'static,
    ) -> (String, io::Result<usize>) {
        let (upload, mut reader) = channel();
        let sender = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async move {
                for chunk in ["hello ", "", "world"] {
                    assert!(upload.send(Bytes::from_static(chunk.as_bytes())).await);
                }
                last(upload).await;
            });
        });
        let mut text = String::new();
        let read = reader.read_to_string(&mut text);
        sender.join().unwrap();
        (text, read)
    }

    #[test]
    fn only_a_body_that_ended_is_whole() {
        assert_eq!(read_all(Upload::end).0, "hello world");
        let (_, failed) = read_all(|upload| upload.fail("cut off".to_owned()));
        assert_eq!(failed.unwrap_err().to_string(), "cut off");
        let (_, dropped) = read_all(async |upload| drop(upload));
        assert_eq!(dropped.unwrap_err().to_string(), "the client went away");
    }
}
