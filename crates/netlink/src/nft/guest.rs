//! Single rules in tables of others: finding the chains, our rules in them, placing and taking them out.
//!
//! A rule of ours is known by its comment, as nft(8) and iptables(8) show it. The rest of such a table is nobody's business
//! here: nothing else of it is read but names, policies, and to which chains its rules jump, and nothing changed.

use std::fmt;

use super::{
    BATCH_BEGIN, DELETE_RULE, Expression, FRAME, GET_CHAIN, GET_RULE, Hook, NEW_RULE, POLICY_DROP, commit, encode,
};
use crate::error::NetlinkError;
use crate::message::{APPEND, Answer, CREATE, DUMP, Message, attribute, attributes, text};
use crate::socket::{Request, Socket};

/// NFTNL_UDATA_RULE_COMMENT of libnftnl.
const COMMENT: u8 = 0;
/// NFT_JUMP of linux/netfilter/nf_tables.h: the named chain is asked, and comes back.
const JUMP: i32 = -3;

/// The family of a table that sees forwarded IP packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableFamily {
    /// Both families of addresses.
    Inet = 1,
    /// IPv4
    Ip = 2,
    /// IPv6
    Ip6 = 10,
}

impl TableFamily {
    fn from_number(number: u8) -> Option<TableFamily> {
        [TableFamily::Inet, TableFamily::Ip, TableFamily::Ip6].into_iter().find(|one| *one as u8 == number)
    }
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TableFamily::Inet => "inet",
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
        })
    }
}

/// A chain that all forwarded packets pass. Its text is nft(8)'s: `ip filter FORWARD`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForwardChain {
    /// The family of its table.
    pub family: TableFamily,
    /// The name of its table.
    pub table: String,
    /// Its own name.
    pub name: String,
    /// Whether it drops what none of its rules speaks of.
    pub drops: bool,
}

impl fmt::Display for ForwardChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.name)
    }
}

/// All base chains at the forward hook.
pub fn forward_chains(socket: &mut Socket) -> Result<Vec<ForwardChain>, NetlinkError> {
    let request = Request { what: "list nft chains".into(), message: Message::new(GET_CHAIN, DUMP).fixed(&[0; 4]) };
    list(socket, request, chain)
}

/// A rule in a chain of others, as far as a guest has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestRule {
    /// The number by which the kernel knows it.
    pub handle: u64,
    /// Its comment, as nft(8) writes it.
    pub comment: Option<String>,
    /// The chain that it asks.
    pub jumps_to: Option<String>,
}

/// The rules of a chain, in its order.
pub fn rules(socket: &mut Socket, chain: &ForwardChain) -> Result<Vec<GuestRule>, NetlinkError> {
    let request = Request {
        what: format!("list rules of nft chain {chain}").into(),
        message: Message::new(GET_RULE, DUMP).fixed(&header(chain)).text(1, &chain.table).text(2, &chain.name),
    };
    list(socket, request, |answer| {
        let attributes = answer.body.get(4..)?;
        // Older kernels do not choose by chain.
        let is_there = text(attribute(attributes, 2)?) == chain.name && text(attribute(attributes, 1)?) == chain.table;
        let handle = attribute(attributes, 3)?.try_into().ok().map(u64::from_be_bytes).filter(|_| is_there)?;
        let comment = attribute(attributes, 7).and_then(comment);
        let jumps_to = attribute(attributes, 4).and_then(jump);
        Some(GuestRule { handle, comment, jumps_to })
    })
}

/// Changes to tables of others, applied together.
#[derive(Debug)]
pub struct GuestTransaction {
    requests: Vec<Request>,
}

impl Default for GuestTransaction {
    fn default() -> GuestTransaction {
        let begin = Message::new(BATCH_BEGIN, 0).fixed(&FRAME);
        GuestTransaction { requests: vec![Request { what: "change nft tables of others".into(), message: begin }] }
    }
}

impl GuestTransaction {
    /// Places a rule right behind the one of this handle, or before all others of a chain.
    pub fn insert(&mut self, chain: &ForwardChain, behind: Option<u64>, expressions: &[Expression], comment: &str) {
        let flags = if behind.is_some() { CREATE | APPEND } else { CREATE };
        let mut message = Message::new(NEW_RULE, flags)
            .fixed(&header(chain))
            .text(1, &chain.table)
            .text(2, &chain.name)
            .nest(4, |list| encode(list, expressions));
        if let Some(handle) = behind {
            message = message.attribute(6, &handle.to_be_bytes());
        }
        let message = message.attribute(7, &user_data(comment));
        self.requests.push(Request { what: format!("insert rule into nft chain {chain}").into(), message });
    }

    /// Takes a rule out.
    pub fn delete(&mut self, chain: &ForwardChain, handle: u64) {
        let message = Message::new(DELETE_RULE, 0)
            .fixed(&header(chain))
            .text(1, &chain.table)
            .text(2, &chain.name)
            .attribute(3, &handle.to_be_bytes());
        self.requests.push(Request { what: format!("delete rule of nft chain {chain}").into(), message });
    }

    /// Applies everything, or nothing. Without changes nothing is sent.
    pub fn commit(self, socket: &mut Socket) -> Result<(), NetlinkError> {
        commit(self.requests, socket)
    }
}

fn header(chain: &ForwardChain) -> [u8; 4] {
    [chain.family as u8, 0, 0, 0]
}

/// As libnftnl writes it: type, length, and the text with its NUL.
fn user_data(comment: &str) -> Vec<u8> {
    let mut data = vec![COMMENT, comment.len() as u8 + 1];
    data.extend(comment.as_bytes());
    data.push(0);
    data
}

/// The comment among a rule's user data.
fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text(value));
        }
        data = &rest[value.len()..];
    }
    None
}

/// The chain to which one of these expressions jumps.
fn jump(expressions: &[u8]) -> Option<String> {
    attributes(expressions).find_map(|(_, one)| {
        // A constant for the register of verdicts.
        let verdict = attribute(attribute(attribute(one, 2)?, 2)?, 2)?;
        let code = attribute(verdict, 1)?.try_into().ok().map(i32::from_be_bytes);
        let is_jump = text(attribute(one, 1)?) == "immediate" && code == Some(JUMP);
        attribute(verdict, 2).filter(|_| is_jump).map(text)
    })
}

/// A whole list, as it was at one moment.
fn list<T>(
    socket: &mut Socket,
    request: Request,
    parse: impl Fn(Answer<'_>) -> Option<T>,
) -> Result<Vec<T>, NetlinkError> {
    match socket.list(request, parse) {
        // The chain went meanwhile, and its rules with it.
        Err(NetlinkError::Refused { source, .. }) if source.is_missing() => Ok(Vec::new()),
        listed => listed,
    }
}

/// A forward chain; `None` for any other one. Names that are no text are nobody's whom we could name in a message.
fn chain(answer: Answer<'_>) -> Option<ForwardChain> {
    let family = TableFamily::from_number(*answer.body.first()?)?;
    let attributes = answer.body.get(4..)?;
    let number = |value: &[u8]| value.try_into().ok().map(u32::from_be_bytes);
    let hook = number(attribute(attribute(attributes, 4)?, 1)?)?;
    if hook != Hook::Forward as u32 {
        return None;
    }
    let drops = number(attribute(attributes, 5)?)? == POLICY_DROP;
    Some(ForwardChain { family, table: text(attribute(attributes, 1)?), name: text(attribute(attributes, 3)?), drops })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::answers;

    #[test]
    fn comments_and_jumps_are_found_among_other_things() {
        assert_eq!(comment(&user_data("ours")), Some("ours".to_owned()));
        assert_eq!(comment(&[&[1, 4, 0, 0, 0, 0], &user_data("ours")[..]].concat()), Some("ours".to_owned()));
        assert_eq!(comment(&[COMMENT, 9, b'x']), None);
        assert_eq!(comment(&[]), None);
        let read = |name: &str, code: i32, chain: Option<&str>| {
            let verdict = |data: Message| {
                let data = data.be32(1, code.cast_unsigned());
                chain.into_iter().fold(data, |data, chain| data.text(2, chain))
            };
            let other = |list: Message| list.nest(1, |entry| entry.text(1, "counter").nest(2, |data| data));
            let last = |list: Message| {
                list.nest(1, |entry| {
                    entry.text(1, name).nest(2, |data| data.be32(1, 0).nest(2, |data| data.nest(2, verdict)))
                })
            };
            let bytes = Message::new(NEW_RULE, 0).nest(4, |list| last(other(list))).finished(1, false).to_vec();
            let answer = answers(&bytes).next().unwrap().unwrap();
            attribute(answer.body, 4).and_then(jump)
        };
        assert_eq!(read("immediate", JUMP, Some("DOCKER-USER")), Some("DOCKER-USER".to_owned()));
        assert_eq!(read("immediate", -4, Some("DOCKER-USER")), None, "a goto does not come back");
        assert_eq!(read("immediate", 1, None), None);
        assert_eq!(read("other", JUMP, Some("DOCKER-USER")), None);
    }
}
