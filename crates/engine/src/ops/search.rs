//! `GET /images/search`

use engine_api::auth::AuthConfig;
use engine_api::image::SearchResult;
use errdefs::ErrorKind;
use registry_client::SearchError as RegistrySearchError;

use crate::Engine;
use crate::filters::{FilterError, Filters};
use crate::ops::login::credentials;

/// How many repositories are asked for where nobody says.
const LIMIT_DEFAULT: i64 = 25;

/// How many may be asked for.
const LIMIT_MAX: i64 = 100;

/// What comes in the query and the headers.
#[derive(Clone, Debug, Default)]
pub struct SearchQuery {
    /// `term`
    pub term: String,
    /// `limit`; 0 if it is not said.
    pub limit: i64,
    /// `filters`
    pub filters: Filters,
    /// The header `X-Registry-Auth`; may be empty.
    pub authorization: String,
}

/// Why nothing was searched. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// A filter is none.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The filter `stars` takes numbers.
    #[error("invalid filter 'stars={0}': strconv.Atoi: parsing {0:?}: invalid syntax")]
    Stars(String),
    /// What is searched is a name, not an address.
    #[error("invalid repository name: repository name ({0}) should not have a scheme")]
    Scheme(String),
    /// Too many or too few.
    #[error("limit {0} is outside the range of [1, 100]")]
    Limit(i64),
    /// The registry does not do it.
    #[error(transparent)]
    Registry(#[from] RegistrySearchError),
}

impl SearchError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SearchError::Filter(err) => err.kind(),
            SearchError::Stars(_) | SearchError::Scheme(_) | SearchError::Limit(_) => ErrorKind::InvalidArgument,
            SearchError::Registry(err) => err.kind(),
        }
    }
}

/// What is asked, and of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    /// `host[:port]`; none for Docker Hub.
    host: Option<String>,
    term: String,
    limit: u32,
    official: Option<bool>,
    stars: Option<i64>,
    /// There are no automated repositories any more.
    nothing: bool,
}

fn plan(query: &SearchQuery) -> Result<Plan, SearchError> {
    let filters = &query.filters;
    filters.check(&["is-automated", "is-official", "stars"])?;
    let nothing = filters.boolean("is-automated")? == Some(true);
    let official = filters.boolean("is-official")?;
    let stars = filters.get("stars").map(|text| text.parse::<i64>().map_err(|_| SearchError::Stars(text.to_owned())));
    let stars = stars.collect::<Result<Vec<_>, _>>()?.into_iter().max().map(|stars| stars.max(0));
    if !nothing && query.term.contains("://") {
        return Err(SearchError::Scheme(query.term.clone()));
    }
    let limit = if query.limit == 0 { LIMIT_DEFAULT } else { query.limit };
    if !nothing && !(1..=LIMIT_MAX).contains(&limit) {
        return Err(SearchError::Limit(limit));
    }
    let (host, term) = split(&query.term);
    Ok(Plan { host, term, limit: limit as u32, official, stars, nothing })
}

/// The registry that is named before the first slash, if one is, and the rest.
fn split(term: &str) -> (Option<String>, String) {
    let is_host = |host: &str| host.contains(['.', ':']) || host == "localhost";
    match term.split_once('/').filter(|(host, _)| is_host(host)) {
        Some((host, rest)) if !matches!(host, "docker.io" | "index.docker.io") => {
            (Some(host.to_owned()), rest.to_owned())
        }
        hub => {
            let rest = hub.map_or(term, |(_, rest)| rest);
            (None, rest.strip_prefix("library/").unwrap_or(rest).to_owned())
        }
    }
}

/// Searches a registry.
pub async fn search(engine: &Engine, query: &SearchQuery) -> Result<Vec<SearchResult>, SearchError> {
    let plan = plan(query)?;
    if plan.nothing {
        return Ok(Vec::new());
    }
    let credentials = AuthConfig::from_header(&query.authorization).map(credentials).unwrap_or_default();
    let registries = engine.current.registries();
    let found = registries.search(plan.host.as_deref(), &plan.term, plan.limit, credentials).await?;
    let wanted = found.into_iter().filter(|one| {
        plan.official.is_none_or(|official| one.is_official == official)
            && plan.stars.is_none_or(|stars| one.star_count >= stars)
    });
    let result = |one: registry_client::Found| SearchResult {
        star_count: one.star_count,
        is_official: one.is_official,
        name: one.name,
        // Deprecated, and what registries say of it is not to be believed.
        is_automated: false,
        description: one.description,
    };
    Ok(wanted.map(result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(term: &str, limit: i64, filters: &[(&str, &str)]) -> Result<Plan, String> {
        let filters = filters.iter().map(|(key, value)| ((*key).to_owned(), [(*value).to_owned()].into()));
        let filters = Filters(filters.collect());
        let query = SearchQuery { term: term.to_owned(), limit, filters, ..SearchQuery::default() };
        plan(&query).map_err(|err| err.to_string())
    }

    #[test]
    fn a_term_names_its_registry_as_dockerd_reads_it() {
        for (term, host, rest) in [
            ("busybox", None, "busybox"),
            ("library/busybox", None, "busybox"),
            ("some/body", None, "some/body"),
            ("docker.io/library/x", None, "x"),
            ("index.docker.io/x", None, "x"),
            ("localhost/x", Some("localhost"), "x"),
            ("h:5000/a/b", Some("h:5000"), "a/b"),
            ("a.b/", Some("a.b"), ""),
            ("a.b", None, "a.b"),
        ] {
            let plan = planned(term, 0, &[]).unwrap();
            assert_eq!((plan.host.as_deref(), plan.term.as_str(), plan.limit), (host, rest, 25), "{term}");
        }
    }

    #[test]
    fn limits_and_filters_are_dockerds() {
        for (term, limit, filter, sentence) in [
            ("x", 101, None, "limit 101 is outside the range of [1, 100]"),
            ("x", -1, None, "limit -1 is outside the range of [1, 100]"),
            ("http://x", 0, None, "invalid repository name: repository name (http://x) should not have a scheme"),
            ("x", 0, Some(("foo", "a")), "invalid filter 'foo'"),
            ("x", 0, Some(("stars", "a")), "invalid filter 'stars=a': strconv.Atoi: parsing \"a\": invalid syntax"),
            ("x", 0, Some(("is-official", "a")), "invalid filter 'is-official=[a]'"),
        ] {
            assert_eq!(planned(term, limit, filter.as_slice()), Err(sentence.to_owned()));
        }
        assert!(planned("http://x", 0, &[("is-automated", "true")]).unwrap().nothing);
        let plan = planned("x", 100, &[("stars", "-3"), ("is-official", "false"), ("is-automated", "0")]).unwrap();
        assert_eq!((plan.stars, plan.official, plan.nothing, plan.limit), (Some(0), Some(false), false, 100));
    }
}
