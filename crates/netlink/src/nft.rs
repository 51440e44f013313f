//! nf_tables: transactions on one table of the family `ip`, and on those of the same name of the families `ip6` and `bridge`.
//!
//! A [`Transaction`] collects changes and [`Transaction::commit`] applies them whole or not at all. Check before you
//! commit: a refused transaction costs the kernel 8 to 16 ms, where one that succeeds costs tens of microseconds.
//!
//! Rules are lists of [`Expression`]s over the kernel's registers. [`expression`] names the few that packet filters of
//! ours need, so that a rule reads like a line of nft(8).
//!
//! [`set`] has the sets beside the maps; [`guest`] is about single rules in tables of others, [`watch`] about what others change.

pub mod expression;
pub mod guest;
pub mod set;
pub mod watch;

use crate::error::NetlinkError;
use crate::family;
use crate::message::{APPEND, CREATE, DUMP, Message};
use crate::socket::{Request, Socket};

pub use expression::Expression;

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const DELETE_CHAIN: u16 = SUBSYSTEM | 5;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
const GET_ELEMENT: u16 = SUBSYSTEM | 13;
const DELETE_ELEMENT: u16 = SUBSYSTEM | 14;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// The frame of a transaction names the subsystem, in network byte order.
const FRAME: [u8; 4] = [0, 0, 0, 10];

/// NF_DROP and NF_ACCEPT.
const POLICY_DROP: u32 = 0;
const POLICY_ACCEPT: u32 = 1;
const LIST_ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;
/// NFT_SET_* of linux/netfilter/nf_tables.h.
const SET_INTERVAL: u32 = 4;
const SET_MAP: u32 = 8;
const SET_CONCAT: u32 = 0x80;
/// NFTA_SET_ELEM_*.
const ELEMENT_KEY: u16 = 1;
const ELEMENT_VALUE: u16 = 2;
const ELEMENT_KEY_END: u16 = 10;
/// struct nfgenmsg of the family `bridge` (NFPROTO_BRIDGE).
const BRIDGE: [u8; 4] = [7, 0, 0, 0];
/// How many elements go into one message: their attribute's length has 16 bits.
const ELEMENTS_IN_MESSAGE: usize = 512;

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// `ip`
    #[default]
    Ipv4,
    /// `ip6`
    Ipv6,
}

impl Family {
    /// struct nfgenmsg: the family, version 0, no resource.
    fn header(self) -> [u8; 4] {
        let number = match self {
            Family::Ipv4 => family::IPV4,
            Family::Ipv6 => family::IPV6,
        };
        [number, 0, 0, 0]
    }
}

/// Where a base chain stands in a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting = 0,
    /// For this machine.
    Input = 1,
    /// Passing through.
    Forward = 2,
    /// Sent by this machine.
    Output = 3,
    /// After routing.
    Postrouting = 4,
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept and drop.
    Filter,
    /// Translate addresses; sees only the first packet of each connection.
    Nat,
}

/// A map to create.
#[derive(Clone, Debug)]
pub struct Map<'a> {
    /// Its name.
    pub name: &'a str,
    /// The types of the key's parts.
    pub key: &'a [Field],
    /// The types of the value's parts.
    pub value: &'a [Field],
    /// Whether its elements are ranges of keys, of which no two overlap (kernel 5.6).
    pub ranges: bool,
}

/// A type of nf_tables data, by nft(8)'s names and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// ipv4_addr
    Ipv4Address = 7,
    /// ipv6_addr
    Ipv6Address = 8,
    /// inet_proto
    Protocol = 12,
    /// inet_service
    Port = 13,
    /// ifname
    InterfaceName = 41,
}

impl Field {
    /// Its length in bytes, padded to four.
    fn length(self) -> u32 {
        self.bytes().next_multiple_of(4)
    }

    /// Its length in bytes.
    fn bytes(self) -> u32 {
        match self {
            Field::Protocol => 1,
            Field::Port => 2,
            Field::Ipv4Address => 4,
            Field::Ipv6Address | Field::InterfaceName => 16,
        }
    }
}

/// One element of a map. Every part of key and value is padded to four bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Element {
    /// The key's bytes, or those of the first key of a range.
    pub key: Vec<u8>,
    /// The last key of a range.
    pub last: Option<Vec<u8>>,
    /// The value's bytes.
    pub value: Vec<u8>,
}

impl Element {
    /// One of a key alone.
    pub fn new(key: Vec<u8>, value: Vec<u8>) -> Element {
        Element { key, last: None, value }
    }

    fn encode(&self, entry: Message) -> Message {
        let data = |entry: Message, kind: u16, bytes: &[u8]| entry.nest(kind, |data| data.attribute(DATA_VALUE, bytes));
        let entry = data(data(entry, ELEMENT_KEY, &self.key), ELEMENT_VALUE, &self.value);
        match &self.last {
            Some(last) => data(entry, ELEMENT_KEY_END, last),
            None => entry,
        }
    }
}

/// Changes to one table, applied together.
#[derive(Clone, Debug)]
pub struct Transaction<'a> {
    table: &'a str,
    /// Of which family.
    header: [u8; 4],
    requests: Vec<Request>,
}

/// Ends a batch, and applies everything or nothing. One that was only begun is not sent.
fn commit(mut requests: Vec<Request>, socket: &mut Socket) -> Result<(), NetlinkError> {
    if requests.len() == 1 {
        return Ok(());
    }
    let what = requests[0].what.clone();
    requests.push(Request { what, message: Message::new(BATCH_END, 0).fixed(&FRAME) });
    socket.transact(requests)
}

impl<'a> Transaction<'a> {
    /// An empty transaction on `table`, first that of family `ip`.
    pub fn new(table: &'a str) -> Transaction<'a> {
        let begin = Message::new(BATCH_BEGIN, 0).fixed(&FRAME);
        Transaction {
            table,
            header: Family::Ipv4.header(),
            requests: vec![Request { what: format!("change nft table {table}").into(), message: begin }],
        }
    }

    /// What follows changes the table of this family.
    pub fn on(&mut self, family: Family) {
        self.header = family.header();
    }

    /// What follows changes the table of the family `bridge`, which sees frames, whatever is in them.
    pub fn on_bridge(&mut self) {
        self.header = BRIDGE;
    }

    /// Creates the table; no error if it is there.
    pub fn create_table(&mut self) {
        let message = Message::new(NEW_TABLE, CREATE).fixed(&self.header).text(1, self.table);
        self.push(format!("create nft table {}", self.table), message);
    }

    /// Deletes the table with all that is in it.
    pub fn delete_table(&mut self) {
        let message = Message::new(DELETE_TABLE, 0).fixed(&self.header).text(1, self.table);
        self.push(format!("delete nft table {}", self.table), message);
    }

    /// Creates a base chain whose policy is to accept.
    pub fn create_chain(&mut self, name: &str, kind: ChainKind, hook: Hook, priority: i32) {
        self.base_chain(name, kind, (hook, priority), POLICY_ACCEPT);
    }

    /// Creates a filter whose policy is to drop.
    pub fn create_dropping_chain(&mut self, name: &str, hook: Hook, priority: i32) {
        self.base_chain(name, ChainKind::Filter, (hook, priority), POLICY_DROP);
    }

    fn base_chain(&mut self, name: &str, kind: ChainKind, (hook, priority): (Hook, i32), policy: u32) {
        let kind = match kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        };
        let message = Message::new(NEW_CHAIN, CREATE)
            .fixed(&self.header)
            .text(1, self.table)
            .text(3, name)
            .nest(4, |place| place.be32(1, hook as u32).be32(2, priority.cast_unsigned()))
            .be32(5, policy)
            .text(7, kind);
        self.push(format!("create nft chain {name}"), message);
    }

    /// Takes all rules out of a chain. The chain stays in the packets' way: each meets the rules from before this transaction or
    /// those that it appends, where one that comes between a chain that goes and its successor may meet the rules of neither.
    pub fn empty_chain(&mut self, name: &str) {
        let message = Message::new(DELETE_RULE, 0).fixed(&self.header).text(1, self.table).text(2, name);
        self.push(format!("take the rules out of nft chain {name}"), message);
    }

    /// Deletes a chain with its rules.
    pub fn delete_chain(&mut self, name: &str) {
        let message = Message::new(DELETE_CHAIN, 0).fixed(&self.header).text(1, self.table).text(3, name);
        self.push(format!("delete nft chain {name}"), message);
    }

    /// Appends a rule to a chain.
    pub fn append_rule(&mut self, chain: &str, expressions: &[Expression]) {
        let message = Message::new(NEW_RULE, CREATE | APPEND)
            .fixed(&self.header)
            .text(1, self.table)
            .text(2, chain)
            .nest(4, |list| encode(list, expressions));
        self.push(format!("append rule to nft chain {chain}"), message);
    }

    /// Creates a map.
    pub fn create_map(&mut self, map: &Map<'_>) {
        // nft(8) writes a concatenation of types as six bits each; the kernel only keeps the number for it.
        let concatenation = |fields: &[Field]| fields.iter().fold(0, |all, field| all << 6 | *field as u32);
        let length = |fields: &[Field]| fields.iter().map(|field| field.length()).sum();
        let id = self.requests.len() as u32;
        let flags = if map.ranges { SET_MAP | SET_INTERVAL | SET_CONCAT } else { SET_MAP };
        let mut message = Message::new(NEW_SET, CREATE)
            .fixed(&self.header)
            .text(1, self.table)
            .text(2, map.name)
            .be32(3, flags)
            .be32(4, concatenation(map.key))
            .be32(5, length(map.key))
            .be32(6, concatenation(map.value))
            .be32(7, length(map.value));
        if map.ranges {
            message = set::lengths(message, map.key);
        }
        let message = message.be32(10, id);
        self.push(format!("create nft map {}", map.name), message);
    }

    /// Takes all elements out of a map.
    pub fn empty_map(&mut self, name: &str) {
        let message = Message::new(DELETE_ELEMENT, 0).fixed(&self.header).text(1, self.table).text(2, name);
        self.push(format!("take the elements out of nft map {name}"), message);
    }

    /// Adds elements to a map.
    pub fn add_elements(&mut self, map: &str, elements: &[Element]) {
        self.elements(NEW_ELEMENT, CREATE, map, elements, "add");
    }

    /// Takes elements out of a map; refused as a whole if one is not there.
    pub fn delete_elements(&mut self, map: &str, elements: &[Element]) {
        self.elements(DELETE_ELEMENT, 0, map, elements, "delete");
    }

    /// Applies everything, or nothing. Without changes nothing is sent.
    pub fn commit(self, socket: &mut Socket) -> Result<(), NetlinkError> {
        commit(self.requests, socket)
    }

    fn elements(&mut self, kind: u16, flags: u16, map: &str, elements: &[Element], verb: &str) {
        for part in elements.chunks(ELEMENTS_IN_MESSAGE) {
            let message =
                Message::new(kind, flags).fixed(&self.header).text(1, self.table).text(2, map).nest(3, |list| {
                    part.iter().fold(list, |list, element| list.nest(LIST_ELEMENT, |entry| element.encode(entry)))
                });
            self.push(format!("{verb} elements of nft map {map}"), message);
        }
    }

    fn push(&mut self, what: String, message: Message) {
        self.requests.push(Request { what: what.into(), message });
    }
}

fn encode(list: Message, expressions: &[Expression]) -> Message {
    expressions.iter().fold(list, |list, one| list.nest(LIST_ELEMENT, |entry| one.encode(entry)))
}

/// Whether a table exists.
pub fn table_exists(socket: &mut Socket, family: Family, table: &str) -> Result<bool, NetlinkError> {
    exists(socket, family.header(), table)
}

/// Whether a table of the family `bridge` exists.
pub fn bridge_table_exists(socket: &mut Socket, table: &str) -> Result<bool, NetlinkError> {
    exists(socket, BRIDGE, table)
}

fn exists(socket: &mut Socket, header: [u8; 4], table: &str) -> Result<bool, NetlinkError> {
    let message = Message::new(GET_TABLE, 0).fixed(&header).text(1, table);
    let asked = socket.ask(Request { what: format!("look up nft table {table}").into(), message }, |_| {});
    match asked {
        Err(NetlinkError::Refused { source, .. }) if source.is_missing() => Ok(false),
        other => other.map(|()| true),
    }
}

/// The elements of a map.
pub fn elements(socket: &mut Socket, family: Family, table: &str, map: &str) -> Result<Vec<Element>, NetlinkError> {
    use crate::message::{attribute, attributes};
    let message = Message::new(GET_ELEMENT, DUMP).fixed(&family.header()).text(1, table).text(2, map);
    socket.list(Request { what: format!("list elements of nft map {map}").into(), message }, |answer| {
        let list = answer.body.get(4..).and_then(|body| attribute(body, 3)).unwrap_or_default();
        let element = |entry| {
            let part = |kind| attribute(attribute(entry, kind)?, DATA_VALUE).map(<[u8]>::to_vec);
            Some(Element { key: part(ELEMENT_KEY)?, last: part(ELEMENT_KEY_END), value: part(ELEMENT_VALUE)? })
        };
        attributes(list).filter_map(|(_, entry)| element(entry)).collect::<Vec<_>>()
    })
}
