//! `build --cache-from`, `--cache-to`: caches in directories of ours. All others are the daemon's to understand.

use client::session::layouts::TAG;

/// A cache in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCache {
    /// Where.
    pub directory: String,
    /// What it is called there.
    pub tag: String,
    /// What names it, if that is said.
    pub digest: Option<String>,
}

/// Why a cache is none. The sentences are BuildKit's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// It goes nowhere.
    #[error("local cache exporter requires dest")]
    NoDestination,
    /// It comes from nowhere.
    #[error("local cache importer requires src")]
    NoSource,
}

/// Where a cache goes, if that is a directory of ours.
pub fn to(text: &str) -> Result<Option<LocalCache>, CacheError> {
    local(text, "dest").ok_or(CacheError::NoDestination)
}

/// Where a cache comes from, if that is a directory of ours.
pub fn from(text: &str) -> Result<Option<LocalCache>, CacheError> {
    local(text, "src").ok_or(CacheError::NoSource)
}

/// `None` where the directory is missing.
fn local(text: &str, key: &str) -> Option<Option<LocalCache>> {
    let field = |wanted: &str| {
        let mut fields = text.split(',').filter_map(|field| field.split_once('='));
        fields.rfind(|(key, _)| key.trim().eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned())
    };
    if field("type").as_deref() != Some("local") {
        return Some(None);
    }
    let directory = field(key).filter(|directory| !directory.is_empty())?;
    let tag = field("tag").unwrap_or_else(|| TAG.to_owned());
    Some(Some(LocalCache { directory, tag, digest: field("digest").filter(|digest| !digest.is_empty()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_in_directories_are_ours() {
        let cache = |tag: &str, digest: Option<&str>| LocalCache {
            directory: "d".to_owned(),
            tag: tag.to_owned(),
            digest: digest.map(str::to_owned),
        };
        assert_eq!(to("type=local,dest=d,mode=max"), Ok(Some(cache("latest", None))));
        assert_eq!(from("Type=local,src=d,tag=t,digest=x"), Ok(Some(cache("t", Some("x")))));
        assert_eq!(to("type=registry,ref=a"), Ok(None));
        assert_eq!(from("a/b:c"), Ok(None));
        assert_eq!(to("type=local,src=d"), Err(CacheError::NoDestination));
        assert_eq!(from("type=local"), Err(CacheError::NoSource));
    }
}
