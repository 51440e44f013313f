//! Sets: of keys, of ranges of keys, of keys that go by themselves or that packets add.

use std::time::Duration;

use super::expression::REGISTER;
use super::{
    DATA_VALUE, DELETE_ELEMENT, ELEMENT_KEY, ELEMENT_KEY_END, ELEMENTS_IN_MESSAGE, Field, GET_ELEMENT, LIST_ELEMENT,
    NEW_ELEMENT, NEW_SET, SET_CONCAT, SET_INTERVAL, Transaction,
};
use crate::error::NetlinkError;
use crate::message::{CREATE, DUMP, Message, attribute, attributes};
use crate::nft::Family;
use crate::socket::{Request, Socket};

/// NFT_SET_* of linux/netfilter/nf_tables.h.
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;

const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_EXPIRATION: u16 = 5;

/// A set to create.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// Its name.
    pub name: &'a str,
    /// The types of the key's parts.
    pub key: &'a [Field],
    /// What its elements are.
    pub kind: SetKind,
}

/// What the elements of a set are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetKind {
    /// Keys.
    Keys,
    /// Ranges of keys of several parts, of which no two overlap (kernel 5.6).
    Ranges,
    /// Keys that go by themselves after a time.
    Expiring,
    /// Keys that packets add, at most so many, each with an expression's state.
    Dynamic {
        /// How many.
        size: u32,
        /// How long one stays that no packet asks for.
        idle: Duration,
    },
}

/// One element of a set. Every part of a key is padded to four bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetElement {
    /// The key's bytes, or those of the first key of a range.
    pub key: Vec<u8>,
    /// The last key of a range.
    pub last: Option<Vec<u8>>,
    /// When it goes.
    pub timeout: Option<Duration>,
}

/// What a rule asks a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Leaves the rule unless the key that begins in the first register is in a set.
    Has {
        /// The set's name.
        set: String,
    },
    /// Leaves the rule if it is.
    Lacks {
        /// The set's name.
        set: String,
    },
    /// Leaves the rule where packets with the key that begins in the first register come too fast.
    Throttle {
        /// A dynamic set of such keys.
        set: String,
        /// How many a second.
        per_second: u64,
        /// How many at once.
        burst: u32,
    },
}

impl Ask {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Ask::Has { .. } | Ask::Lacks { .. } => "lookup",
            Ask::Throttle { .. } => "dynset",
        }
    }

    pub(super) fn encode(&self, data: Message) -> Message {
        match self {
            Ask::Has { set } => data.text(1, set).be32(2, REGISTER),
            // NFT_LOOKUP_F_INV
            Ask::Lacks { set } => data.text(1, set).be32(2, REGISTER).be32(5, 1),
            // Adds the key or finds it (NFT_DYNSET_OP_UPDATE), then asks the limit that it has: of packets (0), a second.
            Ask::Throttle { set, per_second, burst } => {
                let (rate, unit) = (per_second.to_be_bytes(), 1_u64.to_be_bytes());
                let limit = |data: Message| data.attribute(1, &rate).attribute(2, &unit).be32(3, *burst).be32(4, 0);
                let expression = |entry: Message| entry.text(1, "limit").nest(2, limit);
                data.text(1, set).be32(3, 1).be32(4, REGISTER).nest(7, expression)
            }
        }
    }
}

impl Transaction<'_> {
    /// Creates a set.
    pub fn create_set(&mut self, set: &Set<'_>) {
        let type_of = |fields: &[Field]| fields.iter().fold(0, |all, field| all << 6 | *field as u32);
        let length: u32 = set.key.iter().map(|field| field.length()).sum();
        let flags = match set.kind {
            SetKind::Keys => 0,
            SetKind::Ranges => SET_INTERVAL | SET_CONCAT,
            SetKind::Expiring => SET_TIMEOUT,
            SetKind::Dynamic { .. } => SET_TIMEOUT | SET_EVAL,
        };
        let mut message = Message::new(NEW_SET, CREATE)
            .fixed(&self.header)
            .text(1, self.table)
            .text(2, set.name)
            .be32(3, flags)
            .be32(4, type_of(set.key))
            .be32(5, length);
        message = match set.kind {
            SetKind::Ranges => lengths(message, set.key),
            // NFTA_SET_DESC: how many there may be (1).
            SetKind::Dynamic { size, .. } => message.nest(9, |desc| desc.be32(1, size)),
            SetKind::Keys | SetKind::Expiring => message,
        };
        message = message.be32(10, self.requests.len() as u32);
        if let SetKind::Dynamic { idle, .. } = set.kind {
            message = message.attribute(11, &milliseconds(idle));
        }
        self.push(format!("create nft set {}", set.name), message);
    }

    /// Adds elements to a set; no error if one is there, which stays as it is.
    pub fn add_to_set(&mut self, set: &str, elements: &[SetElement]) {
        self.set_elements((NEW_ELEMENT, CREATE, "add"), set, elements);
    }

    /// Takes elements out of a set; refused as a whole if one is not there.
    pub fn delete_from_set(&mut self, set: &str, elements: &[SetElement]) {
        self.set_elements((DELETE_ELEMENT, 0, "delete"), set, elements);
    }

    fn set_elements(&mut self, (kind, flags, verb): (u16, u16, &str), set: &str, elements: &[SetElement]) {
        for part in elements.chunks(ELEMENTS_IN_MESSAGE) {
            let message = Message::new(kind, flags).fixed(&self.header).text(1, self.table).text(2, set);
            let one = |list: Message, element: &SetElement| list.nest(LIST_ELEMENT, |entry| element.encode(entry));
            let message = message.nest(3, |list| part.iter().fold(list, one));
            self.push(format!("{verb} elements of nft set {set}"), message);
        }
    }
}

impl SetElement {
    /// One of a key alone.
    pub fn new(key: Vec<u8>) -> SetElement {
        SetElement { key, ..SetElement::default() }
    }

    fn encode(&self, entry: Message) -> Message {
        let data = |entry: Message, kind: u16, bytes: &[u8]| entry.nest(kind, |data| data.attribute(DATA_VALUE, bytes));
        let mut entry = data(entry, ELEMENT_KEY, &self.key);
        if let Some(last) = &self.last {
            entry = data(entry, ELEMENT_KEY_END, last);
        }
        match self.timeout {
            Some(timeout) => entry.attribute(ELEMENT_TIMEOUT, &milliseconds(timeout)),
            None => entry,
        }
    }
}

/// Says how long the parts of a key are, without which there are no ranges of them: NFTA_SET_DESC, NFTA_SET_DESC_CONCAT.
pub(super) fn lengths(set: Message, key: &[Field]) -> Message {
    let part = |list: Message, field: &Field| list.nest(LIST_ELEMENT, |one| one.be32(1, field.bytes()));
    set.nest(9, |desc| desc.nest(2, |parts| key.iter().fold(parts, part)))
}

/// The keys of a set, each with what is left of its time.
pub fn set_keys(socket: &mut Socket, family: Family, table: &str, set: &str) -> Result<Vec<SetElement>, NetlinkError> {
    let message = Message::new(GET_ELEMENT, DUMP).fixed(&family.header()).text(1, table).text(2, set);
    socket.list(Request { what: format!("list elements of nft set {set}").into(), message }, |answer| {
        let list = answer.body.get(4..).and_then(|body| attribute(body, 3)).unwrap_or_default();
        let element = |entry| {
            let key = attribute(attribute(entry, ELEMENT_KEY)?, DATA_VALUE)?;
            let left = attribute(entry, ELEMENT_EXPIRATION).and_then(|left| left.try_into().ok());
            let timeout = left.map(|left| Duration::from_millis(u64::from_be_bytes(left)));
            Some(SetElement { timeout, ..SetElement::new(key.to_vec()) })
        };
        attributes(list).filter_map(|(_, entry)| element(entry)).collect::<Vec<_>>()
    })
}

/// A time as the kernel takes it: none would mean for ever.
fn milliseconds(time: Duration) -> [u8; 8] {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1).to_be_bytes()
}
