//! Flags of `run` and `create`, in the order of their names.

use super::later::Wait;
use super::{Flag, Kind};

const fn list(long: &'static str, help: &'static str) -> Flag {
    Flag::value(long, Kind::List, "list", help)
}

const fn text(long: &'static str, help: &'static str) -> Flag {
    Flag::value(long, Kind::Text, "string", help)
}

const fn network(long: &'static str) -> Flag {
    Flag::value(long, Kind::Network, "network", "Network to connect it to")
}

const fn int(long: &'static str, help: &'static str) -> Flag {
    Flag::value(long, Kind::Int, "int", help).default("0")
}

const fn bytes(long: &'static str, help: &'static str) -> Flag {
    Flag::value(long, Kind::Bytes, "bytes", help).default("0")
}

const fn duration(long: &'static str, help: &'static str) -> Flag {
    Flag::value(long, Kind::Duration, "duration", help).default("0s")
}

/// Of every command that pulls.
pub const DISABLE_CONTENT_TRUST: Flag =
    Flag::bool("disable-content-trust", "Do not verify the image's signature").default("true").later(Wait::Trust);

/// What only `run` has.
pub static RUN_ONLY: &[Flag] = &[
    Flag::bool("detach", "Leave it running in the background and print its ID").short('d'),
    text("detach-keys", "Keys that detach from it, instead of ctrl-p,ctrl-q"),
    Flag::bool("sig-proxy", "Pass signals on to the process").default("true"),
];

/// Flags of `update`.
pub static UPDATE: &[Flag] = &[
    Flag::value("blkio-weight", Kind::Uint16, "uint16", "Weight of its block I/O, 10 to 1000; 0 for none").default("0"),
    int("cpu-period", "Length of a scheduler period, in microseconds"),
    int("cpu-quota", "Processor time in a scheduler period, in microseconds"),
    int("cpu-rt-period", "Length of a real-time period, in microseconds"),
    int("cpu-rt-runtime", "Real-time processor time in a period, in microseconds"),
    int("cpu-shares", "Relative weight of its processor time").short('c'),
    Flag::value("cpus", Kind::Cpus, "decimal", "Number of processors it may use"),
    text("cpuset-cpus", "Processors it may use (0-3, 0,1)"),
    text("cpuset-mems", "Memory nodes it may use (0-3, 0,1)"),
    bytes("kernel-memory", "Limit of kernel memory (has no effect)").hidden(),
    bytes("memory", "Memory it may use").short('m'),
    bytes("memory-reservation", "Memory it is left with when memory is short"),
    Flag::value("memory-swap", Kind::SwapBytes, "bytes", "Memory and swap it may use; -1 for any amount").default("0"),
    int("pids-limit", "Number of its tasks; -1 for any number"),
    list("publish-add", "Publish a port, as --publish of run does, while it runs, too"),
    list("publish-rm", "Publish a port no longer: PORT[/PROTOCOL], or as it was published"),
    text("restart", "When to start it again: no, always, unless-stopped, on-failure[:N], on-unhealthy[:N]"),
];

/// What `run` and `create` share.
pub static CREATE: &[Flag] = &[
    Flag::value("add-host", Kind::ExtraHost, "list", "Add a line to /etc/hosts (host:ip)"),
    Flag::value("annotation", Kind::Pairs, "map", "Pass an annotation to the runtime").default("map[]"),
    Flag::value("attach", Kind::Attach, "list", "Attach to STDIN, STDOUT or STDERR").short('a'),
    Flag::value("blkio-weight", Kind::Uint16, "uint16", "Weight of its block I/O, 10 to 1000; 0 for none").default("0"),
    Flag::value("blkio-weight-device", Kind::DeviceWeight, "list", "Weight of its I/O on one device").default("[]"),
    list("cap-add", "Give it a Linux capability"),
    list("cap-drop", "Take a Linux capability away"),
    text("cgroup-parent", "Cgroup that its own lies in"),
    text("cgroupns", "Cgroup namespace: host or private"),
    text("cidfile", "Write its ID to this file"),
    int("cpu-count", "Number of processors (Windows only)").elsewhere(),
    int("cpu-percent", "Share of the processors (Windows only)").elsewhere(),
    int("cpu-period", "Length of a scheduler period, in microseconds"),
    int("cpu-quota", "Processor time in a scheduler period, in microseconds"),
    int("cpu-rt-period", "Length of a real-time period, in microseconds"),
    int("cpu-rt-runtime", "Real-time processor time in a period, in microseconds"),
    int("cpu-shares", "Relative weight of its processor time").short('c'),
    Flag::value("cpus", Kind::Cpus, "decimal", "Number of processors it may use"),
    text("cpuset-cpus", "Processors it may use (0-3, 0,1)"),
    text("cpuset-mems", "Memory nodes it may use (0-3, 0,1)"),
    list("device", "Give it a device of the host"),
    Flag::value("device-cgroup-rule", Kind::DeviceRule, "list", "Add a rule to the devices it may use"),
    Flag::value("device-read-bps", Kind::DeviceBytes, "list", "Limit bytes read from a device per second")
        .default("[]"),
    Flag::value("device-read-iops", Kind::DeviceRate, "list", "Limit reads from a device per second").default("[]"),
    Flag::value("device-write-bps", Kind::DeviceBytes, "list", "Limit bytes written to a device per second")
        .default("[]"),
    Flag::value("device-write-iops", Kind::DeviceRate, "list", "Limit writes to a device per second").default("[]"),
    DISABLE_CONTENT_TRUST,
    Flag::value("dns", Kind::Address, "list", "Name server"),
    list("dns-opt", "Option of resolv.conf").hidden(),
    list("dns-option", "Option of resolv.conf"),
    Flag::value("dns-search", Kind::Domain, "list", "Search domain"),
    text("domainname", "NIS domain name"),
    list("egress", "What it may connect to: deny, allow=NAME:PORT[/udp], allow=ADDRESS[/PREFIX][:PORT]"),
    text("entrypoint", "Program to run instead of the image's"),
    Flag::value("env", Kind::Env, "list", "Set an environment variable").short('e'),
    list("env-file", "Read environment variables from a file"),
    list("expose", "Port that it serves"),
    Flag::value("gpus", Kind::Gpus, "gpu-request", "GPUs to give it ('all' for all)"),
    list("group-add", "Join one more group"),
    text("health-cmd", "Command that tells whether it is well"),
    duration("health-interval", "Time between two checks"),
    int("health-retries", "Failed checks in a row that make it unhealthy"),
    duration("health-start-interval", "Time between two checks while it starts"),
    duration("health-start-period", "Time in which failed checks do not count"),
    duration("health-timeout", "Time after which a check counts as failed"),
    Flag::bool("help", "Print this text"),
    text("hostname", "Host name").short('h'),
    Flag::bool("init", "Run an init program as process 1, which reaps orphans and passes signals on"),
    Flag::bool("interactive", "Keep its standard input open").short('i'),
    bytes("io-maxbandwidth", "Bandwidth of the system drive (Windows only)").elsewhere(),
    Flag::value("io-maxiops", Kind::Int, "uint", "Operations of the system drive (Windows only)")
        .default("0")
        .elsewhere(),
    text("ip", "IPv4 address"),
    text("ip6", "IPv6 address"),
    text("ipc", "IPC namespace"),
    text("isolation", "Isolation technology (Windows only)").hidden(),
    bytes("kernel-memory", "Limit of kernel memory (has no effect)").hidden(),
    Flag::value("label", Kind::Label, "list", "Attach metadata").short('l'),
    list("label-file", "Read metadata from a file"),
    Flag::value("link", Kind::Link, "list", "Link to another container"),
    list("link-local-ip", "Link-local address"),
    text("log-driver", "Where its output is kept"),
    list("log-opt", "Option of the log driver"),
    text("mac-address", "MAC address"),
    bytes("memory", "Memory it may use").short('m'),
    bytes("memory-reservation", "Memory it is left with when memory is short"),
    Flag::value("memory-swap", Kind::SwapBytes, "bytes", "Memory and swap it may use; -1 for any amount").default("0"),
    int("memory-swappiness", "How eagerly its memory is swapped, 0 to 100").default("-1"),
    Flag::value("mount", Kind::Mount, "mount", "Mount a volume, a host directory or a tmpfs"),
    text("name", "Name it"),
    network("net").hidden(),
    list("net-alias", "One more name in its network").hidden(),
    network("network"),
    list("network-alias", "One more name in its network"),
    Flag::bool("no-healthcheck", "Ignore the image's health check"),
    Flag::bool("oom-kill-disable", "Do not kill it when memory runs out"),
    int("oom-score-adj", "How eagerly it is killed when memory runs out, -1000 to 1000"),
    text("pid", "PID namespace"),
    int("pids-limit", "Number of its tasks; -1 for any number"),
    text("platform", "Platform of the image"),
    Flag::bool("privileged", "Give it all capabilities and devices"),
    list("publish", "Publish a port on the host").short('p'),
    Flag::bool("publish-all", "Publish all its ports on ports of the host's choice").short('P'),
    text("pull", "When to pull the image: always, missing or never").default("missing"),
    Flag::bool("quiet", "Do not show the progress of a pull").short('q'),
    Flag::bool("read-only", "Make its root file system read-only"),
    text("restart", "When to start it again: no, always, unless-stopped, on-failure[:N], on-unhealthy[:N]")
        .default("no"),
    Flag::bool("rm", "Remove it when it ends"),
    text("runtime", "Runtime that runs it"),
    list("security-opt", "Security option"),
    bytes("shm-size", "Size of /dev/shm"),
    text("stop-signal", "Signal that asks it to end"),
    int("stop-timeout", "Seconds between that signal and SIGKILL"),
    list("storage-opt", "Option of the storage driver"),
    Flag::value("sysctl", Kind::Sysctl, "map", "Set a kernel parameter").default("map[]"),
    list("tmpfs", "Mount a tmpfs"),
    Flag::bool("tty", "Give it a terminal").short('t'),
    Flag::value("ulimit", Kind::Ulimit, "ulimit", "Set a resource limit").default("[]"),
    Flag::bool("use-api-socket", "Give it the API's socket and credentials"),
    text("user", "User, and group, that it runs as (name or ID)").short('u'),
    text("userns", "User namespace"),
    text("uts", "UTS namespace"),
    list("volume", "Mount a volume or a host directory ([VOLUME:|HOST:]CONTAINER[:ro])").short('v'),
    text("volume-driver", "Driver of its volumes"),
    list("volumes-from", "Mount what another container mounts (CONTAINER[:ro])"),
    text("workdir", "Directory it starts in").short('w'),
];
