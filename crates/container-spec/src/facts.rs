//! What is known of the machine, gathered once by the engine and passed to every plan.

use std::collections::BTreeMap;

/// The machine, as far as containers are concerned.
#[derive(Clone, Debug, PartialEq)]
pub struct HostFacts {
    /// The machine's own host name; containers on the host network have it.
    pub hostname: String,
    /// The kernel.
    pub kernel: KernelVersion,
    /// How the cgroup hierarchies are mounted.
    pub cgroup: CgroupLayout,
    /// Capabilities that we can give away (our bounding set), by name (`CAP_CHOWN`).
    pub bounding_capabilities: Vec<String>,
    /// Online processors.
    pub cpus: u32,
    /// Processors that cpusets may name, `0-3`.
    pub cpuset_cpus: String,
    /// Memory nodes that cpusets may name, `0`.
    pub cpuset_mems: String,
    /// Physical memory.
    pub memory_bytes: u64,
    /// Whether limits on swap can be set.
    pub swap_limit: bool,
    /// What else the controllers can do.
    pub controls: Controls,
    /// Whether the kernel has system-call filters.
    pub seccomp: bool,
    /// Whether profiles of AppArmor are in force.
    pub apparmor: bool,
    /// Whether a policy of SELinux is in force.
    pub selinux: bool,
    /// Whether /proc/sys/net/ipv4/ping_group_range and ip_unprivileged_port_start exist.
    pub network_sysctls: bool,
    /// Limits of containers that do not ask for others (`default-ulimits` of daemon.json): name to soft and hard.
    pub default_ulimits: BTreeMap<String, (i64, i64)>,
    /// Size of /dev/shm where none is asked for (`default-shm-size`); 64 MiB by default.
    pub default_shm_size_bytes: i64,
    /// Whether an init program is process 1 where the request does not say (`init`).
    pub default_init: bool,
    /// Whether programs gain no privileges where the request does not say (`no-new-privileges`).
    pub no_new_privileges: bool,
    /// Processors that have a `thermal_throttle` directory in /sys, hidden from containers.
    pub thermal_throttle_cpus: Vec<u32>,
    /// Names of other OCI runtimes (`runtimes`).
    pub runtimes: Vec<String>,
    /// Who runs containers that do not say (`default-runtime`); empty for our own runtime.
    pub default_runtime: String,
    /// Whether the file system of containers' own files keeps limits on them.
    pub size_limits: bool,
    /// Device nodes below /dev on the host, for privileged containers.
    pub devices: Vec<oci::runtime::Device>,
}

/// What the machine's controllers can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// Limits on memory.
    pub memory: bool,
    /// Limits on the kernel's memory for TCP (version 1 only).
    pub kernel_memory_tcp: bool,
    /// Switching the OOM killer off (version 1 only).
    pub oom_kill_disable: bool,
    /// Weights of processor time.
    pub cpu_shares: bool,
    /// Quotas of processor time.
    pub cpu_quota: bool,
    /// Sets of processors.
    pub cpuset: bool,
    /// Limits on tasks.
    pub pids: bool,
    /// Weights and limits of block I/O.
    pub block_io: BlockIoControls,
}

/// What the controller of block I/O can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockIoControls {
    /// A weight.
    pub weight: bool,
    /// A weight on one device.
    pub weight_device: bool,
    /// Bytes read.
    pub read_bps: bool,
    /// Bytes written.
    pub write_bps: bool,
    /// Reads.
    pub read_iops: bool,
    /// Writes.
    pub write_iops: bool,
}

/// How the cgroup hierarchies are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupLayout {
    /// Controllers are on v1, also if cgroup2 is mounted beside them.
    V1,
    /// One cgroup2 hierarchy with every controller.
    V2,
}

/// A kernel's version, as far as decisions depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl KernelVersion {
    /// Reads `5.15.0-91-generic`; absent if it does not begin with two numbers.
    pub fn parse(release: &str) -> Option<KernelVersion> {
        let mut parts = release.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?;
        let digits = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
        Some(KernelVersion { major, minor: minor[..digits].parse().ok()? })
    }
}

impl HostFacts {
    /// The runtime's name as `inspect` shows it.
    pub const RUNTIME: &str = "longshore";

    /// Its names in requests, which `inspect` shows as they were given.
    pub const OWN_RUNTIMES: [&str; 3] = [HostFacts::RUNTIME, "runc", "io.containerd.runc.v2"];

    /// The runtime of a request, by the name that is kept; none if it is unknown.
    ///
    /// Ours has those of Docker's default, too, which clients send, unless the administrator has given one of them to
    /// another runtime.
    pub fn runtime<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let name = if name.is_empty() { self.default_runtime.as_str() } else { name };
        match name {
            name if self.runtimes.iter().any(|known| known == name) => Some(name),
            "" => Some(HostFacts::RUNTIME),
            name if HostFacts::OWN_RUNTIMES.contains(&name) => Some(name),
            _ => None,
        }
    }

    /// Whether mount_setattr(2) can make a whole tree of mounts read-only (Linux 5.12).
    pub fn recursive_read_only(&self) -> bool {
        self.kernel >= KernelVersion { major: 5, minor: 12 }
    }
}
