//! What of a config.json is passed over or means something else than it says, and stops nothing: told in the log. Pure.

use oci::runtime::Spec;
use serde_json::Value;

use super::needed::numbers;
use crate::refused::PLATFORMS;

/// A sentence for each, with the field's full name.
pub(super) fn warnings(config: &Value, spec: &Spec) -> Vec<String> {
    let mut all = Vec::new();
    later_version(spec, &mut all);
    platforms(config, &mut all);
    relative_destinations(spec, &mut all);
    modes(spec, &mut all);
    variables(spec, &mut all);
    limits(spec, &mut all);
    rules(spec, &mut all);
    all
}

/// What a later minor version has more may be passed over (runtime-spec config.md, "Extensibility").
fn later_version(spec: &Spec, all: &mut Vec<String>) {
    let (given, ours) = (&spec.oci_version, oci::runtime::VERSION);
    if numbers(given) > numbers(ours) {
        all.push(format!("ociVersion: {given} is later than {ours}: what it has more is passed over"));
    }
}

/// Empty ones: what asks for something is refused.
fn platforms(config: &Value, all: &mut Vec<String>) {
    let given = config.as_object().into_iter().flat_map(|fields| fields.keys());
    let foreign = given.filter(|name| PLATFORMS.iter().any(|known| known.eq_ignore_ascii_case(name)));
    all.extend(foreign.map(|name| format!("{name}: is for another platform, and passed over")));
}

/// As with runc: later versions of the specification want it absolute.
fn relative_destinations(spec: &Spec, all: &mut Vec<String>) {
    for (index, mount) in spec.mounts.iter().enumerate().filter(|(_, mount)| mount.destination.is_relative()) {
        let place = mount.destination.display();
        all.push(format!("mounts[{index}].destination: {place} is not absolute: it is taken from / on"));
    }
}

/// The kind of a file, which some engines leave in the mode of a host's device, is no mistake (inode(7), S_IFMT); nor is the
/// sticky bit, which a device may have.
const MODE_KNOWN: u32 = 0o171_777;

fn modes(spec: &Spec, all: &mut Vec<String>) {
    for (index, device) in spec.linux.devices.iter().enumerate() {
        if let Some(mode) = device.file_mode.filter(|mode| mode & !MODE_KNOWN != 0) {
            let kept = mode & 0o1777;
            let field = format!("linux.devices[{index}].fileMode");
            all.push(format!("{field}: {mode} is octal {mode:o}, of which a device keeps {kept:o}"));
        }
    }
}

/// Of a process's they are refused; a hook may be given what a shell would never take, and runc gives it.
fn variables(spec: &Spec, all: &mut Vec<String>) {
    let Some(hooks) = &spec.hooks else { return };
    for (name, hooks) in hooks.by_name() {
        for (hook, entries) in hooks.iter().enumerate().map(|(hook, found)| (hook, &found.env)) {
            for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| !entry.contains('=')) {
                let field = format!("hooks.{name}[{hook}].env[{index}]");
                all.push(format!("{field}: {entry:?} is no variable: missing '='"));
            }
        }
    }
}

fn limits(spec: &Spec, all: &mut Vec<String>) {
    let Some(resources) = &spec.linux.resources else { return };
    // Go's zero asks for nothing.
    let asks = |limit: Option<i64>| limit.is_some_and(|limit| limit != 0);
    if resources.memory.as_ref().is_some_and(|memory| asks(memory.kernel) || asks(memory.kernel_tcp)) {
        all.push("linux.resources.memory.kernel and kernelTCP are ignored: the kernel has no such limit".to_owned());
    }
    let quota = resources.cpu.as_ref().and_then(|cpu| cpu.quota);
    if let Some(quota) = quota.filter(|quota| *quota < -1) {
        all.push(format!("linux.resources.cpu.quota: {quota} is no limit, as -1 is"));
    }
}

/// Rules of the filter for no call: a misspelt `names` is a field that nobody knows.
fn rules(spec: &Spec, all: &mut Vec<String>) {
    let rules = spec.linux.seccomp.as_ref().and_then(|profile| profile.get("syscalls")?.as_array());
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let names = |field| rule.get(field).is_some_and(|names| *names != Value::Array(Vec::new()) && names != "");
        if !names("names") && !names("name") {
            all.push(format!("linux.seccomp.syscalls[{index}].names: is empty or missing: the rule is for no call"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_passed_over_is_told_with_its_name() {
        let hook = json!([{"path": "/h", "env": ["A=1", "bare"]}]);
        let device = |mode: u32| json!({"type": "c", "path": "/dev/x", "major": 1, "minor": 3, "fileMode": mode});
        for (config, text) in [
            (
                json!({"ociVersion": "1.99.0"}),
                "ociVersion: 1.99.0 is later than 1.3.0: what it has more is passed over",
            ),
            (json!({"vm": {}}), "vm: is for another platform, and passed over"),
            (json!({"Solaris": {"milestone": ""}}), "Solaris: is for another platform, and passed over"),
            (
                json!({"mounts": [{"destination": "x", "type": "tmpfs"}]}),
                "mounts[0].destination: x is not absolute: it is taken from / on",
            ),
            (
                json!({"linux": {"devices": [device(0o666), device(0o4755)]}}),
                "linux.devices[1].fileMode: 2541 is octal 4755, of which a device keeps 755",
            ),
            // Octal digits, read as decimal ones, with a digit too many.
            (
                json!({"linux": {"devices": [device(6666)]}}),
                "linux.devices[0].fileMode: 6666 is octal 15012, of which a device keeps 1012",
            ),
            (json!({"hooks": {"poststop": hook}}), "hooks.poststop[0].env[1]: \"bare\" is no variable: missing '='"),
            (
                json!({"linux": {"resources": {"memory": {"kernel": 1}}}}),
                "linux.resources.memory.kernel and kernelTCP are ignored: the kernel has no such limit",
            ),
            (
                json!({"linux": {"resources": {"cpu": {"quota": -5}}}}),
                "linux.resources.cpu.quota: -5 is no limit, as -1 is",
            ),
        ] {
            let spec = serde_json::from_value(config.clone()).unwrap();
            assert_eq!(warnings(&config, &spec), [text], "{config}");
        }
        let rules = json!([
            {"names": ["read"], "action": "SCMP_ACT_ERRNO"}, {"name": "read", "action": "SCMP_ACT_ERRNO"},
            {"names": [], "action": "SCMP_ACT_ERRNO"}, {"syscalls": ["read"], "action": "SCMP_ACT_ERRNO"},
        ]);
        let config = json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}}});
        let text =
            |index| format!("linux.seccomp.syscalls[{index}].names: is empty or missing: the rule is for no call");
        assert_eq!(warnings(&config, &serde_json::from_value(config.clone()).unwrap()), [text(2), text(3)]);
        for good in [
            // A host's device, whose mode has its kind.
            json!({"linux": {"devices": [device(0o20666), device(0o60660)]}}),
            json!({"linux": {"resources": {"memory": {"kernel": 0}, "cpu": {"quota": -1}}}}),
            json!({"nobodyKnows": {}}),
        ] {
            let spec = serde_json::from_value(good.clone()).unwrap();
            assert_eq!(warnings(&good, &spec), [""; 0], "{good}");
        }
    }
}
