//! The `filters` of lists and event streams: the ways in which Docker matches. Pure.

use std::collections::{BTreeMap, BTreeSet};

use engine_api::ports;
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
    /// The filters of ports take no addresses.
    #[error("filter for '{key}' should not contain ':': {value}")]
    PortAddress {
        /// The filter.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// The filters of ports take a port or a range.
    #[error("error while looking up for {key} {value}: {reason}")]
    Port {
        /// The filter.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: PortReason,
    },
}

/// What is wrong with a filter's port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortReason {
    /// It is missing.
    #[error("Empty string specified for ports.")]
    Empty,
    /// It is no port's number.
    #[error(transparent)]
    Number(#[from] ports::PortError),
    /// The last one is below the first.
    #[error("Invalid range specified for the Port: {0}")]
    Backwards(String),
}

impl FilterError {
    /// The caller's mistake; ports are dockerd's own, and clients see its status.
    pub fn kind(&self) -> ErrorKind {
        match self {
            FilterError::PortAddress { .. } | FilterError::Port { .. } => ErrorKind::Internal,
            _ => ErrorKind::InvalidArgument,
        }
    }
}

/// Ports that a filter wants: `80`, `80-90/udp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFilter {
    first: u16,
    last: u16,
    protocol: String,
}

impl PortFilter {
    /// Reads the value of the filter `key`.
    pub fn parse(key: &'static str, value: &str) -> Result<PortFilter, FilterError> {
        if value.contains(':') {
            return Err(FilterError::PortAddress { key, value: value.to_owned() });
        }
        let (range, protocol) = match value.split_once('/') {
            Some((range, protocol)) if !protocol.is_empty() => (range, protocol),
            _ => (value.trim_end_matches('/'), "tcp"),
        };
        let refused = |reason| FilterError::Port { key, value: value.to_owned(), reason };
        let (first, last) = range_of_ports(range).map_err(refused)?;
        Ok(PortFilter { first, last, protocol: protocol.to_owned() })
    }

    /// Whether this port is among them.
    pub fn matches(&self, number: u16, protocol: &str) -> bool {
        (self.first..=self.last).contains(&number) && self.protocol == protocol
    }
}

fn range_of_ports(text: &str) -> Result<(u16, u16), PortReason> {
    match text.split_once('-') {
        _ if text.is_empty() => Err(PortReason::Empty),
        None => Ok(ports::number(text).map(|port| (port, port))?),
        Some((first, last)) => match (ports::number(first)?, ports::number(last)?) {
            (first, last) if first > last => Err(PortReason::Backwards(text.to_owned())),
            range => Ok(range),
        },
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

    #[test]
    fn ports_are_dockers() {
        let http = PortFilter::parse("publish", "80-82").unwrap();
        for (number, protocol, matches) in
            [(79, "tcp", false), (80, "tcp", true), (82, "tcp", true), (81, "udp", false)]
        {
            assert_eq!(http.matches(number, protocol), matches, "{number}/{protocol}");
        }
        assert!(PortFilter::parse("publish", "53/udp").unwrap().matches(53, "udp"));
        for (value, sentence) in [
            ("xx", "error while looking up for publish xx: strconv.ParseUint: parsing \"xx\": invalid syntax"),
            (
                "70000",
                "error while looking up for publish 70000: strconv.ParseUint: parsing \"70000\": value out of range",
            ),
            ("90-80", "error while looking up for publish 90-80: Invalid range specified for the Port: 90-80"),
            ("", "error while looking up for publish : Empty string specified for ports."),
            ("80:90", "filter for 'publish' should not contain ':': 80:90"),
        ] {
            assert_eq!(PortFilter::parse("publish", value).unwrap_err().to_string(), sentence);
        }
    }
}
