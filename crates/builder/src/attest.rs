//! What a client wants to be said beside an image: where it comes from, and what is in it (buildkit
//! frontend/attestations, parse.go; docs/attestations). Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::go::quote;

/// What statements say of an image is a list of what is in it.
pub const SPDX: &str = "https://spdx.dev/Document";

/// The type of statements.
const STATEMENT: &str = "https://in-toto.io/Statement/v0.1";

/// What attributes of the frontend begin with that ask for it.
const ATTRIBUTE: &str = "attest:";

/// Build arguments that ask for it, too.
const ARGUMENT: &str = "build-arg:BUILDKIT_ATTEST_";

/// What is to be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Where it comes from.
    pub provenance: Option<Provenance>,
    /// What is in it.
    pub sbom: Option<Sbom>,
}

/// How it is said where an image comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// Whether arguments, secrets' names and the Dockerfile are told, too.
    pub is_whole: bool,
    /// Whether in the form of SLSA v1, else in that of v0.2.
    pub is_v1: bool,
    /// Whether only beside images in a registry or a store of images, and not beside files.
    pub inline_only: bool,
    /// What the user says of who builds.
    pub builder_id: String,
    /// Whether the user says that another build would come to the same.
    pub is_reproducible: bool,
    /// The file in outputs of files.
    pub filename: String,
}

/// How it is said what is in an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sbom {
    /// The image that looks; none where nobody named one.
    pub generator: Option<String>,
    /// What that is told.
    pub parameters: BTreeMap<String, String>,
}

/// Why it is not understood. Sentences are BuildKit's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestError {
    /// Nobody says such a thing; with its quotes.
    #[error("unknown attestation type {0}")]
    Kind(String),
    /// Nobody says it in such a way; with its quotes.
    #[error("invalid mode {0}")]
    Mode(String),
    /// There is no such form.
    #[error("invalid provenance SLSA version: {0}")]
    Version(String),
    /// There is no form without a name.
    #[error("provenance SLSA version cannot be empty")]
    NoVersion,
    /// It is no truth value; with its quotes.
    #[error("failed to parse reproducible flag {0}: strconv.ParseBool: parsing {0}: invalid syntax")]
    Reproducible(String),
    /// No image looks.
    #[error("sbom generator cannot be empty")]
    Generator,
}

impl Wanted {
    /// Reads attributes of a frontend.
    pub fn parse(attributes: &BTreeMap<String, String>) -> Result<Wanted, AttestError> {
        let mut wanted = Wanted::default();
        for (name, value) in attributes {
            let Some(kind) = name.strip_prefix(ATTRIBUTE).or_else(|| name.strip_prefix(ARGUMENT)) else { continue };
            let mut fields = fields(value);
            match kind.to_ascii_lowercase().as_str() {
                "provenance" => wanted.provenance = Some(Provenance::of(&fields)?),
                "sbom" => {
                    let generator = fields.remove("generator");
                    if generator.as_ref().is_some_and(String::is_empty) {
                        return Err(AttestError::Generator);
                    }
                    wanted.sbom = Some(Sbom { generator, parameters: fields });
                }
                other => return Err(AttestError::Kind(quote(other))),
            }
        }
        Ok(wanted)
    }
}

impl Provenance {
    fn of(fields: &BTreeMap<String, String>) -> Result<Provenance, AttestError> {
        let text = |name: &str| fields.get(name).map(String::as_str);
        let is_whole = match text("mode").unwrap_or("max") {
            "max" | "full" => true,
            "min" => false,
            other => return Err(AttestError::Mode(quote(other))),
        };
        let is_v1 = match text("version").unwrap_or("v0.2") {
            "v0.2" => false,
            "v1" => true,
            "" => return Err(AttestError::NoVersion),
            other => return Err(AttestError::Version(other.to_owned())),
        };
        let is_reproducible = match text("reproducible") {
            None => false,
            Some(value) => truth(value).ok_or_else(|| AttestError::Reproducible(quote(value)))?,
        };
        Ok(Provenance {
            is_whole,
            is_v1,
            inline_only: text("inline-only").and_then(truth) == Some(true),
            builder_id: text("builder-id").unwrap_or_default().to_owned(),
            is_reproducible,
            filename: text("filename").filter(|name| !name.is_empty()).unwrap_or("provenance.json").to_owned(),
        })
    }

    /// By which statements of this form are known.
    pub fn predicate_type(&self) -> &'static str {
        if self.is_v1 { "https://slsa.dev/provenance/v1" } else { "https://slsa.dev/provenance/v0.2" }
    }
}

/// `a=b,"c=d,e"`: names and values; what has no value is there without one.
fn fields(text: &str) -> BTreeMap<String, String> {
    let (mut all, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(std::mem::take(&mut field)),
            letter => field.push(letter),
        }
    }
    all.push(field);
    let pair = |field: String| match field.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (field, String::new()),
    };
    all.into_iter().filter(|field| !field.is_empty()).map(pair).collect()
}

/// As Go reads it (strconv.ParseBool).
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// What a statement is about: a name, and the sum of what has it, in hexadecimal.
pub type Subject = (String, String);

/// Something that is said: what kind of thing, and the thing, in JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predicate {
    /// `https://slsa.dev/provenance/v0.2`, ...
    pub kind: String,
    /// The file in outputs of files.
    pub filename: String,
    /// Whether only beside images.
    pub inline_only: bool,
    /// What is said: JSON without blanks. As text, because values take sixteen times as much memory, and generators may write
    /// 64 MiB.
    pub said: String,
}

/// in-toto's attestation spec v0.1, "Statement".
#[derive(Serialize)]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    #[serde(rename = "predicateType")]
    predicate_type: &'a str,
    subject: Vec<Value>,
    predicate: &'a RawValue,
}

impl Predicate {
    /// Something that is said, in JSON; `None` of what is no JSON.
    pub fn new(kind: &str, filename: &str, inline_only: bool, json: &[u8]) -> Option<Predicate> {
        let said: &RawValue = serde_json::from_slice(json).ok()?;
        let said = without_blanks(said.get());
        Some(Predicate { kind: kind.to_owned(), filename: filename.to_owned(), inline_only, said })
    }

    /// The statement that says it about these.
    pub fn statement(&self, subjects: &[Subject]) -> Vec<u8> {
        let subject = |(name, sum): &Subject| serde_json::json!({"name": name, "digest": {"sha256": sum}});
        let predicate = RawValue::from_string(self.said.clone()).expect("it was read as JSON");
        let statement = Statement {
            kind: STATEMENT,
            predicate_type: &self.kind,
            subject: subjects.iter().map(subject).collect(),
            predicate: &predicate,
        };
        serde_json::to_vec(&statement).expect("texts are always JSON")
    }
}

/// JSON without what is only there to be read by people, as Go writes what it was given.
fn without_blanks(json: &str) -> String {
    let (mut in_text, mut escaped) = (false, false);
    let keeps = |letter: &char| {
        match (in_text, escaped, letter) {
            (true, true, _) => escaped = false,
            (true, false, '\\') => escaped = true,
            (_, _, '"') => in_text = !in_text,
            (false, _, ' ' | '\t' | '\n' | '\r') => return false,
            _ => {}
        }
        true
    };
    json.chars().filter(keeps).collect()
}

/// The package URL of an image's name (purl-spec; buildkit util/purl); `tag` and `digest` as they were named.
///
/// `name` is the familiar one, without tag and digest; `platform` is `linux/amd64`.
pub fn package_url(kind: &str, name: &str, tag: &str, digest: &str, platform: &str) -> String {
    let version = if tag.is_empty() { String::new() } else { format!("@{}", escaped(tag)) };
    let name: Vec<String> = name.split('/').map(escaped).collect();
    let mut qualifiers = Vec::new();
    for (key, value) in [("digest", digest), ("platform", platform)] {
        if !value.is_empty() {
            qualifiers.push(format!("{key}={}", escaped(value).replace(':', "%3A")));
        }
    }
    let behind = if qualifiers.is_empty() { String::new() } else { format!("?{}", qualifiers.join("&")) };
    format!("pkg:{kind}/{}{version}{behind}", name.join("/"))
}

/// Percent escapes, but of what stands for itself in a path, and of colons.
pub fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &[(&str, &str)]) -> Result<Wanted, String> {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Wanted::parse(&given).map_err(|err| err.to_string())
    }

    #[test]
    fn attestations_are_asked_for_as_with_buildkit() {
        assert_eq!(of(&[("target", "x")]), Ok(Wanted::default()));
        let own = of(&[("attest:provenance", "mode=min,inline-only=true")]).unwrap().provenance.unwrap();
        assert_eq!((own.is_whole, own.is_v1, own.inline_only), (false, false, true));
        let own = of(&[("attest:provenance", "version=v1,builder-id=x,\"reproducible=true\"")]).unwrap();
        let own = own.provenance.unwrap();
        assert_eq!((own.is_whole, own.is_v1, own.builder_id.as_str(), own.is_reproducible), (true, true, "x", true));
        assert_eq!(own.predicate_type(), "https://slsa.dev/provenance/v1");
        assert_eq!(of(&[("attest:sbom", "")]).unwrap().sbom, Some(Sbom::default()));
        let sbom = of(&[("build-arg:BUILDKIT_ATTEST_SBOM", "generator=a/b:c,X=y")]).unwrap().sbom.unwrap();
        assert_eq!((sbom.generator.as_deref(), sbom.parameters["X"].as_str()), (Some("a/b:c"), "y"));
        for (name, value, wanted) in [
            ("attest:other", "", "unknown attestation type \"other\""),
            ("attest:provenance", "mode=x", "invalid mode \"x\""),
            ("attest:provenance", "version=v2", "invalid provenance SLSA version: v2"),
            ("attest:provenance", "version=", "provenance SLSA version cannot be empty"),
            ("attest:sbom", "generator=", "sbom generator cannot be empty"),
            (
                "attest:provenance",
                "reproducible=x",
                "failed to parse reproducible flag \"x\": strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(of(&[(name, value)]), Err(wanted.to_owned()), "{name} {value}");
        }
    }

    #[test]
    fn statements_name_what_they_are_about() {
        let predicate = Predicate::new(SPDX, "sbom.spdx.json", false, br#"{"a": 1}"#).unwrap();
        let statement: Value =
            serde_json::from_slice(&predicate.statement(&[("n".to_owned(), "00".to_owned())])).unwrap();
        let wanted = serde_json::json!({
            "_type": STATEMENT,
            "predicateType": SPDX,
            "subject": [{"name": "n", "digest": {"sha256": "00"}}],
            "predicate": {"a": 1},
        });
        assert_eq!(statement, wanted);
        assert!(Predicate::new(SPDX, "", false, b"{").is_none());
    }

    #[test]
    fn what_is_said_takes_no_more_than_its_text() {
        for (text, wanted) in [
            ("[ 1,\t\"a \\\" b\" ,{ }]\n", "[1,\"a \\\" b\",{}]"),
            ("\"\\\\\" ", "\"\\\\\""),
            ("{\"b\": 1, \"a\": null}", "{\"b\":1,\"a\":null}"),
        ] {
            assert_eq!(Predicate::new(SPDX, "", false, text.as_bytes()).unwrap().said, wanted);
        }
        let many = format!("[{}[]]", "[], ".repeat(1 << 20));
        let predicate = Predicate::new(SPDX, "", false, many.as_bytes()).unwrap();
        assert_eq!(predicate.said.len(), many.len() - (1 << 20));
        let statement = predicate.statement(&[]);
        assert!(statement.len() < many.len() + 256 && statement.ends_with(b",[]]}"));
        assert!(Predicate::new(SPDX, "", false, b"\"\xff\"").is_none());
    }

    #[test]
    fn images_have_package_urls() {
        for (name, tag, digest, wanted) in [
            ("busybox", "latest", "", "pkg:docker/busybox@latest?platform=linux%2Famd64"),
            ("h:5000/a/b", "1.0_x", "", "pkg:docker/h:5000/a/b@1.0_x?platform=linux%2Famd64"),
            ("a", "", "sha256:00", "pkg:docker/a?digest=sha256%3A00&platform=linux%2Famd64"),
        ] {
            assert_eq!(package_url("docker", name, tag, digest, "linux/amd64"), wanted);
        }
    }
}
