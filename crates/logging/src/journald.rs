//! Messages in the journal's native protocol, with Docker's fields.

use std::collections::BTreeMap;

use stdx::time::Rfc3339;

use crate::record::{PIECE_MAX_BYTES, Record, Stream, system_time};

/// syslog's severities, as the journal uses them.
const ERROR: &[u8] = b"3";
/// As above.
const INFORMATIONAL: &[u8] = b"6";

/// Encodes messages.
pub(crate) struct Journal {
    /// Fields that all messages have, ready to send.
    fields: Vec<u8>,
    /// The number of the last message.
    ordinal: u64,
    time: (u64, String),
}

impl Journal {
    /// `fields` are those that all messages have; which run of the container it is, is added to them.
    pub(crate) fn new(fields: &BTreeMap<String, String>) -> Journal {
        let mut ready = Vec::new();
        for (name, value) in fields.iter().filter(|(name, _)| is_name(name)) {
            field(&mut ready, name, &[value.as_bytes()]);
        }
        field(&mut ready, "CONTAINER_LOG_EPOCH", &[stdx::id::random_hex::<32>().as_bytes()]);
        Journal { fields: ready, ordinal: 0, time: (u64::MAX, String::new()) }
    }

    /// The length before it included.
    pub(crate) fn record_max_bytes(&self) -> usize {
        PIECE_MAX_BYTES + self.fields.len() + 512
    }

    /// Appends a message.
    pub(crate) fn encode(&mut self, out: &mut Vec<u8>, record: Record<'_>) {
        let priority = if record.stream == Stream::Stderr { ERROR } else { INFORMATIONAL };
        field(out, "PRIORITY", &[priority]);
        field(out, "MESSAGE", &record.parts);
        out.extend_from_slice(&self.fields);
        if self.time.0 != record.nanos {
            self.time = (record.nanos, Rfc3339(system_time(record.nanos)).to_string());
        }
        field(out, "SYSLOG_TIMESTAMP", &[self.time.1.as_bytes()]);
        if let Some(piece) = record.piece {
            field(out, "CONTAINER_PARTIAL_ID", &[piece.id.as_bytes()]);
            field(out, "CONTAINER_PARTIAL_ORDINAL", &[piece.ordinal.to_string().as_bytes()]);
            field(out, "CONTAINER_PARTIAL_LAST", &[if record.ends_line { b"true" } else { b"false" }]);
            if !record.ends_line {
                field(out, "CONTAINER_PARTIAL_MESSAGE", &[b"true"]);
            }
        }
        self.ordinal += 1;
        field(out, "CONTAINER_LOG_ORDINAL", &[self.ordinal.to_string().as_bytes()]);
    }
}

/// Appends a field: `NAME=value`, or with its length where the value has a newline in it (systemd.io,
/// JOURNAL_NATIVE_PROTOCOL).
fn field(out: &mut Vec<u8>, name: &str, value: &[&[u8]]) {
    out.extend_from_slice(name.as_bytes());
    if value.iter().any(|part| part.contains(&b'\n')) {
        let length: usize = value.iter().map(|part| part.len()).sum();
        out.push(b'\n');
        out.extend_from_slice(&(length as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    value.iter().for_each(|part| out.extend_from_slice(part));
    out.push(b'\n');
}

/// Whether the journal takes a field of this name: those of labels and variables may be anything.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !name.is_empty() && !name.starts_with('_') && name.len() <= 64 && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Piece;

    #[test]
    fn messages_have_dockers_fields() {
        let fields = [("CONTAINER_ID", "abc"), ("TWO", "a\nb"), ("bad", "x"), ("_BAD", "x")];
        let mut journal = Journal::new(&fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        let whole = Record {
            stream: Stream::Stdout,
            nanos: 1_500_000_000,
            parts: [b"te", b"xt"],
            ends_line: true,
            piece: None,
        };
        let mut out = Vec::new();
        journal.encode(&mut out, whole);
        let text = String::from_utf8(out).unwrap();
        let (head, rest) = text.split_once("CONTAINER_LOG_EPOCH=").unwrap();
        assert_eq!(head, "PRIORITY=6\nMESSAGE=text\nCONTAINER_ID=abc\nTWO\n\u{3}\0\0\0\0\0\0\0a\nb\n");
        assert_eq!(&rest[64..], "\nSYSLOG_TIMESTAMP=1970-01-01T00:00:01.5Z\nCONTAINER_LOG_ORDINAL=1\n");
        let piece = Some(Piece { id: "id", ordinal: 2 });
        let mut out = Vec::new();
        journal.encode(&mut out, Record { stream: Stream::Stderr, ends_line: false, piece, ..whole });
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("PRIORITY=3\n"), "{text}");
        assert!(text.ends_with(
            "CONTAINER_PARTIAL_ID=id\nCONTAINER_PARTIAL_ORDINAL=2\nCONTAINER_PARTIAL_LAST=false\n\
             CONTAINER_PARTIAL_MESSAGE=true\nCONTAINER_LOG_ORDINAL=2\n"
        ));
    }
}
