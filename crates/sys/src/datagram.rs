//! Datagrams that know at which of this machine's addresses they arrived, and leave from one of them (ip(7), IP_PKTINFO; ipv6(7),
//! IPV6_PKTINFO).

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;

/// One of this machine's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    /// The address.
    pub address: IpAddr,
    /// The number of the link, of an address that means another one on each; else 0.
    pub link: u32,
}

/// A datagram that has been received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// How many bytes of it are in the buffer.
    pub bytes: usize,
    /// Who has sent it.
    pub from: SocketAddr,
    /// Where; none where an answer cannot come from there.
    pub at: Option<Local>,
}

/// Room for one message about an address, aligned as the kernel writes it.
#[repr(C)]
union Control {
    _aligned: libc::cmsghdr,
    bytes: [u8; 64],
}

/// Has [`receive`] told where datagrams arrive.
pub fn tell_addresses(socket: BorrowedFd<'_>) -> io::Result<()> {
    let (level, option) = match socket_domain(socket)? {
        AddressFamily::INET6 => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        _ => (libc::IPPROTO_IP, libc::IP_PKTINFO),
    };
    let on: libc::c_int = 1;
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the option's value is one int, which outlives the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size) };
    crate::check(result.into()).map(drop)
}

/// Receives a datagram of UDP into `buffer`; what is longer is cut.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Arrived> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut control = Control { bytes: [0; 64] };
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is plain data for which all zeroes is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the header points to an address, a buffer and room for messages, each with its length; all outlive the call.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let bytes = crate::check(received as libc::c_long)? as usize;
    // SAFETY: all zeroes is valid, and so is whatever the kernel has written over it.
    let name = unsafe { name.assume_init() };
    let from = address(&name).ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(Arrived { bytes: bytes.min(buffer.len()), from, at: arrived_at(&message) })
}

/// Sends a datagram, from one of this machine's addresses or whichever the kernel chooses. Never raises SIGPIPE.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], to: SocketAddr, from: Option<Local>) -> io::Result<usize> {
    let (name, length) = socket_address(to);
    let mut control = Control { bytes: [0; 64] };
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain data for which all zeroes is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw const name).cast_mut().cast();
    message.msg_namelen = length;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(from) = from {
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>() as _;
        message.msg_controllen = write_local(&message, from) as _;
    }
    // SAFETY: the header points to an address, the bytes and a message about an address, each with its length; the kernel reads them,
    // and all outlive the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    Ok(crate::check(sent as libc::c_long)? as usize)
}

/// What the kernel says of where a datagram arrived.
fn arrived_at(message: &libc::msghdr) -> Option<Local> {
    // SAFETY: the kernel has written the messages that the header tells of, into room which is there still.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: it is one of these messages; whether what belongs to it is all there its length says.
        let (level, kind, length) = unsafe { ((*next).cmsg_level, (*next).cmsg_type, (*next).cmsg_len as usize) };
        // SAFETY: as above; no more is computed than an address.
        let data = unsafe { libc::CMSG_DATA(next) };
        let holds = |size: usize| length >= data as usize - next as usize + size;
        if (level, kind) == (libc::IPPROTO_IP, libc::IP_PKTINFO) && holds(size_of::<libc::in_pktinfo>()) {
            // SAFETY: one is there, of whatever alignment.
            let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
            // Of a datagram to everybody this is the address of this machine's to answer from.
            let address = Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr));
            return (!address.is_unspecified()).then(|| Local { address: address.into(), link: 0 });
        }
        if (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) && holds(size_of::<libc::in6_pktinfo>()) {
            // SAFETY: one is there, of whatever alignment.
            let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
            let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            let link = if address.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
            return (!address.is_multicast()).then(|| Local { address: address.into(), link: link as u32 });
        }
        // SAFETY: both belong together, as above.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    None
}

/// Writes the message that says where a datagram leaves from into the room of a header; answers its length.
fn write_local(message: &libc::msghdr, from: Local) -> usize {
    // SAFETY: the room is longer than any of these messages, and aligned for their head.
    let head = unsafe { &mut *libc::CMSG_FIRSTHDR(message) };
    // SAFETY: no more is computed than an address in that room.
    let data = unsafe { libc::CMSG_DATA(head) };
    let size = match from.address {
        IpAddr::V4(address) => {
            let spec_dst = libc::in_addr { s_addr: address.to_bits().to_be() };
            let info =
                libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: spec_dst, ipi_addr: libc::in_addr { s_addr: 0 } };
            (head.cmsg_level, head.cmsg_type) = (libc::IPPROTO_IP, libc::IP_PKTINFO);
            // SAFETY: the room has place for it, of whatever alignment.
            unsafe { data.cast::<libc::in_pktinfo>().write_unaligned(info) };
            size_of::<libc::in_pktinfo>()
        }
        IpAddr::V6(address) => {
            let address = libc::in6_addr { s6_addr: address.octets() };
            let info = libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: from.link as _ };
            (head.cmsg_level, head.cmsg_type) = (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
            // SAFETY: the room has place for it, of whatever alignment.
            unsafe { data.cast::<libc::in6_pktinfo>().write_unaligned(info) };
            size_of::<libc::in6_pktinfo>()
        }
    } as libc::c_uint;
    // SAFETY: both compute a length and look at nothing.
    let (length, space) = unsafe { (libc::CMSG_LEN(size), libc::CMSG_SPACE(size)) };
    head.cmsg_len = length as _;
    space as usize
}

fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let name = &raw const *name;
    // SAFETY: every address fits there, with what its family says, and any bits are valid ones.
    unsafe {
        match libc::c_int::from((*name).ss_family) {
            libc::AF_INET => {
                let name = *name.cast::<libc::sockaddr_in>();
                let address = Ipv4Addr::from_bits(u32::from_be(name.sin_addr.s_addr));
                Some(SocketAddrV4::new(address, u16::from_be(name.sin_port)).into())
            }
            libc::AF_INET6 => {
                let name = *name.cast::<libc::sockaddr_in6>();
                let (address, port) = (Ipv6Addr::from(name.sin6_addr.s6_addr), u16::from_be(name.sin6_port));
                Some(SocketAddrV6::new(address, port, name.sin6_flowinfo, name.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

fn socket_address(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: it is plain data for which all zeroes is valid.
    let mut name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let room = &raw mut name;
    let length = match address {
        SocketAddr::V4(address) => {
            // SAFETY: the room has place for an address of any family, and is aligned for it.
            let name = unsafe { &mut *room.cast::<libc::sockaddr_in>() };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = address.port().to_be();
            name.sin_addr.s_addr = address.ip().to_bits().to_be();
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            // SAFETY: as above.
            let name = unsafe { &mut *room.cast::<libc::sockaddr_in6>() };
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = address.port().to_be();
            name.sin6_addr.s6_addr = address.ip().octets();
            name.sin6_scope_id = address.scope_id();
            size_of::<libc::sockaddr_in6>()
        }
    };
    (name, length as libc::socklen_t)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn an_answer_leaves_from_where_the_question_arrived() {
        for (any, asked) in [("0.0.0.0:0", "127.0.0.9"), ("[::]:0", "::1")] {
            let server = UdpSocket::bind(any).unwrap();
            tell_addresses(server.as_fd()).unwrap();
            let port = server.local_addr().unwrap().port();
            let asked = SocketAddr::new(asked.parse().unwrap(), port);
            let client = UdpSocket::bind(any).unwrap();
            client.send_to(b"question", asked).unwrap();
            let mut buffer = [0; 4];
            let arrived = receive(server.as_fd(), &mut buffer).unwrap();
            assert_eq!((&buffer, arrived.bytes), (b"ques", 4));
            assert_eq!(arrived.at, Some(Local { address: asked.ip(), link: 0 }));
            assert_eq!(send(server.as_fd(), b"answer", arrived.from, arrived.at).unwrap(), 6);
            assert_eq!(client.recv_from(&mut [0; 8]).unwrap(), (6, asked));
            let nobodys = Local { address: "192.0.2.1".parse().unwrap(), link: 0 };
            assert!(send(server.as_fd(), b"answer", arrived.from, Some(nobodys)).is_err() || asked.is_ipv6());
        }
    }
}
