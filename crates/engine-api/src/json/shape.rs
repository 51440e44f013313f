//! What Go expects at each place of a document, and how a document is read accordingly.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::syntax;

/// A body: a type of ours, and what Go's type of it looks like.
pub trait Document: DeserializeOwned {
    /// The name that stands before the path of a field; Docker decodes creations in a way that hides it.
    const PREFIX: &'static str;
    /// Its shape.
    const SHAPE: Shape;
}

/// What Go expects at one place. Texts are Go's names of types, which are told when something else comes.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A text.
    Text(&'static str),
    /// True or false.
    Bool,
    /// A whole number between two others.
    Number(&'static str, i128, i128),
    /// A command: texts, or one text.
    Words,
    /// Values of one shape.
    List(&'static str, &'static Shape),
    /// Exactly so many values of one shape: what is missing is zero, what is too much is ignored.
    Array(&'static str, usize, &'static Shape),
    /// Members of any name, of one shape.
    Map(&'static str, &'static Shape),
    /// Members of these names; all others are ignored.
    Object(&'static str, &'static [Field]),
}

/// A member's name and shape.
pub type Field = (&'static str, Shape);

/// A value of the wrong type.
#[derive(Debug, thiserror::Error)]
#[error("json: cannot unmarshal {found} into {} of type {wanted}", place(.prefix, .path))]
pub struct TypeError {
    prefix: &'static str,
    /// From the innermost name to the outermost.
    path: Vec<String>,
    found: String,
    wanted: &'static str,
}

/// Reads a document that is known to be well-formed and has neither blanks before nor anything behind it.
pub(super) fn read_document<T: Document>(bytes: &[u8]) -> Result<Value, TypeError> {
    let read = Reader { bytes, at: 0 }.value(&T::SHAPE);
    read.map(|value| value.unwrap_or_default()).map_err(|misfit| misfit.told(T::PREFIX))
}

/// A type error whose path is still being put together, on the way out.
struct Misfit {
    path: Vec<String>,
    found: String,
    wanted: &'static str,
    /// Go decodes commands by themselves, and knows nothing of the document around them.
    alone: bool,
}

impl Misfit {
    fn within(mut self, name: impl Into<String>) -> Misfit {
        self.path.push(name.into());
        self
    }

    fn told(self, prefix: &'static str) -> TypeError {
        let path = if self.alone { Vec::new() } else { self.path };
        TypeError { prefix, path, found: self.found, wanted: self.wanted }
    }
}

/// The place of a wrong value: its path, or just "value" for the document as a whole.
fn place(prefix: &str, path: &[String]) -> String {
    let Some(last) = path.first() else { return "Go value".to_owned() };
    // Go tells a field from an element by the look of its name alone.
    let is_index = last.bytes().all(|byte| byte.is_ascii_digit()) && (last == "0" || !last.starts_with('0'));
    let mut place = String::from(if is_index && !last.is_empty() { "" } else { "Go struct field " });
    place.push_str(prefix);
    for name in path.iter().rev() {
        place.push('.');
        place.push_str(&name.replace('~', "~0").replace('/', "~1"));
    }
    place
}

/// A position in a well-formed document.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads the value that begins here; `None` is null, which Go takes for any shape.
    ///
    /// The recursion is as deep as the shape, not as the document.
    fn value(&mut self, shape: &Shape) -> Result<Option<Value>, Misfit> {
        if self.bytes[self.at] == b'n' {
            self.skip();
            return Ok(None);
        }
        let value = match (shape, self.bytes[self.at]) {
            (Shape::Text(_), b'"') => self.text().into(),
            (Shape::Bool, b't' | b'f') => (self.skip() == b"true").into(),
            (Shape::Number(wanted, min, max), b'-' | b'0'..=b'9') => self.number(wanted, *min, *max)?,
            (Shape::Words, _) => self.words()?,
            (Shape::List(_, element), b'[') => self.list(element)?.into(),
            (Shape::Array(_, length, element), b'[') => self.array(*length, element)?,
            (Shape::Map(_, element), b'{') => self.map(element)?,
            (Shape::Object(_, fields), b'{') => self.object(fields)?,
            (shape, _) => return Err(self.misfit(shape.go_type())),
        };
        Ok(Some(value))
    }

    /// What to say of the value that begins here.
    fn misfit(&self, wanted: &'static str) -> Misfit {
        let found = match self.bytes[self.at] {
            b'"' => "string",
            b'{' => "object",
            b'[' => "array",
            b't' | b'f' => "bool",
            _ => "number",
        };
        Misfit { path: Vec::new(), found: found.to_owned(), wanted, alone: false }
    }

    /// Leaves the value that begins here, and answers its text.
    fn skip(&mut self) -> &'a [u8] {
        let start = self.at;
        // The document is well-formed; were it not, its end would be the end of this value.
        self.at = syntax::end_of_value(self.bytes, start).unwrap_or(self.bytes.len());
        &self.bytes[start..self.at]
    }

    fn number(&mut self, wanted: &'static str, min: i128, max: i128) -> Result<Value, Misfit> {
        let misfit = self.misfit(wanted);
        let text = String::from_utf8_lossy(self.skip());
        match text.parse::<i128>() {
            Ok(number) if (min..=max).contains(&number) => {
                Ok(i64::try_from(number).map_or_else(|_| (number as u64).into(), Value::from))
            }
            _ => Err(Misfit { found: format!("number {text}"), ..misfit }),
        }
    }

    /// A text, or texts. What does not fit is judged by the first: as if a text had been expected.
    fn words(&mut self) -> Result<Value, Misfit> {
        let misfit = Misfit { alone: true, ..self.misfit("string") };
        match self.bytes[self.at] {
            b'"' => Ok(vec![self.text()].into()),
            b'[' => Ok(self.list(&super::shapes::TEXT).map_err(|_| misfit)?.into()),
            _ => Err(misfit),
        }
    }

    fn list(&mut self, element: &Shape) -> Result<Vec<Value>, Misfit> {
        let mut elements = Vec::new();
        self.each(b']', |reader| {
            let value = reader.nested(element).map_err(|misfit| misfit.within(elements.len().to_string()))?;
            elements.push(value.unwrap_or_else(|| element.zero()));
            Ok(())
        })?;
        Ok(elements)
    }

    fn array(&mut self, length: usize, element: &Shape) -> Result<Value, Misfit> {
        let mut elements = Vec::new();
        self.each(b']', |reader| {
            if elements.len() == length {
                reader.skip();
                return Ok(());
            }
            let value = reader.nested(element).map_err(|misfit| misfit.within(elements.len().to_string()))?;
            elements.push(value.unwrap_or_else(|| element.zero()));
            Ok(())
        })?;
        elements.resize(length, element.zero());
        Ok(elements.into())
    }

    fn map(&mut self, element: &Shape) -> Result<Value, Misfit> {
        let mut members = Map::new();
        self.each(b'}', |reader| {
            let name = reader.name();
            let value = match reader.nested(element) {
                Ok(value) => value.unwrap_or_else(|| element.zero()),
                Err(misfit) => return Err(misfit.within(name)),
            };
            members.insert(name, value);
            Ok(())
        })?;
        Ok(members.into())
    }

    /// A value inside another one. A field of it that is null is one that nobody has set; a null of a map stands for something
    /// there.
    fn nested(&mut self, shape: &Shape) -> Result<Option<Value>, Misfit> {
        let mut value = self.value(shape)?;
        if let (Shape::Object(..), Some(Value::Object(members))) = (shape, &mut value) {
            members.retain(|_, member| !member.is_null());
        }
        Ok(value)
    }

    fn object(&mut self, fields: &[Field]) -> Result<Value, Misfit> {
        let mut members = Map::new();
        self.each(b'}', |reader| {
            let name = reader.name();
            let Some((known, shape)) = find(fields, &name) else {
                reader.skip();
                return Ok(());
            };
            let value = reader.nested(shape).map_err(|misfit| misfit.within(name))?;
            members.insert((*known).to_owned(), value.unwrap_or_default());
            Ok(())
        })?;
        Ok(members.into())
    }

    /// Reads what lies between the bracket that is here and `end`.
    fn each(&mut self, end: u8, mut read: impl FnMut(&mut Self) -> Result<(), Misfit>) -> Result<(), Misfit> {
        self.pass();
        while self.bytes[self.at] != end {
            read(self)?;
            self.at = syntax::skip_blanks(self.bytes, self.at);
            if self.bytes[self.at] == b',' {
                self.pass();
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Leaves a punctuation mark, and the blanks behind it.
    fn pass(&mut self) {
        self.at = syntax::skip_blanks(self.bytes, self.at + 1);
    }

    /// A member's name; its value begins behind it.
    fn name(&mut self) -> String {
        let name = self.text();
        self.at = syntax::skip_blanks(self.bytes, self.at);
        self.pass();
        name
    }

    fn text(&mut self) -> String {
        let quoted = self.skip();
        unescaped(quoted.get(1..quoted.len() - 1).unwrap_or_default())
    }
}

impl Shape {
    /// Go's name of the type.
    fn go_type(&self) -> &'static str {
        match self {
            Shape::Bool => "bool",
            Shape::Words => "string",
            Shape::Text(name)
            | Shape::Number(name, ..)
            | Shape::List(name, _)
            | Shape::Array(name, ..)
            | Shape::Map(name, _)
            | Shape::Object(name, _) => name,
        }
    }

    /// What a null among others stands for.
    fn zero(&self) -> Value {
        match self {
            Shape::Text(_) => "".into(),
            Shape::Bool => false.into(),
            Shape::Number(..) => 0.into(),
            Shape::Array(_, length, element) => vec![element.zero(); *length].into(),
            // No list at all, which is not the empty one.
            Shape::Words | Shape::List(..) => Value::Null,
            Shape::Map(..) | Shape::Object(..) => Map::new().into(),
        }
    }
}

/// The field of a name: Go prefers the exact one, but takes any case.
fn find<'a>(fields: &'a [Field], name: &str) -> Option<&'a Field> {
    let exact = fields.iter().find(|(known, _)| *known == name);
    exact.or_else(|| fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)))
}

/// The text between two quotes. Bytes that are no UTF-8, and halves of surrogate pairs, are replaced as Go does.
fn unescaped(quoted: &[u8]) -> String {
    if !quoted.contains(&b'\\') {
        return String::from_utf8_lossy(quoted).into_owned();
    }
    let mut text = Vec::with_capacity(quoted.len());
    let mut rest = quoted;
    while let Some((&first, tail)) = rest.split_first() {
        let (character, length) = match (first, tail.first()) {
            (b'\\', Some(b'u')) => unicode(rest),
            (b'\\', Some(&letter)) => (control(letter), 2),
            _ => {
                text.push(first);
                rest = tail;
                continue;
            }
        };
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[length..];
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// What a letter behind a backslash stands for.
fn control(letter: u8) -> char {
    match letter {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        other => char::from(other),
    }
}

/// The character of an escape sequence like `\u00e9`, or of a pair of them, and the length of it.
fn unicode(escape: &[u8]) -> (char, usize) {
    let unit = |at: usize| {
        let digits = escape.get(at..at + 6).filter(|unit| unit.starts_with(b"\\u"))?;
        u16::from_str_radix(std::str::from_utf8(&digits[2..]).ok()?, 16).ok()
    };
    let units = [unit(0), unit(6)].map(Option::unwrap_or_default);
    match char::decode_utf16(units).next() {
        Some(Ok(character)) => (character, 6 * character.len_utf16()),
        _ => (char::REPLACEMENT_CHARACTER, 6),
    }
}
