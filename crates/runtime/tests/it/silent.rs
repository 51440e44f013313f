//! What is refused, or told in the log, that other runtimes take in silence.

use std::fs;

use serde_json::{Value, json};

use super::fields::set;
use super::fixture::Bundle;

/// The warnings in the log.
fn warnings(bundle: &Bundle) -> Vec<String> {
    let text = fs::read_to_string(bundle.path("log")).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let warnings = lines.filter(|line| line["level"] == "warning");
    warnings.map(|line| line["msg"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn privileged_what_is_passed_over_is_told_in_the_log() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["vm"] = json!({});
    bundle.config["linux"]["resources"]["cpu"] = json!({"quota": -5});
    bundle.config["hooks"] = json!({"prestart": [{"path": "/bin/true", "env": ["bare"]}]});
    bundle.config["linux"]["devices"] =
        json!([{"type": "c", "path": "/dev/extra", "major": 1, "minor": 3, "fileMode": 2541}]);
    bundle.config["linux"]["seccomp"]["syscalls"] = json!([{"names": ["raed"], "action": "SCMP_ACT_ERRNO"}]);
    bundle.ok(&["create"]);
    let all = [
        "vm: is for another platform, and passed over",
        "linux.devices[0].fileMode: 2541 is octal 4755, of which a device keeps 755",
        "hooks.prestart[0].env[0]: \"bare\" is no variable: missing '='",
        "linux.resources.cpu.quota: -5 is no limit, as -1 is",
        "linux.seccomp.syscalls: calls that nobody knows are passed over: raed",
    ];
    assert_eq!(warnings(&bundle), all);
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

/// The field and the value of what is set at a place of config.json, and why it is refused.
#[test]
fn privileged_what_could_not_be_meant_is_refused_by_name() {
    let mut bundle = Bundle::new(&["true"]);
    let good = bundle.config.clone();
    let node = |node: Value| json!([node]);
    let throttle = json!({"major": 8, "minor": 0, "rate": 1});
    for (place, value, text) in [
        ("linux.devices", node(json!({"type": "c", "path": "/dev/x"})), "linux.devices[0].major: is missing"),
        (
            "linux.devices",
            node(json!({"type": "c", "path": "/", "major": 1, "minor": 3})),
            "linux.devices[0].path: / is the container's root directory",
        ),
        (
            "linux.maskedPaths",
            json!(["/proc/kcore", "/dev"]),
            "linux.maskedPaths[1]: /dev hides /dev/null, which is needed to set up standard streams: no such file or directory",
        ),
        ("linux.maskedPaths", json!(["/"]), "linux.maskedPaths[0]: / is the container's root directory"),
        ("process.user.umask", json!(777), "process.user.umask: 777 is not between 0 and 511"),
        (
            "linux.resources.devices",
            json!([{"allow": false, "access": "rwmx"}]),
            "linux.resources.devices[0].access: \"rwmx\" is not an access: must be some of r, w, m",
        ),
        (
            "linux.resources.blockIO",
            json!({"throttleReadBpsDevice": [throttle, throttle]}),
            "linux.resources.blockIO.throttleReadBpsDevice[1]: \"8:0\" is there twice",
        ),
        (
            "linux.memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "7000"}),
            "linux.memoryPolicy.nodes: set MPOL_BIND for the nodes 7000: invalid argument",
        ),
        (
            "mounts",
            json!([{"destination": "/tmp", "type": "none", "source": "/etc"}]),
            "mounts[0].type: \"none\" is no file system: a bind mount needs \"bind\" or \"rbind\" in mounts[0].options: no \
             such device",
        ),
        (
            "mounts",
            json!([{"destination": "/tmp", "type": "bind", "source": "/etc", "options": ["bind", "remount"]}]),
            "mounts[0].destination: remount /tmp: nothing is mounted there: invalid argument",
        ),
        ("root", json!({"path": "/"}), "root.path: / is the host's own root, which cannot become a container's"),
        (
            "linux.seccomp",
            json!({"defaultAction": "SCMP_ACT_ERRNO"}),
            "linux.seccomp.defaultAction: the filter has to allow what comes before the program: the container's process \
             ended with status 139 before it was ready",
        ),
        (
            "linux.seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{"names": ["write", "sendmsg", "sendto"], "action": "SCMP_ACT_ALLOW"}],
            }),
            "linux.seccomp.defaultAction: a filter with SCMP_ACT_ERRNO has to allow what comes before the program: \
             process.capabilities: set bounding: function not implemented",
        ),
    ] {
        bundle.config = good.clone();
        set(&mut bundle.config, place, &value);
        let said = bundle.err(&["create"]);
        assert!(said.ends_with(&format!(": {text}")), "{said}\nis not\n{text}");
        bundle.assert_gone();
    }
}
