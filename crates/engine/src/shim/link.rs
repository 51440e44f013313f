//! The connection to one shim.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use errdefs::ErrorKind;
use oci::ContainerId;
use shim_api::frame::{Decoder, encode};
use shim_api::{Answer, Call, Failure, Message, Request};
use sys::socket::Received;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::Observation;
use crate::sync::lock;

/// How long a shim may take to take a frame, or to answer what it answers at once. It is one thread that never blocks
/// for long: who does not answer after this time is stopped or stuck in the kernel.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How much is read at a time: facts and answers are far smaller.
const READ_BYTES: usize = 4096;

/// What a shim said to a call.
pub type Outcome = Result<Answer, Failure>;

/// The connection; calls may be made from anywhere at once.
pub struct Link {
    socket: Arc<UnixStream>,
    container: ContainerId,
    sending: tokio::sync::Mutex<()>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// Descriptors that came with answers whose askers have not fetched them yet.
    descriptors: Vec<OwnedFd>,
    askers: HashMap<u64, oneshot::Sender<Outcome>>,
    closed: bool,
}

/// The half that reads; [`Reader::run`] is a task.
pub struct Reader {
    socket: Arc<UnixStream>,
    container: ContainerId,
    observations: mpsc::UnboundedSender<Observation>,
}

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The shim answered that it cannot be done.
    #[error(transparent)]
    Refused(Failure),
    /// The shim is not there any more.
    #[error("the container's shim has closed its connection")]
    Closed,
    /// The shim did not answer in time.
    #[error("the container's shim does not answer")]
    Timeout,
    /// What it lends came without descriptors.
    #[error("the daemon has no descriptors left for what the container's shim lends")]
    Cut,
    /// The frame could not be sent.
    #[error("send to the container's shim")]
    Send(#[source] io::Error),
}

impl CallError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CallError::Refused(failure) => failure.kind,
            CallError::Closed | CallError::Timeout | CallError::Cut | CallError::Send(_) => ErrorKind::Internal,
        }
    }
}

impl Link {
    /// A connection over `socket`, whose shim owns `container`.
    pub fn open(
        socket: std::os::unix::net::UnixStream,
        container: ContainerId,
        observations: mpsc::UnboundedSender<Observation>,
    ) -> io::Result<(Link, Reader)> {
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UnixStream::from_std(socket)?);
        let reader = Reader { socket: socket.clone(), container: container.clone(), observations };
        let link = Link { socket, container, sending: tokio::sync::Mutex::new(()), waiting: Mutex::default() };
        Ok((link, reader))
    }

    /// Makes one call, with descriptors, and waits for its answer.
    pub async fn call(&self, call: Call, descriptors: Vec<OwnedFd>) -> Result<Answer, CallError> {
        let mut answers = self.send(vec![(call, descriptors)]).await?;
        let answer = answers.pop().expect("one call gives one answer");
        Link::answer(answer, ANSWER_TIMEOUT).await
    }

    /// Asks for copies of what the shim keeps to lend it. One caller at a time; the shim speaks version 8.
    pub async fn lend(&self) -> Result<Vec<OwnedFd>, CallError> {
        match self.call(Call::Lend, vec![]).await? {
            Answer::Lent { descriptors } => {
                let mut arrived = std::mem::take(&mut lock(&self.waiting).descriptors);
                if arrived.len() < descriptors as usize {
                    return Err(CallError::Cut);
                }
                arrived.truncate(descriptors as usize);
                Ok(arrived)
            }
            _ => Err(CallError::Closed),
        }
    }

    /// Waits for an answer to [`Link::send`].
    pub async fn answer(answer: oneshot::Receiver<Outcome>, timeout: Duration) -> Result<Answer, CallError> {
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(outcome)) => outcome.map_err(CallError::Refused),
            Ok(Err(_)) => Err(CallError::Closed),
            Err(_) => Err(CallError::Timeout),
        }
    }

    /// Sends several calls in one write; answers where their answers will arrive, in the same order.
    pub async fn send(&self, calls: Vec<(Call, Vec<OwnedFd>)>) -> Result<Vec<oneshot::Receiver<Outcome>>, CallError> {
        let (mut bytes, mut descriptors, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        // Numbers are given in the order of sending, so that descriptors and frames of two callers do not mix.
        let sending = self.sending.lock().await;
        for (call, mut with) in calls {
            let (seq, answer) = self.expect()?;
            let container = self.container.clone();
            let count = u32::try_from(with.len()).expect("a call has few descriptors");
            bytes.extend(encode(&Request { seq, container, descriptors: count, call }));
            descriptors.append(&mut with);
            answers.push(answer);
        }
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, self.write(&bytes, &descriptors)).await;
        drop(sending);
        match sent {
            Ok(Ok(())) => Ok(answers),
            Ok(Err(err)) if err.kind() == io::ErrorKind::BrokenPipe => Err(CallError::Closed),
            Ok(Err(err)) => Err(CallError::Send(err)),
            Err(_) => Err(CallError::Timeout),
        }
    }

    fn expect(&self) -> Result<(u64, oneshot::Receiver<Outcome>), CallError> {
        let mut waiting = lock(&self.waiting);
        if waiting.closed {
            return Err(CallError::Closed);
        }
        let (asker, answer) = oneshot::channel();
        let seq = waiting.next;
        waiting.next += 1;
        waiting.askers.insert(seq, asker);
        Ok((seq, answer))
    }

    async fn write(&self, mut bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
        let mut borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        while !bytes.is_empty() {
            let send = || sys::socket::send(self.socket.as_fd(), bytes, &borrowed);
            match self.socket.try_io(Interest::WRITABLE, send) {
                Ok(sent) => {
                    bytes = &bytes[sent..];
                    // They went with the first byte.
                    borrowed.clear();
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => self.socket.writable().await?,
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    fn take_asker(&self, seq: u64) -> Option<oneshot::Sender<Outcome>> {
        lock(&self.waiting).askers.remove(&seq)
    }

    fn close(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.closed = true;
        // Dropped askers tell their callers.
        waiting.askers.clear();
    }
}

impl Reader {
    /// Reads until the connection is closed.
    pub async fn run(self, link: &Link) {
        if let Err(err) = self.read(link).await {
            warn!(container = %self.container, err = errdefs::chain(&*err), "the connection to the shim failed");
        }
        link.close();
    }

    async fn read(&self, link: &Link) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut decoder = Decoder::default();
        let mut buffer = [0; READ_BYTES];
        loop {
            self.socket.readable().await?;
            let mut descriptors = Vec::new();
            let receive = || sys::socket::receive_cut(self.socket.as_fd(), &mut buffer, &mut descriptors);
            let received = match self.socket.try_io(Interest::READABLE, receive) {
                Ok(Received { bytes: 0, .. }) => return Ok(()),
                Ok(received) => received,
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => continue,
                Err(err) if err.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(err) => return Err(err.into()),
            };
            decoder.push(&buffer[..received.bytes]);
            if received.cut {
                // The process has no room for more. Some of them are as good as none: only this loan fails.
                descriptors.clear();
            }
            if received.cut || !descriptors.is_empty() {
                let mut waiting = lock(&link.waiting);
                // Whoever asked before and did not wait for the answer left some: they are of no use to anybody.
                waiting.descriptors = descriptors;
            }
            while let Some(message) = decoder.next_message::<Message>()? {
                self.deliver(link, message);
            }
        }
    }

    fn deliver(&self, link: &Link, message: Message) {
        let observation = match message {
            Message::Fact(fact) => Observation::Fact(fact),
            Message::Reply { seq, result } => {
                let Some(asker) = link.take_asker(seq) else { return };
                if !matches!(result, Ok(Answer::Started(_) | Answer::Hello { state: Some(_), .. })) {
                    // An error says that the caller waits no longer.
                    let _ = asker.send(result);
                    return;
                }
                Observation::Answered { container: self.container.clone(), outcome: result, asker }
            }
        };
        // An error says that the supervisor is gone: the daemon ends.
        let _ = self.observations.send(observation);
    }
}

#[cfg(test)]
mod tests;
