//! Fields of the specification that this runtime does not honour. Pure.
//!
//! Asking for one is an error that names it: silently ignored it would be a limit that does not limit. Properties that the
//! specification does not know are ignored, as it demands (runtime-spec config.md, "Extensibility").
//!
//! Where the others are honoured: the page of `oci-runtime`.

use serde_json::Value;

/// Their full names; `[]` stands for each member of a list.
const CONFIG: &[&str] = &["linux.intelRdt", "freebsd", "solaris", "vm", "windows", "zos"];

/// The first field of config.json that is asked for and not honoured.
pub(crate) fn of_config(config: &Value) -> Option<String> {
    // Also an empty one asks for a class of its own (runtime-spec config-linux.md, "IntelRdt").
    let resctrl = config.pointer("/linux/intelRdt").map(|_| "linux.intelRdt".to_owned());
    resctrl.or_else(|| CONFIG.iter().find_map(|field| find(config, "", field)))
}

/// The full name of the field if `value` has it and it asks for something.
fn find(value: &Value, above: &str, path: &str) -> Option<String> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let (name, each) = name.strip_suffix("[]").map_or((name, false), |name| (name, true));
    let field = value.get(name)?;
    let full = if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
    match (rest, each) {
        (None, _) => asks(field).then_some(full),
        (Some(rest), false) => find(field, &full, rest),
        (Some(rest), true) => {
            let members = field.as_array()?.iter().enumerate();
            members.into_iter().find_map(|(index, member)| find(member, &format!("{full}[{index}]"), rest))
        }
    }
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
        for field in CONFIG {
            let value =
                field.rsplit('.').fold(serde_json::json!("asked for"), |value, part| match part.strip_suffix("[]") {
                    Some(list) => serde_json::json!({ list: [{}, value] }),
                    None => serde_json::json!({ part: value }),
                });
            assert_eq!(of_config(&value), Some(field.replace("[]", "[1]")));
        }
        let empty = serde_json::json!({"linux": {"intelRdt": {}}});
        assert_eq!(of_config(&empty).as_deref(), Some("linux.intelRdt"));
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
