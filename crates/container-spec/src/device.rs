//! Device nodes, and which devices a container may use.

use engine_api::host_config::{DeviceMapping, HostConfig};
use oci::runtime::{BlockIo, Device, DeviceRule};

use crate::facts::HostFacts;
use crate::validate::InvalidRequest;

/// zero, null, urandom, random, tty and console; the runtime adds full, ptmx and the terminals of /dev/pts.
const ALLOWED: [(i64, i64); 6] = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];

/// /dev/fuse, which Docker denies by name.
const FUSE: (i64, i64) = (10, 229);

/// A device of the host that a container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The node, where it is in the container.
    pub node: Device,
    /// Some of `rwm`.
    pub access: String,
}

/// What the host's device nodes say of a request, as the engine has looked at them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostDevices {
    /// Devices that the container gets.
    pub granted: Vec<Granted>,
    /// Limits on block devices.
    pub block_io: BlockIo,
}

/// The rules of the device controller, applied in order.
pub fn rules(host: &HostConfig, granted: &[Granted]) -> Result<Vec<DeviceRule>, InvalidRequest> {
    let all = |allow| DeviceRule { allow, kind: "a".to_owned(), access: "rwm".to_owned(), ..DeviceRule::default() };
    if host.privileged {
        return Ok(vec![all(true)]);
    }
    let mut rules = vec![all(false)];
    rules.extend(ALLOWED.iter().map(|device| character(true, *device)));
    rules.push(character(false, FUSE));
    rules.extend(granted.iter().map(|granted| DeviceRule {
        allow: true,
        kind: granted.node.kind.clone(),
        major: Some(granted.node.major.into()),
        minor: Some(granted.node.minor.into()),
        access: granted.access.clone(),
    }));
    for rule in host.device_cgroup_rules.iter().flatten() {
        rules.push(parse_rule(rule).ok_or_else(|| InvalidRequest::DeviceRule { rule: rule.clone() })?);
    }
    Ok(rules)
}

fn character(allow: bool, (major, minor): (i64, i64)) -> DeviceRule {
    DeviceRule { allow, kind: "c".to_owned(), major: Some(major), minor: Some(minor), access: "rwm".to_owned() }
}

/// Reads `c 10:* rw`.
fn parse_rule(rule: &str) -> Option<DeviceRule> {
    let mut words = rule.split(' ');
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    let (major, minor) = numbers.split_once(':')?;
    let number = |text: &str| match text {
        "*" => Some(None),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok().map(Some),
        _ => None,
    };
    let valid = words.next().is_none()
        && matches!(kind, "a" | "b" | "c")
        && (1..=3).contains(&access.len())
        && access.bytes().all(|byte| b"rwm".contains(&byte));
    valid.then_some(())?;
    Some(DeviceRule {
        allow: true,
        kind: kind.to_owned(),
        major: number(major)?,
        minor: number(minor)?,
        access: access.to_owned(),
    })
}

/// The nodes beside the runtime's own: all of the host's for a privileged container, and those that it was given.
pub fn nodes(host: &HostConfig, facts: &HostFacts, granted: &[Granted]) -> Vec<Device> {
    let mut nodes = if host.privileged { facts.devices.clone() } else { Vec::new() };
    for granted in granted {
        // Of two at one place the last one counts.
        nodes.retain(|node| node.path != granted.node.path);
        nodes.push(granted.node.clone());
    }
    nodes
}

/// Whether a mapping says nothing new: a privileged container has the device already.
pub fn is_covered(host: &HostConfig, mapping: &DeviceMapping) -> bool {
    host.privileged && mapping.path_on_host == mapping.path_in_container
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_docker_reads_them() {
        for (text, valid) in [
            ("c 10:200 rwm", true),
            ("a *:* r", true),
            ("b 7:* rw", true),
            ("c 10 rwm", false),
            ("c 10:200 rwx", false),
            ("c 10:200 rwmr", false),
            ("d 10:200 r", false),
            ("c -1:200 r", false),
            ("c 10:200 r ", false),
            ("", false),
        ] {
            assert_eq!(parse_rule(text).is_some(), valid, "{text:?}");
        }
    }

    #[test]
    fn a_privileged_container_may_use_every_device() {
        let host = HostConfig { privileged: true, ..HostConfig::default() };
        let last = rules(&host, &[]).unwrap().pop().unwrap();
        assert_eq!((last.allow, last.major, last.minor), (true, None, None));
    }
}
