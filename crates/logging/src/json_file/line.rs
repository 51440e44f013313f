//! One line of the log, byte for byte as dockerd writes it.

use super::Stream;

/// Output without a newline is cut into pieces of this size: dockerd's copier has a buffer of as many bytes, and log readers
/// put pieces together until one ends with a newline.
pub const PIECE_MAX_BYTES: usize = 16 * 1024;

/// The most bytes that a piece can become: each of its bytes as `\u0000`, and the frame around it, `attrs` not included.
pub const ENCODED_MAX_BYTES: usize = PIECE_MAX_BYTES * 6 + 128;

/// What all lines of one moment share: encoded once, copied into every line.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Which output.
    pub stream: Stream,
    /// The moment, RFC 3339 in UTC.
    pub time: &'a str,
    /// The JSON object of the container's attributes; empty for none.
    pub attrs: &'a str,
}

/// Appends the line for `parts`, which together are one piece of output.
pub fn encode(line: &mut Vec<u8>, parts: [&[u8]; 2], newline: bool, frame: Frame<'_>) {
    line.push(b'{');
    if newline || parts.iter().any(|part| !part.is_empty()) {
        line.extend_from_slice(b"\"log\":\"");
        // A character may be cut in two by the seam between the parts; that is rare enough for a copy.
        match parts {
            [one, []] | [[], one] => escape(line, one),
            [head, tail] => escape(line, &[head, tail].concat()),
        }
        if newline {
            line.extend_from_slice(b"\\n");
        }
        line.extend_from_slice(b"\",");
    }
    for text in ["\"stream\":\"", frame.stream.name(), "\","] {
        line.extend_from_slice(text.as_bytes());
    }
    if !frame.attrs.is_empty() {
        for text in ["\"attrs\":", frame.attrs, ","] {
            line.extend_from_slice(text.as_bytes());
        }
    }
    for text in ["\"time\":\"", frame.time, "\"}\n"] {
        line.extend_from_slice(text.as_bytes());
    }
}

/// Appends `text` as the inside of a JSON string with the escapes of Go's HTML-safe encoder: invalid UTF-8 becomes
/// `\ufffd`, one for each bad byte.
pub fn escape(out: &mut Vec<u8>, text: &[u8]) {
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
        let time = "2026-11-20T10:00:00.1Z";
        let check = |parts, newline, attrs, expected: &str| {
            let mut out = Vec::new();
            encode(&mut out, parts, newline, Frame { stream: Stream::Stderr, time, attrs });
            assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\n"));
        };
        let tail = r#""time":"2026-11-20T10:00:00.1Z"}"#;
        check([b"hi", b""], true, "", &format!(r#"{{"log":"hi\n","stream":"stderr",{tail}"#));
        check([b"h\xc3", b"\xa9"], false, "", &format!(r#"{{"log":"hé","stream":"stderr",{tail}"#));
        check(
            [b"", b""],
            true,
            r#"{"a":"b"}"#,
            &format!(r#"{{"log":"\n","stream":"stderr","attrs":{{"a":"b"}},{tail}"#),
        );
    }
}
