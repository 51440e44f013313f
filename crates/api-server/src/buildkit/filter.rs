//! Which builds of the history somebody wants (buildkit solver/llbsolver, history.go, `filterHistoryEvents`): any of some
//! filters, each of clauses that all hold. Pure.

use buildkit_api::messages::{BuildHistoryRecord, Timestamp};
use buildkit_api::status::Status;
use engine::ops::build::shown_repository;
use engine::ops::build_history::{parse_duration, parse_time};

use super::failure::said;

const SECOND: i64 = 1_000_000_000;

/// Filters, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filters(Vec<Vec<Clause>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Clause {
    field: String,
    operator: &'static str,
    /// As given; of times and durations a number.
    value: String,
    number: i64,
}

/// What stands between a field and a value, those first that begin with others.
const OPERATORS: [&str; 7] = ["==", "!=", "~=", ">=", "<=", ">", "<"];

impl Filters {
    pub(super) fn parse(filters: &[String], now_nanos: i64) -> Result<Filters, Status> {
        let one = |filter: &String| {
            let clauses = filter.split(',').map(|clause| clause.trim_matches('"')).filter(|clause| !clause.is_empty());
            clauses.map(|clause| Clause::parse(clause, now_nanos)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Filters(filters.iter().map(one).collect::<Result<_, _>>()?))
    }

    /// Whether a build is wanted; without filters all are.
    pub(super) fn pass(&self, record: &BuildHistoryRecord) -> bool {
        self.0.is_empty() || self.0.iter().any(|clauses| clauses.iter().all(|clause| clause.holds(record)))
    }
}

impl Clause {
    fn parse(text: &str, now_nanos: i64) -> Result<Clause, Status> {
        let places = OPERATORS.iter().filter_map(|operator| Some((text.find(operator)?, *operator)));
        let first = places.min_by_key(|(place, operator)| (*place, std::cmp::Reverse(operator.len())));
        let (field, operator, value) = match first {
            Some((place, operator)) => (&text[..place], operator, &text[place + operator.len()..]),
            // A field alone has to be there.
            None => (text, "!=", ""),
        };
        let number = match field {
            "startedAt" | "completedAt" => {
                let ago = parse_duration(value).map(|ago| now_nanos.saturating_sub(ago));
                let moment = ago.or_else(|| parse_time(value)).ok_or_else(|| said(format!("invalid time {value}")))?;
                moment.div_euclid(SECOND)
            }
            "duration" => parse_duration(value).ok_or_else(|| said(format!("invalid duration {value}")))?,
            _ => 0,
        };
        let value = value.trim_matches('"').to_owned();
        Ok(Clause { field: field.to_owned(), operator, value, number })
    }

    fn holds(&self, record: &BuildHistoryRecord) -> bool {
        let seconds = |time: Option<Timestamp>| time.map_or(0, |time| time.seconds);
        let nanos = |time: Timestamp| time.seconds.saturating_mul(SECOND).saturating_add(time.nanos.into());
        let number = match self.field.as_str() {
            "startedAt" => seconds(record.created_at),
            "completedAt" => seconds(record.completed_at),
            "duration" => record
                .completed_at
                .map_or(0, |end| nanos(end).saturating_sub(record.created_at.map(nanos).unwrap_or_default())),
            _ => return self.holds_of(&text(record, &self.field)),
        };
        match self.operator {
            ">=" => number >= self.number,
            "<=" => number <= self.number,
            ">" => number > self.number,
            "<" => number < self.number,
            "==" => number == self.number,
            _ => number != self.number,
        }
    }

    fn holds_of(&self, text: &str) -> bool {
        match self.operator {
            "==" => text == self.value,
            // containerd's has regular expressions here; clients of ours ask for parts of texts.
            "~=" => text.contains(&self.value),
            "!=" => text != self.value,
            _ => false,
        }
    }
}

/// What a field of a build says; nothing where it is not there.
fn text(record: &BuildHistoryRecord, field: &str) -> String {
    match (field, &record.error) {
        ("ref", _) => record.reference.clone(),
        ("status", _) if record.completed_at.is_none() => "running".to_owned(),
        ("status", None) => "completed".to_owned(),
        ("status", Some(error)) if error.message.contains("context canceled") => "canceled".to_owned(),
        ("status", Some(_)) => "error".to_owned(),
        ("repository", _) => {
            let attributes = &record.frontend_attributes;
            let context = || attributes.get("context").and_then(|context| shown_repository(context));
            let source = attributes.get("vcs:source").cloned().or_else(context).unwrap_or_default();
            source.split('#').next().unwrap_or_default().to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use buildkit_api::messages::RpcStatus;

    use super::*;

    #[test]
    fn builds_are_filtered_by_what_is_known_of_them() {
        let now = 1000 * SECOND;
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let error = RpcStatus { message: "x: context canceled".to_owned(), ..RpcStatus::default() };
        let record = BuildHistoryRecord {
            reference: "abc".to_owned(),
            created_at: at(900),
            completed_at: at(930),
            error: Some(error),
            frontend_attributes: BTreeMap::from([("context".to_owned(), "https://h/x.git#main".to_owned())]),
            ..BuildHistoryRecord::default()
        };
        for (filters, wanted) in [
            (&[][..], true),
            (&["status==canceled"], true),
            (&["status==error"], false),
            (&["status!=error,ref~=b"], true),
            (&["ref==b", "ref==abc"], true),
            (&["repository~=h/x.git"], true),
            (&["startedAt>=2m"], true),
            (&["startedAt>=1m"], false),
            (&["completedAt<1970-01-01T00:15:31Z,duration>29s"], true),
            (&["duration<=29s"], false),
            (&["other"], false),
        ] {
            let given: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
            assert_eq!(Filters::parse(&given, now).unwrap().pass(&record), wanted, "{filters:?}");
        }
        for (filter, wanted) in [("duration>x", "invalid duration x"), ("startedAt<y", "invalid time y")] {
            assert_eq!(Filters::parse(&[filter.to_owned()], now).unwrap_err().message, wanted);
        }
    }
}
