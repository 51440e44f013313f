//! Messages as bytes (D-Bus specification, "Type System" and "Message Protocol"): the part of it that we need. Pure.

/// A value of a message (D-Bus specification, "Type System").
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Text(String),
    /// `a` and the signature of its members.
    Array(String, Vec<Value>),
    /// `(...)`
    Struct(Vec<Value>),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    /// An array of texts.
    pub fn texts(texts: &[&str]) -> Value {
        Value::Array("s".to_owned(), texts.iter().map(|text| Value::Text((*text).to_owned())).collect())
    }

    /// An array of bytes.
    pub fn bytes(bytes: &[u8]) -> Value {
        Value::Array("y".to_owned(), bytes.iter().map(|byte| Value::Byte(*byte)).collect())
    }

    /// Its type, as the specification writes it.
    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".to_owned(),
            Value::Bool(_) => "b".to_owned(),
            Value::I16(_) => "n".to_owned(),
            Value::U16(_) => "q".to_owned(),
            Value::I32(_) => "i".to_owned(),
            Value::U32(_) => "u".to_owned(),
            Value::I64(_) => "x".to_owned(),
            Value::U64(_) => "t".to_owned(),
            Value::Double(_) => "d".to_owned(),
            Value::Text(_) => "s".to_owned(),
            Value::Array(member, _) => format!("a{member}"),
            Value::Struct(members) => format!("({})", members.iter().map(Value::signature).collect::<String>()),
            Value::Variant(_) => "v".to_owned(),
        }
    }
}

/// How the first value of a signature is aligned.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        // Bytes, signatures and variants.
        _ => 1,
    }
}

/// A call that is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Call<'a> {
    /// The name of who is called.
    pub destination: &'a str,
    /// Which of his objects.
    pub path: &'a str,
    /// Which of the object's interfaces.
    pub interface: &'a str,
    /// The method.
    pub member: &'a str,
    /// Its arguments.
    pub body: &'a [Value],
}

/// Codes of fields of a message's head.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Message types.
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

impl Call<'_> {
    /// The message; `serial` is not 0.
    pub(crate) fn message(&self, serial: u32) -> Vec<u8> {
        let mut body = Writer(Vec::new());
        self.body.iter().for_each(|value| body.value(value));
        let mut head = Writer(vec![b'l', METHOD_CALL, 0, 1]);
        head.u32(body.0.len() as u32);
        head.u32(serial);
        let signature: String = self.body.iter().map(Value::signature).collect();
        let fields = [
            (PATH, "o", self.path),
            (INTERFACE, "s", self.interface),
            (MEMBER, "s", self.member),
            (DESTINATION, "s", self.destination),
            (SIGNATURE, "g", signature.as_str()),
        ];
        head.array("(yv)", |writer| {
            for (code, kind, text) in fields.into_iter().filter(|(_, _, text)| !text.is_empty()) {
                writer.align(8);
                writer.0.push(code);
                writer.signature(kind);
                if kind == "g" { writer.signature(text) } else { writer.text(text) }
            }
        });
        head.align(8);
        head.0.append(&mut body.0);
        head.0
    }
}

/// Bytes of a message from its beginning, which alignment counts from.
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.bytes());
        self.0.push(0);
    }

    /// The length goes before the members, and does not count the padding before the first.
    fn array(&mut self, member: &str, members: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(alignment(member));
        let begin = self.0.len();
        members(self);
        let length = (self.0.len() - begin) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        self.align(alignment(&value.signature()));
        match value {
            Value::Byte(byte) => self.0.push(*byte),
            Value::Bool(on) => self.u32(u32::from(*on)),
            Value::I16(number) => self.0.extend(number.to_le_bytes()),
            Value::U16(number) => self.0.extend(number.to_le_bytes()),
            Value::I32(number) => self.0.extend(number.to_le_bytes()),
            Value::U32(number) => self.0.extend(number.to_le_bytes()),
            Value::I64(number) => self.0.extend(number.to_le_bytes()),
            Value::U64(number) => self.0.extend(number.to_le_bytes()),
            Value::Double(number) => self.0.extend(number.to_le_bytes()),
            Value::Text(text) => self.text(text),
            Value::Array(member, members) => {
                self.array(member, |writer| members.iter().for_each(|member| writer.value(member)));
            }
            Value::Struct(members) => members.iter().for_each(|member| self.value(member)),
            Value::Variant(inner) => {
                self.signature(&inner.signature());
                self.value(inner);
            }
        }
    }
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) kind: Kind,
    pub(crate) body: Body,
}

/// What a message brings, as far as we read it: what comes behind a structure, or an array of anything but texts, is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Its texts, in order, also those of an array and of a variant.
    pub texts: Vec<String>,
    /// Its numbers of type `u`, in order.
    pub numbers: Vec<u32>,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The answer to the call of this serial.
    Answer(u32),
    /// The same, and why not.
    Error(u32, String),
    /// A signal of this name.
    Signal(String),
    /// Nothing that we wait for.
    Other,
}

/// Bytes of the fixed part of a head, with the length of the fields.
pub(crate) const HEAD_BYTES: usize = 16;

/// The most that a message may have; nothing that we are answered comes near.
const MESSAGE_MAX: usize = 1 << 20;

/// The length of a message of which the first [`HEAD_BYTES`] are there; nothing if it is none that we read.
pub(crate) fn length(head: &[u8; HEAD_BYTES]) -> Option<usize> {
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
    let length = HEAD_BYTES.checked_add(number(12))?.checked_next_multiple_of(8)?.checked_add(number(4))?;
    // Who answers writes in the order of its machine, which is ours.
    (head[0] == b'l' && head[3] == 1 && length <= MESSAGE_MAX).then_some(length)
}

impl Received {
    /// Reads a whole message; nothing if it contradicts itself.
    pub(crate) fn parse(message: &[u8]) -> Option<Received> {
        let mut reader = Reader { bytes: message, at: 12 };
        let end = reader.u32()? as usize + HEAD_BYTES;
        let (mut member, mut error, mut serial, mut signature) = (String::new(), String::new(), 0, String::new());
        while reader.at < end {
            reader.align(8);
            let code = reader.byte()?;
            let kind = reader.signature()?;
            match (code, kind.as_str()) {
                (MEMBER, "s") => member = reader.text()?,
                (ERROR_NAME, "s") => error = reader.text()?,
                (REPLY_SERIAL, "u") => serial = reader.u32()?,
                (SIGNATURE, "g") => signature = reader.signature()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.u32()?),
                _ => return None,
            }
        }
        reader.align(8);
        let kind = match *message.get(1)? {
            METHOD_RETURN => Kind::Answer(serial),
            ERROR => Kind::Error(serial, error),
            SIGNAL => Kind::Signal(member),
            _ => Kind::Other,
        };
        let mut body = Body::default();
        reader.body(&signature, &mut body)?;
        Some(Received { kind, body })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        self.ended(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        self.ended(length)
    }

    /// Text with the 0 after it.
    fn ended(&mut self, length: usize) -> Option<String> {
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        (self.byte()? == 0).then_some(text)
    }

    /// Reads values as far as we know them.
    fn body(&mut self, signature: &str, body: &mut Body) -> Option<()> {
        let mut kinds = signature.bytes();
        while let Some(kind) = kinds.next() {
            match kind {
                b's' | b'o' => body.texts.push(self.text()?),
                b'g' => body.texts.push(self.signature()?),
                b'u' => body.numbers.push(self.u32()?),
                b'i' | b'b' => drop(self.u32()?),
                b'v' => {
                    // Of a plain value: what is nested could be nested as deep as the message is long.
                    let inner = self.signature().filter(|inner| !inner.contains('v'))?;
                    self.body(&inner, body)?;
                }
                b'a' if matches!(kinds.next(), Some(b's' | b'o')) => self.array(&mut body.texts)?,
                _ => break,
            }
        }
        Some(())
    }

    /// The texts of an array of nothing else.
    fn array(&mut self, texts: &mut Vec<String>) -> Option<()> {
        let end = (self.u32()? as usize).checked_add(self.at)?;
        while self.at < end {
            texts.push(self.text()?);
        }
        (self.at == end).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(values: &[Value]) -> Vec<u8> {
        let mut writer = Writer(Vec::new());
        values.iter().for_each(|value| writer.value(value));
        writer.0
    }

    #[test]
    fn values_are_aligned_as_the_specification_has_it() {
        for (value, signature, bytes) in [
            (Value::Bool(true), "b", &[1, 0, 0, 0][..]),
            (Value::Text("ab".into()), "s", &[2, 0, 0, 0, b'a', b'b', 0]),
            (Value::bytes(&[3, 1]), "ay", &[2, 0, 0, 0, 3, 1]),
            // Padding before the first member is not counted, and is there without one.
            (Value::Array("t".into(), vec![Value::U64(1)]), "at", &[8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]),
            (Value::Array("t".into(), vec![]), "at", &[0, 0, 0, 0, 0, 0, 0, 0]),
            (Value::Variant(Box::new(Value::U16(258))), "v", &[1, b'q', 0, 0, 2, 1]),
            (
                Value::Struct(vec![Value::Byte(1), Value::Variant(Box::new(Value::Double(1.0)))]),
                "(yv)",
                &[1, 1, b'd', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f],
            ),
            (Value::texts(&["a", "b"]), "as", &[14, 0, 0, 0, 1, 0, 0, 0, b'a', 0, 0, 0, 1, 0, 0, 0, b'b', 0]),
        ] {
            assert_eq!((value.signature().as_str(), body(std::slice::from_ref(&value)).as_slice()), (signature, bytes));
        }
        assert_eq!(body(&[Value::Byte(1), Value::I64(-1)]).len(), 16);
    }

    #[test]
    fn a_message_is_the_same_after_its_way() {
        let call = Call {
            destination: "org.example",
            path: "/a",
            interface: "org.example.I",
            member: "Do",
            body: &[
                Value::Text("x".into()),
                Value::U32(7),
                Value::Variant(Box::new(Value::Text("y".into()))),
                Value::texts(&["a", "bc"]),
                Value::bytes(&[1]),
                Value::Text("not read".into()),
            ],
        };
        let message = call.message(5);
        let head: [u8; HEAD_BYTES] = message[..HEAD_BYTES].try_into().unwrap();
        assert_eq!(length(&head), Some(message.len()));
        let body = Body { texts: ["x", "y", "a", "bc"].map(str::to_owned).to_vec(), numbers: vec![7] };
        assert_eq!(Received::parse(&message), Some(Received { kind: Kind::Other, body }));
        let mut signal = message.clone();
        signal[1] = SIGNAL;
        assert_eq!(Received::parse(&signal).unwrap().kind, Kind::Signal("Do".into()));
        let nested = Value::Variant(Box::new(Value::Variant(Box::new(Value::Byte(1)))));
        assert_eq!(Received::parse(&Call { body: &[nested], ..call }.message(6)), None);
        let empty = Call { body: &[Value::texts(&[]), Value::U32(1)], ..call }.message(7);
        assert_eq!(Received::parse(&empty).unwrap().body, Body { texts: Vec::new(), numbers: vec![1] });
        // Whatever is cut off or wrong is an error and no panic.
        let whole = Call { body: &call.body[..4], ..call }.message(8);
        for end in 0..whole.len() {
            assert_eq!(Received::parse(&whole[..end]), None, "{end}");
        }
        for at in 0..message.len() {
            for byte in [0, 1, 127, 255] {
                let mut wrong = message.clone();
                wrong[at] = byte;
                let _ = Received::parse(&wrong);
                let _ = length(&wrong[..HEAD_BYTES].try_into().unwrap());
            }
        }
    }
}
