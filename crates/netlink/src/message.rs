//! Netlink's wire format: a header, a fixed part and attributes, all aligned to four bytes (netlink(7)).
//!
//! ```text
//! | length u32 | type u16 | flags u16 | sequence u32 | port u32 | fixed part | attribute | attribute | ...
//!                                                  attribute: | length u16 | type u16 | value, padded |
//! ```

/// A request (NLM_F_REQUEST).
pub const REQUEST: u16 = 1;
/// The kernel acknowledges this one also when it succeeds.
pub const ACKNOWLEDGE: u16 = 4;
/// All objects of a kind.
pub const DUMP: u16 = 0x300;
/// Replaces an existing object.
pub const REPLACE: u16 = 0x100;
/// Refused when the object exists.
pub const EXCLUSIVE: u16 = 0x200;
/// Creates the object if it is missing.
pub const CREATE: u16 = 0x400;
/// Appends to a list of objects.
pub const APPEND: u16 = 0x800;

/// The bytes of a message's header.
pub const HEADER: usize = 16;
/// Type of an error or acknowledgement.
pub const ERROR: u16 = 2;
/// Type of the end of a dump.
pub const DONE: u16 = 3;

const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// One message being written. Lengths are filled in as it grows, so it is whole at every moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request of this type; [`REQUEST`] is added to `flags`.
    pub fn new(kind: u16, flags: u16) -> Message {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend((HEADER as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | REQUEST).to_ne_bytes());
        bytes.extend([0; 8]);
        Message { bytes }
    }

    /// Appends the fixed part that follows the header.
    pub fn fixed(mut self, part: &[u8]) -> Message {
        self.bytes.extend_from_slice(part);
        self.finish()
    }

    /// Appends an attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Message {
        self.bytes.extend(attribute_length(value.len() + 4).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.finish()
    }

    /// Appends a number in the host's byte order (rtnetlink).
    pub fn u32(self, kind: u16, value: u32) -> Message {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends a number in network byte order (nfnetlink).
    pub fn be32(self, kind: u16, value: u32) -> Message {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Appends a text, which netlink ends with a NUL.
    pub fn text(self, kind: u16, text: &str) -> Message {
        let mut value = Vec::with_capacity(text.len() + 1);
        value.extend_from_slice(text.as_bytes());
        value.push(0);
        self.attribute(kind, &value)
    }

    /// Appends an attribute that consists of the attributes which `fill` writes.
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Message) -> Message) -> Message {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        let mut filled = fill(self);
        let length = attribute_length(filled.bytes.len() - start);
        filled.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled.finish()
    }

    /// The message, with its sequence number set and, for the last of a batch, the wish for an acknowledgement.
    pub(crate) fn finished(&mut self, sequence: u32, acknowledge: bool) -> &[u8] {
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        if acknowledge {
            let flags = self.flags() | ACKNOWLEDGE;
            self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        }
        &self.bytes
    }

    pub(crate) fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.bytes[6], self.bytes[7]])
    }

    fn finish(mut self) -> Message {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self
    }
}

fn attribute_length(bytes: usize) -> u16 {
    // Names and rules are bounded before they come here, and elements are sent in parts: cut short, it would say something else.
    u16::try_from(bytes).expect("an attribute of ours is shorter than 64 KiB")
}

/// One message of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The message type.
    pub kind: u16,
    /// NLM_F_* flags.
    pub flags: u16,
    /// The sequence number of the request.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The messages in what one `recvmsg` delivered; `None` in the place of a message that is cut short.
pub fn answers(mut bytes: &[u8]) -> impl Iterator<Item = Option<Answer<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let length = word(bytes, 0).map_or(0, |length| length as usize);
        if length < HEADER || length > bytes.len() {
            bytes = &[];
            return Some(None);
        }
        let answer = Answer {
            kind: half(bytes, 4)?,
            flags: half(bytes, 6)?,
            sequence: word(bytes, 8)?,
            body: &bytes[HEADER..length],
        };
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some(Some(answer))
    })
}

/// The attributes in `bytes` as (type, value); ends at the first that is cut short.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = half(bytes, 0)? as usize;
        let kind = half(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some((kind, value))
    })
}

/// The value of the first attribute of this type.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A number in the host's byte order at an offset.
pub fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

/// A 16-bit number in the host's byte order at an offset.
pub fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

/// A text without the NUL at its end.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut message = Message::new(16, CREATE)
            .fixed(&[7; 6])
            .text(3, "eth0")
            .nest(18, |info| info.u32(1, 5).attribute(2, &[9, 9, 9]).nest(3, |inner| inner.be32(1, 1)));
        let bytes = message.finished(77, true).to_vec();
        let answer = answers(&bytes).next().unwrap().unwrap();
        assert_eq!((answer.kind, answer.flags, answer.sequence), (16, REQUEST | CREATE | ACKNOWLEDGE, 77));
        assert_eq!(answer.body.len() + HEADER, bytes.len());
        let body = &answer.body[8..];
        assert_eq!(text(attribute(body, 3).unwrap()), "eth0");
        let nested = attribute(body, 18).unwrap();
        assert_eq!(word(attribute(nested, 1).unwrap(), 0), Some(5));
        assert_eq!(attribute(nested, 2).unwrap(), [9, 9, 9]);
        assert_eq!(attribute(attribute(nested, 3).unwrap(), 1).unwrap(), [0, 0, 0, 1]);
        assert_eq!(attribute(body, 99), None);
    }

    #[test]
    fn a_short_answer_is_no_answer() {
        let bytes = Message::new(16, 0).fixed(&[0; 16]).finished(1, false).to_vec();
        assert!(answers(&bytes[..20]).next().unwrap().is_none());
        assert!(answers(&bytes[..3]).next().unwrap().is_none());
        assert_eq!(attributes(&[9, 0, 1, 0, 5]).count(), 0);
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0);
    }
}
