//! What others change in the packet filter.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::{DELETE_CHAIN, DELETE_RULE, DELETE_TABLE, NEW_CHAIN, NEW_TABLE, SUBSYSTEM};
use crate::error::NetlinkError;
use crate::message::{Answer, attribute, text};
use crate::socket::Socket;

/// NFNLGRP_NFTABLES as a bit.
const GROUP: u32 = 1 << 6;
/// NFT_MSG_NEWGEN: the end of each transaction, of no table.
const NEW_GENERATION: u16 = SUBSYSTEM | 15;

/// Somebody's change, as far as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// More happened than there was room for: everything may be different.
    Lost,
    /// Something of a table.
    Of {
        /// The table's name.
        table: String,
        /// What of it.
        what: Changed,
    },
}

/// What was changed of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The table came or went.
    Table,
    /// A base chain came, went, or has another policy.
    BaseChain,
    /// A rule or a chain without a hook went.
    Removed,
    /// Anything else: a rule or an element that came, for one.
    Other,
}

/// A socket on which the kernel tells what others change. Its descriptor is readable when there is something.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
}

impl Watch {
    /// Begins to listen, in the calling thread's network namespace, to everybody but the socket of this number
    /// ([`Socket::port`]).
    pub fn open(but: u32) -> Result<Watch, NetlinkError> {
        Ok(Watch { socket: Socket::subscribe(GROUP, but)? })
    }

    /// Hands over what has been told so far. Does not block.
    pub fn read(&mut self, mut each: impl FnMut(Change)) -> Result<(), NetlinkError> {
        loop {
            match self.socket.told(|answer| change(answer).into_iter().for_each(&mut each)) {
                Ok(()) => {}
                Err(Errno::AGAIN) => return Ok(()),
                // netlink(7): messages were dropped.
                Err(Errno::NOBUFS) => each(Change::Lost),
                Err(errno) => return Err(NetlinkError::socket(errno)),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn change(answer: Answer<'_>) -> Option<Change> {
    if answer.kind == NEW_GENERATION || answer.kind & 0xff00 != SUBSYSTEM {
        return None;
    }
    // The name of the table is the first attribute of them all.
    let attributes = answer.body.get(4..)?;
    let table = text(attribute(attributes, 1)?);
    let what = match answer.kind {
        NEW_TABLE | DELETE_TABLE => Changed::Table,
        NEW_CHAIN | DELETE_CHAIN if attribute(attributes, 4).is_some() => Changed::BaseChain,
        DELETE_RULE | DELETE_CHAIN => Changed::Removed,
        _ => Changed::Other,
    };
    Some(Change::Of { table, what })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, answers};
    use crate::nft::NEW_RULE;

    #[test]
    fn what_is_told_is_read_or_passed_over() {
        let read = |mut message: Message| {
            let bytes = message.finished(1, false).to_vec();
            answers(&bytes).next().unwrap().and_then(change)
        };
        let of = |table: &str, what| Some(Change::Of { table: table.to_owned(), what });
        let head = |kind| Message::new(kind, 0).fixed(&[2, 0, 0, 0]).text(1, "t");
        assert_eq!(read(head(NEW_TABLE)), of("t", Changed::Table));
        assert_eq!(read(head(DELETE_RULE)), of("t", Changed::Removed));
        assert_eq!(read(head(NEW_RULE)), of("t", Changed::Other));
        assert_eq!(read(head(NEW_CHAIN).nest(4, |hook| hook.be32(1, 2))), of("t", Changed::BaseChain));
        assert_eq!(read(head(NEW_CHAIN)), of("t", Changed::Other));
        assert_eq!(read(Message::new(NEW_GENERATION, 0).fixed(&[0; 4]).be32(1, 9)), None);
        assert_eq!(read(Message::new(NEW_RULE, 0).fixed(&[2, 0])), None);
        assert_eq!(read(Message::new(16, 0).fixed(&[0; 16])), None);
    }
}
