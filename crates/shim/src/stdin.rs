//! The way of a process's input: a bounded queue before a pipe or terminal that never blocks us.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;

/// Bytes that wait for the process at most; then its clients are not read.
const QUEUE_MAX_BYTES: usize = 64 * 1024;

/// Where clients' input goes.
pub(crate) struct Input {
    /// Gone once the process or the last client has closed it.
    fd: Option<Rc<OwnedFd>>,
    queue: VecDeque<u8>,
    /// Close it when the queue is empty.
    ending: bool,
}

impl Input {
    /// The input of a process; `fd` must be non-blocking.
    pub(crate) fn new(fd: Rc<OwnedFd>) -> Input {
        Input { fd: Some(fd), queue: VecDeque::new(), ending: false }
    }

    /// A process that reads nothing from us.
    pub(crate) fn none() -> Input {
        Input { fd: None, queue: VecDeque::new(), ending: true }
    }

    /// Our end, if it is open.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(|fd| fd.as_fd())
    }

    /// How much may be pushed. Where nobody reads any more everything may: it goes nowhere.
    pub(crate) fn room(&self) -> usize {
        if self.fd.is_none() { usize::MAX } else { QUEUE_MAX_BYTES.saturating_sub(self.queue.len()) }
    }

    /// Passes bytes on.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.fd.is_some() && !self.ending {
            self.queue.extend(bytes);
            self.flush();
        }
    }

    /// Ends the input behind what is queued.
    pub(crate) fn end(&mut self) {
        self.ending = true;
        self.flush();
    }

    /// Ends the input at once: the process is gone.
    pub(crate) fn close(&mut self) {
        *self = Input::none();
    }

    /// The descriptor, if it is to be awaited for writing.
    pub(crate) fn blocked_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().filter(|_| !self.queue.is_empty()).map(|fd| fd.as_fd())
    }

    /// Writes what the process takes.
    pub(crate) fn flush(&mut self) {
        while let Some(fd) = self.fd.as_ref().filter(|_| !self.queue.is_empty()) {
            match rustix::io::write(&**fd, self.queue.as_slices().0) {
                Ok(written) => {
                    self.queue.drain(..written);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody has the other end: the process closed its input.
                Err(_) => self.close(),
            }
        }
        self.queue = VecDeque::new();
        if self.ending {
            self.fd = None;
        }
    }
}
