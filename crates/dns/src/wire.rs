//! Messages of RFC 1035: queries read, answers written.

use std::net::IpAddr;

/// The header of every message.
pub(crate) const HEADER_BYTES: usize = 12;
/// What an answer over UDP may have where the client says nothing else (RFC 1035, 2.3.4).
const UDP_BYTES: usize = 512;
/// What a message over TCP may have: its length has 16 bits.
const TCP_BYTES: usize = 65535;
/// How long a name is at most (RFC 1035, 2.3.4).
pub(crate) const NAME_BYTES: usize = 255;
/// How long clients may keep an answer. dockerd's.
const TTL_SECONDS: u32 = 600;

/// Bits of the third and fourth byte.
const RESPONSE: u8 = 0x80;
pub(crate) const OPCODE: u8 = 0x78;
pub(crate) const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;
const CHECKING_DISABLED: u8 = 0x10;

/// Types and classes that are looked at.
pub(crate) const A: u16 = 1;
pub(crate) const PTR: u16 = 12;
pub(crate) const MX: u16 = 15;
pub(crate) const AAAA: u16 = 28;
const OPT: u16 = 41;
const INTERNET: u16 = 1;
const ANY_CLASS: u16 = 255;

/// The question's name, which begins right behind the header, as a pointer.
const QUESTION_NAME: u16 = 0xc000 | HEADER_BYTES as u16;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As a datagram.
    Udp,
    /// On a connection, behind its length.
    Tcp,
}

/// A query that can be worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The whole message.
    pub(crate) bytes: &'a [u8],
    /// Where the question ends.
    pub(crate) question_end: usize,
    /// The name asked for, in small letters, without the last dot; absent where it is no text, so that nobody of ours has it.
    pub(crate) name: Option<String>,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// How much an answer may have.
    pub(crate) limit: usize,
}

/// What is sent instead of an answer (RFC 1035, 4.1.1, RCODE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The query cannot be read.
    Format = 1,
    /// No upstream has an answer.
    ServerFailure = 2,
    /// It is no query of a kind that is answered here.
    NotImplemented = 4,
    /// There is too much to do.
    Refused = 5,
}

/// Why there is nothing to work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Not even worth an answer: it could be used to make others send.
    Ignore,
    /// Say so.
    Refuse(Refusal),
}

/// A record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Address(IpAddr),
    /// A name, with dots between its labels.
    Name(String),
}

impl<'a> Query<'a> {
    /// Reads a query.
    pub(crate) fn parse(bytes: &'a [u8], transport: Transport) -> Result<Query<'a>, Unreadable> {
        let counts = counts(bytes).ok_or(Unreadable::Ignore)?;
        if bytes[2] & RESPONSE != 0 {
            return Err(Unreadable::Ignore);
        }
        if bytes[2] & OPCODE != 0 {
            return Err(Unreadable::Refuse(Refusal::NotImplemented));
        }
        let malformed = Unreadable::Refuse(Refusal::Format);
        let [questions, answers, authorities, additional] = counts;
        // What miekg/dns, and so dockerd, takes for a query: room for an OPT, a signature, and the odd update.
        if questions != 1 || answers > 1 || authorities > 1 || additional > 2 {
            return Err(malformed);
        }
        let question = question(bytes).ok_or(malformed)?;
        let mut at = question.end;
        let mut limit = if transport == Transport::Tcp { TCP_BYTES } else { UDP_BYTES };
        for _ in 0..answers + authorities + additional {
            let record = record(bytes, at).ok_or(malformed)?;
            if record.kind == OPT && transport == Transport::Udp {
                // The class of an OPT is what the client can take (RFC 6891, 6.1.2).
                limit = limit.max(usize::from(record.class));
            }
            at = record.end;
        }
        let Question { name, kind, class, end: question_end } = question;
        Ok(Query { bytes, question_end, name, kind, class, limit })
    }

    /// The name asked for, in small letters, without the last dot; none where it is no text.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether it is of the class that our records are of.
    pub(crate) fn is_internet(&self) -> bool {
        matches!(self.class, INTERNET | ANY_CLASS)
    }

    /// An answer that has these records, or as many of them as go in.
    pub(crate) fn reply(&self, records: &[Record]) -> Vec<u8> {
        let mut reply = self.head(0);
        let mut written: u16 = 0;
        for record in records {
            let before = reply.len();
            record.write(&mut reply);
            if reply.len() > self.limit {
                reply.truncate(before);
                reply[2] |= TRUNCATED;
                break;
            }
            written += 1;
        }
        reply[6..8].copy_from_slice(&written.to_be_bytes());
        reply
    }

    /// Says that there is no answer.
    pub fn refuse(&self, refusal: Refusal) -> Vec<u8> {
        self.head(refusal as u8)
    }

    fn head(&self, code: u8) -> Vec<u8> {
        answer_head(&self.bytes[..self.question_end], code)
    }
}

/// The beginning of an answer to a query, of which `asked` is everything up to the end of its question.
pub(crate) fn answer_head(asked: &[u8], code: u8) -> Vec<u8> {
    let mut head = asked.to_vec();
    head[2] = RESPONSE | head[2] & RECURSION_DESIRED;
    head[3] = RECURSION_AVAILABLE | head[3] & CHECKING_DISABLED | code;
    head[4..HEADER_BYTES].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    head
}

impl Record {
    fn write(&self, reply: &mut Vec<u8>) {
        let (kind, value) = match self {
            Record::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
            Record::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
            Record::Name(name) => (PTR, encode_name(name)),
        };
        for number in [QUESTION_NAME, kind, INTERNET] {
            reply.extend(number.to_be_bytes());
        }
        reply.extend(TTL_SECONDS.to_be_bytes());
        // A name has 255 bytes at most, an address 16.
        reply.extend((value.len() as u16).to_be_bytes());
        reply.extend(value);
    }
}

/// Says to who sent `bytes` that they are no query, without repeating them.
pub(crate) fn refuse_unread(bytes: &[u8], refusal: Refusal) -> Vec<u8> {
    let mut head = bytes[..HEADER_BYTES].to_vec();
    head[2] = RESPONSE | head[2] & (OPCODE | RECURSION_DESIRED);
    head[3] = refusal as u8;
    head[4..].fill(0);
    head
}

/// The numbers of questions, answers, authorities and additional records.
pub(crate) fn counts(bytes: &[u8]) -> Option<[u16; 4]> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    Some([count(4), count(6), count(8), count(10)])
}

/// The first question of a message.
pub(crate) struct Question {
    pub(crate) name: Option<String>,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) end: usize,
}

pub(crate) fn question(bytes: &[u8]) -> Option<Question> {
    let (name, at) = plain_name(bytes, HEADER_BYTES)?;
    let fields = bytes.get(at..)?.first_chunk::<4>()?;
    let (kind, class) = (u16::from_be_bytes([fields[0], fields[1]]), u16::from_be_bytes([fields[2], fields[3]]));
    Some(Question { name, kind, class, end: at + 4 })
}

/// A name without pointers, which a question has no use for, as text in small letters; and where it ends.
fn plain_name(bytes: &[u8], start: usize) -> Option<(Option<String>, usize)> {
    let (mut at, mut name, mut is_text) = (start, String::new(), true);
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((is_text.then_some(name), at));
        }
        let label = bytes.get(at..at + length).filter(|_| length < 64)?;
        at += length;
        if at - start >= NAME_BYTES {
            return None;
        }
        // A dot within a label is not one between two.
        is_text &= label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
        if is_text {
            let dot = if name.is_empty() { "" } else { "." };
            name.push_str(dot);
            name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        }
    }
}

pub(crate) struct RecordHead {
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) ttl_seconds: u32,
    /// Where its value begins.
    pub(crate) value: usize,
    pub(crate) end: usize,
}

/// The record at `start`, whose name may end in a pointer.
pub(crate) fn record(bytes: &[u8], start: usize) -> Option<RecordHead> {
    let mut at = start;
    loop {
        let length = *bytes.get(at)?;
        at += 1;
        match length {
            0 => break,
            1..=63 => at += usize::from(length),
            0xc0..=0xff => {
                at += 1;
                break;
            }
            _ => return None,
        }
    }
    let fields = bytes.get(at..)?.first_chunk::<10>()?;
    let field = |at: usize| u16::from_be_bytes([fields[at], fields[at + 1]]);
    let (value, ttl_seconds) = (at + 10, u32::from(field(4)) << 16 | u32::from(field(6)));
    let end = value + usize::from(field(8));
    (end <= bytes.len()).then_some(RecordHead { kind: field(0), class: field(2), ttl_seconds, value, end })
}

/// A name as labels. One that does not go into a message comes out as the root: names of containers and networks are
/// shorter, but somebody's alias may not be.
fn encode_name(name: &str) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let Some(length) = u8::try_from(label.len()).ok().filter(|length| *length < 64) else { return vec![0] };
        encoded.push(length);
        encoded.extend(label.as_bytes());
    }
    encoded.push(0);
    if encoded.len() > NAME_BYTES { vec![0] } else { encoded }
}
