//! Properties in annotations (`org.systemd.property.NAME`), whose values are written in GVariant's text form
//! (docs.gtk.org/glib/gvariant-text-format.html), as runc has it. Pure.

use dbus::Value;

use super::SystemdError;
use super::properties::Property;

const PREFIX: &str = "org.systemd.property.";

/// The properties that annotations ask for.
pub(crate) fn properties<'a>(
    annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<Vec<Property>, SystemdError> {
    let mut properties = Vec::new();
    for (annotation, text) in annotations {
        let Some(name) = annotation.strip_prefix(PREFIX) else { continue };
        let wrong = || SystemdError::Property { name: annotation.clone(), value: text.clone() };
        let is_name = name.len() >= 3 && name.bytes().all(|letter| letter.is_ascii_alphabetic());
        let value = parse(text).filter(|_| is_name).ok_or_else(wrong)?;
        // What is seconds in unit files is microseconds here, by another name.
        let seconds = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|last: char| last.is_ascii_lowercase()));
        properties.push(match seconds {
            Some(stem) => (format!("{stem}USec"), microseconds(&value).ok_or_else(wrong)?),
            None => (name.to_owned(), value),
        });
    }
    Ok(properties)
}

fn microseconds(seconds: &Value) -> Option<Value> {
    const FACTOR: u64 = 1_000_000;
    let whole = match *seconds {
        Value::Byte(number) => u64::from(number),
        Value::I16(number) => u64::try_from(number).ok()?,
        Value::U16(number) => u64::from(number),
        Value::I32(number) => u64::try_from(number).ok()?,
        Value::U32(number) => u64::from(number),
        Value::I64(number) => u64::try_from(number).ok()?,
        Value::U64(number) => number,
        Value::Double(number) => return Some(Value::U64((number * FACTOR as f64) as u64)),
        _ => return None,
    };
    whole.checked_mul(FACTOR).map(Value::U64)
}

/// A value: `true`, `5`, `uint64 5`, `@t 5`, `1.5`, `'text'`, `['a', 'b']`.
fn parse(text: &str) -> Option<Value> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let members: Vec<Value> = split(inner)?.into_iter().map(parse).collect::<Option<_>>()?;
        let signature = members.first()?.signature();
        let alike = members.iter().all(|member| member.signature() == signature);
        return alike.then_some(Value::Array(signature, members));
    }
    if let Some(text) = quoted(text) {
        return Some(Value::Text(text));
    }
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    match text.split_once(char::is_whitespace) {
        Some((kind, number)) => of_kind(kind.strip_prefix('@').unwrap_or(kind), number.trim()),
        None => match text.parse() {
            Ok(number) => Some(Value::I32(number)),
            Err(_) if text.contains('.') => text.parse().ok().map(Value::Double),
            Err(_) => None,
        },
    }
}

fn of_kind(kind: &str, text: &str) -> Option<Value> {
    Some(match kind {
        "y" | "byte" => Value::Byte(text.parse().ok()?),
        "b" | "boolean" => Value::Bool(text.parse().ok()?),
        "n" | "int16" => Value::I16(text.parse().ok()?),
        "q" | "uint16" => Value::U16(text.parse().ok()?),
        "i" | "int32" => Value::I32(text.parse().ok()?),
        "u" | "uint32" => Value::U32(text.parse().ok()?),
        "x" | "int64" => Value::I64(text.parse().ok()?),
        "t" | "uint64" => Value::U64(text.parse().ok()?),
        "d" | "double" => Value::Double(text.parse().ok()?),
        "s" | "string" => Value::Text(quoted(text)?),
        _ => return None,
    })
}

/// Text in quotes of either kind, a backslash before any letter that is not meant.
fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let (mut plain, mut letters) = (String::new(), inner.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => plain.push(letters.next()?),
            letter if letter == quote => return None,
            letter => plain.push(letter),
        }
    }
    Some(plain)
}

/// The members of a list, at commas that are in no quotes.
fn split(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut begin, mut quote, mut escaped) = (Vec::new(), 0, None, false);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), letter) if open == letter => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, '[') => return None,
            (None, ',') => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_glib_writes_them() {
        let texts = |texts: &[&str]| Some(Value::texts(texts));
        for (text, value) in [
            ("true", Some(Value::Bool(true))),
            ("5", Some(Value::I32(5))),
            ("-5", Some(Value::I32(-5))),
            ("uint64 5", Some(Value::U64(5))),
            ("@t 5", Some(Value::U64(5))),
            ("byte 7", Some(Value::Byte(7))),
            ("1.5", Some(Value::Double(1.5))),
            ("'it\\'s, so'", Some(Value::Text("it's, so".into()))),
            ("\"x\"", Some(Value::Text("x".into()))),
            ("['a', \"b,c\"]", texts(&["a", "b,c"])),
            ("[uint32 1, uint32 2]", Some(Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)]))),
            ("[1, 'a']", None),
            ("[]", None),
            ("99999999999", None),
            ("x", None),
            ("'a", None),
            ("'a'b'", None),
            ("", None),
        ] {
            assert_eq!(parse(text), value, "{text}");
        }
    }

    #[test]
    fn annotations_are_properties() {
        let read = |name: &str, value: &str| {
            properties([(&name.to_owned(), &value.to_owned())]).map_err(|err| err.to_string())
        };
        assert_eq!(read("org.example", "x"), Ok(vec![]));
        let found = read("org.systemd.property.TimeoutStopUSec", "uint64 5");
        assert_eq!(found, Ok(vec![("TimeoutStopUSec".into(), Value::U64(5))]));
        let found = read("org.systemd.property.TimeoutStopSec", "1.5");
        assert_eq!(found, Ok(vec![("TimeoutStopUSec".into(), Value::U64(1_500_000))]));
        for (name, value) in
            [("TimeoutStopSec", "'x'"), ("TimeoutStopSec", "-1"), ("ab", "1"), ("Collect1", "1"), ("X", "")]
        {
            let name = format!("org.systemd.property.{name}");
            assert_eq!(read(&name, value), Err(format!("annotation {name}: {value:?} is not a value of a property")));
        }
    }
}
