//! The one network interface that every network namespace has, and the options of netlink sockets.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Brings up the loopback interface of the calling thread's network namespace; the kernel then gives it its addresses.
pub fn loopback_up() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: ifreq is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_LOOPBACK) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, whose name is NUL-terminated.
    crate::check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }.into())?;
    Ok(())
}

/// The network namespace that a socket is in.
pub fn namespace_of(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // linux/sockios.h; not in libc.
    const SIOCGSKNS: libc::c_ulong = 0x894c;
    // SAFETY: SIOCGSKNS takes no argument, and answers a new descriptor, close-on-exec.
    let fd = crate::check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS as _) }.into())?;
    // SAFETY: the kernel made it for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as _) })
}

/// Keeps away from a netlink socket what the kernel tells about changes of the socket with this number.
pub fn ignore_sender(socket: BorrowedFd<'_>, number: u32) -> io::Result<()> {
    /// Where the sender's number is in struct nlmsghdr.
    const SENDER: u32 = 12;
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    // The filter loads words in network byte order; netlink writes them in the machine's.
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, SENDER),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, u32::from_be(number)),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    crate::socket::attach_filter(socket, &mut filter)
}

/// How long an answer of the kernel may take; it is normally there when the request has been sent.
const NETLINK_TIMEOUT: Duration = Duration::from_secs(10);

/// Lets the kernel explain refusals in words, repeat only headers of requests, and check dump filters strictly; reads end
/// after ten seconds. For a netlink socket.
pub fn netlink_options(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, libc::NETLINK_GET_STRICT_CHK] {
        // SAFETY: the option's value is the int that the last two arguments describe, which lives through the call.
        crate::check(
            unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_NETLINK,
                    option,
                    (&raw const on).cast(),
                    size_of_val(&on) as libc::socklen_t,
                )
            }
            .into(),
        )?;
    }
    set_socket_timeout(socket, Timeout::Recv, Some(NETLINK_TIMEOUT))?;
    Ok(())
}
