//! From JSON to the types of the specification, in words for whoever wrote it. Pure.
//!
//! Three things are stricter than serde_json has them, because the writer would not get what he wrote:
//!
//! - a list is no object: serde takes one for a structure, member by member, and so `"hooks": [[]]` for no hooks at all;
//! - a name that differs from a known one in its letters' case alone is refused, where everything else that nobody knows is
//!   passed over (runtime-spec config.md, "Extensibility"). runc, as all Go, reads `preStart` as `prestart`; passed over it
//!   would be a hook that never runs;
//! - a NUL byte, which the kernel and the C library take for the end.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error, Expected, IntoDeserializer, Unexpected, Visitor};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// What is wrong with a value.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum ValueError {
    /// Too small or too great for its field.
    #[error("{number} is not between {least} and {most}")]
    Range {
        /// As it is written out.
        number: String,
        /// The least.
        least: i128,
        /// The greatest.
        most: i128,
    },
    /// Whole numbers alone are counted.
    #[error("{number:?} is not a whole number")]
    Fraction {
        /// As given.
        number: f64,
    },
    /// A word that means nothing here.
    #[error("unknown word {word:?}, must be one of {}", known.join(", "))]
    Word {
        /// As given.
        word: String,
        /// All that there are.
        known: &'static [&'static str],
    },
    /// A value of another kind.
    #[error("invalid type: {found}, expected {wanted}")]
    Type {
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// There is no such field, and without it the object means nothing.
    #[error("is missing")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field that would be passed over, although it is meant.
    #[error("unknown field, must be written {known:?}")]
    Letters {
        /// As given.
        given: String,
        /// As the specification writes it.
        known: &'static str,
    },
    /// What a type itself says of it.
    #[error("{text}")]
    Told {
        /// Its words.
        text: String,
    },
}

/// A value of the specification; `above` is its own full name, empty for the whole document. Or what is wrong, with the full
/// name of the field.
pub(crate) fn typed<T: DeserializeOwned>(value: &Value, above: &str) -> Result<T, (String, ValueError)> {
    // Once more with names: keeping them costs, and is needed only where it fails.
    T::deserialize(Node(value)).or_else(|_| serde_path_to_error::deserialize(Node(value))).map_err(|err| {
        let mut field = full_name(above, err.path());
        let err = err.into_inner();
        match &err {
            ValueError::Missing { field: name } => push(&mut field, name),
            ValueError::Letters { given, .. } => push(&mut field, given),
            _ if field.is_empty() => field.push_str("config.json"),
            _ => {}
        }
        (field, err)
    })
}

/// The full name of the first text with a NUL byte; annotations may have some, nobody but their author reads them.
pub(crate) fn nul_in(document: &Value) -> Option<String> {
    let fields = document.as_object()?.iter().filter(|(name, _)| *name != "annotations");
    fields.into_iter().find_map(|(name, value)| nul_below(value, name))
}

fn nul_below(value: &Value, name: &str) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(|| name.to_owned()),
        Value::Array(members) => {
            let mut members = members.iter().enumerate();
            members.find_map(|(index, member)| nul_below(member, &format!("{name}[{index}]")))
        }
        Value::Object(fields) => fields.iter().find_map(|(key, value)| match key.contains('\0') {
            true => Some(name.to_owned()),
            false => {
                let mut full = name.to_owned();
                push(&mut full, key);
                nul_below(value, &full)
            }
        }),
        _ => None,
    }
}

fn full_name(above: &str, path: &Path) -> String {
    let mut name = above.to_owned();
    for segment in path {
        match segment {
            Segment::Seq { index } => name += &format!("[{index}]"),
            Segment::Map { key } | Segment::Enum { variant: key } => push(&mut name, key),
            Segment::Unknown => {}
        }
    }
    name
}

/// Goes down to a field. One with dots in its name, as kernel parameters have, is told as `linux.sysctl["net.ipv4.tcp_ecn"]`.
fn push(name: &mut String, key: &str) {
    let plain = !key.is_empty() && key.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'_');
    match (plain, name.is_empty()) {
        (true, true) => name.push_str(key),
        (true, false) => *name += &format!(".{key}"),
        (false, _) => *name += &format!("[{key:?}]"),
    }
}

/// A value, which says itself what it is.
#[derive(Clone, Copy)]
struct Node<'a>(&'a Value);

impl Node<'_> {
    fn is_no(self, wanted: &'static str) -> ValueError {
        let found = match self.0 {
            Value::Null => Unexpected::Unit,
            Value::Bool(on) => Unexpected::Bool(*on),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Unexpected::Unsigned(number),
                (_, Some(number)) => Unexpected::Signed(number),
                _ => Unexpected::Float(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        };
        ValueError::invalid_type(found, &wanted)
    }
}

impl<'de> IntoDeserializer<'de, ValueError> for Node<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(on) => visitor.visit_bool(*on),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (_, Some(number)) => visitor.visit_i64(number),
                _ => visitor.visit_f64(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(members) => visitor.visit_seq(SeqDeserializer::new(members.iter().map(Node))),
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| (name.as_str(), Node(value)));
                visitor.visit_map(MapDeserializer::new(fields))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let Value::Object(fields) = self.0 else { return Err(self.is_no("an object")) };
        for given in fields.keys().filter(|given| !known.contains(&given.as_str())) {
            if let Some(known) = known.iter().find(|known| known.eq_ignore_ascii_case(given)) {
                return Err(ValueError::Letters { given: given.clone(), known });
            }
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let Value::String(word) = self.0 else { return Err(self.is_no("a string")) };
        visitor.visit_enum(word.as_str().into_deserializer())
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

impl Error for ValueError {
    fn custom<T: fmt::Display>(text: T) -> ValueError {
        ValueError::Told { text: text.to_string() }
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> ValueError {
        let wanted = match wanted.to_string().as_str() {
            "a sequence" => "an array".to_owned(),
            "a map" => "an object".to_owned(),
            wanted => wanted.to_owned(),
        };
        let bounds = bounds(&wanted);
        let number = match found {
            Unexpected::Unsigned(number) => Some(number.to_string()),
            Unexpected::Signed(number) => Some(number.to_string()),
            // What fits no integer is read as one of these, not to the last digit. A smaller one was written with a dot.
            Unexpected::Float(number) if number.fract() == 0.0 && number.abs() >= 2_f64.powi(63) => {
                Some(format!("{number:.3e}"))
            }
            _ => None,
        };
        match (bounds, number, found) {
            (Some((least, most)), Some(number), _) => ValueError::Range { number, least, most },
            (Some(_), None, Unexpected::Float(number)) => ValueError::Fraction { number },
            (Some(_), None, found) => ValueError::Type { found: word(found), wanted: "a whole number".into() },
            (None, _, found) => ValueError::Type { found: word(found), wanted },
        }
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn Expected) -> ValueError {
        ValueError::invalid_type(found, wanted)
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> ValueError {
        ValueError::Word { word: word.to_owned(), known }
    }

    fn missing_field(field: &'static str) -> ValueError {
        ValueError::Missing { field }
    }
}

/// JSON's word for it, where serde has another.
fn word(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        Unexpected::Seq => "array".to_owned(),
        Unexpected::Map => "object".to_owned(),
        found => found.to_string(),
    }
}

/// What fits the integer of this name, by which serde's own types say what they expect.
fn bounds(name: &str) -> Option<(i128, i128)> {
    Some(match name {
        "u8" => (0, u8::MAX.into()),
        "u16" => (0, u16::MAX.into()),
        "u32" => (0, u32::MAX.into()),
        "u64" => (0, u64::MAX.into()),
        "i32" => (i32::MIN.into(), i32::MAX.into()),
        "i64" => (i64::MIN.into(), i64::MAX.into()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use oci::runtime::{Process, Spec};
    use serde_json::json;

    use super::*;

    fn refused<T: DeserializeOwned>(value: &Value, above: &str) -> String {
        let (field, err) = typed::<T>(value, above).map(|_| ()).unwrap_err();
        format!("{field}: {err}")
    }

    #[test]
    fn what_does_not_fit_is_told_in_the_words_of_its_field() {
        let limit = |limit: Value| json!({"linux": {"resources": {"memory": {"limit": limit}}}});
        for (config, text) in [
            (json!(null), "config.json: invalid type: null, expected an object"),
            (json!([]), "config.json: invalid type: array, expected an object"),
            (json!({"hooks": [[]]}), "hooks: invalid type: array, expected an object"),
            (json!({"mounts": [{}, []]}), "mounts[1]: invalid type: array, expected an object"),
            (json!({"mounts": {}}), "mounts: invalid type: object, expected an array"),
            (
                limit(json!(2_f64.powi(70))),
                "linux.resources.memory.limit: 1.181e21 is not between -9223372036854775808 and \
                 9223372036854775807",
            ),
            (limit(json!(1.5)), "linux.resources.memory.limit: 1.5 is not a whole number"),
            (limit(json!(64e6)), "linux.resources.memory.limit: 64000000.0 is not a whole number"),
            (limit(json!("7")), "linux.resources.memory.limit: invalid type: string \"7\", expected a whole number"),
            (
                json!({"linux": {"sysctl": {"net.ipv4.tcp_ecn": 1}}}),
                "linux.sysctl[\"net.ipv4.tcp_ecn\"]: invalid type: integer `1`, expected a string",
            ),
            (json!({"linux": {"sysctl": 7}}), "linux.sysctl: invalid type: integer `7`, expected an object"),
            (
                json!({"linux": {"namespaces": [{"type": "galaxy"}]}}),
                "linux.namespaces[0].type: unknown word \"galaxy\", must be one of pid, network, mount, ipc, uts, user, \
                 cgroup, time",
            ),
            (json!({"linux": {"namespaces": [{"path": "/"}]}}), "linux.namespaces[0].type: is missing"),
            (
                json!({"linux": {"personality": {"domain": 1}}}),
                "linux.personality.domain: invalid type: integer `1`, expected a string",
            ),
        ] {
            assert_eq!(refused::<Spec>(&config, ""), text);
        }
        assert_eq!(refused::<Process>(&json!([]), "process"), "process: invalid type: array, expected an object");
        let uid = json!({"user": {"uid": -1}});
        assert_eq!(refused::<Process>(&uid, "process"), "process.user.uid: -1 is not between 0 and 4294967295");
    }

    #[test]
    fn a_field_in_other_letters_is_refused_and_one_that_nobody_knows_is_not() {
        let hook = json!([{"path": "/x"}]);
        for (config, text) in [
            (json!({"hooks": {"preStart": hook}}), "hooks.preStart: unknown field, must be written \"prestart\""),
            (json!({"Process": {}}), "Process: unknown field, must be written \"process\""),
            (
                json!({"mounts": [{"Type": "bind", "type": "bind"}]}),
                "mounts[0].Type: unknown field, must be written \"type\"",
            ),
            (
                json!({"linux": {"resources": {"blockIo": {}}}}),
                "linux.resources.blockIo: unknown field, must be written \"blockIO\"",
            ),
        ] {
            assert_eq!(refused::<Spec>(&config, ""), text);
        }
        let others = json!({"linux": {"nobodyKnows": 1, "sysctl": {"A": "", "a": ""}}, "annotations": {"Process": ""}});
        assert!(typed::<Spec>(&others, "").is_ok());
    }

    #[test]
    fn a_nul_byte_is_found_wherever_it_is() {
        let nul = json!({"annotations": {"a": "\0"}, "linux": {"sysctl": {"a.b": ["", "b\0"]}}});
        assert_eq!(nul_in(&nul), Some("linux.sysctl[\"a.b\"][1]".into()));
        assert_eq!(nul_in(&json!({"linux": {"sysctl": {"\0": ""}}})), Some("linux.sysctl".into()));
        assert_eq!(nul_in(&json!({"process": {"args": ["a"]}})), None);
    }
}
