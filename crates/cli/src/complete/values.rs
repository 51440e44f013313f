//! Values of flags.

use super::objects::Wanted;
use super::{Answer, takes_files};
use crate::args::{Command, Flag, Kind, NetworkVerb, Verb};

/// What is known of a flag's values.
pub(super) enum Known {
    /// All of it.
    Words(Answer),
    /// The daemon has to be asked.
    Objects(Wanted),
}

const SIGNALS: [&str; 35] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN",
];

const CAPABILITIES: [&str; 42] = [
    "ALL",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

const PLATFORMS: [&str; 11] = [
    "linux/386",
    "linux/amd64",
    "linux/arm",
    "linux/arm/v5",
    "linux/arm/v6",
    "linux/arm/v7",
    "linux/arm64",
    "linux/arm64/v8",
    "linux/ppc64le",
    "linux/riscv64",
    "linux/s390x",
];

const ULIMITS: [&str; 15] = [
    "as=",
    "core=",
    "cpu=",
    "data=",
    "fsize=",
    "locks=",
    "memlock=",
    "msgqueue=",
    "nice=",
    "nofile=",
    "nproc=",
    "rss=",
    "rtprio=",
    "sigpending=",
    "stack=",
];

const LOG_OPTIONS: [&str; 16] = [
    "cache-compress=",
    "cache-disabled=",
    "cache-max-file=",
    "cache-max-size=",
    "compress=",
    "env-regex=",
    "env=",
    "labels-regex=",
    "labels=",
    "max-buffer-size=",
    "max-file=",
    "max-size=",
    "mode=",
    "syslog-address=",
    "syslog-facility=",
    "tag=",
];

/// Names of filters, of which each takes a value.
fn filters(verb: Verb) -> &'static [&'static str] {
    match verb {
        Verb::List => &[
            "ancestor=",
            "before=",
            "exited=",
            "expose=",
            "health=",
            "id=",
            "is-task=",
            "label=",
            "name=",
            "network=",
            "publish=",
            "since=",
            "status=",
            "volume=",
        ],
        Verb::Images => &["before=", "dangling=", "label=", "reference=", "since=", "until="],
        Verb::ListVolumes => &["dangling=", "driver=", "label=", "name="],
        Verb::Network(NetworkVerb::List) => &["dangling=", "driver=", "id=", "label=", "name=", "scope=", "type="],
        Verb::Events => {
            &["container=", "daemon=", "event=", "image=", "label=", "network=", "scope=", "type=", "volume="]
        }
        Verb::PruneVolumes => &["all=", "label!=", "label="],
        _ => &["label!=", "label=", "until="],
    }
}

/// Values of filters that are one of few.
fn filter_values(verb: Verb, name: &str) -> &'static [&'static str] {
    match (verb, name) {
        (Verb::List, "status") => &["created", "dead", "exited", "paused", "removing", "restarting", "running"],
        (Verb::List, "health") => &["healthy", "none", "starting", "unhealthy"],
        (_, "dangling" | "is-task" | "all") => &["false", "true"],
        (Verb::Network(NetworkVerb::List), "type") => &["builtin", "custom"],
        (Verb::Events, "type") => &["container", "daemon", "image", "network", "volume"],
        (_, "scope") => &["local", "swarm"],
        (Verb::Events, "event") => &[
            "attach",
            "commit",
            "copy",
            "create",
            "delete",
            "destroy",
            "detach",
            "die",
            "exec_create",
            "exec_detach",
            "exec_die",
            "exec_start",
            "export",
            "health_status",
            "import",
            "kill",
            "load",
            "mount",
            "oom",
            "pause",
            "prune",
            "pull",
            "reload",
            "remove",
            "rename",
            "resize",
            "restart",
            "start",
            "stop",
            "tag",
            "top",
            "unmount",
            "unpause",
            "untag",
            "update",
        ],
        _ => &[],
    }
}

/// What may follow a flag.
pub(super) fn known(command: Option<&Command>, flag: &Flag, typed: &str) -> Known {
    let words = |words: &[&'static str]| Known::Words(Answer::words(words.iter().copied()));
    let verb = command.map(|command| command.verb);
    match flag.long {
        _ if flag.kind == Kind::Bool => words(&["false", "true"]),
        _ if takes_files(flag) => Known::Words(Answer::files()),
        "filter" => Known::Words(filter(verb.unwrap_or(Verb::PruneAll), typed)),
        "network" | "net" if typed.starts_with("container:") => container_mode(),
        "network" | "net" => Known::Objects(Wanted::Networks),
        "link" => Known::Objects(Wanted::Containers(&["running", "paused", "restarting"], ":")),
        "volumes-from" => Known::Objects(Wanted::Containers(&[], "")),
        "ipc" | "pid" if typed.starts_with("container:") => container_mode(),
        "volume" if typed.starts_with(['/', '.', '~']) => Known::Words(Answer::files()),
        "volume" => Known::Objects(Wanted::Volumes(":")),
        "volume-driver" => Known::Objects(Wanted::VolumeDrivers),
        "driver" if verb == Some(Verb::CreateVolume) => Known::Objects(Wanted::VolumeDrivers),
        "log-driver" => Known::Objects(Wanted::LogDrivers),
        "runtime" => Known::Objects(Wanted::Runtimes),
        "context" | "from" => Known::Objects(Wanted::Contexts),
        "env" => Known::Words(Answer::words(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))),
        long => Known::Words(fixed(long)),
    }
}

/// `container:NAME`
fn container_mode() -> Known {
    Known::Objects(Wanted::Modes)
}

/// Of flags whose values are always the same.
fn fixed(long: &str) -> Answer {
    let words: &[&str] = match long {
        "restart" => &["no", "always", "on-failure", "on-unhealthy", "unless-stopped"],
        "pull" => &["always", "missing", "never"],
        "signal" | "stop-signal" => &SIGNALS,
        "cap-add" | "cap-drop" => &CAPABILITIES,
        "attach" => &["stderr", "stdin", "stdout"],
        "cgroupns" => &["host", "private"],
        "ipc" => &["container:", "host", "none", "private", "shareable"],
        "pid" => &["container:", "host"],
        "userns" | "uts" => &["host"],
        "isolation" => &["default"],
        "platform" => &PLATFORMS,
        "security-opt" => &["apparmor=", "label=", "no-new-privileges", "seccomp=", "systempaths=unconfined"],
        "gpus" => &["all"],
        "type" => &["container", "image", "network", "volume"],
        "format" => &["json", "table"],
        "log-level" => &["debug", "error", "fatal", "info", "warn"],
        "detach-keys" => return Answer::words(["ctrl-"]).no_space(),
        "storage-opt" => return Answer::words(["size="]).no_space(),
        "ulimit" => return Answer::words(ULIMITS).no_space(),
        "log-opt" => return Answer::words(LOG_OPTIONS).no_space(),
        "mount" => return Answer::words(["type=bind,", "type=tmpfs,", "type=volume,"]).no_space(),
        _ => &[],
    };
    Answer::words(words.iter().copied())
}

fn filter(verb: Verb, typed: &str) -> Answer {
    match typed.split_once('=') {
        None => Answer::words(filters(verb).iter().copied()).no_space(),
        Some((name, _)) => Answer::words(filter_values(verb, name).iter().map(|value| format!("{name}={value}"))),
    }
}
