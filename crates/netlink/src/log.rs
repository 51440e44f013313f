//! Packets that rules have told of (nfnetlink_log).

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::error::NetlinkError;
use crate::message::{Answer, Message, attribute, text};
use crate::socket::{Protocol, Request, Socket};

/// NFNL_SUBSYS_ULOG, whose messages are a packet (0) and a configuration (1).
const PACKET: u16 = 4 << 8;
const CONFIGURE: u16 = 4 << 8 | 1;

/// NFULNL_CFG_CMD_BIND: the group's packets come here.
const BIND: u8 = 1;
/// NFULNL_COPY_PACKET: the beginning of each packet, too.
const COPY_PACKET: u8 = 2;

const CONFIGURE_COMMAND: u16 = 1;
const CONFIGURE_MODE: u16 = 2;
/// How many packets are gathered before they are sent.
const CONFIGURE_THRESHOLD: u16 = 5;

const BRIDGE_PORT_IN: u16 = 6;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;

/// A socket that gets the packets of one group.
#[derive(Debug)]
pub struct PacketLog {
    socket: Socket,
}

/// A packet that a rule has told of.
#[derive(Clone, Copy, Debug)]
pub struct Logged<'a> {
    /// The beginning of the packet, from its network header on.
    pub packet: &'a [u8],
    /// The number of the bridge's port through which it came; where a rule of the family `bridge` told of it.
    pub port: Option<u32>,
    prefix: &'a [u8],
}

impl Logged<'_> {
    /// What the rule says of it.
    pub fn prefix(&self) -> String {
        text(self.prefix)
    }
}

impl PacketLog {
    /// Binds a group in the calling thread's network namespace: at most `bytes` of each packet come. Refused with EPERM where
    /// somebody else has it.
    pub fn bind(group: u16, bytes: u32) -> Result<PacketLog, NetlinkError> {
        let mut socket = Socket::open(Protocol::Netfilter)?;
        // struct nfgenmsg: no family, version 0, the group in network byte order.
        let [high, low] = group.to_be_bytes();
        let configure = || Message::new(CONFIGURE, 0).fixed(&[0, 0, high, low]);
        let [a, b, c, d] = bytes.to_be_bytes();
        let requests = [
            configure().attribute(CONFIGURE_COMMAND, &[BIND]),
            configure().attribute(CONFIGURE_MODE, &[a, b, c, d, COPY_PACKET, 0]).be32(CONFIGURE_THRESHOLD, 1),
        ];
        for message in requests {
            socket
                .apply(vec![Request { what: format!("bind the group {group} of logged packets").into(), message }])?;
        }
        Ok(PacketLog { socket })
    }

    /// Hands over what has been told so far, and whether more was than there was room for. Does not block.
    pub fn read(&mut self, mut each: impl FnMut(Logged<'_>)) -> Result<bool, NetlinkError> {
        let mut lost = false;
        loop {
            match self.socket.told(|answer| logged(answer).into_iter().for_each(&mut each)) {
                Ok(()) => {}
                Err(Errno::AGAIN) => return Ok(lost),
                // netlink(7): messages were dropped.
                Err(Errno::NOBUFS) => lost = true,
                Err(errno) => return Err(NetlinkError::socket(errno)),
            }
        }
    }
}

impl AsFd for PacketLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn logged(answer: Answer<'_>) -> Option<Logged<'_>> {
    let attributes = answer.body.get(4..).filter(|_| answer.kind == PACKET)?;
    let port = attribute(attributes, BRIDGE_PORT_IN).and_then(|number| number.try_into().ok());
    Some(Logged {
        packet: attribute(attributes, PAYLOAD)?,
        port: port.map(u32::from_be_bytes),
        prefix: attribute(attributes, PREFIX).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::answers;

    #[test]
    fn what_is_no_packet_is_passed_over() {
        let read = |mut message: Message| {
            let bytes = message.finished(1, false).to_vec();
            let answer = answers(&bytes).next().unwrap().unwrap();
            logged(answer).map(|one| (one.packet.to_vec(), one.port, one.prefix()))
        };
        let packet = || Message::new(PACKET, 0).fixed(&[2, 0, 0, 9]);
        let whole = packet().be32(BRIDGE_PORT_IN, 7).text(PREFIX, "why").attribute(PAYLOAD, &[0x45, 0]);
        assert_eq!(read(whole), Some((vec![0x45, 0], Some(7), "why".to_owned())));
        assert_eq!(read(packet().attribute(PAYLOAD, &[1])), Some((vec![1], None, String::new())));
        assert_eq!(read(packet()), None);
        assert_eq!(read(Message::new(CONFIGURE, 0).fixed(&[2, 0, 0, 9]).attribute(PAYLOAD, &[1])), None);
        assert_eq!(read(Message::new(PACKET, 0).fixed(&[2, 0])), None);
    }
}
