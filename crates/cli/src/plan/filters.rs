//! `--filter`: Docker's `{"name":{"value":true}}`.

use std::collections::BTreeMap;

/// The JSON of `name=value` texts; empty for none.
pub fn encode<'a>(given: impl IntoIterator<Item = &'a str>) -> String {
    let mut filters: BTreeMap<String, BTreeMap<&str, bool>> = BTreeMap::new();
    for text in given {
        let Some((name, value)) = text.split_once('=') else { continue };
        filters.entry(name.trim().to_lowercase()).or_default().insert(value.trim(), true);
    }
    if filters.is_empty() {
        return String::new();
    }
    serde_json::to_string(&filters).expect("maps of strings and booleans are JSON")
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_collect_their_values() {
        let text = super::encode(["status=running", "label=a=b", "status=exited"]);
        assert_eq!(text, r#"{"label":{"a=b":true},"status":{"exited":true,"running":true}}"#);
        assert_eq!(super::encode([]), "");
    }
}
