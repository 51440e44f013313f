//! What clients read of failures: JSON of Go's (solver/errdefs), by the names under which they know it.

use super::common::Any;
use crate::status::base64_padded;

/// Where in a file something failed: clients print these lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    /// The file's name.
    pub name: String,
    /// All of it.
    pub text: Vec<u8>,
    /// The first and the last line, from 1.
    pub lines: (usize, usize),
}

/// Which part of a build failed: clients print what it printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VertexError {
    /// Its digest.
    pub digest: String,
}

impl SourceError {
    /// As a detail of a failure.
    pub fn to_detail(&self) -> Any {
        let position = |line: usize| format!("{{\"line\":{line}}}");
        let value = format!(
            "{{\"info\":{{\"filename\":{},\"data\":\"{}\",\"language\":\"Dockerfile\"}},\"ranges\":[{{\"start\":{},\"end\":{}}}]}}",
            quoted(&self.name),
            base64_padded(&self.text),
            position(self.lines.0),
            position(self.lines.1),
        );
        Any { type_url: "github.com/moby/buildkit/errdefs.Source+json".to_owned(), value: value.into_bytes() }
    }
}

impl VertexError {
    /// As a detail of a failure.
    pub fn to_detail(&self) -> Any {
        let value = format!("{{\"digest\":{}}}", quoted(&self.digest));
        Any { type_url: "github.com/moby/buildkit/errdefs.Vertex+json".to_owned(), value: value.into_bytes() }
    }
}

/// A text as JSON has it.
fn quoted(text: &str) -> String {
    let letter = |letter: char| match letter {
        '"' | '\\' => format!("\\{letter}"),
        control if control < ' ' => format!("\\u{:04x}", control as u32),
        letter => letter.to_string(),
    };
    format!("\"{}\"", text.chars().map(letter).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_as_go_writes_them() {
        let source = SourceError { name: "a\"b\n".to_owned(), text: b"FROM x\n".to_vec(), lines: (1, 2) };
        let detail = source.to_detail();
        let wanted = "{\"info\":{\"filename\":\"a\\\"b\\u000a\",\"data\":\"RlJPTSB4Cg==\",\"language\":\"Dockerfile\"},\
                      \"ranges\":[{\"start\":{\"line\":1},\"end\":{\"line\":2}}]}";
        assert_eq!(String::from_utf8(detail.value).unwrap(), wanted);
        let vertex = VertexError { digest: "sha256:0".to_owned() }.to_detail();
        assert_eq!(vertex.value, b"{\"digest\":\"sha256:0\"}");
    }
}
