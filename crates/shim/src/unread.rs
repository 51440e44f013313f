//! Whether the other end of a connection has read everything: told by the kernel, not looked for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Becomes readable when the other end of a unix socket has read something. The connection may have room all the time: only
/// an edge-triggered wait for writing is woken by a reader (af_unix.c, unix_write_space).
pub(crate) struct Unread(OwnedFd);

impl Unread {
    /// `None` if everything has been read, or the socket is none where that is known.
    pub(crate) fn watch(socket: BorrowedFd<'_>) -> io::Result<Option<Unread>> {
        if is_read(socket) {
            return Ok(None);
        }
        let unread = Unread(epoll::create(CreateFlags::CLOEXEC)?);
        epoll::add(&unread.0, socket, EventData::new_u64(0), EventFlags::OUT | EventFlags::ET)?;
        // What was read before it was watched for is seen by this look.
        Ok((!unread.is_read(socket)).then_some(unread))
    }

    /// Takes note of what woke it; whether everything has been read by now.
    pub(crate) fn is_read(&self, socket: BorrowedFd<'_>) -> bool {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // The look at the socket comes after: what is read between the two wakes it again.
        epoll::wait(&self.0, &mut events, Some(&now)).is_err() || is_read(socket)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn is_read(socket: BorrowedFd<'_>) -> bool {
    // A socket that cannot be asked is not waited for.
    sys::socket::unread(socket).ok().flatten().is_none_or(|bytes| bytes == 0)
}
