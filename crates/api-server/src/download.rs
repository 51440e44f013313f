//! An answer's body as something that a blocking thread can write.

use std::io::{self, Write};
use std::time::Duration;

use engine::ops::archive::Finish;
use hyper::body::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// How many pieces may wait for the client.
const DOWNLOAD_DEPTH: usize = 2;

/// How long a client may take to read anything at all: what is written holds up others who want the same container.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);

/// The blocking end. One that is dropped before [`Finish::finish`] has failed, and the client learns it.
pub(crate) struct Download {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
    whole: bool,
}

/// Makes both ends. Within the runtime.
pub(crate) fn channel() -> (Download, mpsc::Receiver<io::Result<Bytes>>) {
    let (chunks, receiver) = mpsc::channel(DOWNLOAD_DEPTH);
    (Download { chunks, runtime: Handle::current(), whole: false }, receiver)
}

impl Write for Download {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let send = self.chunks.send_timeout(Ok(Bytes::copy_from_slice(bytes)), PROGRESS_TIMEOUT);
        match self.runtime.block_on(send) {
            Ok(()) => Ok(bytes.len()),
            Err(err) => Err(io::Error::new(io::ErrorKind::BrokenPipe, err.to_string())),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Finish for Download {
    fn finish(mut self) -> io::Result<()> {
        self.whole = true;
        Ok(())
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if !self.whole {
            // A queue that is full belongs to a client that reads nothing: it is cut off by the end of the channel.
            let _ = self.chunks.try_send(Err(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pieces(write: impl FnOnce(Download) + Send + 'static) -> Vec<Result<Vec<u8>, io::ErrorKind>> {
        let (download, mut receiver) = channel();
        let writer = tokio::task::spawn_blocking(move || write(download));
        let mut pieces = Vec::new();
        while let Some(piece) = receiver.recv().await {
            pieces.push(piece.map(|bytes| bytes.to_vec()).map_err(|err| err.kind()));
        }
        writer.await.unwrap();
        pieces
    }

    #[tokio::test]
    async fn only_what_was_finished_is_whole() {
        let text = |text: &str| Ok(text.as_bytes().to_vec());
        let whole = pieces(|mut download| {
            download.write_all(b"a").unwrap();
            download.write_all(b"b").unwrap();
            download.finish().unwrap();
        });
        assert_eq!(whole.await, [text("a"), text("b")]);
        let cut = pieces(|mut download| download.write_all(b"a").unwrap());
        assert_eq!(cut.await, [text("a"), Err(io::ErrorKind::UnexpectedEof)]);
    }

    #[tokio::test]
    async fn who_writes_for_nobody_learns_it() {
        let (mut download, receiver) = channel();
        drop(receiver);
        let written = tokio::task::spawn_blocking(move || download.write(b"a"));
        assert_eq!(written.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
