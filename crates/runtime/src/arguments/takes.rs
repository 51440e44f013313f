//! What flags take whose values can be wrong, in the words of a sentence: "which takes ...". Pure.

/// Flag, and its values.
const TAKES: [(&str, &str); 24] = [
    ("rootless", "true, false or auto"),
    ("preserve-fds", "a number from 0 to 512"),
    ("additional-gids", "a number from 0 to 4294967294"),
    ("interval", "a time as 5s, 500ms or 1m30s"),
    ("empty-ns", "network"),
    ("manage-cgroups-mode", "soft, full, strict or ignore"),
    ("page-server", "ADDRESS:PORT, an address with colons in brackets"),
    ("status-fd", "the number of a descriptor that is open for writing"),
    ("memory", BYTES),
    ("memory-swap", BYTES),
    ("memory-reservation", BYTES),
    ("kernel-memory", BYTES),
    ("kernel-memory-tcp", BYTES),
    ("blkio-weight", "a number from 10 to 1000"),
    ("cpu-share", "a number from 2 to 262144"),
    ("cpu-quota", "microseconds, or -1 for no limit"),
    ("cpu-period", "a number of microseconds from 1000 to 1000000"),
    ("cpu-burst", "microseconds up to those of --cpu-quota"),
    ("cpu-rt-runtime", "microseconds up to those of --cpu-rt-period"),
    ("cpu-rt-period", "microseconds"),
    ("cpu-idle", "0 or 1"),
    ("pids-limit", "a number, or -1 for no limit"),
    ("log-format", "text or json"),
    ("format", "table or json"),
];

const BYTES: &str = "bytes as 1048576, 512k, 64m or 1.5g, or -1 for no limit";

/// The words; switches are true or false.
pub(super) fn words(flag: &str) -> &'static str {
    TAKES.iter().find(|(name, _)| *name == flag).map_or("true or false", |(_, words)| words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{CHECKPOINT, CREATE, CRIU, EVENTS, EXEC, Flag, GLOBAL, Kind, LIST, PS, RESTORE, UPDATE};

    /// Anything is a value: names of files, lists that the kernel reads, words of other programs.
    const TEXTS: [&str; 20] = [
        "log",
        "root",
        "criu",
        "bundle",
        "console-socket",
        "pidfd-socket",
        "pid-file",
        "cwd",
        "env",
        "user",
        "process",
        "process-label",
        "apparmor",
        "cap",
        "cgroup",
        "image-path",
        "work-path",
        "parent-path",
        "resources",
        "lsm-profile",
    ];

    #[test]
    fn every_flag_whose_value_can_be_wrong_says_what_it_takes() {
        let all: [&[Flag]; 11] =
            [&GLOBAL, &CREATE, &EXEC, &CRIU, &CHECKPOINT, &RESTORE, &LIST, &PS, &EVENTS, &UPDATE, &[]];
        let others = ["lsm-mount-context", "cpuset-cpus", "cpuset-mems", "l3-cache-schema", "mem-bw-schema"];
        for flag in all.into_iter().flatten().filter(|flag| matches!(flag.kind, Kind::Value | Kind::List)) {
            let is_text = TEXTS.contains(&flag.name) || others.contains(&flag.name);
            assert_ne!(is_text, TAKES.iter().any(|(name, _)| *name == flag.name), "{}", flag.name);
        }
    }
}
