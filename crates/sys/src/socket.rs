//! Unix sockets: descriptors as messages, who is at the other end, and what it has read. Any socket: nobody at the other end.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::EventfdFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Descriptors in one message at most: SCM_MAX_FD is 253, and nobody of ours sends more than these.
pub const FDS_MAX: usize = 64;

/// Makes a socket drop every packet that reaches it before it looks at it: to a listening TCP socket nobody can connect, and
/// whoever tries goes on trying. As long as it lives; packets that are there already stay.
///
/// One program of the kernel's is shared by all sockets of this process. A program of its own for each would be compiled each
/// time, for which the kernel stops all processors: of 1,000 sockets that was half of what holding them took.
pub fn drop_packets(socket: BorrowedFd<'_>) -> io::Result<()> {
    static PROGRAM: OnceLock<Option<OwnedFd>> = OnceLock::new();
    // Who may not load one (bpf(2)) has one for each socket.
    if let Some(program) = PROGRAM.get_or_init(|| crate::bpf::load_dropping_filter().ok()) {
        return attach_program(socket, program.as_fd());
    }
    // The whole program: keep 0 bytes.
    attach_filter(socket, &mut [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }])
}

/// Ends what [`drop_packets`] has begun.
pub fn accept_packets(socket: BorrowedFd<'_>) -> io::Result<()> {
    let nothing: libc::c_int = 0;
    // SAFETY: the kernel reads one int, which outlives the call, and looks at no value.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_FILTER,
            (&raw const nothing).cast(),
            size_of_val(&nothing) as libc::socklen_t,
        )
    };
    crate::check(result.into()).map(drop)
}

/// Likewise a program that is loaded.
fn attach_program(socket: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let number = program.as_raw_fd();
    // SAFETY: the kernel reads one int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            (&raw const number).cast(),
            size_of_val(&number) as libc::socklen_t,
        )
    };
    crate::check(result.into()).map(drop)
}

/// Has the kernel ask this program how much of each packet to keep.
pub(crate) fn attach_filter(socket: BorrowedFd<'_>, filter: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    let size = size_of_val(&program) as libc::socklen_t;
    // SAFETY: the kernel copies the program, whose instructions live until then, and checks it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    crate::check(result.into()).map(drop)
}

/// How many bytes the other end has yet to read, and what the kernel keeps with them: 0 when it has read everything (unix(7),
/// SIOCOUTQ). `None` for a socket of another family, where bytes count as long as they are on their way.
///
/// Whoever is woken by a reader has the last word of it: the kernel wakes him while it still counts 1 for what was read
/// (net/core/sock.c, sock_wfree), and never again for that.
pub fn unread(socket: BorrowedFd<'_>) -> io::Result<Option<usize>> {
    if rustix::net::sockopt::socket_domain(socket)? != rustix::net::AddressFamily::UNIX {
        return Ok(None);
    }
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int, which outlives the call.
    crate::check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) }.into())?;
    Ok(Some(usize::try_from(bytes).unwrap_or(0)).map(|bytes| if bytes == 1 { 0 } else { bytes }))
}

/// Sends `bytes` (not empty) and `fds` with it; answers the number of bytes sent, which can be fewer on a stream.
///
/// The descriptors travel with the first byte. Never raises SIGPIPE.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let sent =
        rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL))?;
    Ok(sent)
}

/// Sends `bytes` so that no read of the other end gets them together with what is sent later, where it is a unix socket; never
/// blocks.
///
/// A read ends behind bytes with which a descriptor came (unix(7), SCM_RIGHTS: a barrier). Whoever reads without asking for
/// descriptors never has it; it is good for nothing. What comes later is better sent when these are [read](unread): to a
/// reader that is told of edges a short read is the end of what is there (epoll(7)).
///
/// Where there is no descriptor to be had they are sent as anything is: bytes that are read together are better than none.
pub fn send_apart(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    send_before(socket, bytes, rustix::event::eventfd(0, EventfdFlags::CLOEXEC))
}

/// With the barrier, if there is one.
fn send_before(socket: BorrowedFd<'_>, bytes: &[u8], barrier: Result<OwnedFd, Errno>) -> io::Result<usize> {
    let barrier = match barrier {
        // This process, or the system, has as many as it may have, or no memory for another (eventfd(2)).
        Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => None,
        barrier => Some(barrier?),
    };
    let fd = barrier.as_ref().map(AsFd::as_fd);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if fd.is_some() {
        // The room is for one.
        let _ = ancillary.push(SendAncillaryMessage::ScmRights(fd.as_slice()));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent = match rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags)) {
        // More descriptors of ours are on their way than a process may have.
        Err(Errno::TOOMANYREFS) => rustix::io::retry_on_intr(|| rustix::net::send(socket, bytes, flags)),
        sent => sent,
    };
    Ok(sent?)
}

/// Receives bytes into `buffer` and descriptors, close-on-exec, appended to `fds`. 0 is the end of the stream.
///
/// A message whose descriptors were cut off is an error, and is gone: see [`receive_cut`].
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let received = receive_cut(socket, buffer, fds)?;
    if received.cut {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    Ok(received.bytes)
}

/// What [`receive_cut`] has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How many bytes are in the buffer. 0 is the end of the stream.
    pub bytes: usize,
    /// Descriptors are missing that came with them: more than [`FDS_MAX`], or than this process may still open. The kernel
    /// has closed them (recvmsg(2), MSG_CTRUNC).
    pub cut: bool,
}

/// [`receive`] for those who go on with the bytes where descriptors were cut off.
pub fn receive_cut(socket: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok(Received { bytes: received.bytes, cut: received.flags.contains(rustix::net::ReturnFlags::CTRUNC) })
}

/// Who opened the other end of a connected unix socket, as it was at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process number, 0 if it is outside our PID namespace.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// SO_PEERCRED.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    use std::os::fd::AsRawFd;
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = std::mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the buffer is a ucred and its length is given; the call writes at most that.
    crate::check(
        unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut credentials).cast(),
                &raw mut length,
            )
        }
        .into(),
    )?;
    Ok(Peer { pid: credentials.pid, uid: credentials.uid, gid: credentials.gid })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn descriptors_arrive_with_their_bytes() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut lent, kept) = UnixStream::pair().unwrap();
        send(left.as_fd(), b"take", &[kept.as_fd()]).unwrap();
        let (mut bytes, mut fds) = ([0; 8], Vec::new());
        assert_eq!(receive(right.as_fd(), &mut bytes, &mut fds).unwrap(), 4);
        lent.write_all(b"x").unwrap();
        let mut through = [0; 1];
        assert_eq!(rustix::io::read(&fds[0], &mut through).unwrap(), 1);
        drop(left);
        assert_eq!(receive(right.as_fd(), &mut bytes, &mut fds).unwrap(), 0);
    }

    #[test]
    fn bytes_outlive_descriptors_that_there_is_no_room_for() {
        let (left, right) = UnixStream::pair().unwrap();
        // More than ours ever send, and than the receiver's room is rounded up to.
        const MANY: usize = 2 * FDS_MAX;
        let many = [left.as_fd(); MANY];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MANY))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&many)));
        sendmsg(&left, &[IoSlice::new(b"take")], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        let (mut bytes, mut fds) = ([0; 8], Vec::new());
        let received = receive_cut(right.as_fd(), &mut bytes, &mut fds).unwrap();
        assert_eq!((received, &bytes[..4]), (Received { bytes: 4, cut: true }, b"take".as_slice()));
        send(left.as_fd(), b"next", &[left.as_fd()]).unwrap();
        assert_eq!(receive_cut(right.as_fd(), &mut bytes, &mut fds).unwrap(), Received { bytes: 4, cut: false });
    }

    #[test]
    fn what_is_sent_apart_is_read_apart() {
        let (left, mut right) = UnixStream::pair().unwrap();
        let mut bytes = [0; 64];
        for _ in 0..3 {
            assert_eq!(send_apart(left.as_fd(), b"head").unwrap(), 4);
            send(left.as_fd(), b"first", &[]).unwrap();
            send(left.as_fd(), b"second", &[]).unwrap();
            let read: Vec<Vec<u8>> =
                (0..2).map(|_| right.read(&mut bytes).map(|count| bytes[..count].to_vec()).unwrap()).collect();
            assert_eq!(read, [b"head".to_vec(), b"firstsecond".to_vec()]);
        }
        // Over TCP it is sent as anything is.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!(send_apart(client.as_fd(), b"head").unwrap(), 4);
        server.read_exact(&mut bytes[..4]).unwrap();
        assert_eq!(&bytes[..4], b"head");
    }

    #[test]
    fn what_cannot_be_sent_apart_is_sent() {
        let (left, mut right) = UnixStream::pair().unwrap();
        let mut bytes = [0; 64];
        for none in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
            assert_eq!(send_before(left.as_fd(), b"head", Err(none)).unwrap(), 4);
            assert_eq!(send_before(left.as_fd(), b"next", Err(none)).unwrap(), 4);
            let read = right.read(&mut bytes).unwrap();
            assert_eq!(&bytes[..read], b"headnext");
        }
        drop(right);
        // A client that has gone is one still.
        let gone = send_before(left.as_fd(), b"head", Err(Errno::MFILE)).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_is_being_read_is_read_for_whoever_the_reader_wakes() {
        let (left, mut right) = UnixStream::pair().unwrap();
        let looked = left.try_clone().unwrap();
        let (counts, mut seen) = (AtomicBool::new(true), BTreeSet::new());
        std::thread::scope(|scope| {
            let look = || {
                let mut seen = BTreeSet::new();
                while counts.load(Ordering::Relaxed) {
                    seen.insert(unread(looked.as_fd()).unwrap().unwrap());
                }
                seen
            };
            let looker = scope.spawn(look);
            for _ in 0..100_000 {
                (&left).write_all(b"x").unwrap();
                right.read_exact(&mut [0; 1]).unwrap();
            }
            counts.store(false, Ordering::Relaxed);
            seen = looker.join().unwrap();
        });
        // A message is more than its byte; anything between that and nothing would be a reader whom nobody wakes for again.
        assert!(seen.iter().all(|&bytes| bytes == 0 || bytes > 100), "{seen:?}");
    }

    #[test]
    fn the_peer_of_a_pair_is_ourselves() {
        let (left, _right) = UnixStream::pair().unwrap();
        let uid = rustix::process::getuid().as_raw();
        let peer = peer(left.as_fd()).unwrap();
        assert_eq!((peer.pid, peer.uid), (std::process::id() as i32, uid));
    }
}
