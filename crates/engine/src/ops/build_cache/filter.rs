//! Which records of the build cache a prune takes. Pure.
//!
//! dockerd makes clauses of its filters and has BuildKit look at its records with them (moby daemon/internal/builder-next,
//! builder.go; buildkit cache, manager.go; containerd filters).

use engine_api::disk_usage::CacheRecord;

use super::{CACHE_MOUNT, CONTEXT, CachePruneError, STEP};
use crate::filters::Filters;
use crate::time_query;

/// `label` is taken and means nothing, as with dockerd: `system prune` sends it to all that it prunes.
const FILTERS: [&str; 11] =
    ["description", "id", "inuse", "label", "label!", "parent", "private", "shared", "type", "until", "unused-for"];

/// Those that are looked at records with.
const FIELDS: [&str; 7] = ["description", "id", "inuse", "parent", "private", "shared", "type"];

/// What a prune takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What was used last, or made, before this: nanoseconds since 1970.
    before_nanos: i64,
    /// Of some clauses all hold; without any everything is wanted.
    any: Vec<Vec<Clause>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Clause {
    field: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    /// The field is there.
    Present,
    Equal(String),
    Unequal(String),
    /// containerd's has a regular expression here; of ids people know parts.
    Contains(String),
}

impl Wanted {
    /// Reads filters of dockerd's.
    pub(super) fn parse(filters: &Filters, now_nanos: i64) -> Result<Wanted, CachePruneError> {
        filters.check(&FILTERS)?;
        if filters.has("until") && filters.has("unused-for") {
            return Err(CachePruneError::Conflicting);
        }
        if FIELDS.iter().chain(&["until", "unused-for"]).any(|name| filters.get(name).nth(1).is_some()) {
            return Err(CachePruneError::SeveralValues);
        }
        let mut before_nanos = i64::MAX;
        for text in filters.get("until").chain(filters.get("unused-for")) {
            let time = time_query::parse_any(text, now_nanos).map_err(|_| CachePruneError::Time(text.to_owned()))?;
            before_nanos = time.unwrap_or(i64::MAX);
        }
        let clause = |field: &&str| {
            let given = filters.0.get(*field)?;
            let test = match given.first() {
                None => Test::Present,
                Some(value) if *field == "id" => Test::Contains(value.clone()),
                Some(value) => Test::Equal(value.clone()),
            };
            Some(Clause { field: (*field).to_owned(), test })
        };
        let clauses: Vec<Clause> = FIELDS.iter().filter_map(clause).collect();
        if let Some(empty) = clauses.iter().find(|clause| clause.test.is_empty()) {
            return Err(CachePruneError::NoValue(empty.field.clone()));
        }
        Ok(Wanted { before_nanos, any: if clauses.is_empty() { Vec::new() } else { vec![clauses] } })
    }

    /// Reads filters of BuildKit's, any of which is enough, for what was used last `before_nanos`; `None` where one is of
    /// something that no record of ours has.
    pub fn parse_clauses(filters: &[String], before_nanos: i64) -> Option<Wanted> {
        let clauses = |filter: &String| filter.split(',').filter(|text| !text.is_empty()).map(Clause::parse).collect();
        let any = filters.iter().map(clauses).collect::<Option<Vec<Vec<Clause>>>>()?;
        Some(Wanted { before_nanos, any })
    }

    /// Whether it is everything.
    pub(super) fn is_everything(&self) -> bool {
        // As buildx asks for all but what BuildKit has for itself.
        let is_of_all = |clause: &Clause| match &clause.test {
            Test::Unequal(kind) => clause.field == "type" && ![STEP, CACHE_MOUNT, CONTEXT].contains(&kind.as_str()),
            _ => false,
        };
        let takes_all = |clauses: &Vec<Clause>| clauses.iter().all(is_of_all);
        self.before_nanos == i64::MAX && (self.any.is_empty() || self.any.iter().any(takes_all))
    }

    /// Whether it is a record that was used last, or made, at a time.
    pub(super) fn is(&self, record: &CacheRecord, time_nanos: i64) -> bool {
        let holds = |clauses: &Vec<Clause>| clauses.iter().all(|clause| clause.holds(record));
        time_nanos < self.before_nanos && (self.any.is_empty() || self.any.iter().any(holds))
    }
}

impl Test {
    fn is_empty(&self) -> bool {
        matches!(self, Test::Equal(value) | Test::Contains(value) if value.is_empty())
    }
}

impl Clause {
    fn parse(text: &str) -> Option<Clause> {
        let split = |operator: &str| {
            let (field, value) = text.split_once(operator)?;
            Some((field, value.trim_matches('"').to_owned()))
        };
        let (field, test) = split("==")
            .map(|(field, value)| (field, Test::Equal(value)))
            .or_else(|| split("!=").map(|(field, value)| (field, Test::Unequal(value))))
            .or_else(|| split("~=").map(|(field, value)| (field, Test::Contains(value))))
            .unwrap_or((text, Test::Present));
        FIELDS.contains(&field).then(|| Clause { field: field.to_owned(), test })
    }

    fn holds(&self, record: &CacheRecord) -> bool {
        // Nothing of ours has a parent; what says only whether something is has no text.
        let (is_there, text) = match self.field.as_str() {
            "id" => (true, record.id.as_str()),
            "type" => (true, record.kind.as_str()),
            "description" => (!record.description.is_empty(), record.description.as_str()),
            "inuse" => (record.in_use, ""),
            "shared" => (record.shared, ""),
            "private" => (!record.shared, ""),
            _ => (false, ""),
        };
        match &self.test {
            Test::Present => is_there,
            Test::Equal(value) => is_there && text == value,
            Test::Unequal(value) => text != value,
            Test::Contains(value) => is_there && text.contains(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> CacheRecord {
        CacheRecord {
            id: "0123abcd".to_owned(),
            kind: "regular".to_owned(),
            description: "RUN x".to_owned(),
            ..CacheRecord::default()
        }
    }

    fn filters(text: &str) -> Filters {
        let one = |word: &str| {
            let (name, values) = word.split_once('=').unwrap_or((word, ""));
            let values = values.split('|').filter(|_| word.contains('='));
            (name.to_owned(), values.map(str::to_owned).collect())
        };
        Filters(text.split(';').filter(|word| !word.is_empty()).map(one).collect())
    }

    #[test]
    fn records_are_taken_as_dockerds_filters_say() {
        for (text, is_wanted, is_everything) in [
            ("", true, true),
            ("label=x", true, true),
            ("id=23ab", true, false),
            ("id=24ab", false, false),
            ("id", true, false),
            ("type=regular", true, false),
            ("type=source.local", false, false),
            ("description=RUN x", true, false),
            ("description=RUN", false, false),
            // Of these it is asked whether they are, whatever the value.
            ("inuse", false, false),
            ("inuse=true", false, false),
            ("shared", false, false),
            ("shared=true", false, false),
            ("shared=false", false, false),
            ("private", true, false),
            ("private=true", false, false),
            ("parent", false, false),
            ("parent=x", false, false),
            ("type=regular;shared", false, false),
            ("until=1970-01-01T00:00:09Z", true, false),
            ("until=1970-01-01T00:00:07Z", false, false),
        ] {
            let wanted = Wanted::parse(&filters(text), 0).unwrap();
            let found = (wanted.is(&record(), 8_000_000_000), wanted.is_everything());
            assert_eq!(found, (is_wanted, is_everything), "{text}");
        }
        let mut used = record();
        (used.in_use, used.shared) = (true, true);
        for (text, is_wanted) in [("inuse", true), ("shared", true), ("private", false), ("inuse=true", false)] {
            assert_eq!(Wanted::parse(&filters(text), 0).unwrap().is(&used, 0), is_wanted, "{text}");
        }
    }

    #[test]
    fn filters_that_say_too_much_or_nothing_are_refused_in_dockerds_words() {
        for (text, wanted) in [
            ("id=x|y", "failed to prune build cache: filters expect only one value"),
            ("until=1h|2h", "failed to prune build cache: filters expect only one value"),
            (
                "until=1h;unused-for=1h",
                "failed to prune build cache: conflicting filters: \"until\" and \"unused-for\"",
            ),
            (
                "shared=",
                "failed to prune build cache: failed to parse prune filters [shared==]: filters: parse error: [shared==]: \
                 expected value or quoted: invalid argument",
            ),
        ] {
            assert_eq!(Wanted::parse(&filters(text), 0).unwrap_err().to_string(), wanted, "{text}");
        }
        assert_eq!(Wanted::parse(&filters("zz=1"), 0).unwrap_err().to_string(), "failed to prune build cache");
    }

    #[test]
    fn records_are_taken_as_buildkits_clauses_say() {
        for (given, is_wanted, is_everything) in [
            (&[][..], true, true),
            (&[""], true, true),
            (&["type!=internal,type!=frontend"], true, true),
            (&["type!=regular"], false, false),
            (&["type==source.local", "type==regular"], true, false),
            (&["id~=0123,type==regular"], true, false),
            (&["shared"], false, false),
            (&["private,description==\"RUN x\""], true, false),
        ] {
            let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
            let wanted = Wanted::parse_clauses(&given, i64::MAX).unwrap();
            assert_eq!((wanted.is(&record(), 0), wanted.is_everything()), (is_wanted, is_everything), "{given:?}");
        }
        assert_eq!(Wanted::parse_clauses(&["mutable".to_owned()], 0), None);
    }
}
