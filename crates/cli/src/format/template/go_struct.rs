//! `{{.State}}`: structs as Go prints them, their values in order.
//!
//! JSON does not tell a struct from a map, nor a missing pointer from an empty list: only structs that are known to have
//! neither are printed so. All others are printed as maps.

use serde_json::Value;

/// The structs, and what stands behind the fields that JSON has.
const STRUCTS: [(&str, &str); 3] = [
    // A container without a health check.
    ("State", " <nil>"),
    ("RootFS", ""),
    ("GraphDriver", ""),
];

/// The text of a template that only names one of these structs.
pub(super) fn named(source: &str, value: &Value) -> Option<String> {
    let name = source.strip_prefix("{{")?.strip_suffix("}}")?.trim().strip_prefix('.')?;
    let (_, behind) = STRUCTS.iter().find(|(known, _)| *known == name)?;
    let fields = value.get(name)?.as_object()?;
    let behind = if fields.contains_key("Health") { "" } else { behind };
    let texts: Vec<String> = fields.values().map(text).collect();
    Some(format!("{{{}{behind}}}", texts.join(" ")))
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(elements) => format!("[{}]", elements.iter().map(text).collect::<Vec<_>>().join(" ")),
        Value::Object(members) => {
            // Go sorts the keys of maps.
            let mut pairs: Vec<String> = members.iter().map(|(key, value)| format!("{key}:{}", text(value))).collect();
            pairs.sort();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}
