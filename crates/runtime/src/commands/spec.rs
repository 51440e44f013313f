//! `spec`.

use std::fs::OpenOptions;
use std::io::Write;

use oci_runtime::SystemError;
use serde_json::{Value, json};

use super::{Context, OCI_VERSION};
use crate::arguments::{Parsed, UsageError};
use crate::error::CommandError;

/// Writes a config.json to begin with into the bundle; one that is there stays.
pub(crate) fn spec(context: &Context<'_>, flags: &Parsed) -> Result<u8, CommandError> {
    if !flags.words.is_empty() {
        return Err(UsageError::Words { command: "spec", wanted: "exactly 0 argument(s)" }.into());
    }
    let path = context.directory.join(flags.value("bundle").unwrap_or_default()).join("config.json");
    let mut config = example();
    if flags.is_on("rootless") {
        without_privilege(&mut config, rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    }
    if !flags.is_on("rootless") && !rustix::process::geteuid().is_root() {
        context.log.warning("only root can run this one: --rootless writes one for others");
    }
    let text = format!("{config:#}\n");
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    let action = if flags.value("bundle").is_some() { "--bundle: create" } else { "create" };
    written.map_err(|err| CommandError::File { action, path, source: SystemError(err) })?;
    Ok(0)
}

/// A shell with few privileges.
fn example() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mount = |destination: &str, kind: &str, options: &str| {
        let options: Vec<_> = options.split(',').collect();
        json!({"destination": destination, "type": kind, "source": kind, "options": options})
    };
    json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "longshore",
        "mounts": [
            mount("/proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
            mount("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=65536k"),
            mount("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
            mount("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
            mount("/sys/fs/cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// What the caller may do alone: root inside is the caller outside, and the only user that there is.
fn without_privilege(config: &mut Value, uid: u32, gid: u32) {
    let linux = &mut config["linux"];
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        // Nobody would connect a network of its own.
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            // A sysfs of its own shows the network namespace, which belongs to somebody else (mount_namespaces(7)).
            let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
            *mount = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": options});
        }
        if let Some(options) = mount["options"].as_array_mut() {
            // There is no such group inside.
            options.retain(|option| option.as_str().is_none_or(|option| !option.starts_with("gid=")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_one_that_can_be_carried_out() {
        let spec: oci::runtime::Spec = serde_json::from_value(example()).unwrap();
        oci_runtime::check(&spec).unwrap();
        assert_eq!(crate::refused::of_config(&example()), None);
    }

    #[test]
    fn without_privilege_nothing_is_asked_for_that_needs_it() {
        let mut config = example();
        without_privilege(&mut config, 1000, 1001);
        let spec: oci::runtime::Spec = serde_json::from_value(config.clone()).unwrap();
        oci_runtime::check(&spec).unwrap();
        assert_eq!(crate::refused::of_config(&config), None);
        assert_eq!(config["linux"]["uidMappings"], json!([{"containerID": 0, "hostID": 1000, "size": 1}]));
        assert_eq!(config["linux"]["gidMappings"][0]["hostID"], 1001);
        let text = config.to_string();
        assert!(!text.contains("gid=5") && !text.contains("\"network\"") && !text.contains("resources"), "{text}");
    }
}
