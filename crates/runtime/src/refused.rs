//! Fields of the specification that this runtime does not honour. Pure.
//!
//! Asking for one is an error that names it: silently ignored it would be a limit that does not limit. Properties that the
//! specification does not know are ignored, as it demands (runtime-spec config.md, "Extensibility").
//!
//! Where the others are honoured: the page of `oci-runtime`.

use serde_json::Value;

/// What other platforms have of their own.
pub(crate) const PLATFORMS: [&str; 5] = ["freebsd", "solaris", "vm", "windows", "zos"];

/// The full name of the first field of config.json that is asked for and not honoured.
pub(crate) fn of_config(config: &Value) -> Option<String> {
    // Also an empty one asks for a class of its own (runtime-spec config-linux.md, "IntelRdt").
    if config.get("linux").is_some_and(|linux| find(linux, "intelRdt").is_some()) {
        return Some("linux.intelRdt".to_owned());
    }
    let asked = |field: &&&str| find(config, field).is_some_and(asks);
    PLATFORMS.iter().find(asked).map(|field| (*field).to_owned())
}

/// A field, in whatever letters: in others it is meant, too.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.as_object()?.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Whether a value is more than Go's zero, which writers of config.json print for what nobody asked for.
fn asks(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(members) => !members.is_empty(),
        Value::Object(fields) => fields.values().any(asks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_is_not_honoured_is_named() {
        for field in PLATFORMS {
            assert_eq!(of_config(&serde_json::json!({ field: {"asked": "for"} })).as_deref(), Some(field));
        }
        assert_eq!(of_config(&serde_json::json!({"Windows": {"a": 1}})).as_deref(), Some("windows"));
        let shouted = serde_json::json!({"linux": {"intelRDT": {}}});
        assert_eq!(of_config(&shouted).as_deref(), Some("linux.intelRdt"));
        for value in [serde_json::json!({}), serde_json::json!({"closID": "class"})] {
            let config = serde_json::json!({"linux": {"intelRdt": value}});
            assert_eq!(of_config(&config).as_deref(), Some("linux.intelRdt"));
        }
    }

    #[test]
    fn what_asks_for_nothing_and_what_is_unknown_passes() {
        let config = serde_json::json!({
            "ociVersion": "1.2.0",
            "nobodyKnows": {"this": 1},
            "process": {"commandLine": "", "user": {"username": ""}},
            "mounts": [{"uidMappings": []}, {"destination": "/x"}],
            "linux": {"uidMappings": [], "mountLabel": ""},
        });
        assert_eq!(of_config(&config), None);
    }
}
