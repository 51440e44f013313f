//! The documents that clients know, as Go writes them (frontend/subrequests; solver/pb, ops.proto).

use serde::{Serialize, Serializer};

use crate::report::Lines;

/// Lines that are told one by one; of more the first and the last are.
const LINES_MAX: usize = 1000;

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes, which Go's JSON has in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(self.0.len().div_ceil(3) * 4);
        for part in self.0.chunks(3) {
            let all =
                part.iter().enumerate().fold(0u32, |all, (index, byte)| all | u32::from(*byte) << (16 - 8 * index));
            for index in 0..4 {
                let letter = LETTERS[(all >> (18 - 6 * index)) as usize & 63];
                text.push(if index > part.len() { '=' } else { char::from(letter) });
            }
        }
        serializer.serialize_str(&text)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Position {
    line: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Range {
    start: Position,
    end: Position,
}

/// Where something is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

impl Location {
    pub(crate) fn of(lines: Lines) -> Location {
        let range = |(start, end)| Range { start: Position { line: start }, end: Position { line: end } };
        Location { ranges: ranges(lines).into_iter().map(range).collect() }
    }
}

/// Lines as BuildKit tells them: each as a range of its own.
pub(crate) fn ranges((first, last): Lines) -> Vec<Lines> {
    match last.saturating_sub(first) < LINES_MAX {
        true => (first..=last.max(first)).map(|line| (line, line)).collect(),
        false => vec![(first, last)],
    }
}

/// The Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SourceInfo {
    pub(crate) filename: String,
    pub(crate) data: Bytes,
    pub(crate) language: &'static str,
}

/// A warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WarningDocument {
    pub(crate) rule_name: &'static str,
    pub(crate) description: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) url: &'static str,
    pub(crate) detail: String,
    pub(crate) location: Location,
}

/// Why nothing can be built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct BuildError {
    pub(crate) message: String,
    pub(crate) location: Location,
}

/// What checks found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LintResults {
    pub(crate) warnings: Option<Vec<WarningDocument>>,
    pub(crate) sources: Vec<SourceInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) build_error: Option<BuildError>,
}

/// An argument of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Argument {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) value: String,
    pub(crate) location: Location,
}

/// A secret or an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Mounted {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) required: bool,
    pub(crate) location: Location,
}

/// What a stage takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Outline {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) description: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) args: Vec<Argument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) secrets: Vec<Mounted>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ssh: Vec<Mounted>,
    pub(crate) sources: Vec<Bytes>,
}

/// A stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Target {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) default: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) base: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) platform: String,
    pub(crate) location: Location,
}

/// All stages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Targets {
    pub(crate) targets: Vec<Target>,
    pub(crate) sources: Vec<Bytes>,
}

/// Something with a description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Named {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Described {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) description: &'static str,
    pub(crate) opts: Option<Vec<Named>>,
    pub(crate) inputs: Option<Vec<Named>>,
    pub(crate) metadata: Vec<Named>,
    pub(crate) refs: Option<Vec<Named>>,
}

/// A document as Go's `json.MarshalIndent` writes it, which leaves no letter in texts that means something in HTML.
pub(crate) fn json(document: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(document).unwrap_or_default();
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escaped.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_base64() {
        for (bytes, wanted) in [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("FROM x\n", "RlJPTSB4Cg==")]
        {
            assert_eq!(json(&Bytes(bytes.as_bytes().to_vec())), format!("{wanted:?}"));
        }
    }

    #[test]
    fn lines_are_told_one_by_one() {
        assert_eq!(ranges((3, 5)), [(3, 3), (4, 4), (5, 5)]);
        assert_eq!(ranges((3, 2)), [(3, 3)]);
        assert_eq!(ranges((1, 5000)), [(1, 5000)]);
    }
}
