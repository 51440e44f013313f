//! Writing to a client whose connection we own, before or instead of handing it to a shim.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::readiness;

/// How long a client may take to read anything at all.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);

/// Docker's stream numbers.
pub(crate) const STDOUT: u8 = 1;
/// See [`STDOUT`].
pub(crate) const STDERR: u8 = 2;

/// Why a client gets no more.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Its connection cannot be used.
    #[error("use the client's connection")]
    Register(#[source] io::Error),
    /// It cannot be written to.
    #[error("write to the client")]
    Write(#[source] io::Error),
    /// It does not read.
    #[error("the client does not read")]
    Stuck,
}

/// A client's connection.
pub(crate) struct Sink(AsyncFd<OwnedFd>);

impl Sink {
    /// Takes a connection.
    pub(crate) fn new(client: OwnedFd) -> Result<Sink, StreamError> {
        rustix::io::ioctl_fionbio(&client, true).map_err(|err| StreamError::Register(err.into()))?;
        let registered = readiness::register(client, Interest::WRITABLE);
        registered.map(Sink).map_err(StreamError::Register)
    }

    /// Writes all of `bytes`.
    pub(crate) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StreamError> {
        while !bytes.is_empty() {
            let ready = tokio::time::timeout(PROGRESS_TIMEOUT, self.0.writable()).await;
            let mut ready = ready.map_err(|_| StreamError::Stuck)?.map_err(StreamError::Write)?;
            match ready.try_io(|fd| sys::socket::send(fd.as_fd(), bytes, &[])) {
                Ok(Ok(count)) => bytes = &bytes[count..],
                Ok(Err(err)) => return Err(StreamError::Write(err)),
                // Not ready after all.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Another descriptor of the connection.
    pub(crate) fn duplicate(&self) -> Result<OwnedFd, StreamError> {
        self.0.get_ref().try_clone().map_err(StreamError::Register)
    }

    /// Waits until the client has read everything, where that is known.
    ///
    /// A client may read the head of its answer with a reader of its own and go on with the bare connection: what lies beside
    /// the head then is lost to it.
    pub(crate) async fn until_read(&mut self) -> Result<(), StreamError> {
        let read = async {
            loop {
                let mut ready = self.0.writable().await?;
                if sys::socket::unread(self.0.as_fd())?.is_none_or(|bytes| bytes == 0) {
                    return io::Result::Ok(());
                }
                // Whoever reads is an event, however much room there was before (af_unix.c, unix_write_space); one that came
                // since this one is not cleared.
                ready.clear_ready();
            }
        };
        let read = tokio::time::timeout(PROGRESS_TIMEOUT, read).await;
        read.map_err(|_| StreamError::Stuck)?.map_err(StreamError::Write)
    }

    /// Gives the connection back.
    pub(crate) fn into_inner(self) -> Result<OwnedFd, StreamError> {
        Ok(self.0.into_inner())
    }
}

/// Appends `bytes` as a frame of Docker's multiplexed stream: number, three zeroes, length, bytes.
pub(crate) fn frame(stream: u8, bytes: &[u8], to: &mut Vec<u8>) {
    let length = u32::try_from(bytes.len()).expect("a line of a log is far below 4 GiB");
    to.extend([stream, 0, 0, 0]);
    to.extend(length.to_be_bytes());
    to.extend(bytes);
}

/// Whether the other end of a connection is still there, as far as the kernel knows.
pub(crate) fn is_open(stream: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A poll that fails says nothing: the connection counts as open.
    poll(&mut polled, Some(&now)).is_err() || !polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn frames_are_dockers() {
        let mut bytes = Vec::new();
        frame(STDERR, b"ab", &mut bytes);
        assert_eq!(bytes, [2, 0, 0, 0, 0, 0, 0, 2, b'a', b'b']);
    }

    #[tokio::test]
    async fn everything_arrives_however_slowly_it_is_read() {
        let (client, mut server) = UnixStream::pair().unwrap();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
        let read = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            server.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let mut sink = Sink::new(client.into()).unwrap();
        sink.write(&sent).await.unwrap();
        drop(sink.into_inner().unwrap());
        assert!(read.join().unwrap() == sent);
    }

    #[tokio::test]
    async fn what_comes_after_the_head_waits_for_its_reader() {
        let (client, mut server) = UnixStream::pair().unwrap();
        let mut sink = Sink::new(client.into()).unwrap();
        sink.until_read().await.unwrap();
        sink.write(b"head").await.unwrap();
        let mut waits = Box::pin(sink.until_read());
        let polled = std::future::poll_fn(|context| std::task::Poll::Ready(waits.as_mut().poll(context)));
        assert!(polled.await.is_pending());
        let mut buffer = [0; 64];
        assert_eq!(server.read(&mut buffer).unwrap(), 4);
        waits.await.unwrap();
        sink.write(b"rest").await.unwrap();
        assert_eq!(server.read(&mut buffer).unwrap(), 4);
    }

    #[test]
    fn a_closed_end_is_noticed() {
        let (client, server) = UnixStream::pair().unwrap();
        let client = client.into();
        assert!(is_open(&client));
        drop(server);
        assert!(!is_open(&client));
    }
}
