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

/// What is given to a prune, and what the configuration adds (`pruneFilters`): a label that is given is not contradicted.
pub fn with_configured(given: &[String], configured: &[String]) -> Vec<String> {
    let mut all = given.to_vec();
    for filter in configured {
        let Some((name, value)) = filter.split_once('=').filter(|(_, value)| !value.is_empty()) else { continue };
        let contrary = match name {
            "label" => format!("label!={value}"),
            "label!" => format!("label={value}"),
            _ => String::new(),
        };
        if !all.contains(&contrary) {
            all.push(filter.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_configuration_adds_to_what_is_given() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let configured = texts(&["label=keep", "label!=x", "until=24h", "label=", "nonsense"]);
        let all = super::with_configured(&texts(&["label!=keep", "a=b"]), &configured);
        assert_eq!(all, texts(&["label!=keep", "a=b", "label!=x", "until=24h"]));
    }

    #[test]
    fn names_collect_their_values() {
        let text = super::encode(["status=running", "label=a=b", "status=exited"]);
        assert_eq!(text, r#"{"label":{"a=b":true},"status":{"exited":true,"running":true}}"#);
        assert_eq!(super::encode([]), "");
    }
}
