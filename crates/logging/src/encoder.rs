//! From a record to the bytes that a sink takes.

use std::collections::BTreeMap;

use crate::journald::Journal;
use crate::json_line::Json;
use crate::record::Record;
use crate::syslog::Syslog;
use crate::{compact_line, json_line};

/// How the lines of a file look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Docker's `json-file`: an object for a line.
    #[default]
    Json,
    /// Our own: one byte for the stream, eleven for the moment, then the bytes of the line as they are.
    Compact,
}

/// Encodes records of one log. Files get lines; sockets get messages, each behind its length as a little-endian `u32`.
pub(crate) enum Encoder {
    Json(Json),
    Compact,
    Syslog(Syslog),
    Journal(Journal),
}

impl Encoder {
    /// For a file.
    pub(crate) fn of_file(format: Format, attrs: &BTreeMap<String, String>) -> Encoder {
        match format {
            Format::Json => Encoder::Json(Json::new(attrs)),
            Format::Compact => Encoder::Compact,
        }
    }

    /// Appends a record; whether it is one at all (syslog has no empty messages).
    pub(crate) fn encode(&mut self, out: &mut Vec<u8>, record: Record<'_>) -> bool {
        match self {
            Encoder::Json(json) => json.encode(out, record),
            Encoder::Compact => compact_line::encode(out, record),
            Encoder::Syslog(syslog) => return framed(out, |out| syslog.encode(out, record)),
            Encoder::Journal(journal) => return framed(out, |out| journal.encode(out, record)),
        }
        true
    }

    /// The most bytes that a record can become.
    pub(crate) fn record_max_bytes(&self) -> usize {
        match self {
            Encoder::Json(json) => json.record_max_bytes(),
            Encoder::Compact => compact_line::RECORD_MAX_BYTES,
            Encoder::Syslog(syslog) => syslog.record_max_bytes(),
            Encoder::Journal(journal) => journal.record_max_bytes(),
        }
    }

    /// Whether pieces of lines need an id.
    pub(crate) fn names_pieces(&self) -> bool {
        matches!(self, Encoder::Journal(_))
    }
}

fn framed(out: &mut Vec<u8>, message: impl FnOnce(&mut Vec<u8>)) -> bool {
    let begin = out.len();
    out.extend_from_slice(&[0; 4]);
    message(out);
    let length = out.len() - begin - 4;
    if length == 0 {
        out.truncate(begin);
        return false;
    }
    let length = u32::try_from(length).expect("a record is far below 4 GiB");
    out[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
    true
}

/// Attributes as a JSON object; empty for none.
pub(crate) fn attrs_object(attrs: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    if attrs.is_empty() {
        return out;
    }
    for (name, value) in attrs {
        out.push(if out.is_empty() { b'{' } else { b',' });
        for (text, end) in [(name, &b"\":"[..]), (value, b"\"")] {
            out.push(b'"');
            json_line::escape(&mut out, text.as_bytes());
            out.extend_from_slice(end);
        }
    }
    out.push(b'}');
    out
}
