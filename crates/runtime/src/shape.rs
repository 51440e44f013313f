//! What is wrong in a document whatever it says: lists for objects, and NUL bytes. Pure.
//!
//! serde takes a list for a structure, member by member, and so `"hooks": [[]]` for no hooks at all. The kernel and the C
//! library take a NUL byte for the end.

use serde_json::Value;

/// Of a process, in config.json and in exec's file. `[]` stands for each member of a list.
const PROCESS: &[&str] =
    &["consoleSize", "user", "capabilities", "rlimits[]", "scheduler", "ioPriority", "execCPUAffinity"];

/// Of everything else.
const CONFIG: &[&str] = &[
    "process",
    "root",
    "mounts[]",
    "mounts[].uidMappings[]",
    "mounts[].gidMappings[]",
    "hooks",
    "hooks.prestart[]",
    "hooks.createRuntime[]",
    "hooks.createContainer[]",
    "hooks.startContainer[]",
    "hooks.poststart[]",
    "hooks.poststop[]",
    "linux",
    "linux.namespaces[]",
    "linux.uidMappings[]",
    "linux.gidMappings[]",
    "linux.devices[]",
    "linux.personality",
    "linux.memoryPolicy",
    "linux.intelRdt",
    "linux.resources",
    "linux.resources.devices[]",
    "linux.resources.memory",
    "linux.resources.cpu",
    "linux.resources.pids",
    "linux.resources.blockIO",
    "linux.resources.blockIO.weightDevice[]",
    "linux.resources.blockIO.throttleReadBpsDevice[]",
    "linux.resources.blockIO.throttleWriteBpsDevice[]",
    "linux.resources.blockIO.throttleReadIOPSDevice[]",
    "linux.resources.blockIO.throttleWriteIOPSDevice[]",
    "linux.resources.hugepageLimits[]",
    "linux.resources.network",
    "linux.resources.network.priorities[]",
    "linux.seccomp",
    "linux.seccomp.syscalls[]",
    "linux.seccomp.syscalls[].args[]",
];

/// The full name of a list of config.json that should be an object.
pub(crate) fn wrong_in_config(config: &Value) -> Option<String> {
    if config.is_array() {
        return Some("config.json".to_owned());
    }
    let process = config.get("process").and_then(|process| wrong_in(process, PROCESS, "process"));
    wrong_in(config, CONFIG, "").or(process)
}

/// The same for a process of its own.
pub(crate) fn wrong_in_process(process: &Value) -> Option<String> {
    if process.is_array() { Some("process".to_owned()) } else { wrong_in(process, PROCESS, "process") }
}

/// The full name of the first text with a NUL byte; annotations may have some, nobody but their author reads them.
pub(crate) fn nul_in(document: &Value) -> Option<String> {
    let fields = document.as_object()?.iter().filter(|(name, _)| *name != "annotations");
    fields.into_iter().find_map(|(name, value)| nul_below(value, name))
}

fn nul_below(value: &Value, name: &str) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(|| name.to_owned()),
        Value::Array(members) => {
            let mut members = members.iter().enumerate();
            members.find_map(|(index, member)| nul_below(member, &format!("{name}[{index}]")))
        }
        Value::Object(fields) => fields.iter().find_map(|(key, value)| match key.contains('\0') {
            true => Some(name.to_owned()),
            false => nul_below(value, &format!("{name}.{key}")),
        }),
        _ => None,
    }
}

fn wrong_in(value: &Value, paths: &[&str], above: &str) -> Option<String> {
    paths.iter().find_map(|path| find(value, above, path))
}

fn find(value: &Value, above: &str, path: &str) -> Option<String> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let (name, each) = name.strip_suffix("[]").map_or((name, false), |name| (name, true));
    let field = value.get(name)?;
    let full = || if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
    let one = |value: &Value, full: String| match rest {
        Some(rest) => find(value, &full, rest),
        None => value.is_array().then_some(full),
    };
    if !each {
        return one(field, full());
    }
    let members = field.as_array()?.iter().enumerate();
    members.into_iter().find_map(|(index, member)| one(member, format!("{}[{index}]", full())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_no_object_anywhere() {
        let processes = PROCESS.iter().map(|path| format!("process.{path}"));
        for path in CONFIG.iter().map(|path| (*path).to_owned()).chain(processes) {
            let config =
                path.rsplit('.').fold(serde_json::json!(["list"]), |value, part| match part.strip_suffix("[]") {
                    Some(list) => serde_json::json!({ list: [{}, value] }),
                    None => serde_json::json!({ part: value }),
                });
            assert_eq!(wrong_in_config(&config), Some(path.replace("[]", "[1]")));
        }
        assert_eq!(wrong_in_process(&serde_json::json!({"user": [1]})), Some("process.user".into()));
        assert_eq!(wrong_in_process(&serde_json::json!([])), Some("process".into()));
        let nul = serde_json::json!({"annotations": {"a": "\0"}, "linux": {"sysctl": {"a": ["", "b\0"]}}});
        assert_eq!(nul_in(&nul), Some("linux.sysctl.a[1]".into()));
        assert_eq!(nul_in(&serde_json::json!({"linux": {"sysctl": {"\0": ""}}})), Some("linux.sysctl".into()));
        assert_eq!(wrong_in_config(&serde_json::json!({"mounts": [{"options": []}], "linux": {"devices": []}})), None);
    }
}
