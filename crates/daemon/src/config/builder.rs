//! The key `builder` of daemon.json.

use engine::{BuildCacheConfig, BuildCacheLimits};
use engine_api::size::{Units, parse};
use serde::Deserialize;

use super::ConfigError;

/// moby, daemon/config/builder.go. What is not here says nothing about what is kept.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Builder {
    gc: Collection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Collection {
    enabled: Option<bool>,
    policy: Vec<Policy>,
    /// What became of it is `default_reserved_space`.
    default_keep_storage: String,
    default_reserved_space: String,
    default_max_used_space: String,
    default_min_free_space: String,
}

/// What there may be of what its filter lets through.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Policy {
    /// What became of it is `reserved_space`.
    keep_storage: String,
    reserved_space: String,
    max_used_space: String,
    min_free_space: String,
}

/// What is said of the build cache. Of rules the sizes of the last one count, which is about all of it: filters and durations of the
/// others say what goes first.
pub(super) fn build_cache(text: Option<&str>) -> Result<BuildCacheConfig, ConfigError> {
    let Some(text) = text else { return Ok(BuildCacheConfig::default()) };
    let gc = serde_json::from_str::<Builder>(text).map_err(|err| ConfigError::Builder(err.to_string()))?.gc;
    let last = gc.policy.into_iter().next_back();
    let [keep, reserved, max_used, min_free] = match last {
        Some(last) => [last.keep_storage, last.reserved_space, last.max_used_space, last.min_free_space],
        None => {
            [gc.default_keep_storage, gc.default_reserved_space, gc.default_max_used_space, gc.default_min_free_space]
        }
    };
    let reserved = if reserved.is_empty() { keep } else { reserved };
    let limits =
        BuildCacheLimits { reserved: bytes(&reserved)?, max_used: bytes(&max_used)?, min_free: bytes(&min_free)? };
    Ok(BuildCacheConfig { is_collected: gc.enabled.unwrap_or(true), limits })
}

/// A size, as in `20GB`; nothing says nothing.
fn bytes(text: &str) -> Result<u64, ConfigError> {
    match text {
        "" => Ok(0),
        text => Ok(u64::try_from(parse(text, Units::Binary)?).unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> (bool, u64, u64, u64) {
        let BuildCacheConfig { is_collected, limits } = build_cache(Some(text)).unwrap();
        (is_collected, limits.reserved, limits.max_used, limits.min_free)
    }

    #[test]
    fn sizes_are_those_of_the_last_rule_or_what_is_said_for_all() {
        assert_eq!(build_cache(None).unwrap(), BuildCacheConfig::default());
        for (text, wanted) in [
            ("{}", (true, 0, 0, 0)),
            (r#"{"gc":{"enabled":false}}"#, (false, 0, 0, 0)),
            (r#"{"gc":{"defaultKeepStorage":"10KB"},"entitlements":{"network-host":true}}"#, (true, 10 << 10, 0, 0)),
            (
                r#"{"gc":{"enabled":true,"defaultReservedSpace":"1k","defaultMaxUsedSpace":"2k","defaultMinFreeSpace":"3k"}}"#,
                (true, 1024, 2048, 3072),
            ),
            (
                r#"{"gc":{"policy":[{"keepStorage":"1k","filter":["unused-for=48h"]},{"maxUsedSpace":"5k","all":true}]}}"#,
                (true, 0, 5120, 0),
            ),
        ] {
            assert_eq!(limits(text), wanted, "{text}");
        }
        for (text, wanted) in [
            (r#"{"gc":{"defaultMaxUsedSpace":"much"}}"#, "invalid size: 'much'"),
            (r#"{"gc":true}"#, "builder: invalid type: boolean `true`, expected struct Collection at line 1 column 10"),
        ] {
            assert_eq!(errdefs::chain(&build_cache(Some(text)).unwrap_err()), wanted, "{text}");
        }
    }
}
