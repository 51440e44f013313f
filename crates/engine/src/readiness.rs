//! Descriptors that the runtime waits for.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime wait for a descriptor.
// Deprecated because a type could close its descriptor behind the runtime's back (tokio#8587). An OwnedFd cannot, and
// the function that replaces it is unsafe, which is for crate `sys` alone.
#[allow(deprecated)]
pub(crate) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}
