//! The `filters` of lists and event streams: the ways in which Docker matches. Pure.

use std::collections::{BTreeMap, BTreeSet};

use errdefs::ErrorKind;
use regex_lite::Regex;

/// Wanted values by key, as the client sent them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(pub BTreeMap<String, BTreeSet<String>>);

/// Why filters are refused. The texts are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The list has no such filter.
    #[error("invalid filter '{0}'")]
    Key(String),
    /// The filter has no such value.
    #[error("invalid filter '{key}={value}'")]
    Value {
        /// The filter.
        key: String,
        /// Its values, in brackets.
        value: String,
    },
    /// The filter `exited` takes numbers.
    #[error("invalid filter 'exited={0}': strconv.Atoi: parsing {0:?}: invalid syntax")]
    ExitCode(String),
    /// The filter `all` takes a truth value.
    #[error("invalid filter 'all': strconv.ParseBool: parsing {0:?}: invalid syntax")]
    All(String),
    /// The filter `all` takes one value.
    #[error("invalid filter 'all=[{0}]': only one value is expected")]
    ManyAll(String),
    /// There is no such state.
    #[error(
        "invalid filter 'status={0}': invalid value for state ({0}): must be one of created, running, paused, \
         restarting, removing, exited, dead"
    )]
    Status(String),
    /// There is no such health.
    #[error(
        "invalid filter 'health={0}': invalid value for health ({0}): must be one of none, starting, healthy, unhealthy"
    )]
    Health(String),
}

impl FilterError {
    /// Always the caller's mistake.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

impl Filters {
    /// The wanted values of `key`.
    pub fn get(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Whether `key` is given with at least one value.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).next().is_some()
    }

    /// Refuses keys that are not among `accepted`.
    pub fn check(&self, accepted: &[&str]) -> Result<(), FilterError> {
        let unknown = self.0.keys().find(|key| !accepted.contains(&key.as_str()));
        unknown.map_or(Ok(()), |key| Err(FilterError::Key(key.clone())))
    }

    /// Whether `value` is one of the wanted ones, or none is given.
    pub fn exact(&self, key: &str, value: &str) -> bool {
        !self.has(key) || self.get(key).any(|wanted| wanted == value)
    }

    /// Whether `value` begins with one of the wanted ones, or none is given.
    pub fn prefix(&self, key: &str, value: &str) -> bool {
        !self.has(key) || self.get(key).any(|wanted| value.starts_with(wanted))
    }

    /// Whether one of the wanted ones, as a regular expression, matches in `value`, or none is given.
    pub fn pattern(&self, key: &str, value: &str) -> bool {
        self.exact(key, value) || self.get(key).any(|wanted| Regex::new(wanted).is_ok_and(|re| re.is_match(value)))
    }

    /// Whether `labels` has all wanted ones: `NAME` or `NAME=VALUE`.
    pub fn labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(key).all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        })
    }

    /// A truth value: `None` if not given.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, FilterError> {
        let Some(values) = self.0.get(key) else { return Ok(None) };
        let among = |words: [&str; 2]| values.iter().any(|value| words.contains(&value.as_str()));
        match (among(["1", "true"]), among(["0", "false"])) {
            (true, false) => Ok(Some(true)),
            (false, true) => Ok(Some(false)),
            _ => {
                let value = values.iter().cloned().collect::<Vec<_>>().join(" ");
                Err(FilterError::Value { key: key.to_owned(), value: format!("[{value}]") })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(pairs: &[(&str, &[&str])]) -> Filters {
        let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        Filters(pairs.iter().map(|(key, wanted)| ((*key).to_owned(), values(wanted))).collect())
    }

    #[test]
    fn values_match_as_docker_matches_them() {
        let filters = filters(&[("name", &["we", "^db$"]), ("id", &["ab"])]);
        for (value, exact, prefix, pattern) in [
            ("we", true, true, true),
            ("web", false, true, true),
            ("a-web", false, false, true),
            ("db", false, false, true),
            ("dbs", false, false, false),
        ] {
            assert_eq!(filters.exact("name", value), exact, "{value}");
            assert_eq!(filters.prefix("name", value), prefix, "{value}");
            assert_eq!(filters.pattern("name", value), pattern, "{value}");
        }
        assert!(filters.exact("other", "x") && filters.prefix("other", "x") && filters.pattern("other", "x"));
    }

    #[test]
    fn labels_must_all_be_there() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        for (wanted, found) in [
            (&["a"][..], true),
            (&["a=1", "b"], true),
            (&["b="], true),
            (&["a=2"], false),
            (&["a", "c"], false),
            (&[], true),
        ] {
            assert_eq!(filters(&[("label", wanted)]).labels("label", &labels), found, "{wanted:?}");
        }
    }

    #[test]
    fn truth_values_and_keys_are_checked() {
        assert_eq!(filters(&[]).boolean("dangling"), Ok(None));
        assert_eq!(filters(&[("dangling", &["1"])]).boolean("dangling"), Ok(Some(true)));
        assert_eq!(filters(&[("dangling", &["false"])]).boolean("dangling"), Ok(Some(false)));
        let err = filters(&[("dangling", &["maybe"])]).boolean("dangling").unwrap_err();
        assert_eq!(err.to_string(), "invalid filter 'dangling=[maybe]'");
        let err = filters(&[("foo", &["x"])]).check(&["name"]).unwrap_err();
        assert_eq!(err.to_string(), "invalid filter 'foo'");
    }
}
