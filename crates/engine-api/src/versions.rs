//! The API versions that we serve, and every difference between them.
//!
//! Inside, only the newest version exists. [`upgrade_create`] lifts an old request to it and the `downgrade_*`
//! functions lower an answer again; handlers and engine never look at a version.

mod create;
mod system;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::container::{self, Inspect};
use crate::image;

pub use create::{UpgradeError, read_only_is_flat, upgrade_create, upgrade_platform};
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

/// An image as a version of the API tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ImageAnswer<T> {
    /// Since 1.44.
    New(T),
    /// Before 1.44, which had the size twice.
    Old {
        /// Everything else.
        #[serde(flatten)]
        image: T,
        /// The same as its size.
        #[serde(rename = "VirtualSize")]
        virtual_size: i64,
    },
}

/// Lowers listed images to `version`.
pub fn downgrade_images(version: ApiVersion, images: Vec<image::Summary>) -> Vec<ImageAnswer<image::Summary>> {
    images.into_iter().map(|image| downgrade_listed_image(version, image)).collect()
}

/// Lowers an inspected image to `version`.
pub fn downgrade_image(version: ApiVersion, mut image: image::Inspect) -> ImageAnswer<image::Inspect> {
    if !version.before(44) {
        return ImageAnswer::New(image);
    }
    image.created.get_or_insert_with(|| "0001-01-01T00:00:00Z".to_owned());
    ImageAnswer::Old { virtual_size: image.size, image }
}

fn downgrade_listed_image(version: ApiVersion, mut image: image::Summary) -> ImageAnswer<image::Summary> {
    // Counting containers came with 1.51.
    if version.before(51) {
        image.containers = -1;
    }
    if version.before(43) && image.repo_tags.is_empty() && image.repo_digests.is_empty() {
        image.repo_tags.push("<none>:<none>".to_owned());
        image.repo_digests.push("<none>@<none>".to_owned());
    }
    if !version.before(44) {
        return ImageAnswer::New(image);
    }
    ImageAnswer::Old { virtual_size: image.size, image }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_clients_see_images_as_they_were() {
        let image = image::Summary { size: 5, containers: 2, ..Default::default() };
        let told = |version: &str| {
            let images = downgrade_images(version.parse().unwrap(), vec![image.clone()]);
            serde_json::to_value(images).unwrap()[0].clone()
        };
        let newest = told("1.51");
        assert_eq!((&newest["Containers"], &newest["RepoTags"]), (&2.into(), &serde_json::json!([])));
        assert!(newest.get("VirtualSize").is_none());
        let old = told("1.42");
        assert_eq!((&old["VirtualSize"], &old["Size"], &old["Containers"]), (&5.into(), &5.into(), &(-1).into()));
        assert_eq!(old["RepoTags"][0], "<none>:<none>");
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
