//! What older clients are told of disk usage.

use serde::Serialize;
use serde_json::Value;

use super::ApiVersion;
use crate::disk_usage::{CacheRecord, DiskUsage, UnknownPart, UsageParts};
use crate::{container, volume};

/// Disk usage as a version of the API tells it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct UsageAnswer {
    layers_size: i64,
    images: Option<Vec<Value>>,
    containers: Option<Vec<container::Summary>>,
    volumes: Option<Vec<volume::Volume>>,
    build_cache: Option<Vec<CacheRecord>>,
}

/// Until 1.42 everything was measured, whatever `type` says (moby `getDiskUsage`).
pub fn upgrade_usage_parts<'a>(
    version: ApiVersion,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<UsageParts, UnknownPart> {
    let mut names = names.into_iter().peekable();
    if version.before(42) || names.peek().is_none() { Ok(UsageParts::ALL) } else { UsageParts::named(names) }
}

/// Lowers disk usage to `version`.
pub fn downgrade_usage(version: ApiVersion, usage: DiskUsage) -> UsageAnswer {
    let image = |image| {
        let mut image = serde_json::to_value(image).expect("wire types have string keys and cannot fail to serialize");
        // Here, as against a list of images, what is missing is null in every version.
        for name in ["RepoTags", "RepoDigests"] {
            if image[name].as_array().is_some_and(Vec::is_empty) {
                image[name] = Value::Null;
            }
        }
        if version.before(44) {
            image["VirtualSize"] = image["Size"].clone();
        }
        image
    };
    UsageAnswer {
        layers_size: usage.layers_size,
        images: usage.images.map(|images| images.into_iter().map(image).collect()),
        containers: usage.containers,
        volumes: usage.volumes,
        build_cache: usage.build_cache,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::image::Summary;

    #[test]
    fn old_clients_are_told_all_and_sizes_twice() {
        let version = |minor| ApiVersion { major: 1, minor };
        assert_eq!(upgrade_usage_parts(version(41), ["zz"]), Ok(UsageParts::ALL));
        assert_eq!(upgrade_usage_parts(version(42), []), Ok(UsageParts::ALL));
        assert!(upgrade_usage_parts(version(42), ["zz"]).is_err());
        let image = Summary { size: 5, containers: 2, repo_tags: vec!["a:b".to_owned()], ..Summary::default() };
        let usage = DiskUsage { images: Some(vec![image]), ..DiskUsage::default() };
        let told = |minor| serde_json::to_value(downgrade_usage(version(minor), usage.clone())).unwrap();
        assert_eq!(told(43)["Images"][0]["VirtualSize"], json!(5));
        assert_eq!(told(44)["Images"][0].get("VirtualSize"), None);
        for minor in [24, 51] {
            assert_eq!(told(minor)["Images"][0]["RepoDigests"], Value::Null);
            assert_eq!(told(minor)["Images"][0]["RepoTags"], json!(["a:b"]));
            assert_eq!(told(minor)["Images"][0]["Containers"], json!(2));
        }
    }
}
