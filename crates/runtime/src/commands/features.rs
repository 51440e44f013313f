//! `features` and the version.

use oci::runtime::{MemoryPolicyFlag, MemoryPolicyMode};
use serde_json::json;

use super::OCI_VERSION;
use crate::arguments::{Parsed, UsageError};
use crate::error::CommandError;

/// What `--version` prints, line for line as runc does: podman and dockerd read it. The commit is there if the program was
/// built from one that is known, by `cargo xtask dist`.
pub(crate) fn version() -> String {
    let commit = option_env!("LONGSHORE_COMMIT").map_or_else(String::new, |commit| format!("\ncommit: {commit}"));
    format!("longshore-runtime version {}{commit}\nspec: {OCI_VERSION}", env!("CARGO_PKG_VERSION"))
}

/// Prints what is supported (runtime-spec features.md).
pub(crate) fn features(flags: &Parsed) -> Result<u8, CommandError> {
    if !flags.words.is_empty() {
        return Err(UsageError::Words { command: "features", wanted: "exactly 0 argument(s)" }.into());
    }
    let capabilities: Vec<_> = oci::names::CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect();
    let actions = ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "NOTIFY", "TRACE", "TRAP"];
    let operators = ["EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE"];
    let named = |names: &[&str], prefix: &str| names.iter().map(|name| format!("{prefix}{name}")).collect::<Vec<_>>();
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": &MOUNT_OPTIONS[..],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": named(&actions, "SCMP_ACT_"),
                "operators": named(&operators, "SCMP_CMP_"),
                "archs": seccomp::architecture_names(),
                "knownFlags": seccomp::Profile::FLAGS,
                "supportedFlags": seccomp::Profile::FLAGS,
            },
            // What is known here, whatever the host has (features-linux.md).
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "memoryPolicy": {
                "modes": MemoryPolicyMode::ALL.iter().map(|mode| mode.word()).collect::<Vec<_>>(),
                "flags": MemoryPolicyFlag::ALL.iter().map(|flag| flag.word()).collect::<Vec<_>>(),
            },
            "netDevices": {"enabled": true},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
        // As runc says it: podman and containerd look for nothing else.
        "annotations": {"org.opencontainers.runc.checkpoint.enabled": "true"},
        "potentiallyUnsafeConfigAnnotations": ["org.criu.config"],
    });
    super::print(&format!("{features:#}\n"))?;
    Ok(0)
}

/// The words of `oci-runtime`'s mount options; others are left to the file system.
const MOUNT_OPTIONS: [&str; 62] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];
