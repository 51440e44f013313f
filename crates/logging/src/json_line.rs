//! One line of a `json-file` log, byte for byte as dockerd writes it.

use std::collections::BTreeMap;

use stdx::time::Rfc3339;

use crate::encoder::attrs_object;
use crate::record::{PIECE_MAX_BYTES, Record, Stream, system_time};

/// Encodes lines. What all lines of one moment share is made once and copied into every line.
pub(crate) struct Json {
    /// `"attrs":{..},`, or nothing.
    attrs: Vec<u8>,
    /// By stream.
    tails: [Tail; 2],
}

/// What follows the text of a line: `"stream":"stdout","time":"..."}` and the newline.
#[derive(Default)]
struct Tail {
    nanos: u64,
    bytes: Vec<u8>,
}

impl Json {
    /// For a container with these attributes.
    pub(crate) fn new(attrs: &BTreeMap<String, String>) -> Json {
        let mut object = attrs_object(attrs);
        if !object.is_empty() {
            object = [b"\"attrs\":", object.as_slice(), b","].concat();
        }
        Json { attrs: object, tails: Default::default() }
    }

    /// Each byte as `\u0000`, the frame around them, and the attributes.
    pub(crate) fn record_max_bytes(&self) -> usize {
        PIECE_MAX_BYTES * 6 + 128 + self.attrs.len()
    }

    /// Appends the line of a record.
    pub(crate) fn encode(&mut self, line: &mut Vec<u8>, record: Record<'_>) {
        line.push(b'{');
        if record.ends_line || record.len() > 0 {
            line.extend_from_slice(b"\"log\":\"");
            // A character may be cut in two by the seam between the parts; that is rare enough for a copy.
            match record.parts {
                [one, []] | [[], one] => escape(line, one),
                [head, tail] => escape(line, &[head, tail].concat()),
            }
            line.extend_from_slice(if record.ends_line { b"\\n\"," } else { b"\"," });
        }
        line.extend_from_slice(self.tail(record.stream, record.nanos));
    }

    fn tail(&mut self, stream: Stream, nanos: u64) -> &[u8] {
        let tail = &mut self.tails[usize::from(stream == Stream::Stderr)];
        if tail.nanos != nanos || tail.bytes.is_empty() {
            tail.nanos = nanos;
            tail.bytes.clear();
            for part in [b"\"stream\":\"", stream.name().as_bytes(), b"\",", &self.attrs, b"\"time\":\""] {
                tail.bytes.extend_from_slice(part);
            }
            tail.bytes.extend_from_slice(Rfc3339(system_time(nanos)).to_string().as_bytes());
            tail.bytes.extend_from_slice(b"\"}\n");
        }
        &tail.bytes
    }
}

/// A line taken apart without its escapes being resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// The inside of the JSON string.
    pub(crate) log: &'a [u8],
    pub(crate) stream: Stream,
    /// RFC 3339.
    pub(crate) time: &'a [u8],
    /// A JSON object; empty for none.
    pub(crate) attrs: &'a [u8],
}

/// Takes a line apart that has the form which [`Json::encode`] and dockerd write; `None` for any other, which may be JSON
/// nevertheless. This is most of the time of `logs`: no tree, no copies.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let rest = line.strip_prefix(b"{")?;
    let (log, rest) = match rest.strip_prefix(b"\"log\":\"") {
        Some(rest) => {
            let end = string_end(rest)?;
            (&rest[..end], rest[end + 1..].strip_prefix(b",")?)
        }
        None => (&b""[..], rest),
    };
    let rest = rest.strip_prefix(b"\"stream\":\"std")?;
    let (stream, rest) = match (rest.strip_prefix(b"out\""), rest.strip_prefix(b"err\"")) {
        (Some(rest), _) => (Stream::Stdout, rest),
        (_, Some(rest)) => (Stream::Stderr, rest),
        _ => return None,
    };
    let rest = rest.strip_suffix(b"\"}")?;
    let time_at = memchr::memrchr(b'"', rest)? + 1;
    let (head, time) = rest.split_at(time_at);
    let between = head.strip_suffix(b",\"time\":\"")?;
    let attrs = match between {
        [] => between,
        _ => between.strip_prefix(b",\"attrs\":").filter(|attrs| attrs.starts_with(b"{") && attrs.ends_with(b"}"))?,
    };
    Some(Line { log, stream, time, attrs })
}

/// Where a JSON string ends whose inside is in front.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let found = at + memchr::memchr2(b'"', b'\\', &text[at..])?;
        if text[found] == b'"' {
            return Some(found);
        }
        at = found + 2;
        if at > text.len() {
            return None;
        }
    }
}

/// Appends what the inside of a JSON string stands for; whether it was well-formed.
pub(crate) fn unescape(out: &mut Vec<u8>, mut text: &[u8]) -> bool {
    while let Some(at) = memchr::memchr(b'\\', text) {
        out.extend_from_slice(&text[..at]);
        let Some(&kind) = text.get(at + 1) else { return false };
        text = &text[at + 2..];
        out.push(match kind {
            b'n' => b'\n',
            b'"' | b'\\' | b'/' => kind,
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'f' => 12,
            b'u' => match unescape_unit(out, &mut text) {
                true => continue,
                false => return false,
            },
            _ => return false,
        });
    }
    out.extend_from_slice(text);
    true
}

/// Behind `\u`: four digits, and for what is beyond the first plane a second escape.
fn unescape_unit(out: &mut Vec<u8>, text: &mut &[u8]) -> bool {
    let Some(first) = hex4(text) else { return false };
    *text = &text[4..];
    let mut code = first;
    if (0xd800..0xdc00).contains(&first)
        && let Some(second) = text.strip_prefix(b"\\u").and_then(hex4).filter(|low| (0xdc00..0xe000).contains(low))
    {
        code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        *text = &text[6..];
    }
    let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    true
}

fn hex4(text: &[u8]) -> Option<u32> {
    let digits = text.get(..4)?;
    digits.iter().try_fold(0, |code, digit| Some(code << 4 | char::from(*digit).to_digit(16)?))
}

/// Appends `text` as the inside of a JSON string with the escapes of Go's HTML-safe encoder: invalid UTF-8 becomes
/// `\ufffd`, one for each bad byte.
pub(crate) fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while !rest.is_empty() {
        match std::str::from_utf8(rest) {
            Ok(valid) => return escape_valid(out, valid.as_bytes()),
            Err(err) => {
                let (valid, bad) = rest.split_at(err.valid_up_to());
                escape_valid(out, valid);
                // Go's decoder steps over one byte at a time, std's over the longest prefix of a character.
                let bad_length = err.error_len().unwrap_or(bad.len());
                (0..bad_length).for_each(|_| out.extend_from_slice(b"\\ufffd"));
                rest = &bad[bad_length..];
            }
        }
    }
}

fn escape_valid(out: &mut Vec<u8>, text: &[u8]) {
    let mut plain_from = 0;
    for (at, &byte) in text.iter().enumerate() {
        if !SPECIAL[byte as usize] {
            continue;
        }
        // U+2028 and U+2029 are the only characters of more than one byte with an escape.
        let separator = byte == 0xe2 && text[at + 1] == 0x80 && matches!(text[at + 2], 0xa8 | 0xa9);
        if byte == 0xe2 && !separator {
            continue;
        }
        out.extend_from_slice(&text[plain_from..at]);
        plain_from = at + if separator { 3 } else { 1 };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0xe2 => out.extend_from_slice(if text[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" }),
            _ => {
                let hex = b"0123456789abcdef";
                let digits = [hex[usize::from(byte >> 4)], hex[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits);
            }
        }
    }
    out.extend_from_slice(&text[plain_from..]);
}

/// Bytes that may need an escape.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[b'&' as usize] = true;
    table[0xe2] = true;
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_as_go_does() {
        for (text, escaped) in [
            (&b"plain \x7f"[..], "plain \u{7f}"),
            (b"\"\\/", "\\\"\\\\/"),
            (b"a\tb\r\n\0\x1b\x08\x0c", "a\\u0009b\\r\\n\\u0000\\u001b\\u0008\\u000c"),
            (b"<a href>&", "\\u003ca href\\u003e\\u0026"),
            ("\u{2028}\u{2029}\u{2030}\u{e9}\u{1f600}".as_bytes(), "\\u2028\\u2029\u{2030}\u{e9}\u{1f600}"),
            (b"\xff-\xe2\x82-\xf0\x9f\x98", "\\ufffd-\\ufffd\\ufffd-\\ufffd\\ufffd\\ufffd"),
            (b"\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd"),
        ] {
            let mut out = Vec::new();
            escape(&mut out, text);
            assert_eq!(String::from_utf8_lossy(&out), escaped, "{text:?}");
        }
    }

    #[test]
    fn lines_are_dockers() {
        let check = |parts, ends_line, attrs: &[(&str, &str)], expected: &str| {
            let attrs = attrs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            let mut out = Vec::new();
            let record = Record { stream: Stream::Stderr, nanos: 1_100_000_000, parts, ends_line, piece: None };
            let mut json = Json::new(&attrs);
            json.encode(&mut out, record);
            assert!(out.len() < json.record_max_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\n"));
        };
        let tail = r#""time":"1970-01-01T00:00:01.1Z"}"#;
        check([b"hi", b""], true, &[], &format!(r#"{{"log":"hi\n","stream":"stderr",{tail}"#));
        check([b"h\xc3", b"\xa9"], false, &[], &format!(r#"{{"log":"hé","stream":"stderr",{tail}"#));
        check(
            [b"", b""],
            true,
            &[("a", "<b>")],
            &format!(r#"{{"log":"\n","stream":"stderr","attrs":{{"a":"\u003cb\u003e"}},{tail}"#),
        );
    }

    #[test]
    fn what_was_written_is_read_back() {
        let attrs = [("a\"".to_owned(), "b".to_owned())].into();
        for (text, ends_line, stream) in [
            (&b"plain"[..], true, Stream::Stdout),
            (b"", true, Stream::Stderr),
            (b"", false, Stream::Stdout),
            ("\"q\" \\ \t<\u{e9}\u{1f600}\u{2028}".as_bytes(), false, Stream::Stderr),
            (b"\",\"stream\":\"stderr\",\"time\":\"x\"}", true, Stream::Stdout),
        ] {
            for mut json in [Json::new(&attrs), Json::new(&BTreeMap::new())] {
                let mut line = Vec::new();
                json.encode(
                    &mut line,
                    Record { stream, nanos: 1_000_000_005, parts: [text, b""], ends_line, piece: None },
                );
                assert_eq!(line.pop(), Some(b'\n'));
                let parsed = parse(&line).unwrap();
                assert_eq!((parsed.stream, parsed.time), (stream, &b"1970-01-01T00:00:01.000000005Z"[..]));
                assert!(parsed.attrs.is_empty() || parsed.attrs == br#"{"a\"":"b"}"#);
                let mut back = Vec::new();
                assert!(unescape(&mut back, parsed.log));
                assert_eq!(back, [text, if ends_line { b"\n" } else { b"" }].concat());
            }
        }
    }

    #[test]
    fn other_lines_are_left_to_a_parser_of_json() {
        for line in [
            "",
            "{}",
            r#"{"log":"a"}"#,
            r#"{"log":"a\"#,
            r#"{"log":"a\n","stream":"stdout","time":"x","attrs":{"tag":"y"}}"#,
            r#"{"stream":"stdout","log":"a","time":"x"}"#,
            r#"{"log":"a","stream":"stdin","time":"x"}"#,
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        let mut out = Vec::new();
        assert!(unescape(&mut out, br"\ud83d\ude00\ud83d-\u00e9\/"));
        assert_eq!(out, "\u{1f600}\u{fffd}-\u{e9}/".as_bytes());
        assert!(!unescape(&mut out, br"\q") && !unescape(&mut out, br"\u12") && !unescape(&mut out, b"\\"));
    }
}
