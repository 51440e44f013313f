//! JSON as Docker's client prints it: indented by four blanks, keys in the daemon's order.

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::PrettyFormatter;

/// Indents by four blanks.
pub fn indented(value: &Value) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"    "));
    value.serialize(&mut serializer).expect("a JSON value serializes into memory");
    String::from_utf8(out).expect("JSON is UTF-8")
}
