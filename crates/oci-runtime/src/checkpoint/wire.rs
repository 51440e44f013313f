//! The little of protocol buffers that CRIU's messages need (protobuf.dev, "Encoding"). Pure.
//!
//! Two messages go out and one comes in, with numbers, texts and messages as fields: a library for all of protocol buffers
//! would be larger than the rest of the runtime.

/// A message that is being written. Fields follow each other in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message(pub(super) Vec<u8>);

/// Wire types: a number of variable length, eight bytes, a length and as many bytes, four bytes.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

impl Message {
    /// A number that is never negative, an enumeration's value.
    pub(super) fn number(&mut self, field: u32, value: u64) -> &mut Message {
        self.varint(u64::from(field) << 3 | VARINT);
        self.varint(value);
        self
    }

    /// A signed number; negative ones are as long as any can be.
    pub(super) fn signed(&mut self, field: u32, value: i32) -> &mut Message {
        self.number(field, i64::from(value) as u64)
    }

    /// A switch. Absent is off.
    pub(super) fn switch(&mut self, field: u32, on: bool) -> &mut Message {
        if on { self.number(field, 1) } else { self }
    }

    /// A text, which may be any bytes.
    pub(super) fn text(&mut self, field: u32, text: impl AsRef<[u8]>) -> &mut Message {
        let text = text.as_ref();
        self.varint(u64::from(field) << 3 | BYTES);
        self.varint(text.len() as u64);
        self.0.extend_from_slice(text);
        self
    }

    /// A message inside.
    pub(super) fn message(&mut self, field: u32, message: &Message) -> &mut Message {
        self.text(field, &message.0)
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A number, a switch or an enumeration's value.
    Number(u64),
    /// A text or a message.
    Bytes(&'a [u8]),
    /// Nothing that CRIU sends today.
    Other,
}

impl Value<'_> {
    /// As a signed number; `None` beyond 32 bits, or if it is none.
    pub(super) fn signed(self) -> Option<i32> {
        if let Value::Number(number) = self { i32::try_from(number as i64).ok() } else { None }
    }

    /// As a text, with marks for what is none; empty if it is a number.
    pub(super) fn text(self) -> String {
        if let Value::Bytes(bytes) = self { String::from_utf8_lossy(bytes).into_owned() } else { String::new() }
    }
}

/// The fields of a message, in their order; `None` if it is not one.
pub(super) fn fields(mut bytes: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let value = match key & 7 {
            VARINT => Value::Number(take_varint(&mut bytes)?),
            BYTES => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                Value::Bytes(take(&mut bytes, length)?)
            }
            FIXED_64 => take(&mut bytes, 8).map(|_| Value::Other)?,
            FIXED_32 => take(&mut bytes, 4).map(|_| Value::Other)?,
            _ => return None,
        };
        fields.push((u32::try_from(key >> 3).ok()?, value));
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    // Ten bytes of seven bits are the longest there is.
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_as_the_specification_has_them() {
        let mut inner = Message::default();
        inner.number(1, 150);
        let mut message = Message::default();
        message.message(3, &inner).text(2, "testing").signed(1, -1).switch(4, true).switch(5, false);
        let mut expected = vec![0x1a, 3, 8, 0x96, 1, 0x12, 7];
        expected.extend(b"testing");
        expected.extend([8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0x20, 1]);
        assert_eq!(message.0, expected);
        let read = fields(&message.0).unwrap();
        let numbers: Vec<_> = read.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [3, 2, 1, 4]);
        assert_eq!((read[1].1.text().as_str(), read[2].1.signed()), ("testing", Some(-1)));
        let Value::Bytes(inner) = read[0].1 else { panic!("{read:?}") };
        assert_eq!(fields(inner), Some(vec![(1, Value::Number(150))]));
    }

    #[test]
    fn what_is_cut_or_no_message_is_refused() {
        let mut message = Message::default();
        message.number(1, 300).text(2, "some text");
        let readable = (0..message.0.len()).filter(|cut| fields(&message.0[..*cut]).is_some()).count();
        // Before and after the first field.
        assert_eq!(readable, 2);
        assert_eq!(fields(&[0x0b]), None);
        assert_eq!(fields(&[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]), None);
        assert_eq!(fields(&[0x12, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]), None);
        assert_eq!(fields(&[0x0d, 1, 2, 3, 4, 0x11, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap().len(), 2);
    }
}
