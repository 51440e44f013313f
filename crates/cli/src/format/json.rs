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

/// JSON with the escapes of Go's encoder, which keeps it out of the way of HTML. These letters are in its strings alone.
pub fn escaped(json: &str) -> String {
    let escapes =
        [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];
    escapes.iter().fold(json.to_owned(), |text, (letter, escape)| text.replace(*letter, escape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escaped("{\"a<b>\":\"&\u{2028}\"}"), r#"{"a\u003cb\u003e":"\u0026\u2028"}"#);
    }
}
