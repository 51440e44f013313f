//! What config.json has to have: an empty value is another mistake than none. Pure.

use oci::runtime::Spec;
use serde_json::Value;

/// The first field that every container needs and that is not there.
pub(super) fn missing(config: &Value, spec: &Spec) -> Option<String> {
    let path = spec.root.mounts.is_empty().then_some(["root", "root.path"]);
    let needed = path.into_iter().flatten().chain(["process", "process.cwd", "process.args"]);
    let is_missing = |field: &&str| {
        let mut names = field.split('.');
        names.try_fold(config, |value, name| value.get(name)).is_none()
    };
    let first = needed.into_iter().find(is_missing).map(str::to_owned);
    let resources = || config.pointer("/linux/resources");
    first.or_else(|| missing_number(config, spec)).or_else(|| missing_limit(resources()?))
}

/// Go writes zeroes out here: whoever leaves a device's number out has forgotten it (runtime-spec config-linux.md,
/// "Devices").
fn missing_number(config: &Value, spec: &Spec) -> Option<String> {
    let given = config.pointer("/linux/devices")?.as_array()?;
    let nodes = spec.linux.devices.iter().zip(given).enumerate().filter(|(_, (device, _))| device.kind != "p");
    let mut numbers = nodes.flat_map(|(index, (_, given))| ["major", "minor"].map(|name| (index, given, name)));
    let (index, _, name) = numbers.find(|(_, given, name)| given.get(name).is_none())?;
    Some(format!("linux.devices[{index}].{name}"))
}

/// Lists of `linux.resources`, and what each of their members has to have: read as zero it would be another limit than was
/// meant, or none. Go writes zeroes out here, too.
const MEMBERS: [(&str, &[&str]); 7] = [
    ("blockIO.weightDevice", &["major", "minor"]),
    ("blockIO.throttleReadBpsDevice", RATE),
    ("blockIO.throttleWriteBpsDevice", RATE),
    ("blockIO.throttleReadIOPSDevice", RATE),
    ("blockIO.throttleWriteIOPSDevice", RATE),
    ("hugepageLimits", &["pageSize", "limit"]),
    ("network.priorities", &["name", "priority"]),
];

const RATE: &[&str] = &["major", "minor", "rate"];

/// The full name of the first limit that is not there, where its list has a member for it.
pub(super) fn missing_limit(resources: &Value) -> Option<String> {
    missing_member(resources).or_else(|| missing_weight(resources))
}

/// One of both is needed (runtime-spec config-linux.md, "Block IO").
fn missing_weight(resources: &Value) -> Option<String> {
    let given = resources.pointer("/blockIO/weightDevice")?.as_array()?;
    let index = given.iter().position(|one| one.get("weight").is_none() && one.get("leafWeight").is_none())?;
    Some(format!("linux.resources.blockIO.weightDevice[{index}].weight"))
}

fn missing_member(resources: &Value) -> Option<String> {
    MEMBERS.into_iter().find_map(|(list, names)| {
        let given = list.split('.').try_fold(resources, |value, name| value.get(name))?.as_array()?;
        let mut fields =
            given.iter().enumerate().flat_map(|(index, one)| names.iter().map(move |name| (index, one, name)));
        let (index, _, name) = fields.find(|(_, one, name)| one.get(name).is_none())?;
        Some(format!("linux.resources.{list}[{index}].{name}"))
    })
}

/// Whether a text is a version as semver.org, number 2, has it (runtime-spec config.md, "Specification version").
pub(super) fn is_semantic(version: &str) -> bool {
    let (rest, build) = version.split_once('+').map_or((version, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = |text: &str| text == "0" || !text.is_empty() && number(text) && !text.starts_with('0');
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    core.split('.').count() == 3
        && core.split('.').all(plain)
        && before.is_none_or(|before| before.split('.').all(|text| word(text) && (!number(text) || plain(text))))
        && build.is_none_or(|build| build.split('.').all(word))
}

/// The first two numbers of a semantic version.
pub(super) fn numbers(version: &str) -> Option<(u64, u64)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_limit_that_is_left_out_is_named_with_its_place() {
        let throttle = |value: Value| json!({"blockIO": {"throttleWriteIOPSDevice": [value]}});
        let whole = json!({"major": 8, "minor": 0, "rate": 0});
        for (resources, text) in [
            (throttle(json!({"major": 8, "minor": 0})), "blockIO.throttleWriteIOPSDevice[0].rate"),
            (throttle(json!({"rate": 1})), "blockIO.throttleWriteIOPSDevice[0].major"),
            (json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}, {"limit": 1}]}), "hugepageLimits[1].pageSize"),
            (json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}}), "blockIO.weightDevice[0].weight"),
            (json!({"network": {"priorities": [{"name": "lo"}]}}), "network.priorities[0].priority"),
        ] {
            assert_eq!(missing_limit(&resources), Some(format!("linux.resources.{text}")));
        }
        let leaf = json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 10}]}});
        for good in [throttle(whole), leaf, json!({}), json!({"blockIO": {"weight": 10}, "hugepageLimits": []})] {
            assert_eq!(missing_limit(&good), None, "{good}");
        }
    }

    #[test]
    fn versions_are_semantic_ones() {
        for good in
            ["1.0.0", "1.99.0", "0.9.10", "1.0.2-dev", "1.0.0-rc5-dev", "1.0.0-rc.5+a.01", "1.0.0+x-y", "10.20.30"]
        {
            assert!(is_semantic(good), "{good}");
        }
        for bad in [
            "",
            "1",
            "1.0",
            "1.0.0.0",
            "v1.0.0",
            "01.0.0",
            "1.0.x",
            "1.0.0-",
            "1.0.0-01",
            "1.0.0+",
            "1.0.0-a..b",
            " 1.0.0",
        ] {
            assert!(!is_semantic(bad), "{bad}");
        }
        assert_eq!(numbers("1.99.0-rc1"), Some((1, 99)));
    }
}
