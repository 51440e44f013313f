//! One entry of a log, borrowed from what was read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;
use stdx::time::Rfc3339;

use crate::encoder::Format;
use crate::record::Stream;
use crate::{compact_line, json_line};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Which output.
    pub stream: Stream,
    time: Time<'a>,
    text: Text<'a>,
    /// A JSON object; empty for none.
    attrs: Cow<'a, [u8]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Time<'a> {
    Nanos(u64),
    /// RFC 3339 in UTC, without anything unusual.
    Plain(&'a [u8]),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Text<'a> {
    Whole(Cow<'a, [u8]>),
    /// A line without its newline.
    Line(&'a [u8]),
    /// The inside of a JSON string.
    Escaped(&'a [u8]),
}

impl<'a> Entry<'a> {
    /// Takes a line apart; `None` if it is none.
    pub(crate) fn parse(format: Format, line: &'a [u8]) -> Option<Entry<'a>> {
        match format {
            Format::Compact => {
                let line = compact_line::parse(line)?;
                let text = if line.ends_line { Text::Line(line.text) } else { Text::Whole(Cow::Borrowed(line.text)) };
                Some(Entry { stream: line.stream, time: Time::Nanos(line.nanos), text, attrs: Cow::Borrowed(b"") })
            }
            Format::Json => match json_line::parse(line).filter(|line| is_plain(line.time)) {
                Some(line) => Some(Entry {
                    stream: line.stream,
                    time: Time::Plain(line.time),
                    text: Text::Escaped(line.log),
                    attrs: Cow::Borrowed(line.attrs),
                }),
                None => parse_any(line),
            },
        }
    }

    /// When it was written, in nanoseconds since 1970.
    pub fn nanos(&self) -> u64 {
        match self.time {
            Time::Nanos(nanos) => nanos,
            Time::Plain(text) => plain_nanos(text),
        }
    }

    /// Appends the bytes; without a newline at the end they are a piece of a longer line.
    pub fn append_text(&self, out: &mut Vec<u8>) {
        match &self.text {
            Text::Whole(text) => out.extend_from_slice(text),
            Text::Line(text) => {
                out.extend_from_slice(text);
                out.push(b'\n');
            }
            // What is not well-formed is shown as far as it is.
            Text::Escaped(text) => _ = json_line::unescape(out, text),
        }
    }

    /// Appends the time as RFC 3339 with nine digits always: Docker's `RFC3339NanoFixed`, so that lines stay aligned.
    pub fn append_time(&self, out: &mut Vec<u8>) {
        match self.time {
            Time::Plain(text) => {
                out.extend_from_slice(&text[..19]);
                let fraction = &text[19..text.len() - 1];
                out.extend_from_slice(if fraction.is_empty() { b"." } else { fraction });
                (fraction.len().max(1)..10).for_each(|_| out.push(b'0'));
                out.push(b'Z');
            }
            Time::Nanos(nanos) => {
                let fraction = nanos % 1_000_000_000;
                let whole = Rfc3339(UNIX_EPOCH + Duration::from_nanos(nanos - fraction)).to_string();
                // A Vec takes everything.
                let _ = write!(out, "{}.{fraction:09}Z", whole.trim_end_matches('Z'));
            }
        }
    }

    /// The container's attributes.
    pub fn attrs(&self) -> BTreeMap<String, String> {
        // Whoever wrote something else there has none.
        serde_json::from_slice(&self.attrs).unwrap_or_default()
    }
}

/// `2026-11-20T10:00:00Z`, with up to nine digits behind a point.
fn is_plain(time: &[u8]) -> bool {
    let Some((head, tail)) = time.split_at_checked(19) else { return false };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let fraction = match tail {
        [b'Z'] => &b""[..],
        [b'.', digits @ .., b'Z'] if (1..=9).contains(&digits.len()) => digits,
        _ => return false,
    };
    let all_digits =
        head.iter().enumerate().all(|(at, byte)| matches!(at, 4 | 7 | 10 | 13 | 16) || byte.is_ascii_digit());
    all_digits && separators.iter().all(|(at, byte)| head[*at] == *byte) && fraction.iter().all(u8::is_ascii_digit)
}

fn plain_nanos(time: &[u8]) -> u64 {
    let text = std::str::from_utf8(time).ok();
    let parsed = text.and_then(Rfc3339::parse).and_then(|time| time.0.duration_since(UNIX_EPOCH).ok());
    parsed.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

/// Whatever JSON it is: keys in another order, other escapes.
fn parse_any(line: &[u8]) -> Option<Entry<'static>> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(default)]
        log: String,
        stream: String,
        time: String,
        #[serde(default)]
        attrs: BTreeMap<String, String>,
    }
    let line: Line = serde_json::from_slice(line).ok()?;
    let since = Rfc3339::parse(&line.time)?.0.duration_since(UNIX_EPOCH).ok()?;
    Some(Entry {
        stream: if line.stream == "stderr" { Stream::Stderr } else { Stream::Stdout },
        time: Time::Nanos(u64::try_from(since.as_nanos()).ok()?),
        text: Text::Whole(Cow::Owned(line.log.into_bytes())),
        attrs: Cow::Owned(crate::encoder::attrs_object(&line.attrs)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nine_digits_and_a_number() {
        for (time, fixed, nanos) in [
            ("1970-01-01T00:00:01Z", "1970-01-01T00:00:01.000000000Z", 1_000_000_000),
            ("1970-01-01T00:00:01.5Z", "1970-01-01T00:00:01.500000000Z", 1_500_000_000),
            ("1970-01-01T00:00:00.000000007Z", "1970-01-01T00:00:00.000000007Z", 7),
            ("1970-01-01T01:00:00.1+01:00", "1970-01-01T00:00:00.100000000Z", 100_000_000),
        ] {
            let line = format!(r#"{{"log":"a\n","stream":"stdout","time":"{time}"}}"#);
            let entry = Entry::parse(Format::Json, line.as_bytes()).unwrap();
            let mut shown = Vec::new();
            entry.append_time(&mut shown);
            assert_eq!((String::from_utf8(shown).unwrap().as_str(), entry.nanos()), (fixed, nanos), "{time}");
        }
    }

    #[test]
    fn any_order_of_keys_is_read() {
        let line = br#"{"time":"1970-01-01T00:00:01Z","attrs":{"a":"b"},"stream":"stderr","log":"x\u0041"}"#;
        let entry = Entry::parse(Format::Json, line).unwrap();
        let mut text = Vec::new();
        entry.append_text(&mut text);
        assert_eq!((text.as_slice(), entry.stream, entry.nanos()), (&b"xA"[..], Stream::Stderr, 1_000_000_000));
        assert_eq!(entry.attrs(), BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        assert_eq!(Entry::parse(Format::Json, b"{}"), None);
    }
}
