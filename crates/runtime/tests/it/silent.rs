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
    let rule = |names: &[&str], action: &str| json!({"names": names, "action": action});
    bundle.config["ociVersion"] = json!("1.99.0");
    bundle.config["linux"]["seccomp"]["syscalls"] = json!([
        rule(&["raed"], "SCMP_ACT_ERRNO"),
        rule(&["acct", "swapon", "swapoff"], "SCMP_ACT_ERRNO"),
        rule(&["acct", "swapon"], "SCMP_ACT_KILL_PROCESS"),
    ]);
    bundle.ok(&["create"]);
    let all = [
        "ociVersion: 1.99.0 is later than 1.3.0: what it has more is passed over",
        "vm: is for another platform, and passed over",
        "linux.devices[0].fileMode: 2541 is octal 4755, of which a device keeps 755",
        "hooks.prestart[0].env[0]: \"bare\" is no variable: missing '='",
        "linux.resources.cpu.quota: -5 is no limit, as -1 is",
        "linux.seccomp.syscalls: calls that nobody knows are passed over: raed",
        "linux.seccomp.syscalls[2].action: SCMP_ACT_KILL_PROCESS for acct, swapon is passed over: syscalls[1] has \
         SCMP_ACT_ERRNO (1)",
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
    let overlay =
        |options: &[&str]| json!([{"destination": "/o", "type": "overlay", "source": "o", "options": options}]);
    let equal = json!({"index": 0, "value": 1, "op": "SCMP_CMP_EQ"});
    std::os::unix::fs::symlink("nosuch", bundle.path("dead")).unwrap();
    let dead = bundle.path("dead").display().to_string();
    let dead = format!("root.path: {dead} is a symbolic link to nosuch: no such file or directory");
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
        (
            "mounts",
            json!([{"destination": "/c", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuch=1"]}]),
            "mounts[0].options: \"nosuch=1\" is no option of a cgroup mount",
        ),
        (
            "mounts",
            json!([{"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}]),
            "mounts[0].type: /proc cannot be mounted because it is not of type proc: only proc, or a bind mount of one, \
             may be there",
        ),
        (
            "mounts",
            overlay(&["lowerdir=rootfs/etc", "upperdir=rootfs/tmp"]),
            "mounts[0].options: needs workdir=, an empty directory on the file system of upperdir=",
        ),
        (
            "mounts",
            overlay(&["lowerdir=rootfs/etc", "upperdir=rootfs/tmp", "workdir=rootfs/tmp"]),
            "mounts[0].options: overlay on /o: upperdir=rootfs/tmp and workdir=rootfs/tmp are one directory, or one is \
             within the other: invalid argument",
        ),
        (
            "mounts",
            overlay(&["lowerdir=rootfs/etc", "upperdir=rootfs/tmp", "workdir=/dev/shm"]),
            "mounts[0].options: overlay on /o: upperdir=rootfs/tmp and workdir=/dev/shm are not on one file system: \
             invalid argument",
        ),
        (
            "mounts",
            overlay(&["lowerdir=rootfs/etc:/nosuch"]),
            "mounts[0].options: overlay on /o refuses \"lowerdir=rootfs/etc:/nosuch\" (/nosuch): no such file or directory",
        ),
        (
            "linux.cgroupsPath",
            json!("/a/../b"),
            "linux.cgroupsPath: /a/../b has \"..\" in it, which could lead out of the hierarchy: it has to be written \
             without",
        ),
        (
            "linux.cgroupsPath",
            json!("/"),
            "linux.cgroupsPath: / is the hierarchy's root, which is the host's: it has to name a cgroup below",
        ),
        (
            "linux.sysctl",
            json!({"net.ipv4.ip_forward": ""}),
            "linux.sysctl[\"net.ipv4.ip_forward\"]: is empty, which sets nothing: it needs a value, or is to be left out",
        ),
        (
            "linux.resources.blockIO",
            json!({"throttleWriteBpsDevice": [{"major": 8, "minor": 0}]}),
            "linux.resources.blockIO.throttleWriteBpsDevice[0].rate: is missing",
        ),
        ("process.rlimits", json!([{"type": "RLIMIT_NOFILE", "hard": 7}]), "process.rlimits[0].soft: is missing"),
        ("ociVersion", json!("1.0"), "ociVersion: \"1.0\" is no semantic version, as 1.3.0 is (MAJOR.MINOR.PATCH)"),
        (
            "linux.seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["acct"], "action": "SCMP_ACT_ERRNO", "args": [equal]},
                {"names": ["acct"], "action": "SCMP_ACT_LOG", "args": [equal]},
            ]}),
            "linux.seccomp.syscalls[1].action: SCMP_ACT_LOG for acct contradicts syscalls[0], which has SCMP_ACT_ERRNO (1) \
             for the same arguments",
        ),
        ("root", json!({"path": "dead"}), &dead),
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
