//! The API versions that we serve, and every difference between them.
//!
//! Inside, only the newest version exists. [`upgrade_create`] lifts an old request to it and the `downgrade_*`
//! functions lower an answer again; handlers and engine never look at a version.
//!
//! What is ours lies below `/longshore/` behind any version and is the same in all of them: fields are added to it, and none
//! changes its meaning or goes.

mod create;
mod disk_usage;
mod image;
mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::container::{self, Inspect};
use crate::volume::VolumeCreate;

pub use create::{
    UpgradeError, read_only_is_flat, upgrade_create, upgrade_platform, upgrade_push_platform, upgrade_update,
};
pub use disk_usage::{UsageAnswer, downgrade_usage, upgrade_usage_parts};
pub use image::{ImageAnswer, downgrade_image, downgrade_images};
pub use system::{InfoAnswer, downgrade_info};

/// A version of the API, `major.minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    /// Always 1 so far.
    pub major: u32,
    /// The part that counts.
    pub minor: u32,
}

/// The oldest version that we serve.
pub const MIN: ApiVersion = ApiVersion { major: 1, minor: 24 };
/// The newest version that we serve.
pub const MAX: ApiVersion = ApiVersion { major: 1, minor: 51 };

/// Why a version was refused. The texts are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Older than [`MIN`].
    #[error(
        "client version {0} is too old. Minimum supported API version is {MIN}, please upgrade your client to a newer version"
    )]
    TooOld(String),
    /// Newer than [`MAX`].
    #[error("client version {0} is too new. Maximum supported API version is {MAX}")]
    TooNew(String),
}

impl ApiVersion {
    /// Whether we serve this version, which the client wrote as `asked`.
    pub fn check(self, asked: &str) -> Result<ApiVersion, VersionError> {
        match self {
            version if version < MIN => Err(VersionError::TooOld(asked.to_owned())),
            version if version > MAX => Err(VersionError::TooNew(asked.to_owned())),
            version => Ok(version),
        }
    }

    /// Whether it is older than 1.`minor`.
    pub fn before(self, minor: u32) -> bool {
        self < ApiVersion { major: 1, minor }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = std::num::ParseIntError;

    /// Parses `1.41`; a text without a dot is an error, not version zero.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (major, minor) = text.split_once('.').unwrap_or((text, ""));
        Ok(ApiVersion { major: major.parse()?, minor: minor.parse()? })
    }
}

/// Lowers an inspected container to `version`.
pub fn downgrade_inspect(version: ApiVersion, inspect: &mut Inspect) {
    // 1.52 removes the fields of the default network at the top level; everything we serve still has them.
    if version.before(44) {
        for endpoint in inspect.network_settings.networks.values_mut() {
            endpoint.dns_names = None;
        }
    }
}

/// Lowers a listed container to `version`.
pub fn downgrade_summary(version: ApiVersion, container: &mut container::Summary) {
    // Annotations came with 1.46.
    if version.before(46) {
        container.host_config.annotations = None;
    }
}

/// Which network gives the default route is asked since 1.48.
pub fn upgrade_network_connect(version: ApiVersion, request: &mut crate::network::NetworkConnect) {
    if let Some(endpoint) = &mut request.endpoint_config
        && version.before(48)
    {
        endpoint.gw_priority = 0;
    }
}

/// Until 1.28 a list of networks told who is on them.
pub fn network_lists_are_detailed(version: ApiVersion) -> bool {
    version.before(28)
}

/// Until 1.42 nobody could ask for volumes of a cluster, nor be told that there are none.
pub fn upgrade_volume_create(version: ApiVersion, request: &mut VolumeCreate) {
    if version.before(42) {
        request.cluster_volume_spec = None;
    }
}

/// Until 1.42 a prune of volumes took the named ones, too (moby `postVolumesPrune`).
pub fn upgrade_volume_prune(version: ApiVersion, filters: &mut BTreeMap<String, BTreeSet<String>>) {
    if version.before(42) {
        filters.entry("all".to_owned()).or_default().insert("true".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_prune_takes_named_volumes() {
        let all = |minor, mut filters| {
            upgrade_volume_prune(ApiVersion { major: 1, minor }, &mut filters);
            filters.get("all").cloned()
        };
        let set = |value: &str| BTreeSet::from([value.to_owned()]);
        assert_eq!(all(42, BTreeMap::new()), None);
        assert_eq!(all(41, BTreeMap::new()), Some(set("true")));
        assert_eq!(all(42, BTreeMap::from([("all".to_owned(), set("0"))])), Some(set("0")));
    }

    #[test]
    fn versions_are_parsed_and_bounded() {
        let check = |text: &str| text.parse::<ApiVersion>().unwrap().check(text);
        assert!(check("1.24").is_ok() && check("1.51").is_ok());
        assert_eq!(
            check("1.23").unwrap_err().to_string(),
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
        );
        assert_eq!(
            check("1.99").unwrap_err().to_string(),
            "client version 1.99 is too new. Maximum supported API version is 1.51"
        );
        assert!("1".parse::<ApiVersion>().is_err());
        assert!("1.9".parse::<ApiVersion>().unwrap() < "1.10".parse().unwrap());
    }
}
