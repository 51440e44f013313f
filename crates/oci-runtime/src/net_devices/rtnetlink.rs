//! The few words of rtnetlink(7) that moving a device takes.
//!
//! ```text
//! | length u32 | type u16 | flags u16 | sequence u32 | port u32 | fixed part | attribute | ...
//!                                                  attribute: | length u16 | type u16 | value, padded to four |
//! ```

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

// linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE_EXCL: u16 = 0x600;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;

/// Bytes of a message's header.
const HEADER: usize = 16;

/// The largest part of a dump that the kernel sends at once.
const BUFFER: usize = 32 << 10;

/// A socket, of the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

/// An address of a device, as it is given to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    family: u8,
    prefix: u8,
    /// RT_SCOPE_*.
    pub(super) scope: u8,
    /// IFA_F_*.
    pub(super) flags: u32,
    /// Types and values that make it what it is.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Socket {
    pub(super) fn open() -> io::Result<Socket> {
        // NETLINK_ROUTE is 0, which is what `None` becomes.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        sys::network::netlink_options(socket.as_fd())?;
        Ok(Socket(socket))
    }

    /// The number of the device of this name.
    pub(super) fn index(&self, name: &str) -> io::Result<u32> {
        let mut message = Message::new(RTM_GETLINK, NLM_F_ACK, &link(0, false));
        message.attribute(IFLA_IFNAME, &terminated(name));
        let found = self.ask(message)?;
        Ok(found.first().and_then(|body| word(body, 4)).ok_or(Errno::NODEV)?)
    }

    /// All devices: numbers and names.
    pub(super) fn links(&self) -> io::Result<Vec<(u32, String)>> {
        let bodies = self.ask(Message::new(RTM_GETLINK, NLM_F_DUMP, &link(0, false)))?;
        let one = |body: &Vec<u8>| {
            let name = attributes(body.get(16..)?).find(|(kind, _)| *kind == IFLA_IFNAME)?.1;
            Some((word(body, 4)?, String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned()))
        };
        Ok(bodies.iter().filter_map(one).collect())
    }

    pub(super) fn set_up(&self, index: u32) -> io::Result<()> {
        self.ask(Message::new(RTM_NEWLINK, NLM_F_ACK, &link(index, true))).map(drop)
    }

    /// Moves a device into another network namespace, by another name.
    pub(super) fn send_to(&self, index: u32, namespace: RawFd, name: &str) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, NLM_F_ACK, &link(index, false));
        message.attribute(IFLA_IFNAME, &terminated(name));
        message.attribute(IFLA_NET_NS_FD, &namespace.to_ne_bytes());
        self.ask(message).map(drop)
    }

    /// All addresses of a device.
    pub(super) fn addresses(&self, index: u32) -> io::Result<Vec<Address>> {
        let mut header = [0; 8];
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let bodies = self.ask(Message::new(RTM_GETADDR, NLM_F_DUMP, &header))?;
        // Older kernels send those of every device.
        let of_it = bodies.iter().filter(|body| word(body, 4) == Some(index));
        Ok(of_it.filter_map(|body| Address::parse(body)).collect())
    }

    pub(super) fn add_address(&self, index: u32, address: &Address) -> io::Result<()> {
        let mut header = [address.family, address.prefix, 0, address.scope, 0, 0, 0, 0];
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let mut message = Message::new(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE_EXCL, &header);
        for (kind, value) in &address.attributes {
            message.attribute(*kind, value);
        }
        message.attribute(IFA_FLAGS, &(address.flags & KEPT_FLAGS).to_ne_bytes());
        self.ask(message).map(drop)
    }

    /// Sends a request, and collects the bodies of the answers up to the last one.
    fn ask(&self, message: Message) -> io::Result<Vec<Vec<u8>>> {
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::io::retry_on_intr(|| sendto(&self.0, &message.0, SendFlags::empty(), &kernel))?;
        let (mut buffer, mut bodies) = (vec![0; BUFFER], Vec::new());
        loop {
            let (_, length) = rustix::io::retry_on_intr(|| recv(&self.0, &mut buffer[..], RecvFlags::TRUNC))?;
            let mut rest = buffer.get(..length).ok_or(Errno::MSGSIZE)?;
            while !rest.is_empty() {
                let size = word(rest, 0).map_or(0, |size| size as usize);
                let body = rest.get(HEADER..size).ok_or(Errno::BADMSG)?;
                match u16::from_ne_bytes([rest[4], rest[5]]) {
                    NLMSG_ERROR | NLMSG_DONE => {
                        let errno = word(body, 0).map_or(0, u32::cast_signed);
                        let refused = || io::Error::from_raw_os_error(-errno);
                        return if errno < 0 { Err(refused()) } else { Ok(bodies) };
                    }
                    _ => bodies.push(body.to_vec()),
                }
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// Flags that an administrator gives an address: IFA_F_NODAD, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN. The others are the
/// kernel's own.
const KEPT_FLAGS: u32 = 0x02 | 0x100 | 0x200 | 0x400;

impl Address {
    fn parse(body: &[u8]) -> Option<Address> {
        let [family, prefix, flags, scope] = *body.first_chunk()?;
        let all = || attributes(body.get(8..).unwrap_or_default());
        let more = all().find(|(kind, _)| *kind == IFA_FLAGS).and_then(|(_, value)| word(value, 0));
        let kept = all().filter(|(kind, _)| [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_RT_PRIORITY].contains(kind));
        let attributes = kept.map(|(kind, value)| (kind, value.to_vec())).collect();
        Some(Address { family, prefix, scope, flags: more.unwrap_or(flags.into()), attributes })
    }
}

/// A request on its way.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, fixed: &[u8]) -> Message {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend(fixed);
        Message(bytes).finished()
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.0.extend((value.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        let message = std::mem::replace(self, Message(Vec::new()));
        *self = message.finished();
    }

    /// With its length, padded.
    fn finished(mut self) -> Message {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self
    }
}

/// struct ifinfomsg: family, padding, device type, index, flags, which flags change. `up` brings the device up.
fn link(index: u32, up: bool) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        bytes[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        bytes[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    bytes
}

fn terminated(name: &str) -> Vec<u8> {
    name.bytes().chain([0]).collect()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d] = *rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The upper two bits are flags.
        Some((u16::from_ne_bytes([c, d]) & 0x3fff, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_short_is_no_address() {
        let mut message = Message::new(RTM_NEWADDR, 0, &[2, 24, 0x80, 0, 1, 0, 0, 0]);
        message.attribute(IFA_LOCAL, &[10, 0, 0, 1]);
        message.attribute(IFA_FLAGS, &0x280_u32.to_ne_bytes());
        let body = &message.0[HEADER..];
        let attributes = vec![(IFA_LOCAL, vec![10, 0, 0, 1])];
        let address = Address { family: 2, prefix: 24, scope: 0, flags: 0x280, attributes };
        assert_eq!(Address::parse(body), Some(address));
        for length in 0..body.len() {
            let parsed = Address::parse(&body[..length]);
            assert_eq!(parsed.is_none(), length < 4, "{length}");
        }
    }
}
